"""Other versions of real clips are found by the whole curation; other takes of one person are not."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from curation import Curation
from footage_variants import VERSIONS, Footage, footage_of, write_version

from pipeline.people.copies import copies
from pipeline.people.near_duplicates import near_duplicates
from pipeline.records import StagedIdentity
from pipeline.sources.manifest import Video

pytestmark = [pytest.mark.clips, pytest.mark.slow]

SAME_FOOTAGE = ("vr_3.mp4", "st_aoc.mp4", "ed_pose1.mp4")
"""Real versions of one speech: 590, 512 and 256 px, two codecs, 5 to 10 s."""
ONE_TAKE = "mim_german.mp4"
"""20 seconds of a newsreader."""


@pytest.fixture(scope="module")
def curation(clips: Path) -> Curation:
    # Heads that hardly move are the hardest.
    return Curation(clips, "faces.min_crop_px=100", "selection.min_separation_deg=0.3")


def identity(curation: Curation, path: Path, span_s: tuple[float, float] | None = None) -> StagedIdentity:
    video = Video(
        video_id=path.name,
        source="folder",
        uri=path.name,
        path=str(path),
        bytes=path.stat().st_size,
        modified_ns=0,
        span_s=span_s,
    )
    (one,) = curation.curate_video(video).finalized.identities
    return one


def found(identities: list[StagedIdentity]) -> set[tuple[int, int]]:
    pairs = np.array(list(combinations(range(len(identities)), 2)))
    matches = near_duplicates([one.fingerprint for one in identities], pairs)
    return {(match.first, match.second) for match in matches}


def test_versions_are_found_and_the_original_is_kept(clips: Path, curation: Curation, tmp_path: Path) -> None:
    path = clips / "vr_3.mp4"
    original = identity(curation, path)
    boxes = np.array([image.box_px for image in original.images])
    x0, y0, x1, y1 = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    footage: Footage = footage_of(path, (x0, y0, x1, y1))
    names = ["x264_crf33", "mpeg4_q8", "scale_0.5", "crop_25", "trim_both", "letterbox", "crop_trim"]
    versions = []
    for name in names:
        file = tmp_path / f"{name}{VERSIONS[name].suffix}"
        write_version(file, VERSIONS[name], footage, seed=1)
        versions.append(identity(curation, file))
    identities = [original, *versions]
    assert {second for first, second in found(identities) if first == 0} == set(range(1, len(identities)))
    keys = ["original", *names]
    pairs = np.array([(0, row) for row in range(1, len(identities))])
    matches = near_duplicates([one.fingerprint for one in identities], pairs)
    dropped = copies(keys, [one.image_bytes for one in identities], matches)
    assert {key: copy.kept for key, copy in dropped.items()} == dict.fromkeys(sorted(names), "original")


def test_three_files_of_the_web_show_one_speech(clips: Path, curation: Curation) -> None:
    assert found([identity(curation, clips / name) for name in SAME_FOOTAGE]) == {(0, 1), (0, 2), (1, 2)}


def test_other_parts_of_one_take_are_not_found(clips: Path, curation: Curation) -> None:
    spans = [(start, start + 5.0) for start in (0.0, 5.0, 10.0, 15.0)]
    assert found([identity(curation, clips / ONE_TAKE, span) for span in spans]) == set()
