"""The records of a person's identities: what the dataset stores of them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faces.mask import encode_mask_png, face_mask
from pipeline.photos.identities import Eight
from pipeline.stages.gate import eighth_largest
from pipeline.stages.observe import FaceObservation, UsableFace
from shards.canonical import sha256_hex
from shards.landmarks import encode_landmarks
from shards.sample import Sample
from shards.schema import (
    IMAGE_SIDE,
    IdentityRecord,
    ImageRecord,
    Pose,
    Quality,
    Split,
    TrackOutcome,
)


@dataclass(frozen=True)
class Usable:
    """A usable photograph.

    Attributes:
        frame: its place among all photographs of the person.
        observation: of the person's face.
        face: the same face, which is usable.
        quality: its score.
    """

    frame: int
    observation: FaceObservation
    face: UsableFace
    quality: Quality


@dataclass(frozen=True)
class Appearance:
    """A person in the dataset.

    Attributes:
        person_id: of the person; that of a mirror image ends with `/mirrored`.
        source: name of the source.
        source_person: name of the directory.
        photographs: number of all of them.
    """

    person_id: str
    source: str
    source_person: str
    photographs: int

    @property
    def video_id(self) -> str:
        """The person's row in the videos table."""
        return f"{self.source}/{self.person_id}"

    def key(self, track: int) -> str:
        """Key of an identity: readable, unique and valid for any name of a directory."""
        ascii_name = unicodedata.normalize("NFKD", self.source_person).encode("ascii", "ignore").decode()
        slug = re.sub(r"[^A-Za-z0-9]+", "-", ascii_name).strip("-")[:34].rstrip("-")
        digest = hashlib.sha256(self.video_id.encode()).hexdigest()[:16]
        return "_".join(part for part in (self.source, slug, digest, f"{track:03d}") if part)


def sample_of(
    appearance: Appearance, track: int, eight: Eight, usable: Sequence[Usable], embedder: str
) -> tuple[Sample, TrackOutcome]:
    """One identity with its files, in the training split for now, and its track.

    Args:
        appearance: whose it is.
        track: number of the identity.
        eight: its images.
        usable: all usable photographs of the person.
        embedder: name of the network.
    """
    candidates = [usable[place] for place in eight.candidates]
    chosen = [(turn * appearance.photographs, usable[place]) for turn, place in eight.chosen]
    embedding = np.stack([each.face.face.embedding for each in candidates]).mean(axis=0, dtype=np.float64)
    embedding = np.asarray(embedding / np.linalg.norm(embedding))
    points = [each.face.square.to_crop(each.face.landmarks.points) for _, each in chosen]
    masks = tuple(encode_mask_png(face_mask(each, IMAGE_SIDE)) for each in points)
    landmarks = encode_landmarks(np.round(points, 1))
    images = [
        _image_record(each, shift, mask, embedding) for (shift, each), mask in zip(chosen, masks, strict=True)
    ]
    record = IdentityRecord(
        key=appearance.key(track),
        split=Split.TRAIN,
        person_id=appearance.person_id,
        video_id=appearance.video_id,
        source=appearance.source,
        source_person=appearance.source_person,
        track=track,
        track_start_s=images[0].time_s,
        track_end_s=images[-1].time_s,
        embedder=embedder,
        embedding=[round(float(value), 6) for value in embedding],
        images=images,
        landmarks_sha256=sha256_hex(landmarks),
    )
    outcome = TrackOutcome(
        track=track,
        start_s=record.track_start_s,
        end_s=record.track_end_s,
        frames=len(candidates),
        usable_frames=len(candidates),
        crop_px=eighth_largest(each.face.square.side for each in candidates),
        face_px=eighth_largest(each.observation.detection.face_px for each in candidates),
        key=record.key,
    )
    return Sample(record, tuple(each.face.jpeg for _, each in chosen), masks, landmarks), outcome


def _image_record(photograph: Usable, shift: int, mask: bytes, embedding: NDArray[np.float64]) -> ImageRecord:
    """The record of an image.

    Args:
        photograph: that it is.
        shift: added to its place, for repetitions.
        mask: PNG of the face.
        embedding: unit vector of the identity.
    """
    detection, face, frame = photograph.observation.detection, photograph.face, photograph.frame + shift
    x0, y0, x1, y1 = (round(float(value), 1) for value in detection.box)
    pose, square = face.landmarks.pose, face.square
    return ImageRecord(
        frame=frame,
        time_s=float(frame),
        box_px=(x0, y0, x1, y1),
        face_px=round(detection.face_px, 1),
        crop_px=(square.x0, square.y0, square.side),
        pose=Pose(yaw=round(pose.yaw, 2), pitch=round(pose.pitch, 2), roll=round(pose.roll, 2)),
        eyes_open=round(face.landmarks.eyes_open, 3),
        sharpness=round(face.sharpness, 2),
        identity_cosine=round(float(face.face.embedding @ embedding), 4),
        quality=photograph.quality,
        sha256=sha256_hex(face.jpeg),
        mask_sha256=sha256_hex(mask),
    )


def counted(reasons: dict[str, int]) -> Iterator[str]:
    """The reasons with their counts, the commonest first."""
    for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        yield f"{count} {reason}"
