"""The training loop: read a batch, take a step; log, validate and save when they are due.

In a step the host never waits for the device: it reads loss and gradient norm when it logs, so the device always
has work queued. Figures and validation of a step come before its checkpoint, so that a run that resumes from it
has nothing to repeat.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from settings.version import project_version
from training.config import Config
from training.data.dataset import StreamedDataset
from training.engine.checkpoint import Checkpoints, SavedState
from training.engine.collectives import USER_ERRORS, Collectives
from training.engine.feed import Fed, Feed
from training.engine.learner import Learner, Taken
from training.engine.meter import Meter
from training.engine.metrics import MetricsWriter
from training.engine.optimiser import learning_rate
from training.engine.output import SAMPLES_FOLDER
from training.engine.profiling import Profiler
from training.engine.signals import StopRequest
from training.engine.validation import Validator
from training.errors import RunEnded

COLLECT_EVERY = 50
"""Steps between two garbage collections, in the same step on all ranks: each pause holds up every rank."""


class Loop:
    """Trains from a step to the end, or until a stop is requested."""

    def __init__(
        self,
        *,
        config: Config,
        dataset: StreamedDataset,
        collectives: Collectives,
        learner: Learner,
        feed: Feed,
        meter: Meter,
        validator: Validator,
        metrics: MetricsWriter,
        checkpoints: Checkpoints,
        stop: StopRequest,
        profiler: Profiler,
    ) -> None:
        self._profiler = profiler
        self._config = config
        self._dataset = dataset
        self._collectives = collectives
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
            validation_owed: a stop cut the validation of that step short; it comes first.

        Returns:
            Steps done in all; fewer than `steps` when a stop was requested.

        Raises:
            RunEnded: the run cannot continue.
        """
        self._done, self._validation_owed = start_step, validation_owed
        self._check_skipped(int(self._learner.updates.skipped))
        self._collectives.all_reduce(problem=self._problem)
        try:
            with _manual_garbage_collection():
                self._validate_owed()
                self._train()
        except RunEnded:
            self._save_on_error()
            raise
        self._save_unsaved()
        self._checkpoints.finish()
        self._collectives.all_reduce(problem=self._problem)
        return self._done

    @property
    def finished(self) -> bool:
        """Whether nothing of the run is left to do."""
        return self._done == self._config.steps and not self._validation_owed

    def _validate_owed(self) -> None:
        if self._validation_owed and self._validate():
            self._checkpoints.amend(self._state())

    def _train(self) -> None:
        config = self._config
        self._meter.restart(self._done)
        while self._done < config.steps:
            fed = self._feed.next(self._done, self._stop.asked(), self._problem_so_far())
            if fed.stop:
                break
            self._profiler.before(self._done)
            taken = self._learner.learn(self._done, fed.batches, fed.targets)
            with self._deferring_errors():
                if trace := self._profiler.after():
                    self._metrics.message(f"profiled steps up to {self._done + 1:,}: {trace}")
            self._done += 1
            if self._due(config.run.log_every):
                self._log(fed, taken)
            if self._due(config.validation.every):
                self._validate()
            if self._due(config.checkpoints.every):
                # After figures that could not be written, no checkpoint: a resumed run would never write them.
                self._collectives.all_reduce(problem=self._problem)
                self._save()
            if self._done % COLLECT_EVERY == 0:
                gc.collect()

    def _due(self, every: int) -> bool:
        return self._done % every == 0 or self._done == self._config.steps

    def _save_on_error(self) -> None:
        """Save the steps since the last checkpoint: all ranks raised the error, with the same weights."""
        with suppress(RunEnded):
            self._collectives.all_reduce(problem=self._problem_so_far())
            self._save_unsaved()
            self._checkpoints.finish()

    def _save_unsaved(self) -> None:
        if self._done and self._checkpoints.saved_step != self._done:
            self._save()

    def _problem_so_far(self) -> str | None:
        return self._problem or self._checkpoints.problem()

    def _log(self, fed: Fed, taken: Taken) -> None:
        # The only place where the host waits for the device, once for all figures.
        read = torch.stack([taken.loss, taken.gradient_norm, self._learner.updates.skipped.float()])
        loss, norm, skipped, *losses = torch.cat([read, taken.losses_R]).tolist()
        names = self._learner.model.names
        separate = zip(names, losses, strict=True) if len(names) > 1 else ()
        figures = {
            "train/loss": loss,
            **{f"train/loss_{name}": own for name, own in separate},
            "train/grad_norm": norm,
            "train/learning_rate": learning_rate(self._done - 1, self._config.steps, self._config.optimiser),
            "train/skipped": skipped,
            "data/damaged": len(self._feed.damaged),
            "data/order": fed.order,
        } | self._meter.figures(self._done)
        with self._deferring_errors():
            self._metrics.log(self._done, figures)
        self._check_skipped(int(skipped))

    def _check_skipped(self, skipped: int) -> None:
        allowed = self._config.run.max_nonfinite_steps
        if skipped > allowed:
            self._problem = (
                f"{skipped} steps had a loss or a gradient that is not finite, more than "
                f"run.max_nonfinite_steps={allowed}. They changed no weights. Usually the learning rate is too "
                "high (optimiser.learning_rate, optimiser.warmup_steps), or the initial weights are damaged. "
                "Start a new run in another output"
            )

    def _validate(self) -> bool:
        """Whether it was completed; a stop cuts it short."""
        self._validation_owed = True
        with self._learner.evaluating() as model:
            found = self._validator.validate(model, self._learner.parallel.precision)
        if found is None:
            return False
        with self._deferring_errors():
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
            frozen_digests=self._learner.model.frozen_digests,
            damaged=self._feed.damaged,
            validation_owed=self._validation_owed,
            world_size=self._collectives.world.world_size,
            torch=torch.__version__,
            code=project_version(),
        )

    @contextmanager
    def _deferring_errors(self) -> Iterator[None]:
        """Keep an error of this rank, such as a full disk, for the next all-reduce, which ends all ranks."""
        try:
            yield
        except USER_ERRORS as error:
            self._problem = str(error)


@contextmanager
def _manual_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
