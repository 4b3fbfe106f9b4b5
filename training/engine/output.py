"""The output directory of a run: its lock, and `run.json`, which is written at the start."""

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
from io import FileIO
from pathlib import Path

import torch

from settings.version import project_version
from shards.atomic import remove_temporaries, write_bytes
from training.config import Config
from training.data.dataset import StreamedDataset
from training.engine.collectives import Collectives
from training.engine.jsonl import as_out_of_space
from training.errors import TrainingError

LOCK_FILE = ".lock"
RUN_FILE = "run.json"
ENCODER_FOLDER = "encoder"
SAMPLES_FOLDER = "samples"
VISIBLE_WITHIN_S = 10.0
"""Time in which a shared file system shows the writes of another node, at most."""


@contextmanager
def lock_output(config: Config, collectives: Collectives) -> Iterator[None]:
    """Lock the output directory for the time of the `with` block.

    The ranks of a run may outlive a torchrun that was killed, and a second run beside them would write the same
    checkpoints. The system releases the lock when the process ends, however it ends. On a file system without
    locks, there is none.

    Raises:
        RunEnded: another run holds the lock, the directory cannot be written to, or a rank sees another directory
            under its name.
    """
    held = None
    try:
        token = collectives.broadcast(lambda: secrets.token_hex(8))
        with collectives.barrier():
            if collectives.world.is_main:
                held = _lock(config.output)
                with as_out_of_space(config.output / LOCK_FILE):
                    held.write(token.encode())
                    os.fsync(held.fileno())
                remove_temporaries(config.output)
        with collectives.barrier():
            _check_visible(config.output, token)
        yield
    finally:
        if held is not None:
            held.close()


def _lock(output: Path) -> FileIO:
    try:
        output.mkdir(parents=True, exist_ok=True)
        # Not buffered: a write that failed on a full disk must not be repeated when the file is closed.
        file = (output / LOCK_FILE).open("ab", buffering=0)
    except OSError as error:
        raise TrainingError(
            f"the output {output} cannot be used: {error.filename}: {error.strerror}. Use a directory that can be "
            "written to"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise TrainingError(
            f"another run is writing to {output}. Wait for it, or end its processes"
        ) from error
    except OSError as error:
        if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}:
            raise
    file.truncate(0)
    return file


def _check_visible(output: Path, token: str) -> None:
    """Check that this rank sees what rank 0 has written: otherwise checkpoints would be scattered over disks."""
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    lock = output / LOCK_FILE
    while not (lock.is_file() and lock.read_text() == token):
        if time.monotonic() > deadline:
            raise TrainingError(
                f"the output {output.resolve()} of {socket.gethostname()} is not the directory that rank 0 writes "
                "to. Use one that every node sees under the same path"
            )
        time.sleep(0.1)


def check_unfinished(output: Path) -> None:
    """Check that no finished run has left its files where a new one would start.

    Raises:
        TrainingError: its encoder is there.
    """
    if (output / ENCODER_FOLDER).exists():
        raise TrainingError(
            f"{output} holds the encoder of a finished run, but no checkpoint to resume from. Use another output, "
            f"or remove {output / ENCODER_FOLDER} to start a new run in this one"
        )


def write_run_file(config: Config, dataset: StreamedDataset, crop_scale: float | None) -> None:
    """Write `run.json`: the whole configuration, the dataset, and the versions of omniid and torch.

    Args:
        config: of the run.
        dataset: that it is trained on.
        crop_scale: of the images that the representation is trained on; None when not known.

    Raises:
        OutOfSpace: the disk is full.
    """
    facts = {
        "config": config.model_dump(mode="json"),
        "dataset_sha256": dataset.digest,
        "crop_scale": crop_scale,
        "versions": {"omniid": project_version(), "torch": torch.__version__},
    }
    write_bytes(config.output / RUN_FILE, (json.dumps(facts, indent=2) + "\n").encode())
