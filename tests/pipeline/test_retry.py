"""Finished videos are curated again where the user asks for it, and once, however often the build stops."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from staged_videos import MODELS_USED, accepted, configured, make_source, rejected

from pipeline.build_mfhq import run
from pipeline.config import Config
from pipeline.errors import BuildError
from pipeline.not_accepted import NOT_ACCEPTED
from pipeline.plan import BuildPlan, plan_build
from pipeline.progress import Reporter
from pipeline.retry import Retry
from pipeline.sources.manifest import Video
from pipeline.stages.finalize import FinalizedVideo
from shards.erase import erase
from shards.reader import Dataset
from shards.schema import Reason

OUTCOMES = {
    "a.mp4": None,
    "b.mp4": Reason.TIMEOUT,
    "c.mp4": Reason.NO_FACE,
    "d.mp4": Reason.OUT_OF_MEMORY,
    "e.mp4": Reason.NO_FACE,
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of a build that has curated all of `OUTCOMES`."""
    # Larger ones come first.
    source = make_source(tmp_path / "clips", {name: 90 - ord(name[0]) % 50 for name in OUTCOMES})
    configuration = configured(source, tmp_path / "mfhq")
    curate(plan_build(configuration, MODELS_USED, replace=False))
    return configuration


def curate(planned: BuildPlan, count: int | None = None) -> None:
    """Finish the first `count` videos of a plan with their outcomes; all of them when None."""
    for video in planned.todo[:count]:
        planned.staging.write(video, _outcome(video))


def _outcome(video: Video) -> FinalizedVideo:
    reason = OUTCOMES[video.uri]
    return rejected(video, reason) if reason else accepted(video)


def planned(config: Config, retry: Retry) -> BuildPlan:
    return plan_build(config, MODELS_USED, replace=False, retry=retry)


def names(plan: BuildPlan) -> list[str]:
    return sorted(video.uri for video in plan.todo)


def build(config: Config, retry: Retry | None = None) -> str:
    """A whole build of finished videos; its messages."""
    log = io.StringIO()
    run(config, Reporter(Console(file=log, width=200)), retry=retry)
    return log.getvalue()


def error(config: Config, retry: Retry) -> str:
    with pytest.raises(BuildError) as caught:
        planned(config, retry)
    return str(caught.value)


def listed(folder: Path, *lines: str) -> Path:
    path = folder / "list.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("retry", "again"),
    [
        (Retry(), []),
        (Retry(failed=True), ["b.mp4", "d.mp4"]),
        (Retry(reasons=("timeout",)), ["b.mp4"]),
        (Retry(reasons=("out_of_memory", "no_face")), ["c.mp4", "d.mp4", "e.mp4"]),
        (Retry(failed=True, reasons=("no_face",)), ["b.mp4", "c.mp4", "d.mp4", "e.mp4"]),
    ],
)
def test_videos_are_chosen_by_status_and_by_reason(config: Config, retry: Retry, again: list[str]) -> None:
    assert names(planned(config, retry)) == again


def test_an_unknown_reason_lists_those_that_occur_and_drops_nothing(config: Config) -> None:
    assert error(config, Retry(reasons=("no_face", "time_out"))) == (
        "--retry-reason time_out: no finished video has this reason. "
        "These occur: no_face (2), out_of_memory (1), timeout (1)"
    )
    assert error(config, Retry(reasons=("duplicate_video",))) == (
        "--retry-reason duplicate_video: every build finds duplicates anew, so there is nothing to curate again"
    )
    assert names(planned(config, Retry())) == []


def test_where_all_are_accepted_no_reason_occurs(tmp_path: Path) -> None:
    config = configured(make_source(tmp_path / "clips", {"a.mp4": 9}), tmp_path / "mfhq")
    curate(plan_build(config, MODELS_USED, replace=False))
    assert error(config, Retry(reasons=("timeout",))) == (
        "--retry-reason timeout: no finished video has this reason. All finished videos are accepted"
    )


def test_the_list_of_a_build_can_be_handed_back(config: Config) -> None:
    build(config)
    path = config.output / "report" / NOT_ACCEPTED
    assert [line.split("\t")[:2] for line in path.read_text().splitlines()[1:]] == [
        ["failed", "out_of_memory"],
        ["failed", "timeout"],
        ["rejected", "no_face"],
        ["rejected", "no_face"],
    ]
    plan = planned(config, Retry(file=path))
    assert names(plan) == ["b.mp4", "c.mp4", "d.mp4", "e.mp4"]
    assert plan.messages == ["4 finished videos are curated again."]


def test_only_the_videos_of_a_shorter_list_are_curated_again_accepted_ones_too(
    config: Config, tmp_path: Path
) -> None:
    path = listed(
        tmp_path,
        "rejected\tno_face\tdemo\tdemo/c.mp4\tc.mp4\t",
        "missing\t\tdemo\tdemo/k_1\t\tno file",
        "demo/a.mp4",
        "demo/a.mp4",
    )
    plan = planned(config, Retry(file=path))
    assert names(plan) == ["a.mp4", "c.mp4"]
    assert plan.messages == [
        f"Ignored 1 line of {path} with status missing.",
        "2 finished videos are curated again.",
    ]


def test_a_list_and_a_reason_add_up(config: Config, tmp_path: Path) -> None:
    path = listed(tmp_path, "demo/a.mp4")
    assert names(planned(config, Retry(reasons=("timeout",), file=path))) == ["a.mp4", "b.mp4"]


def test_unknown_ids_are_counted_and_the_first_are_named(config: Config, tmp_path: Path) -> None:
    path = listed(tmp_path, "demo/a.mp4", *(f"demo/{number}.mp4" for number in range(7)))
    assert error(config, Retry(file=path)) == (
        f"--retry {path}: 7 of 8 listed videos are not in the source: demo/0.mp4, demo/1.mp4, demo/2.mp4, "
        "demo/3.mp4, demo/4.mp4, …. Remove their lines, or check source.path"
    )
    assert error(config, Retry(file=listed(tmp_path, "a.mp4"))).endswith(
        "An id begins with the name of its source: demo/a.mp4"
    )
    assert names(planned(config, Retry())) == []


def test_a_list_that_cannot_be_read_is_an_error(config: Config, tmp_path: Path) -> None:
    none = tmp_path / "none.tsv"
    assert error(config, Retry(file=none)) == f"--retry {none} cannot be read: No such file or directory"
    assert error(config, Retry(file=tmp_path)) == f"--retry {tmp_path} cannot be read: Is a directory"
    path = listed(tmp_path, "a\tb")
    assert error(config, Retry(file=path)).startswith(f"--retry {path}: line 1 has 2 columns.")


@pytest.mark.parametrize("by", ["file", "reason"])
def test_the_same_command_continues_a_retry_that_was_interrupted(
    config: Config, tmp_path: Path, by: str
) -> None:
    path = listed(tmp_path, "demo/c.mp4", "demo/e.mp4")
    retry = Retry(file=path) if by == "file" else Retry(reasons=("no_face",))
    first = planned(config, retry)
    assert names(first) == ["c.mp4", "e.mp4"]
    curate(first, 1)

    again = planned(config, retry)
    assert names(again) == [first.todo[1].uri], "what was curated again is kept"
    assert again.messages == ["Continuing the retry that was interrupted: what it has curated again is kept."]
    assert names(planned(config, Retry())) == [first.todo[1].uri], "so does the command without it"
    curate(again)

    build(config, retry)
    assert names(planned(config, retry)) == ["c.mp4", "e.mp4"], "after a finished build it starts afresh"


def test_another_retry_does_not_continue_the_interrupted_one(config: Config) -> None:
    curate(planned(config, Retry(reasons=("no_face",))))
    assert names(planned(config, Retry(reasons=("timeout",)))) == ["b.mp4"]


def test_nothing_is_dropped_where_samples_were_erased(config: Config) -> None:
    build(config)
    (key,) = Dataset.open(config.output).keys()
    erase(config.output, [key], "asked_for")
    with pytest.raises(BuildError, match="samples were erased from it"):
        build(config, Retry(failed=True))
    assert names(planned(config, Retry())) == []
    assert "the dataset is packed already" in build(config)


def test_the_record_says_what_was_asked_for(config: Config) -> None:
    plan = planned(config, Retry(failed=True, reasons=("timeout", "no_face", "timeout")))
    record = json.loads((plan.staging.folder / "retry.json").read_bytes())
    assert (record["failed"], record["reasons"]) == (True, ["no_face", "timeout"])
