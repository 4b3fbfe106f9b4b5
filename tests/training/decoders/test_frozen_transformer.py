"""A small transformer that was trained before is frozen as FLUX is, and travels with runs and exports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from flow_runs import SCRATCH, SIDE, as_trained, decoder_of, flow_config, write_run, write_transformer
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from training.config import Config
from training.decoders.control_config import ControlConfig
from training.errors import TrainingError
from training.experiments.autoencoder import autoencoder
from training.export import export, read_export, read_trained
from training.model import IdentityModel, build_model, meta_model
from training.sampling.sampler import Sampler

CPU = torch.device("cpu")
PORTRAITS = list(np.random.default_rng(6).integers(0, 255, (2, 512, 512, 3), dtype=np.uint8))


@pytest.fixture
def transformer(tmp_path: Path) -> Path:
    """A directory as `training.experiments.transformer` writes it."""
    return write_transformer(tmp_path / "transformer")


def config_with(transformer: Path, **changes: object) -> Config:
    return flow_config(None, None, {"scratch": SCRATCH | {"transformer": str(transformer)}}, **changes)


def generated(source: Path) -> np.ndarray:
    sampler = Sampler.load(read_trained(source), CPU)
    (image,) = sampler.generate(sampler.encode(PORTRAITS), [3], steps=2)
    return image.astype(int)


@pytest.fixture
def run(transformer: Path, tmp_path: Path) -> Path:
    config = config_with(transformer)
    return write_run(tmp_path / "run", config, as_trained(build_model(config)))


def test_only_adapter_and_representation_are_trained_and_at_first_the_adapter_adds_nothing(
    transformer: Path, make_batch
) -> None:
    model = build_model(config_with(transformer)).eval()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("_ip." in name for name in trained if name.startswith("decoders.flow.transformer."))
    assert any("_ip." in name for name in trained)
    batch = make_batch(people=2, targets=2)
    tokens_BLD = model.encode(batch)
    found = model.losses("flow", batch, tokens_BLD)
    assert torch.equal(found, model.losses("flow", batch, tokens_BLD.flip(0)))


def test_it_computes_in_the_precision_of_frozen_networks(transformer: Path, make_batch) -> None:
    model = build_model(config_with(transformer, run={"precision": "bf16"}))
    types = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert {kind for name, kind in types.items() if "x_embedder" in name} == {torch.bfloat16}
    assert {kind for name, kind in types.items() if "_ip." in name} == {torch.float32}
    batch = make_batch(people=1, targets=2)
    model.losses("flow", batch, model.encode(batch)).sum().backward()
    meta = meta_model(config_with(transformer, run={"precision": "bf16"}))
    assert {name: parameter.dtype for name, parameter in meta.named_parameters()} == types


def test_an_export_holds_it_and_generates_what_the_run_does(
    run: Path, transformer: Path, tmp_path: Path
) -> None:
    export(run, tmp_path / "export")
    image = generated(run)
    moved = transformer.rename(tmp_path / "elsewhere")
    assert np.abs(image - generated(tmp_path / "export")).max() <= 1
    of_export = build_model(config_with(tmp_path / "export"))
    assert same_transformer(of_export, build_model(config_with(moved)))


def test_a_run_names_the_transformer_that_it_was_trained_on(run: Path, transformer: Path) -> None:
    assert same_transformer(build_model(config_with(run)), build_model(config_with(transformer)))


def test_a_run_whose_transformer_was_replaced_names_none(
    run: Path, transformer: Path, tmp_path: Path
) -> None:
    write_transformer(transformer, seed=1)
    control = {"side": SIDE, "layers": 1, "scratch": SCRATCH, "adapter": str(run)}
    adapter_elsewhere = control | {"scratch": SCRATCH | {"transformer": str(transformer)}}
    for decoders, message in (
        (
            {"flow": {"side": SIDE, "scratch": SCRATCH | {"transformer": str(run)}}},
            "has other weights than when",
        ),
        ({"control": control}, "has other weights than when"),
        ({"control": adapter_elsewhere}, "was trained in another transformer"),
    ):
        config = Config.model_validate(
            {
                "output": "out",
                "data": {"root": "root"},
                "representation": {"size": "tiny"},
                "decoders": decoders,
                "run": {"precision": "fp32"},
            }
        )
        with pytest.raises(TrainingError, match=message):
            build_model(config)


def test_an_adapter_is_taken_where_its_transformer_has_moved(
    run: Path, transformer: Path, tmp_path: Path
) -> None:
    moved = transformer.rename(tmp_path / "elsewhere")
    control = {
        "side": SIDE,
        "layers": 1,
        "scratch": SCRATCH | {"transformer": str(moved)},
        "adapter": str(run),
    }
    config = flow_config(None, None).model_dump(mode="json") | {"decoders": {"control": control}}
    model = build_model(Config.model_validate(config))
    trained = read_trained(run).of("decoders.flow.")
    own = dict(model.decoder("control").named_parameters())
    adapter = [name for name in trained if "_ip." in name]
    assert adapter
    assert all(torch.equal(own[name], trained[name]) for name in adapter)
    alone = Config.model_validate(config | {"decoders": {"control": control | {"scratch": SCRATCH}}})
    with pytest.raises(TrainingError, match=r"decoders\.control\.adapter: .* holds no transformer"):
        build_model(alone)


def test_shapes_are_not_enough(transformer: Path) -> None:
    """Other axes of the rotary embeddings, or latents of another autoencoder, have the same shapes."""
    path = transformer / "config.json"
    path.write_text(path.read_text().replace('"axes_dims_rope": [', '"axes_dims_rope": [2, '))
    with pytest.raises(TrainingError, match="axes_dims_rope is"):
        build_model(config_with(transformer))
    write_transformer(transformer)
    weights = transformer / "diffusion_pytorch_model.safetensors"
    save_file(load_file(weights), weights, {"format": "pt", "codec": "vae-of-others"})
    with pytest.raises(TrainingError, match=r"of another autoencoder \(vae-of-others\)"):
        build_model(config_with(transformer))


def test_latents_of_another_autoencoder_are_noticed_of_runs_and_exports(tmp_path: Path) -> None:
    def scratch_on(vae: str, **keys: str) -> dict[str, object]:
        torch.manual_seed(len(vae))
        autoencoder(3, 4).save_pretrained(tmp_path / vae)
        return {"scratch": SCRATCH | {"patch": None, "vae": str(tmp_path / vae)} | keys}

    config = flow_config(None, None, scratch_on("one"))
    run = write_run(tmp_path / "run", config, build_model(config))
    export(run, tmp_path / "export")
    for source in (run, tmp_path / "export"):
        build_model(flow_config(None, None, scratch_on("one", transformer=str(source))))
        other = flow_config(None, None, scratch_on("another", transformer=str(source)))
        with pytest.raises(TrainingError, match="generates latents of another autoencoder"):
            build_model(other)


def test_a_config_without_a_key_of_a_newer_diffusers_is_completed(transformer: Path) -> None:
    path = transformer / "config.json"
    config = json.loads(path.read_text())
    del config["patch_size"]
    path.write_text(json.dumps(config | {"out_channels": config["in_channels"]}))
    build_model(config_with(transformer))
    for damaged in ("{", '{"num_layers": "two"}'):
        path.write_text(damaged)
        with pytest.raises(TrainingError, match=r"config\.json cannot be read"):
            build_model(config_with(transformer))


def test_an_export_is_read_as_such_and_not_as_a_directory(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "export")
    build_model(config_with(tmp_path / "export"))
    write_transformer(tmp_path / "export" / "transformer", seed=1)
    with pytest.raises(TrainingError, match="has other weights than when"):
        build_model(config_with(tmp_path / "export"))
    # An export without a generator, into the same directory, leaves the files of the earlier one.
    mtd = mtd_config()
    export(write_run(tmp_path / "mtd", mtd, build_model(mtd)), tmp_path / "export")
    assert (tmp_path / "export" / "transformer").is_dir()
    with pytest.raises(TrainingError, match="is an export without a small transformer"):
        build_model(config_with(tmp_path / "export"))


def test_a_key_of_earlier_versions_is_still_read() -> None:
    base: dict[str, object] = {"base": "flux", "layers": 1}
    assert ControlConfig.model_validate(base | {"transformer": None}) == ControlConfig.model_validate(base)
    scratch = ControlConfig.model_validate({"scratch": SCRATCH, "layers": 1, "transformer": "/runs/flow"})
    assert scratch.transformer_source == Path("/runs/flow")
    for both in (base, {"scratch": 5}, {"scratch": SCRATCH | {"transformer": "/other"}}):
        with pytest.raises(ValidationError):
            ControlConfig.model_validate(both | {"layers": 1, "transformer": "/runs/flow"})


def same_transformer(one: IdentityModel, other: IdentityModel) -> bool:
    first, second = (decoder_of(model).transformer.state_dict() for model in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first if "_ip." not in name)


def test_other_weights_in_its_place_are_noticed(run: Path, transformer: Path, tmp_path: Path) -> None:
    write_transformer(transformer, seed=1)
    for use in (lambda: generated(run), lambda: export(run, tmp_path / "export")):
        with pytest.raises(TrainingError, match="has other weights than when"):
            use()


def test_where_it_is_in_another_directory_now_base_says_so(
    run: Path, transformer: Path, tmp_path: Path
) -> None:
    image = generated(run)
    (tmp_path / "moved").mkdir()
    transformer.rename(tmp_path / "moved" / "transformer")
    with pytest.raises(TrainingError, match=r"Pass a directory with vae and transformer, .* with --base"):
        generated(run)
    sampler = Sampler.load(read_trained(run), CPU, base=str(tmp_path / "moved"))
    (again,) = sampler.generate(sampler.encode(PORTRAITS), [3], steps=2)
    assert np.array_equal(image, again.astype(int))


def test_another_size_or_no_transformer_is_named(run: Path, tmp_path: Path) -> None:
    wider = {"scratch": SCRATCH | {"head_width": 32, "transformer": str(run)}}
    with pytest.raises(TrainingError, match=r"decoders\.flow\.scratch\.transformer: .* has another size"):
        build_model(flow_config(None, None, wider))
    with pytest.raises(TrainingError, match=r"decoders\.flow\.scratch\.transformer: .* holds no transformer"):
        build_model(config_with(tmp_path / "nothing"))
    without = write_run(tmp_path / "mtd", mtd := mtd_config(), build_model(mtd))
    with pytest.raises(TrainingError, match="has no decoder with a small transformer"):
        build_model(config_with(without))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "diffusion_pytorch_model.safetensors").write_bytes(b"none")
    with pytest.raises(TrainingError, match=r"damaged/diffusion_pytorch_model\.safetensors cannot be read"):
        build_model(config_with(tmp_path / "damaged"))


def mtd_config() -> Config:
    return Config.model_validate(
        {
            "output": "out",
            "data": {"root": "root"},
            "representation": {"size": "tiny"},
            "decoders": {"mtd": {}},
            "run": {"precision": "fp32"},
        }
    )


def test_an_export_of_it_is_an_export_as_others_are(run: Path, tmp_path: Path) -> None:
    facts = export(run, tmp_path / "export")
    assert facts.flow is not None
    assert facts.flow.side == SIDE
    read = read_export(tmp_path / "export").facts.flow
    assert read is not None
    assert read.transformer_source == tmp_path / "export" / "transformer"
