"""Real training processes for tests: forked from one that has imported everything, so that they start at once.

They are what torchrun starts (its environment variables, `training/train.py`'s command line), each with a log of
its own, and can be sent any signal.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "shards"))

WAIT_S = 240
VARYING = ("speed/", "memory/")
WORKFLOW = """\
data: {inputs: [1, 3], targets: 2}
representation: {size: tiny}
decoders: {mtd: {}}
steps: 10
batch: 4
seed: 5
optimiser: {learning_rate: 1.0e-3, warmup_steps: 3}
validation: {every: 5, identities: 3, grid_persons: 2, targets: 2}
checkpoints: {every: 2, keep: 2}
run: {per_process: 1, precision: fp32, log_every: 1, decode_threads: 1, prefetch: 2}
"""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        *("training.train", "torch.utils.tensorboard", "torch._inductor", "open_clip"),
        # What the flow decoder imports where it is built: half a minute of a processor.
        *("diffusers.models.transformers.transformer_flux", "diffusers.models.autoencoders.autoencoder_kl"),
        *("diffusers.schedulers.scheduling_flow_match_euler_discrete", "transformers.models.t5.modeling_t5"),
    ]
)


def make_dataset(root: Path, train: int = 11, test: int = 3) -> Path:
    """A dataset of noise."""
    import shards_factory as factory

    from shards.schema import Split
    from shards.writer import write_dataset

    samples = [factory.sample(f"held{number:02}_0", Split.TEST) for number in range(test)]
    samples += [factory.sample(f"seen{number:02}_0", Split.TRAIN) for number in range(train)]
    limits = factory.ShardLimits(max_samples=4)
    write_dataset(root, samples, factory.videos(samples), factory.PROVENANCE, limits)
    return root


class Trainers:
    """The processes of a run."""

    def __init__(
        self,
        folder: Path,
        world_size: int,
        arguments: Sequence[str],
        folders: Sequence[Path] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        program: str = "train",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.logs = [folder / f"process-{rank}.log" for rank in range(world_size)]
        self.processes = [
            _forks.Process(
                target=_train,
                args=(
                    list(arguments),
                    log,
                    folders[rank] if folders else None,
                    _environment(rank, world_size, port) | dict(environment or {}),
                    program,
                ),
                daemon=True,
            )
            for rank, log in enumerate(self.logs)
        ]
        for process in self.processes:
            process.start()

    def wait(self) -> list[int | None]:
        """Exit codes of all processes."""
        deadline = time.monotonic() + WAIT_S
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        if None in codes:
            self.kill()
            raise AssertionError(f"a process hangs: {codes}\n{self.said()}")
        return codes

    def signal(self, number: signal.Signals, ranks: Sequence[int] | None = None) -> None:
        for rank in ranks if ranks is not None else range(len(self.processes)):
            if self.processes[rank].is_alive():
                os.kill(self.processes[rank].pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.join()

    def until(self, condition: Callable[[], object], poll_s: float = 0.01) -> None:
        """Wait for something to happen while all processes run."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert all(process.is_alive() for process in self.processes), self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(poll_s)

    def said(self) -> str:
        return "\n".join(f"[{rank}] {self.log(rank)}" for rank in range(len(self.logs)))

    def log(self, rank: int) -> str:
        return self.logs[rank].read_text() if self.logs[rank].exists() else ""


class Run:
    """A run in a folder of its own: its command, started as often as need be."""

    def __init__(self, folder: Path, root: Path | str, *overrides: str) -> None:
        self.folder = folder
        self.output = folder / "output"
        folder.mkdir(parents=True, exist_ok=True)
        workflow = folder / "workflow.yaml"
        workflow.write_text(WORKFLOW)
        self.arguments = [str(workflow), f"data.root={root}", f"output={self.output}", *overrides]
        self._starts = 0

    @contextmanager
    def started(
        self,
        world_size: int,
        *overrides: str,
        folders: Sequence[Path] | None = None,
        environment: Mapping[str, str] | None = None,
        program: str = "train",
    ) -> Iterator[Trainers]:
        """The processes, which are gone when the block ends.

        Args:
            world_size: how many.
            overrides: of the configuration.
            folders: the working folder of each.
            environment: variables that they see besides.
            program: `train`, or `latents`.
        """
        self._starts += 1
        trainers = Trainers(
            self.folder / f"start-{self._starts}",
            world_size,
            [*self.arguments, *overrides],
            folders,
            environment,
            program=program,
        )
        try:
            yield trainers
        finally:
            trainers.kill()

    def ended(
        self, world_size: int, *overrides: str, codes: Sequence[int] | None = None, **how: Any
    ) -> Trainers:
        """Run to the end; the exit codes must be those given, by default 0."""
        with self.started(world_size, *overrides, **how) as trainers:
            found = trainers.wait()
        assert found == (list(codes) if codes is not None else [0] * world_size), trainers.said()
        return trainers

    def refused(self, world_size: int, *overrides: str, **how: Any) -> str:
        """The message with which all processes end with exit code 1; said once, by the first."""
        trainers = self.ended(world_size, *overrides, codes=[1] * world_size, **how)
        message = trainers.log(0)
        assert "Traceback" not in trainers.said(), trainers.said()
        assert message.count("\nerror: ") + message.startswith("error: ") == 1, message
        assert not any("error" in trainers.log(rank) for rank in range(1, world_size)), trainers.said()
        return message[message.index("error: ") :]

    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics, without what no two runs have in common."""
        path = self.output / "metrics.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [
            {name: value for name, value in line.items() if not name.startswith(VARYING)} for line in found
        ]

    def steps(self) -> int:
        """The last step in the metrics."""
        try:
            return max((line["step"] for line in self.lines()), default=0)
        except ValueError:  # a line is being written
            return 0

    def series(self, name: str) -> list[float]:
        return [line[name] for line in self.lines() if name in line]

    def checkpoints(self) -> list[str]:
        folder = self.output / "checkpoints"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def stopped(
        self, world_size: int, step: int, *overrides: str, ranks: Sequence[int] | None = None
    ) -> None:
        """Run until a step is done, then ask some of the processes, or all, to stop."""
        with self.started(world_size, *overrides) as trainers:
            trainers.until(lambda: self.steps() >= step)
            trainers.signal(signal.SIGTERM, ranks)
            assert trainers.wait() == [0] * world_size, trainers.said()
            assert "stopped and saved at step" in trainers.log(0), trainers.said()

    def tensors(self) -> dict[str, Any]:
        """All that the newest checkpoint holds, whole."""
        import torch
        import torch.distributed.checkpoint as dcp

        folder = self.output / "checkpoints" / self.checkpoints()[-1]
        table = dcp.FileSystemReader(folder).read_metadata()
        found = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in table.state_dict_metadata.items()
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is loaded in a single process, as it should be
            dcp.load(found, checkpoint_id=folder, no_dist=True)
        return found

    def encoder(self) -> bytes:
        return (self.output / "encoder" / "model.safetensors").read_bytes()


def each_of(world_size: int, function: Callable[[int], Any]) -> list[Any]:
    """What a function of the rank returns, in processes that can find each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    pipes = [_forks.Pipe(duplex=False) for _ in range(world_size)]
    processes = [
        _forks.Process(
            target=_call, args=(function, rank, _environment(rank, world_size, port), sender), daemon=True
        )
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        for _, sender in pipes:
            sender.close()
        return [receiver.recv() for receiver, _ in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _environment(rank: int, world_size: int, port: str) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }


def _train(
    arguments: list[str], log: Path, folder: Path | None, environment: dict[str, str], program: str
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ |= environment
    if folder is not None:
        os.chdir(folder)
    sys.argv = [f"{program}.py", *arguments]

    import torch

    from training.cli import latents_command, train_command

    torch.set_num_threads(1)
    {"train": train_command, "latents": latents_command}[program]()


def _call(function: Callable[[int], Any], rank: int, environment: dict[str, str], sender: Any) -> None:
    os.environ |= environment
    import torch

    torch.set_num_threads(1)
    sender.send(function(rank))
