"""What the steps of the curation exchange, as plain records.

Between Ray workers they travel as JSON text beside lists of encoded images: small, typed, and of a size that
Ray's back-pressure can see. Coordinates are those of `shards.schema`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict, Field

from shards.schema import IMAGES_PER_IDENTITY, ImageRecord, Pose, Record, VideoOutcome


class AnalysedFrame(Record):
    """An analysed frame."""

    frame: int
    time_s: float
    reason: str | None = None
    """Why the whole frame was dropped, with or without a face."""


class TimelineFace(Record):
    """A face in an analysed frame: its measurements and its outcome. Units are those of the images."""

    frame: int
    time_s: float
    track: int
    box_px: tuple[float, float, float, float]
    face_px: float
    crop_px: tuple[float, float, float] | None = None
    pose: Pose | None = None
    sharpness: float | None = None
    reason: str | None = None
    """Why it was dropped: the first check that it failed. None for a usable face."""
    candidate: bool = False
    """Whether the quality network scored it."""
    quality: float | None = None
    chosen: bool = False
    """Whether it is one of the identity's images."""


class Timeline(Record):
    """What the analysis saw in a video, frame by frame; explains the outcome, not a part of the dataset.

    A measurement is None where an earlier check dropped the face. Reasons are text, because other versions
    of the code also read a timeline.
    """

    frames: list[AnalysedFrame] = Field(default_factory=list)
    faces: list[TimelineFace] = Field(default_factory=list)
    """By track, and in time order within a track."""


class Candidate(Record):
    """One image that may be chosen: an ImageRecord before its quality is known."""

    frame: int
    time_s: float
    box_px: tuple[float, float, float, float]
    face_px: float
    crop_px: tuple[float, float, float]
    pose: Pose
    keypoints_crop_px: list[tuple[float, float]]
    """The detector's five points, for the alignment that the quality network was trained with."""
    eyes_open: float
    sharpness: float
    identity_cosine: float | None = None
    """None while the continuity of the track says whose face it is; known of all that are chosen."""
    continuous: bool = False
    """Whether the frame before or after it shows the face at the same place."""
    other_identity: bool = False
    """Whether its embedding turned out to be another person's."""
    eyes_closed: bool
    """Compared with the rest of the track."""
    cluster: int
    """Pose cluster that it may represent."""
    rank: int = 0
    """Its place among the candidates of its cluster; the first are scored first."""
    quality: float | None = None
    """Score of the configured metric, once it is known."""


@dataclass(frozen=True)
class CandidateImage:
    """The files of a candidate.

    Attributes:
        jpeg: the image.
        mask: its face mask, as PNG.
        points: its landmarks: (478, 2) little-endian float32, pixels of the image.
    """

    jpeg: bytes
    mask: bytes
    points: bytes


class CandidateTrack(Record):
    """A track that has enough usable frames to choose from."""

    # In JSON, bytes are text.
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    track: int
    embedding: list[float]
    candidates: list[Candidate]
    seen_with: list[int] = Field(default_factory=list)
    """Tracks of the video that are seen in one frame with this one: other persons."""
    fingerprint: bytes = b""
    """Of its footage, from `pipeline.stages.fingerprint`."""
    image_bytes: float = 0.0
    """Median size of the stored images of its usable frames: how much detail they hold."""


class Analysis(Record):
    """The result of analysing one video; its outcome is final unless tracks wait for the choice of images."""

    outcome: VideoOutcome
    tracks: list[CandidateTrack] = Field(default_factory=list)
    seconds: dict[str, float] = Field(default_factory=dict)
    """Time spent, by step."""
    timeline: Timeline = Field(default_factory=Timeline)


class StagedIdentity(Record):
    """A chosen identity, before it is linked to a person and assigned to a split."""

    key: str
    track: int
    track_start_s: float
    track_end_s: float
    embedder: str
    embedding: list[float]
    images: list[ImageRecord] = Field(min_length=IMAGES_PER_IDENTITY, max_length=IMAGES_PER_IDENTITY)
    landmarks_sha256: str
    seen_with: list[int] = Field(default_factory=list, exclude=True)
    """Tracks of the video that are seen in one frame with this one: other persons."""
    fingerprint: bytes = Field(default=b"", exclude=True)
    """Of its footage, from `pipeline.stages.fingerprint`."""
    image_bytes: float = Field(default=0.0, exclude=True)
    """Median size of the stored images of its usable frames."""


@dataclass(frozen=True)
class StagedSample:
    """A chosen identity with its files.

    Attributes:
        identity: its record.
        jpegs: its images.
        masks: one for each image.
        landmarks: of all images, as the dataset stores them.
    """

    identity: StagedIdentity
    jpegs: tuple[bytes, ...]
    masks: tuple[bytes, ...]
    landmarks: bytes
