"""What others need of a run: the representation, and the identity adapter for diffusers' `load_ip_adapter`.

    <export>/encoder/                   omniid.load_representation; of kind omniid, OmniIDEncoder.from_pretrained
    <export>/ip_adapter.safetensors     FluxPipeline.load_ip_adapter, and that of FluxControlNetPipeline
    <export>/transformer/               FluxTransformer2DModel.from_pretrained; a small one, in place of FLUX's
    <export>/vae/                       AutoencoderKL.from_pretrained; only where its latents are generated
    <export>/controlnet/                FluxControlNetModel.from_pretrained; of the control decoder
    <export>/omniid.json                what it is, written last

diffusers' adapter makes four text tokens of one vector. Ours makes one of each identity token, so the file holds
the projection four times, as blocks along a diagonal: four identity tokens, end to end, are the vector.
`omniid.image_embeds` makes such vectors of any number of identity tokens.

Letters in names give the shape:
    D  channels of an identity token    T  channels of FLUX's text tokens
"""

from __future__ import annotations

from pathlib import Path

import torch

from shards.atomic import remove_file, write_bytes
from training.decoders.control_networks import write_controlnet
from training.decoders.flow_config import FlowConfig
from training.decoders.flow_networks import scratch_transformer
from training.decoders.own_transformer import read_transformer
from training.engine.output import RUN_FILE
from training.errors import TrainingError
from training.folders import make_folder
from training.models.digest import weights_digest
from training.models.flux_adapter import TOKENS_OF_A_VECTOR, name_in_file, name_in_transformer
from training.models.flux_folder import WEIGHTS_FILE, read_weights
from training.models.pretrained import CONFIG, read_config
from training.representations.build import kind_of, load_representation
from training.trained import EXPORT_FILE, REPRESENTATION, ExportFacts, Trained, read_facts, read_run

ENCODER_FOLDER = "encoder"
ADAPTER_FILE = "ip_adapter.safetensors"
TRANSFORMER_FOLDER = "transformer"
VAE_FOLDER = "vae"
CONTROLNET_FOLDER = "controlnet"
EXPORT_AGAIN = "Export the run again"
PROJECTION, TRANSFORMER, CONTROLNET = "projection.", "transformer.", "controlnet."
"""Parts of the decoder that generates images."""


def export(run: Path, output: Path, step: int | None = None, models_dir: Path | None = None) -> ExportFacts:
    """Write what a run has learned.

    Args:
        run: its output directory. Without a decoder that generates images, only the representation is written.
        output: made when missing; what an earlier export left there is replaced.
        step: of the checkpoint; the newest when None.
        models_dir: directory with the file of its recognition network; that of the run when None.

    Raises:
        ConfigError: the recognition network's file is missing or another one.
        TrainingError: the run cannot be read, or the output holds something else or cannot be written to.
        OutOfSpace: the disk or the quota is full.
    """
    from safetensors.torch import save

    trained = read_run(run, step, models_dir)
    _check_output(output)
    remove_file(output / EXPORT_FILE)
    with torch.device("meta"):
        representation = trained.representation()
    representation.crop_scale = trained.facts.crop_scale
    representation.save_pretrained(output / ENCODER_FOLDER, trained.of(REPRESENTATION))
    if trained.facts.generator is not None:
        write_bytes(output / ADAPTER_FILE, save(ip_adapter(trained), {"format": "pt"}))
        if trained.facts.generator.scratch is not None:
            _write_transformer(trained, output / TRANSFORMER_FOLDER)
            _copy_vae(trained, output / VAE_FOLDER)
    if trained.facts.control is not None:
        write_controlnet(_part(trained, CONTROLNET), trained.facts.control, output / CONTROLNET_FOLDER)
    facts = _with_own_networks(trained.facts, Path())
    write_bytes(output / EXPORT_FILE, (facts.model_dump_json(indent=2) + "\n").encode())
    return facts


def _check_output(output: Path) -> None:
    """Check that nothing is written among the files of a dataset or a run."""
    make_folder(output)
    own = {
        ENCODER_FOLDER,
        ADAPTER_FILE,
        TRANSFORMER_FOLDER,
        VAE_FOLDER,
        CONTROLNET_FOLDER,
        EXPORT_FILE,
    }
    others = sorted(path.name for path in output.iterdir() if path.name not in own and path.name[0] != ".")
    if others:
        raise TrainingError(
            f"{output} holds other files than those of an export ({', '.join(others[:3])}). Pass a directory that "
            "is empty or does not exist"
        )


def exported_files(export: Path, facts: ExportFacts) -> list[Path]:
    """The files of an export, and not those that an earlier one of another kind may have left beside them."""
    folders = [ENCODER_FOLDER]
    generator = facts.generator
    files = [ADAPTER_FILE] if generator is not None else []
    if generator is not None and generator.scratch is not None:
        folders += [TRANSFORMER_FOLDER, *([VAE_FOLDER] if generator.own_vae else [])]
    if facts.control is not None:
        folders.append(CONTROLNET_FOLDER)
    return [
        *(path for folder in folders for path in sorted((export / folder).iterdir()) if path.is_file()),
        *(export / name for name in (*files, EXPORT_FILE)),
    ]


def ip_adapter(trained: Trained) -> dict[str, torch.Tensor]:
    """The tensors of an adapter file of diffusers."""
    own = _part(trained, PROJECTION)
    weight_TD, bias_T = own["proj.weight"], own["proj.bias"]
    projection = {
        "image_proj.proj.weight": torch.block_diag(*[weight_TD] * TOKENS_OF_A_VECTOR),
        "image_proj.proj.bias": bias_T.repeat(TOKENS_OF_A_VECTOR),
        "image_proj.norm.weight": own["norm.weight"],
        "image_proj.norm.bias": own["norm.bias"],
    }
    attention = {
        f"ip_adapter.{found}": value
        for name, value in _part(trained, TRANSFORMER).items()
        if (found := name_in_file(name))
    }
    return projection | attention


def read_export(export: Path, models_dir: Path | None = None) -> Trained:
    """What `export` wrote, by the names in the model.

    Args:
        export: its directory.
        models_dir: directory with the file of its recognition network; None for wheels alone.

    Raises:
        ConfigError: the recognition network's file is missing or another one.
        TrainingError: it is none, or something of it is missing or damaged.
    """
    facts = _with_own_networks(read_facts(export), export)
    folder = export / ENCODER_FOLDER
    kind = kind_of(read_config(folder))
    if kind != facts.representation:
        raise TrainingError(
            f"{folder / CONFIG} is that of a representation of kind {kind}, but {export / EXPORT_FILE} says "
            f"{facts.representation}: they are of two exports. Export the run again"
        )
    representation = load_representation(folder, models_dir)
    weights = {f"{REPRESENTATION}{name}": value for name, value in representation.state_dict().items()}
    if facts.generator is not None:
        parts = _from_adapter_file(export / ADAPTER_FILE)
        own = export / TRANSFORMER_FOLDER / WEIGHTS_FILE
        if facts.generator.transformer_source is not None:
            if not own.is_file():  # it is read later, with what it is built into
                raise TrainingError(f"{own} is missing. {EXPORT_AGAIN}")
        elif facts.generator.scratch is not None:
            transformer = _read(own)
            parts |= {f"{TRANSFORMER}{name}": value for name, value in transformer.items()}
        if facts.control is not None:
            controlnet = _read(export / CONTROLNET_FOLDER / WEIGHTS_FILE)
            parts |= {f"{CONTROLNET}{name}": value for name, value in controlnet.items()}
        prefix = f"decoders.{facts.generator.name}."
        weights |= {f"{prefix}{name}": value for name, value in parts.items()}
    return Trained(facts, weights, export, lambda: representation)


def read_trained(source: Path, models_dir: Path | None = None) -> Trained:
    """What was learned, from a run or an export, whichever a directory is.

    Args:
        source: the directory.
        models_dir: see `read_run` and `read_export`.

    Raises:
        ConfigError: the recognition network's file is missing or another one.
        TrainingError: it is neither, or cannot be read.
    """
    if (source / RUN_FILE).exists():
        return read_run(source, models_dir=models_dir)
    return read_export(source, models_dir)


def _frozen_transformer(trained: Trained, flow: FlowConfig) -> dict[str, torch.Tensor]:
    """The small transformer that a run froze: no checkpoint of it holds it.

    Raises:
        TrainingError: it cannot be read, or it has been trained further since.
    """
    source = flow.transformer_source
    weights = {} if source is None else dict(read_transformer(source, flow.transformer_key).weights)
    if not trained.facts.flow_digest.startswith(weights_digest(weights)):
        raise TrainingError(
            f"the transformer of {source} has other weights than when {trained.source} was trained on it. Restore "
            "the weights of the training"
        )
    return weights


def _from_adapter_file(path: Path) -> dict[str, torch.Tensor]:
    found = _read(path)
    try:
        weight = found["image_proj.proj.weight"]
        rows, columns = (length // TOKENS_OF_A_VECTOR for length in weight.shape)
        projection = {
            f"{PROJECTION}proj.weight": weight[:rows, :columns].contiguous(),
            f"{PROJECTION}proj.bias": found["image_proj.proj.bias"][:rows].contiguous(),
            f"{PROJECTION}norm.weight": found["image_proj.norm.weight"],
            f"{PROJECTION}norm.bias": found["image_proj.norm.bias"],
        }
    except KeyError as error:
        raise TrainingError(
            f"{path} is no adapter of omniid: it has no {error}. Export the run again"
        ) from error
    attention = {
        f"{TRANSFORMER}{name_in_transformer(name.removeprefix('ip_adapter.'))}": value
        for name, value in found.items()
        if name.startswith("ip_adapter.")
    }
    return projection | attention


def _read(path: Path) -> dict[str, torch.Tensor]:
    return read_weights(path, "", EXPORT_AGAIN)


def _write_transformer(trained: Trained, folder: Path) -> None:
    from safetensors.torch import save

    flow = trained.facts.generator
    if flow is not None and flow.transformer_source is not None:
        weights = _frozen_transformer(trained, flow)
    else:
        weights = {
            name: value for name, value in _part(trained, TRANSFORMER).items() if not name_in_file(name)
        }
    write_bytes(folder / WEIGHTS_FILE, save(weights, {"format": "pt"}))
    if flow is not None and flow.scratch is not None:
        in_channels = weights["x_embedder.weight"].shape[1]
        with torch.device("meta"):
            scratch_transformer(flow.scratch, in_channels).save_config(folder)


def _copy_vae(trained: Trained, folder: Path) -> None:
    """Copy the autoencoder of a scratch transformer: it is small, and no hub has it."""
    flow = trained.facts.generator
    if flow is None or flow.own_vae is None:
        return
    source = Path(flow.own_vae)
    try:
        for name in ("config.json", WEIGHTS_FILE):
            write_bytes(folder / name, (source / name).read_bytes())
    except FileNotFoundError as error:
        raise TrainingError(
            f"{trained.source} generates latents of the autoencoder in {source}, where "
            f"{Path(error.filename).name} is missing. Put it back"
        ) from error


def _with_own_networks(facts: ExportFacts, folder: Path) -> ExportFacts:
    """The same facts, with the small networks of the generator in the directory of an export."""
    flow = facts.generator
    if flow is None or flow.scratch is None:
        return facts
    return facts.with_generator(
        flow.of_trained().with_own_networks(folder / VAE_FOLDER, folder / TRANSFORMER_FOLDER)
    )


def _part(trained: Trained, part: str) -> dict[str, torch.Tensor]:
    """The weights of a part of the generator, without their prefix."""
    return trained.of(f"{trained.prefix}{part}")
