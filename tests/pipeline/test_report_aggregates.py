"""What the report counts: sums that add up, bins that hold every value, figures of each identity."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import report_factory as factory
from histograms import histogram, pose_map

from pipeline.report import outcomes, timings
from pipeline.report.distributions import identities
from pipeline.report.gate_table import annotated_sizes, gate_table
from pipeline.report.hashed import hashes
from pipeline.report.image_counts import Worst, count_images
from pipeline.report.reasons import FUNNEL_STEPS, MEANING, meaning
from pipeline.report.source_counts import AllSources
from pipeline.report.video_counts import FirstOfEachReason
from shards.metadata import DatasetError
from shards.reader import Dataset, read_table
from shards.schema import Reason
from shards.streamed import StreamedDataset
from shards.tables import VIDEOS_SCHEMA


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("report") / "mfhq"
    factory.build(root)
    return Dataset.open(root)


@pytest.fixture(scope="module")
def videos(dataset: Dataset) -> pa.Table:
    return read_table(dataset.root / "videos-g0000.parquet", VIDEOS_SCHEMA)


def test_every_reason_belongs_to_one_gate_and_has_a_meaning() -> None:
    assert sorted(reason for stage in FUNNEL_STEPS for reason in stage.reasons) == sorted(Reason)
    assert set(MEANING) == set(Reason)
    assert meaning("from_the_future") == "not known to this version of the report"


def test_the_funnel_loses_each_video_once_and_ends_with_the_accepted(
    dataset: Dataset, videos: pa.Table
) -> None:
    gates = outcomes.funnel(len(videos), outcomes.reasons(videos))
    assert [(gate.lost, gate.left) for gate in gates] == [
        (3, 23),
        (1, 22),
        (4, 18),
        (3, 15),
        (2, 13),
        (1, 12),
    ]
    assert gates[-1].left == dataset.metadata.counts.videos["accepted"]
    assert {reason: n for gate in gates for reason, n in gate.reasons.items()} == factory.LOST


def test_a_reason_of_a_newer_format_is_a_gate_of_its_own() -> None:
    reasons = outcomes.reasons(pa.table({"reason": ["no_face", "from_the_future", None, None]}))
    gates = outcomes.funnel(4, reasons)
    assert gates[-1].reasons == {"from_the_future": 1}
    assert gates[-1].left == 2


def test_tracks_and_faces_add_up(videos: pa.Table) -> None:
    tracks, faces = outcomes.track_balance(videos), outcomes.face_balance(videos)
    assert (tracks.total, tracks.kept, tracks.unaccounted) == (30, 12, 0)
    assert tracks.lost == {
        "face_too_small": 3,
        "track_too_short": 12,
        "too_few_poses": 2,
        "duplicate_video": 1,
    }
    assert (faces.total, faces.kept, faces.unaccounted) == (12 * 70 + 6 * 30, 12 * 60 + 6 * 12, 0)
    assert faces.lost == {
        "face_too_small": 6 * 18,
        "face_cut_off": 12 * 2,
        "blurred": 12 * 4,
        "track_too_short": 12 * 4,
    }


def test_corrupt_frames_are_shown_among_the_analysed() -> None:
    counts = {"analysed_frames": [10, None, 30], "corrupt_frames": [0, None, 4]}
    frames = outcomes.frame_balance(pa.table(counts))
    assert (frames.total, frames.kept, frames.lost) == (40, 36, {"corrupt_frame": 4})
    assert outcomes.frame_balance(pa.table(counts)[:1]).lost == {}


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_counts_of_batches_add_up_to_those_of_the_whole(videos: pa.Table, rows: int) -> None:
    parts = [videos.slice(start, rows) for start in range(0, len(videos), rows)]
    for count in (outcomes.track_balance, outcomes.frame_balance, outcomes.face_balance):
        whole = count(videos)
        added = functools.reduce(operator.add, map(count, parts))
        assert added == whole
        assert list(added.lost) == list(whole.lost), "in the order of the pipeline"
    assert sum(map(outcomes.reasons, parts), Counter()) == outcomes.reasons(videos)
    assert functools.reduce(operator.add, map(gate_table, parts)) == gate_table(videos)


def test_gates_of_batches_with_and_without_annotated_boxes_add_up(videos: pa.Table) -> None:
    tracked = videos.filter(pc.greater(pc.list_value_length(videos["tracks"]), 0))
    added = gate_table(tracked, np.full(len(tracked), 448.0)) + gate_table(tracked)
    assert added.annotated == len(tracked)
    assert [row.by_annotation for row in added.rows] == [len(tracked)] * 4 + [0]


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_sources_share_out_all_videos(videos: pa.Table, rows: int) -> None:
    sources = AllSources()
    for start in range(0, len(videos), rows):
        sources.add(videos.slice(start, rows))
    found = sources.rows({"vfhq": 4, "celebv-hq": 7}, {"vfhq": ["clip-1", "clip-2"]})
    assert [
        (row.source, row.videos, row.accepted, row.rejected, row.failed, row.missing) for row in found
    ] == [
        ("vfhq", 18, 4, 11, 3, 2),
        ("celebv-hq", 8, 8, 0, 0, 0),
    ]
    assert [(row.identities, row.persons) for row in found] == [(4, 4), (8, 7)]
    assert [row.licenses for row in found] == [("research only",), ("",)]
    assert [row.gigabytes for row in found] == [0.018, 0.008]


def test_a_file_of_several_videos_counts_once(videos: pa.Table) -> None:
    sources = AllSources()
    for _ in range(3):
        sources.add(videos)
    assert [row.gigabytes for row in sources.rows({}, {})] == [0.018, 0.008]


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_a_capped_list_of_lost_videos_keeps_the_first_of_every_reason(videos: pa.Table, rows: int) -> None:
    lost = FirstOfEachReason(len(factory.LOST) + 1)
    for start in range(0, len(videos), rows):
        lost.add(videos.slice(start, rows).select(["video_id", "reason"]))
    assert [row["video_id"] for row in lost.rows()] == [
        "lost-empty_file-0",
        "lost-unreadable-0",
        "lost-still_image-0",
        "lost-no_face-0",
        "lost-face_too_small-0",
        "lost-face_too_small-1",  # the table is sorted by id, so this is the first of the second ones
        "lost-too_few_poses-0",
        "lost-duplicate_video-0",
    ]


@pytest.mark.parametrize(
    "values", [[0.5], [3.0, 3.0], [-1.0, 0.0, 1.0], [0.1, 0.2, 0.3, 1e6], [0.0, 0.30000000000000004]]
)
def test_a_histogram_holds_every_value_once(values: list[float]) -> None:
    found = histogram(np.array(values))
    assert found is not None
    assert found.total == len(values)
    assert found.edges[0] <= min(values)
    assert found.edges[-1] >= max(values)
    assert len(found.counts) <= 60


def test_a_value_on_an_edge_counts_to_the_right() -> None:
    found = histogram(np.array([0.0, 1.0, 1.5, 2.0]), step=1.0)
    assert found is not None
    assert found.edges.tolist() == [0, 1, 2, 3]
    assert found.counts.tolist() == [1, 2, 1]


def test_no_values_have_no_histogram() -> None:
    assert histogram(np.zeros(0)) is None


def test_the_pose_map_puts_an_image_where_it_looks() -> None:
    found = pose_map(np.array([22.0, 22.0, 120.0]), np.array([-12.0, -13.0, 0.0]))
    column = np.searchsorted(found.yaw_edges, 22.0) - 1
    row = np.searchsorted(found.pitch_edges, -12.0) - 1
    assert found.counts[row, column] == 2
    assert (found.counts.sum(), found.beyond) == (2, 1)
    assert found.yaw_edges[0] == -found.yaw_edges[-1] == -90


def test_pose_distances_weigh_roll_as_the_selection_does(dataset: Dataset) -> None:
    images = dataset.images()
    found = identities(images, roll_weight=0.5)
    pose = np.array([[images[name][row].as_py() for name in ("yaw", "pitch", "roll")] for row in (0, 1)])
    expected = np.linalg.norm((pose[0] - pose[1]) * (1, 1, 0.5))
    assert found.distances_deg.shape == (12, 28)
    assert found.distances_deg[0, 0] == pytest.approx(expected)


def test_images_of_an_identity_that_stand_apart_are_rejected(dataset: Dataset) -> None:
    images = dataset.images()
    order = [*range(7), 8, 7, *range(9, len(images))]
    with pytest.raises(DatasetError, match="are not consecutive"):
        identities(images.take(order), 1.0)
    with pytest.raises(DatasetError, match="8 rows for each key"):
        identities(images.slice(1), 1.0)


def test_the_worst_identity_comes_first_and_the_sample_is_always_the_same(
    dataset: Dataset, tmp_path: Path
) -> None:
    factory.build(tmp_path, accepted=60, lost={})
    found, again = (count_images(StreamedDataset.open(tmp_path), 1.0) for _ in range(2))
    assert found.worst_keys[0] == "key_003"
    assert len(found.worst_keys) == 12
    assert found.random_keys == again.random_keys == sorted(set(found.random_keys))
    assert len(found.random_keys) == 24
    of_few = count_images(StreamedDataset.open(dataset.root), 1.0)
    assert of_few.random_keys == sorted(dataset.keys())


def test_where_low_scores_are_good_the_highest_is_worst(dataset: Dataset) -> None:
    images = dataset.images()
    column = images.schema.get_field_index("quality_higher_is_better")
    flipped = images.set_column(column, images.schema.field(column), pa.array([False] * len(images)))
    worst = Worst("topiq_nr-face")
    for start in range(0, len(flipped), 16):
        worst.add(identities(flipped.slice(start, 16), 1.0))
    assert worst.keys[-1] == "key_003"
    assert len(worst.keys) == 12
    other = Worst("another")
    other.add(identities(flipped, 1.0))
    assert other.keys == []


def test_each_gate_counts_the_tracks_that_reach_it_by_crop_and_by_box(videos: pa.Table) -> None:
    table = gate_table(videos)
    assert table.tracks == 12 + 6
    # 12 accepted tracks have crops of 450 to 560 and boxes of 270 to 336 px, 6 lost ones 390 and 240.5 px; the
    # 12 short ones were not measured in 8 frames.
    assert [(row.gate_px, row.by_crop, row.by_box) for row in table.rows] == [
        (256, 18, 12),
        (320, 18, 3),
        (384, 18, 0),
        (448, 12, 0),
        (512, 5, 0),
    ]
    assert {row.by_annotation for row in table.rows} == {None}
    assert table.annotated == 0


def test_an_annotated_box_counts_once_a_video_and_only_beside_a_track_of_eight_frames(
    videos: pa.Table,
) -> None:
    sizes = np.full(len(videos), np.nan)
    tracked = [row for row, tracks in enumerate(videos["tracks"].to_pylist()) if tracks]
    bare = next(row for row, tracks in enumerate(videos["tracks"].to_pylist()) if not tracks)
    sizes[tracked[:3]] = (448.0, 447.9, 320.0)
    sizes[bare] = 600.0
    table = gate_table(videos, sizes)
    assert table.annotated == 3
    assert [row.by_annotation for row in table.rows] == [3, 3, 2, 1, 0]


def test_the_gates_of_no_videos_are_zeros() -> None:
    table = gate_table(VIDEOS_SCHEMA.empty_table())
    assert table.tracks == 0
    assert {(row.by_crop, row.by_box) for row in table.rows} == {(0, 0)}


def test_an_annotated_box_is_measured_in_pixels_of_the_frame() -> None:
    boxes = pa.table(
        {
            "annotated_box": [(0.25, 0.0, 0.75, 0.5), None, (0.0, 0.0, 1.0, 1.0)],
            "width": [1280, 1280, None],
            "height": [720, 720, None],
        }
    )
    sizes = annotated_sizes(boxes)
    assert sizes is not None
    np.testing.assert_allclose(sizes, [np.sqrt(640 * 360), np.nan, np.nan])
    assert annotated_sizes(boxes.slice(1, 1)) is None


def test_timings_keep_the_order_of_the_steps_and_leave_strangers_out(tmp_path: Path) -> None:
    path = tmp_path / "timings.parquet"
    given = {
        "b": {"score": 2.0, "probe": 1.0, "zoom": 0.5},
        "a": {"probe": 0.2504},
        "d": {},
        "gone": {"probe": 9.0},
    }
    timings.keep(path, given.items())
    known = np.sort(hashes(["a", "b", "c", "d"]))
    found = timings.measure(timings.kept(path) or (), known)
    assert found is not None
    assert (found.steps, len(found.videos)) == (["probe", "score", "zoom"], 2)
    assert found.totals.tolist() == [1.25, 2.0, 0.5]
    assert found.slowest == ["b", "a"]
    assert found.slowest_s.tolist() == [[1.0, 2.0, 0.5], [0.25, 0.0, 0.0]]
    probe, score, _ = found.spreads
    assert (probe.median, probe.longest) == (0.625, 1.0)
    assert (score.median, score.high) == (1.0, pytest.approx(1.9)), "a step that was not reached took no time"
    assert (found.whole.longest, found.whole.total) == (3.5, 3.75)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_timings_of_batches_are_those_of_the_whole(rows: int) -> None:
    given = factory.seconds(40)
    table = pa.Table.from_pylist(
        [
            {"video_id": video, "seconds": [{"step": s, "seconds": t} for s, t in spent.items()]}
            for video, spent in given
        ],
        schema=timings.SCHEMA,
    )
    known = np.sort(hashes([video for video, _ in given]))
    found = timings.measure((table.slice(start, rows) for start in range(0, len(table), rows)), known)
    assert found is not None
    matrix = np.array([[spent.get(step, 0.0) for step in factory.STEPS] for _, spent in given])
    assert found.steps == [step for step in timings.STEPS if step in factory.STEPS]
    order = [factory.STEPS.index(step) for step in found.steps]
    np.testing.assert_allclose(found.totals, matrix.sum(axis=0)[order])
    assert [spread.median for spread in found.spreads] == np.median(matrix, axis=0)[order].tolist()
    slowest = np.argsort(-matrix.sum(axis=1))[: timings.SLOWEST]
    assert found.slowest == [given[row][0] for row in slowest]


def test_without_a_file_or_a_timed_video_there_are_no_timings(tmp_path: Path) -> None:
    path = tmp_path / "timings.parquet"
    assert timings.kept(path) is None
    timings.keep(path, [("gone", {"probe": 1.0})])
    assert timings.measure(timings.kept(path) or (), hashes(["a"])) is None


@pytest.mark.parametrize("content", [b"", b'{"a": {"probe": 1}}', b"PAR1 and nothing else PAR1"])
def test_damaged_timings_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "timings.parquet"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"timings\.parquet cannot be read: .* is made without timings"):
        list(timings.kept(path) or ())


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_impossible_times_are_damage(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "timings.parquet"
    timings.keep(path, [("a", {"probe": 1.0}), ("b", {"probe": seconds})])
    with pytest.raises(DatasetError, match="a time is negative or not finite"):
        list(timings.kept(path) or ())
