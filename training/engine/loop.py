"""The training loop: feed, learn, and now and then write figures, validate, save.

In a step the host never waits for the device. It looks at loss and gradient when it writes a line of figures, so
the device always has work queued. Everything that belongs to a step (figures, validation) is done before the
checkpoint of that step, so that a run that goes on from it has nothing to do again.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.config import Config
from training.data.dataset import StreamedDataset
from training.engine.checkpoint import Checkpoints, SavedState
from training.engine.consensus import IN_WORDS, Consensus
from training.engine.feed import Fed, Feed
from training.engine.learner import Learner, Taken
from training.engine.meter import Meter
from training.engine.metrics import MetricsWriter
from training.engine.optimiser import learning_rate
from training.engine.signals import StopRequest
from training.engine.validation import Validator

COLLECT_EVERY = 500
"""Steps between two collections of garbage: all processes in the same step, or each would wait for the other."""


class Loop:
    """Trains from a step on to the end, or until a stop is asked for."""

    def __init__(
        self,
        *,
        config: Config,
        dataset: StreamedDataset,
        consensus: Consensus,
        learner: Learner,
        feed: Feed,
        meter: Meter,
        validator: Validator,
        metrics: MetricsWriter,
        checkpoints: Checkpoints,
        stop: StopRequest,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._consensus = consensus
        self._learner = learner
        self._feed = feed
        self._meter = meter
        self._validator = validator
        self._metrics = metrics
        self._checkpoints = checkpoints
        self._stop = stop
        self._problem: str | None = None

    def run(self, start_step: int) -> int:
        """Train.

        Args:
            start_step: steps done before.

        Returns:
            Steps done in all; fewer than the configuration's when a stop was asked for.

        Raises:
            RunEnded: the run cannot go on.
        """
        config, done = self._config, start_step
        self._meter.restart(done)
        with _garbage_collected_together():
            while done < config.steps:
                fed = self._feed.next(done, self._stop.received is not None, self._problem_so_far())
                if fed.stop:
                    break
                taken = self._learner.learn(done, fed.batches, fed.parts)
                done += 1
                last = done == config.steps
                if done % config.run.log_every == 0 or last:
                    self._log(done, fed, taken)
                if done % config.validation.every == 0 or last:
                    self._validate(done)
                if done % config.checkpoints.every == 0 or last:
                    self._save(done)
                if done % COLLECT_EVERY == 0:
                    gc.collect()
        if done > start_step and self._checkpoints.saved_step != done:
            self._save(done)
        self._checkpoints.finish()
        self._consensus.agree(problem=self._problem)
        return done

    def _problem_so_far(self) -> str | None:
        return self._problem or self._checkpoints.problem()

    def _log(self, done: int, fed: Fed, taken: Taken) -> None:
        # The one place where the host waits for the device, for all figures at once.
        read = torch.stack([taken.loss, taken.gradient_norm, self._learner.updates.skipped.float()])
        loss, norm, skipped = read.tolist()
        figures = {
            "train/loss": loss,
            "train/grad_norm": norm,
            "train/learning_rate": learning_rate(done - 1, self._config.steps, self._config.optimiser),
            "train/skipped": skipped,
            "data/damaged": self._feed.damaged,
            "data/order": fed.order,
        } | self._meter.figures(done)
        with self._for_the_next_exchange():
            self._metrics.log(done, figures)
        allowed = self._config.run.max_nonfinite_steps
        if skipped > allowed:
            self._problem = (
                f"{int(skipped)} steps had a loss or a gradient that is not finite, more than "
                f"run.max_nonfinite_steps={allowed} allows. They changed no weights. Most often the learning rate "
                "is too high (optimiser.learning_rate, optimiser.warmup_steps), or the run began with weights "
                "that are damaged; start again in another output"
            )

    def _validate(self, done: int) -> None:
        with self._learner.evaluating() as stage:
            figures, grid_HWC = self._validator.validate(stage, self._learner.parallel.precision)
        with self._for_the_next_exchange():
            if figures:
                self._metrics.log(done, figures)
            if grid_HWC is not None:
                self._metrics.image(done, "samples", grid_HWC)
        self._meter.restart(done)

    def _save(self, done: int) -> None:
        state = SavedState(
            step=done,
            config=self._config.defining(),
            dataset_sha256=self._dataset.digest,
            damaged=self._feed.damaged,
            world_size=self._consensus.world.world_size,
            torch=torch.__version__,
        )
        self._checkpoints.save(state, self._learner.state())

    @contextmanager
    def _for_the_next_exchange(self) -> Iterator[None]:
        """What fails on this process alone, such as writing figures, ends the run on all of them, and soon."""
        try:
            yield
        except IN_WORDS as error:
            self._problem = str(error)


@contextmanager
def _garbage_collected_together() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
