"""The records of an MFHQ dataset, as they stand in its files.

Everything that crosses from the pipeline to the trainer is typed here and nowhere else. Two kinds of unit
occur: `_px` are pixels of the source frame as a player shows it (rotation metadata applied), `_crop_px` are
pixels of the stored 512 x 512 image. The normative text is README.md beside this file; a change here that a
reader could notice is a change of `FORMAT_VERSION` there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION = "1.0"
IMAGES_PER_IDENTITY = 8
IMAGE_SIDE = 512
"""Side of the stored square images, in pixels."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=80)]
"""Key of a sample: plain ASCII, no dots (WebDataset splits at the first one), no leading `-`."""


class Record(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Status(StrEnum):
    """What became of a video."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a video, a track or a frame went no further; the one list that every step and report uses.

    The order is that of the pipeline.
    """

    # failed: the file or the machine
    EMPTY_FILE = "empty_file"
    UNREADABLE = "unreadable"
    TRUNCATED_FILE = "truncated_file"
    DECODE_ERROR = "decode_error"
    WORKER_CRASHED = "worker_crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL_ERROR = "internal_error"
    # rejected: the file holds nothing for us
    NO_VIDEO_STREAM = "no_video_stream"
    STILL_IMAGE = "still_image"
    HDR_VIDEO = "hdr_video"
    TOO_SHORT = "too_short"
    DUPLICATE_VIDEO = "duplicate_video"
    # rejected: frames and tracks
    NO_FACE = "no_face"
    FACE_TOO_SMALL = "face_too_small"
    FACE_CUT_OFF = "face_cut_off"
    NO_LANDMARKS = "no_landmarks"
    EXTREME_POSE = "extreme_pose"
    TOO_DARK = "too_dark"
    NOISY = "noisy"
    BLURRED = "blurred"
    OTHER_IDENTITY = "other_identity"
    TRACK_TOO_SHORT = "track_too_short"
    TOO_FEW_POSES = "too_few_poses"
    LOW_QUALITY = "low_quality"
    DUPLICATE_PERSON = "duplicate_person"


FAILURES = frozenset(
    {
        Reason.EMPTY_FILE,
        Reason.UNREADABLE,
        Reason.TRUNCATED_FILE,
        Reason.DECODE_ERROR,
        Reason.WORKER_CRASHED,
        Reason.TIMEOUT,
        Reason.OUT_OF_MEMORY,
        Reason.INTERNAL_ERROR,
    }
)
"""Reasons of status `failed`: something broke. All others are decisions, of status `rejected`."""


class Split(StrEnum):
    """Which part of the dataset a sample belongs to."""

    TRAIN = "train"
    TEST = "test"


class Pose(Record):
    """Head pose in degrees; the convention is in README.md, "Head pose"."""

    yaw: float
    pitch: float
    roll: float


class Quality(Record):
    """One quality score of one image."""

    metric: str
    value: float
    higher_is_better: bool


class ImageRecord(Record):
    """One image of an identity: where it came from, what it shows and what it hashes to."""

    frame: int = Field(ge=0, description="index of the source frame, in display order")
    time_s: float = Field(ge=0, description="presentation time of that frame, seconds from the video's start")
    box_px: tuple[float, float, float, float] = Field(description="detector's face box: x0, y0, x1, y1")
    face_px: float = Field(description="face size: square root of the box's area")
    crop_px: tuple[float, float, float] = Field(description="the stored square: x0, y0, side")
    pose: Pose
    landmarks_crop_px: list[tuple[float, float]] = Field(min_length=478, max_length=478)
    eyes_open: float = Field(ge=0, le=1, description="1 = wide open, 0 = closed; the lower of the two eyes")
    sharpness: float = Field(ge=0, description="variance of the Laplacian of the face at 128 px")
    identity_cosine: float = Field(ge=-1.001, le=1.001, description="cosine to the identity's embedding")
    quality: Quality
    sha256: Sha256 = Field(description="of the JPEG member")
    mask_sha256: Sha256 = Field(description="of the PNG member")


class IdentityRecord(Record):
    """The JSON member of a sample: one person in one track of one video."""

    format_version: str = FORMAT_VERSION
    key: Key
    split: Split
    person_id: str = Field(description="same for records judged to show the same person")
    video_id: str
    source: str = Field(description="name of the source dataset")
    origin: str | None = Field(default=None, description="what the video was cut from, such as a YouTube id")
    licence: str | None = None
    track: int = Field(ge=0, description="number of the track within its video")
    track_start_s: float
    track_end_s: float
    embedder: str
    embedding: list[float] = Field(description="unit vector, mean of the track's usable frames")
    images: list[ImageRecord] = Field(min_length=IMAGES_PER_IDENTITY, max_length=IMAGES_PER_IDENTITY)


class TrackOutcome(Record):
    """What became of one track of a video."""

    track: int
    start_s: float
    end_s: float
    frames: int = Field(description="analysed frames in which the face was seen")
    usable_frames: int = Field(description="of these, frames that passed every filter")
    key: Key | None = Field(default=None, description="the sample it became")
    reason: Reason | None = Field(default=None, description="why it did not become one")
    detail: str | None = None


class VideoOutcome(Record):
    """One row of videos.parquet: exactly one for each input video."""

    video_id: str
    source: str
    uri: str = Field(description="path or address, relative to the source's root")
    origin: str | None = None
    licence: str | None = None
    bytes: int
    sha256: Sha256 | None = Field(default=None, description="of the file; null when it could not be read")
    status: Status
    reason: Reason | None = None
    detail: str | None = Field(default=None, description="the error or the figures behind the reason")
    container: str | None = None
    codec: str | None = None
    width: int | None = Field(default=None, description="as shown, rotation and pixel shape applied")
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    duration_s: float | None = None
    rotation_deg: int | None = None
    analysed_frames: int = 0
    faces_seen: int = 0
    frame_reasons: dict[Reason, int] = Field(default_factory=dict, description="faces dropped, by reason")
    tracks: list[TrackOutcome] = Field(default_factory=list)
    identities: int = 0
