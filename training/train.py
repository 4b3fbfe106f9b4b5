r"""Train a representation with its decoders, on one rank or, with torchrun, on any number of them.

    torchrun --standalone --nproc-per-node=8 training/train.py workflows/train_mtd_paper.yaml \
        data.root=s3://bucket/mfhq output=/shared/runs/mtd

`run` is the whole run, in order; every part is a module of its own. The same command resumes a run that was
stopped or killed from its newest checkpoint, with the result of an uninterrupted one.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from shards.schema import Split
from storage.urls import is_local
from training.config import Config
from training.crop_scale import crop_scale_warning
from training.data.cache import SampleCache
from training.data.dataset import open_dataset
from training.data.order import Share, check_enough
from training.data.stream import IdentityStream
from training.engine.checkpoint import Checkpoints, SavedState
from training.engine.collectives import Collectives
from training.engine.dry_run import describe, take_steps
from training.engine.feed import Feed
from training.engine.learner import Learner
from training.engine.loop import Loop
from training.engine.meter import Meter
from training.engine.metrics import MetricsWriter
from training.engine.output import (
    ENCODER_FOLDER,
    SAMPLES_FOLDER,
    check_unfinished,
    lock_output,
    write_run_file,
)
from training.engine.processes import World, processes
from training.engine.profiling import Profiler
from training.engine.same_run import check_same_run, check_same_weights
from training.engine.signals import StopRequest
from training.engine.tracking import WandbTracker, load_wandb
from training.engine.validation import Validator
from training.latents import check_complete, compute_missing, latents_of
from training.model import build_model, meta_model


def run(config: Config, *, dry_run: bool = False, arguments: Sequence[str] = ("WORKFLOW",)) -> None:
    """Train, as one of the ranks that torchrun started.

    Args:
        config: of the run.
        dry_run: build everything, print its sizes, take two steps, validate once, write nothing.
        arguments: the workflow and the overrides behind `config`, for commands in messages.

    Raises:
        TrainingError: with the remedy; `RunEnded` when all ranks raise the same.
    """
    hints = [key for _, decoder in config.decoders.chosen() for key in decoder.memory_hints]
    command = shlex.join(["omniid", "latents", *arguments])
    with processes(config.run.deterministic, hints) as world, StopRequest() as stop:
        found = _Run(config, world, Collectives(world), stop, command)
        if dry_run:
            found.dry_run()
        else:
            found.train()


class _Run:
    """A run, whose dataset is open."""

    def __init__(
        self,
        config: Config,
        world: World,
        collectives: Collectives,
        stop: StopRequest,
        latents_command: str = "omniid latents WORKFLOW",
    ) -> None:
        self._config, self._world, self._collectives, self._stop = config, world, collectives, stop
        self._latents_command = latents_command
        # On every rank: any of them may be unable to reach it.
        with collectives.barrier():
            cache = SampleCache(config.run.cache) if config.run.cache else None
            self._dataset = open_dataset(config.data.root, config.run.retry_s, cache)
            self._needs = meta_model(config).needs

    def dry_run(self) -> None:
        """Print the sizes of the run, take two steps and validate once."""
        # Sizes first: the weights may take hours to fetch, or be out of reach.
        identities = len(self._dataset.keys(Split.TRAIN))
        describe(self._config, identities, self._collectives, self._world.message)
        self._check_batch()
        if self._config.run.compute_latents:
            self._world.message(
                "a training computes latents that are missing (run.compute_latents), a dry run does not"
            )
        self._find_latents()
        learner = self._learner(None)
        with self._stream(0) as stream:
            take_steps(
                config=self._config,
                learner=learner,
                feed=self._feed(stream, {}, self._world.message),
                validator=self._validator(self._world.message),
                collectives=self._collectives,
                stop=self._stop,
                message=self._world.message,
            )

    def train(self) -> None:
        """Train to the end, or until a stop is requested."""
        config, world, collectives = self._config, self._world, self._collectives
        self._check_batch()
        if not config.run.compute_latents:
            self._find_latents()
        with (
            lock_output(config, collectives),
            self._checkpoints() as checkpoints,
        ):
            # Resume an earlier run of the same configuration.
            saved = checkpoints.newest()
            with collectives.barrier():
                if saved:
                    check_same_run(saved, config, self._dataset.digest)
                else:
                    check_unfinished(config.output)
            if config.run.compute_latents and not self._find_latents(compute=True):
                world.message("stopped before the first step; the same command continues")
                return
            learner = self._learner(saved)
            if saved:
                checkpoints.load(saved, learner.state())
                world.message(f"resuming from step {saved.step:,} of {config.steps:,}")
            with collectives.barrier():
                if world.is_main:
                    write_run_file(config, self._dataset, self._crop_scale(learner))

            finished = self._steps(learner, checkpoints, saved)
            if finished is None:
                return

            # The representation, as files that need no trainer.
            weights = learner.representation_weights()
            with collectives.barrier():
                if world.is_main:
                    representation = learner.model.representation
                    representation.crop_scale = self._crop_scale(learner)
                    representation.save_pretrained(config.output / ENCODER_FOLDER, weights)
            for line in _results(config.output, finished):
                world.message(line)

    def _steps(self, learner: Learner, checkpoints: Checkpoints, saved: SavedState | None) -> int | None:
        """Run the optimiser's steps, with metrics, validation and checkpoints.

        Returns:
            The number of steps done; None when the run was stopped before its end.
        """
        config, world, collectives = self._config, self._world, self._collectives
        start, owed = (saved.step, saved.validation_owed) if saved else (0, False)
        with self._stream(start) as stream, ExitStack() as opened:
            # Rank 0 does more here than the others.
            with collectives.barrier():
                tracker = WandbTracker(config) if config.run.wandb and world.is_main else None
                metrics = opened.enter_context(
                    MetricsWriter(
                        *(config.output, start, config.steps, world.is_main),
                        validation_owed=owed,
                        tracker=tracker,
                    )
                )
                meter = Meter(config, stream, collectives)
            message = metrics.message if world.is_main else _nothing
            held_out = len(self._dataset.keys(Split.TEST))
            if tracker:
                message(f"W&B run: {tracker.name}")
            message(
                f"{stream.identities:,} training identities, {held_out:,} held out"
                f"{'' if held_out else ', so there is no validation'}; {config.steps:,} steps of "
                f"{config.batch} on {world.world_size} rank(s); output {config.output}"
            )
            loop = Loop(
                config=config,
                dataset=self._dataset,
                collectives=collectives,
                learner=learner,
                feed=self._feed(stream, saved.damaged if saved else {}, message),
                meter=meter,
                validator=self._validator(message),
                metrics=metrics,
                checkpoints=checkpoints,
                stop=self._stop,
                profiler=opened.enter_context(
                    Profiler(config.run.profile, config.output, world.rank, world.device)
                ),
            )
            done = loop.run(start, validation_owed=owed)
        if loop.finished:
            return done
        world.message(
            f"stopped and saved at step {done:,}; the same command resumes from there"
            if done
            else "stopped before the end of the first step; nothing was saved"
        )
        return None

    def _checkpoints(self) -> Checkpoints:
        config = self._config.checkpoints
        return Checkpoints(self._config.output, config.keep, self._collectives, keep_every=config.keep_every)

    def _check_batch(self) -> None:
        """Check dataset, batch and number of ranks before anything is fetched or built."""
        config, world = self._config, self._world
        with self._collectives.barrier():
            if world.is_main:
                load_wandb(config.run.wandb)  # before hours of work that ends without it
            check_enough(len(self._dataset.keys(Split.TRAIN)), config.batch, self._dataset.root)
            Share(config.batch, config.run.per_process, world.rank, world.world_size)

    def _find_latents(self, *, compute: bool = False) -> bool:
        """Check that kept latents are complete, before anything large is loaded.

        Args:
            compute: what is missing, first.

        Returns:
            Whether they are; not when a stop was requested while they were computed.
        """
        if self._needs.latents is None:
            return True
        with self._collectives.barrier():
            files, codec = latents_of(self._config, self._needs, self._dataset)
            self._needs = files.needs
        if compute:
            compute_missing(
                self._config,
                files,
                codec,
                self._dataset,
                collectives=self._collectives,
                stop=self._stop,
            )
            if self._collectives.all_reduce((), self._stop.asked()).stop:
                return False
        with self._collectives.barrier():
            # A directory may be on each machine's own disk; an object store is listed once.
            if is_local(files.directory) or self._world.is_main:
                check_complete(files, self._dataset, self._latents_command)
        return True

    def _learner(self, saved: SavedState | None) -> Learner:
        """The networks, with the same weights on every rank; then wrapped, with optimiser and EMA."""
        with self._collectives.barrier():
            model = build_model(self._config, self._dataset.digest)
        warning = crop_scale_warning(
            model.representation.crop_scale,
            self._dataset.crop_scale,
            frozen=self._config.representation.frozen,
        )
        if warning:
            self._world.message(warning)
        keys = {name: decoder.frozen_keys for name, decoder in self._config.decoders.chosen()}
        check_same_weights(model, saved, self._config.output, self._collectives, keys)
        return Learner(model, self._config, self._world)

    def _stream(self, step: int) -> closing[IdentityStream]:
        """The stream of this rank from a step on."""
        with self._collectives.barrier():
            return closing(
                IdentityStream(
                    self._dataset,
                    self._config,
                    self._needs,
                    rank=self._world.rank,
                    world_size=self._world.world_size,
                    start_step=step,
                    stopping=self._stop.asked,
                )
            )

    def _crop_scale(self, learner: Learner) -> float | None:
        """Crop scale of the images of the representation's training; of its earlier training when it is frozen."""
        own: float | None = learner.model.representation.crop_scale
        return own if learner.model.frozen and own else self._dataset.crop_scale or own

    def _feed(
        self, stream: IdentityStream, damaged: Mapping[str, str], message: Callable[[str], None]
    ) -> Feed:
        most = self._config.run.max_damaged
        return Feed(stream, self._collectives, max_damaged=most, damaged=damaged, message=message)

    def _validator(self, message: Callable[[str], None]) -> Validator:
        return Validator(
            self._config,
            self._dataset,
            self._needs,
            self._collectives,
            stopping=self._stop.asked,
            message=message,
        )


def _results(output: Path, done: int) -> Iterator[str]:
    """Messages on the files of a finished run."""
    yield f"trained {done:,} steps; the encoder is in {output / ENCODER_FOLDER}"
    grids = sorted((output / SAMPLES_FOLDER).glob("step-*.png"))
    if grids:
        yield f"samples of held-out identities: {grids[-1]}"


def _nothing(_: str) -> None:
    """Shows no message: rank 0 does."""


if __name__ == "__main__":
    from training.cli import train_command

    train_command()
