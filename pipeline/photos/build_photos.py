"""Makes a dataset of photographs: `run` is all of it, in order.

Phases are idempotent: when a run was killed, the same command continues it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from faces.profiles import check_roles
from faces.registry import Weights, WeightsUnavailable
from pipeline.cluster.workers import MANY_SHARDS, InProcess, Processes, Workers
from pipeline.config import digest
from pipeline.errors import BuildError, MachineFault
from pipeline.layout import PHOTOGRAPHS
from pipeline.lock import output_lock
from pipeline.model_files import load_models
from pipeline.ownership import claim_output, confirm
from pipeline.pack import check_nothing_erased
from pipeline.photos import dataset
from pipeline.photos.config import PhotosConfig
from pipeline.photos.listing import Listing, list_people
from pipeline.photos.outcomes import FAILED, PhotographOutcome, write_list
from pipeline.photos.split import held_out
from pipeline.photos.staged import StagedPeople, is_finished
from pipeline.photos.task import CuratePerson, PersonTask
from pipeline.progress import Reporter
from pipeline.provenance import library_versions
from pipeline.report.build import FOLDER as REPORT
from pipeline.report.build import write_report
from shards.atomic import OutOfSpace
from shards.metadata import DatasetMetadata
from shards.schema import IMAGES_PER_IDENTITY
from shards.verify import verify
from storage.errors import StorageError
from storage.path import AnyPath


@dataclass(frozen=True)
class PhotosBuild:
    """A finished dataset of photographs.

    Attributes:
        metadata: the content of dataset.json.
        photographs: number by status and reason; the reason of used and spare ones is empty.
        report: path of the page.
        listed: path of the list of photographs.
        curated: photographs that this run has curated.
        seconds: that it took to curate them.
        processes: that curated them.
    """

    metadata: DatasetMetadata
    photographs: Counter[tuple[str, str]]
    report: AnyPath
    listed: AnyPath
    curated: int
    seconds: float
    processes: int


def run(
    config: PhotosConfig, reporter: Reporter, *, replace: bool = False, retry_failed: bool = False
) -> PhotosBuild:
    """Make a dataset of photographs.

    Args:
        config: of the dataset.
        reporter: shows progress.
        replace: write over what another configuration left in the output directory.
        retry_failed: curate the people again of whom a photograph failed in an earlier run.

    Raises:
        BuildError: with the error and the remedy; before any work where that can be known.
    """
    weights = _load_weights(config)
    listing = list_people(config.source.path)
    _check_split(config, listing)
    for message in listing.messages():
        reporter.message(message)
    with output_lock(config.output, reporter.message) as check_lock:
        check_nothing_erased(config.output)
        staging = _claim(config, weights, listing, replace=replace)
        if retry_failed:
            _forget_failed(listing, staging)
        try:
            return _run(config, weights, listing, staging, reporter=reporter, check_lock=check_lock)
        except MachineFault as error:
            raise BuildError(str(error)) from error
        except (OutOfSpace, StorageError):
            raise
        except OSError as error:
            raise BuildError(
                f"{error.filename or config.output}: {error.strerror or error}. The same command again continues "
                "with all finished people"
            ) from error


def _run(
    config: PhotosConfig,
    weights: Weights,
    listing: Listing,
    staging: StagedPeople,
    *,
    reporter: Reporter,
    check_lock: Callable[[], None],
) -> PhotosBuild:
    # People, in processes of this machine; then those who are not held out once more, seen in a mirror.
    tasks = [PersonTask(person) for person in listing.people]
    started = time.monotonic()
    workers, processes = _workers(config)
    curate = CuratePerson(config, weights, staging)
    done = _curate(tasks, curate, workers, reporter, check_lock)
    rows = dataset.rows_of(tasks, staging, config.source.license)
    test = held_out(rows.identified, config.split)
    _check_held_out(config, rows.identified, test, reporter)
    if config.people.mirrored:
        mirrored = [PersonTask(task.person, True) for task in tasks if task.person.name not in test]
        done += _curate(mirrored, curate, workers, reporter, check_lock)
        tasks += mirrored
        rows = dataset.rows_of(tasks, staging, config.source.license)
    seconds = time.monotonic() - started

    samples = dataset.placed(rows, test)
    with reporter.bar("pack", len(samples), "identities") as advance:
        metadata = dataset.write(
            config,
            weights,
            staging,
            rows,
            samples,
            progress=lambda written: advance(written, ""),
            check_lock=check_lock,
        )
    confirm(config.output)
    _check(config.output, metadata, reporter)

    counts: Counter[tuple[str, str]] = Counter()
    listed = config.output / REPORT / PHOTOGRAPHS
    write_list(listed, _counted(dataset.photographs(tasks, staging), counts))
    report = write_report(config.output)
    return PhotosBuild(metadata, counts, report, listed, done, seconds, processes)


def _load_weights(config: PhotosConfig) -> Weights:
    """The files of all networks, checked.

    Raises:
        BuildError: files are missing or damaged, or a network does not fit its role.
    """
    models_dir = config.run.models_dir
    roles = {role: name for role, name in config.models.model_dump().items() if name is not None}
    try:
        weights = load_models(config.models.names, models_dir)
        check_roles(roles, weights)
    except WeightsUnavailable as error:
        remedy = "" if models_dir else "\nThen give their directory as run.models_dir=DIR."
        raise BuildError(f"{error}{remedy}") from error
    except ValueError as error:
        raise BuildError(str(error)) from error
    return weights


def _check_split(config: PhotosConfig, listing: Listing) -> None:
    """Check, before any work, that there can be enough people to hold out.

    Raises:
        BuildError: there cannot.
    """
    least = config.people.fill_from or IMAGES_PER_IDENTITY
    enough = sum(len(person.files) >= least for person in listing.people)
    wanted = config.split.test_people
    if wanted is not None and enough <= wanted:
        raise BuildError(
            f"split.test_people={wanted}: {config.source.path} has {enough} people with {least} photographs or "
            "more, which leaves no person to train on. Give a lower number, or more people"
        )


def _check_held_out(
    config: PhotosConfig, people: Sequence[str], test: frozenset[str], reporter: Reporter
) -> None:
    if people and len(test) == len(people):
        raise BuildError(
            f"all {len(people)} people who have an identity are held out. Lower split.test_people or "
            "split.test_fraction, then run the same command again; it continues"
        )
    if people and not test and config.split.test_people != 0:
        reporter.message(
            f"None of {len(people)} people is held out: split.test_fraction={config.split.test_fraction:g}. "
            "split.test_people=NUMBER holds out so many."
        )


def _claim(config: PhotosConfig, weights: Weights, listing: Listing, *, replace: bool) -> StagedPeople:
    """Make the output directory ours; its staging area.

    Raises:
        BuildError: it belongs to something else, or cannot be used.
    """
    digests = {name: model.sha256 for name, model in sorted(weights.items())}
    curation = config.curation(digests, library_versions())
    staging = StagedPeople.of(config.output, digest(curation))
    ours = {**config.defining(), "curation": curation, "path": str(config.source.path)}

    def cost() -> str:
        there = staging.finished()
        finished = sum(is_finished(person, there) for person in listing.people)
        return f"{len(listing.people) - finished} of {len(listing.people)} people are then curated again."

    try:
        claim_output(config.output, ours, replace=replace, cost=cost)
    except OSError as error:
        raise BuildError(
            f"output {config.output} cannot be used: {error.filename}: {error.strerror}. Give a directory that "
            "can be written to."
        ) from error
    return staging


def _workers(config: PhotosConfig) -> tuple[Workers, int]:
    # A photograph may take all of its time, and its decoder may have to start once more.
    silence_s = config.run.storage_timeout_s + 2 * config.run.photograph_timeout_s
    processes = Processes(config.run.processes, silence_s)
    return (InProcess(), 1) if config.run.processes == 1 else (processes, processes.count)


def _forget_failed(listing: Listing, staging: StagedPeople) -> None:
    """Drop the finished people of whom a photograph failed."""
    there = staging.finished()
    for person in listing.people:
        if not is_finished(person, there):
            continue
        if any(photograph.status == FAILED for photograph in staging.photographs(person)):
            for mirrored in (False, True):
                staging.path(person, mirrored=mirrored).unlink(missing_ok=True)


def _curate(
    tasks: Sequence[PersonTask],
    curate: CuratePerson,
    workers: Workers,
    reporter: Reporter,
    check_lock: Callable[[], None],
) -> int:
    """Curate the people who are not finished; the number of their photographs."""
    there = curate.staging.finished()
    todo = [task for task in tasks if not is_finished(task.person, there, mirrored=task.mirrored)]
    if len(todo) < len(tasks):
        reporter.message(f"{len(tasks) - len(todo)} of {len(tasks)} people are finished by an earlier run")
    # The largest first, so that none is left for the end.
    todo.sort(key=lambda task: (-len(task.person.files), task.person.name))
    total = sum(len(task.person.files) for task in todo)
    done = people = identities = 0
    if not todo:
        return 0
    with reporter.bar("curate", total, "photographs") as advance:
        for _, result in workers.run(curate, todo, check_lock):
            if result.missing and not people:
                reporter.message(
                    f"The sandbox of the decoders is not complete on this machine: {result.missing}"
                )
            done, people = done + result.photographs, people + 1
            identities += result.identities
            advance(done, f"{people} of {len(todo)} people, {identities} identities")
    return done


def _check(output: AnyPath, metadata: DatasetMetadata, reporter: Reporter) -> None:
    """Read the whole dataset back.

    Raises:
        BuildError: the dataset is not sound.
    """
    run_tasks = Processes().run if len(metadata.shards) >= MANY_SHARDS else None
    with reporter.bar("verify", sum(metadata.counts.identities.values()), "identities") as advance:
        findings = verify(output, lambda done: advance(done, ""), run_tasks)
    if findings:
        listed = "\n  ".join(str(finding) for finding in findings[:20])
        raise BuildError(f"{output} does not verify, the disk may be damaged:\n  {listed}")


def _counted(
    photographs: Iterator[PhotographOutcome], counts: Counter[tuple[str, str]]
) -> Iterator[PhotographOutcome]:
    for photograph in photographs:
        counts[photograph.status, str(photograph.reason or "")] += 1
        yield photograph
