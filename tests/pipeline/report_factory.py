"""Datasets for the tests of the report: real files of plain drawings, with known counts and hostile names."""

from __future__ import annotations

import hashlib
import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.people import findings
from pipeline.people.findings import Pair, PeopleFindings
from shards.landmarks import SHAPE, encode_landmarks
from shards.metadata import DatasetMetadata, Provenance, ShardLimits
from shards.sample import Sample
from shards.schema import (
    FAILURES,
    IMAGE_SIDE,
    IMAGES_PER_IDENTITY,
    IdentityRecord,
    ImageRecord,
    Pose,
    Quality,
    Reason,
    Split,
    Status,
    TrackOutcome,
    VideoOutcome,
)
from shards.writer import write_dataset

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
"""A file name that would run if the page took it for markup."""
STEPS = ("probe", "decode", "detect", "landmarks", "filter", "embed", "crop", "track", "select", "score")

LOST = {
    Reason.EMPTY_FILE: 1,
    Reason.UNREADABLE: 2,
    Reason.STILL_IMAGE: 1,
    Reason.NO_FACE: 4,
    Reason.FACE_TOO_SMALL: 3,
    Reason.TOO_FEW_POSES: 2,
    Reason.DUPLICATE_VIDEO: 1,
}
"""Videos that gave nothing, by reason."""
WITH_TRACK = {Reason.FACE_TOO_SMALL, Reason.TOO_FEW_POSES, Reason.DUPLICATE_VIDEO}


def build(root: Path, accepted: int = 12, lost: dict[Reason, int] | None = None) -> DatasetMetadata:
    """Write a dataset of `accepted` videos with an identity each, and of lost ones."""
    samples = [_sample(number) for number in range(accepted)]
    samples.sort(key=lambda sample: (sample.record.split, sample.record.key))
    videos = [_accepted(sample.record, number) for number, sample in enumerate(samples)]
    for reason, count in (LOST if lost is None else lost).items():
        videos += [_lost(reason, number) for number in range(count)]
    return write_dataset(root, samples, videos, PROVENANCE, ShardLimits(max_samples=8))


def keep_findings(root: Path, notes: list[str] | None = None) -> PeopleFindings:
    """What linking might have found in a dataset of 12; one pair names an identity that is not there."""
    found = PeopleFindings(
        embedder="arcface_r50",
        link_cosine=0.5,
        same_origin_cosine=0.35,
        linked=[
            Pair(first="key_001", second="key_002", cosine=0.5123, least_cosine=0.5),
            Pair(first="key_008", second="key_009", cosine=0.36, least_cosine=0.35),
        ],
        apart=[
            Pair(first="key_003", second="key_004", cosine=0.4987, least_cosine=0.5),
            Pair(first="key_005", second="key_gone", cosine=0.4, least_cosine=0.5),
        ],
        rejected=[Pair(first="key_006", second="key_007", cosine=0.61, least_cosine=0.5)],
        notes=["vfhq: 3 groups do not fit the split."] if notes is None else notes,
    )
    findings.write_findings(root / "report" / findings.FILE, found)
    return found


def seconds(accepted: int = 12) -> list[tuple[str, dict[str, float]]]:
    """Timings of the accepted videos and of one lost one."""
    rng = np.random.default_rng(5)
    times = {
        f"video-{number}": dict(zip(STEPS, rng.gamma(2, 0.4, len(STEPS)).tolist(), strict=True))
        for number in range(accepted)
    }
    return [*times.items(), ("lost-unreadable-0", {"probe": 0.05})]


PROVENANCE = Provenance(
    config={
        "models": {
            "detector": "scrfd_10g",
            "landmarker": "face_landmarker",
            "embedder": "arcface_r50",
            "quality": "topiq_nr-face",
        },
        "faces": {"min_crop_px": 448.0, "min_px": None},
        "selection": {"roll_weight": 0.5},
        "source": {"path": f"/data/{HOSTILE}"},
    },
    config_digest="c0ffee" * 10 + "beef",
    models={
        "arcface_r50": "ab" * 32,
        "face_landmarker": "cd" * 32,
        "scrfd_10g": "ef" * 32,
        "topiq_nr-face": "12" * 32,
    },
    code_version="0.1.0",
    libraries={"insightface": "2.1", "numpy": np.__version__, "pyiqa": "0.1.16"},
)


@cache
def _drawing(number: int) -> tuple[bytes, bytes]:
    """JPEG and mask of an ellipse."""
    box = (120 + 20 * number, 80, 360 + 20 * number, 420)
    image = Image.new("RGB", (IMAGE_SIDE, IMAGE_SIDE), (60 + 20 * number, 90, 120))
    ImageDraw.Draw(image).ellipse(box, fill=(224, 172, 140))
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    files = io.BytesIO(), io.BytesIO()
    image.save(files[0], "JPEG", quality=90)
    mask.save(files[1], "PNG")
    return files[0].getvalue(), files[1].getvalue()


def _sample(number: int) -> Sample:
    rng = np.random.default_rng(number)
    pairs = [_drawing(index) for index in range(IMAGES_PER_IDENTITY)]
    yaws = np.sort(rng.normal(0, 15, IMAGES_PER_IDENTITY))
    images = []
    for index, (jpeg, mask) in enumerate(pairs):
        images.append(
            ImageRecord(
                frame=10 * index,
                time_s=0.4 * index,
                box_px=(100, 100, 600, 700),
                face_px=round(float(rng.normal(560, 40)), 1),
                crop_px=(50, 50, 640 + 10 * index),
                pose=Pose(
                    yaw=float(yaws[index]), pitch=float(rng.normal(-3, 6)), roll=float(rng.normal(0, 5))
                ),
                eyes_open=round(float(rng.beta(8, 2)), 3),
                sharpness=100.0,
                identity_cosine=round(float(rng.uniform(0.7, 0.99)), 4),
                # Identity 3 is the worst, 0.1 below all others.
                quality=Quality(
                    metric="topiq_nr-face",
                    value=0.3 if number == 3 else float(rng.uniform(0.4, 0.9)),
                    higher_is_better=True,
                ),
                sha256=hashlib.sha256(jpeg).hexdigest(),
                mask_sha256=hashlib.sha256(mask).hexdigest(),
            )
        )
    landmarks = encode_landmarks(np.full(SHAPE, 200))
    record = IdentityRecord(
        key=f"key_{number:03d}",
        split=Split.TEST if number == 0 else Split.TRAIN,
        # Identities 1 and 2 show one person.
        person_id=f"person_{1 if number == 2 else number:03d}",
        video_id=f"video-{number}",
        source="celebv-hq" if number % 3 else "vfhq",
        license=None if number % 3 else "research only",
        track=0,
        track_start_s=0,
        track_end_s=4,
        embedder="arcface_r50",
        embedding=[0.6, 0.8],
        images=images,
        landmarks_sha256=hashlib.sha256(landmarks).hexdigest(),
    )
    return Sample(record, tuple(jpeg for jpeg, _ in pairs), tuple(mask for _, mask in pairs), landmarks)


def _accepted(record: IdentityRecord, number: int) -> VideoOutcome:
    person = TrackOutcome(
        track=0,
        start_s=0,
        end_s=4,
        frames=60,
        usable_frames=58,
        crop_px=450 + 10 * number,
        face_px=270 + 6 * number,
        key=record.key,
    )
    passer_by = TrackOutcome(
        track=1, start_s=5, end_s=6, frames=10, usable_frames=2, reason=Reason.TRACK_TOO_SHORT
    )
    return VideoOutcome(
        **_file(record.video_id, record.source, f"clips/<b>{record.video_id}</b>.mp4"),
        license=record.license,
        status=Status.ACCEPTED,
        analysed_frames=60,
        faces_seen=70,
        frame_reasons={Reason.BLURRED: 4, Reason.FACE_CUT_OFF: 2, Reason.TRACK_TOO_SHORT: 4},
        tracks=[person, passer_by],
        identities=1,
    )


def _lost(reason: Reason, number: int) -> VideoOutcome:
    failed = reason in FAILURES
    video_id = f"lost-{reason}-{number}"
    uri = f"clips/{HOSTILE}-{reason}-{number}.mp4"
    track = TrackOutcome(
        track=0, start_s=0, end_s=4, frames=30, usable_frames=12, crop_px=390, face_px=240.5, reason=reason
    )
    return VideoOutcome(
        **_file(video_id, "vfhq", uri, probed=not failed),
        license="research only",
        status=Status.FAILED if failed else Status.REJECTED,
        reason=reason,
        detail=f"what was found: {HOSTILE}",
        faces_seen=30 if reason in WITH_TRACK else 0,
        frame_reasons={Reason.FACE_TOO_SMALL: 18} if reason in WITH_TRACK else {},
        tracks=[track] if reason in WITH_TRACK else [],
    )


def _file(video_id: str, source: str, uri: str, *, probed: bool = True) -> dict[str, object]:
    facts = {"width": 1280, "height": 720, "fps": 25.0, "frames": 250, "duration_s": 10.0} if probed else {}
    return {"video_id": video_id, "source": source, "uri": uri, "bytes": 1_000_000, **facts}
