"""From a model's name in the configuration to a loaded object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from faces.catalogue import WITHOUT_FILE
from faces.embed import ArcFace, OnnxEmbedder, SFace
from faces.quality import Piqe, TopiqFace
from faces.registry import Weights, WeightsFile, look_up
from faces.scrfd import Scrfd
from faces.types import Detector, QualityMetric
from faces.yunet import YuNet


def required_files(names: Iterable[str], models_dir: Path | None = None) -> list[str]:
    """The names that have a file, without repeats and in order.

    Args:
        names: model names as a configuration gives them.
        models_dir: folder whose `models.json` may add names.

    Raises:
        ValueError: a name is not known.
    """
    return [model.name for model in look_up(names, models_dir)]


def load_detector(
    name: str,
    weights: Weights,
    device: str = "cpu",
    *,
    size: int = 640,
    min_score: float | None = None,
    least_face_px: float = 0.0,
) -> Detector:
    """A face detector.

    Args:
        name: a model of kind "yunet" or "scrfd".
        weights: the files found, by name.
        device: "cpu" or "cuda".
        size: longest side of the picture that the network sees, borders included.
        min_score: faces below this score are dropped; None for the detector's own default.
        least_face_px: size of the smallest face of interest, in pixels of the picture; 0 for all that are found.

    Raises:
        ValueError: the name is not a detector's.
    """
    model = _of_kind(name, weights, ("yunet", "scrfd"))
    score = {} if min_score is None else {"min_score": min_score}
    kind = YuNet if model.model.kind == "yunet" else Scrfd
    return kind(model.path, size=size, device=device, least_face_px=least_face_px, **score)


def load_embedder(name: str, weights: Weights, device: str = "cpu") -> OnnxEmbedder:
    """An identity embedder; its `name` is the one in the configuration.

    Args:
        name: a model of kind "arcface" or "sface".
        weights: the files found, by name.
        device: "cpu" or "cuda".

    Raises:
        ValueError: the name is not an embedder's.
    """
    found = _of_kind(name, weights, ("arcface", "sface"))
    model = found.model
    assert model.normalisation is not None  # noqa: S101 - the registry's model rejects an embedder without
    assert model.same_person_cosine is not None  # noqa: S101
    if model.kind == "sface":
        return SFace(found.path, device, name=name, same_person_cosine=model.same_person_cosine)
    return ArcFace(found.path, device, name, model.normalisation, model.same_person_cosine)


def load_quality(name: str, weights: Weights, device: str = "cpu") -> QualityMetric:
    """A quality metric.

    Args:
        name: "piqe", or a model of kind "topiq_face".
        weights: the files found, by name.
        device: "cpu" or "cuda"; PIQE always runs on the CPU.

    Raises:
        ValueError: the name is not a quality metric's.
    """
    if name in WITHOUT_FILE:
        return Piqe()
    metric = TopiqFace(_of_kind(name, weights, ("topiq_face",)).path, device)
    metric.name = name
    return metric


def _of_kind(name: str, weights: Weights, kinds: tuple[str, ...]) -> WeightsFile:
    found = weights.get(name)
    if found is None or found.model.kind not in kinds:
        fitting = sorted(known for known, entry in weights.items() if entry.model.kind in kinds)
        known = ", ".join([*fitting, *(WITHOUT_FILE if "topiq_face" in kinds else ())]) or "none"
        raise ValueError(f"{name!r} is not a model of kind {' or '.join(kinds)}; these are: {known}")
    return found


ROLES = {
    "detector": ("yunet", "scrfd"),
    "landmarker": ("face_landmarker",),
    "embedder": ("arcface", "sface"),
    "quality": ("topiq_face", "piqe"),
}
"""Kinds of model that can take each part."""


def check_roles(names: Mapping[str, str], weights: Weights) -> None:
    """Check that the kind of each model fits its role.

    Args:
        names: role -> model.
        weights: the files found, by name.

    Raises:
        ValueError: a model has the wrong kind for its role; all are named.
    """
    wrong = []
    for role, name in names.items():
        kind = name if name in WITHOUT_FILE else weights[name].model.kind
        if kind not in ROLES[role]:
            wrong.append(f"models.{role}={name} is a {kind}; expected a {' or '.join(ROLES[role])}")
    if wrong:
        raise ValueError("\n".join(wrong))
