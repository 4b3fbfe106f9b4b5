"""`omniid train` and `omniid latents`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.cli.errors import user_errors

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...",
        help="Override the workflow: run.per_process=4; docs/training.md and training/config.py document the keys",
    ),
]


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
    """Train. The same command resumes a run that was stopped or killed.

    Runs in one process, or under torchrun on any number of machines. A workflow needs data.root and output.
    docs/training.md lists the most common keys; training/config.py and the files that it imports have all of them.

    First try: omniid train workflows/train_mtd_tiny.yaml data.root=/data/mfhq output=/data/runs/tiny

    Sizes and memory of a run: omniid train workflows/train_mtd_paper.yaml data.root=/data/mfhq
    output=/data/runs/mtd representation.clip=random --dry-run

    Eight GPUs: torchrun --standalone --nproc-per-node=8 training/train.py workflows/train_mtd_paper.yaml
    data.root=s3://bucket/mfhq output=/shared/runs/mtd run.cache.folder=/local/cache

    Second stage: omniid train workflows/train_flow_tiny.yaml data.root=/data/mfhq output=/data/runs/flow
    representation.weights=/data/runs/tiny/encoder

    Several machines: the launchers in workflows/launch (one machine, Slurm, Kubernetes).

    The output directory gets metrics.jsonl, tensorboard/, samples/, checkpoints/ and, at the end, encoder/.

    Exit code 0: trained to the end, or saved and stopped after SIGTERM or SIGINT.

    Exit code 1: the run cannot start or continue. The message names the cause and the remedy.
    """
    from settings.loading import load_workflow
    from training.config import Config

    with user_errors(once_a_machine=True):
        config = load_workflow(workflow, overrides or [], Config)
    with user_errors():
        from training.train import run  # takes seconds; a mistyped key is reported before that

        run(config, dry_run=dry_run, arguments=[str(workflow), *(overrides or [])])


def latents(
    workflow: Annotated[Path, typer.Argument(help="YAML file of a flow run")],
    overrides: Overrides = None,
) -> None:
    """Compute the latents of all images of a dataset once, for runs that read them instead of target images.

    Takes the workflow and the overrides of the run; decoders.flow.latents names the directory or the URL, or is
    beside_shards. Both splits are encoded, one file an identity: 1 MB with FLUX at 512 pixels. The same command
    resumes; what is there is skipped.

    Example: omniid latents workflows/train_flow_paper.yaml data.root=/data/mfhq output=/data/runs/flow
    decoders.flow.latents=beside_shards

    Eight GPUs: torchrun --standalone --nproc-per-node=8 training/latents.py workflows/train_flow_paper.yaml
    data.root=/data/mfhq output=/data/runs/flow decoders.flow.latents=beside_shards

    Exit code 0: all latents are there, or SIGTERM or SIGINT stopped the command.

    Exit code 1: something must be done first, or identities are damaged; the message names them, and all others
    have their latents.
    """
    from settings.loading import load_workflow
    from training.config import Config

    with user_errors(once_a_machine=True):
        config = load_workflow(workflow, overrides or [], Config)
    with user_errors():
        from training.latents import compute

        compute(config)
