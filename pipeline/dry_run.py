"""`mfhq build --dry-run`: the checks of a build that take seconds, and how many analysers each node holds.

Nothing is curated, and the output stays as it is. Each node that holds analysers looks for itself, in one
short Ray task (`cluster/node_check.py`): a mount, a package, a GPU or a kernel feature that one node lacks
otherwise shows only when that node gets its first video.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby

from faces.registry import Weights
from pipeline.cluster import session as cluster
from pipeline.cluster.node_check import Expected, Lacks, lacks_here
from pipeline.cluster.sizing import NodeResources, Pools, check_room, size_pools
from pipeline.config import Config
from pipeline.errors import BuildError
from pipeline.lock import output_lock
from pipeline.pack import check_nothing_erased
from pipeline.plan import BuildPlan, plan_build
from pipeline.progress import Reporter
from pipeline.provenance import library_versions
from pipeline.retry import Retry
from pipeline.reuse import Choice
from pipeline.staging import FOLDER
from pipeline.thresholds import with_thresholds
from shards.atomic import remove_file, write_bytes
from storage.path import AnyPath

MARK = "dry-run"
"""A file in the staging area for the time of a dry run, by which nodes know that they see the same output."""
ANSWER_S = 600.0
"""How long the nodes may take to answer: seconds, unless they have only Ray and install the packages first."""
GIB = 2**30
MOST_NAMED = 3
"""Nodes of one kind that are listed by name."""


@dataclass(frozen=True)
class DryRun:
    """What a build would find.

    Attributes:
        output: of the build.
        videos: how many the build accounts for.
        finished: how many of them an earlier run has finished.
        todo_bytes: size of the others' files.
        models: names of the networks; their files were found and checked.
        address: of the cluster; empty where nothing is left to curate.
        dashboard: URL of the cluster's dashboard; empty where it has none.
        nodes: of the cluster.
        pools: the analysers that they hold; None where nothing is left to curate.
        lacks: what each node lacks, by its name; without nodes that lack nothing.
    """

    output: AnyPath
    videos: int
    finished: int
    todo_bytes: int
    models: tuple[str, ...]
    address: str = ""
    dashboard: str = ""
    nodes: list[NodeResources] = field(default_factory=list)
    pools: Pools | None = None
    lacks: dict[str, Lacks] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The result for people."""
        todo = self.videos - self.finished
        size = _size(self.todo_bytes)
        yield f"videos      {self.videos:,}: {self.finished:,} finished, {todo:,} to curate ({size})"
        yield f"networks    {', '.join(self.models)}: found and checked"
        yield f"output      {self.output} can be written to"
        if self.pools:
            yield f"cluster     {self.address}{self.dashboard and ', dashboard '}{self.dashboard}"
            title = "nodes"
            for line in _kinds(self.nodes, self.pools):
                yield f"{title:<12}{line}"
                title = ""
            if any(self.pools.by_node):
                yield f"analysers   {self.pools.at_first:,} at first, at most {self.pools.most:,}"
            else:
                yield f"analysers   none yet, at most {self.pools.most:,}: the build waits for nodes"
        else:
            yield "cluster     not looked at: nothing is left to curate"
        for name, lacks in self.lacks.items():
            for what in (*lacks.faults, *lacks.remarks):
                yield f"warning     node {name}: {what}"
        yield f"dry run     nothing was curated, and {self.output} is as it was"


def dry_run(
    config: Config, reporter: Reporter, *, replace: bool, retry: Retry | None, staged: Choice | None
) -> DryRun:
    """Check all that a build needs, as `pipeline.build_mfhq.run` with the same arguments would find it.

    Raises:
        BuildError: the build could not run; the message has the remedy.
    """
    from pipeline.build_mfhq import load_build_weights  # which imports all of a build

    weights = load_build_weights(config)
    config = with_thresholds(config, weights)
    with output_lock(config.output, reporter.message):
        if retry:
            check_nothing_erased(config.output)
        plan = plan_build(config, weights, replace=replace, retry=retry, staged=staged, dry_run=True)
        for message in (*plan.messages, *plan.manifest.messages()):
            reporter.message(message)
        if plan.todo:
            check_nothing_erased(config.output)
        found = DryRun(
            output=config.output,
            videos=len(plan.manifest.videos),
            finished=plan.finished,
            todo_bytes=sum(files[0].bytes for files in plan.files),
            models=config.models.names,
        )
        return _on_cluster(config, weights, plan, found, reporter) if plan.todo else found


def _on_cluster(
    config: Config, weights: Weights, plan: BuildPlan, found: DryRun, reporter: Reporter
) -> DryRun:
    joined = cluster.joined()
    reporter.message(
        "Joining the Ray cluster" if joined else "Starting Ray, to see what it finds on this machine"
    )
    mark, content = config.output / FOLDER / MARK, secrets.token_hex(16).encode()
    try:
        write_bytes(mark, content, durable=False)
    except OSError as error:
        raise BuildError(f"output {config.output} cannot be written to: {error.strerror or error}") from error
    try:
        with cluster.session():
            nodes = cluster.nodes()
            check_room(nodes, config.run, joined=joined)
            pools = size_pools(nodes, config.run, len(plan.files))
            able = [node for node, room in zip(nodes, pools.by_node, strict=True) if room]
            if able:
                reporter.message(
                    f"Asking {'1 node' if len(able) == 1 else f'{len(able)} nodes'} what they lack"
                )
            expected = Expected(_one_of_each_source(plan), mark, content, library_versions())
            lacks = _ask(config, weights, able, expected)
            address, dashboard = cluster.address(), cluster.dashboard()
    finally:
        with suppress(OSError):
            remove_file(mark)
    unable = {name: found.faults for name, found in lacks.items() if found.faults}
    if len(unable) > config.run.failing_nodes * len(able):
        listed = "\n  ".join(f"{name}: {fault}" for name, faults in unable.items() for fault in faults)
        raise BuildError(
            f"{len(unable)} of {len(able)} nodes that hold analysers cannot run them:\n  {listed}"
        )
    return dataclasses.replace(
        found, address=address, dashboard=dashboard, nodes=nodes, pools=pools, lacks=lacks
    )


def _ask(
    config: Config, weights: Weights, nodes: list[NodeResources], expected: Expected
) -> dict[str, Lacks]:
    """What each node lacks, by its name; nodes that lack nothing are left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not nodes:
        return {}
    look = ray.remote(lacks_here)
    asked = {
        look.options(
            num_cpus=0,
            num_gpus=config.run.analyser_gpus,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
        ).remote(config, weights, expected): node.name
        for node in nodes
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
    lacks: dict[str, Lacks] = {}
    for reference in answered:
        try:
            lacks[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            cause = lines[-1] if lines else type(error).__name__
            lacks[asked[reference]] = Lacks([f"the pipeline does not start there: {cause}"], [])
    for reference in silent:
        ray.cancel(reference, force=True)
        silence = f"no answer within {ANSWER_S:g} s. It may be installing the job's packages, or be busy"
        lacks[asked[reference]] = Lacks([silence], [])
    return {name: found for name, found in sorted(lacks.items()) if found.faults or found.remarks}


def _one_of_each_source(plan: BuildPlan) -> tuple[str, ...]:
    return tuple({video.source: video.path for video in plan.todo}.values())


def _kinds(nodes: list[NodeResources], pools: Pools) -> Iterator[str]:
    """A line for all nodes of the same size: how many analysers each holds."""
    sized = sorted(
        (-room, -node.cpus, -node.gpus, round(node.memory / GIB, 1), node.name)
        for node, room in zip(nodes, pools.by_node, strict=True)
    )
    for (room, cpus, gpus, memory), kind in groupby(sized, key=lambda node: node[:4]):
        names = [name for *_, name in kind]
        more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
        each = " each" if len(names) > 1 else ""
        held = f"{-room:,} {'analyser' if room == -1 else 'analysers'}{each}" if room else "no analyser"
        yield (
            f"{len(names):,} with {_count(-cpus, 'CPU')}, {_count(-gpus, 'GPU')}, {memory:g} GiB: {held} "
            f"({'; '.join(names[:MOST_NAMED])}{more})"
        )


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}" if number == 1 else f"{number:g} {unit}s"


def _size(size: int) -> str:
    return (
        f"{size / 1e12:.1f} TB"
        if size >= 1e12
        else f"{size / 1e9:.1f} GB"
        if size >= 1e9
        else f"{size / 1e6:.1f} MB"
    )
