"""Is what curation chooses right? Its choice beside a reference that looks at every frame.

    python benchmarks/truth.py CLIPS [KEY=VALUE ...] [--weights DIR] [--only NAME ...] [--min-crop-px 220]
                               [--cache DIR]

The reference is that of curate.py: every frame of every clip is detected, posed, embedded and scored. Its faces
are assigned to the identities of the pipeline by the boxes of the chosen images. Then:

- yaw, pitch covered: range of the chosen poses, as a share of the 2 to 98 % range of all usable frames; median
  over identities whose range is 10 degrees or more. Goal: 0.9.
- sharpness, quality: share of the chosen images at or above the median of their identity's usable analysed frames,
  both as the pipeline measures them on the image that it would store. (PIQE differs as much between two crops of
  one frame that lie 2 px apart as between the frames of a steady clip; so the reference is no measure of it.)
  Goal: 75 %.
- synthetic tracks of 120 frames: share of 4 bad frames of a far pose that are chosen (goal: below 5 %), and of
  true extreme poses, held for two frames (goal: 95 %).
- one person: identities whose eight images are one person's by MobileFaceNet, which chooses nothing; images beyond
  45 degrees of yaw are left out. Goal: all.
- split persons: pairs of identities in one video that MobileFaceNet takes for one person and that are never seen
  together. Goal: none.
- lost profiles: faces beyond 45 degrees of yaw that were dropped as `other_identity`.

`--cache` keeps the reference's measurements, which take most of the time. `--weights` names the folder of
MobileFaceNet_foamliu.onnx; without it, its rows are left out and say so.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import pickle
import statistics
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from curate import Reference, ReferenceFace, overlap
from curation import Curated, Curation, Measured
from numpy.typing import NDArray
from synthetic_tracks import synthetic_figures

from faces.embed import ArcFace
from pipeline.records import StagedIdentity
from shards.schema import Reason

LEAST_RANGE_DEG = 10.0
PROFILE_DEG = 45.0
SAME_FACE = 0.5
"""Least overlap of the boxes of one face in one frame."""
VERIFIER_SAME = 0.3
"""MobileFaceNet: one person at or above this cosine; its false accepts on LFW are 1e-3 at about .35."""


@dataclass
class IdentityTruth:
    """An identity beside the reference's frames of the same face."""

    clip: str
    track: int
    covered: tuple[float, float]
    """Share of the yaw and of the pitch range that the chosen images cover."""
    offered_deg: tuple[float, float]
    """The 2 to 98 % range of yaw and pitch."""
    sharp: list[bool] = field(default_factory=list)
    """Of each chosen image: whether it is at or above the median."""
    good: list[bool] = field(default_factory=list)
    aligned: list[NDArray[np.uint8]] = field(default_factory=list)
    """Faces of the chosen images within `PROFILE_DEG`, for the verifier."""
    frames: set[int] = field(default_factory=set)
    """Frames in which the reference sees this face."""


@dataclass
class ClipTruth:
    """One clip."""

    clip: str
    identities: list[IdentityTruth]
    lost_profiles: int
    profiles: int
    """Faces beyond `PROFILE_DEG` that the pipeline analysed."""


def measure(clip: str, faces: list[ReferenceFace], made: Curated, measured: dict[int, Measured]) -> ClipTruth:
    """Compare the pipeline's choice of a clip with the reference's frames, and with all of its own.

    Args:
        clip: its name.
        faces: of the reference.
        made: of the pipeline.
        measured: sharpness and quality of all usable frames, by track.
    """
    by_frame: dict[int, list[ReferenceFace]] = {}
    for face in faces:
        by_frame.setdefault(face.frame, []).append(face)
    found = [
        _identity(clip, identity, faces, by_frame, measured[identity.track])
        for identity in made.finalized.identities
    ]
    turned = [
        face
        for face in made.analysed.analysis.timeline.faces
        if face.pose is not None and abs(face.pose.yaw) > PROFILE_DEG
    ]
    lost = sum(face.reason == Reason.OTHER_IDENTITY for face in turned)
    return ClipTruth(clip, [one for one in found if one is not None], lost, len(turned))


def _identity(
    clip: str,
    identity: StagedIdentity,
    faces: list[ReferenceFace],
    by_frame: dict[int, list[ReferenceFace]],
    measured: Measured,
) -> IdentityTruth | None:
    chosen = []
    for image in identity.images:
        box = np.array(image.box_px)
        near = [face for face in by_frame.get(image.frame, []) if overlap(face.box, box) >= SAME_FACE]
        if near:
            chosen.append(max(near, key=lambda face: overlap(face.box, box)))
    tracks = {face.track for face in chosen}
    own = [face for face in faces if face.track in tracks]
    usable = [face for face in own if face.usable]
    picked_faces = [face for face in chosen if face.usable]
    if not usable or not picked_faces:
        return None
    poses, picked = (np.array([face.pose for face in some])[:, :2] for some in (usable, picked_faces))
    low, high = np.quantile(poses, 0.02, axis=0), np.quantile(poses, 0.98, axis=0)
    offered = high - low
    ends = np.clip(picked.max(axis=0), low, high) - np.clip(picked.min(axis=0), low, high)
    covered = ends / np.maximum(offered, 1e-9)
    sharpness, quality = np.median(measured.sharpness), np.median(measured.quality)
    frontal = [face for face in picked_faces if face.pose is not None and abs(face.pose[0]) <= PROFILE_DEG]
    return IdentityTruth(
        clip,
        identity.track,
        (float(covered[0]), float(covered[1])),
        (float(offered[0]), float(offered[1])),
        [image.sharpness >= sharpness for image in identity.images],
        [image.quality.value <= quality for image in identity.images],
        [face.aligned for face in frontal if face.aligned is not None],
        {face.frame for face in own},
    )


def figures(clips: list[ClipTruth], verifier: ArcFace | None = None) -> list[str]:
    """The rows of the table."""
    identities = [one for clip in clips for one in clip.identities]
    rows = [f"truth: {len(identities)} identities of {len(clips)} clips"]
    for axis, name in enumerate(("yaw", "pitch")):
        shares = [one.covered[axis] for one in identities if one.offered_deg[axis] >= LEAST_RANGE_DEG]
        if shares:
            rows.append(
                f"  {name} covered        median {statistics.median(shares):.2f}, least {min(shares):.2f}, "
                f"{len(shares)} identities"
            )
    for name, flags in (
        ("sharpness", [flag for one in identities for flag in one.sharp]),
        ("quality", [flag for one in identities for flag in one.good]),
    ):
        rows.append(f"  {name:<9} at or above the median  {_percent(flags)}")
    lost, turned = sum(clip.lost_profiles for clip in clips), sum(clip.profiles for clip in clips)
    rows.append(f"  lost profiles      {lost} of {turned} faces beyond {PROFILE_DEG:g} degrees")
    rows += synthetic_figures()
    if verifier is None:
        return [*rows, "  one person, split persons: not verified without --weights"]
    return [*rows, *_verified(clips, verifier)]


def _verified(clips: list[ClipTruth], verifier: ArcFace) -> list[str]:
    mixed, split, verified = [], [], 0
    for clip in clips:
        means: list[tuple[IdentityTruth, NDArray[np.float32]]] = []
        for one in clip.identities:
            if len(one.aligned) < 2:
                continue
            verified += 1
            vectors = verifier.embed(one.aligned)
            mean = vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
            if (vectors @ mean).min() < VERIFIER_SAME:
                mixed.append(f"{one.clip} track {one.track} ({(vectors @ mean).min():.2f})")
            means.append((one, mean))
        for (first, a), (second, b) in combinations(means, 2):
            if float(a @ b) >= 2 * VERIFIER_SAME and not first.frames & second.frames:
                split.append(f"{clip.clip} tracks {first.track} and {second.track} ({float(a @ b):.2f})")
    return [
        f"  one person         {verified - len(mixed)} of {verified} {'; '.join(mixed)}".rstrip(),
        f"  split persons      {len(split)} {'; '.join(split)}".rstrip(),
    ]


def _percent(flags: list[bool]) -> str:
    return f"{100 * sum(flags) / max(len(flags), 1):.0f} % of {len(flags)} images"


def reference_faces(reference: Reference, path: Path, cache: Path | None, key: str) -> list[ReferenceFace]:
    """The reference's faces of a clip, from the cache when it has them."""
    if cache is None:
        return reference.curate(path)
    source = inspect.getsource(Reference).encode()
    name = hashlib.sha256(path.read_bytes() + source + key.encode()).hexdigest()[:32]
    kept = cache / f"{name}.pickle"
    if kept.exists():
        faces: list[ReferenceFace] = pickle.loads(kept.read_bytes())  # noqa: S301 - written below
        return faces
    faces = reference.curate(path)
    cache.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(pickle.dumps(faces))
    return faces


def main() -> int:
    """Curate, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("overrides", nargs="*", help="of the workflow, such as selection.clusters=14")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--only", nargs="*", help="names of clips; all when left out")
    parser.add_argument("--min-crop-px", type=float, default=220.0)
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()

    reference = Reference(options.min_crop_px)
    overrides = [f"faces.min_crop_px={options.min_crop_px}", *options.overrides]
    curation = Curation(options.clips, *overrides)
    verifier = None
    if options.weights:
        verifier = ArcFace(options.weights / "MobileFaceNet_foamliu.onnx", normalisation="imagenet")
    truths = []
    for path in sorted(options.clips.iterdir()):
        if path.suffix == ".tsv" or (options.only and path.name not in options.only):
            continue
        made = curation.curate(path)
        if made.finalized.identities:
            faces = reference_faces(reference, path, options.cache, f"{options.min_crop_px}")
            truths.append(measure(path.name, faces, made, curation.measure_all(path)))
            for one in truths[-1].identities:
                yaw, pitch = one.covered
                print(
                    f"{one.clip:<36} track {one.track}  yaw {one.offered_deg[0]:5.1f} deg {yaw:.2f}  "
                    f"pitch {one.offered_deg[1]:5.1f} deg {pitch:.2f}  sharp {sum(one.sharp)}/{len(one.sharp)}  "
                    f"good {sum(one.good)}/{len(one.good)}",
                    flush=True,
                )
    print()
    print("\n".join(figures(truths, verifier)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
