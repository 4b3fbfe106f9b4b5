"""Is the same footage found in other files, and nothing else? Makes versions of clips and curates all of them.

    python benchmarks/near_duplicates.py CLIPS [--part 0] [--of 3] [--cache DIR] [--min-crop-px 100]

- found: versions whose identity matches that of their clip. Goal: 99 % of re-encoded and resized, 90 % of cropped
  and trimmed versions. A version that gives no identity (too small, too blurred) is not counted.
- original kept: of these, how often the clip's identity is kept and the version's is dropped.
- other takes: pairs of pieces of one clip that do not overlap in time, so one person in one studio in one light,
  and pairs of pieces of clips of different people. Goal: none found. The margin is the threshold minus the
  highest score.
- the time of a comparison, on one thread, and the bytes of a fingerprint.

Of the kinds in footage_variants.py each clip is given every third, another third with each `--part`; of clips that
are longer than 14 s, their first 14 s. `--cache` keeps what was curated.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
from curation import Curation
from footage_variants import VERSIONS, Footage, footage_of, is_possible, write_version

from pipeline.config import CURATION_VERSION
from pipeline.people import near_duplicates as module
from pipeline.people.copies import copies
from pipeline.people.near_duplicates import Match, near_duplicates
from pipeline.records import StagedIdentity
from pipeline.stages.fingerprint import samples_of

LONGEST_S = 14.0
PIECES_S = (3.0, 4.0, 6.0, 8.0, 10.0)
SAME_FOOTAGE = ({"vr_3.mp4", "st_aoc.mp4", "ed_pose1.mp4"}, {"ani_poseref.mp4", "r3d_may.mp4"})
"""Clips of the usual folder that are versions of one footage, as found by this benchmark and then looked at."""
LENGTHS_S = (2.4, 3.0, 3.5, 4.5, 6.0, 99.0)


@dataclass(frozen=True)
class Curated:
    """An identity of a clip or of one of its versions; `cut_s` is what was cut from the clip's start."""

    clip: str
    version: str
    cut_s: float
    identity: StagedIdentity


@dataclass(frozen=True)
class Piece:
    """A span of a track, in the clip's time."""

    clip: str
    start_s: float
    end_s: float
    fingerprint: bytes


class Maker:
    """Curates clips and their versions, or takes them from the cache."""

    def __init__(self, curation: Curation, cache: Path | None) -> None:
        self._curation = curation
        self._cache = cache

    def clip(self, path: Path) -> list[Curated]:
        """The identities of a clip."""
        return self._kept(path, "", lambda: self._curate(path, path.name, "", 0.0))

    def versions(self, path: Path, names: list[str], originals: list[Curated]) -> Iterator[Curated]:
        """The identities of some versions of a clip."""
        footage: list[Footage] = []  # decoded when it is needed

        def make(name: str) -> list[Curated]:
            if not footage:
                whole = footage_of(path, _faces([one.identity for one in originals]))
                footage.append(Footage([f for f in whole.frames if f.time_s < LONGEST_S], whole.faces))
            version = VERSIONS[name]
            if not is_possible(version, footage[0]):
                return []
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"version{version.suffix}"
                seed = int(hashlib.sha256(f"{path.name} {name}".encode()).hexdigest()[:8], 16)
                cut_s = write_version(file, version, footage[0], seed)
                return self._curate(file, path.name, name, cut_s)

        for name in names:
            yield from self._kept(path, name, lambda name=name: make(name))  # type: ignore[misc]

    def _curate(self, path: Path, clip: str, version: str, cut_s: float) -> list[Curated]:
        identities = self._curation.curate(path).finalized.identities
        return [Curated(clip, version, cut_s, identity) for identity in identities]

    def _kept(self, path: Path, version: str, make) -> list[Curated]:  # type: ignore[no-untyped-def]
        if self._cache is None:
            return list(make())
        content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        file = self._cache / f"{path.name}-{content}-{version}-{CURATION_VERSION}.pickle"
        if not file.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            file.write_bytes(pickle.dumps(make()))
        found: list[Curated] = pickle.loads(file.read_bytes())  # noqa: S301 - written above
        return found


def _faces(identities: list[StagedIdentity]) -> tuple[float, float, float, float]:
    boxes = np.array([image.box_px for identity in identities for image in identity.images])
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    return x0, y0, x1, y1


def found_rows(originals: list[Curated], made: list[Curated]) -> Iterator[str]:
    """The table of versions."""
    curated = [*originals, *made]
    keys = [f"{number:05d}" for number in range(len(curated))]
    pairs = [
        (row, len(originals) + place)
        for place, version in enumerate(made)
        for row, original in enumerate(originals)
        if original.clip == version.clip and _cosine(original, version) >= 0.3
    ]
    matches = near_duplicates([one.identity.fingerprint for one in curated], np.array(pairs))
    sizes = [one.identity.image_bytes for one in curated]
    by_version = {match.second: match for match in matches}
    wanted, found, kept = Counter[str](), Counter[str](), Counter[str]()
    for row in sorted({version for _, version in pairs}):
        version = curated[row]
        names = (VERSIONS[version.version].kind, f"  {version.version}")
        wanted.update(names)
        match = by_version.get(row)
        if match is None:
            yield f"not found: {version.clip} {version.version}, {_seconds(version):.1f} s"
            continue
        if abs(match.offset_s + version.cut_s) > 0.25:
            yield f"found at {match.offset_s} s, made at {-version.cut_s:.2f} s: {version.clip} {version.version}"
        found.update(names)
        if keys[row] in copies(keys, sizes, [match]):
            kept.update(names)
    yield f"{'':<16} {'versions':>8} {'found':>7} {'original kept':>14}"
    for name in sorted(wanted, key=_place):
        yield (
            f"{name:<16} {wanted[name]:>8} {100 * found[name] / wanted[name]:>5.1f} % "
            f"{100 * kept[name] / max(found[name], 1):>12.1f} %"
        )


def _place(name: str) -> tuple[str, bool, int]:
    version = name.strip()
    known = list(VERSIONS)
    return (
        (VERSIONS[version].kind, True, known.index(version)) if version in VERSIONS else (version, False, 0)
    )


def _seconds(one: Curated) -> float:
    return one.identity.track_end_s - one.identity.track_start_s


def _cosine(first: Curated, second: Curated) -> float:
    return float(np.dot(first.identity.embedding, second.identity.embedding))


def pieces_of(one: Curated) -> Iterator[Piece]:
    """Pieces of a track, in each length side by side."""
    samples = samples_of(one.identity.fingerprint)
    times = samples["time_ms"] / 1000
    for length in PIECES_S:
        for start in np.arange(times[0], times[-1] - length + 0.01, length):
            inside = samples[(times >= start) & (times < start + length)]
            if len(inside) > 2:
                yield Piece(
                    one.clip,
                    float(inside["time_ms"][0]) / 1000 + one.cut_s,
                    float(inside["time_ms"][-1]) / 1000 + one.cut_s,
                    inside.tobytes(),
                )


def take_rows(curated: list[Curated]) -> Iterator[str]:
    """The table of other takes, by the time that two pieces could share."""
    pieces = [piece for one in curated for piece in pieces_of(one)]
    by_clip: dict[str, list[int]] = {}
    for row, piece in enumerate(pieces):
        by_clip.setdefault(piece.clip, []).append(row)
    one_clip = [
        (first, second)
        for rows in by_clip.values()
        for first, second in combinations(rows, 2)
        if max(pieces[first].start_s, pieces[second].start_s)
        > min(pieces[first].end_s, pieces[second].end_s) + 0.05
    ]
    people = [rows[:: max(1, len(rows) // 30)] for rows in by_clip.values()]
    others = [
        (first, second)
        for rows, more in combinations(people, 2)
        if not any({pieces[rows[0]].clip, pieces[more[0]].clip} <= clips for clips in SAME_FOOTAGE)
        for first in rows
        for second in more
    ]
    yield f"{'other takes':<16} {'shared':>10} {'pairs':>7} {'found':>6} {'highest score':>14} {'margin':>7}"
    threshold = module.least_score
    for name, pairs in (("one person", one_clip), ("two people", others)):
        # The best shift of every pair, whatever its score.
        with patch.object(module, "least_score", lambda shared_s: threshold(shared_s) - 2):
            best = near_duplicates([piece.fingerprint for piece in pieces], np.array(pairs))
        for low, high in pairwise(LENGTHS_S):
            some = [match for match in best if low <= match.shared_s < high]
            if some:
                margins = [float(threshold(np.array(match.shared_s))) - match.score for match in some]
                yield (
                    f"{name:<16} {low:>4g}-{high:<3g} s {len(some):>7} {sum(m <= 0 for m in margins):>6} "
                    f"{max(match.score for match in some):>14.2f} {min(margins):>7.2f}"
                )


def time_rows(curated: list[Curated]) -> Iterator[str]:
    """What a comparison and a fingerprint cost."""
    fingerprints = [one.identity.fingerprint for one in curated]
    rows = range(min(len(curated), 300))
    pairs = np.array(list(combinations(rows, 2)))
    start = time.process_time()
    matches: list[Match] = near_duplicates(fingerprints, pairs)
    seconds = time.process_time() - start
    yield f"{len(pairs)} pairs, {len(matches)} found: {1e6 * seconds / len(pairs):.0f} us a pair"
    sizes = np.array([len(data) for data in fingerprints])
    yield f"{len(sizes)} fingerprints: {sizes.mean():.0f} bytes a track, at most {sizes.max()}"


def main() -> int:
    """Make, curate, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--of", type=int, default=3, help="1: every clip in every version")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--min-crop-px", type=float, default=100.0)
    options = parser.parse_args()

    maker = Maker(Curation(options.clips, f"faces.min_crop_px={options.min_crop_px}"), options.cache)
    originals: list[Curated] = []
    made: list[Curated] = []
    # Files that are made of others of the folder are left out.
    paths = [
        p for p in sorted(options.clips.iterdir()) if p.suffix != ".tsv" and not p.name.startswith("made_")
    ]
    for number, path in enumerate(paths):
        clip = maker.clip(path)
        names = [
            n for at, n in enumerate(VERSIONS) if (at + number) % options.of == options.part % options.of
        ]
        if clip:
            originals += clip
            made += maker.versions(path, names, clip)
            print(f"{path.name}: {len(clip)} identities, {len(made)} of versions so far", flush=True)
    for rows in (found_rows(originals, made), take_rows([*originals, *made]), time_rows([*originals, *made])):
        print()
        for row in rows:
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
