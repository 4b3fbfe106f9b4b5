r"""Train the Omni-ID encoder, on one process or, through torchrun, on any number of them.

    torchrun --standalone --nproc-per-node=8 training/train.py workflows/train_mtd_paper.yaml \
        data.root=s3://bucket/mfhq output=/shared/runs/mtd

`run` is the whole run, in order; every part is a module of its own. The same command goes on with a run that was
stopped or killed, from its newest checkpoint, and gives what an undisturbed run gives.
"""

from __future__ import annotations

from contextlib import closing

from training.config import Config
from training.data.cache import SampleCache
from training.data.dataset import open_dataset
from training.data.stream import IdentityStream
from training.engine.checkpoint import Checkpoints, check_same_run
from training.engine.consensus import Consensus
from training.engine.feed import Feed
from training.engine.learner import Learner
from training.engine.loop import Loop
from training.engine.meter import Meter
from training.engine.metrics import MetricsWriter
from training.engine.output import ENCODER_FOLDER, alone, write_run_file
from training.engine.processes import World, processes
from training.engine.rehearsal import rehearse
from training.engine.signals import StopRequest
from training.engine.validation import Validator
from training.models.build import build_stage, images_side


def run(config: Config, *, dry_run: bool = False) -> None:
    """Train, on this process as one of those that torchrun started.

    Args:
        config: of the run.
        dry_run: build everything, say how large it is, take two steps, write nothing.

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
                    dataset, config, side, rank=world.rank, world_size=world.world_size, start_step=step
                )
            )

    # The networks, alike on every process; then shared out, with optimiser and average.
    with consensus.together():
        stage = build_stage(config, dataset.digest)
    learner = Learner(stage, config, world)

    if dry_run:
        with read_from(0) as stream:
            feed = Feed(
                stream, stage, consensus, max_damaged=config.run.max_damaged, damaged=0, say=world.say
            )
            rehearse(
                config=config, learner=learner, stream=stream, feed=feed, consensus=consensus, say=world.say
            )
        return

    with (
        alone(config, consensus),
        Checkpoints(config.output, config.checkpoints.keep, consensus) as checkpoints,
    ):
        # Go on where an earlier run of the same configuration stopped.
        saved = checkpoints.newest()
        start, damaged = (saved.step, saved.damaged) if saved else (0, 0)
        if saved:
            with consensus.together():
                check_same_run(saved, config.defining(), dataset.digest, config.output)
            checkpoints.load(saved, learner.state())
            world.say(f"going on from step {start:,} of {config.steps:,}")
        with consensus.together():
            if world.leads:
                write_run_file(config, dataset)

        # Every step of the optimiser, with figures, validation and checkpoints on the way.
        with (
            read_from(start) as stream,
            MetricsWriter(config.output, start, config.steps, enabled=world.leads) as metrics,
        ):
            loop = Loop(
                config=config,
                dataset=dataset,
                consensus=consensus,
                learner=learner,
                feed=Feed(
                    stream,
                    stage,
                    consensus,
                    max_damaged=config.run.max_damaged,
                    damaged=damaged,
                    say=metrics.say,
                ),
                meter=Meter(config, stream, world),
                validator=Validator(config, dataset, side, consensus),
                metrics=metrics,
                checkpoints=checkpoints,
                stop=stop,
            )
            done = loop.run(start)

        if done < config.steps:
            world.say(f"stopped and saved at step {done:,}; the same command goes on from there")
            return

        # What all of it was for: the encoder, as files that need no trainer.
        weights = learner.encoder_weights()
        with consensus.together():
            if world.leads:
                stage.encoder.save_pretrained(config.output / ENCODER_FOLDER, weights)
        world.say(f"trained {done:,} steps; the encoder is in {config.output / ENCODER_FOLDER}")


if __name__ == "__main__":
    from training.cli import train_command

    train_command()
