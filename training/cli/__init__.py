"""`omniid`: train the Omni-ID encoder and its decoders, export, encode, generate, evaluate, run experiments."""

from __future__ import annotations

import typer

from settings.version import add_version
from training.cli import measure, train, use

app = typer.Typer(
    name="omniid",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train Omni-ID, a representation of a face from any number of photographs, on MFHQ shards.",
)
add_version(app)
for command in (
    train.train,
    train.latents,
    use.export,
    use.sample,
    use.encode,
    use.attention,
    measure.evaluate,
    measure.experiment,
):
    app.command()(command)


def train_command() -> None:
    """`python training/train.py …` is `omniid train …`."""
    typer.run(train.train)


def latents_command() -> None:
    """`python training/latents.py …` is `omniid latents …`."""
    typer.run(train.latents)


def main() -> None:
    """Entry point of `omniid`."""
    app()
