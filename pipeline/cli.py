"""`mfhq`: build, verify and inspect face datasets."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.build_command import Overrides, Workflow, build_command
from pipeline.photos.command import photos
from pipeline.progress import Advance, Reporter
from pipeline.user_errors import user_errors
from settings.version import add_version

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.retry import Retry
    from pipeline.reuse import Choice
    from pipeline.summary import Build
    from shards.verify import RunTasks
    from storage.path import AnyPath

app = typer.Typer(
    name="mfhq",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn face videos into MFHQ: eight sharp, pose-diverse images of each person, in WebDataset shards.\n\n"
    "Try it without data: mfhq demo-clips /tmp/clips, then mfhq build workflows/curate_demo.yaml "
    "source.path=/tmp/clips output=/tmp/mfhq, then open /tmp/mfhq/report/index.html.",
)
models_app = typer.Typer(no_args_is_help=True, help="List the networks' weights, and download them.")
app.add_typer(models_app, name="models")
add_version(app)

Root = Annotated[
    str, typer.Argument(help="Directory or URL, such as s3://bucket/mfhq, that contains dataset.json")
]


def _run_build(
    config: Config, reporter: Reporter, *, replace: bool, retry: Retry, staged: Choice | None
) -> Build:
    from pipeline.build_mfhq import run  # takes seconds to import; a mistyped key is reported before that

    return run(config, reporter, replace=replace, retry=retry, staged=staged)


app.command("build")(build_command(_run_build))
app.command("photos")(photos)


@app.command()
def plan(
    workflow: Workflow,
    overrides: Overrides = None,
    *,
    rates: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="report/rates.json of a finished build; that in the workflow's output when not given",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object")] = False,
) -> None:
    """Count what a build would read, and estimate its time and space. Opens no video and needs no weights.

    WORKFLOW and SECTION.KEY=VALUE are those of `mfhq build`; output may be missing.

    Prints for each source how many clips are listed, found and missing, second files of a clip, hours of video,
    bytes, and an estimate from the rates that a build on this machine measured. What is not known is printed as
    unknown, and why.

    Messages go to standard error, the figures to standard output. Exit code 0: all sources are listed. 1: a source
    cannot be listed, or the configuration is not valid.

    Example: mfhq plan workflows/curate_embedded.yaml source.path=/data/clips --rates /data/trial/report/rates.json
    """
    from pipeline.config import PlanConfig
    from pipeline.plan_table import plan_json, plan_table
    from pipeline.planning import plan_sources
    from settings.loading import load_workflow
    from storage.path import path_of

    with user_errors():
        config = load_workflow(workflow, overrides or [], PlanConfig)
        made = plan_sources(config, path_of(rates) if rates else None, Reporter().message)
        typer.echo(plan_json(made) if as_json else plan_table(made))


@app.command()
def verify(root: Root) -> None:
    """Read every byte of a dataset and print all errors.

    Checks tar headers, all digests, images and masks, and that records, tables and dataset.json agree.

    Exit code 0: no errors. 1: errors, one a line on standard output; or ROOT is not a dataset.

    Example: mfhq verify /data/mfhq
    """
    from shards import verify as verifier
    from storage.path import path_of

    with user_errors():
        path = path_of(root)
        _check_is_dataset(path)
        with Reporter().bar("verify", _identities(path)) as advance:
            findings = verifier.verify(path, lambda done: advance(done, ""), _processes(path))
    _exit_if_any(root, [str(finding) for finding in findings])
    typer.echo(f"{root}: valid, no errors")


@app.command()
def report(root: Root) -> None:
    """Write the report of a dataset again: ROOT/report/index.html, one page that opens without a network.

    Exit code 0: the report is complete. 1: ROOT is not a dataset, or files that the report reads are damaged; the
    page then shows the rest.

    Example: mfhq report /data/mfhq
    """
    from pipeline.report.build import write_report
    from pipeline.report.damage import damage
    from storage.path import path_of

    with user_errors():
        path = path_of(root)
        _check_is_dataset(path)
        typer.echo(write_report(path))
        _exit_if_any(root, damage(path))


@app.command()
def status(
    output: Annotated[str, typer.Argument(help="Output of a build, finished or not: a directory or a URL")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Print it again until the build ends")] = False,
) -> None:
    """Show how far a build is: progress, time left, counts and reasons, stages, nodes and their faults.

    Works while the build runs, on any machine that sees OUTPUT, and after it; of a build that did not end well it
    prints the command that continues it. Reads a few small files and needs no Ray.

    Exit code 0: the status is printed. 1: OUTPUT is not the output of a build; with --watch also when the build
    ended without a dataset.

    Example: mfhq status s3://datasets/mfhq --watch
    """
    from pipeline.monitor.status_command import show_status
    from storage.path import path_of

    with user_errors():
        if not show_status(path_of(output), as_json=as_json, watch=watch):
            raise typer.Exit(1)


# A clip's key may begin with a hyphen.
@app.command(context_settings={"ignore_unknown_options": True})
def explain(
    output: Annotated[str, typer.Argument(help="Output of a build, finished or not: a directory or a URL")],
    video: Annotated[
        str, typer.Argument(help="Video id, path in the source, file name, clip of a dataset, or sample key")
    ],
    html: Annotated[
        Path | None, typer.Option(help="Write a page with figures and images to this file")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every frame and face as JSON")] = False,
    source: Annotated[str | None, typer.Option(help="Directory that contains the videos, if moved")] = None,
) -> None:
    """Show why one video was accepted, rejected or failed: its tracks, and the reasons along its time.

    Example: mfhq explain /data/mfhq interview.mp4 --html interview.html

    The clip of a dataset, by its key: mfhq explain /data/mfhq -2KGPYEFnsU_8
    """
    from pipeline.explain.command import explain_video
    from storage.path import path_of

    with user_errors():
        moved = path_of(source) if source is not None else None
        typer.echo(explain_video(path_of(output), video, html=html, as_json=as_json, source=moved))


@app.command()
def demo_clips(
    folder: Annotated[Path, typer.Argument(help="Directory to write the clips and truth.json to")],
) -> None:
    """Make 15 short face videos with known head poses and planted defects, to try the pipeline without data.

    truth.json lists the poses and the expected outcome of each clip.

    Example: mfhq demo-clips /tmp/clips
    """
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
    models_dir: Annotated[
        Path | None, typer.Option(help="Directory of weights and of a models.json with your own")
    ] = None,
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
            metavar="WORKFLOW|NETWORK...",
            help="Workflow files, for all of their networks, or names of networks",
        ),
    ],
    models_dir: Annotated[Path, typer.Option(help="Directory to put the weights in")],
) -> None:
    """Download networks from their official URLs and check their sha256. Files that exist are not replaced.

    Example: mfhq models pull workflows/curate_paper.yaml --models-dir /data/models
    """
    from pipeline.errors import BuildError
    from pipeline.models_table import pull_for

    with user_errors():
        if ":/" in str(models_dir):
            raise BuildError(
                f"{models_dir} is no directory. Give one, then copy its files to the object store"
            )
        typer.echo(pull_for(wanted, models_dir, Reporter()))


def _check_is_dataset(root: AnyPath) -> None:
    from pipeline.errors import BuildError
    from shards.layout import DATASET_JSON

    if not root.is_dir():
        what = "is not a directory" if isinstance(root, Path) else "holds nothing"
        raise BuildError(f"{root} {what}. Pass the directory or URL that contains {DATASET_JSON}.")
    if not (root / DATASET_JSON).is_file():
        unfinished = (root / ".staging").is_dir()
        remedy = (
            "The build there is not finished. If it is not running, run its command again."
            if unfinished
            else "Pass the output directory of a build."
        )
        raise BuildError(f"{root} is not a dataset: it has no {DATASET_JSON}. {remedy}")


def _exit_if_any(root: str, findings: list[str]) -> None:
    if findings:
        for finding in findings:
            typer.echo(finding)
        typer.echo(f"{root}: {len(findings)} {'error' if len(findings) == 1 else 'errors'}", err=True)
        raise typer.Exit(1)


def _identities(root: AnyPath) -> int | None:
    """Number of samples according to dataset.json; None when that is damaged."""
    from shards.metadata import DatasetError
    from shards.reader import read_metadata

    try:
        return sum(read_metadata(root).counts.identities.values())
    except (DatasetError, OSError):
        return None


def _processes(root: AnyPath) -> RunTasks | None:
    """Runs the checks of many shards in processes of this machine; None where threads of this one are enough."""
    from pipeline.cluster.workers import MANY_SHARDS, Processes
    from shards.metadata import DatasetError
    from shards.reader import read_metadata

    try:
        many = len(read_metadata(root).shards) >= MANY_SHARDS
    except (DatasetError, OSError):
        return None
    return Processes().run if many else None


def main() -> None:
    """Entry point of `mfhq`."""
    app()
