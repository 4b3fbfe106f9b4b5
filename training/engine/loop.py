"""The training loop: feed, learn, and now and then write figures, validate, save.

In a step the host never waits for the device. It looks at loss and gradient when it writes a line of figures, so
the device always has work queued. Everything that belongs to a step (figures, validation) is done before the
checkpoint of that step, so that a run that goes on from it has nothing to do again.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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
from training.engine.output import SAMPLES_FOLDER
from training.engine.signals import StopRequest
from training.engine.validation import Validator
from training.errors import RunEnded

COLLECT_EVERY = 50
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
        self._done = 0
        self._validation_owed = False

    def run(self, start_step: int, *, validation_owed: bool = False) -> int:
        """Train.

        Args:
            start_step: steps done before.
            validation_owed: the validation of that step was cut short, and comes first.

        Returns:
            Steps done in all; fewer than the configuration's when a stop was asked for.

        Raises:
            RunEnded: the run cannot go on.
        """
        self._done, self._validation_owed = start_step, validation_owed
        self._judge(int(self._learner.updates.skipped))
        self._consensus.agree(problem=self._problem)
        try:
            with _garbage_collected_together():
                self._make_up()
                self._train()
        except RunEnded:
            self._rescue()
            raise
        self._save_unsaved()
        self._checkpoints.finish()
        self._consensus.agree(problem=self._problem)
        return self._done

    @property
    def finished(self) -> bool:
        """Whether nothing of the run is left to do."""
        return self._done == self._config.steps and not self._validation_owed

    def _make_up(self) -> None:
        if self._validation_owed and self._validate():
            self._checkpoints.amend(self._state())

    def _train(self) -> None:
        config = self._config
        self._meter.restart(self._done)
        while self._done < config.steps:
            fed = self._feed.next(self._done, self._stop.asked(), self._problem_so_far())
            if fed.stop:
                break
            taken = self._learner.learn(self._done, fed.batches, fed.parts)
            self._done += 1
            if self._due(config.run.log_every):
                self._log(fed, taken)
            if self._due(config.validation.every):
                self._validate()
            if self._due(config.checkpoints.every):
                # A checkpoint behind figures that could not be written would leave them out for ever.
                self._consensus.agree(problem=self._problem)
                self._save()
            if self._done % COLLECT_EVERY == 0:
                gc.collect()

    def _due(self, every: int) -> bool:
        return self._done % every == 0 or self._done == self._config.steps

    def _rescue(self) -> None:
        """Keep what was learned since the last checkpoint, when it is only that there is nothing to learn from.

        All processes are here, with the same weights.
        """
        with suppress(RunEnded):
            self._consensus.agree(problem=self._problem_so_far())
            self._save_unsaved()
            self._checkpoints.finish()

    def _save_unsaved(self) -> None:
        if self._done and self._checkpoints.saved_step != self._done:
            self._save()

    def _problem_so_far(self) -> str | None:
        return self._problem or self._checkpoints.problem()

    def _log(self, fed: Fed, taken: Taken) -> None:
        # The one place where the host waits for the device, for all figures at once.
        read = torch.stack([taken.loss, taken.gradient_norm, self._learner.updates.skipped.float()])
        loss, norm, skipped = read.tolist()
        figures = {
            "train/loss": loss,
            "train/grad_norm": norm,
            "train/learning_rate": learning_rate(self._done - 1, self._config.steps, self._config.optimiser),
            "train/skipped": skipped,
            "data/damaged": len(self._feed.damaged),
            "data/order": fed.order,
        } | self._meter.figures(self._done)
        with self._for_the_next_exchange():
            self._metrics.log(self._done, figures)
        self._judge(int(skipped))

    def _judge(self, skipped: int) -> None:
        allowed = self._config.run.max_nonfinite_steps
        if skipped > allowed:
            self._problem = (
                f"{skipped} steps had a loss or a gradient that is not finite, more than "
                f"run.max_nonfinite_steps={allowed} allows. They changed no weights. Most often the learning rate "
                "is too high (optimiser.learning_rate, optimiser.warmup_steps), or the run began with weights "
                "that are damaged; start again in another output"
            )

    def _validate(self) -> bool:
        """Whether it was done; a stop cuts it short."""
        self._validation_owed = True
        with self._learner.evaluating() as stage:
            found = self._validator.validate(stage, self._learner.parallel.precision)
        if found is None:
            return False
        with self._for_the_next_exchange():
            if found.figures:
                self._metrics.log(self._done, found.figures)
            if found.grid_HWC is not None:
                self._metrics.image(self._done, SAMPLES_FOLDER, found.grid_HWC)
        self._validation_owed = False
        self._meter.restart(self._done)
        return True

    def _save(self) -> None:
        self._checkpoints.save(self._state(), self._learner.state())

    def _state(self) -> SavedState:
        return SavedState(
            step=self._done,
            config=self._config.defining(),
            dataset_sha256=self._dataset.digest,
            frozen_digest=self._learner.stage.frozen_digest,
            damaged=self._feed.damaged,
            validation_owed=self._validation_owed,
            world_size=self._consensus.world.world_size,
            torch=torch.__version__,
        )

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
