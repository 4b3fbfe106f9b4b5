"""Build MFHQ: from a directory of face videos to a verified dataset with a report.

    python pipeline/build_mfhq.py workflows/curate_embedded.yaml source.path=/data/clips output=/data/mfhq

`run` is the whole build, in order; every step has its own module. Phases are idempotent: when a build was killed,
the same command continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import typer

from faces.profiles import check_roles
from faces.registry import Weights, WeightsUnavailable
from pipeline.build_command import build_command
from pipeline.cluster import session as cluster
from pipeline.cluster.actors import Curate, Row
from pipeline.cluster.passes import Passes
from pipeline.cluster.sizing import Pools, memory_bytes
from pipeline.cluster.workers import Workers
from pipeline.config import Config
from pipeline.devices import check_device
from pipeline.errors import BuildError
from pipeline.lock import output_lock
from pipeline.model_files import load_models
from pipeline.monitor.monitor import BuildFacts
from pipeline.monitor.writer import read_state, writing
from pipeline.ownership import confirm
from pipeline.pack import check_nothing_erased, pack
from pipeline.people import findings
from pipeline.plan import BuildPlan, plan_build
from pipeline.progress import Reporter, counted
from pipeline.report.build import FOLDER as REPORT
from pipeline.report.build import write_report
from pipeline.report.rates import write_rates
from pipeline.retry import Retry, finish_retry
from pipeline.reuse import Choice
from pipeline.summary import Build
from pipeline.thresholds import with_thresholds
from shards.layout import DATASET_JSON
from shards.metadata import DatasetMetadata
from shards.verify import verify
from storage.errors import StorageError
from storage.path import AnyPath


def run(
    config: Config,
    reporter: Reporter,
    *,
    replace: bool = False,
    retry: Retry | None = None,
    staged: Choice | None = None,
) -> Build:
    """Build a dataset.

    Args:
        config: of the build.
        reporter: shows progress.
        replace: build over what another configuration left in the output directory.
        retry: finished videos to curate again.
        staged: keep or redo videos that other library versions or another device have finished; with None, such
            videos are an error.

    Raises:
        BuildError: with the error and the remedy; before any work where that can be known.
    """
    # The weights first: a missing one must end the build before hours of work, not after.
    weights = load_build_weights(config)
    config = with_thresholds(config, weights)

    with output_lock(config.output, reporter.message) as check_lock:
        # Where samples were erased nothing may be curated again, so no outcome may be dropped either.
        if retry:
            check_nothing_erased(config.output)
        # The work: the source's videos, less those that an earlier run has finished.
        plan = plan_build(config, weights, replace=replace, retry=retry, staged=staged)
        facts = BuildFacts(config.name, plan.staging.folder.name, reporter.command)
        before = None if retry else read_state(config.output)
        reporter.monitor.begin_build(facts, len(plan.manifest.videos), plan.finished, before)
        # What `mfhq status` shows.
        with writing(reporter.monitor, config.output, check_lock):
            return _run(config, weights, plan, reporter, check_lock)


def _run(
    config: Config, weights: Weights, plan: BuildPlan, reporter: Reporter, check_lock: Callable[[], None]
) -> Build:
    reporter.message(f"{len(plan.manifest.videos)} videos, {plan.finished} finished by an earlier run")
    for message in (*plan.messages, *plan.manifest.messages()):
        reporter.message(message)

    with ExitStack() as held:
        # One outcome for each video, in the staging area.
        if plan.todo:
            check_nothing_erased(config.output)
            begin = f"Joining the Ray cluster at {cluster.address()}" if cluster.joined() else "Starting Ray"
            reporter.message(f"{begin}, and loading the networks in every process, takes some seconds")
            try:
                with reporter.operator("start", None, ""):
                    held.enter_context(cluster.session())
                held.callback(reporter.monitor.publish)
                curate(config, weights, plan, reporter, check_lock)
            except KeyboardInterrupt:
                done = len(plan.staging.finished(plan.manifest.videos))
                reporter.monitor.finished(done)
                reporter.message(f"{done} of {len(plan.manifest.videos)} videos are finished")
                raise

        # All outcomes together decide on persons and splits; then the shards, by tasks in any order.
        workers = held.enter_context(cluster.workers(config, len(plan.manifest.videos), reporter))
        packed = pack(config, weights, plan, reporter, check_lock=check_lock, workers=workers)
        confirm(config.output)

        # The build is complete only after a reader has checked every byte.
        check(config.output, packed.metadata, reporter, workers)

    missing = plan.manifest.without_file
    findings.write_findings(config.output / REPORT / findings.FILE, packed.findings)
    with reporter.bar("report", len(plan.manifest.videos), "videos") as advance:
        report = write_report(config.output, counted(plan.seconds(), advance), missing)
        write_rates(config, plan)
    finish_retry(plan.staging)
    return Build(packed.metadata, report, sum(map(len, missing.values())))


def load_build_weights(config: Config) -> Weights:
    """The files of all networks that the build needs, checked.

    Raises:
        BuildError: files are missing or damaged.
    """
    models_dir = config.run.models_dir
    try:
        weights = load_models(config.models.names, models_dir)
        check_roles(config.models.model_dump(), weights)
        check_device(config.run)
    except WeightsUnavailable as error:
        remedy = "" if models_dir else "\nThen give their directory as run.models_dir=DIR."
        raise BuildError(f"{error}{remedy}") from error
    except StorageError as error:
        raise BuildError(f"run.models_dir: {error}") from error
    except ValueError as error:
        raise BuildError(str(error)) from error
    if isinstance(models_dir, Path) and not models_dir.is_dir():
        raise BuildError(
            f"run.models_dir: {models_dir} is not a directory. Give the directory of the networks' weights"
        )
    return weights


def curate(
    config: Config, weights: Weights, plan: BuildPlan, reporter: Reporter, check_lock: Callable[[], None]
) -> None:
    """Curate the unfinished videos on the cluster that is joined, largest first.

    Args:
        config: of the build.
        weights: the networks used.
        plan: names the videos.
        reporter: shows progress.
        check_lock: raises BuildError once another build has the output.

    Raises:
        BuildError: the cluster cannot run the build, too many nodes fail, or videos stay unfinished.
    """
    if address := cluster.dashboard():
        reporter.message(f"Ray's dashboard: {address}")
    passes = Passes(config, plan, reporter, check_lock)
    passes.run(lambda left, pools: _outcomes(config, weights, left, pools, passes.build))


def _outcomes(config: Config, weights: Weights, plan: BuildPlan, pools: Pools, build: str) -> Iterator[Row]:
    """One pass over the unfinished videos of a plan: the results of `Curate`."""
    import ray.data  # after cluster.session() began, which sets how Ray starts
    from ray.data import ActorPoolStrategy

    run = config.run
    # A block is a few files: many, and Ray's own work would cost more than theirs.
    shares = plan.shares(run.analysers or pools.at_first)
    files = ray.data.from_items(
        [{"files": [[video.model_dump_json() for video in file] for file in share]} for share in shares],
        override_num_blocks=len(shares),
    )
    outcomes = files.flat_map(
        # Decode, detect, track, measure, pick candidates by pose, score, choose eight images.
        Curate,
        fn_constructor_args=(config, weights, plan.staging, build),
        # As many as have room now; Ray Data adds more on nodes that join. One block each, so none queues.
        compute=ActorPoolStrategy(
            min_size=1, max_size=pools.most, initial_size=pools.at_first, max_tasks_in_flight_per_actor=1
        ),
        num_cpus=run.analyser_cpus,
        num_gpus=run.analyser_gpus,
        memory=memory_bytes(run),
        **cluster.RESTARTS,
    )
    for row in outcomes.iter_rows():
        yield from row["results"]


def check(output: AnyPath, metadata: DatasetMetadata, reporter: Reporter, workers: Workers) -> None:
    """Read the whole dataset back.

    Args:
        output: contains the dataset.
        metadata: of the dataset.
        reporter: shows progress.
        workers: read the shards.

    Raises:
        BuildError: the dataset is not sound.
    """
    identities = sum(metadata.counts.identities.values())
    try:
        with reporter.bar("verify", identities, "identities") as advance:
            findings = verify(output, lambda done: advance(done, ""), None if workers.alone else workers.run)
    except OSError as error:
        raise BuildError(
            f"cannot read the dataset back: {error}. The same command again continues"
        ) from error
    if findings:
        listed = "\n  ".join(str(finding) for finding in findings[:20])
        raise BuildError(
            f"{output} does not verify, the disk may be damaged:\n  {listed}\n"
            f"Remove {output / DATASET_JSON}, and the same command packs the finished videos again."
        )


if __name__ == "__main__":
    typer.run(build_command(run))
