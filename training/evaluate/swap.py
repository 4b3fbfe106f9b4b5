"""Does the encoder learn who somebody is? Measured on people that the trainer never sees.

A decoder that only completes images would draw a face as well from a stranger's identity tokens. So the same
targets are drawn three times: from the tokens of the person's own inputs, from those of another person, and from
those of the first input alone. No target is an input. Learning identity shows as

    loss with own tokens  <  loss with one input's tokens  <  loss with another person's tokens

What it cannot tell: inputs and targets are moments of one video, which share light, white balance, camera,
compression and often clothes. Tokens that carried nothing else would lower the own loss as well, so a part of the
gap may be theirs. Identity alone explains it only where a person's images were taken on different occasions, as
most of those that `benchmarks/photo_shards.py` makes a data set of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from training.data.batch import Batch
from training.evaluate.partners import partners


class Drawn(Protocol):
    """What a decoder made of the targets of a batch."""

    @property
    def loss_BN(self) -> torch.Tensor:  # noqa: N802 - the name ends in the shape
        """Of each target."""


class Drawer(Protocol):
    """A stage that can be judged: it draws targets from identity tokens, whosever they are."""

    def identify(self, batch: Batch, most_inputs: int | None = None) -> torch.Tensor:
        """Identity tokens from the inputs of a batch, or from the first `most_inputs` of them."""

    def draw(self, batch: Batch, tokens_BLD: torch.Tensor) -> Drawn:
        """Draw the targets of a batch."""


Gather = Callable[[Any], list[Any]]
"""What every process passes in, in the order of their ranks; all processes must call it."""


def alone(value: Any) -> list[Any]:
    """`Gather` for a single process."""
    return [value]


@torch.no_grad()
def validate(
    stage: Drawer,
    batches: Iterable[tuple[Batch, Sequence[str]]],
    device: torch.device,
    gather: Gather = alone,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, float]:
    """Run the swap test.

    Args:
        stage: in the mode and with the weights that are to be measured.
        batches: this process's share of the held-out identities, with the person of each row; on the CPU. Every
            process must have the same number of batches; rows that are not valid count for nothing.
        device: where the stage is.
        gather: brings the processes' figures together; all get the same result.
        precision: entered around the stage, for autocast.

    Returns:
        `val/loss_own`, `val/loss_one_input`, `val/loss_swapped`: means over all identities;
        `val/swap_ratio`, `val/one_input_ratio`: how many times the own loss the others are;
        `val/own_better`: the share of identities drawn better from their own tokens than from another person's;
        half of them would be chance. Nothing is swapped when all held-out identities show one person, and nothing
        at all is returned when none is left undamaged.
    """
    shares = list(batches)  # of one process: 2 MB a row at the paper's size
    tokens: list[torch.Tensor] = []
    for batch, _ in shares:
        with precision():
            tokens.append(stage.identify(batch.to(device)).float().cpu())
    stand_ins = _stand_ins(shares, tokens, gather)
    tally = _Tally()
    for (batch, _), own_BLD in zip(shares, tokens, strict=True):
        here = batch.to(device)
        # Blank rows, and rows without a stand-in, are drawn from nothing and not counted.
        other_BLD = torch.stack(
            [
                stand_ins.get(key, torch.zeros_like(own_LD))
                for key, own_LD in zip(batch.keys, own_BLD, strict=True)
            ]
        )
        with precision():
            tally.add("own", batch, stage.draw(here, own_BLD.to(device)))
            tally.add("one_input", batch, stage.draw(here, stage.identify(here, most_inputs=1)))
            tally.add("swapped", batch, stage.draw(here, other_BLD.to(device)), set(stand_ins))
    return _figures({place: loss for share in gather(tally.losses) for place, loss in share.items()})


def _stand_ins(
    shares: Sequence[tuple[Batch, Sequence[str]]], tokens: Sequence[torch.Tensor], gather: Gather
) -> dict[str, torch.Tensor]:
    """The tokens of the partner of each identity of this process, by the identity's key."""
    # Blank rows bear the key of some other row.
    own = [
        [
            (key, person, own_BLD[row])
            for row, (key, person) in enumerate(zip(batch.keys, persons, strict=True))
            if batch.valid_B[row]
        ]
        for (batch, persons), own_BLD in zip(shares, tokens, strict=True)
    ]
    people = gather([(key, person) for rows in own for key, person, _ in rows])
    partner_of = _partners(row for share in people for row in share)
    owners = {key: process for process, share in enumerate(people) for key, _ in share}
    travelling = {other for key, other in partner_of.items() if owners[key] != owners[other]}
    wanted = {partner_of[key] for rows in own for key, _, _ in rows if key in partner_of}
    kept: dict[str, torch.Tensor] = {}
    # Batch by batch, so that no process ever holds the tokens of all.
    for rows in own:
        # A row is a view: sent without a copy, it would take the whole batch with it.
        sent = {key: tokens_LD.clone() for key, _, tokens_LD in rows if key in travelling}
        for found in ({key: tokens_LD for key, _, tokens_LD in rows}, *gather(sent)):
            kept |= {key: tokens_LD for key, tokens_LD in found.items() if key in wanted}
    return {key: kept[other] for key, other in partner_of.items() if other in kept}


def _partners(people: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The identity of another person that stands in for each, where there is one."""
    # In the order of the keys, so that partners are the same however many processes share the work.
    everybody = sorted(people)
    chosen = partners([person for _, person in everybody])
    return {
        key: everybody[partner][0]
        for (key, _), partner in zip(everybody, chosen, strict=True)
        if partner is not None
    }


class _Tally:
    """The loss of each identity, by what it was drawn from."""

    def __init__(self) -> None:
        self.losses: dict[tuple[str, str], float] = {}

    def add(self, name: str, batch: Batch, drawing: Drawn, counted: set[str] | None = None) -> None:
        """Take the rows of a batch in, of `counted` keys only when given."""
        means = drawing.loss_BN.double().mean(dim=1).tolist()
        for key, valid, loss in zip(batch.keys, batch.valid_B.tolist(), means, strict=True):
            if valid and (counted is None or key in counted):
                self.losses[name, key] = loss


def _figures(losses: Mapping[tuple[str, str], float]) -> dict[str, float]:
    # Sorted by key: a sum in another order would have other last bits.
    by_name = {
        name: {key: losses[which, key] for which, key in sorted(losses) if which == name}
        for name in ("own", "one_input", "swapped")
    }
    means = {name: sum(found.values()) / len(found) for name, found in by_name.items() if found}
    figures = {f"val/loss_{name}": mean for name, mean in means.items()}
    for name, ratio in (("swapped", "swap_ratio"), ("one_input", "one_input_ratio")):
        if name in means and means["own"] > 0:
            figures[f"val/{ratio}"] = means[name] / means["own"]
    if swapped := by_name["swapped"]:
        better = sum(by_name["own"][key] < loss for key, loss in swapped.items())
        figures["val/own_better"] = better / len(swapped)
    return figures
