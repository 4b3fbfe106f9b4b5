"""`omniid`: train the Omni-ID encoder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="omniid",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train Omni-ID, a representation of a face from any number of photographs, on MFHQ shards.",
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Override the workflow: run.per_process=4"),
]


@app.callback()
def _commands() -> None:
    """Keeps `train` a command of its own while it is the only one."""


@app.command()
def train(
    workflow: Annotated[Path, typer.Argument(help="YAML file, such as workflows/train_mtd_tiny.yaml")],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Build everything, print sizes and memory, take two steps, write nothing into the output.",
        ),
    ] = False,
) -> None:
    """Train; the same command again goes on with a run that was stopped or killed.

    One process, or those that torchrun starts, on any number of machines:

    Example: omniid train workflows/train_mtd_tiny.yaml data.root=/data/mfhq output=/data/runs/tiny

    Example: torchrun --standalone --nproc-per-node=8 training/train.py workflows/train_mtd_paper.yaml
    data.root=s3://bucket/mfhq output=/shared/runs/mtd

    The output folder gets metrics.jsonl, tensorboard/, samples/, checkpoints/ and, at the end, encoder/.

    Exit code 0: trained to the end, or saved and stopped because SIGTERM or SIGINT asked for it.

    Exit code 1: something must be done first, and the message says what.
    """
    from settings.loading import load_workflow
    from training.config import Config

    with _errors_in_words(once_a_machine=True):
        config = load_workflow(workflow, overrides or [], Config)
    with _errors_in_words():
        from training.train import run  # takes seconds, and a mistyped key shall not wait for it

        run(config, dry_run=dry_run)


def train_command() -> None:
    """`python training/train.py …` is `omniid train …`."""
    typer.run(train)


def main() -> None:
    """Entry point of `omniid`."""
    app()


class _errors_in_words:  # noqa: N801 - reads as a statement
    """Turn the errors that a user can act on into a message and exit code 1; others keep their traceback.

    What all processes of a run raise is said once, by the first.
    """

    def __init__(self, *, once_a_machine: bool = False) -> None:
        self._silent = once_a_machine and os.environ.get("LOCAL_RANK", "0") != "0"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from settings.section import ConfigError
        from shards.atomic import OutOfSpace
        from shards.manifest import DataSetError
        from training.errors import RunEnded, TrainingError

        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        if not isinstance(error, ConfigError | TrainingError | OutOfSpace | DataSetError):
            return
        rank = int(os.environ.get("RANK", "0"))
        if not (self._silent or (isinstance(error, RunEnded) and rank != 0)):
            who = "" if rank == 0 else f"process {rank}: "
            typer.echo(f"error: {who}{error}", err=True)
        sys.exit(1)
