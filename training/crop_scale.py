"""Compares how images were cut with how those of an encoder's training were.

An encoder reads identity from crops like those of its training. Of photos that were cut at 1.6 for an encoder that
was trained at 1.1, the tokens kept a third of the difference between a person's own and a mismatched identity, and
nothing else shows it. So a mismatch is an error where tokens are computed, and a warning where training continues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

from faces.crop import CROP_SCALE


def check_crop_scale(trained: float | None, given: Iterable[float]) -> None:
    """Check that portraits were cut as the images of the encoder's training were.

    Args:
        trained: crop scale of the training; None when the encoder does not say it, so that nothing is checked.
        given: crop scales of the portraits.

    Raises:
        ValueError: one of them differs.
    """
    others = [] if trained is None else [scale for scale in given if not math.isclose(scale, trained)]
    if others:
        raise ValueError(
            f"the portraits were cut with crop_scale {', '.join(f'{scale:g}' for scale in sorted(others))}, the "
            f"encoder was trained on {trained:g}. Cut them with crop_scale={trained:g}; otherwise the tokens lose "
            "most of the identity"
        )


def crop_scale_of(trained: float | None, source: Path, message: Callable[[str], None]) -> float:
    """How to cut photos for an encoder; the default of the pipeline, with a warning, when it does not say it.

    Args:
        trained: crop scale of its training; None when not known.
        source: of the encoder, for the warning.
        message: receives the warning.
    """
    if trained is not None:
        return trained
    message(
        f"warning: {source} does not say which crops it was trained on; {CROP_SCALE:g} is assumed. Either its "
        "dataset has no crop scale, because its faces were aligned before; or an older version wrote it: then "
        "export it again from its run"
    )
    return CROP_SCALE


def crop_scale_warning(encoder: float | None, dataset: float | None, *, frozen: bool) -> str | None:
    """The warning before training on images that were cut differently than those of an encoder; None when none.

    Args:
        encoder: crop scale of its earlier training; None when there was none, or it is not known.
        dataset: that of the dataset; None when it does not say it.
        frozen: whether the encoder is not trained.
    """
    if encoder is None or dataset is None or math.isclose(encoder, dataset):
        return None
    consequence = (
        "The frozen representation cannot adapt, and its tokens lose most of the identity. Set "
        "representation.frozen=false, or build"
        if frozen
        else "The representation has to adapt first. To avoid this, build"
    )
    return (
        f"warning: representation.weights was trained on head crops of scale {encoder:g}, but the images of "
        f"this dataset were cut at {dataset:g}. {consequence} the dataset with faces.crop_scale={encoder:g}"
    )
