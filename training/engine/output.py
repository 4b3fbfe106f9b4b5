"""The output folder of a run: one run at a time in it, and what the run is, written at its start."""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import torch

from shards.atomic import remove_temporaries, write_bytes
from training.config import Config
from training.data.dataset import StreamedDataset
from training.engine.consensus import Consensus
from training.errors import TrainingError

LOCK_FILE = ".lock"
RUN_FILE = "run.json"
ENCODER_FOLDER = "encoder"


@contextmanager
def alone(config: Config, consensus: Consensus) -> Iterator[None]:
    """Hold the output folder for the time of the `with` block.

    The processes of a run may outlive a torchrun that was killed; a second run beside them would write the same
    checkpoints. The system lets go of the lock when the process ends, however it ends; where a file system knows
    no locks, nothing is held.

    Raises:
        RunEnded: another run holds it, or it cannot be written to.
    """
    held = None
    try:
        with consensus.together():
            if consensus.world.leads:
                held = _lock(config.output)
                remove_temporaries(config.output)
        yield
    finally:
        if held is not None:
            held.close()


def _lock(output: Path) -> TextIO:
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = (output / LOCK_FILE).open("w")
    except OSError as error:
        raise TrainingError(
            f"the output {output} cannot be used: {error.filename}: {error.strerror}; give a folder that can be "
            "written to"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise TrainingError(
            f"another run is writing to {output}; wait for it, or end its processes"
        ) from error
    except OSError as error:
        if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}:
            raise
    return file


def write_run_file(config: Config, dataset: StreamedDataset) -> None:
    """Write down what the run is: its whole configuration, the data set, the versions of what it runs on.

    Raises:
        OutOfSpace: the disk is full.
    """
    facts = {
        "config": config.model_dump(mode="json"),
        "dataset_sha256": dataset.digest,
        "versions": {"omniid": version("omniid"), "torch": torch.__version__},
    }
    write_bytes(config.output / RUN_FILE, (json.dumps(facts, indent=2) + "\n").encode())
