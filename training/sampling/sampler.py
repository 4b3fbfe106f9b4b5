"""Draw a person with what a run has learned.

Letters in names give the shape:
    M  photographs    S  side of an image in pixels    C  colour channels (3, RGB)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import Flow
from training.errors import TrainingError
from training.models.clip_weights import key_problems
from training.models.flow import FlowStage
from training.models.flow_build import flow_stage
from training.models.pixels import pixels
from training.trained import Trained


class Sampler:
    """Encoder, adapter and FLUX, ready to draw.

    Args:
        stage: with its weights, on the device where it is to run.
    """

    def __init__(self, stage: FlowStage) -> None:
        self.stage = stage.requires_grad_(False).eval()
        self.device = stage.prompt_1TD.device

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
            trained: from the output folder of a run, or an export (`training.export.read_trained`).
            device: where to draw.
            base: folder of FLUX, or of the autoencoder of a transformer of its own, when it is not where it was in
                training.
            precision: of FLUX, `bf16` or `fp32`; the encoder runs in it too.
            say: told when what was not trained has other weights than in training, as a fine-tuned FLUX has.

        Raises:
            TrainingError: it cannot be loaded, or what was learned does not fit it.
        """
        flow, source = trained.facts.flow, trained.source
        if flow is None:
            raise TrainingError(
                f"{source} is of the first stage (mtd), which completes images and cannot draw new ones: train "
                "the second stage (flow) from its encoder"
            )
        if base is not None:
            flow = _elsewhere(flow, base, source)
        if flow.own_vae and not Path(flow.own_vae).is_dir():
            raise TrainingError(
                f"{source} draws latents of the autoencoder in {flow.own_vae}, which is not there; give its "
                "folder with --base"
            )
        stage = flow_stage(trained.facts.size, flow, precision=precision, seed=0)
        _put(trained, stage)
        if trained.facts.frozen_digest not in {"", stage.frozen_digest}:
            say(f"warning: {_surroundings(flow)} has other weights than in the training of {source}")
        return cls(stage.to(device))

    @torch.no_grad()
    def draw(
        self,
        portraits: Sequence[NDArray[np.uint8]],
        seeds: Sequence[int],
        *,
        side: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        scale: float = 1.0,
        identity_guidance: float | None = None,
    ) -> list[NDArray[np.uint8]]:
        """Draw one person, an image for each seed; one after the other, so that memory does not grow with them.

        Args:
            portraits: one person's, (512, 512, 3) RGB (`photographs.read_portraits`); any number.
            seeds: of the noise that images start from.
            side: of the images in pixels; what the adapter was trained at when None.
            steps: more take longer and follow the flow more closely.
            guidance: what FLUX.1-dev is told.
            scale: how much of the identity is added; 0 is FLUX alone.
            identity_guidance: how far to go from nobody to this person; 1 is what was learned.

        Returns:
            (side, side, 3) uint8, RGB, each.

        Raises:
            TrainingError: FLUX has no images of this side, or was never trained to draw nobody.
        """
        stage, flow = self.stage, self.stage.flow
        side = side or flow.side
        if side % (2 * stage.codec.factor):
            raise TrainingError(
                f"images of {side} pixels cannot be drawn: give a multiple of {2 * stage.codec.factor}"
            )
        if guidance is not None and not stage.transformer.config.guidance_embeds:
            raise TrainingError(
                "this transformer is told no guidance, as only FLUX.1-dev is; leave --guidance out"
            )
        if identity_guidance is None:
            identity_guidance = flow.sample_identity_guidance
        check_identity_guidance(flow, identity_guidance)
        way = stage.way(
            side,
            flow.sample_steps if steps is None else steps,
            flow.sample_guidance if guidance is None else guidance,
            scale,
            identity_guidance,
        )
        precision = torch.autocast(
            self.device.type, torch.bfloat16, enabled=stage.transformer.dtype == torch.bfloat16
        )
        with precision:
            crops_MSSC = torch.from_numpy(np.stack(portraits)).to(self.device)
            tokens_1LD = stage.encoder(pixels(crops_MSSC, stage.size.side)[None])
            images = [
                stage.sample(tokens_1LD, torch.tensor([seed], device=self.device), side, way)[0]
                for seed in seeds
            ]
        return [(image * 255).round().byte().permute(1, 2, 0).cpu().numpy() for image in images]


def check_identity_guidance(flow: Flow, identity_guidance: float | None) -> None:
    """Refuse to guide by identity what was never trained to draw nobody.

    Raises:
        TrainingError: it was not.
    """
    if identity_guidance not in {None, 1} and not flow.identity_dropout:
        raise TrainingError(
            f"identity guidance of {identity_guidance:g} needs a run that was trained with flow.identity_dropout, "
            "such as 0.1; this one was not"
        )


def _elsewhere(flow: Flow, base: str, source: Path) -> Flow:
    if flow.scratch is None:
        return flow.model_copy(update={"base": base, "revision": None})
    if flow.own_vae is None:
        raise TrainingError(f"--base: {source} draws plain pixels, without FLUX; leave it out")
    return flow.with_own_vae(base)


def _put(trained: Trained, stage: FlowStage) -> None:
    expected = {name: weight for name, weight in stage.named_parameters() if weight.requires_grad}
    if problems := key_problems(expected, trained.weights):
        raise TrainingError(
            f"{trained.source} was not trained on {_surroundings(stage.flow)}: {'; '.join(problems)}"
        )
    stage.load_state_dict(trained.weights, strict=False)


def _surroundings(flow: Flow) -> str:
    """What was not trained, in words."""
    if flow.scratch is None:
        return f"this FLUX ({flow.base})"
    return f"this autoencoder ({flow.own_vae})" if flow.own_vae else "a transformer of this size"
