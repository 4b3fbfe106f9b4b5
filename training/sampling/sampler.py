"""Generate images of a person with what a run has learned.

Letters in names give the shape:
    M  photographs    S  side of an image in pixels    C  colour channels (3, RGB)    K  keypoints (5)
    L  identity tokens    D  channels of one
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from faces.landmark_image import landmark_image
from shards.schema import IMAGE_SIDE
from training.decoders.base import BuildContext
from training.decoders.control import ControlDecoder
from training.decoders.control_config import ControlConfig
from training.decoders.control_networks import build_control_decoder
from training.decoders.flow import FlowDecoder
from training.decoders.flow_config import FlowConfig
from training.decoders.flow_networks import build_flow_decoder
from training.errors import TrainingError
from training.export import TRANSFORMER_FOLDER, VAE_FOLDER
from training.model import IdentityModel
from training.models.clip_weights import key_differences
from training.trained import REPRESENTATION, Trained


class Sampler:
    """Representation, adapter and FLUX, ready to generate images.

    Args:
        model: with its weights, on the device where it runs; its decoder generates images.
    """

    def __init__(self, model: IdentityModel) -> None:
        self.model = model.requires_grad_(False).eval()
        (name,) = model.names
        self.decoder: FlowDecoder = model.decoder(name)
        self.device = self.decoder.prompt_1TD.device
        self.base_digest = self.decoder.frozen_digest
        """Changes with the weights that were loaded beside what was learned: of FLUX, or of small networks."""

    @classmethod
    def load(
        cls,
        trained: Trained,
        device: torch.device,
        *,
        base: str | None = None,
        precision: str = "fp32",
        say: Callable[[str], None] = print,
    ) -> Sampler:
        """Load the FLUX that belongs to what was learned.

        Args:
            trained: from the output directory of a run, or an export (`training.export.read_trained`).
            device: where to generate images.
            base: directory of FLUX when it is not where it was in training; of the autoencoder of a small
                transformer, or, where the transformer was frozen too, a directory with `vae` and `transformer`.
            precision: of FLUX, `bf16` or `fp32`; the encoder runs in it too.
            say: receives a warning when what was not trained has other weights than in training, as a fine-tuned
                FLUX has.

        Raises:
            TrainingError: it cannot be loaded, or what was learned does not fit it; a small frozen transformer or
                its autoencoder has other weights than in training.
        """
        flow, source = trained.facts.generator, trained.source
        if flow is None:
            raise without_generator(source)
        if base is not None:
            flow = _elsewhere(flow, base, source)
        _check_own_networks(flow, source)
        representation = trained.representation()
        context = BuildContext(
            size=trained.facts.size, width=representation.width, seed=0, precision=precision, data_root=""
        )
        flow = flow.of_trained()
        decoder: FlowDecoder = (
            build_control_decoder(flow, context)
            if isinstance(flow, ControlConfig)
            else build_flow_decoder(flow, context)
        )
        model = IdentityModel(representation, {flow.name: decoder})
        _load(trained, model)
        changed = trained.facts.flow_digest not in {"", decoder.frozen_digest}
        if changed and flow.transformer_source:
            networks = " or ".join(str(path) for path in (flow.transformer_source, flow.own_vae) if path)
            raise TrainingError(
                f"{networks} has other weights than when {source} was trained on it. Restore the weights of "
                "the training"
            )
        if changed:
            say(f"warning: {_surroundings(flow)} has other weights than in the training of {source}")
        return cls(model.to(device))

    @torch.no_grad()
    def encode(
        self, images: Sequence[NDArray[np.uint8]], keypoints: Sequence[NDArray[np.float32]] | None = None
    ) -> torch.Tensor:
        """Identity tokens of one person, (1, L, D).

        Args:
            images: this person's, (512, 512, 3) RGB, cut as the dataset's are (`faces.portraits.Portrait.image`).
            keypoints: of each (`Portrait.keypoints`); needed where the representation aligns faces.

        Raises:
            ValueError: the representation takes another number of images.
        """
        images_MSSC = torch.from_numpy(np.stack(images))
        keypoints_MK2 = None if keypoints is None else torch.from_numpy(np.stack(keypoints))
        with self._autocast():
            found_LD: torch.Tensor = self.model.representation.encode_images(images_MSSC, keypoints_MK2)
        return found_LD[None]

    @torch.no_grad()
    def generate(
        self,
        tokens_1LD: torch.Tensor,
        seeds: Sequence[int],
        *,
        side: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        scale: float = 1.0,
        identity_guidance: float | None = None,
        landmarks: NDArray[np.floating] | None = None,
    ) -> list[NDArray[np.uint8]]:
        """Generate an image for each seed; one after the other, so that memory does not grow with them.

        Args:
            tokens_1LD: of one person (`encode`).
            seeds: of the noise that images start from.
            side: of the images in pixels; that of the training when None.
            steps: more take longer and follow the flow more closely.
            guidance: FLUX.1-dev's guidance input.
            scale: how much of the identity is added; 0 is FLUX alone.
            identity_guidance: scale of classifier-free guidance by identity; 1 is the conditional velocity.
            landmarks: (478, 2) pixels of a 512 px crop: the pose, for a control decoder and only for that.

        Returns:
            (side, side, 3) uint8, RGB, each.

        Raises:
            TrainingError: FLUX cannot generate images of this side, or the unconditional velocity was not trained.
        """
        decoder, config = self.decoder, self.decoder.config
        side = side or config.side
        if side % (2 * decoder.codec.factor):
            raise TrainingError(
                f"images of {side} pixels cannot be generated. Pass a multiple of {2 * decoder.codec.factor}"
            )
        if guidance is not None and not decoder.transformer.config.guidance_embeds:
            raise TrainingError(
                "--guidance: this transformer has no guidance input; only FLUX.1-dev has one. Leave it out"
            )
        if identity_guidance is None:
            identity_guidance = config.sample_identity_guidance
        check_identity_guidance(config, identity_guidance)
        sampling = decoder.sampling(
            side,
            config.sample_steps if steps is None else steps,
            config.sample_guidance if guidance is None else guidance,
            scale,
            identity_guidance,
        )
        with self._autocast():
            control_1QF = self._control(landmarks, side)
            images = [
                decoder.sample(
                    tokens_1LD, torch.tensor([seed], device=self.device), side, sampling, control_1QF
                )[0]
                for seed in seeds
            ]
        return [(image * 255).round().byte().permute(1, 2, 0).cpu().numpy() for image in images]

    def _control(self, landmarks: NDArray[np.floating] | None, side: int) -> torch.Tensor | None:
        """The condition of the control decoder; None for the flow decoder."""
        if not isinstance(self.decoder, ControlDecoder):
            return None
        if landmarks is None:
            raise ValueError("a control decoder needs the landmarks of a pose")
        image_HHC = landmark_image(landmarks, IMAGE_SIDE, side)
        return self.decoder.encode_landmarks(torch.from_numpy(image_HHC)[None].to(self.device))

    @property
    def precision(self) -> str:
        """Of FLUX and the encoder, `bf16` or `fp32`."""
        return "bf16" if self.decoder.transformer.dtype == torch.bfloat16 else "fp32"

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def without_generator(source: Path) -> TrainingError:
    """The error about a run or an export that cannot generate images."""
    return TrainingError(
        f"{source} has neither a flow nor a control decoder: it cannot generate images. Train decoders.flow from "
        "its representation"
    )


def check_pose(trained: Trained, pose_from: Path | None) -> None:
    """Check that a pose is given where it is needed, and only there.

    Raises:
        TrainingError: it is missing, or the run cannot take one.
    """
    controlled = trained.facts.control is not None
    if controlled and pose_from is None:
        raise TrainingError(
            f"{trained.source} has a control decoder, which generates in the pose of a photograph. Pass "
            "--pose-from PHOTO"
        )
    if pose_from is not None and not controlled:
        raise TrainingError(
            f"--pose-from: {trained.source} has no control decoder, so it takes no pose. Leave it out, or pass a "
            "run of decoders.control"
        )


def check_identity_guidance(flow: FlowConfig, identity_guidance: float | None) -> None:
    """Check that guidance by identity has an unconditional velocity to lead away from.

    Raises:
        TrainingError: the run did not train it.
    """
    if identity_guidance not in {None, 1} and not flow.identity_dropout:
        raise TrainingError(
            f"--identity-guidance: {identity_guidance:g} needs a run that was trained with "
            f"decoders.{flow.name}.identity_dropout, such as 0.1; this one was not. Leave it out, or pass 1"
        )


def _elsewhere(flow: FlowConfig, base: str, source: Path) -> FlowConfig:
    if flow.scratch is None:
        return flow.model_copy(update={"base": base, "revision": None})
    folder = Path(base)
    if flow.transformer_source:
        return flow.of_trained().with_own_networks(folder / VAE_FOLDER, folder / TRANSFORMER_FOLDER)
    if flow.own_vae is None:
        raise TrainingError(f"--base: {source} generates plain pixels, without FLUX. Leave it out")
    return flow.with_own_networks(folder, folder)


def _check_own_networks(flow: FlowConfig, source: Path) -> None:
    """Check that the directories of small networks are there, which may have moved since training."""
    for path in (flow.own_vae, flow.transformer_source):
        if path and not Path(path).is_dir():
            moved = (
                f"a directory with {VAE_FOLDER} and {TRANSFORMER_FOLDER}, such as an export has,"
                if flow.transformer_source
                else "the directory of its autoencoder"
            )
            raise TrainingError(
                f"{source} was trained around {path}, which is not there. Pass {moved} with --base"
            )


def _load(trained: Trained, model: IdentityModel) -> None:
    (name,) = model.names
    decoder: FlowDecoder = model.decoder(name)
    expected = {
        name: weight
        for name, weight in model.state_dict().items()
        if name.startswith(REPRESENTATION) or model.get_parameter(name).requires_grad
    }
    # A run may have trained other decoders too, and an exported ControlNet is whole.
    untrained = model.state_dict().keys() - expected.keys()
    given = {
        name: weight
        for name, weight in trained.weights.items()
        if name.startswith((REPRESENTATION, trained.prefix)) and name not in untrained
    }
    if problems := key_differences(expected, given):
        raise TrainingError(
            f"{trained.source} was not trained on {_surroundings(decoder.config)}: {'; '.join(problems)}"
        )
    model.load_state_dict(given, strict=False)


def _surroundings(flow: FlowConfig) -> str:
    """What was not trained, for messages."""
    if flow.scratch is None:
        return f"this FLUX ({flow.base})"
    return f"this autoencoder ({flow.own_vae})" if flow.own_vae else "a transformer of this size"
