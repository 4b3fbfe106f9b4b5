"""Generates the images of held-out people, as files that a later run of the same evaluation finds again.

    <output>/images/<source>/<identity>/inputs-3_target-5_sample-0.png

Each file holds its seed. An image depends on the source, the identity, the number of inputs, the target and the
seed alone: images are generated one by one, so neither the number of ranks nor what was there before makes a
difference.

Letters in names give the shape:
    M  inputs    S  side in pixels    C  colour channels (3, RGB)    L  identity tokens    D  channels of one
    P  landmarks (478)    2  x and y
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from settings.section import Section
from shards.atomic import write_bytes
from training.crop_scale import check_crop_scale
from training.decoders.control_config import ControlConfig
from training.errors import TrainingError
from training.evaluate.names import IMAGES_FOLDER
from training.evaluate.people import Identity
from training.evaluate.protocol import noise_seed
from training.export import read_trained
from training.models.digest import weights_digest
from training.sampling.sampler import Sampler, check_identity_guidance, without_generator
from training.trained import Trained

_SEED = "omniid:seed"
"""Text chunk of a PNG file."""


class Sampling(Section):
    """How images are sampled; None is what the source was validated with."""

    steps: int | None = None
    guidance: float | None = None
    scale: float = 1.0
    identity_guidance: float | None = None


class SourceFacts(Section):
    """A source of images: a run or an export with a flow or a control decoder."""

    name: str
    """Of its directory among the images."""
    path: str
    step: int
    """Training steps."""
    representation: str
    digest: str
    """Of its weights."""
    flow_digest: str
    """Of the weights of its decoder that were not trained."""
    side: int
    """Of its images, in pixels."""
    steps: int
    """Sampling steps."""
    guidance: float
    """Guidance input of FLUX.1-dev."""
    scale: float
    """Of the identity adapter."""
    identity_guidance: float
    """Scale of classifier-free guidance by identity."""
    recogniser_sha256: str | None = None
    """Of the recognition network whose embeddings condition it, if there is one."""
    crop_scale: float | None = None
    pose_conditioned: bool = False
    """Whether it receives the landmark image of the target: the control decoder does. The flow decoder receives
    identity tokens alone."""


@dataclass(frozen=True)
class Loaded:
    """What the images of a source depend on besides the source, known when it is loaded."""

    device: str
    """Its kind, `cuda` or `cpu`."""
    precision: str
    """Of FLUX and the encoder, `bf16` or `fp32`."""
    base: str
    """Digest of the weights that the source was loaded around: of FLUX, or of small networks in its place."""
    noise: str
    """Shape of the noise of an image, `tokens x channels`: the same seed gives other noise in another shape."""


@dataclass(frozen=True)
class GeneratedImage:
    """One image to generate, or generated."""

    source: str
    key: str
    person: str
    inputs: int
    target: int
    sample: int

    @property
    def seed(self) -> int:
        """Of its noise."""
        return noise_seed(self.person, self.target, self.sample)

    @property
    def file(self) -> str:
        """Relative to the output."""
        name = f"inputs-{self.inputs}_target-{self.target}_sample-{self.sample}.png"
        return f"{IMAGES_FOLDER}/{self.source}/{self.key}/{name}"


def source_facts(
    path: Path, number: int, inputs: Sequence[int], sampling: Sampling, models_dir: Path | None = None
) -> SourceFacts:
    """What a source is, without loading what it was trained around.

    Args:
        path: of a run or an export.
        number: of the source on the command line, from 0.
        inputs: numbers of input images.
        sampling: that is asked for.
        models_dir: directory with the file of a recognition network of the source.

    Raises:
        ConfigError: the file of its recognition network is missing or another one.
        TrainingError: it is none, it cannot be read, it has neither a flow nor a control decoder, or it cannot be
            sampled so.
    """
    trained = read_trained(path, models_dir)
    fixed = trained.facts.fixed_inputs
    if fixed is not None and set(inputs) != {fixed}:
        raise TrainingError(
            f"--inputs: {path} takes exactly {fixed} images of a person, the number that it was trained on "
            f"(combine=concat). Pass --inputs {fixed}"
        )
    flow = trained.facts.generator
    if flow is None:
        raise without_generator(path)
    check_identity_guidance(flow, sampling.identity_guidance)
    return SourceFacts(
        name=f"{number}-{path.resolve().name or 'source'}",
        path=str(path),
        step=trained.facts.step,
        representation=trained.facts.representation,
        digest=weights_digest(dict(trained.weights)),
        flow_digest=trained.facts.flow_digest,
        side=flow.side,
        steps=flow.sample_steps if sampling.steps is None else sampling.steps,
        guidance=flow.sample_guidance if sampling.guidance is None else sampling.guidance,
        scale=sampling.scale,
        identity_guidance=(
            flow.sample_identity_guidance
            if sampling.identity_guidance is None
            else sampling.identity_guidance
        ),
        recogniser_sha256=_recogniser_sha256(trained),
        crop_scale=trained.facts.crop_scale,
        pose_conditioned=isinstance(flow, ControlConfig),
    )


def crop_scale_warning(source: SourceFacts, dataset: float | None) -> str | None:
    """What to report when a source was trained on images that were cut in another way; None when nothing."""
    try:
        check_crop_scale(source.crop_scale, [] if dataset is None else [dataset])
    except ValueError:
        return (
            f"{source.path} was trained on head crops of scale {source.crop_scale:g}, the images of this dataset "
            f"were cut at {dataset:g}: its tokens lose most of the identity"
        )
    return None


class Generator:
    """A source, ready to generate images of identities.

    Args:
        sampler: with its networks.
        source: its steps and guidance.
        guidance: that was asked for; a transformer without guidance input refuses one.
    """

    def __init__(self, sampler: Sampler, source: SourceFacts, guidance: float | None = None) -> None:
        self._sampler = sampler
        self._source = source
        self._guidance = guidance

    @property
    def loaded(self) -> Loaded:
        """What was loaded, and where."""
        sampler = self._sampler
        tokens, channels = sampler.decoder.noise_shape(self._source.side)
        return Loaded(sampler.device.type, sampler.precision, sampler.base_digest, f"{tokens}x{channels}")

    @classmethod
    def load(
        cls,
        source: SourceFacts,
        device: torch.device,
        message: Callable[[str], None],
        *,
        guidance: float | None = None,
        base: str | None = None,
        models_dir: Path | None = None,
    ) -> Generator:
        """Load the networks of a source.

        Args:
            source: to load.
            device: where to generate.
            message: receives a warning when FLUX has other weights than in training.
            guidance: that was asked for.
            base: directory of FLUX, when it has moved.
            models_dir: directory with the file of a recognition network of the source.

        Raises:
            TrainingError: they cannot be loaded.
        """
        precision = "bf16" if device.type == "cuda" else "fp32"
        trained = read_trained(Path(source.path), models_dir)
        sampler = Sampler.load(trained, device, base=base, precision=precision, say=message)
        return cls(sampler, source, guidance)

    def tokens(self, identity: Identity, numbers: tuple[int, ...]) -> torch.Tensor:
        """Identity tokens (1, L, D) of some images of an identity."""
        chosen = list(numbers)
        return self._sampler.encode(list(identity.images_KSSC[chosen]), list(identity.keypoints_KP2[chosen]))

    def image(
        self, tokens_1LD: torch.Tensor, seed: int, landmarks_P2: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """An image from identity tokens and noise, (S, S, 3) RGB.

        Args:
            tokens_1LD: of some images of an identity.
            seed: of the noise.
            landmarks_P2: of the target, in pixels of the stored image; for a pose-conditioned source alone.
        """
        (found,) = self._sampler.generate(
            tokens_1LD,
            [seed],
            steps=self._source.steps,
            guidance=self._guidance,
            scale=self._source.scale,
            identity_guidance=self._source.identity_guidance,
            landmarks=landmarks_P2 if self._source.pose_conditioned else None,
        )
        return found


def is_generated(output: Path, image: GeneratedImage) -> bool:
    """Whether the file of an image is there, from this seed."""
    try:
        with Image.open(output / image.file, formats=["PNG"]) as found:
            return found.info.get(_SEED) == str(image.seed)
    except (OSError, UnidentifiedImageError):
        return False


def write_image(output: Path, image: GeneratedImage, pixels_SSC: NDArray[np.uint8]) -> None:
    """Write the file of an image, with its seed.

    Raises:
        OutOfSpace: the disk is full.
    """
    info = PngInfo()
    info.add_text(_SEED, str(image.seed))
    encoded = io.BytesIO()
    Image.fromarray(pixels_SSC).save(encoded, "PNG", pnginfo=info)
    # Not durable: a file that a power cut took is generated again.
    write_bytes(output / image.file, encoded.getvalue(), durable=False)


def read_image(output: Path, image: GeneratedImage) -> NDArray[np.uint8]:
    """The pixels of an image, (S, S, 3) RGB.

    Raises:
        TrainingError: its file is missing or damaged.
    """
    path = output / image.file
    try:
        with Image.open(path, formats=["PNG"]) as found:
            return np.asarray(found.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise TrainingError(
            f"{path} cannot be read: {error}. Delete it and run the same command again, which generates it anew"
        ) from error


def _recogniser_sha256(trained: Trained) -> str | None:
    """Of the recognition network of a baseline; no other representation holds one."""
    if not trained.facts.representation.startswith("arcface"):
        return None
    with torch.device("meta"):
        representation = trained.representation()
    return str(representation.recogniser.sha256)
