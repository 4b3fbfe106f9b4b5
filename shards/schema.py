"""The records of an MFHQ dataset, as its files store them.

Everything that crosses from the pipeline to the trainer is typed here and nowhere else. There are two kinds of
unit: `_px` are pixels of the source frame as a player shows it (rotation metadata applied), `_crop_px` are
pixels of the stored 512 x 512 image. The normative text is README.md beside this file; a change here that a
reader could notice is a change of `FORMAT_VERSION` there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION = "3.0"
IMAGES_PER_IDENTITY = 8
IMAGE_SIDE = 512
"""Side of the stored square images, in pixels."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Span = tuple[float, float]
"""Part of a file: start and end in seconds from the file's start."""
Box = tuple[float, float, float, float]
"""Box as fractions of the shown frame's width and height: x0, y0, x1, y1."""
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=80)]
"""Key of a sample: plain ASCII, no dots (WebDataset splits at the first one), no leading `-`."""


class Record(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Status(StrEnum):
    """The outcome of a video. The list is closed: readers count by it."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a video, a track or a frame is dropped, as far as this code writes it.

    The list is open: a record may hold a reason that is not here. The order is that of the pipeline.
    """

    # failed: the file or the machine
    EMPTY_FILE = "empty_file"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    INACCESSIBLE = "inaccessible"
    UNSUPPORTED_CONTAINER = "unsupported_container"
    UNREADABLE = "unreadable"
    TRUNCATED_FILE = "truncated_file"
    DECODE_ERROR = "decode_error"
    DECODER_CRASHED = "decoder_crashed"
    SANDBOX_VIOLATION = "sandbox_violation"
    WORKER_CRASHED = "worker_crashed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL_ERROR = "internal_error"
    # rejected: the file gives no identity
    NO_VIDEO_STREAM = "no_video_stream"
    STILL_IMAGE = "still_image"
    TOO_SHORT = "too_short"
    FRAME_TOO_LARGE = "frame_too_large"
    HDR_VIDEO = "hdr_video"
    CORRUPT_FRAME = "corrupt_frame"
    DUPLICATE_VIDEO = "duplicate_video"
    # rejected: frames and tracks
    NO_FACE = "no_face"
    FACE_TOO_SMALL = "face_too_small"
    CROP_TOO_SMALL = "crop_too_small"
    FACE_CUT_OFF = "face_cut_off"
    NO_LANDMARKS = "no_landmarks"
    EXTREME_POSE = "extreme_pose"
    TOO_DARK = "too_dark"
    NOISY = "noisy"
    BLURRED = "blurred"
    POSE_OUTLIER = "pose_outlier"
    OTHER_IDENTITY = "other_identity"
    TRACK_TOO_SHORT = "track_too_short"
    TOO_FEW_POSES = "too_few_poses"
    LOW_QUALITY = "low_quality"
    NEAR_DUPLICATE = "near_duplicate"
    DUPLICATE_PERSON = "duplicate_person"
    # rejected: photographs, where they stand in place of videos
    DUPLICATE_PHOTOGRAPH = "duplicate_photograph"
    SEVERAL_FACES = "several_faces"
    BYSTANDER = "bystander"
    TOO_FEW_PHOTOGRAPHS = "too_few_photographs"


REASON_PATTERN = r"^[a-z][a-z0-9_]{0,39}$"
UnknownReason = Annotated[str, Field(pattern=REASON_PATTERN)]
AnyReason = Annotated[Reason | UnknownReason, Field(union_mode="left_to_right")]
"""A reason in a record: one of `Reason`, or the name of one that this code does not know."""

FAILURES = frozenset(
    {
        Reason.EMPTY_FILE,
        Reason.NOT_A_REGULAR_FILE,
        Reason.INACCESSIBLE,
        Reason.UNSUPPORTED_CONTAINER,
        Reason.UNREADABLE,
        Reason.TRUNCATED_FILE,
        Reason.DECODE_ERROR,
        Reason.DECODER_CRASHED,
        Reason.SANDBOX_VIOLATION,
        Reason.WORKER_CRASHED,
        Reason.TIMEOUT,
        Reason.OUT_OF_MEMORY,
        Reason.INTERNAL_ERROR,
    }
)
"""Reasons of status `failed`: an error occurred. The others in `Reason` are of status `rejected`."""


class Split(StrEnum):
    """Which part of the dataset a sample belongs to."""

    TRAIN = "train"
    TEST = "test"


class Attribute(Record):
    """One fact that the source gives about a video, such as an annotation of its dataset."""

    name: str = Field(min_length=1)
    value: str


class FromSource(Record):
    """What the source knows of a video; the same in its outcome and in the samples cut from it."""

    source: str = Field(description="name of the source dataset")
    origin: str | None = Field(default=None, description="what the video was cut from, such as a YouTube id")
    license: str | None = Field(default=None, description="terms of the source")
    span_s: Span | None = Field(default=None, description="part of the file that is the video; null: all")
    annotated_box: Box | None = Field(default=None, description="the person's box, as the source gives it")
    source_person: str | None = Field(default=None, description="the source's own label of the person")
    attributes: list[Attribute] = Field(default_factory=list, description="sorted by name")


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
    time_s: float = Field(ge=0, description="presentation time of that frame, seconds from the file's start")
    box_px: tuple[float, float, float, float] = Field(description="detector's face box: x0, y0, x1, y1")
    face_px: float = Field(description="face size: square root of the box's area")
    crop_px: tuple[float, float, float] = Field(description="the stored square: x0, y0, side")
    pose: Pose
    eyes_open: float = Field(ge=0, le=1, description="1 = wide open, 0 = closed; the lower of the two eyes")
    sharpness: float = Field(ge=0, description="variance of the Laplacian of the face at 128 px")
    identity_cosine: float | None = Field(
        default=None, ge=-1.001, le=1.001, description="cosine to the identity's embedding, if it was known"
    )
    quality: Quality
    sha256: Sha256 = Field(description="of the JPEG member")
    mask_sha256: Sha256 = Field(description="of the PNG member")


class IdentityRecord(FromSource):
    """The JSON member of a sample: one person in one track of one video."""

    format_version: str = FORMAT_VERSION
    key: Key
    split: Split
    person_id: str = Field(description="same for records judged to show the same person")
    video_id: str
    track: int = Field(ge=0, description="number of the track within its video")
    track_start_s: float
    track_end_s: float
    embedder: str | None = Field(default=None, description="null when embeddings are not stored")
    embedding: list[float] | None = Field(
        default=None, description="unit vector, mean over frames of the track"
    )
    images: list[ImageRecord] = Field(min_length=IMAGES_PER_IDENTITY, max_length=IMAGES_PER_IDENTITY)
    landmarks_sha256: Sha256 = Field(description="of the NPY member")


class TrackOutcome(Record):
    """The outcome of one track of a video."""

    track: int
    start_s: float
    end_s: float
    frames: int = Field(description="analysed frames in which the face was seen")
    usable_frames: int = Field(description="of these, frames that no check has dropped")
    crop_px: float | None = Field(
        default=None, description="8th largest side of a head crop over the track's frames, source px"
    )
    face_px: float | None = Field(default=None, description="8th largest face size, likewise")
    key: Key | None = Field(default=None, description="the sample it became")
    reason: AnyReason | None = Field(default=None, description="why it did not become one")
    detail: str | None = None


class VideoOutcome(FromSource):
    """One row of the videos table: exactly one for each input video."""

    video_id: str
    uri: str = Field(description="path or URL, relative to the source's root")
    bytes: int
    sha256: Sha256 | None = Field(
        default=None, description="of the file or the directory of frames; null when it could not be read"
    )
    status: Status
    reason: AnyReason | None = None
    detail: str | None = Field(default=None, description="the error or the figures behind the reason")
    container: str | None = None
    codec: str | None = None
    width: int | None = Field(default=None, description="as shown, rotation and pixel shape applied")
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    duration_s: float | None = None
    rotation_deg: int | None = None
    color_transfer: str | None = Field(default=None, description="transfer function, as FFmpeg names it")
    analysed_frames: int = 0
    corrupt_frames: int = Field(default=0, description="analysed frames dropped because they are damaged")
    faces_seen: int = 0
    frame_reasons: dict[AnyReason, int] = Field(default_factory=dict, description="faces dropped, by reason")
    tracks: list[TrackOutcome] = Field(default_factory=list)
    identities: int = 0
