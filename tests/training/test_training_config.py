"""The configuration of a training run is checked before work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from settings.loading import load_workflow
from settings.section import ConfigError, completed, differences
from training.config import Config

WORKFLOW = """\
output: runs/one
data: {root: s3://bucket/mfhq, inputs: [1, 5]}
representation: {size: tiny, clip: random}
decoders: {mtd: {}}
"""


def load(tmp_path: Path, *overrides: str) -> Config:
    workflow = tmp_path / "workflow.yaml"
    workflow.write_text(WORKFLOW)
    return load_workflow(workflow, list(overrides), Config)


def test_inputs_are_a_number_or_a_range(tmp_path: Path) -> None:
    assert (load(tmp_path).data.least_inputs, load(tmp_path).data.most_inputs) == (1, 5)
    fixed = load(tmp_path, "data.inputs=3").data
    assert (fixed.least_inputs, fixed.most_inputs) == (3, 3)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.inputs=[5, 1]", "data.inputs: [5, 1] is in descending order; expected the least first"),
        ("data.inputs=0", "data.inputs"),
        ("data.targets=9", "data.targets: expected a whole number from 1 to 8 (given: 9)"),
        (
            "representation.size=huge",
            "representation.size: expected paper, vit-l-14, vit-b-16, small, tiny, a row of training/models/",
        ),
        ("representation.clip_sha256=abc", "representation.clip_sha256"),
        (
            "decoders.mtd.mask_ratio=1",
            "decoders.mtd.mask_ratio: expected a number above 0 and below 1 (given: 1)",
        ),
        ("decoders.mtd.weight=0", "decoders.mtd.weight: expected a number "),
        ("decoders.mtd=null", "expected one or more of decoders.mtd, decoders.flow"),
        ("decoders.mtdd={}", "decoders.mtdd: no such key; did you mean decoders.mtd?"),
        ("optimiser.representation_scale=0", "optimiser.representation_scale: expected a number "),
        ("representation.frozen=true", "Set representation.weights to a trained one"),
        ("representation.frozen_tower=true", "a tower with random weights stays random"),
        ("data.targets_from=others", "leaves 3 images of an identity to choose from, given: 8"),
        ("validation.inputs=4", "4 inputs leave 4 images of an identity, given: 5"),
        ("checkpoints.keep_every=1500", "1500 is not a multiple of checkpoints.every=1000"),
        ("batch=0", "batch: expected a whole number of at least 1 (given: 0)"),
        ("seed=-1", "seed"),
        ("optimiser.betas=[0.9, 1.0]", "optimiser.betas"),
        ("optimiser.ema_decay=1", "optimiser.ema_decay: expected a number "),
        ("validation.identities=1", "validation.identities: expected a whole number "),
        ("checkpoints.keep=0", "checkpoints.keep"),
        ("run.strategy=horovod", "run.strategy: expected ddp or fsdp (given: 'horovod')"),
        ("run.precision=fp16", "run.precision: expected bf16 or fp32 (given: 'fp16')"),
        ("run.per_proces=4", "run.per_proces: no such key; did you mean run.per_process?"),
        ("steps=many", "steps"),
        ("run.retry_s=1000", "run.retry_s: expected a number "),
    ],
)
def test_an_invalid_value_is_an_error_that_names_its_key(
    tmp_path: Path, override: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, override)
    assert expected in str(caught.value)


def changed(tmp_path: Path, *overrides: str) -> list[str]:
    def defining(config: Config) -> dict[str, Any]:
        return config.defining()

    return differences(defining(load(tmp_path)), defining(load(tmp_path, *overrides)))


@pytest.mark.parametrize(
    "override",
    [
        "output=elsewhere",
        "data.root=/a/copy",
        "run.per_process=2",
        "run.strategy=fsdp",
        "run.cache.folder=/scratch",
        "validation.every=7",
        "checkpoints.every=7",
    ],
)
def test_keys_of_run_may_change_on_resume(tmp_path: Path, override: str) -> None:
    assert changed(tmp_path, override) == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("steps=7", "steps: 250000 -> 7"),
        ("batch=7", "batch: 256 -> 7"),
        ("seed=7", "seed: 0 -> 7"),
        ("data.targets=7", "data.targets: 8 -> 7"),
        ("data.inputs=2", "data.inputs: [1, 5] -> 2"),
        ("decoders.mtd.weight=0.5", "decoders.mtd.weight: 1.0 -> 0.5"),
        ("optimiser.tower_scale=0.5", "optimiser.tower_scale: 1.0 -> 0.5"),
        ("representation.size=small", "representation.size: tiny -> small"),
        ("decoders.mtd.mask_ratio=0.5", "decoders.mtd.mask_ratio: 0.95 -> 0.5"),
        ("optimiser.ema_decay=0.5", "optimiser.ema_decay: 0.9999 -> 0.5"),
    ],
)
def test_keys_that_change_the_result_may_not_change_on_resume(
    tmp_path: Path, override: str, line: str
) -> None:
    assert changed(tmp_path, override) == [line]


def test_paths_of_weights_may_change_but_not_the_weights(tmp_path: Path) -> None:
    def defining(*overrides: str) -> dict[str, Any]:
        return load(tmp_path, *overrides).defining()

    here, there = (defining(f"representation.clip=/{place}/clip.bin") for place in ("here", "there"))
    assert differences(here, there) == []
    other = defining("representation.clip=/here/other.bin")
    assert differences(here, other) == ["representation.clip: clip.bin -> other.bin"]
    assert differences(here, defining()) == ["representation.clip: clip.bin -> random"]


@pytest.mark.parametrize(
    "old",
    [
        "stage: mtd",
        "model: {size: tiny, clip: random}",
        "mtd: {mask_ratio: 0.9}",
        "flow: {base: acme/flux, encoder: runs/mtd/encoder}",
    ],
    ids=lambda line: line.partition(":")[0],
)
def test_keys_of_an_earlier_version_are_an_error_that_names_the_new_ones(tmp_path: Path, old: str) -> None:
    workflow = tmp_path / "old.yaml"
    workflow.write_text(f"{WORKFLOW}{old}\n")
    with pytest.raises(ConfigError) as caught:
        load_workflow(workflow, [], Config)
    message = str(caught.value)
    assert f"{old.partition(':')[0]}: this key is from an earlier version" in message
    assert "`stage: mtd` is now `decoders: {mtd: {}}`" in message
    assert "`model` is `representation`" in message


def test_decoders_have_a_fixed_order_and_their_weights(tmp_path: Path) -> None:
    flow = "decoders.flow={scratch: {patch: 4}, side: 32, weight: 0.5}"
    chosen = dict(load(tmp_path, flow).decoders.chosen())
    assert [(name, decoder.weight) for name, decoder in chosen.items()] == [("mtd", 1.0), ("flow", 0.5)]
    assert list(dict(load(tmp_path, flow, "decoders.mtd=null").decoders.chosen())) == ["flow"]


def test_kept_latents_exclude_mirrored_images(tmp_path: Path) -> None:
    flow = "decoders.flow={scratch: {patch: 4}, side: 32, latents: /fast/disk}"
    with pytest.raises(ConfigError, match=r"data\.flip: kept latents are those of the stored images"):
        load(tmp_path, flow, "data.flip=0.5")
    load(tmp_path, flow)


def test_a_key_that_an_older_configuration_does_not_have_counts_as_its_default(tmp_path: Path) -> None:
    config = load(tmp_path)
    old = config.defining()
    del old["representation"]["class_token"]
    del old["decoders"]["mtd"]["tower"]

    def changed(*overrides: str) -> list[str]:
        new = load(tmp_path, *overrides)
        return differences(completed(old, new.defining(), new), new.defining())

    assert changed() == []
    assert changed("decoders.mtd.tower=all", "data.targets=3") == [
        "data.targets: 8 -> 3",
        "decoders.mtd.tower: visible -> all",
    ]
    # Not the defaults of a decoder that was not there.
    flow = "decoders.flow={scratch: {patch: 4}, side: 64}"
    assert any(line.startswith("decoders.flow: None -> ") for line in changed(flow))
