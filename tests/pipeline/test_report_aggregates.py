"""What the report counts: sums that add up, bins that hold every value, figures of each identity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import report_factory as factory

from pipeline.report import outcomes, timings
from pipeline.report.distributions import histogram, identities, pose_map, random_keys, worst_keys
from pipeline.report.gate_table import annotated_sizes, gate_table
from pipeline.report.reasons import FUNNEL_STEPS, MEANING, meaning
from shards.metadata import DatasetError
from shards.reader import Dataset, read_table
from shards.schema import Reason
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
    gates = outcomes.funnel(videos)
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
    gates = outcomes.funnel(pa.table({"reason": ["no_face", "from_the_future", None, None]}))
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


def test_sources_share_out_all_videos(dataset: Dataset, videos: pa.Table) -> None:
    rows = outcomes.by_source(videos, dataset.images(), {"vfhq": ["clip-1", "clip-2"]})
    assert [
        (row.source, row.videos, row.accepted, row.rejected, row.failed, row.missing) for row in rows
    ] == [
        ("vfhq", 18, 4, 11, 3, 2),
        ("celebv-hq", 8, 8, 0, 0, 0),
    ]
    assert [(row.identities, row.persons) for row in rows] == [(4, 4), (8, 7)]
    assert [row.licenses for row in rows] == [("research only",), ("",)]


def test_a_capped_list_of_lost_videos_keeps_some_of_every_reason(videos: pa.Table) -> None:
    rows, total = outcomes.unaccepted(videos, limit=len(factory.LOST))
    assert total == sum(factory.LOST.values())
    assert sorted(rows["reason"].to_pylist()) == sorted(factory.LOST)


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


def test_the_worst_identity_comes_first_and_the_sample_is_always_the_same(dataset: Dataset) -> None:
    found = identities(dataset.images(), 1.0)
    assert worst_keys(found, "topiq_nr-face", 2)[0] == "key_003"
    assert random_keys(found, 5, seed=1) == random_keys(found, 5, seed=1)
    assert len(set(random_keys(found, 5, seed=1))) == 5
    assert random_keys(found, 50, seed=1) == sorted(found.keys)


def test_where_low_scores_are_good_the_highest_is_worst(dataset: Dataset) -> None:
    images = dataset.images()
    column = images.schema.get_field_index("quality_higher_is_better")
    flipped = images.set_column(column, images.schema.field(column), pa.array([False] * len(images)))
    found = identities(flipped, 1.0)
    assert worst_keys(found, "topiq_nr-face", 12)[-1] == "key_003"


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
    given = {"b": {"score": 2.0, "probe": 1.0, "zoom": 0.5}, "a": {"probe": 0.25}, "erased": {"probe": 9.0}}
    timings.keep(tmp_path / "timings.json", given)
    kept = timings.kept(tmp_path / "timings.json")
    assert kept == given
    table = timings.tabulate(kept, ["a", "b", "c"])
    assert table is not None
    assert (table.steps, table.videos) == (["probe", "score", "zoom"], ["a", "b"])
    assert table.totals.tolist() == [1.25, 2.0, 0.5]
    assert [table.videos[row] for row in table.slowest(1)] == ["b"]


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {"probe": -1}}', '{"a": {"probe": "soon"}}'])
def test_damaged_timings_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "timings.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"timings\.json cannot be read"):
        timings.kept(path)
