"""The command line of a job, and whether the job is done."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from settings.section import ConfigError
from shards.atomic import write_bytes
from training.config import Config
from training.evaluate.names import RESULT_FILE
from training.experiments.config import Program, Tree
from training.experiments.plan import EVALUATE, EXPORT, Job, merged
from training.experiments.tower import TOWER_FILE
from training.models.flux_folder import WEIGHTS_FILE

CLI = f"{__package__.rpartition('.')[0]}.cli"
"""Module of `omniid`; a wheel has it below another package."""
REPOSITORY = Path(__file__).parents[2]
LAUNCH = REPOSITORY / "workflows" / "launch"
_DONE = {
    Program.TRAIN: "encoder/config.json",
    Program.AUTOENCODER: WEIGHTS_FILE,
    Program.TRANSFORMER: WEIGHTS_FILE,
    Program.TOWER: TOWER_FILE,
    EXPORT: "omniid.json",
    EVALUATE: RESULT_FILE,
}
"""The file that each command writes last."""


def is_done(job: Job, root: Path) -> bool:
    """Whether a job has come to its end."""
    return (job.output(root) / _DONE[job.action]).is_file()


def arguments(job: Job, root: Path, processes: int = 1) -> list[str]:
    """The module that a job runs, and what it is called with; a training's workflow is written to a file first.

    Args:
        job: to run.
        root: output directory of all experiments.
        processes: of a training, whose micro-batch is made to fit them.
    """
    settings, output = job.settings, str(job.output(root))
    if job.action == Program.TRAIN:
        workflow = root / "workflows" / f"{job.name}.yaml"
        settings = with_fitting_micro_batch(settings, processes)
        write_bytes(workflow, yaml.safe_dump(settings, sort_keys=False).encode())
        return [CLI, "train", str(workflow)]
    if job.action == EXPORT:
        return [CLI, "export", settings["run"], output, "--step", str(settings["step"])]
    if job.action == EVALUATE:
        line = [CLI, "evaluate", settings["source"], "--data", settings["data"], "--output", output]
        # On Slurm, a training that was told to stop ends as one that has finished.
        line += ["--finished", "--inputs", ",".join(map(str, settings["inputs"]))]
        for network in settings["networks"]:
            line += ["--identity-network", network]
        others = settings.keys() - {"source", "data", "inputs", "networks"}
    else:
        line = [f"{__package__}.{job.action}", settings["data"], output, "--continue"]
        others = settings.keys() - {"data"}
    for name in sorted(others):
        line += [f"--{name.replace('_', '-')}", str(settings[name])]
    return line


def with_fitting_micro_batch(settings: Tree, processes: int) -> Tree:
    """The workflow of a training with the largest micro-batch up to its own that divides each process's share.

    A step is the same with smaller micro-batches, and so is the job's name, which follows from the workflow as
    it was planned. A batch that the processes cannot share is left alone: the training's error names it.

    Args:
        settings: the workflow.
        processes: that train.
    """
    if processes == 1:
        return settings
    config = Config.model_validate(settings)
    share, rest = divmod(config.batch, processes)
    if rest:
        return settings
    largest = max(size for size in range(1, min(share, config.run.per_process) + 1) if share % size == 0)
    if largest == config.run.per_process:
        return settings
    return merged(settings, {"run": {"per_process": largest}})


def command(job: Job, root: Path, processes: str | None = None) -> list[str]:
    """The command line of a job; its environment has `PYTHON`, the interpreter.

    Args:
        job: to run.
        root: output directory of all experiments.
        processes: of torchrun on this machine for training and evaluation, a number or `gpu`; None for one
            process without torchrun.
    """
    if processes is None or job.action not in {Program.TRAIN, EVALUATE}:
        return [sys.executable, "-m", *arguments(job, root)]
    # torchrun by itself kills a training half a minute after SIGTERM, when it may still save.
    launcher = [str(LAUNCH / "torchrun.sh"), "--standalone", f"--nproc-per-node={processes}"]
    return [*launcher, "-m", *arguments(job, root, process_count(processes))]


def process_count(processes: str) -> int:
    """How many processes torchrun starts on this machine.

    Args:
        processes: a number, or `gpu`.

    Raises:
        ConfigError: it is neither a number above 0 nor `gpu`.
    """
    if processes == "gpu":
        import torch

        return max(1, torch.cuda.device_count())  # torchrun has the error where there is none
    if not processes.isdecimal() or int(processes) < 1:
        raise ConfigError(f"--processes: expected a number above 0, or gpu, got {processes!r}")
    return int(processes)
