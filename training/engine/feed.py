"""The batches of a step, on all ranks or on none: the stream, joined with the all-reduce of each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from training.data.batch import Batch
from training.data.hashing import hash64
from training.data.stream import IdentityStream
from training.engine.collectives import USER_ERRORS, Collectives
from training.errors import RunEnded, Stopped

ORDER_BITS = 48
"""Of the digest of a step's identities: small enough to be exact as a JSON number, and in a sum of 64 bits."""


@dataclass(frozen=True)
class Fed:
    """The batches of a step, or none when the run stops."""

    batches: Sequence[Batch]
    """The micro-batches of this rank."""
    targets: int
    """Targets of undamaged samples, over all ranks."""
    order: int
    """Digest of the step's identities in their order: the same on any number of ranks."""
    stop: bool
    """The run stops before this step."""


class Feed:
    """Takes what a step needs from the stream, counts what is damaged, and ends the run past the budget.

    Args:
        stream: of this rank.
        collectives: of the ranks.
        max_damaged: damaged identities, over all ranks, that are skipped before the run ends.
        damaged: those met before the step that the stream begins with, and what is wrong with each.
        message: shows a message to the user; called on all ranks alike.
    """

    def __init__(
        self,
        stream: IdentityStream,
        collectives: Collectives,
        *,
        max_damaged: int,
        damaged: Mapping[str, str],
        message: Callable[[str], None],
    ) -> None:
        self._stream = stream
        self._collectives = collectives
        self._max_damaged = max_damaged
        self.damaged = dict(damaged)
        """Damaged identities met so far, by any rank, and what is wrong with each; they count once, however
        many epochs meet them."""
        self._message = message

    def next(self, step: int, stop: bool = False, problem: str | None = None) -> Fed:
        """The batches of a step.

        Args:
            step: 0, 1, …
            stop: this rank was asked to stop.
            problem: what went wrong on this rank since the step before.

        Raises:
            RunEnded: something is wrong on some rank, or too much is damaged.
        """
        batches: list[Batch] = []
        if not (stop or problem):
            try:
                batches = [next(self._stream) for _ in range(self._stream.accumulation)]
            except Stopped:
                stop = True
            except USER_ERRORS as error:
                problem = str(error)
        targets = sum(batch.target_count for batch in batches)
        blank = [key for batch in batches for key in _blank(batch)]
        agreement = self._collectives.all_reduce(
            (len(blank), targets, self._order(step, batches)), stop, problem
        )
        if agreement.stop:
            return Fed([], 0, 0, stop=True)
        blanks, targets, order = agreement.counts
        if blanks:
            self._note({key: self._stream.problems[key] for key in blank})
        if len(self.damaged) > self._max_damaged:
            raise RunEnded(self._too_much_is_damaged())
        return Fed(batches, targets, order % 2**ORDER_BITS, stop=False)

    def _note(self, problems: Mapping[str, str]) -> None:
        """Note what is wrong with the blank rows of this rank, as all ranks do."""
        for met in self._collectives.all_gather(problems):
            for key, problem in met.items():
                if key not in self.damaged:
                    self.damaged[key] = problem
                    self._message(f"skipped: {problem}")

    def _order(self, step: int, batches: Sequence[Batch]) -> int:
        """A sum, so that it can be added up over ranks; each identity goes in with its place in the step."""
        world = self._collectives.world
        keys = [key for batch in batches for key in batch.keys]
        return sum(
            hash64(step, world.rank + number * world.world_size, key) % 2**ORDER_BITS
            for number, key in enumerate(keys)
        )

    def _too_much_is_damaged(self) -> str:
        listed = "\n  ".join(list(self.damaged.values())[-20:])
        return (
            f"{len(self.damaged)} damaged identities were met, more than run.max_damaged={self._max_damaged} "
            f"allows:\n  {listed}\nCopy or build the dataset again (`mfhq verify` lists all that is wrong with "
            "it), or raise run.max_damaged"
        )


def _blank(batch: Batch) -> list[str]:
    return [key for key, valid in zip(batch.keys, batch.valid_B.tolist(), strict=True) if not valid]
