"""The parts of a training step, each with the seconds that it takes: what `train_step.py` measures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from shards.schema import IMAGES_PER_IDENTITY
from training.config import Config
from training.data.batch import Batch
from training.data.decode import decoded_side
from training.data.stream import IdentityStream
from training.engine.learner import Learner
from training.engine.processes import World
from training.model import meta_model

MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}
LIMIT_S = 0.3
"""How long matrices are multiplied each time."""
STREAMED = 8
"""How often what is read ahead is used up while the stream is timed: the more often, the less it matters how much
of it was there at the start."""


@dataclass
class Clock:
    """Takes steps and says how long they took."""

    config: Config
    world: World
    learner: Learner
    batches: list[Batch]
    targets: int
    steps: int
    stream: IdentityStream | None
    most_streamed: int | None = None
    """The stream is timed over no more steps than these."""
    taken: int = 0
    losses_R: torch.Tensor | None = None

    def first(self) -> float:
        """Seconds of a single step: of the first one, in which blocks are compiled and memory is taken."""
        return self._timed(lambda: self._learn(self.batches), times=1)

    def step(self) -> float:
        """Seconds of a step on batches that are there."""
        return self._timed(lambda: self._learn(self.batches))

    def halves(self) -> tuple[float, float]:
        """Seconds of forward and backward pass, and of what the optimiser and the EMA do with the gradient."""
        learner, seconds = self.learner, [0.0, 0.0]

        def backward() -> None:
            self.losses_R = learner.parallel.backward(self.batches, self.targets)

        def update() -> None:
            learner.updates.apply(self.taken, learner.parallel.weighted(self.losses_R))
            if learner.ema is not None:
                learner.ema.update(self.taken)

        for _ in range(self.steps):
            for half, run in enumerate((backward, update)):
                seconds[half] += self._timed(run, times=1) / self.steps
        return seconds[0], seconds[1]

    def streamed(self) -> tuple[float, float]:
        """Seconds of a step on what the stream delivers, and seconds of it spent waiting.

        What was read ahead while no step was taken is used up before the clock starts.
        """
        stream = self.stream
        if stream is None:
            raise ValueError("there is no stream to measure")

        def learn() -> None:
            self._learn([next(stream) for _ in range(stream.accumulation)])

        emptying = math.ceil(self._read_ahead / stream.accumulation)
        self._timed(learn, times=emptying)
        waited_s, steps = stream.waited_s, self.streamed_steps
        seconds = self._timed(learn, times=steps)
        return seconds, (stream.waited_s - waited_s) / steps

    @property
    def streamed_steps(self) -> int:
        """How many steps are timed on what the stream delivers."""
        accumulation = self.stream.accumulation if self.stream else 1
        steps = max(self.steps, math.ceil(STREAMED * self._read_ahead / accumulation))
        return steps if self.most_streamed is None else min(steps, self.most_streamed)

    @property
    def _read_ahead(self) -> int:
        """Micro-batches that the stream holds at most; one is always on its way beside those of the prefetch."""
        return self.config.run.prefetch + 1

    def limit(self) -> float:
        """FLOP/s of a large product of matrices in the precision of the run."""
        side = MATRIX_SIDE[self.world.device.type]
        dtype = torch.bfloat16 if self.config.run.precision == "bf16" else torch.float32
        left, right = (torch.randn(side, side, device=self.world.device, dtype=dtype) for _ in range(2))
        left @ right
        self._wait()
        done, began_s = 0, time.perf_counter()
        while time.perf_counter() - began_s < LIMIT_S:
            for _ in range(10):
                left @ right
            self._wait()
            done += 10
        return done * 2 * side**3 / (time.perf_counter() - began_s)

    def _learn(self, batches: list[Batch]) -> None:
        self.learner.learn(self.taken, batches, self.targets)
        self.taken += 1

    def _timed(self, run: Callable[[], None], times: int | None = None) -> float:
        """Seconds of one of several runs; as in training, the host runs ahead of the device."""
        self._wait()
        began_s = time.perf_counter()
        for _ in range(times or self.steps):
            run()
        self._wait()
        return (time.perf_counter() - began_s) / (times or self.steps)

    def _wait(self) -> None:
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)


def noise(config: Config, seed: int) -> Batch:
    """A micro-batch of random images whose middle is face, as the stream would hand it over."""
    generator = torch.Generator().manual_seed(seed)
    people, stored = config.run.per_process, IMAGES_PER_IDENTITY
    needs = meta_model(config).needs
    side = decoded_side(needs.side)
    masks = None
    if needs.masks:
        masks = torch.zeros(people, stored, side, side, dtype=torch.uint8)
        masks[..., side // 4 : -side // 4, side // 4 : -side // 4] = 255
    landmarks = None
    if height := needs.landmark_images:
        shape = (people, config.data.targets, height, height, 3)
        landmarks = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    batch = Batch(
        images_BKSSC=torch.randint(
            0, 256, (people, stored, side, side, 3), dtype=torch.uint8, generator=generator
        ),
        masks_BKSS=masks,
        keypoints_BKP2=torch.rand(people, stored, 5, 2, generator=generator) if needs.keypoints else None,
        landmark_images_BNHHC=landmarks,
        inputs_BM=torch.arange(config.data.most_inputs).repeat(people, 1),
        input_valid_BM=None,
        targets_BN=torch.arange(config.data.targets).repeat(people, 1),
        valid_B=torch.ones(people, dtype=torch.bool),
        seeds_B=torch.randint(-(2**63), 2**63 - 1, (people,), generator=generator),
        keys=tuple(f"noise-{number}" for number in range(people)),
    )
    return batch.pinned() if torch.cuda.is_available() else batch
