"""Cosines at which two embeddings are one person's: each embedder has its own, in the registry of networks."""

from __future__ import annotations

from typing import TypeVar

from faces.registry import Weights
from pipeline.config import PlanConfig
from pipeline.errors import BuildError

AnyConfig = TypeVar("AnyConfig", bound=PlanConfig)


def with_thresholds(config: AnyConfig, weights: Weights) -> AnyConfig:
    """The configuration with the embedder's thresholds where it sets none.

    Raises:
        BuildError: neither the configuration nor the registry has one that is needed.
    """
    model = weights[config.models.embedder].model
    needed = (
        ("tracking", "merge_cosine", model.link_cosine),
        ("people", "link_cosine", model.link_cosine),
        ("people", "same_origin_cosine", model.same_person_cosine),
    )
    update: dict[str, dict[str, float]] = {}
    for section, key, registered in needed:
        if getattr(getattr(config, section), key) is not None:
            continue
        if registered is None:
            raise BuildError(
                f"{section}.{key}: not set, and the registry has no threshold for models.embedder={model.name}. "
                f"Give {section}.{key}=COSINE, or `link_cosine` in the network's entry of models.json"
            )
        update.setdefault(section, {})[key] = registered
    people = config.people
    if people.link_cosine is None and people.same_origin_cosine is not None:
        linked = update["people"]["link_cosine"]
        if people.same_origin_cosine > linked:
            raise BuildError(
                f"people.same_origin_cosine={people.same_origin_cosine:g} is above people.link_cosine, which is "
                f"{linked:g} with models.embedder={model.name}. Lower it, or set both"
            )
    if people.link_cosine is not None and "same_origin_cosine" in update.get("people", {}):
        same_origin = update["people"]["same_origin_cosine"]
        update["people"]["same_origin_cosine"] = min(same_origin, people.link_cosine)
    return config.model_copy(
        update={
            section: getattr(config, section).model_copy(update=values) for section, values in update.items()
        }
    )
