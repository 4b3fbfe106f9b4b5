"""`omniid`: train the Omni-ID encoder and its decoders, export what was learned, draw people with it."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from settings.version import add_version

app = typer.Typer(
    name="omniid",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train Omni-ID, a representation of a face from any number of photographs, on MFHQ shards.",
)
add_version(app)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...",
        help="Override the workflow: run.per_process=4; training/config.py documents all settings",
    ),
]


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

    One process, or those that torchrun starts, on any number of machines. A workflow needs data.root and output;
    all settings, their defaults and reasons stand in training/config.py.

    First try: omniid train workflows/train_mtd_tiny.yaml data.root=/data/mfhq output=/data/runs/tiny

    How large will it be? omniid train workflows/train_mtd_paper.yaml data.root=/data/mfhq output=/data/runs/mtd
    model.clip=random --dry-run

    Eight GPUs: torchrun --standalone --nproc-per-node=8 training/train.py workflows/train_mtd_paper.yaml
    data.root=s3://bucket/mfhq output=/shared/runs/mtd run.cache.folder=/local/cache

    Second stage: omniid train workflows/train_flow_tiny.yaml data.root=/data/mfhq output=/data/runs/flow
    flow.encoder=/data/runs/tiny/encoder model.clip=encoder

    Several machines: the launchers in workflows/launch (one machine, Slurm, Kubernetes).

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


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Output folder of a run, finished or not")],
    output: Annotated[Path, typer.Argument(help="Folder to write; what an earlier export left is replaced")],
) -> None:
    """Write what a run has learned as files that need no trainer, from its newest checkpoint.

    OUTPUT gets encoder/, and of the second stage ip_adapter.safetensors, which diffusers' FluxPipeline and
    FluxControlNetPipeline load (examples/flux_pipeline.py).

    Example: omniid export /data/runs/flow /data/omniid
    """
    with _errors_in_words():
        from training.export import ENCODER_FOLDER, exported_files
        from training.export import export as write

        facts = write(run, output)
        typer.echo(f"{output}: what was learned in {facts.step:,} steps")
        for path in exported_files(output, facts):
            typer.echo(f"  {_size(path.stat().st_size):>12}  {path.relative_to(output)}")
        typer.echo(f"load the encoder with OmniIDEncoder.from_pretrained({str(output / ENCODER_FOLDER)!r})")
        if facts.flow is not None:
            typer.echo(f"draw people with: omniid sample {shlex.quote(str(output))} PHOTOGRAPH...")


@app.command()
def sample(  # noqa: PLR0917 - typer hands in every option by name
    source: Annotated[Path, typer.Argument(help="Output folder of a run of the second stage, or an export")],
    photographs: Annotated[list[Path], typer.Argument(help="Photographs of one person, one or more")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images")] = Path("samples"),
    count: Annotated[int, typer.Option(min=1, help="Images to draw")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the first image; the next ones count upwards")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each image (the run's, FLUX: 28)")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="What FLUX.1-dev is told (the run's, FLUX: 3.5)")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0, max=2, help="How much of the identity is added; 0 is FLUX alone")
    ] = 1.0,
    identity_guidance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=20,
            help="1 draws the person as learned, 0 nobody, more than 1 exaggerates who it is; other values than 1 "
            "take twice as long and a run with flow.identity_dropout (the run's)",
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Side of the images in pixels (the run's)")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Folder of FLUX (or of flow.scratch.vae), when it has moved since training"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda or cpu (cuda where there is one)")] = None,
    profile: Annotated[str, typer.Option(help="Networks that find faces: embedded or paper")] = "embedded",
    models_dir: Annotated[Path | None, typer.Option(help="Folder with weights of these networks")] = None,
) -> None:
    """Draw new images of a person of whom there are photographs.

    The face is found in each photograph and cut out as the data set's images are. The folder gets sample-SEED.png.

    Example: omniid sample /data/omniid anna1.jpg anna2.jpg --output anna --count 8 --scale 0.8
    """
    with _errors_in_words():
        from training.sampling.command import draw_samples

        draw_samples(
            source,
            photographs,
            output,
            count=count,
            seed=seed,
            steps=steps,
            guidance=guidance,
            scale=scale,
            identity_guidance=identity_guidance,
            side=size,
            base=base,
            device=device,
            profile=profile,
            models_dir=models_dir,
            say=lambda line: typer.echo(line, err=True),
        )


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


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
        from shards.metadata import DatasetError
        from training.errors import RunEnded, TrainingError

        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        if not isinstance(error, ConfigError | TrainingError | OutOfSpace | DatasetError):
            return
        rank = int(os.environ.get("RANK", "0"))
        if not (self._silent or (isinstance(error, RunEnded) and rank != 0)):
            who = "" if rank == 0 else f"process {rank}: "
            typer.echo(f"error: {who}{error}", err=True)
        _tell_torchrun(str(error))
        sys.exit(1)


def _tell_torchrun(message: str) -> None:
    """Put the message into the summary that torchrun prints last, which else points to a manual."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        # Where a full disk is what ended the run, that is what must be said, and not that this has no room either.
        with suppress(OSError):
            Path(path).write_text(
                json.dumps({"message": message, "timestamp": int(time.time())}), encoding="utf-8"
            )
