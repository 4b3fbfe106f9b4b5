"""Commands that use what was trained: export, sample, encode, attention."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from training.cli.errors import user_errors


def export(
    run: Annotated[Path, typer.Argument(help="Output directory of a run, finished or not")],
    output: Annotated[Path, typer.Argument(help="Directory to write; an earlier export there is replaced")],
    step: Annotated[
        int | None, typer.Option(min=1, help="Step of the checkpoint, such as a milestone (the newest)")
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(help="Directory with the run's recognition network, when it has moved")
    ] = None,
) -> None:
    """Export the weights of a run as files that need no trainer, from its newest checkpoint.

    OUTPUT gets encoder/ and, from a flow run, ip_adapter.safetensors, which diffusers' FluxPipeline and
    FluxControlNetPipeline load (examples/flux_pipeline.py).

    Example: omniid export /data/runs/flow /data/omniid
    """
    with user_errors():
        from training.export import ENCODER_FOLDER, exported_files
        from training.export import export as write

        facts = write(run, output, step, models_dir)
        typer.echo(f"{output}: the weights after {facts.step:,} steps")
        for path in exported_files(output, facts):
            typer.echo(f"  {_size(path.stat().st_size):>12}  {path.relative_to(output)}")
        load = "OmniIDEncoder.from_pretrained" if facts.representation == "omniid" else "load_representation"
        typer.echo(f"load the encoder with omniid.{load}({str(output / ENCODER_FOLDER)!r})")
        if facts.generator is not None:
            pose = " --pose-from PHOTOGRAPH" if facts.control is not None else ""
            typer.echo(f"generate images with: omniid sample {shlex.quote(str(output))} PHOTOGRAPH...{pose}")


def sample(  # noqa: PLR0917 - typer hands in every option by name
    source: Annotated[Path, typer.Argument(help="Output directory of a flow run, or an export")],
    photographs: Annotated[list[Path], typer.Argument(help="Photographs of one person, one or more")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the images")] = Path(
        "samples"
    ),
    count: Annotated[int, typer.Option(min=1, help="Number of images")] = 4,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the first image; the next images count upwards")
    ] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampling steps of each image (default: the run's; FLUX: 28)")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Guidance input of FLUX.1-dev (default: the run's; FLUX: 3.5)")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0, max=2, help="Scale of the identity adapter; 0 is FLUX without it")
    ] = 1.0,
    identity_guidance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=20,
            help="Scale of classifier-free guidance by identity (default: the run's): 1 is conditional, 0 "
            "unconditional; values other than 1 take twice as long and need a run with "
            "decoders.flow.identity_dropout",
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Side of the images in pixels (default: the run's)")
    ] = None,
    pose_from: Annotated[
        Path | None,
        typer.Option(help="Photograph whose pose is taken; for runs with decoders.control, which need one"),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="When it has moved since training: directory of FLUX; of decoders.flow.scratch.vae; or, with "
            "scratch.transformer, one that has both as vae and transformer"
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda or cpu (cuda where there is one)")] = None,
    profile: Annotated[str, typer.Option(help="Networks that find faces: embedded or paper")] = "embedded",
    models_dir: Annotated[
        Path | None,
        typer.Option(help="Directory with weights of these networks, and of the run's recognition network"),
    ] = None,
) -> None:
    """Generate images of a person from photographs.

    Finds the face in each photograph and crops it as the dataset's images are cropped. Writes sample-SEED.png
    files into the output directory.

    Example: omniid sample /data/omniid anna1.jpg anna2.jpg --output anna --count 8 --scale 0.8

    In the pose of another photograph, from a run of the control decoder:
    omniid sample /data/runs/control anna1.jpg anna2.jpg --pose-from pose.jpg
    """
    with user_errors():
        from training.sampling.command import generate_samples

        generate_samples(
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
            pose_from=pose_from,
            base=base,
            device=device,
            profile=profile,
            models_dir=models_dir,
            say=lambda line: typer.echo(line, err=True),
        )


def encode(  # noqa: PLR0917 - typer passes every option by name
    photos: Annotated[list[Path], typer.Argument(help="Photos of ONE person: files or directories")],
    encoder: Annotated[
        str,
        typer.Option(
            envvar="OMNIID_ENCODER",
            help="The encoder: its directory, an export, the output of a finished run, or owner/name on the "
            "Hugging Face hub",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; an existing one is replaced")
    ] = Path("tokens.safetensors"),
    revision: Annotated[
        str | None, typer.Option(help="Commit of the hub's repository; without it, the newest")
    ] = None,
    crop_scale: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=4,
            help="Only for an encoder that does not record it: side of the head crops of its training, as a "
            "multiple of the face",
        ),
    ] = None,
    skip_unusable: Annotated[
        bool,
        typer.Option("--skip-unusable", help="Skip damaged photos and those without a face, and name them"),
    ] = False,
    device: Annotated[str | None, typer.Option(help="cuda or cpu (cuda where there is one)")] = None,
    profile: Annotated[str, typer.Option(help="Networks that find faces: embedded or paper")] = "embedded",
    models_dir: Annotated[
        Path | None,
        typer.Option(
            help="Directory with weights of these networks, and of the encoder's recognition network"
        ),
    ] = None,
) -> None:
    """Encode photos of one person into identity tokens.

    Finds the face in each photo and crops it at the crop scale of the encoder's training. Of several faces, the
    largest is used, and a message names it. More photos in different poses improve the tokens; their order makes
    no difference.

    The output holds the tensor "tokens" (256 x 1280 for the paper's encoder) and, as metadata, the digest of the
    encoder, the crop scale, and name and sha256 of each photo. Tokens of two encoders cannot be compared.

    One person: omniid encode anna1.jpg anna2.jpg --encoder /data/omniid --output anna.safetensors

    All usable photos of a directory: omniid encode photos/anna --encoder /data/omniid --skip-unusable

    In Python: safetensors.torch.load_file("anna.safetensors")["tokens"]

    Exit code 1: a photo or the encoder cannot be used. The message names all photos and the reasons.
    """
    with user_errors():
        from training.encode.command import encode_photos
        from training.encode.progress import file_progress

        encode_photos(
            photos,
            encoder,
            output,
            revision=revision,
            crop_scale=crop_scale,
            device=device,
            profile=profile,
            models_dir=models_dir,
            skip_unusable=skip_unusable,
            message=lambda line: typer.echo(line, err=True),
            progress=file_progress,
        )


def attention(  # noqa: PLR0917 - typer passes every option by name
    photos: Annotated[
        list[Path], typer.Argument(help="Photos of one person: files, or directories that hold them")
    ],
    encoder: Annotated[
        str,
        typer.Option(
            envvar="OMNIID_ENCODER",
            help="An Omni-ID encoder: its directory, an export, the output of a finished run, or owner/name on "
            "the Hugging Face hub",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write")] = Path("attention.png"),
    query: Annotated[
        list[int] | None, typer.Option(help="Number of a query, from 0; may be given several times")
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, max=16, help="Queries to show when none is named: the most focused ones")
    ] = 5,
    block: Annotated[int, typer.Option(help="Cross-attention block, from 0; -1 is the last")] = -1,
    revision: Annotated[
        str | None, typer.Option(help="Commit of the hub's repository; without it, the newest")
    ] = None,
    crop_scale: Annotated[
        float | None,
        typer.Option(min=1, max=4, help="Only for an encoder that does not say it (see `omniid encode`)"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda or cpu (cuda where there is one)")] = None,
    profile: Annotated[str, typer.Option(help="Networks that find faces: embedded or paper")] = "embedded",
    models_dir: Annotated[Path | None, typer.Option(help="Directory with weights of these networks")] = None,
) -> None:
    """Show where learned queries of an Omni-ID encoder look in photos of a person (the paper's Figure 10).

    The picture has a row for each photo and a column for each query: bright where the query attends to, as the
    mean over attention heads. A column has one scale, so that a query's attention on each photo can be compared.
    Queries that all look at the same place, and a mean cosine of the tokens near 1, show a collapsed
    representation.

    Example: omniid attention anna1.jpg anna2.jpg --encoder /data/omniid --output anna.png
    """
    with user_errors():
        from training.encode.attention import show_attention

        show_attention(
            photos,
            encoder,
            output,
            queries=query or [],
            count=count,
            block=block,
            revision=revision,
            crop_scale=crop_scale,
            device=device,
            profile=profile,
            models_dir=models_dir,
            message=lambda line: typer.echo(line, err=True),
        )


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
