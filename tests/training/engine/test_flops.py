"""The count of a step's FLOPs is the one that can be worked out by hand from the sizes of its matrices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_runs import SCRATCH
from tiny_models import mtd_config

from training.config import Config
from training.engine.flops import micro_batch_flops, step_flops
from training.model import meta_model
from training.models.sizes import SIZES, ModelSize
from training.representations.omniid import OmniIDEncoder


def config(size: str = "tiny", **changes: Any) -> Config:
    return mtd_config(**{"representation": {"size": size}, "batch": 8} | changes)


def by_hand(size: ModelSize, inputs: int, targets: int = 0, seen: int = 0) -> int:
    """FLOPs of one identity, of the representation alone where there are no targets.

    A product (n, k) x (k, m) takes 2nkm; its two gradients take as many each.
    """
    width, patches, colours = size.width, size.patches, 3 * size.patch**2

    def attention(queries: int, keys: int) -> int:
        return 2 * 2 * queries * keys * width

    def linear(tokens: int, into: int = 1, out: int = 1) -> int:
        return 2 * tokens * into * width * out * width

    def feed(tokens: int) -> int:
        return 2 * linear(tokens, 1, 4)

    def cross(queries: int, keys: int) -> int:
        return 2 * linear(queries) + linear(keys, 1, 2) + attention(queries, keys) + feed(queries)

    def mix(tokens: int) -> int:
        return 4 * linear(tokens) + attention(tokens, tokens) + feed(tokens)

    def tower(tokens: int) -> int:
        return size.layers * mix(tokens + 1)

    inner = (
        inputs * tower(patches)
        + size.cross_blocks * cross(size.queries, inputs * patches)
        + size.self_blocks * mix(size.queries)
    )
    if targets:
        inner += (
            targets * tower(seen)
            + size.cross_blocks * cross(targets * patches, size.queries)
            + targets * size.self_blocks * mix(patches)
            + targets * 2 * patches * width * colours
        )
    # Pixels, and which patches are seen, need no gradient.
    embedding = 2 * (inputs * patches + targets * seen) * colours * width
    placing = 2 * targets * 2 * seen * patches * width
    return 3 * inner + 2 * (embedding + placing)


@pytest.mark.parametrize("size", ["tiny", "paper"])
def test_the_count_is_that_by_hand(size: str) -> None:
    model = SIZES[size]
    expected = by_hand(model, inputs=3, targets=8, seen=model.kept(0.95))
    assert step_flops(config(size)) == 8 * expected


def test_clip_h_takes_1003_gflop_an_image() -> None:
    with torch.device("meta"):
        tower = meta_model(config("paper")).representation.clip
        image = torch.empty(1, 3, 224, 224)
    scalar = type("Sum", (torch.nn.Module,), {"forward": lambda self, batch: tower(batch).sum()})()
    assert micro_batch_flops(scalar, image) / 1e9 == pytest.approx(1003.38, abs=0.01)


def test_it_does_not_matter_how_the_machines_run_the_step() -> None:
    whole = step_flops(config(run={"per_process": 8}))
    assert step_flops(config(run={"per_process": 2})) == whole
    assert step_flops(config(run={"activation_checkpointing": True, "strategy": "fsdp"})) == whole
    assert step_flops(config(batch=32)) == 4 * whole


def test_patches_that_are_not_seen_are_not_counted() -> None:
    few, many = (step_flops(config(decoders={"mtd": {"mask_ratio": ratio}})) for ratio in (0.95, 0.5))
    model = SIZES["tiny"]
    expected = [by_hand(model, 3, 8, model.kept(ratio)) for ratio in (0.95, 0.5)]
    assert many - few == 8 * (expected[1] - expected[0]) > 0


@pytest.mark.slow
def test_flux_takes_the_flops_that_its_sizes_say(tmp_path: Path) -> None:
    """57 blocks of 3,072 channels: products with frozen weights have one gradient, those of attention two."""
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    from noise_flux import write_sizes

    def count(text_tokens: int) -> int:
        flow = {"base": str(write_sizes(tmp_path)), "side": 512, "text_tokens": text_tokens}
        return step_flops(config("paper", batch=1, run={"per_process": 1}, decoders={"flow": flow}))

    def forward(text_tokens: int) -> tuple[float, float]:
        tokens = 1024 + text_tokens
        return 57 * 24 * tokens * 3072**2, 57 * 4 * tokens**2 * 3072

    (long, long_attention), (short, short_attention) = forward(512), forward(64)
    assert ((long + long_attention) / 1e12, (short + short_attention) / 1e12) == pytest.approx(
        (21.5, 14.9), abs=0.05
    )
    expected = 8 * (2 * (long - short) + 3 * (long_attention - short_attention))
    assert count(512) - count(64) == pytest.approx(expected, rel=0.02)


def test_a_range_of_inputs_counts_as_its_most() -> None:
    tree = {"root": "mfhq", "inputs": (1, 5)}
    assert step_flops(config(data=tree)) == step_flops(config(data={"root": "mfhq", "inputs": 5}))


def test_decoders_add_up_and_the_representation_counts_once() -> None:
    flow = {"scratch": SCRATCH, "side": 32}
    one, other, both = (
        step_flops(config(decoders=decoders))
        for decoders in ({"mtd": {}}, {"flow": flow}, {"mtd": {}, "flow": flow})
    )
    assert both == one + other - 8 * by_hand(SIZES["tiny"], inputs=3)


def test_a_frozen_representation_counts_once_forward(tmp_path: Path) -> None:
    """It needs no gradients; of the first products with its tokens, the decoder's own gradients stay."""
    OmniIDEncoder(SIZES["tiny"]).save_pretrained(tmp_path)
    section = {"size": "tiny", "weights": str(tmp_path)}
    trained, frozen = (
        step_flops(config(representation=section | {"frozen": value})) for value in (False, True)
    )
    model = SIZES["tiny"]
    representation = 8 * by_hand(model, inputs=3)
    assert trained - representation < frozen < trained - representation / 2
