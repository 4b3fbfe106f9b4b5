"""Validation while training: the held-out identities are encoded once, and all decoders measured on the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shards.schema import Split
from training.config import Config
from training.data.dataset import StreamedDataset
from training.data.held_out import HeldOut, held_out_batches
from training.data.needs import Needs
from training.engine.collectives import USER_ERRORS, Collectives
from training.errors import Stopped
from training.evaluate.encoded import Encoded, Precision, encode
from training.evaluate.grid import sample_grid
from training.evaluate.rankme import rankme
from training.evaluate.swap import swap_test, tokens_of_mismatched
from training.evaluate.token_similarity import mean_token_similarity
from training.model import IdentityModel


@dataclass(frozen=True)
class Validated:
    """The result of a validation."""

    figures: dict[str, float]
    grid_HWC: NDArray[np.uint8] | None


class Validator:
    """Measures a model on held-out identities.

    Args:
        config: of the run.
        dataset: whose test split is used.
        needs: what is read of the held-out samples.
        collectives: of the ranks.
        stopping: whether this rank was asked to stop.
        message: shows a message to the user; every rank calls it with the same one.
    """

    def __init__(
        self,
        config: Config,
        dataset: StreamedDataset,
        needs: Needs,
        collectives: Collectives,
        *,
        stopping: Callable[[], bool],
        message: Callable[[str], None],
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._needs = needs
        self._collectives = collectives
        self._stopping = stopping
        self._message = message
        self._named: set[str] = set()
        """Damaged identities that a message has named."""

    def validate(self, model: IdentityModel, precision: Precision) -> Validated | None:
        """The figures and a sample grid, empty when no identities are held out; None when a stop cuts it short.

        `val/damaged` counts the held-out identities that are damaged; the other figures leave them out.

        Raises:
            RunEnded: held-out identities cannot be read on some rank.
        """
        try:
            return self._validate(model, precision)
        except Stopped:
            return None

    def _validate(self, model: IdentityModel, precision: Precision) -> Validated:
        world, config = self._collectives.world, self._config
        keys = self._dataset.keys(Split.TEST)[: config.validation.identities]
        per_process, grid_persons = config.run.per_process, config.validation.grid_persons
        measured = self._read(keys, per_process, self._needs, rank=world.rank, world_size=world.world_size)
        if not measured:
            return Validated({}, None)
        # All ranks make the same grid: sharded networks need all of them.
        rows = self._first_of_each_person(measured)[:grid_persons]
        # The grid shows target images, also where the losses read kept latents.
        shown = self._read(rows, grid_persons, self._needs.with_target_images(), rank=0, world_size=1)
        damaged = self._name_damaged([*measured, *shown])
        encoded = encode(
            model, [(held_out.batch, held_out.persons) for held_out in measured], world.device, precision
        )
        figures = self._figures(model, encoded, precision) | {"val/damaged": damaged}
        if not shown:
            self._message("nothing is measured: all held-out identities are damaged")
            return Validated(figures, None)
        batch = shown[0].batch
        tokens_BLD = self._tokens(batch.keys, encoded)
        with precision():
            return Validated(figures, sample_grid(model, batch, tokens_BLD.to(world.device), len(rows)))

    def _figures(
        self, model: IdentityModel, encoded: Sequence[Encoded], precision: Precision
    ) -> dict[str, float]:
        """The swap test of each decoder, RankMe and token similarity; empty when all identities are damaged."""
        device = self._collectives.world.device
        others = tokens_of_mismatched(encoded, gather=self._gather)
        figures: dict[str, float] = {}
        for name in model.names:
            found = swap_test(model, name, encoded, others, device, gather=self._gather, precision=precision)
            prefix = "val/" if len(model.names) == 1 else f"val/{name}_"
            figures |= {f"{prefix}{figure}": value for figure, value in found.items()}
        of_tokens = {
            "val/rankme": rankme(encoded, gather=self._gather),
            "val/token_similarity": mean_token_similarity(encoded, gather=self._gather),
        }
        return figures | {name: value for name, value in of_tokens.items() if value is not None}

    def _tokens(self, keys: Sequence[str], encoded: Sequence[Encoded]) -> torch.Tensor:
        """Identity tokens (B, L, D) of some undamaged identities, whichever rank has encoded them."""
        own = {
            key: held_out.tokens_BLD[row].clone()
            for held_out in encoded
            for row, key, _ in held_out.valid_rows()
            if key in keys
        }
        tokens_LD = {key: found for share in self._gather(own) for key, found in share.items()}
        return torch.stack([tokens_LD[key] for key in keys])

    def _first_of_each_person(self, measured: Iterable[HeldOut]) -> list[str]:
        """The first undamaged identity of each person, over all ranks, sorted."""
        own = [
            (key, person)
            for batch, persons, _ in measured
            for key, person in zip(batch.keys, persons, strict=True)
            if person
        ]
        first: dict[str, str] = {}
        for key, person in sorted(row for rows in self._collectives.all_gather(own) for row in rows):
            first.setdefault(person, key)
        return sorted(first.values())

    def _read(
        self, keys: Sequence[str], per_process: int, needs: Needs, *, rank: int, world_size: int
    ) -> list[HeldOut]:
        """This rank's batches, with an all-reduce after each: no rank waits longer than for one batch of another.

        Raises:
            Stopped: on all ranks, when one of them was asked to stop.
            RunEnded: they cannot be read on some rank.
        """
        reading = held_out_batches(
            self._dataset,
            keys,
            self._config.validation,
            per_process,
            needs,
            rank=rank,
            world_size=world_size,
            stopping=self._stopping,
        )
        found: list[HeldOut] = []
        while True:
            held_out, problem, stop = None, None, self._stopping()
            try:
                held_out = None if stop else next(reading, None)
            except Stopped:
                stop = True
            except USER_ERRORS as error:
                problem = str(error)
            if self._collectives.all_reduce(stop=stop, problem=problem).stop:
                raise Stopped("a stop cut the validation short")
            if held_out is None:
                return found
            found.append(held_out)

    def _gather(self, value: Any) -> list[Any]:
        """The values of all ranks, unless one of them was asked to stop."""
        if self._collectives.all_reduce(stop=self._stopping()).stop:
            raise Stopped("a stop cut the validation short")
        return self._collectives.all_gather(value)

    def _name_damaged(self, read: Iterable[HeldOut]) -> int:
        """The number of damaged identities, on all ranks; a message names those that no message has named yet."""
        own = {key: problem for held_out in read for key, problem in held_out.problems.items()}
        problems = {
            key: problem for found in self._collectives.all_gather(own) for key, problem in found.items()
        }
        for key in sorted(problems.keys() - self._named):
            self._message(f"skipped in validation: {problems[key]}")
        self._named |= problems.keys()
        return len(problems)
