"""`mfhq`: build, verify and look at face data sets."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from pipeline.progress import Advance, Reporter
from settings.version import add_version

app = typer.Typer(
    name="mfhq",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn face videos into MFHQ: eight sharp, pose-diverse images of each person, in WebDataset shards.",
)
models_app = typer.Typer(no_args_is_help=True, help="The networks' weights: what there is, and fetching it.")
app.add_typer(models_app, name="models")
add_version(app)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...",
        help="Override the workflow: faces.min_px=160; pipeline/config.py documents all settings",
    ),
]


@app.command()
def build(
    workflow: Annotated[Path, typer.Argument(help="YAML file, such as workflows/curate_embedded.yaml")],
    overrides: Overrides = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Build over what another configuration left in the output.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Curate videos again that failed in an earlier run.")
    ] = False,
) -> None:
    """Build a data set; the same command again continues a build that was stopped.

    Runs on the Ray cluster that RAY_ADDRESS or `ray job submit` names, and otherwise on one that it starts here.

    A workflow needs source.path and output; all settings, their defaults and reasons stand in pipeline/config.py.

    First try: mfhq build workflows/curate_embedded.yaml source.path=/data/clips output=/data/mfhq

    Smaller faces, more frames: the same with faces.min_px=160 frames.per_second=10

    The paper's networks: mfhq build workflows/curate_paper.yaml run.models_dir=/data/models
    source.path=/data/clips output=/data/mfhq, after `mfhq models pull`

    Exit code 0: the data set is whole and verified; when no video gave an identity, a warning says why.

    Exit code 1: something must be done first, and the message says what.
    """
    from pipeline.config import Config
    from pipeline.summary import summary, warning
    from settings.loading import load_workflow

    reporter = Reporter()
    with _errors_in_words():
        config = load_workflow(workflow, overrides or [], Config)
        from pipeline.build_mfhq import run  # takes seconds, and a mistyped key shall not wait for it

        made = run(config, reporter, replace=replace, retry_failed=retry_failed)
        typer.echo(summary(config.output, made.manifest, made.report))
        if text := warning(config.output, made.manifest):
            typer.echo(text, err=True)


@app.command()
def verify(root: Annotated[Path, typer.Argument(help="Folder that holds dataset.json")]) -> None:
    """Read a whole data set and name everything that is wrong with it; exit code 1 when something is."""
    from shards import verify as verifier

    with Reporter().bar("verify", _identities(root)) as advance:
        problems = verifier.verify(root, lambda done: advance(done, ""))
    for problem in problems:
        typer.echo(str(problem))
    if problems:
        typer.echo(f"{root}: {len(problems)} {'problem' if len(problems) == 1 else 'problems'}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{root}: whole, nothing wrong")


@app.command()
def report(root: Annotated[Path, typer.Argument(help="Folder that holds dataset.json")]) -> None:
    """Draw the statistics report of a data set again."""
    from pipeline.report.build import write_report

    with _errors_in_words():
        typer.echo(write_report(root))


@app.command()
def demo_clips(
    folder: Annotated[Path, typer.Argument(help="Where to write the clips and truth.json")],
) -> None:
    """Make short face videos with known head poses and planted defects, for demos and tests."""
    from pipeline.demo.clips import make_demo_clips
    from pipeline.errors import BuildError

    advance: Advance | None = None

    with _errors_in_words(), ExitStack() as bar:

        def progress(name: str, done: int, total: int) -> None:
            nonlocal advance
            advance = advance or bar.enter_context(Reporter().bar("clips", total))
            advance(done, name)

        try:
            clips = make_demo_clips(folder, progress=progress)
        except OSError as error:
            raise BuildError(f"cannot make the clips in {folder}: {error}") from error
        if advance:
            advance(len(clips), "")
    typer.echo(f"{len(clips)} clips in {folder}")


@models_app.command("list")
def list_models(
    models_dir: Annotated[Path | None, typer.Option(help="Folder of weights")] = None,
) -> None:
    """Show every known network: its file, checksum, licence and whether it is there."""
    from pipeline.models_table import models_table

    with _errors_in_words():
        typer.echo(models_table(models_dir))


@models_app.command("pull")
def pull_models(
    wanted: Annotated[
        list[str],
        typer.Argument(
            metavar="WORKFLOW|NETWORK...", help="Workflow files, whose networks are meant, or names"
        ),
    ],
    models_dir: Annotated[Path, typer.Option(help="Folder to put the weights in")],
) -> None:
    """Fetch networks from their official addresses, and check them; what is there already is left alone.

    Example: mfhq models pull workflows/curate_paper.yaml --models-dir /data/models
    """
    from pipeline.models_table import pull_for

    with _errors_in_words():
        typer.echo(pull_for(wanted, models_dir, Reporter()))


def _identities(root: Path) -> int | None:
    """How many samples a data set claims to hold; None when it is too damaged to say."""
    from shards.manifest import DataSetError
    from shards.reader import read_manifest

    try:
        return sum(read_manifest(root).counts.identities.values())
    except (DataSetError, OSError):
        return None


def build_command() -> None:
    """`python pipeline/build_mfhq.py …` is `mfhq build …`."""
    typer.run(build)


def main() -> None:
    """Entry point of `mfhq`."""
    app()


class _errors_in_words:  # noqa: N801 - reads as a statement
    """Turn the errors that a user can act on into a message and exit code 1; others keep their traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from faces.registry import ModelsUnavailable
        from pipeline.errors import BuildError
        from settings.section import ConfigError
        from shards.atomic import OutOfSpace
        from shards.manifest import DataSetError

        if isinstance(error, KeyboardInterrupt):
            typer.echo("stopped; the same command again continues", err=True)
            sys.exit(130)
        if isinstance(error, ConfigError | BuildError | ModelsUnavailable | OutOfSpace | DataSetError):
            typer.echo(f"error: {error}", err=True)
            sys.exit(1)
