"""Does the representation encode identity? Measured on held-out identities.

A decoder that only completes images would reconstruct a face equally well from another person's identity tokens.
So the losses of the same targets are computed three times: with the tokens of the person's own inputs, with those
of another person (a negative pair), and with those of the first input alone. No target is an input. Identity shows
as

    loss with own tokens  <  loss with one input's tokens  <  loss with another person's tokens

What it cannot tell: inputs and targets are frames of one video, which share light, white balance, camera,
compression and often clothes. Tokens that carried nothing else would lower the own loss as well, so a part of the
gap may be theirs. Identity alone explains it only where a person's images were taken on different occasions, as in
a dataset that `mfhq photos` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol

import numpy as np
import torch

from training.data.batch import Batch
from training.evaluate.bootstrap import Floats, interval
from training.evaluate.encoded import Encoded, Gather, Precision, single_rank
from training.evaluate.mismatched import mismatched


class Model(Protocol):
    """What is measured: the losses of a decoder that is given identity tokens."""

    def losses(self, name: str, batch: Batch, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """Loss of each target of a batch, (B, N)."""


@torch.no_grad()
def swap_test(
    model: Model,
    name: str,
    batches: Sequence[Encoded],
    mismatched_tokens: Mapping[str, torch.Tensor],
    device: torch.device,
    *,
    gather: Gather = single_rank,
    precision: Precision = nullcontext,
) -> dict[str, float]:
    """Run the swap test of a decoder.

    Args:
        model: in the mode and with the weights that are measured.
        name: of the decoder.
        batches: this rank's held-out identities; rows that are not valid count for nothing.
        mismatched_tokens: of this rank's identities, by key (`tokens_of_mismatched`).
        device: where the model is.
        gather: an all-gather over the ranks; all get the same result.
        precision: entered around the model.

    Returns:
        `loss_own`, `loss_one_input`, `loss_swapped`: means over persons, each the mean over the person's
        identities; `swap_ratio`, `one_input_ratio`: the others divided by the own loss; `own_better`: share of a
        person's identities whose loss is lower with their own tokens than with a mismatched identity's, mean over
        persons (0.5 is chance). Ratios and share have 95 % bootstrap intervals over persons, `…_low` and `…_high`.
        Nothing is swapped when all held-out identities show one person, and the result is empty when none is
        undamaged.
    """
    losses = _Losses()
    for held_out in batches:
        batch, here = held_out.batch, held_out.batch.to(device)
        # Rows without mismatched tokens (blank ones among them) get zeros and do not count.
        other_BLD = torch.stack(
            [
                mismatched_tokens.get(key, torch.zeros_like(own_LD))
                for key, own_LD in zip(batch.keys, held_out.tokens_BLD, strict=True)
            ]
        )
        with precision():
            own_BN = model.losses(name, here, held_out.tokens_BLD.to(device))
            losses.add("own", batch, own_BN)
            losses.add("one_input", batch, model.losses(name, here, held_out.one_input_BLD.to(device)))
            losses.add(
                "swapped", batch, model.losses(name, here, other_BLD.to(device)), set(mismatched_tokens)
            )
    person_of = {key: person for rows in gather(_persons(batches)) for key, person in rows}
    of_all = {place: loss for found in gather(losses.of_identities) for place, loss in found.items()}
    return _figures(of_all, person_of)


def tokens_of_mismatched(
    batches: Sequence[Encoded], *, gather: Gather = single_rank
) -> dict[str, torch.Tensor]:
    """The tokens (L, D) of the mismatched identity of each identity of this rank, by the identity's key.

    Every rank must have the same number of batches.
    """
    persons = gather(_persons(batches))
    other_of = _mismatched(row for rows in persons for row in rows)
    rank_of = {key: rank for rank, rows in enumerate(persons) for key, _ in rows}
    sent_keys = {other for key, other in other_of.items() if rank_of[key] != rank_of[other]}
    own = [[(key, found.tokens_BLD[row]) for row, key, _ in found.valid_rows()] for found in batches]
    wanted = {other_of[key] for rows in own for key, _ in rows if key in other_of}
    kept: dict[str, torch.Tensor] = {}
    # Batch by batch, so that no rank ever holds the tokens of all.
    for rows in own:
        # A row is a view: sent without a copy, it would take the whole batch with it.
        sent = {key: tokens_LD.clone() for key, tokens_LD in rows if key in sent_keys}
        for found in (dict(rows), *gather(sent)):
            kept |= {key: tokens_LD for key, tokens_LD in found.items() if key in wanted}
    return {key: kept[other] for key, other in other_of.items() if other in kept}


def _persons(batches: Sequence[Encoded]) -> list[tuple[str, str]]:
    """Key and person of the valid rows of this rank."""
    return [(key, person) for held_out in batches for _, key, person in held_out.valid_rows()]


def _mismatched(persons: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The mismatched identity of each identity that has one, by key."""
    # In the order of the keys, so that the pairs are the same on any number of ranks.
    rows = sorted(persons)
    chosen = mismatched([person for _, person in rows])
    return {key: rows[other][0] for (key, _), other in zip(rows, chosen, strict=True) if other is not None}


class _Losses:
    """The loss of each identity, by the tokens that the decoder was given."""

    def __init__(self) -> None:
        self.of_identities: dict[tuple[str, str], float] = {}

    def add(self, name: str, batch: Batch, losses_BN: torch.Tensor, counted: set[str] | None = None) -> None:
        """Add the rows of a batch; with `counted`, only those of its keys."""
        means = losses_BN.double().mean(dim=1).tolist()
        for key, valid, loss in zip(batch.keys, batch.valid_B.tolist(), means, strict=True):
            if valid and (counted is None or key in counted):
                self.of_identities[name, key] = loss


def _figures(losses: Mapping[tuple[str, str], float], person_of: Mapping[str, str]) -> dict[str, float]:
    own, one_input, swapped = (
        {key: losses[which, key] for which, key in sorted(losses) if which == name}
        for name in ("own", "one_input", "swapped")
    )
    if not own:
        return {}
    figures = {"loss_own": _mean(own, person_of), "loss_one_input": _mean(one_input, person_of)}
    if swapped:
        figures["loss_swapped"] = _mean(swapped, person_of)
        better = {key: float(own[key] < loss) for key, loss in swapped.items()}
        figures |= _with_interval("own_better", lambda share: share, _by_person(better, person_of))
    for name, others in (("one_input_ratio", one_input), ("swap_ratio", swapped)):
        if others and figures["loss_own"] > 0:
            pairs = (_by_person({key: found[key] for key in others}, person_of) for found in (others, own))
            figures |= _with_interval(name, lambda other, own_mean: other / own_mean, *pairs)
    return figures


def _with_interval(name: str, figure: Callable[..., Floats], *values_P: Floats) -> dict[str, float]:
    value = float(figure(*(values.mean() for values in values_P)))
    low, high = interval(figure, *values_P)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _mean(values: Mapping[str, float], person_of: Mapping[str, str]) -> float:
    return float(_by_person(values, person_of).mean())


def _by_person(values: Mapping[str, float], person_of: Mapping[str, str]) -> Floats:
    """(P,) the mean over the identities of each person, in the order of the persons."""
    found: dict[str, list[float]] = {}
    for key in sorted(values):
        found.setdefault(person_of[key], []).append(values[key])
    return np.array([sum(found[person]) / len(found[person]) for person in sorted(found)])
