"""Passes over what is not finished lose no video, count none twice, and end when they lead to nothing.

The rows that Ray would give are made here; what they leave in the staging area is real.
test_cluster_of_raylets.py has the same on real clusters.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from staged_videos import MODELS_USED, accepted, configured, make_source, rejected

from pipeline.cluster.actors import Row
from pipeline.cluster.passes import MOST_FRUITLESS, Passes
from pipeline.cluster.sizing import NodeResources, Pools, fitting
from pipeline.errors import BuildError
from pipeline.plan import BuildPlan, plan_build
from pipeline.progress import Reporter
from pipeline.sources.manifest import Video
from shards.schema import Reason

NODES = [NodeResources(name, name, cpus=8, memory=2**36) for name in ("a", "b", "c")]
Work = Callable[[BuildPlan, Video, int], Row | None]


@pytest.fixture(autouse=True)
def _three_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cluster.session.nodes", lambda: NODES)
    monkeypatch.setattr("pipeline.cluster.session.give_up_after", lambda _: None)


def row(video: Video, node: str = "a", **more: str) -> Row:
    empty = dict.fromkeys(("status", "reason", "message", "fault", "unenforced", "work"), "")
    return {"video_id": video.video_id, "node": node, "place": node, **empty, **more}


def done(plan: BuildPlan, video: Video, node: str = "a") -> Row:
    plan.staging.write(video, accepted(video))
    return row(video, node, status="accepted")


def plan_of(folder: Path, videos: int = 6) -> BuildPlan:
    source = make_source(folder / "clips", {f"{number}.mp4": 10 + number for number in range(videos)})
    return plan_build(configured(source, folder / "mfhq"), MODELS_USED, replace=False)


def run(plan: BuildPlan, folder: Path, work: Work) -> tuple[str, list[list[str]]]:
    """Run passes in which `work` does each video; the log, and the videos of each pass."""
    log = io.StringIO()
    passes: list[list[str]] = []

    def outcomes(left: BuildPlan, pools: Pools) -> Iterator[Row]:
        assert pools.at_first >= min(24, len(left.files))
        passes.append([video.uri for video in left.todo])
        for video in left.todo:
            if (result := work(left, video, len(passes))) is not None:
                yield result

    config = configured(folder / "clips", folder / "mfhq")
    reporter = Reporter(Console(file=log, width=500))
    Passes(config, plan, reporter, lambda: None).run(outcomes)
    return log.getvalue(), passes


def test_what_one_pass_leaves_the_next_one_does(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)

    def lossy(left: BuildPlan, video: Video, number: int) -> Row | None:
        if number == 1 and video.uri == "1.mp4":
            return None  # lost with its node before it was done
        result = done(left, video)
        return None if video.uri == "2.mp4" else result  # lost after it was done

    log, passes = run(plan, tmp_path, lossy)
    assert [len(each) for each in passes] == [6, 1]
    assert passes[1] == ["1.mp4"]
    assert "1 video is not finished yet; trying again" in log
    assert plan.staging.finished(plan.todo) == plan.todo


def test_a_bad_node_costs_its_work_and_is_named_once(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)

    def bad(left: BuildPlan, video: Video, number: int) -> Row:
        if number == 1 and video.uri in {"1.mp4", "2.mp4", "3.mp4", "4.mp4"}:
            return row(video, "b", fault=f"{video.path} cannot be read (Stale file handle)")
        return done(left, video)

    log, passes = run(plan, tmp_path, bad)
    assert [len(each) for each in passes] == [6, 4]
    assert log.count("Node b failed, its videos are tried again: ") == 1
    assert "6/6" in log


def test_a_fault_of_most_nodes_ends_the_build(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, 20)
    nodes = iter("abc" * 100)

    def broken(left: BuildPlan, video: Video, number: int) -> Row:
        return row(video, next(nodes), fault="the disk is full")

    with pytest.raises(BuildError) as caught:
        run(plan, tmp_path, broken)
    assert str(caught.value).startswith(
        "2 of 3 nodes fail, more than run.failing_nodes=0.5 of them:\n  node a, 3 times"
    )
    assert "the disk is full" in str(caught.value)


def test_videos_that_nothing_finishes_end_the_build(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    with pytest.raises(
        BuildError, match=rf"6 videos are not finished in {MOST_FRUITLESS} attempts"
    ) as caught:
        run(plan, tmp_path, lambda left, video, number: None)
    assert "Finished videos are kept: the same command continues." in str(caught.value)


def test_results_that_are_not_in_the_output_are_a_fault_of_their_node(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)

    def elsewhere(left: BuildPlan, video: Video, number: int) -> Row:
        if number == 1 and video.uri == "3.mp4":
            return row(video, "c", status="accepted")
        return done(left, video)

    log, passes = run(plan, tmp_path, elsewhere)
    assert passes[1] == ["3.mp4"]
    assert "Node c failed, its videos are tried again: " in log
    assert "lacks what it has finished, such as" in log


def test_a_file_that_only_one_node_misses_is_no_failed_video(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)

    def missing(left: BuildPlan, video: Video, number: int) -> Row:
        if number == 1 and video.uri == "3.mp4":
            left.staging.write(video, rejected(video, Reason.INACCESSIBLE))
            return row(video, "c", status="failed", reason=Reason.INACCESSIBLE)
        return done(left, video)

    log, passes = run(plan, tmp_path, missing)
    assert passes[1] == ["3.mp4"]
    assert "3.mp4 is not there, or not readable. Check the mount of the source" in log
    assert all(plan.staging.outcome(video).reason is None for video in plan.todo)


@pytest.mark.parametrize("reason", [Reason.UNREADABLE, Reason.INACCESSIBLE])
def test_a_file_that_is_bad_for_everybody_is_one_failed_video_and_no_fault(
    tmp_path: Path, reason: Reason
) -> None:
    plan = plan_of(tmp_path)
    bad = rejected(plan.todo[2], reason)
    if reason is Reason.INACCESSIBLE:
        Path(plan.todo[2].path).unlink()

    def garbage(left: BuildPlan, video: Video, number: int) -> Row:
        if video == plan.todo[2]:
            left.staging.write(video, bad)
            return row(video, "c", status="failed", reason=reason)
        return done(left, video)

    log, passes = run(plan, tmp_path, garbage)
    assert len(passes) == 1
    assert "failed, its videos are tried again" not in log
    assert f"1 failed (1 {reason})" in log


def test_finished_videos_that_were_not_reported_are_counted(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)

    def dropped(left: BuildPlan, video: Video, number: int) -> Row | None:
        if video in plan.todo[1:4]:
            found = rejected(video, Reason.WORKER_CRASHED) if video == plan.todo[2] else accepted(video)
            left.staging.write(video, found)
            return None  # Ray drops results of a task that it starts again
        return done(left, video)

    log, passes = run(plan, tmp_path, dropped)
    assert len(passes) == 1
    assert "curate: 6/6" in log
    assert "5 accepted  0 rejected  1 failed (1 worker_crashed)" in log
    assert f"{plan.todo[2].uri} is one failed video (worker_crashed)" in log


def test_the_last_file_is_also_given_to_a_node_that_has_not_failed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, 1)
    started: list[int] = []

    def outcomes(left: BuildPlan, pools: Pools) -> Iterator[Row]:
        started.append(pools.at_first)
        # Ray may place the first of them where it likes, such as on the bad node.
        yield row(left.todo[0], "a", fault="lost") if len(started) == 1 else done(left, left.todo[0], "b")

    config = configured(tmp_path / "clips", tmp_path / "mfhq")
    Passes(config, plan, Reporter(Console(file=io.StringIO())), lambda: None).run(outcomes)
    room = fitting(NODES[0], config.run)
    assert started == [1, 1 + room]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["done", "lost", "lost after", "fault"]), min_size=60, max_size=60))
def test_whatever_is_lost_each_video_is_finished_once(
    tmp_path_factory: pytest.TempPathFactory, fates: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("build")
    plan = plan_of(folder)
    drawn = iter(fates)

    def work(left: BuildPlan, video: Video, number: int) -> Row | None:
        match next(drawn, "done") if number < MOST_FRUITLESS else "done":
            case "done":
                return done(left, video)
            case "lost after":
                done(left, video)
                return None
            case "fault":
                return row(video, "a", fault="lost")
        return None

    _, passes = run(plan, folder, work)
    assert plan.staging.finished(plan.todo) == plan.todo
    assert len(list(plan.staging.folder.glob("??/*.parquet"))) == 6
    for before, after in pairwise(passes):
        assert set(after) < set(before) or after == before
