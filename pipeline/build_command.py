"""The command line of a build, shared by `mfhq build` and `python pipeline/build_mfhq.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from pipeline.progress import Reporter
from pipeline.user_errors import user_errors

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.summary import Build

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...",
        help="Override the workflow: faces.min_crop_px=256; pipeline/config.py documents all keys",
    ),
]


class RunBuild(Protocol):
    """`pipeline.build_mfhq.run`, or a function that imports it first."""

    def __call__(self, config: Config, reporter: Reporter, *, replace: bool, retry_failed: bool) -> Build:
        """Build a dataset."""
        ...


def build_command(run: RunBuild) -> Callable[..., None]:
    """The typer command that reads a workflow, runs it with `run` and prints the summary."""

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
        """Build a dataset; the same command continues a build that was stopped.

        Runs on the Ray cluster that RAY_ADDRESS or `ray job submit` names, and otherwise starts one here.

        A workflow needs source.path and output. pipeline/config.py documents all keys, their defaults and reasons.

        First try: mfhq build workflows/curate_embedded.yaml source.path=/data/clips output=/data/mfhq

        Smaller faces, more frames: the same with faces.min_crop_px=256 frames.per_second=10

        The paper's networks: mfhq build workflows/curate_paper.yaml run.models_dir=/data/models
        source.path=/data/clips output=/data/mfhq, after `mfhq models pull`

        Exit code 0: the dataset is complete and verified; when no video gives an identity, a warning says why.

        Exit code 1: the build cannot go on; the message says why and what to do.
        """
        from pipeline.config import Config
        from pipeline.summary import summary, warning
        from settings.loading import load_workflow

        with user_errors():
            config = load_workflow(workflow, overrides or [], Config)
            made = run(config, Reporter(), replace=replace, retry_failed=retry_failed)
            typer.echo(summary(config.output, made))
            if text := warning(config.output, made.metadata):
                typer.echo(text, err=True)

    return build
