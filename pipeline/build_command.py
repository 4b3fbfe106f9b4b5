"""The command line of a build, shared by `mfhq build` and `python pipeline/build_mfhq.py`."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from pipeline.errors import BuildError
from pipeline.monitor.job import submission_id
from pipeline.progress import LogFormat, Reporter
from pipeline.user_errors import user_errors

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.retry import Retry
    from pipeline.reuse import Choice
    from pipeline.summary import Build

STOPPED = "stopped; the same command continues"
SUBMIT = "workflows/curate/submit.sh"
"""Submits a build as a job."""

Workflow = Annotated[Path, typer.Argument(help="YAML file, such as workflows/curate_embedded.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...",
        help="Override the workflow, such as faces.min_crop_px=256 (the value is YAML)",
    ),
]


class RunBuild(Protocol):
    """`pipeline.build_mfhq.run`, or a function that imports it first."""

    def __call__(
        self, config: Config, reporter: Reporter, *, replace: bool, retry: Retry, staged: Choice | None
    ) -> Build:
        """Build a dataset."""
        ...


def build_command(run: RunBuild) -> Callable[..., None]:
    """The typer command that reads a workflow, runs it with `run` and prints the summary."""

    def build(
        workflow: Workflow,
        overrides: Overrides = None,
        *,
        dry_run: Annotated[
            bool,
            typer.Option(
                "--dry-run",
                help="Check the sources, the networks, the output and every node of the cluster, print how many "
                "analysers each node holds, and write nothing.",
            ),
        ] = False,
        replace: Annotated[
            bool,
            typer.Option(
                "--replace", help="Build over the dataset of another configuration in the output directory."
            ),
        ] = False,
        retry_failed: Annotated[
            bool,
            typer.Option("--retry-failed", help="Curate the videos again that failed in an earlier run."),
        ] = False,
        retry_reason: Annotated[
            list[str] | None,
            typer.Option(
                metavar="REASON",
                help="Curate the videos again that failed or were rejected for this reason, such as timeout. May "
                "be given several times.",
            ),
        ] = None,
        retry: Annotated[
            str | None,
            typer.Option(
                metavar="FILE",
                help="Curate the videos again that FILE lists: OUTPUT/report/not_accepted.tsv, or lines of it.",
            ),
        ] = None,
        keep_staged: Annotated[
            bool,
            typer.Option(
                "--keep-staged", help="Use videos that other library versions or another device finished."
            ),
        ] = False,
        redo: Annotated[bool, typer.Option("--redo", help="Curate those videos again.")] = False,
        log_format: Annotated[
            LogFormat,
            typer.Option(help="Of progress and messages: text, or JSON with one object a line."),
        ] = LogFormat.TEXT,
    ) -> None:
        """Build a dataset from face videos or the clips of face datasets.

        The same command continues a build that was stopped.

        The workflow is a YAML file; SECTION.KEY=VALUE overrides a value in it. source.path and output have no
        default. pipeline/config.py documents all keys.

        First try: mfhq build workflows/curate_embedded.yaml source.path=/data/clips output=/data/mfhq

        Smaller faces, more frames: the same with faces.min_crop_px=256 frames.per_second=10

        The clips of a dataset: the same with source.kind=celebv-hq source.annotations=/data/celebvhq_info.json;
        docs/datasets.md has all kinds. A workflow with a section `sources` builds from several.

        Some of the videos: the same with 'source.include=["train/*"]' 'source.exclude=["*/raw/*"]'

        The paper's networks: mfhq models pull workflows/curate_paper.yaml --models-dir /data/models, then
        mfhq build workflows/curate_paper.yaml run.models_dir=/data/models source.path=/data/clips
        output=/data/mfhq

        What failed for a passing cause: the same with --retry-reason timeout. The list of all failed and rejected
        videos is OUTPUT/report/not_accepted.tsv; --retry takes it, or a part of it.

        Before days of work: the same with --dry-run, on the cluster that is to run it.

        Runs on the Ray cluster that RAY_ADDRESS or `ray job submit` names; otherwise starts Ray on this machine.

        Progress and messages go to standard error, the summary to standard output. mfhq status OUTPUT tells how
        far the build is, also from another machine. Ctrl-C keeps all finished videos.

        Exit code 0: the dataset is complete and verified. A warning is printed when no video gives an identity.

        Exit code 1: the configuration is not valid or the build cannot go on; the message says why and what to
        do. 2: an unknown option. 130: Ctrl-C.
        """
        from pipeline.config import Config
        from pipeline.retry import Retry
        from pipeline.summary import summary, warning
        from settings.loading import load_workflow
        from storage.path import path_of

        reporter = Reporter(log_format=log_format, command=_command())
        with user_errors(STOPPED, reporter.ending):
            staged = _choice(keep_staged=keep_staged, redo=redo)
            config = load_workflow(workflow, overrides or [], Config)
            again = Retry(retry_failed, tuple(retry_reason or ()), path_of(retry) if retry else None)
            if dry_run:
                from pipeline.dry_run import dry_run as check

                for line in check(config, reporter, replace=replace, retry=again, staged=staged).lines():
                    typer.echo(line)
                return
            made = run(config, reporter, replace=replace, retry=again, staged=staged)
            counts = made.metadata.counts.model_dump(mode="json")
            reporter.event("finished", "the dataset is complete and verified", **counts)
            typer.echo(summary(config.output, made))
            if text := warning(made.metadata):
                reporter.message(text, "warning", logging.WARNING)

    return build


def _command() -> str:
    """The command that does the same again, as a shell takes it."""
    program, *arguments = sys.argv
    name = Path(program).name
    if submission_id() and name.endswith(".py"):
        return shlex.join([SUBMIT, *arguments])
    words = ["python", program] if name.endswith(".py") else [name]
    cluster = f"RAY_ADDRESS={shlex.quote(address)} " if (address := os.environ.get("RAY_ADDRESS")) else ""
    return cluster + shlex.join([*words, *arguments])


def _choice(*, keep_staged: bool, redo: bool) -> Choice | None:
    if keep_staged and redo:
        raise BuildError("--keep-staged and --redo exclude each other. Give one of them.")
    return "keep" if keep_staged else "redo" if redo else None
