"""Held-out identities, encoded once: all decoders, the swap test, RankMe and the sample grid use the same tokens.

Letters in names give the shape:
    B  identities    L  identity tokens    D  channels of a token
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from training.data.batch import Batch

Gather = Callable[[Any], list[Any]]
"""An all-gather: the values of all ranks, by rank. Every rank calls it."""
Precision = Callable[[], AbstractContextManager[Any]]
"""Entered around the model, for autocast."""


def single_rank(value: Any) -> list[Any]:
    """`Gather` of a run on one rank."""
    return [value]


class Encoder(Protocol):
    """What makes identity tokens."""

    def encode(self, batch: Batch, most_inputs: int | None = None) -> torch.Tensor:
        """Identity tokens of the inputs of a batch, or of the first `most_inputs` of them, (B, L, D)."""


@dataclass(frozen=True)
class Encoded:
    """A batch of held-out identities and its tokens, on the CPU (1.3 MB an identity at the paper's size).

    Attributes:
        batch: images and targets.
        persons: of each row; those of blank rows are empty.
        tokens_BLD: of all inputs, float32.
        one_input_BLD: of the first input alone, as the representation gives them.
        mean_BD: mean of `tokens_BLD` over the tokens, float32, computed on the model's device.
    """

    batch: Batch
    persons: Sequence[str]
    tokens_BLD: torch.Tensor
    one_input_BLD: torch.Tensor
    mean_BD: torch.Tensor

    def valid_rows(self) -> Iterator[tuple[int, str, str]]:
        """Row, key and person of the identities that count: blank rows bear the key of some other row."""
        valid = self.batch.valid_B.tolist()
        for row, (key, person) in enumerate(zip(self.batch.keys, self.persons, strict=True)):
            if valid[row]:
                yield row, key, person


@torch.no_grad()
def encode(
    model: Encoder,
    batches: Iterable[tuple[Batch, Sequence[str]]],
    device: torch.device,
    precision: Precision = nullcontext,
) -> list[Encoded]:
    """Encode each batch twice: from all of its inputs, and from the first one.

    Args:
        model: in the mode and with the weights that are measured.
        batches: this rank's held-out identities, with the person of each row; on the CPU. Every rank must have the
            same number of batches.
        device: where the model is.
        precision: entered around the model.
    """
    found = []
    for batch, persons in batches:
        here = batch.to(device)
        with precision():
            tokens_BLD = model.encode(here).float()
            one_input_BLD = model.encode(here, most_inputs=1)
        mean_BD = tokens_BLD.mean(dim=1)
        found.append(Encoded(batch, persons, tokens_BLD.cpu(), one_input_BLD.cpu(), mean_BD.cpu()))
    return found
