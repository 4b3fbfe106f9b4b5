"""Staging areas without a build: real images of noise and complete records, written as the pipeline does."""

from __future__ import annotations

import hashlib
import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from faces.catalogue import MODELS
from faces.registry import WeightsFile
from pipeline.config import Config
from pipeline.records import StagedIdentity, StagedSample
from pipeline.sources.manifest import Video
from pipeline.stages.finalize import FinalizedVideo, sample_key
from pipeline.thresholds import with_thresholds
from settings.loading import load_workflow
from shards.landmarks import LANDMARKS, encode_landmarks
from shards.schema import (
    FAILURES,
    IMAGE_SIDE,
    IMAGES_PER_IDENTITY,
    ImageRecord,
    Pose,
    Quality,
    Reason,
    Status,
    TrackOutcome,
    VideoOutcome,
)

WORKFLOW = Path(__file__).parents[2] / "workflows" / "curate_demo.yaml"
MODELS_USED = {
    name: WeightsFile(MODELS[name], Path(MODELS[name].file), MODELS[name].sha256)
    for name in ("yunet", "face_landmarker", "sface")
}


def make_source(folder: Path, sizes: dict[str, int]) -> Path:
    """A folder of files that are called like videos, of the given sizes in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in sizes.items():
        (folder / name).write_bytes(name.encode().ljust(size, b"."))
    return folder


def configured(source: Path, output: Path, *overrides: str) -> Config:
    config = load_workflow(WORKFLOW, [f"source.path={source}", f"output={output}", *overrides], Config)
    return with_thresholds(config, MODELS_USED)


def rejected(video: Video, reason: Reason) -> FinalizedVideo:
    status = Status.FAILED if reason in FAILURES else Status.REJECTED
    return FinalizedVideo(_outcome(video, status=status, reason=reason, detail="as planned"), [], {})


def accepted(video: Video, people: tuple[int, ...] = (0,)) -> FinalizedVideo:
    """A video with one identity for each number; equal numbers have equal faces in all videos."""
    bare = _outcome(video)
    tracks = [
        TrackOutcome(
            track=track,
            start_s=0.0,
            end_s=4.0,
            frames=40,
            usable_frames=30,
            key=sample_key(bare, track),
        )
        for track in range(len(people))
    ]
    outcome = bare.model_copy(update={"tracks": tracks, "identities": len(people)})
    samples = [_sample(person, track) for person, track in zip(people, tracks, strict=True)]
    return FinalizedVideo(outcome, samples, {"probe": 0.25, "decode": 1.5})


def _sample(person: int, track: TrackOutcome) -> StagedSample:
    jpegs = tuple(_jpeg(f"{track.key}{number}") for number in range(IMAGES_PER_IDENTITY))
    masks = tuple(_mask(number) for number in range(IMAGES_PER_IDENTITY))
    points = [(float(point), 511.0 - point) for point in range(LANDMARKS)]
    landmarks = encode_landmarks([points] * IMAGES_PER_IDENTITY)
    identity = StagedIdentity(
        key=str(track.key),
        track=track.track,
        track_start_s=track.start_s,
        track_end_s=track.end_s,
        embedder="sface",
        embedding=np.eye(16)[person].tolist(),
        images=[
            _image(number, jpeg, mask) for number, (jpeg, mask) in enumerate(zip(jpegs, masks, strict=True))
        ],
        landmarks_sha256=hashlib.sha256(landmarks).hexdigest(),
    )
    return StagedSample(identity, jpegs, masks, landmarks)


def _outcome(video: Video, status: Status = Status.ACCEPTED, **facts: object) -> VideoOutcome:
    listed = video.model_dump(include={"video_id", "source", "uri", "origin", "license", "bytes"})
    content = hashlib.sha256(Path(video.path).read_bytes()).hexdigest()
    return VideoOutcome.model_validate({**listed, "sha256": content, "status": status, **facts})


@cache
def _jpeg(seed: str) -> bytes:
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")
    noise = np.random.default_rng(start).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((IMAGE_SIDE, IMAGE_SIDE)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


@cache
def _mask(number: int) -> bytes:
    face = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    face[80 + number : 420, 100:400] = 255
    buffer = io.BytesIO()
    Image.fromarray(face).save(buffer, "PNG")
    return buffer.getvalue()


def _image(number: int, jpeg: bytes, mask: bytes) -> ImageRecord:
    return ImageRecord(
        frame=10 * number,
        time_s=0.4 * number,
        box_px=(100.0, 90.0, 300.0, 330.0),
        face_px=219.1,
        crop_px=(20.0, 10.0, 360.0),
        pose=Pose(yaw=5.0 * number, pitch=1.0, roll=-2.0),
        eyes_open=0.9,
        sharpness=80.0,
        identity_cosine=0.95,
        quality=Quality(metric="piqe", value=30.0 + number, higher_is_better=False),
        sha256=hashlib.sha256(jpeg).hexdigest(),
        mask_sha256=hashlib.sha256(mask).hexdigest(),
    )
