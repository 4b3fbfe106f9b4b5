"""How commands end: errors that a user can act on are a message and exit code 1."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import typer


class user_errors:  # noqa: N801 - reads as a statement
    """Turn user-facing errors into a message and exit code 1; other errors keep their traceback.

    When all ranks raise the same error, rank 0 prints it.

    Args:
        once_a_machine: print only on local rank 0.
    """

    def __init__(self, *, once_a_machine: bool = False) -> None:
        self._quiet = once_a_machine and os.environ.get("LOCAL_RANK", "0") != "0"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from settings.section import ConfigError
        from shards.atomic import OutOfSpace
        from shards.metadata import DatasetError
        from training.errors import RunEnded, TrainingError

        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        if not isinstance(error, ConfigError | TrainingError | OutOfSpace | DatasetError):
            return
        rank = int(os.environ.get("RANK", "0"))
        if not (self._quiet or (isinstance(error, RunEnded) and rank != 0)):
            who = "" if rank == 0 else f"process {rank}: "
            typer.echo(f"error: {who}{error}", err=True)
        _report_to_torchrun(str(error))
        sys.exit(1)


def _report_to_torchrun(message: str) -> None:
    """Write the message into the file whose content torchrun prints in its summary."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        # After a full disk this write fails too; the first error is the one to report.
        with suppress(OSError):
            Path(path).write_text(
                json.dumps({"message": message, "timestamp": int(time.time())}), encoding="utf-8"
            )
