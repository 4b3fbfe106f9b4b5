"""Passes over the videos that are not finished yet.

Ray Data goes once over its rows. What is lost on the way (with a node, a worker, a mount) is not searched for in
flight: the staged files are the truth, and another pass goes over what they lack. A cluster that has changed
meanwhile is sized anew.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from pipeline.cluster import session as cluster
from pipeline.cluster.actors import Row, message_of
from pipeline.cluster.node_faults import NodeFaults, Place
from pipeline.cluster.sizing import NodeResources, Pools, check_room, fitting, size_pools
from pipeline.config import Config
from pipeline.errors import BuildError, MachineFault
from pipeline.monitor.work_left import WorkLeft
from pipeline.plan import BuildPlan, unstaged
from pipeline.progress import Advance, Reporter, counts_note
from pipeline.sources.manifest import Video
from pipeline.staging import DamagedStagedFile
from pipeline.time_limit import within
from shards.schema import Reason, Status
from storage.path import ObjectPath, path_of_listed

MOST_FRUITLESS = 3
"""Passes in a row that finish no video, after which the build ends."""
LOOK_EVERY_S = 5.0
"""How often to look for nodes that came or went."""
Outcomes = Callable[[BuildPlan, Pools], Iterable[Row]]


class Passes:
    """Curates the unfinished videos of a plan, in as many passes as it takes.

    Args:
        config: of the build.
        plan: names the videos.
        reporter: shows progress.
        check_lock: raises BuildError once another build has the output.
    """

    def __init__(
        self, config: Config, plan: BuildPlan, reporter: Reporter, check_lock: Callable[[], None]
    ) -> None:
        self.build = secrets.token_hex(8)
        """Distinguishes this build from others of the same output."""
        self._config = config
        self._run = config.run
        self._plan = plan
        self._reporter = reporter
        self._check_lock = check_lock
        self._faults = NodeFaults(config.run.node_faults, config.run.failing_nodes)
        self._videos = {video.video_id: video for video in plan.todo}
        self._outcomes: dict[str, tuple[str, str]] = {}
        self._counts: Counter[str] = Counter({status.value: 0 for status in Status})
        # Of every status from the start, because the thread of the log reads it.
        self._reasons: dict[str, Counter[str]] = {status.value: Counter() for status in Status}
        self._work_left = WorkLeft(plan.todo)
        self._places: dict[Place, Place] = {}
        self._unenforced = {""}
        self._nodes: dict[str, NodeResources] = {}
        self._looked = 0.0
        self._error = ""

    def run(self, outcomes: Outcomes) -> None:
        """Curate them.

        Args:
            outcomes: one pass: the results of `Curate` for the unfinished videos of a plan, with pools of a given
            size.

        Raises:
            BuildError: no node has room for an analyser, too many nodes fail, or videos stay unfinished.
            OSError: the output cannot be written to.
        """
        self._plan.staging.begin(self.build)
        self._reporter.monitor.build = self.build
        self._nodes = {node.node_id: node for node in cluster.nodes()}
        check_room(list(self._nodes.values()), self._run, joined=cluster.joined())
        if not any(fitting(node, self._run) for node in self._nodes.values()):
            self._reporter.message(
                f"No node has room for an analyser yet: waiting {cluster.STALLED_S / 60:.0f} minutes for one",
                "waiting",
            )
        left, fruitless = self._plan, 0
        videos = len(self._plan.todo)
        with (
            self._reporter.monitor.counting(cluster.analysers),
            self._reporter.bar("curate", videos, "videos", self._work_left.left_s, self._fields) as advance,
        ):
            while left.todo:
                unfinished = self._pass(left, outcomes, advance)
                fruitless = fruitless + 1 if len(unfinished) == len(left.todo) else 0
                if fruitless == MOST_FRUITLESS:
                    raise BuildError(self._why(unfinished))
                if unfinished:
                    self._reporter.message(f"{_count(unfinished)} not finished yet; trying again")
                left = replace(left, todo=unfinished)

    def _pass(self, left: BuildPlan, outcomes: Outcomes, advance: Advance) -> list[Video]:
        """Do one pass; the videos that are not finished after it."""
        import ray
        from ray.data.exceptions import ExecutionTimeoutError

        self._reporter.monitor.new_pass()
        self._look_at_nodes(now=True)
        pools = size_pools(list(self._nodes.values()), self._run, len(left.files), self._faults.failed_last())
        largest = max(sum(map(len, share)) for share in left.shares(self._run.analysers or pools.at_first))
        cluster.give_up_after(self._run.video_timeout_s * largest)
        places: dict[str, Place] = {}
        try:
            for row in outcomes(left, pools):
                self._check_lock()
                self._look_at_nodes()
                self._note(row, places, advance)
        except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            self._error = lines[-1] if lines else type(error).__name__
            self._reporter.message(f"Ray: {self._error}", "ray_error", logging.ERROR)
        self._look_at_nodes(now=True)  # the last videos may have come from those that are left
        unfinished = unstaged(left)
        self._count_unreported(left, {video.video_id for video in unfinished}, advance)
        # A storage that loses what it took, or a mount that was lost after the node had begun.
        for video in unfinished:
            if place := places.get(video.video_id):
                self._forget(video)
                self._fault(
                    place, f"{self._config.output} lacks what it has finished, such as {video.video_id}"
                )
        return unfinished

    def _count_unreported(self, left: BuildPlan, unfinished: set[str], advance: Advance) -> None:
        """Count videos that are finished and were not reported: Ray drops some results of a retried task."""
        for video in left.todo:
            if video.video_id in self._outcomes or video.video_id in unfinished:
                continue
            try:
                outcome = left.staging.outcome(video)
            except DamagedStagedFile:
                continue  # packing names it
            facts = {"status": outcome.status.value, "reason": str(outcome.reason or "")}
            row = {"video_id": video.video_id, "node": "", "work": "", **facts}
            if message := message_of(outcome):
                self._reporter.message(message, "video", logging.WARNING, video_id=video.video_id)
            self._count(video, row)
            advance(self._counts.total(), counts_note(self._counts, self._reasons))

    def _note(self, row: Row, places: dict[str, Place], advance: Advance) -> None:
        place = Place(row["node"], row["place"])
        place = self._places.setdefault(place, place)  # one object for many videos
        if row["fault"]:
            self._fault(place, row["fault"])
            return
        video = self._videos[row["video_id"]]
        if row["reason"] == Reason.INACCESSIBLE and _is_there(video, self._run.storage_timeout_s):
            self._plan.staging.forget([video])
            self._fault(place, f"{video.path} is not there, or not readable. Check the mount of the source")
            return
        self._faults.worked(place.node)
        if row["unenforced"] not in self._unenforced:
            self._unenforced.add(row["unenforced"])
            self._reporter.message(
                f"The decoder's sandbox is incomplete on a node: {row['unenforced']}. "
                "run.sandbox=required makes this an error"
            )
        if row["message"]:
            self._reporter.message(
                row["message"], "video", logging.WARNING, video_id=video.video_id, reason=row["reason"]
            )
        places[video.video_id] = place
        if video.video_id not in self._outcomes:  # work may be done twice, a video counts once
            self._count(video, row)
        advance(self._counts.total(), counts_note(self._counts, self._reasons))

    def _count(self, video: Video, row: Row) -> None:
        status, reason = self._outcomes[video.video_id] = row["status"], row["reason"]
        self._counts[status] += 1
        if reason:
            self._reasons[status][reason] += 1
        work = json.loads(row["work"]) if row["work"] else {}
        seconds = work.get("seconds", {})
        self._work_left.finish(video, sum(seconds.values()), time.monotonic())
        self._reporter.monitor.video(
            row["node"],
            status,
            reason,
            seconds=seconds,
            items=work.get("items", {}) | {"bytes": video.bytes},
            attempt=work.get("attempt", 0),
        )

    def _fields(self) -> dict[str, Any]:
        """The counts of this run, for logs."""
        reasons = {status: dict(each) for status, each in self._reasons.items()}
        return {"statuses": dict(self._counts), "reasons": reasons}

    def _forget(self, video: Video) -> None:
        """A video that was finished is not there."""
        status, reason = self._outcomes.pop(video.video_id)
        self._counts[status] -= 1
        if reason:
            self._reasons[status][reason] -= 1
        self._work_left.lose(video)
        self._reporter.monitor.lost(status, reason)

    def _fault(self, place: Place, fault: str) -> None:
        self._reporter.monitor.fault(place.node, place.name, fault)
        if message := self._faults.failed(place, fault):
            self._reporter.message(message, "fault", logging.ERROR, node=place.name)
        able = [node.node_id for node in self._nodes.values() if fitting(node, self._run)] or [place.node]
        # Nowhere else to try, and no node expected.
        alone = (
            len(self._nodes) == 1
            and self._run.analysers is None
            and all(node.gpus <= 1 for node in self._nodes.values())
        )
        if alone or self._faults.too_many(able):
            kept = "Finished videos are kept: the same command continues."
            if alone:
                raise BuildError(f"{fault}. {kept}")
            failing = len(self._faults.failing(able))
            raise BuildError(
                f"{failing} of {len(able)} nodes fail, more than run.failing_nodes={self._run.failing_nodes:g} of "
                f"them:\n  {self._faults.summary()}\n{kept}"
            )

    def _look_at_nodes(self, *, now: bool = False) -> None:
        if not now and time.monotonic() < self._looked + LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        nodes = {node.node_id: node for node in cluster.nodes()}
        for node_id in nodes.keys() - self._nodes.keys():
            name = nodes[node_id].name
            self._reporter.message(f"Node {name} joined", "node_joined", node=name)
        for node_id in self._nodes.keys() - nodes.keys():
            name = self._nodes[node_id].name
            text = f"Node {name} was lost; its videos are tried again"
            self._reporter.message(text, "node_lost", logging.WARNING, node=name)
        self._nodes = nodes
        rooms = [(node.node_id, node.name, fitting(node, self._run)) for node in nodes.values()]
        self._reporter.monitor.nodes(rooms)

    def _why(self, unfinished: list[Video]) -> str:
        text = f"{_count(unfinished)} not finished in {MOST_FRUITLESS} attempts. "
        if self._faults:
            text += f"Nodes that failed:\n  {self._faults.summary()}\n"
        elif self._error:
            text += f"Ray failed: {self._error}. "
        else:
            text += f"The processes that analyse them end (such as {unfinished[0].video_id}); Ray's logs say why. "
        return text + "Finished videos are kept: the same command continues."


def _count(videos: list[Video]) -> str:
    return "1 video is" if len(videos) == 1 else f"{len(videos)} videos are"


def _is_there(video: Video, limit_s: float) -> bool:
    """Whether the driver can read the file of a video, or its directory of frames."""
    path = path_of_listed(video.path)
    if isinstance(path, ObjectPath):
        return False  # what an object store answers is the same everywhere

    def look() -> bool:
        if path.is_dir():
            return next(path.iterdir(), None) is not None
        with path.open("rb") as file:
            return len(file.read(1)) == 1

    try:
        return within(limit_s, str(path), look)
    except (OSError, MachineFault):
        return False
