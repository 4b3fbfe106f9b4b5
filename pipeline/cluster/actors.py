"""The thin shell between Ray and the curation: a row in is some files, a row out is what was finished lately.

    {"files": [[Video as JSON], for each file: the parts of one are together, and it is opened once]}
      -> Curate -> {"results": [for each video: {"video_id", "status", "reason", "message", "fault",
                                                 "unenforced", "node", "place", "work"}]}

One process does all of it, from the file to the staged result, on CPUs and on GPUs: no images travel, no process
waits for another's, and whatever room a node has can be used. (The quality network sees the images of one video
at a time, so that a result depends on nothing else; a process of its own for it would batch no more.)

What fails on one video becomes that video's failed row; the driver logs its `message` when the failure may be
the machine's. A `fault` is the machine's: nothing is staged, the driver notes it against `node`, and a later pass
tries the video again. It is returned and not raised, because Ray would wrap it in stack traces. `unenforced` is
what the kernel of that node lacks for the sandbox; the driver logs it once. `work` is what the video took, as
JSON, for the progress and the metrics that the driver shows.

Each finished video, each fault and each start is a line in this process's log (`pipeline.monitor.logs`).

Actors freeze what they have loaded: with every few thousand coordinates of a record, Python's garbage collector
would walk over all objects of the libraries again.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from faces.registry import Weights
from pipeline.cluster.place import FaultRecord, this_place
from pipeline.config import Config
from pipeline.curator import Curated, VideoCurator
from pipeline.errors import BuildError, MachineFault
from pipeline.monitor import logs
from pipeline.monitor.metrics import AnalyserMetrics
from pipeline.sources.manifest import Video
from pipeline.staging import Staging
from pipeline.time_limit import within
from shards.schema import Reason, VideoOutcome

Row = dict[str, Any]
REPORT_EVERY_S = 2.0
"""A process tells the driver this often what it has finished: a message costs 5 ms of processor time."""
UNEXPECTED = (
    *(Reason.DECODER_CRASHED, Reason.SANDBOX_VIOLATION, Reason.WORKER_CRASHED),
    *(Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.INTERNAL_ERROR),
)
"""Failures that damage in the file does not explain. The machine or the code may be at fault: they are logged."""
FAULTS = (MachineFault, OSError, BuildError)
"""Errors whose message says what is wrong; of others, the type is named as well."""


class Curate:
    """Analyses videos and chooses their images.

    Args:
        config: of the build.
        weights: the networks' files, by name.
        staging: where results go.
        build: distinguishes the builds of one output directory.
    """

    def __init__(self, config: Config, weights: Weights, staging: Staging, build: str = "") -> None:
        self._place = this_place()
        self._record = FaultRecord(build, self._place)
        self._fault = ""
        self._ends = False
        self._curator: VideoCurator | None = None
        logs.set_up_worker_logs(self._place.name, build)
        self._metrics = AnalyserMetrics(config.name)
        time.sleep(wait_s := self._record.wait_s())
        begun = time.monotonic()
        try:
            _check_output(config, staging, build)
            self._curator = VideoCurator(config, weights, staging, self._place.node, _nodes_alive)
        except (
            Exception
        ) as error:  # a machine that cannot load the networks is one bad machine, not the build's end
            self._fault = _text(error)
        seconds = round(time.monotonic() - begun, 1)
        logs.log(
            logging.WARNING if self._fault else logging.INFO,
            "worker_start",
            self._fault or f"ready after {seconds:g} s",
            seconds=seconds,
            waited_s=round(wait_s, 1),
            pid=os.getpid(),
        )
        gc.freeze()

    def __call__(self, row: Row) -> Iterator[Row]:
        """Curate the files of a row: results of all videos, up to the first that meets a fault of the machine."""
        self._metrics.busy(True)
        try:
            yield from ({"results": results} for results in gathered(self._curated(row), REPORT_EVERY_S))
        finally:
            self._metrics.busy(False)

    def _curated(self, row: Row) -> Iterator[Row]:
        if self._ends:
            # A process whose GPU or mount has failed may never recover: Ray starts another, which waits, then
            # does this row.
            os._exit(1)
        for texts in row["files"]:
            for result in self._file([Video.model_validate_json(text) for text in texts]):
                yield result
                if result["fault"]:
                    return

    def _file(self, videos: list[Video]) -> Iterator[Row]:
        if self._curator is None:
            yield self._faulty(videos[0], self._fault)
            return
        done: set[str] = set()
        try:
            for made in self._curator.curate(videos):
                done.add(made.video.video_id)
                self._record.clear()
                outcome = made.outcome
                log_video(made)
                yield self._row(made.video) | {
                    "status": outcome.status.value,
                    "reason": str(outcome.reason or ""),
                    "message": message_of(outcome),
                    "work": work_of(made),
                }
        except Exception as fault:  # also an unexpected one: Ray would drop the row without a message
            left = [video for video in videos if video.video_id not in done]
            yield self._faulty((left or videos)[0], _text(fault))

    def _faulty(self, video: Video, fault: str) -> Row:
        logs.log(logging.ERROR, "fault", fault, video_id=video.video_id)
        self._record.add()
        self._ends = True
        return self._row(video) | {"fault": fault}

    def _row(self, video: Video) -> Row:
        return {
            "video_id": video.video_id,
            "status": "",
            "reason": "",
            "message": "",
            "fault": "",
            "unenforced": self._curator.missing if self._curator else "",
            "node": self._place.node,
            "place": self._place.name,
            "work": "",
        }


def gathered(results: Iterable[Row], every_s: float) -> Iterator[list[Row]]:
    """Results in lists, at least `every_s` seconds apart but for the last."""
    waiting: list[Row] = []
    sent = time.monotonic()
    for result in results:
        waiting.append(result)
        if time.monotonic() - sent >= every_s:
            yield waiting
            waiting, sent = [], time.monotonic()
    if waiting:
        yield waiting


def _check_output(config: Config, staging: Staging, build: str) -> None:
    """Check that this node sees the output of the build: what it staged elsewhere would be lost.

    Raises:
        MachineFault: it does not, or the output does not answer.
        StorageError: the object store does not.
    """
    if not within(config.run.storage_timeout_s, str(config.output), lambda: staging.has_begun(build)):
        raise MachineFault(
            f"{config.output} is another directory there, or not mounted. Check that output is the same directory "
            "on every node"
        )


def _nodes_alive() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]} if ray.is_initialized() else {""}


def _text(fault: Exception) -> str:
    """The message of a fault in one line; never empty, which is a row without a fault."""
    text = " ".join(str(fault).split())
    return (
        text if text and isinstance(fault, FAULTS) else f"{type(fault).__name__}: {text}".removesuffix(": ")
    )


def work_of(made: Curated) -> str:
    """What a video took and holds, as JSON; empty when an earlier process had finished it."""
    if not made.attempt:
        return ""
    outcome = made.outcome
    items = {
        "frames": outcome.analysed_frames,
        "corrupt_frames": outcome.corrupt_frames,
        "faces": outcome.faces_seen,
        "tracks": len(outcome.tracks),
        "identities": outcome.identities,
    }
    seconds = {stage: round(spent, 4) for stage, spent in made.seconds.items()}
    return json.dumps({"seconds": seconds, "items": items, "attempt": made.attempt})


def log_video(made: Curated) -> None:
    """Log a finished video: one line."""
    outcome = made.outcome
    why = f": {outcome.reason} ({outcome.detail})" if outcome.reason else ""
    logs.log(
        logging.WARNING if outcome.reason in UNEXPECTED else logging.INFO,
        "video",
        f"{outcome.status}{why}",
        video_id=made.video.video_id,
        status=outcome.status.value,
        reason=outcome.reason,
        detail=outcome.detail,
        seconds=round(sum(made.seconds.values()), 3),
        stages={stage: round(spent, 3) for stage, spent in made.seconds.items()},
        attempt=made.attempt,
        identities=outcome.identities,
    )


def message_of(outcome: VideoOutcome) -> str:
    """What the driver logs of a video that failed for no fault of its file; else empty."""
    if outcome.reason is None or outcome.reason not in UNEXPECTED:
        return ""
    return f"{outcome.uri} is one failed video ({outcome.reason}): {outcome.detail}"
