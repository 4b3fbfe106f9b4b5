"""An export is what a run has learned, and stock diffusers draws with it what we draw."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_runs import SIDE, as_trained, flow_config, flow_stage, write_run
from typer.testing import CliRunner

from training.cli import app
from training.data.batch import Batch
from training.errors import TrainingError
from training.export import export, read_export, read_trained
from training.models.encoder import OmniIDEncoder
from training.models.flow import FlowStage
from training.models.flux_latents import unpack
from training.models.pixels import pixels
from training.trained import read_run

PROMPT = "photo of a person."


@pytest.fixture(scope="module")
def stage(tiny_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> FlowStage:
    return as_trained(flow_stage(flow_config(tiny_flux, tmp_path_factory.mktemp("prompts"))))


@pytest.fixture(scope="module")
def run(stage: FlowStage, tiny_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return write_run(folder, flow_config(tiny_flux, folder), stage)


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "omniid"
    export(run, folder)
    return folder


def test_each_file_that_is_written_is_named_with_its_size(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "omniid")])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    listed = {name: size for size, _, name in (line.split() for line in lines if line.startswith("  "))}
    written = {path.relative_to(tmp_path / "omniid") for path in tmp_path.rglob("*") if path.is_file()}
    assert set(map(Path, listed)) == written
    adapter = (tmp_path / "omniid" / "ip_adapter.safetensors").stat().st_size
    assert float(listed["ip_adapter.safetensors"]) == pytest.approx(adapter / 1e3, abs=0.06)
    assert f"OmniIDEncoder.from_pretrained('{tmp_path}/omniid/encoder')" in result.stdout


def as_image_embeds(exported: Path, batch: Batch) -> list[torch.Tensor]:
    """As the example does it: the encoder from its folder, four identity tokens laid end to end."""
    encoder = OmniIDEncoder.from_pretrained(exported / "encoder").eval()
    with torch.no_grad():
        tokens_BLD = encoder(pixels(batch.images_BKSSC[:, :3], encoder.size.side))
    return [tokens_BLD.unflatten(1, (-1, 4)).flatten(2)]


def drawn(
    pipeline: Any,
    embeds: list[torch.Tensor],
    noise_BQF: torch.Tensor,
    scale: float = 1.0,
    negative: list[torch.Tensor] | None = None,
    **more: Any,
) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.set_ip_adapter_scale(scale)
    return pipeline(
        prompt=[PROMPT] * len(noise_BQF),
        max_sequence_length=16,
        num_inference_steps=4,
        guidance_scale=3.5,
        height=SIDE,
        width=SIDE,
        latents=noise_BQF,
        ip_adapter_image_embeds=embeds,
        negative_ip_adapter_image_embeds=negative or embeds,
        output_type="pt",
        **more,
    ).images


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_a_stock_pipeline_draws_what_our_sampler_draws(stage, exported, tiny_flux, make_batch, scale) -> None:
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    pipeline.load_ip_adapter(
        exported, weight_name="ip_adapter.safetensors", image_encoder_pretrained_model_name_or_path=None
    )
    batch = make_batch(people=1)
    noise = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(3))
    theirs = drawn(pipeline, as_image_embeds(exported, batch), noise, scale)
    with torch.no_grad():
        tokens = stage.identify(batch)
        ours = stage.codec.decode(unpack(stage.denoise(noise, tokens, stage.way(SIDE, 4, 3.5, scale))))
        nobody = stage.codec.decode(unpack(stage.denoise(noise, tokens, stage.way(SIDE, 4, 3.5, 0.0))))
    assert torch.allclose(ours, theirs, atol=2e-5)
    assert (ours - nobody).abs().max() > 100 * (ours - theirs).abs().max()


def test_a_stock_pipeline_guides_by_identity_as_our_sampler_does(
    stage, exported, tiny_flux, make_batch
) -> None:
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    pipeline.load_ip_adapter(
        exported, weight_name="ip_adapter.safetensors", image_encoder_pretrained_model_name_or_path=None
    )
    batch = make_batch(people=1)
    noise = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(3))
    embeds = as_image_embeds(exported, batch)
    theirs = drawn(
        pipeline,
        embeds,
        noise,
        negative=[torch.zeros_like(embeds[0])],
        negative_prompt=[PROMPT],
        true_cfg_scale=2.5,
    )
    with torch.no_grad():
        tokens = stage.identify(batch)
        ours, plain = (
            stage.codec.decode(unpack(stage.denoise(noise, tokens, stage.way(SIDE, 4, 3.5, 1.0, guidance))))
            for guidance in (2.5, 1.0)
        )
    assert torch.allclose(ours, theirs, atol=2e-5)
    assert (ours - plain).abs().max() > 100 * (ours - theirs).abs().max()


def test_so_does_a_stock_pipeline_with_a_controlnet(stage, exported, tiny_flux, make_batch) -> None:
    """A new ControlNet says nothing yet, so ours is what must come out; one that speaks changes it."""
    from diffusers import FluxControlNetModel, FluxControlNetPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer")
    control = FluxControlNetModel.from_transformer(
        transformer, num_layers=1, num_single_layers=0, num_attention_heads=2, attention_head_dim=16
    )
    pipeline = FluxControlNetPipeline.from_pretrained(tiny_flux, controlnet=control)
    pipeline.load_ip_adapter(
        exported, weight_name="ip_adapter.safetensors", image_encoder_pretrained_model_name_or_path=None
    )
    batch = make_batch(people=1)
    embeds = as_image_embeds(exported, batch)
    noise = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(3))
    landmarks = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    theirs = drawn(pipeline, embeds, noise, control_image=landmarks)
    with torch.no_grad():
        ours = stage.codec.decode(
            unpack(stage.denoise(noise, stage.identify(batch), stage.way(SIDE, 4, 3.5)))
        )
        assert torch.allclose(ours, theirs, atol=2e-5)
        for block in control.controlnet_blocks:
            block.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(5))
    guided = drawn(pipeline, embeds, noise, control_image=landmarks)
    assert (guided - theirs).abs().max() > 1e-3
    stranger = [-embeds[0]]
    assert (drawn(pipeline, stranger, noise, control_image=landmarks) - guided).abs().max() > 1e-3


def test_nothing_is_exported_among_other_files(run, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"holds something else than an export \(dataset\.json\)"):
        export(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]


def test_an_export_holds_what_the_run_learned_to_the_bit(stage, run, exported) -> None:
    ours = {name: weight for name, weight in stage.named_parameters() if weight.requires_grad}
    for trained in (read_run(run), read_export(exported)):
        assert trained.facts.step == 3
        assert trained.facts.flow == stage.flow.model_copy(update={"prompt_cache": None})
        assert set(trained.weights) == set(ours)
        assert all(torch.equal(weight, ours[name]) for name, weight in trained.weights.items())


def test_where_the_encoder_came_from_is_no_part_of_an_export(stage, tiny_flux, tmp_path: Path) -> None:
    came = {"encoder": "acme/omniid", "encoder_revision": "0" * 40}
    config = flow_config(tiny_flux, tmp_path, came, model={"size": "tiny", "clip": "encoder"})
    export(write_run(tmp_path / "run", config, stage), tmp_path / "out")
    flow = read_export(tmp_path / "out").facts.flow
    assert (flow.encoder, flow.encoder_revision) == (None, None)


def test_without_an_average_the_weights_are_exported(stage, tiny_flux, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", flow_config(tiny_flux, tmp_path), stage, average=False)
    export(run, tmp_path / "out")
    weights = read_trained(tmp_path / "out").weights
    assert torch.equal(weights["encoder.query_LD"], stage.encoder.query_LD)


def test_a_transformer_that_was_trained_too_is_exported_for_diffusers(tmp_path: Path) -> None:
    from diffusers import FluxTransformer2DModel

    config = flow_config(None, None)
    stage = as_trained(flow_stage(config))
    export(write_run(tmp_path / "run", config, stage), tmp_path / "out")
    found, report = FluxTransformer2DModel.from_pretrained(
        tmp_path / "out", subfolder="transformer", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    mine = stage.transformer.state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in found.state_dict().items())
    again = read_trained(tmp_path / "out")
    assert set(again.weights) == set(dict(stage.named_parameters()))


def test_the_newest_checkpoint_counts_and_unfinished_ones_do_not(stage, tiny_flux, tmp_path: Path) -> None:
    config = flow_config(tiny_flux, tmp_path)
    run = write_run(tmp_path, config, stage, step=9)
    write_run(tmp_path, config, stage, step=10)
    shutil.copytree(
        run / "checkpoints/step-000000010", run / "checkpoints/.step-000000011.tmp-0123456789abcdef"
    )
    assert read_run(run).facts.step == 10


def without(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda run: shutil.rmtree(run / "checkpoints"),
            r"has no checkpoint yet; train for checkpoints\.every=1000",
        ),
        (lambda run: (run / "run.json").unlink(), r"is no run: it has no run\.json"),
        (lambda run: (run / "run.json").write_text("{"), r"run\.json cannot be read"),
        (
            lambda run: (run / "checkpoints/step-000000003/.metadata").write_bytes(b"x"),
            "step-000000003 cannot be read",
        ),
        (
            lambda run: next((run / "checkpoints/step-000000003").glob("*.distcp")).unlink(),
            "step-000000003 cannot be read",
        ),
    ],
    ids=["no checkpoint", "no run file", "half a run file", "no table", "no tensors"],
)
def test_a_run_that_cannot_be_exported_says_why(run, tmp_path: Path, damage, message) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    damage(copy)
    with pytest.raises(TrainingError, match=message):
        export(copy, tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "omniid.json").unlink(), "neither the output of a run"),
        (lambda out: (out / "omniid.json").write_text("[]"), "cannot be read"),
        (
            lambda out: (out / "omniid.json").write_text(
                json.dumps(json.loads((out / "omniid.json").read_text()) | {"format_version": "2.0"})
            ),
            r"format 2\.0, this code reads 1\.0",
        ),
        (
            lambda out: (out / "ip_adapter.safetensors").write_bytes(b"x"),
            r"ip_adapter\.safetensors cannot be read",
        ),
        (lambda out: (out / "encoder/model.safetensors").unlink(), "holds no finished encoder"),
    ],
    ids=["no facts", "no facts in it", "newer", "adapter", "encoder"],
)
def test_an_export_that_cannot_be_read_says_why(exported, tmp_path: Path, damage, message) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    damage(copy)
    with pytest.raises(TrainingError, match=message):
        read_trained(copy)
