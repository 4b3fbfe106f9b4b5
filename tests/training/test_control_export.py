"""A run of the control decoder is sampled and exported, and stock diffusers generates the same images from it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from control_runs import control_run
from flow_runs import SCRATCH, SIDE, flow_config, write_run
from PIL import Image

from faces.landmark_image import landmark_image
from omniid import image_embeds
from shards.schema import IMAGE_SIDE
from training.decoders.control import ControlDecoder
from training.errors import TrainingError
from training.export import export, read_export, read_trained
from training.model import build_model
from training.models.flux_latents import pack, unpack
from training.sampling.sampler import Sampler, check_pose

CPU = torch.device("cpu")
LANDMARKS = np.random.default_rng(5).uniform(100, 400, (478, 2))
PORTRAITS = list(np.random.default_rng(6).integers(0, 255, (2, 512, 512, 3), dtype=np.uint8))


@pytest.fixture(params=["flux", "scratch"])
def run(request: pytest.FixtureRequest, tmp_path: Path, tiny_flux: Path, prompts: Path) -> Path:
    if request.param == "scratch":
        return control_run(tmp_path, {"scratch": SCRATCH}, flow_config(None, None))[0]
    base = {"base": str(tiny_flux), "prompt_cache": str(prompts), "text_tokens": 16}
    return control_run(tmp_path, base, flow_config(tiny_flux, prompts))[0]


def generated(source: Path, landmarks: np.ndarray = LANDMARKS) -> np.ndarray:
    sampler = Sampler.load(read_trained(source), CPU)
    (image,) = sampler.generate(sampler.encode(PORTRAITS), [3], steps=2, landmarks=landmarks)
    return image.astype(int)


def test_an_export_generates_what_the_run_does_in_the_pose_that_is_given(run: Path, tmp_path: Path) -> None:
    facts = export(run, tmp_path / "export")
    assert facts.control is not None
    image = generated(run)
    assert np.abs(image - generated(tmp_path / "export")).max() <= 1
    assert np.abs(image - generated(run, LANDMARKS[::-1].copy())).max() > 3


def test_neither_export_nor_sampling_prints_what_libraries_deprecate(run: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        export(run, tmp_path / "export")
        generated(run)
        generated(tmp_path / "export")


def test_a_stock_controlnet_pipeline_generates_the_same_image(
    tmp_path: Path, tiny_flux: Path, prompts: Path
) -> None:
    """diffusers samples the latents of the landmark image, the trainer takes their mean: here both get one."""
    from diffusers import FluxControlNetModel, FluxControlNetPipeline

    base = {"base": str(tiny_flux), "prompt_cache": str(prompts), "text_tokens": 16}
    run, _ = control_run(tmp_path, base, flow_config(tiny_flux, prompts))
    export(run, tmp_path / "export")
    sampler = Sampler.load(read_export(tmp_path / "export"), CPU)
    decoder = sampler.decoder
    assert isinstance(decoder, ControlDecoder)
    tokens_1LD = sampler.encode(PORTRAITS)
    noise_1QF = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(3))

    controlnet = FluxControlNetModel.from_pretrained(tmp_path / "export" / "controlnet")
    pipeline = FluxControlNetPipeline.from_pretrained(tiny_flux, controlnet=controlnet)
    pipeline.load_ip_adapter(
        tmp_path / "export",
        weight_name="ip_adapter.safetensors",
        image_encoder_pretrained_model_name_or_path=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    pixels_HHC = landmark_image(LANDMARKS, IMAGE_SIDE, SIDE)
    picture = Image.fromarray(pixels_HHC)
    normalised = pipeline.image_processor.preprocess(picture, height=SIDE, width=SIDE)
    mean = pipeline.vae.encode(normalised).latent_dist.mean - pipeline.vae.config.shift_factor
    own_1QF = decoder.encode_landmarks(torch.from_numpy(pixels_HHC)[None])
    assert torch.allclose(own_1QF, pack(mean * pipeline.vae.config.scaling_factor), atol=1e-5)

    embeds = image_embeds(tokens_1LD[0])
    seen: list[torch.Tensor] = []
    controlnet.register_forward_pre_hook(
        lambda _module, _arguments, named: seen.append(named["controlnet_cond"]), with_kwargs=True
    )
    stock = pipeline(
        prompt=["photo of a person."],
        control_image=picture,
        max_sequence_length=16,
        num_inference_steps=4,
        guidance_scale=3.5,
        height=SIDE,
        width=SIDE,
        latents=noise_1QF,
        ip_adapter_image_embeds=[embeds],
        negative_ip_adapter_image_embeds=[embeds],
        output_type="pt",
    ).images
    own, uncontrolled = (
        decoder.codec.decode(
            unpack(decoder.denoise(noise_1QF, tokens_1LD, decoder.sampling(SIDE, 4, 3.5), control))
        )
        for control in (seen[0], None)
    )
    assert torch.allclose(own, stock, atol=5e-5)
    assert (own - uncontrolled).abs().max() > 50 * (own - stock).abs().max()


def test_a_pose_is_asked_for_where_it_is_needed_and_refused_elsewhere(run: Path, tmp_path: Path) -> None:
    controlled = read_trained(run)
    with pytest.raises(TrainingError, match=r"has a control decoder, .* Pass --pose-from PHOTO"):
        check_pose(controlled, None)
    check_pose(controlled, tmp_path / "photo.jpg")
    flow = read_trained(run.parent / "flow")
    with pytest.raises(TrainingError, match=r"--pose-from: .* has no control decoder"):
        check_pose(flow, tmp_path / "photo.jpg")
    check_pose(flow, None)


@pytest.mark.parametrize("key", ["unset", "flow run"])
def test_a_run_of_an_earlier_version_is_sampled_and_exported(tmp_path: Path, key: str) -> None:
    """Earlier versions named the transformer in `decoders.control.transformer`."""
    run, _ = control_run(tmp_path, {"scratch": SCRATCH}, flow_config(None, None))
    image = generated(run)
    facts = json.loads((run / "run.json").read_text())
    control = facts["config"]["decoders"]["control"]
    del control["scratch"]["transformer"]
    control["transformer"] = None if key == "unset" else str(tmp_path / "flow")
    (run / "run.json").write_text(json.dumps(facts))
    assert np.array_equal(image, generated(run))
    export(run, tmp_path / "export")
    assert np.abs(image - generated(tmp_path / "export")).max() <= 1


def test_a_run_starts_from_an_export_and_notices_another_transformer(tmp_path: Path) -> None:
    flow = flow_config(None, None)
    run, _ = control_run(tmp_path, {"scratch": SCRATCH}, flow)
    export(tmp_path / "flow", tmp_path / "flow-export")
    facts = json.loads((run / "run.json").read_text())
    facts["config"]["decoders"]["control"]["adapter"] = str(tmp_path / "flow-export")
    (run / "run.json").write_text(json.dumps(facts))
    image = generated(run)
    export(run, tmp_path / "export")
    assert np.abs(image - generated(tmp_path / "export")).max() <= 1

    other = build_model(flow.model_copy(update={"seed": 1}))
    write_run(tmp_path / "other", flow, other)
    facts["config"]["decoders"]["control"]["adapter"] = str(tmp_path / "other")
    (run / "run.json").write_text(json.dumps(facts))
    for use in (lambda: generated(run), lambda: export(run, tmp_path / "again")):
        with pytest.raises(TrainingError, match="has other weights than when"):
            use()
