"""`mfhq`: build, verify and look at face datasets."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.build_command import build_command
from pipeline.progress import Advance, Reporter
from pipeline.user_errors import user_errors
from settings.version import add_version

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.reuse import Choice
    from pipeline.summary import Build

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


def _run_build(
    config: Config, reporter: Reporter, *, replace: bool, retry_failed: bool, staged: Choice | None
) -> Build:
    from pipeline.build_mfhq import run  # takes seconds to import; a mistyped key is reported before that

    return run(config, reporter, replace=replace, retry_failed=retry_failed, staged=staged)


app.command("build")(build_command(_run_build))


@app.command()
def verify(root: Annotated[Path, typer.Argument(help="Folder that holds dataset.json")]) -> None:
    """Read a whole dataset and name everything that is wrong with it; exit code 1 when something is."""
    from shards import verify as verifier

    with Reporter().bar("verify", _identities(root)) as advance:
        findings = verifier.verify(root, lambda done: advance(done, ""))
    for finding in findings:
        typer.echo(str(finding))
    if findings:
        typer.echo(f"{root}: {len(findings)} {'error' if len(findings) == 1 else 'errors'}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{root}: valid, no errors")


@app.command()
def report(root: Annotated[Path, typer.Argument(help="Folder that holds dataset.json")]) -> None:
    """Draw the statistics report of a dataset again."""
    from pipeline.report.build import write_report

    with user_errors():
        typer.echo(write_report(root))


@app.command()
def explain(
    output: Annotated[Path, typer.Argument(help="Output directory of a build, finished or not")],
    video: Annotated[str, typer.Argument(help="Video id, path in the source, file name or sample key")],
    html: Annotated[
        Path | None, typer.Option(help="Write a page with figures and images to this file")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every frame and face as JSON")] = False,
    source: Annotated[Path | None, typer.Option(help="Directory that holds the videos, if moved")] = None,
) -> None:
    """Show why one video became what it became: its tracks, and the reasons along its time.

    Example: mfhq explain /data/mfhq interview.mp4 --html interview.html
    """
    from pipeline.explain.command import explain_video

    with user_errors():
        typer.echo(explain_video(output, video, html=html, as_json=as_json, source=source))


@app.command()
def demo_clips(
    folder: Annotated[Path, typer.Argument(help="Where to write the clips and truth.json")],
) -> None:
    """Make short face videos with known head poses and planted defects, for demos and tests."""
    from pipeline.demo.clips import make_demo_clips
    from pipeline.errors import BuildError

    advance: Advance | None = None

    with user_errors(), ExitStack() as bar:

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
    """Show every known network: its file, checksum, license and whether it is there."""
    from pipeline.models_table import models_table

    with user_errors():
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

    with user_errors():
        typer.echo(pull_for(wanted, models_dir, Reporter()))


def _identities(root: Path) -> int | None:
    """How many samples a dataset claims to hold; None when it is too damaged to say."""
    from shards.metadata import DatasetError
    from shards.reader import read_metadata

    try:
        return sum(read_metadata(root).counts.identities.values())
    except (DatasetError, OSError):
        return None


def main() -> None:
    """Entry point of `mfhq`."""
    app()
