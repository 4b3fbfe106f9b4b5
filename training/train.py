r"""Train the Omni-ID encoder, on one process or, through torchrun, on any number of them.

    torchrun --standalone --nproc-per-node=8 training/train.py workflows/train_mtd_paper.yaml \
        data.root=s3://bucket/mfhq output=/shared/runs/mtd

`run` is the whole run, in order; every part is a module of its own. The same command goes on with a run that was
stopped or killed, from its newest checkpoint, and gives what an undisturbed run gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from shards.schema import Split
from training.config import Config
from training.data.cache import SampleCache
from training.data.dataset import open_dataset
from training.data.order import Share, check_enough
from training.data.stream import IdentityStream
from training.engine.checkpoint import Checkpoints, SavedState, check_alike, check_same_run
from training.engine.consensus import Consensus
from training.engine.feed import Feed
from training.engine.learner import Learner
from training.engine.loop import Loop
from training.engine.meter import Meter
from training.engine.metrics import MetricsWriter
from training.engine.output import ENCODER_FOLDER, SAMPLES_FOLDER, alone, check_unfinished, write_run_file
from training.engine.processes import World, processes
from training.engine.rehearsal import announce, rehearse
from training.engine.signals import StopRequest
from training.engine.validation import Validator
from training.models.build import build_stage, images_side


def run(config: Config, *, dry_run: bool = False) -> None:
    """Train, on this process as one of those that torchrun started.

    Args:
        config: of the run.
        dry_run: build everything, say how large it is, take two steps, write nothing into the output.

    Raises:
        TrainingError: what is wrong and what to do; `RunEnded` when all processes raise the same.
    """
    with processes(config.run.deterministic) as world, StopRequest() as stop:
        _run(config, world, Consensus(world), stop, dry_run=dry_run)


def _run(config: Config, world: World, consensus: Consensus, stop: StopRequest, *, dry_run: bool) -> None:
    # The data set, on every process for itself: any of them may be unable to reach it.
    with consensus.together():
        cache = SampleCache(config.run.cache) if config.run.cache else None
        dataset = open_dataset(config.data.root, config.run.retry_s, cache)
    side = images_side(config)

    def read_from(step: int) -> closing[IdentityStream]:
        with consensus.together():
            return closing(
                IdentityStream(
                    dataset,
                    config,
                    side,
                    rank=world.rank,
                    world_size=world.world_size,
                    start_step=step,
                    stopping=stop.asked,
                )
            )

    def build(saved: SavedState | None = None) -> Learner:
        # The networks, alike on every process; then shared out, with optimiser and average.
        with consensus.together():
            stage = build_stage(config, dataset.digest)
        check_alike(stage, saved, config.output, consensus)
        return Learner(stage, config, world)

    if dry_run:
        # First of all, for the weights may be hours away, or on no machine that this one reaches.
        announce(config, len(dataset.keys(Split.TRAIN)), consensus, world.say)
    # What cannot be is refused before anything is fetched or built.
    with consensus.together():
        check_enough(len(dataset.keys(Split.TRAIN)), config.batch, dataset.root)
        Share(config.batch, config.run.per_process, world.rank, world.world_size)

    if dry_run:
        learner = build()
        with read_from(0) as stream:
            rehearse(
                config=config,
                learner=learner,
                feed=Feed(
                    stream,
                    learner.stage,
                    consensus,
                    max_damaged=config.run.max_damaged,
                    damaged={},
                    say=world.say,
                ),
                consensus=consensus,
                stop=stop,
                say=world.say,
            )
        return

    with (
        alone(config, consensus),
        Checkpoints(config.output, config.checkpoints.keep, consensus) as checkpoints,
    ):
        # Go on where an earlier run of the same configuration stopped.
        saved = checkpoints.newest()
        with consensus.together():
            if saved:
                check_same_run(saved, config.defining(), dataset.digest, config.output)
            else:
                check_unfinished(config.output)
        learner = build(saved)
        if saved:
            checkpoints.load(saved, learner.state())
            world.say(f"going on from step {saved.step:,} of {config.steps:,}")
        with consensus.together():
            if world.leads:
                write_run_file(config, dataset)

        # Every step of the optimiser, with figures, validation and checkpoints on the way.
        start, owed = (saved.step, saved.validation_owed) if saved else (0, False)
        with read_from(start) as stream, ExitStack() as opened:
            # The first process does more here than the others do.
            with consensus.together():
                metrics = opened.enter_context(
                    MetricsWriter(config.output, start, config.steps, world.leads, validation_owed=owed)
                )
                meter = Meter(config, stream, consensus)
            say = metrics.say if world.leads else _nothing
            held_out = len(dataset.keys(Split.TEST))
            say(
                f"{stream.identities:,} training identities, {held_out:,} held out"
                f"{'' if held_out else ', so there is no validation'}; {config.steps:,} steps of "
                f"{config.batch} on {world.world_size} process(es); output {config.output}"
            )
            loop = Loop(
                config=config,
                dataset=dataset,
                consensus=consensus,
                learner=learner,
                feed=Feed(
                    stream,
                    learner.stage,
                    consensus,
                    max_damaged=config.run.max_damaged,
                    damaged=saved.damaged if saved else {},
                    say=say,
                ),
                meter=meter,
                validator=Validator(config, dataset, side, consensus, stopping=stop.asked, say=say),
                metrics=metrics,
                checkpoints=checkpoints,
                stop=stop,
            )
            done = loop.run(start, validation_owed=owed)

        if not loop.finished:
            world.say(
                f"stopped and saved at step {done:,}; the same command goes on from there"
                if done
                else "stopped before the first step was done; nothing was saved"
            )
            return

        # What all of it was for: the encoder, as files that need no trainer.
        weights = learner.encoder_weights()
        with consensus.together():
            if world.leads:
                learner.stage.encoder.save_pretrained(config.output / ENCODER_FOLDER, weights)
        for line in _left(config.output, done):
            world.say(line)


def _left(output: Path, done: int) -> Iterator[str]:
    """What a finished run has left, and where."""
    yield f"trained {done:,} steps; the encoder is in {output / ENCODER_FOLDER}"
    drawn = sorted((output / SAMPLES_FOLDER).glob("step-*.png"))
    if drawn:
        yield f"what it draws of people it has not seen: {drawn[-1]}"


def _nothing(_: str) -> None:
    """Said by the first process alone."""


if __name__ == "__main__":
    from training.cli import train_command

    train_command()
