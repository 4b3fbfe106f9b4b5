"""What others need of a run: the encoder, and the identity adapter as diffusers' `load_ip_adapter` reads it.

    <export>/encoder/                   OmniIDEncoder.from_pretrained
    <export>/ip_adapter.safetensors     FluxPipeline.load_ip_adapter, and that of FluxControlNetPipeline
    <export>/transformer/               FluxTransformer2DModel.from_pretrained; only where it was trained too
    <export>/vae/                       AutoencoderKL.from_pretrained; only where that drew its latents
    <export>/omniid.json                what it is, written last

diffusers' adapter makes four text tokens of one vector. Ours makes one of each identity token, so the file holds
the projection four times, as blocks along a diagonal: four identity tokens, laid end to end, are the vector. A
caller hands in identity tokens (B, L, D) as (B, L / 4, 4 D): `tokens.unflatten(1, (-1, 4)).flatten(2)`.

Letters in names give the shape:
    B  people    L  identity tokens    D  channels of one    T  channels of FLUX's text tokens
"""

from __future__ import annotations

from pathlib import Path

import torch

from shards.atomic import remove_file, write_bytes
from training.engine.output import RUN_FILE
from training.errors import TrainingError
from training.folders import make_folder
from training.models.encoder import OmniIDEncoder
from training.models.flow_build import scratch_transformer
from training.models.flux_adapter import name_in_file, name_in_transformer
from training.trained import ENCODER, EXPORT_FILE, ExportFacts, Trained, read_facts, read_run

ENCODER_FOLDER = "encoder"
ADAPTER_FILE = "ip_adapter.safetensors"
TRANSFORMER_FOLDER = "transformer"
VAE_FOLDER = "vae"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
TOGETHER = 4
"""Tokens that diffusers makes of one vector."""
PROJECTION, TRANSFORMER = "projection.", "transformer."
"""Parts of the stage."""


def export(run: Path, output: Path) -> ExportFacts:
    """Write what a run has learned so far, from its newest checkpoint.

    Args:
        run: its output folder. Of a run of the first stage, only the encoder is written.
        output: made when missing; what an earlier export left there is replaced.

    Raises:
        TrainingError: the run cannot be read, or the output holds something else or cannot be written to.
        OutOfSpace: the disk or the quota is full.
    """
    from safetensors.torch import save

    trained = read_run(run)
    _check_place(output)
    remove_file(output / EXPORT_FILE)
    with torch.device("meta"):
        encoder = OmniIDEncoder(trained.facts.size)
    encoder.save_pretrained(output / ENCODER_FOLDER, trained.of(ENCODER))
    if trained.facts.flow is not None:
        write_bytes(output / ADAPTER_FILE, save(ip_adapter(trained), {"format": "pt"}))
        if trained.facts.flow.scratch is not None:
            _write_transformer(trained, output / TRANSFORMER_FOLDER)
            _copy_vae(trained, output / VAE_FOLDER)
    facts = _with_vae(trained.facts, VAE_FOLDER)
    write_bytes(output / EXPORT_FILE, (facts.model_dump_json(indent=2) + "\n").encode())
    return facts


def _check_place(output: Path) -> None:
    """Refuse to write among the files of a data set or a run."""
    make_folder(output)
    own = {ENCODER_FOLDER, ADAPTER_FILE, TRANSFORMER_FOLDER, VAE_FOLDER, EXPORT_FILE}
    others = sorted(path.name for path in output.iterdir() if path.name not in own and path.name[0] != ".")
    if others:
        raise TrainingError(
            f"{output} holds something else than an export ({', '.join(others[:3])}); give a folder of its own"
        )


def exported_files(export: Path, facts: ExportFacts) -> list[Path]:
    """The files of an export, and not those that an earlier one of another kind may have left beside them."""
    folders = [ENCODER_FOLDER]
    files = [ADAPTER_FILE] if facts.flow is not None else []
    if facts.flow is not None and facts.flow.scratch is not None:
        folders += [TRANSFORMER_FOLDER, *([VAE_FOLDER] if facts.flow.own_vae else [])]
    return [
        *(path for folder in folders for path in sorted((export / folder).iterdir()) if path.is_file()),
        *(export / name for name in (*files, EXPORT_FILE)),
    ]


def ip_adapter(trained: Trained) -> dict[str, torch.Tensor]:
    """The tensors of an adapter file of diffusers."""
    weight_TD, bias_T = trained.weights[f"{PROJECTION}proj.weight"], trained.weights[f"{PROJECTION}proj.bias"]
    if trained.facts.size.queries % TOGETHER:
        raise TrainingError(
            f"{trained.facts.size.queries} identity tokens cannot be handed to diffusers, which takes them in "
            f"multiples of {TOGETHER}: train with another size"
        )
    projection = {
        "image_proj.proj.weight": torch.block_diag(*[weight_TD] * TOGETHER),
        "image_proj.proj.bias": bias_T.repeat(TOGETHER),
        "image_proj.norm.weight": trained.weights[f"{PROJECTION}norm.weight"],
        "image_proj.norm.bias": trained.weights[f"{PROJECTION}norm.bias"],
    }
    attention = {
        f"ip_adapter.{found}": value
        for name, value in trained.of(TRANSFORMER).items()
        if (found := name_in_file(name))
    }
    return projection | attention


def read_export(export: Path) -> Trained:
    """What `export` wrote, by its names in the stage.

    Raises:
        TrainingError: it is none, or something of it is missing or damaged.
    """
    facts = _with_vae(read_facts(export), str(export / VAE_FOLDER))
    encoder = OmniIDEncoder.from_pretrained(export / ENCODER_FOLDER)
    weights = {f"{ENCODER}{name}": value for name, value in encoder.state_dict().items()}
    if facts.flow is not None:
        weights |= _from_adapter_file(export / ADAPTER_FILE)
        if facts.flow.scratch is not None:
            transformer = _read(export / TRANSFORMER_FOLDER / WEIGHTS_FILE)
            weights |= {f"{TRANSFORMER}{name}": value for name, value in transformer.items()}
    return Trained(facts, weights, export)


def read_trained(source: Path) -> Trained:
    """What was learned, from a run or an export, whichever a folder is.

    Raises:
        TrainingError: it is neither, or cannot be read.
    """
    return read_run(source) if (source / RUN_FILE).exists() else read_export(source)


def _from_adapter_file(path: Path) -> dict[str, torch.Tensor]:
    found = _read(path)
    try:
        weight = found["image_proj.proj.weight"]
        rows, columns = (length // TOGETHER for length in weight.shape)
        projection = {
            f"{PROJECTION}proj.weight": weight[:rows, :columns].contiguous(),
            f"{PROJECTION}proj.bias": found["image_proj.proj.bias"][:rows].contiguous(),
            f"{PROJECTION}norm.weight": found["image_proj.norm.weight"],
            f"{PROJECTION}norm.bias": found["image_proj.norm.bias"],
        }
    except KeyError as error:
        raise TrainingError(
            f"{path} is no adapter of omniid: it has no {error}; export the run again"
        ) from error
    attention = {
        f"{TRANSFORMER}{name_in_transformer(name.removeprefix('ip_adapter.'))}": value
        for name, value in found.items()
        if name.startswith("ip_adapter.")
    }
    return projection | attention


def _read(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path} cannot be read: {error}; export the run again") from error
    return tensors


def _write_transformer(trained: Trained, folder: Path) -> None:
    from safetensors.torch import save

    weights = {name: value for name, value in trained.of(TRANSFORMER).items() if not name_in_file(name)}
    write_bytes(folder / WEIGHTS_FILE, save(weights, {"format": "pt"}))
    flow = trained.facts.flow
    if flow is not None and flow.scratch is not None:
        in_channels = weights["x_embedder.weight"].shape[1]
        with torch.device("meta"):
            scratch_transformer(flow.scratch, in_channels).save_config(folder)


def _copy_vae(trained: Trained, folder: Path) -> None:
    """The autoencoder of a transformer of its own: small, and of use to nobody else."""
    flow = trained.facts.flow
    if flow is None or flow.own_vae is None:
        return
    source = Path(flow.own_vae)
    try:
        for name in ("config.json", WEIGHTS_FILE):
            write_bytes(folder / name, (source / name).read_bytes())
    except FileNotFoundError as error:
        raise TrainingError(
            f"{trained.source} draws latents of the autoencoder in {source}, where {Path(error.filename).name} is "
            "missing; put it back"
        ) from error


def _with_vae(facts: ExportFacts, folder: str) -> ExportFacts:
    """The same facts, with the autoencoder elsewhere if there is one."""
    if facts.flow is None or facts.flow.own_vae is None:
        return facts
    return facts.model_copy(update={"flow": facts.flow.with_own_vae(folder)})
