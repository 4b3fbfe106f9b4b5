"""Build MFHQ: from a directory of face videos to a verified dataset with a report.

    python pipeline/build_mfhq.py workflows/curate_embedded.yaml source.path=/data/clips output=/data/mfhq

`run` is the whole build, in order; every step has its own module. Phases are idempotent: when a build was killed,
the same command continues it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import typer

from faces.profiles import check_roles
from faces.registry import Weights, WeightsUnavailable
from pipeline import cluster
from pipeline.actors import Analyse, Choose, Curate
from pipeline.build_command import build_command
from pipeline.config import Config
from pipeline.devices import check_device
from pipeline.errors import BuildError
from pipeline.lock import output_lock
from pipeline.model_files import load_models
from pipeline.ownership import confirm
from pipeline.pack import check_nothing_erased, pack
from pipeline.people import findings
from pipeline.plan import BuildPlan, plan_build, unstaged
from pipeline.progress import Reporter
from pipeline.report.build import FOLDER as REPORT
from pipeline.report.build import write_report
from pipeline.report.rates import write_rates
from pipeline.retry import Retry, finish_retry
from pipeline.reuse import Choice
from pipeline.summary import Build
from pipeline.thresholds import with_thresholds
from shards.layout import DATASET_JSON
from shards.metadata import DatasetMetadata
from shards.schema import Status
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
        return _run(config, weights, plan, reporter, check_lock)


def _run(
    config: Config, weights: Weights, plan: BuildPlan, reporter: Reporter, check_lock: Callable[[], None]
) -> Build:
    reporter.message(f"{len(plan.manifest.videos)} videos, {plan.finished} finished by an earlier run")
    for message in (*plan.messages, *plan.manifest.messages()):
        reporter.message(message)

    # One outcome for each video, in the staging area.
    if plan.todo:
        check_nothing_erased(config.output)
        reporter.message("Starting Ray, and loading the networks in every process, takes some seconds")
        try:
            curate(config, weights, plan, reporter, check_lock)
        except KeyboardInterrupt:
            done = len(plan.staging.finished(plan.manifest.videos))
            reporter.message(f"{done} of {len(plan.manifest.videos)} videos are finished")
            raise

    # All outcomes together decide on persons and splits; then the shards, in canonical order.
    packed = pack(config, weights, plan, reporter, check_lock)
    confirm(config.output)

    # The build is complete only after a reader has checked every byte.
    check(config.output, packed.metadata, reporter)

    missing = plan.manifest.without_file
    findings.write_findings(config.output / REPORT / findings.FILE, packed.findings)
    report = write_report(config.output, plan.seconds(), missing)
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
    """Curate the unfinished videos on the cluster, largest first.

    Args:
        config: of the build.
        weights: the networks used.
        plan: names the videos.
        reporter: shows progress.
        check_lock: raises BuildError once another build has the output.

    Raises:
        BuildError: the cluster cannot run the build, or a step failed that is no single video's fault.
    """
    with cluster.session():
        _curate(config, weights, plan, reporter, check_lock)
    if lost := unstaged(plan):
        raise BuildError(
            f"{len(lost)} videos, such as {lost[0].video_id}, were curated, but {config.output} does not contain "
            "their results. Check that output is the same directory on every node, then run the same command "
            "again."
        )


def _curate(
    config: Config, weights: Weights, plan: BuildPlan, reporter: Reporter, check_lock: Callable[[], None]
) -> None:
    import ray.data  # after cluster.session() began, which sets how Ray starts
    from ray.data import ActorPoolStrategy

    run = config.run
    at_first, most = cluster.analysers(run, len(plan.files))
    steps = (config, weights, plan.staging)

    # A block is one file (a few, in a very large source), so that a lost worker costs little.
    files = ray.data.from_items(
        [{"videos": [video.model_dump_json() for video in videos]} for videos in plan.interleaved()],
        override_num_blocks=plan.blocks,
    )
    outcomes = files.flat_map(
        # Decode, detect, track, measure, pick candidates by pose; without scorers, also score and choose eight.
        Analyse if run.scorers else Curate,
        fn_constructor_args=steps,
        compute=ActorPoolStrategy(min_size=1, max_size=most, initial_size=at_first),
        num_cpus=run.analyser_cpus,
        num_gpus=run.analyser_gpus,
        memory=cluster.analyser_memory(run),
        **cluster.RESTARTS,
    )
    if run.scorers:
        outcomes = outcomes.map(
            Choose,
            fn_constructor_args=steps,
            compute=ActorPoolStrategy(size=run.scorers),
            num_cpus=run.scorer_cpus,
            num_gpus=run.scorer_gpus,
            memory=cluster.SCORER_MEMORY,
            **cluster.RESTARTS,
        )
    with reporter.bar("curate", len(plan.todo)) as advance:
        counts: Counter[str] = Counter()
        unenforced = {""}
        for outcome in outcomes.iter_rows():
            check_lock()
            if outcome["fault"]:
                raise BuildError(outcome["fault"])
            if outcome["unenforced"] not in unenforced:
                unenforced.add(outcome["unenforced"])
                reporter.message(
                    f"The decoder's sandbox is incomplete on a node: {outcome['unenforced']}. "
                    "run.sandbox=required makes this an error"
                )
            if outcome["message"]:
                reporter.message(outcome["message"])
            counts[outcome["status"]] += 1
            advance(counts.total(), "  ".join(f"{counts[status]} {status.value}" for status in Status))


def check(output: AnyPath, metadata: DatasetMetadata, reporter: Reporter) -> None:
    """Read the whole dataset back.

    Raises:
        BuildError: the dataset is not sound.
    """
    identities = sum(metadata.counts.identities.values())
    try:
        with reporter.bar("verify", identities) as advance:
            findings = verify(output, lambda done: advance(done, ""))
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
