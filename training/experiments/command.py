"""`omniid experiment`: train and evaluate the rows of one of the paper's tables, and print it."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from settings.section import ConfigError
from settings.version import project_version
from shards.layout import DATASET_JSON
from storage.errors import StorageError
from storage.path import path_of
from training.data.dataset import open_dataset
from training.errors import TrainingError
from training.evaluate.command import RETRY_S
from training.evaluate.networks import NetworkNames
from training.evaluate.people import held_out_people
from training.experiments.commands import is_done, process_count
from training.experiments.config import Table, load_size, load_table
from training.experiments.plan import DATASET, EVALUATE, Job, MissingDatasetError, Plan, plan, with_needs
from training.experiments.run import run_jobs
from training.experiments.slurm import submit
from training.experiments.table import collect, write_sheet, write_table


@dataclass(frozen=True)
class Options:
    """How the jobs of a table are run.

    Attributes:
        seeds: runs of each row.
        rows: of the table; all when empty.
        models_dir: directory of the weights registry's files.
        processes: of torchrun on this machine, or ranks of a training on Slurm; None for one process.
        slurm: options of sbatch; None to run here.
        only_list: print the jobs and what is done, and run nothing.
        only_table: print and write the table of what is done, and run nothing.
    """

    seeds: int = 1
    rows: tuple[str, ...] = ()
    models_dir: Path | None = None
    processes: str | None = None
    slurm: str | None = None
    only_list: bool = False
    only_table: bool = False


def run_experiment(
    name: str,
    size_name: str,
    data: Sequence[str],
    output: Path,
    options: Options,
    *,
    message: Callable[[str], None],
    result: Callable[[str], None],
) -> None:
    """Train, evaluate and print a table; what is done before is skipped.

    Args:
        name: of the table or figure.
        size_name: of the size.
        data: the dataset, and other datasets as NAME=DATASET.
        output: directory of all experiments; tables share their runs in it.
        options: how the jobs are run.
        message: receives progress.
        result: receives the table.

    Raises:
        ConfigError: a name or a configuration is not valid; nothing has been run.
        DatasetError: the dataset is damaged; nothing has been run.
        TrainingError: nothing has been run, because files of networks that measure are missing, or the dataset
            holds no people out; or jobs failed, or were stopped. Then the table is printed before, without the
            rows that are not finished.
    """
    table, size = load_table(name), load_size(size_name)
    ranks = _ranks(options)
    root, models_dir = _folders(output, options.models_dir)
    datasets = named_datasets(data)
    planned_rows = partial(
        plan,
        table,
        size,
        root=root,
        datasets=datasets,
        digests={name: dataset_digest(place) for name, place in datasets.items()},
        models_dir=models_dir,
    )
    available, missing = _available(table, planned_rows)
    planned = planned_rows(rows=options.rows or available, seeds=options.seeds)
    # Before days of work: a workflow that is changed meanwhile would give other names.
    known = _reported(available, planned_rows, options.seeds, root)
    jobs = planned.jobs()
    done = sum(is_done(job, root) for job in jobs)
    message(f"{table.title}: {len(planned.evaluations)} rows, {len(jobs)} jobs, {done} done before")
    for lacking in missing:
        message(f"not in the table: {lacking}")
    if options.only_list:
        rows = rows_of_jobs(planned)
        for job in jobs:
            state = "done" if is_done(job, root) else "open"
            result(f"{state}  {job.action:<11} {job.output(root)}  ({', '.join(rows[job.name])})")
        return
    failure = None if options.only_table else _run(jobs, root, options, ranks, message)
    try:
        for lacking in () if options.only_table else missing:
            message(f"not in the table: {lacking}")  # said before days of work, and again beside their result
        _report(known, size_name, data, root, message=message, result=result)
        if options.only_table and not all(is_done(job, root) for job in jobs):
            message("Not all jobs are done. The same command without --table runs them")
    finally:
        if failure is not None:
            raise failure


def _ranks(options: Options) -> int:
    """Ranks of a training.

    Raises:
        ConfigError: --processes is no number above 0, or is gpu with --slurm.
    """
    if options.processes is None:
        return 1
    if options.slurm is not None and options.processes == "gpu":
        raise ConfigError(
            "--processes: gpu counts this machine's. With --slurm, pass the ranks of a training"
        )
    return process_count(options.processes)


def _folders(output: Path, models_dir: Path | None) -> tuple[Path, Path | None]:
    """The directories of the command line as absolute paths.

    Raises:
        ConfigError: the output is a file, or there is no directory of weights.
    """
    root = output.expanduser().resolve()
    if root.exists() and not root.is_dir():
        raise ConfigError(f"--output: {output} is not a directory")
    if models_dir is None:
        return root, None
    if not models_dir.expanduser().is_dir():
        raise ConfigError(f"--models-dir: there is no directory {models_dir}")
    return root, models_dir.expanduser().resolve()


def _run(
    jobs: Sequence[Job], root: Path, options: Options, ranks: int, message: Callable[[str], None]
) -> TrainingError | None:
    """Run or submit what is not done.

    Returns:
        What went wrong: jobs that failed or were stopped, or could not be submitted.

    Raises:
        DatasetError: the dataset is damaged.
        TrainingError: what evaluations need is missing, and nothing has been run.
    """
    open_jobs = [job for job in jobs if not is_done(job, root)]
    _check_networks(open_jobs)
    _check_held_out(open_jobs)
    try:
        if options.slurm is not None:
            submit(jobs, root, shlex.split(options.slurm), message, ranks)
        else:
            run_jobs(jobs, root, message, options.processes)
    except TrainingError as error:
        return error
    return None


def _available(
    table: Table, planned_rows: Callable[..., Plan]
) -> tuple[list[str], list[MissingDatasetError]]:
    """The names of the rows whose datasets are given, and why the others are missing.

    Args:
        table: with all rows.
        planned_rows: plans rows, with a number of seeds.
    """
    rows, missing = [], []
    for row in table.rows:
        try:
            planned_rows(rows=[row.name], seeds=1)
            rows.append(row.name)
        except MissingDatasetError as error:
            missing.append(error)
    return rows, missing


def _reported(rows: Sequence[str], planned_rows: Callable[..., Plan], seeds: int, root: Path) -> Plan:
    """What the table shows: rows, and further seeds that were run before.

    Args:
        rows: whose datasets are given.
        planned_rows: plans rows, with a number of seeds.
        seeds: that are asked for.
        root: output directory of all experiments.
    """
    found: Plan = planned_rows(rows=rows, seeds=seeds)
    while True:
        more: Plan = planned_rows(rows=rows, seeds=seeds + 1)
        if not any(is_done(jobs[seeds], root) for jobs in more.evaluations.values()):
            return found
        found, seeds = more, seeds + 1


def rows_of_jobs(planned: Plan) -> dict[str, list[str]]:
    """The rows that need each job, by its name."""
    found: dict[str, list[str]] = {}
    for row, evaluations in planned.evaluations.items():
        for name in {job.name for evaluation in evaluations for job in with_needs(evaluation)}:
            found.setdefault(name, []).append(row)
    return found


def named_datasets(data: Sequence[str]) -> dict[str, str]:
    """Datasets by name, from `DATASET` and `NAME=DATASET`; local ones as absolute paths.

    Raises:
        ConfigError: two have one name, or none is without one.
    """
    found: dict[str, str] = {}
    for given in data:
        name, equals, place = given.partition("=")
        if not equals or "/" in name:
            name, place = DATASET, given
        if not place:
            raise ConfigError(f"--data: {given!r} names no dataset. Pass DATASET or NAME=DATASET")
        if name in found:
            raise ConfigError(f"--data: {name} is given twice. Pass one DATASET, and others as NAME=DATASET")
        found[name] = place if "://" in place else str(Path(place).expanduser().resolve())
    if DATASET not in found:
        raise ConfigError("--data: give the dataset of the experiment too, without a name: --data DATASET")
    return found


def _check_networks(jobs: Sequence[Job]) -> None:
    """Check the files of the networks that measure: their evaluations come after hours of training.

    Raises:
        TrainingError: files are missing or other ones.
    """
    needed = {
        (job.settings["profile"], tuple(job.settings["networks"]), job.settings.get("models_dir"))
        for job in jobs
        if job.action == EVALUATE
    }
    for profile, networks, models_dir in needed:
        NetworkNames.of(profile, networks).files(models_dir and Path(models_dir))


def _check_held_out(jobs: Sequence[Job]) -> None:
    """Check that the datasets of evaluations hold people out.

    Raises:
        DatasetError: a dataset is damaged.
        TrainingError: it holds out fewer than two people.
    """
    for data, people in {
        (job.settings["data"], job.settings.get("people")) for job in jobs if job.action == EVALUATE
    }:
        held_out_people(open_dataset(data, RETRY_S), people)


def dataset_digest(place: str) -> str:
    """Digest of a dataset's metadata, which lists the digests of all its files.

    Raises:
        ConfigError: there is no finished dataset.
    """
    try:
        found = (path_of(place) / DATASET_JSON).read_bytes()
    except (OSError, StorageError) as error:
        raise ConfigError(f"--data: {place} is no finished dataset, or cannot be read: {error}") from error
    return hashlib.sha256(found).hexdigest()


def _report(
    planned: Plan,
    size_name: str,
    data: Sequence[str],
    root: Path,
    *,
    message: Callable[[str], None],
    result: Callable[[str], None],
) -> None:
    size = load_size(size_name)
    results = collect(planned, size, root)
    facts = {"data": list(data), "version": project_version()}
    written, text = write_table(planned, size_name, results, root, facts)
    result(text)
    if not written:
        message(
            f"{root}/{planned.table.name}-{size_name}.json has more evaluations than this command finds, and is "
            "not replaced. Give the --data and --models-dir that they were run with, or delete it"
        )
        return
    try:
        if sheet := write_sheet(planned, size, size_name, root):
            written.append(sheet)
    except TrainingError as error:
        message(
            f"no sheet of images: {error}. The evaluation counts as done until its evaluation.json is deleted"
        )
    message(f"written: {', '.join(map(str, written))}")
