"""An export holds what a run has learned, and stock diffusers generates the same images with it as ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_runs import SIDE, as_trained, decoder_of, flow_config, write_run
from tiny_models import mtd_config
from typer.testing import CliRunner

from training.cli import app
from training.data.batch import Batch
from training.decoders.flow import FlowDecoder
from training.errors import TrainingError
from training.export import export, read_export, read_trained
from training.model import IdentityModel, build_model
from training.models.flux_latents import unpack
from training.models.pixels import pixels
from training.representations.omniid import OmniIDEncoder
from training.trained import read_run

PROMPT = "photo of a person."


@pytest.fixture(scope="module")
def model(tiny_flux: Path, prompts: Path) -> IdentityModel:
    return as_trained(build_model(flow_config(tiny_flux, prompts)))


@pytest.fixture(scope="module")
def run(model: IdentityModel, tiny_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return write_run(folder, flow_config(tiny_flux, folder), model)


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
    assert f"omniid.OmniIDEncoder.from_pretrained('{tmp_path}/omniid/encoder')" in result.stdout


def as_image_embeds(exported: Path, batch: Batch) -> list[torch.Tensor]:
    """As the example does it: the encoder from its folder, four identity tokens laid end to end."""
    encoder = OmniIDEncoder.from_pretrained(exported / "encoder").eval()
    with torch.no_grad():
        tokens_BLD = encoder(pixels(batch.images_BKSSC[:, :3], encoder.size.side))
    return [tokens_BLD.unflatten(1, (-1, 4)).flatten(2)]


def ours(
    decoder: FlowDecoder, noise_BQF: torch.Tensor, tokens_BLD: torch.Tensor, *guidance: float
) -> torch.Tensor:
    """Our own samples from a noise; `guidance` are the adapter's scale and that of guidance by identity."""
    sampling = decoder.sampling(SIDE, 4, 3.5, *guidance)
    with torch.no_grad():
        return decoder.codec.decode(unpack(decoder.denoise(noise_BQF, tokens_BLD, sampling)))


def theirs(
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


def with_adapter(kind: Any, flux: Path, exported: Path, **parts: Any) -> Any:
    """A stock pipeline with the exported adapter."""
    pipeline = kind.from_pretrained(flux, **parts)
    pipeline.load_ip_adapter(
        exported, weight_name="ip_adapter.safetensors", image_encoder_pretrained_model_name_or_path=None
    )
    return pipeline


def noise(images: int) -> torch.Tensor:
    return torch.randn(images, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_a_stock_pipeline_generates_what_our_sampler_does(
    model, exported, tiny_flux, make_batch, scale: float
) -> None:
    from diffusers import FluxPipeline

    pipeline = with_adapter(FluxPipeline, tiny_flux, exported)
    batch, decoder = make_batch(people=1), decoder_of(model)
    stock = theirs(pipeline, as_image_embeds(exported, batch), noise(2), scale)
    tokens = model.encode(batch).detach()
    own, without = (ours(decoder, noise(2), tokens, given) for given in (scale, 0.0))
    assert torch.allclose(own, stock, atol=2e-5)
    assert (own - without).abs().max() > 100 * (own - stock).abs().max()


def test_a_stock_pipeline_guides_by_identity_as_our_sampler_does(
    model, exported, tiny_flux, make_batch
) -> None:
    from diffusers import FluxPipeline

    pipeline = with_adapter(FluxPipeline, tiny_flux, exported)
    batch = make_batch(people=1)
    embeds = as_image_embeds(exported, batch)
    stock = theirs(
        pipeline,
        embeds,
        noise(1),
        negative=[torch.zeros_like(embeds[0])],
        negative_prompt=[PROMPT],
        true_cfg_scale=2.5,
    )
    tokens = model.encode(batch).detach()
    own, plain = (ours(decoder_of(model), noise(1), tokens, 1.0, guidance) for guidance in (2.5, 1.0))
    assert torch.allclose(own, stock, atol=2e-5)
    assert (own - plain).abs().max() > 100 * (own - stock).abs().max()


def test_so_does_a_stock_pipeline_with_a_controlnet(model, exported, tiny_flux, make_batch) -> None:
    """A new ControlNet is zero-initialised, so our image must come out; one with other weights changes it."""
    from diffusers import FluxControlNetModel, FluxControlNetPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer")
    control = FluxControlNetModel.from_transformer(
        transformer, num_layers=1, num_single_layers=0, num_attention_heads=2, attention_head_dim=16
    )
    pipeline = with_adapter(FluxControlNetPipeline, tiny_flux, exported, controlnet=control)
    batch = make_batch(people=1)
    embeds = as_image_embeds(exported, batch)
    landmarks = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    stock = theirs(pipeline, embeds, noise(1), control_image=landmarks)
    own = ours(decoder_of(model), noise(1), model.encode(batch).detach())
    assert torch.allclose(own, stock, atol=2e-5)
    with torch.no_grad():
        for block in control.controlnet_blocks:
            block.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(5))
    guided = theirs(pipeline, embeds, noise(1), control_image=landmarks)
    assert (guided - stock).abs().max() > 1e-3
    stranger = [-embeds[0]]
    assert (theirs(pipeline, stranger, noise(1), control_image=landmarks) - guided).abs().max() > 1e-3


def test_nothing_is_exported_among_other_files(run, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"holds other files than those of an export \(dataset\.json\)"):
        export(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]


def test_the_same_command_replaces_what_an_interrupted_export_left(run, exported, tmp_path: Path) -> None:
    output = Path(shutil.copytree(exported, tmp_path / "out"))
    (output / "omniid.json").unlink()
    (output / "ip_adapter.safetensors").unlink()
    (output / ".ip_adapter.safetensors.tmp-0123456789abcdef").write_bytes(b"half of it")
    (output / "encoder" / "config.json").write_text("of another run")
    export(run, output)
    whole = {path.relative_to(exported): path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    assert {name: (output / name).read_bytes() for name in whole} == whole


def test_an_export_holds_what_the_run_learned_to_the_bit(model, run, exported) -> None:
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    for trained in (read_run(run), read_export(exported)):
        assert trained.facts.step == 3
        assert trained.facts.flow == decoder_of(model).config.model_copy(update={"prompt_cache": None})
        assert set(trained.weights) == set(learned)
        assert all(torch.equal(weight, learned[name]) for name, weight in trained.weights.items())


def test_where_the_encoder_came_from_is_no_part_of_an_export(model, tiny_flux, tmp_path: Path) -> None:
    section = {"size": "tiny", "weights": "acme/omniid", "revision": "0" * 40}
    config = flow_config(tiny_flux, tmp_path, representation=section)
    export(write_run(tmp_path / "run", config, model), tmp_path / "out")
    written = (tmp_path / "out" / "omniid.json").read_text()
    assert "acme/omniid" not in written
    assert str(tmp_path) not in written


def test_without_an_ema_the_weights_are_exported(model, tiny_flux, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", flow_config(tiny_flux, tmp_path), model, ema=False)
    export(run, tmp_path / "out")
    weights = read_trained(tmp_path / "out").weights
    assert torch.equal(weights["representation.query_LD"], model.representation.query_LD)


def test_a_run_without_a_flow_decoder_is_exported_as_its_representation(tmp_path: Path) -> None:
    config = mtd_config()
    model = build_model(config)
    facts = export(write_run(tmp_path / "run", config, model), tmp_path / "out")
    assert facts.flow is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["encoder", "omniid.json"]
    encoder = OmniIDEncoder.from_pretrained(tmp_path / "out" / "encoder")
    assert torch.equal(encoder.query_LD, model.representation.query_LD)


def test_a_checkpoint_of_a_step_is_exported_when_it_is_asked_for(model, tiny_flux, tmp_path: Path) -> None:
    config = flow_config(tiny_flux, tmp_path)
    run = write_run(tmp_path / "run", config, model, step=10)
    earlier = as_trained(build_model(config))
    with torch.no_grad():
        earlier.representation.query_LD += 1
    write_run(run, config, earlier, step=5)
    result = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "out"), "--step", "5"])
    assert result.exit_code == 0, result.output
    found = read_trained(tmp_path / "out")
    assert found.facts.step == 5
    assert torch.equal(found.weights["representation.query_LD"], earlier.representation.query_LD)
    with pytest.raises(TrainingError, match=r"has no checkpoint of step 7; it has those of 5, 10"):
        read_run(run, 7)


def test_a_transformer_that_was_trained_too_is_exported_for_diffusers(tmp_path: Path) -> None:
    from diffusers import FluxTransformer2DModel

    config = flow_config(None, None)
    model = as_trained(build_model(config))
    export(write_run(tmp_path / "run", config, model), tmp_path / "out")
    found, report = FluxTransformer2DModel.from_pretrained(
        tmp_path / "out", subfolder="transformer", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    mine = decoder_of(model).transformer.state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in found.state_dict().items())
    again = read_trained(tmp_path / "out")
    assert set(again.weights) == set(dict(model.named_parameters()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda run: shutil.rmtree(run / "checkpoints"),
            r"has no checkpoint yet\. Train for checkpoints\.every=1000",
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
                json.dumps(json.loads((out / "omniid.json").read_text()) | {"format_version": "3.0"})
            ),
            r"format 3\.0, this code reads 2\.3",
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
