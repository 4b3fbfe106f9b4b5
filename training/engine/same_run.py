"""Is a run the one that its checkpoint was saved by, and is it the same on all ranks?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from settings.section import completed, differences
from training.config import Config
from training.engine.checkpoint import SavedState
from training.engine.collectives import Collectives
from training.errors import TrainingError
from training.model import IdentityModel
from training.models.digest import weights_digest

REPRESENTATION = "representation"
REPRESENTATION_KEYS = ("representation.weights", "representation.clip", "representation.recogniser")
"""Config keys that name its frozen weights."""


def check_same_run(saved: SavedState, config: Config, dataset_sha256: str) -> None:
    """Check that a run resumes with the configuration and the dataset of its checkpoint.

    A key that the code of the checkpoint did not have counts as its default, which does what that code did.

    Raises:
        TrainingError: they differ; the message lists the keys.
    """
    output, new = config.output, config.defining()
    changed = differences(completed(saved.config, new, config), new)
    if saved.dataset_sha256 != dataset_sha256:
        changed.append(f"dataset (sha256 of its metadata): {saved.dataset_sha256} -> {dataset_sha256}")
    if changed:
        listed = "\n  ".join(changed)
        raise TrainingError(
            f"{output} holds checkpoints of a run with another configuration or dataset:\n  {listed}\n"
            "Use the same to resume it, or another output to start a new run"
        )


def check_same_weights(
    model: IdentityModel,
    saved: SavedState | None,
    output: Path,
    collectives: Collectives,
    frozen_keys: Mapping[str, Sequence[str]],
) -> None:
    """Check that all ranks have the same weights, and the frozen ones are those of the checkpoint.

    Args:
        model: with its initial weights.
        saved: the checkpoint that the run resumes from.
        output: directory of the run.
        collectives: of the ranks.
        frozen_keys: config keys of frozen weights, by decoder, for the message.

    Raises:
        RunEnded: they are not.
    """
    keys = {REPRESENTATION: REPRESENTATION_KEYS} | dict(frozen_keys)
    frozen, trained = model.frozen_digests, weights_digest(model)
    frozen_on_0, trained_on_0 = collectives.all_gather((frozen, trained))[0]
    with collectives.barrier():
        if frozen != frozen_on_0:
            raise TrainingError(
                f"the frozen weights differ from those of rank 0 ({_differing(frozen, frozen_on_0, keys)}). "
                "Give all machines the same files"
            )
        if trained != trained_on_0:
            raise TrainingError(
                "the initial weights differ from those of rank 0. Give all machines the same "
                "representation.weights, representation.clip and version of torch"
            )
        if saved and saved.frozen_digests != frozen:
            raise TrainingError(
                f"{output} holds checkpoints of a run with other frozen weights "
                f"({_differing(frozen, saved.frozen_digests, keys)}). Use the same weights to resume it, or "
                "another output to start a new run"
            )


def _differing(some: Mapping[str, str], others: Mapping[str, str], keys: Mapping[str, Sequence[str]]) -> str:
    """The config keys of the parts whose digests differ."""
    parts = sorted(part for part in some.keys() | others.keys() if some.get(part) != others.get(part))
    return "; ".join(" or ".join(keys.get(part, ())) or f"decoders.{part}" for part in parts)
