"""The command `mfhq photos`."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.build_command import STOPPED, Overrides
from pipeline.progress import LogFormat, Reporter
from pipeline.user_errors import user_errors

if TYPE_CHECKING:
    from pipeline.photos.build_photos import PhotosBuild
    from pipeline.photos.config import PhotosConfig


def photos(
    source: Annotated[
        str,
        typer.Argument(help="Directory or URL that contains one directory of photographs for each person"),
    ],
    output: Annotated[str, typer.Argument(help="Directory or URL to write the dataset to")],
    overrides: Overrides = None,
    *,
    workflow: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file with the same keys; the embedded networks without one."),
    ] = None,
    aligned: Annotated[
        bool,
        typer.Option(
            "--aligned",
            help="The images are faces that were cut out already, as in CASIA-WebFace: each is stored whole.",
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Write over the dataset of another configuration in OUTPUT."),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Curate the people again of whom a photograph failed."),
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of progress and messages: text, or JSON with one object a line.")
    ] = LogFormat.TEXT,
) -> None:
    """Make a dataset from photographs of people instead of videos, one directory a person.

    It has the format that `mfhq build` writes, so `mfhq verify` and `omniid train` read it. Every eight usable
    photographs of a person become an identity. People with fewer are rejected; with people.fill_from=4, those with
    four or more become an identity whose images are repeated. All identities of a person are in one split.

    The same command continues a run that was stopped. SECTION.KEY=VALUE sets a key; pipeline/photos/config.py
    documents all.

    Example: mfhq photos /data/lfw /data/mfhq-lfw source.subject=central split.test_people=40

    The face alone, for small networks: the same with faces.crop_scale=1.1

    Aligned faces of 112 px: mfhq photos /data/casia-webface /data/mfhq-webface --aligned

    The paper's networks: mfhq models pull scrfd_10g arcface_r50 topiq_nr-face --models-dir /data/models, then the
    same with run.models_dir=/data/models models.detector=scrfd_10g models.embedder=arcface_r50
    models.quality=topiq_nr-face

    OUTPUT/report/photographs.tsv has a line for each photograph: used, spare, rejected or failed, and why. A
    damaged file, a file that is no image, or a photograph without a face costs only itself.

    Progress and messages go to standard error, the summary to standard output.

    Exit code 0: the dataset is complete and verified. 1: the configuration is not valid, or the run cannot go on;
    the message says why and what to do. 130: Ctrl-C; finished people are kept.
    """
    from pipeline.photos.build_photos import run
    from pipeline.photos.config import PhotosConfig
    from settings.loading import load_workflow

    reporter = Reporter(log_format=log_format)
    with user_errors(STOPPED, reporter.ending):
        given = [f"source.path={json.dumps(source)}", f"output={json.dumps(output)}"]
        given += ["source.aligned=true"] if aligned else []
        config = load_workflow(workflow, [*given, *(overrides or [])], PhotosConfig)
        made = run(config, reporter, replace=replace, retry_failed=retry_failed)
        counts = made.metadata.counts.model_dump(mode="json")
        reporter.event("finished", "the dataset is complete and verified", **counts)
        typer.echo(summary(config, made))
        if not sum(made.metadata.counts.identities.values()):
            text = "warning: no person has an identity. The list of photographs names the reasons."
            reporter.message(text, "warning", logging.WARNING)


def summary(config: PhotosConfig, made: PhotosBuild) -> str:
    """Counts, the reasons of photographs that are not used, the rate, and the paths, a line each."""
    from shards.schema import Split, Status

    counts = made.metadata.counts
    people = "  ".join(f"{counts.videos[status]} {status.value}" for status in Status)
    identities = "  ".join(f"{counts.identities[split]} {split.value}" for split in (Split.TRAIN, Split.TEST))
    statuses: Counter[str] = Counter()
    for (status, _), count in made.photographs.items():
        statuses[status] += count
    size = sum(shard.bytes for shard in made.metadata.shards) / 1e6
    lines = [
        f"people      {sum(counts.videos.values())}: {people}",
        f"photographs {statuses.total()}: {'  '.join(f'{n} {status}' for status, n in statuses.most_common())}",
    ]
    lines += [
        f"{status:<12}{_reasons(made, status)}" for status in ("rejected", "failed") if statuses[status]
    ]
    lines += [
        f"identities  {sum(counts.identities.values())}: {identities}  ({counts.persons} persons)",
        f"images      {counts.images}",
    ]
    if made.curated:
        per_s = made.curated / made.seconds
        where = "1 process" if made.processes == 1 else f"{made.processes} processes"
        lines.append(f"rate        {per_s:.1f} photographs/s in {where}")
    return "\n".join(
        [
            *lines,
            f"shards      {len(made.metadata.shards)} ({size:.1f} MB) in {config.output}",
            f"report      {made.report}",
            f"list        {made.listed}",
        ]
    )


def _reasons(made: PhotosBuild, status: str) -> str:
    found = Counter({reason: n for (of, reason), n in made.photographs.items() if of == status})
    return ", ".join(
        f"{n} {reason}" for reason, n in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    )
