"""The truth of the demo clips: who is in each frame, in which pose, and which defect was planted.

`truth.json` beside the clips is a list of `ClipTruth`.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

TRUTH_FILE = "truth.json"


class Record(BaseModel):
    """Base of the records below: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Defect(StrEnum):
    """The defect of a frame."""

    BLUR = "blur"
    MOTION_BLUR = "motion_blur"
    NOISE = "noise"
    DARK = "dark"
    EYES_CLOSED = "eyes_closed"
    FACE_TOO_SMALL = "face_too_small"
    NO_FACE = "no_face"


class FaceTruth(Record):
    """One face in one frame; angles in degrees, as `faces.types.HeadPose` defines them."""

    identity: str
    yaw: float
    pitch: float
    roll: float
    eyes_open: float  # 1 as in the photograph, 0 closed
    mouth_open: float  # 0 as in the photograph, 1 wide open


class FrameTruth(Record):
    """One frame, in display order."""

    time_s: float
    defect: Defect | None
    faces: list[FaceTruth]  # from left to right


class ClipTruth(Record):
    """One file of the demo.

    Attributes:
        file: its name in the folder.
        readable: false for the files that are broken on purpose.
        identities: who appears, in order of appearance; empty without a face and for broken files.
        width: as shown, rotation applied; 0 for broken files.
        rotation_deg: clockwise turn that a player has to apply.
        frames: empty where single frames are not known (a real recording, a broken file).
    """

    file: str
    readable: bool
    identities: list[str]
    codec: str
    width: int
    height: int
    rotation_deg: int
    frames: list[FrameTruth]


_CLIPS = TypeAdapter(list[ClipTruth])


def write_truth(folder: Path, clips: list[ClipTruth]) -> Path:
    """Write `truth.json` into `folder` and return its path."""
    path = folder / TRUTH_FILE
    path.write_bytes(_CLIPS.dump_json(clips, indent=1) + b"\n")
    return path


def read_truth(folder: Path) -> list[ClipTruth]:
    """Read `truth.json` of a folder of demo clips.

    Raises:
        FileNotFoundError: there is none.
        pydantic.ValidationError: it is not of this form.
    """
    return _CLIPS.validate_json((folder / TRUTH_FILE).read_bytes())
