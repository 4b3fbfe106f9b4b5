"""The command line of a job, and whether the job is done."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from shards.atomic import write_bytes
from training.evaluate.names import RESULT_FILE
from training.experiments.config import Program
from training.experiments.plan import EVALUATE, EXPORT, Job
from training.experiments.tower import TOWER_FILE
from training.export import WEIGHTS_FILE

CLI = f"{__package__.rpartition('.')[0]}.cli"
"""Module of `omniid`; a wheel has it below another package."""
REPOSITORY = Path(__file__).parents[2]
_DONE = {
    Program.TRAIN: "encoder/config.json",
    Program.AUTOENCODER: WEIGHTS_FILE,
    Program.TOWER: TOWER_FILE,
    EXPORT: "omniid.json",
    EVALUATE: RESULT_FILE,
}
"""The file that each command writes last."""


def is_done(job: Job, root: Path) -> bool:
    """Whether a job has come to its end."""
    return (job.output(root) / _DONE[job.action]).is_file()


def arguments(job: Job, root: Path) -> list[str]:
    """The module that a job runs, and what it is called with; a training's workflow is written to a file first.

    Args:
        job: to run.
        root: output directory of all experiments.
    """
    settings, output = job.settings, str(job.output(root))
    if job.action == Program.TRAIN:
        workflow = root / "workflows" / f"{job.name}.yaml"
        write_bytes(workflow, yaml.safe_dump(settings, sort_keys=False).encode())
        return [CLI, "train", str(workflow)]
    if job.action == EXPORT:
        return [CLI, "export", settings["run"], output, "--step", str(settings["step"])]
    if job.action == EVALUATE:
        line = [CLI, "evaluate", settings["source"], "--data", settings["data"], "--output", output]
        line += ["--inputs", ",".join(map(str, settings["inputs"]))]
        for network in settings["networks"]:
            line += ["--identity-network", network]
        others = settings.keys() - {"source", "data", "inputs", "networks"}
    else:
        line = [f"{__package__}.{job.action}", settings["data"], output, "--continue"]
        others = settings.keys() - {"data"}
    for name in sorted(others):
        line += [f"--{name.replace('_', '-')}", str(settings[name])]
    return line


def command(job: Job, root: Path, processes: str | None = None) -> list[str]:
    """The command line of a job.

    Args:
        job: to run.
        root: output directory of all experiments.
        processes: of torchrun on this machine for training and evaluation, a number or `gpu`; None for one
            process without torchrun.
    """
    launcher = [sys.executable]
    if processes is not None and job.action in {Program.TRAIN, EVALUATE}:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launcher, "-m", *arguments(job, root)]
