"""A small MFHQ dataset from folders of photographs, one folder a person, such as Labeled Faces in the Wild.

    python benchmarks/photo_shards.py FOLDER OUTPUT [--held-out 40] [--crop-scale 1.1] [--mirrored]

It is for experiments that need more people than a few clips show: does a trainer learn who somebody is, measured
on people it never saw? It is no MFHQ: photographs are taken years apart, small and enlarged, and nobody rated
them. Every eight photographs of a person become a sample; all samples of a person are in one split. Only people
with eight photographs are drawn for the test split; those of whom fewer are usable are missing from it. Faces are
found, measured, cut out and masked by the same code as those of videos. `mfhq verify OUTPUT` checks the result.

A folder stands where a video would: a photograph's number, by name, is its frame, and its second. With
`--mirrored` everyone of the training split is there once more as a person of their own, seen in a mirror: a few
hundred people are few to learn from, and nobody's face is symmetric. Who is held out stays the same.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from faces.landmarks import FaceLandmarker
from faces.mask import encode_mask_png, face_mask
from faces.profiles import load_detector, load_embedder
from faces.registry import WeightsFile, load_weights
from pipeline.config import Faces, digest
from pipeline.decode.frames import Frame
from pipeline.provenance import code_version, library_versions
from pipeline.stages.observe import FaceObservation, FaceObserver, UsableFace
from pipeline.stopwatch import Stopwatch
from shards.canonical import sha256_hex
from shards.landmarks import encode_landmarks
from shards.metadata import Provenance, ShardLimits
from shards.sample import Sample
from shards.schema import (
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

SOURCE = "photographs"
MODELS = ("yunet", "face_landmarker", "sface")
FACES = Faces(min_crop_px=1, min_px=40, min_sharpness=0)
"""Photographs are small; blur is not a fault of theirs that would pass with the next frame."""
JPEG_QUALITY = 92
MIRRORED = "_mirrored"
"""Behind the name of a person in a mirror."""
SUFFIXES = (".jpg", ".jpeg", ".png")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,59}")
"""Names of folders that can be a part of a key."""


@dataclass(frozen=True)
class Photograph:
    """One photograph with a usable face."""

    number: int
    observation: FaceObservation
    face: UsableFace


def main() -> None:
    """Make the dataset and print the outcome of the photographs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--held-out", type=int, default=40, metavar="PEOPLE", help="people of the test split")
    parser.add_argument(
        "--crop-scale",
        type=float,
        default=FACES.crop_scale,
        metavar="SCALE",
        help="side of an image in sizes of its face; 1.1 is the face alone, for small networks (%(default)s)",
    )
    parser.add_argument(
        "--mirrored", action="store_true", help="add the mirror images of people to train on, as other people"
    )
    options = parser.parse_args()

    if not options.folder.is_dir():
        parser.error(f"there is no folder {options.folder}")
    faces = Faces(**FACES.model_dump() | {"crop_scale": options.crop_scale})
    people = sorted(path for path in options.folder.iterdir() if path.is_dir())
    names = {person.name for person in people}
    if options.mirrored and (taken := sorted(name for name in names if f"{name}{MIRRORED}" in names)):
        parser.error(f"--mirrored: {taken[0]}{MIRRORED} is a folder already; rename it")
    enough = [person for person in people if len(photographs_of(person)) >= IMAGES_PER_IDENTITY]
    if len(enough) <= options.held_out:
        parser.error(
            f"{options.folder} has {len(enough)} people with {IMAGES_PER_IDENTITY} photographs or more, and "
            f"{options.held_out} are to be held out: give more people, or a lower --held-out"
        )
    weights = load_weights(MODELS, None)
    observer = FaceObserver(
        load_detector("yunet", weights),
        FaceLandmarker(weights["face_landmarker"].path),
        load_embedder("sface", weights),
        faces,
        JPEG_QUALITY,
    )
    held_out = {path.name for path in held_out_people(enough, options.held_out)}
    samples: list[Sample] = []
    videos: list[VideoOutcome] = []
    for number, person in enumerate(people, 1):
        split = Split.TEST if person.name in held_out else Split.TRAIN
        for name, mirrored in appearances(person.name, options.mirrored and split == Split.TRAIN):
            made, video = curate(person, name, split, observer, mirrored=mirrored)
            samples += made
            videos.append(video)
        print(f"\r{number} of {len(people)} people, {len(samples)} samples", end="", flush=True)
    samples.sort(key=lambda sample: (sample.record.split, sample.record.key))
    metadata = write_dataset(
        options.output,
        samples,
        videos,
        provenance(weights, options.held_out, options.mirrored, faces),
        ShardLimits(max_samples=100),
        name=f"photographs of {options.folder.name}, for experiments",
    )
    test = {sample.record.person_id for sample in samples if sample.record.split == Split.TEST}
    reasons = sum((Counter(video.frame_reasons) for video in videos), Counter[Reason]())
    print(
        f"\n{metadata.counts.persons} people in {len(samples)} samples; "
        f"photographs dropped: {', '.join(f'{count} {reason}' for reason, count in reasons.items()) or 'none'}\n"
        f"held out: {len(test)} people, of {options.held_out} who were drawn; the others have too few usable faces"
    )


def held_out_people(people: Sequence[Path], count: int) -> list[Path]:
    """The people of the test split: those whose names have the least hashes, which says nothing of them."""
    return sorted(people, key=lambda path: hashlib.sha256(path.name.encode()).digest())[:count]


def photographs_of(person: Path) -> list[Path]:
    """The image files of a person's folder, by name."""
    return sorted(path for path in person.iterdir() if path.suffix.lower() in SUFFIXES)


def appearances(name: str, with_mirror: bool) -> list[tuple[str, bool]]:
    """Under which names a person appears, and whether that is in a mirror."""
    return [(name, False), (f"{name}{MIRRORED}", True)] if with_mirror else [(name, False)]


def key_of(person: str, group: int) -> str:
    """A valid key for a sample of a person; plain names stand in it as they are."""
    if not PLAIN_NAME.fullmatch(person):
        # What names are made of differs in more than is left of it here, so a digest keeps them apart.
        ascii_name = unicodedata.normalize("NFKD", person).encode("ascii", "ignore").decode()
        slug = re.sub(r"[^A-Za-z0-9]+", "-", ascii_name).strip("-")[:40]
        person = f"{slug}_{hashlib.sha256(person.encode()).hexdigest()[:10]}"
    return f"{person}_{group}"


def curate(
    person: Path, name: str, split: Split, observer: FaceObserver, *, mirrored: bool
) -> tuple[list[Sample], VideoOutcome]:
    """The samples of a person under a name, and the outcome of the photographs."""
    files = photographs_of(person)
    reasons: Counter[Reason] = Counter()
    faces_seen = 0
    usable: list[Photograph] = []
    for number, path in enumerate(files):
        observations = observations_of(path, number, observer, mirrored)
        faces_seen += len(observations)
        if not observations:
            continue
        subject = observations[0]
        if subject.usable is not None:
            usable.append(Photograph(number, subject, subject.usable))
        elif subject.reason is not None:
            reasons[subject.reason] += 1
    groups = len(usable) // IMAGES_PER_IDENTITY
    # Every so-manieth photograph, so that a sample spans all of them: neighbours may be of the same day.
    samples = [
        sample_of(name, split, group, usable[group::groups][:IMAGES_PER_IDENTITY]) for group in range(groups)
    ]
    tracks = [
        TrackOutcome(
            track=sample.record.track,
            start_s=sample.record.track_start_s,
            end_s=sample.record.track_end_s,
            frames=IMAGES_PER_IDENTITY,
            usable_frames=IMAGES_PER_IDENTITY,
            key=sample.record.key,
        )
        for sample in samples
    ]
    return samples, VideoOutcome(
        video_id=name,
        source=SOURCE,
        uri=person.name,
        bytes=sum(path.stat().st_size for path in files),
        sha256=sha256_hex(b"".join(path.read_bytes() for path in files)),
        status=Status.ACCEPTED if samples else Status.REJECTED,
        reason=None if samples else Reason.TOO_SHORT,
        detail=None if samples else f"{len(usable)} usable photographs of {len(files)}",
        frames=len(files),
        analysed_frames=len(files),
        faces_seen=faces_seen,
        frame_reasons=dict(sorted(reasons.items())),
        tracks=tracks,
        identities=len(samples),
    )


def observations_of(path: Path, number: int, observer: FaceObserver, mirrored: bool) -> list[FaceObservation]:
    """The faces of a photograph, that in its middle first: whose folder it is stands there."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise SystemExit(f"\n{path} is no image that OpenCV can read; remove it")
    image = np.ascontiguousarray(bgr[:, ::-1, ::-1] if mirrored else bgr[..., ::-1])
    middle = np.array(image.shape[1::-1]) / 2
    found = observer.observe([Frame(number, float(number), image)], Stopwatch())[0]

    def off_centre(observation: FaceObservation) -> float:
        box = observation.detection.box
        return float(np.linalg.norm((box[:2] + box[2:]) / 2 - middle))

    return sorted(found, key=off_centre)


def sample_of(person: str, split: Split, group: int, photographs: Sequence[Photograph]) -> Sample:
    """One sample of eight photographs."""
    embedding = np.mean(
        [photograph.face.face.embedding for photograph in photographs], axis=0, dtype=np.float64
    )
    embedding /= np.linalg.norm(embedding)
    points = [photograph.face.square.to_crop(photograph.face.landmarks.points) for photograph in photographs]
    masks = [encode_mask_png(face_mask(each, IMAGE_SIDE)) for each in points]
    landmarks = encode_landmarks(np.round(points, 1))
    record = IdentityRecord(
        key=key_of(person, group),
        split=split,
        person_id=person,
        video_id=person,
        source=SOURCE,
        track=group,
        track_start_s=float(photographs[0].number),
        track_end_s=float(photographs[-1].number),
        embedder="sface",
        embedding=[round(float(value), 6) for value in embedding],
        images=list(image_records(photographs, masks, embedding)),
        landmarks_sha256=sha256_hex(landmarks),
    )
    jpegs = tuple(photograph.face.jpeg for photograph in photographs)
    return Sample(record, jpegs, tuple(masks), landmarks)


def image_records(
    photographs: Sequence[Photograph], masks: Sequence[bytes], embedding: np.ndarray
) -> Iterator[ImageRecord]:
    """The records of a sample's images."""
    for photograph, mask in zip(photographs, masks, strict=True):
        detection, face = photograph.observation.detection, photograph.face
        x0, y0, x1, y1 = (round(float(value), 1) for value in detection.box)
        pose, square = face.landmarks.pose, face.square
        sharpness = round(face.sharpness, 2)
        yield ImageRecord(
            frame=photograph.number,
            time_s=float(photograph.number),
            box_px=(x0, y0, x1, y1),
            face_px=round(detection.face_px, 1),
            crop_px=(square.x0, square.y0, square.side),
            pose=Pose(yaw=round(pose.yaw, 2), pitch=round(pose.pitch, 2), roll=round(pose.roll, 2)),
            eyes_open=round(face.landmarks.eyes_open, 3),
            sharpness=sharpness,
            identity_cosine=round(float(face.face.embedding @ embedding), 4),
            # No quality network was asked, and the name says so.
            quality=Quality(metric="sharpness", value=sharpness, higher_is_better=True),
            sha256=sha256_hex(face.jpeg),
            mask_sha256=sha256_hex(mask),
        )


def provenance(weights: dict[str, WeightsFile], held_out: int, mirrored: bool, faces: Faces) -> Provenance:
    """What made the dataset."""
    config = {
        "made_by": "benchmarks/photo_shards.py",
        "what": "photographs of people, eight a sample; for experiments, not curated as MFHQ is",
        "held_out_people": held_out,
        "mirrored": mirrored,
        "faces": faces.model_dump(mode="json"),
        "jpeg_quality": JPEG_QUALITY,
    }
    return Provenance(
        config=config,
        config_digest=digest(config),
        models={name: weights[name].sha256 for name in sorted(weights)},
        code_version=code_version(),
        libraries=library_versions(),
    )


if __name__ == "__main__":
    main()
