"""An actor that has the result of each video at once: what remains of a build is the engine."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from faces.registry import Weights
from pipeline.cluster.actors import REPORT_EVERY_S, gathered, log_video, work_of
from pipeline.cluster.place import this_place
from pipeline.config import Config
from pipeline.curator import Curated
from pipeline.monitor import logs
from pipeline.monitor.metrics import AnalyserMetrics
from pipeline.records import StagedIdentity, StagedSample
from pipeline.sources.manifest import Video
from pipeline.stages.finalize import FinalizedVideo, sample_key
from pipeline.staging import Staging
from shards.canonical import sha256_hex
from shards.landmarks import SHAPE, encode_landmarks
from shards.schema import (
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

EMBEDDING = 512
"""Length of ArcFace's vectors."""


class NoAnalysis:
    """Stands in for the actor `Curate`: each video has its result at once."""

    def __init__(self, config: Config, weights: Weights, staging: Staging, build: str) -> None:
        del weights
        self._staging = staging
        self._place = this_place()
        logs.set_up_worker_logs(self._place.name, build)
        self._metrics = AnalyserMetrics(config.name)
        result(Video(video_id="a", source="a", uri="a", path="a", bytes=1, modified_ns=0))

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Finish the videos of a row."""
        yield from ({"results": results} for results in gathered(self._finished(row), REPORT_EVERY_S))

    def _finished(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self._metrics.busy(True)
        for text in (text for file in row["files"] for text in file):
            video = Video.model_validate_json(text)
            finished = result(video)
            self._staging.write(video, finished)
            made = Curated(video, finished.outcome, finished.seconds, 1)
            log_video(made)
            yield {
                "video_id": video.video_id,
                "status": finished.outcome.status.value,
                "reason": str(finished.outcome.reason or ""),
                **dict.fromkeys(("message", "fault", "unenforced"), ""),
                "node": self._place.node,
                "place": self._place.name,
                "work": work_of(made),
            }
        self._metrics.busy(False)


def result(video: Video) -> FinalizedVideo:
    """The outcome of a video: two of three give an identity."""
    content = sha256_hex(video.uri.encode())
    known = {"video_id": video.video_id, "source": video.source, "uri": video.uri, "bytes": video.bytes}
    outcome = VideoOutcome(
        **known,
        sha256=content,
        status=Status.ACCEPTED,
        container="mp4",
        codec="h264",
        width=1920,
        height=1080,
        fps=25.0,
        frames=250,
        duration_s=10.0,
        analysed_frames=60,
        faces_seen=60,
        frame_reasons={Reason.BLURRED: 3},
    )
    if int(content[:4], 16) % 3 == 0:
        lost = {"status": Status.REJECTED, "reason": Reason.TOO_FEW_POSES, "detail": "5 poses"}
        return FinalizedVideo(outcome.model_copy(update=lost), [], {"probe": 0.01})
    key = sample_key(outcome, 0)
    track = TrackOutcome(track=0, start_s=0.0, end_s=9.0, frames=60, usable_frames=50, key=key)
    outcome = outcome.model_copy(update={"tracks": [track], "identities": 1})
    jpegs, masks, landmarks = files()
    vector = np.random.default_rng(int(content[:12], 16)).normal(size=EMBEDDING)
    identity = StagedIdentity(
        key=key,
        track=0,
        track_start_s=0.0,
        track_end_s=9.0,
        embedder="sface",
        embedding=(vector / np.linalg.norm(vector)).round(6).tolist(),
        images=images(),
        landmarks_sha256=sha256_hex(landmarks),
    )
    return FinalizedVideo(outcome, [StagedSample(identity, jpegs, masks, landmarks)], {"probe": 0.01})


@lru_cache(maxsize=1)
def files() -> tuple[tuple[bytes, ...], tuple[bytes, ...], bytes]:
    """Eight plain images, their masks, and landmarks."""
    jpegs, masks = [], []
    for number in range(IMAGES_PER_IDENTITY):
        buffer = io.BytesIO()
        Image.new("RGB", (IMAGE_SIDE, IMAGE_SIDE), (20 * number, 90, 60)).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
        face = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        face[100 + number : 400, 120:380] = 255
        buffer = io.BytesIO()
        Image.fromarray(face).save(buffer, "PNG")
        masks.append(buffer.getvalue())
    return tuple(jpegs), tuple(masks), encode_landmarks(np.full(SHAPE, 200.0))


@lru_cache(maxsize=1)
def images() -> list[ImageRecord]:
    """The records of the images."""
    jpegs, masks, _ = files()
    return [
        ImageRecord(
            frame=10 * number,
            time_s=0.4 * number,
            box_px=(100.0, 90.0, 500.0, 530.0),
            face_px=419.1,
            crop_px=(20.0, 10.0, 560.0),
            pose=Pose(yaw=5.25 * number, pitch=1.5, roll=-2.25),
            eyes_open=0.9,
            sharpness=123.4,
            identity_cosine=0.83,
            quality=Quality(metric="piqe", value=31.5, higher_is_better=False),
            sha256=sha256_hex(jpeg),
            mask_sha256=sha256_hex(mask),
        )
        for number, (jpeg, mask) in enumerate(zip(jpegs, masks, strict=True))
    ]
