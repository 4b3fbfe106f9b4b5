"""Thresholds come from the embedder, unless the configuration sets them."""

from __future__ import annotations

from pathlib import Path

import pytest
from staged_videos import MODELS_USED, WORKFLOW

from faces.registry import WeightsFile
from pipeline.config import Config
from pipeline.errors import BuildError
from pipeline.thresholds import with_thresholds
from settings.loading import load_workflow


def config(*overrides: str) -> Config:
    return load_workflow(WORKFLOW, ["source.path=/clips", "output=/mfhq", *overrides], Config)


def test_what_is_not_set_is_the_embedders() -> None:
    found = with_thresholds(config(), MODELS_USED)
    model = MODELS_USED["sface"].model
    assert found.people.link_cosine == found.tracking.merge_cosine == model.link_cosine == 0.6
    assert found.people.same_origin_cosine == model.same_person_cosine == 0.4
    assert with_thresholds(found, MODELS_USED) == found


def test_what_is_set_stays() -> None:
    keys = ("people.link_cosine=0.7", "people.same_origin_cosine=0.5", "tracking.merge_cosine=0.65")
    found = with_thresholds(config(*keys), MODELS_USED)
    assert (found.people.link_cosine, found.people.same_origin_cosine) == (0.7, 0.5)
    assert found.tracking.merge_cosine == 0.65


def test_one_origin_never_needs_more_than_others() -> None:
    assert with_thresholds(config("people.link_cosine=0.35"), MODELS_USED).people.same_origin_cosine == 0.35


def test_a_network_without_thresholds_needs_them_in_the_configuration() -> None:
    model = MODELS_USED["sface"].model.model_copy(update={"link_cosine": None})
    weights = MODELS_USED | {"sface": WeightsFile(model, Path("net.onnx"), "0" * 64)}
    with pytest.raises(BuildError) as error:
        with_thresholds(config(), weights)
    assert "tracking.merge_cosine: not set" in str(error.value)
    assert "`link_cosine` in the network's entry of models.json" in str(error.value)
    set_here = config("tracking.merge_cosine=0.6", "people.link_cosine=0.6")
    assert with_thresholds(set_here, weights).people.same_origin_cosine == 0.4
