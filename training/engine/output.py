"""The output folder of a run: one run at a time in it, and what the run is, written at its start."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from io import FileIO
from pathlib import Path

import torch

from shards.atomic import remove_temporaries, write_bytes
from training.config import Config
from training.data.dataset import StreamedDataset
from training.engine.consensus import Consensus
from training.engine.jsonl import out_of_space_in_words
from training.errors import TrainingError

LOCK_FILE = ".lock"
RUN_FILE = "run.json"
ENCODER_FOLDER = "encoder"
SAMPLES_FOLDER = "samples"
SEEN_S = 10.0
"""How long a shared file system may take to show what another machine has written."""


@contextmanager
def alone(config: Config, consensus: Consensus) -> Iterator[None]:
    """Hold the output folder for the time of the `with` block.

    The processes of a run may outlive a torchrun that was killed; a second run beside them would write the same
    checkpoints. The system lets go of the lock when the process ends, however it ends; where a file system knows
    no locks, nothing is held.

    Raises:
        RunEnded: another run holds it, it cannot be written to, or a process sees another folder under its name.
    """
    held = None
    try:
        token = consensus.from_leader(lambda: secrets.token_hex(8))
        with consensus.together():
            if consensus.world.leads:
                held = _lock(config.output)
                with out_of_space_in_words(config.output / LOCK_FILE):
                    held.write(token.encode())
                    os.fsync(held.fileno())
                remove_temporaries(config.output)
        with consensus.together():
            _check_seen(config.output, token)
        yield
    finally:
        if held is not None:
            held.close()


def _lock(output: Path) -> FileIO:
    try:
        output.mkdir(parents=True, exist_ok=True)
        # Not buffered: what a full disk refused must not be tried again when the file is closed.
        file = (output / LOCK_FILE).open("ab", buffering=0)
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
    file.truncate(0)
    return file


def _check_seen(output: Path, token: str) -> None:
    """Whether what the first process has written is here: a checkpoint would have its parts on several disks."""
    deadline = time.monotonic() + SEEN_S
    lock = output / LOCK_FILE
    while not (lock.is_file() and lock.read_text() == token):
        if time.monotonic() > deadline:
            raise TrainingError(
                f"the output {output.resolve()} of {socket.gethostname()} is not the folder that the first "
                "process writes to; give one that every machine sees under the same name"
            )
        time.sleep(0.1)


def check_unfinished(output: Path) -> None:
    """Refuse to start from nothing where a run has ended: what it left would stand beside a new one's.

    Raises:
        TrainingError: there is its encoder.
    """
    if (output / ENCODER_FOLDER).exists():
        raise TrainingError(
            f"{output} holds the encoder of a finished run, but no checkpoint to go on from. Give another output, "
            f"or remove {output / ENCODER_FOLDER} to start anew in this one"
        )


def write_run_file(config: Config, dataset: StreamedDataset) -> None:
    """Write down what the run is: its whole configuration, the data set, the versions of what it runs on.

    Raises:
        OutOfSpace: the disk is full.
    """
    facts = {
        "config": config.model_dump(mode="json"),
        "dataset_sha256": dataset.digest,
        "crop_scale": dataset.crop_scale,
        "versions": {"omniid": version("omniid"), "torch": torch.__version__},
    }
    write_bytes(config.output / RUN_FILE, (json.dumps(facts, indent=2) + "\n").encode())
