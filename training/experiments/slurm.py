"""Submit jobs to Slurm: one batch job each, which starts when those that it needs have succeeded."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from training.errors import TrainingError
from training.experiments.commands import LAUNCH, REPOSITORY, arguments, is_done
from training.experiments.config import Program
from training.experiments.plan import Job


def submit(
    jobs: Sequence[Job], root: Path, options: Sequence[str], message: Callable[[str], None], ranks: int = 1
) -> None:
    """Submit what is not done yet.

    Args:
        jobs: each behind those that it needs.
        root: output directory of all experiments, which every node sees.
        options: of sbatch, such as `--nodes=2`; those of a training.
        message: receives the number of each batch job.
        ranks: that the options give a training, whose micro-batch is made to fit them.

    Raises:
        TrainingError: there is no sbatch, or it rejects a job.
    """
    if shutil.which("sbatch") is None:
        raise TrainingError("sbatch is not on the PATH. Run this on a machine that submits to Slurm")
    (root / "logs").mkdir(parents=True, exist_ok=True)
    submitted: dict[str, str] = {}
    for job in jobs:
        if is_done(job, root):
            message(f"{job.action} {job.name}: done before")
            continue
        after = ":".join(submitted[need.name] for need in job.needs if need.name in submitted)
        line = [
            "sbatch",
            "--parsable",
            f"--job-name={job.name}",
            f"--output={root / 'logs' / f'{job.name}-%j.log'}",
            # One job of a name at a time: submitted again, it waits, and finds its work done.
            f"--dependency={','.join([*([f'afterok:{after}'] if after else []), 'singleton'])}",
            "--kill-on-invalid-dep=yes",
            *options,
            *([] if job.action == Program.TRAIN else ["--nodes=1"]),
            *_script(job, root, ranks),
        ]
        submitted[job.name] = _number(line)
        message(f"{job.action} {job.name}: Slurm job {submitted[job.name]}")


def _script(job: Job, root: Path, ranks: int) -> list[str]:
    if job.action == Program.TRAIN:
        return [str(LAUNCH / "slurm.sbatch"), *arguments(job, root, ranks)[2:]]
    return [str(LAUNCH / "slurm_command.sbatch"), *arguments(job, root)]


def _number(line: list[str]) -> str:
    found = subprocess.run(line, check=False, capture_output=True, text=True, cwd=REPOSITORY)
    if found.returncode:
        raise TrainingError(
            f"sbatch rejected a job: {found.stderr.strip()}. The command was: {' '.join(line)}"
        )
    return found.stdout.strip().partition(";")[0]  # --parsable gives "number;cluster"
