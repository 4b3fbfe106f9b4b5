"""From a table, a size and seeds to jobs: runs of commands, each with its output directory and what it needs.

A job's directory is named after everything that shapes its result, so rows that share a stage share its run, and a
changed workflow is another run. `<output>/runs/<stage>-<digest>-seed<n>`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from settings.loading import read_workflow
from settings.section import ConfigError
from training.config import Config
from training.experiments.config import Program, Row, Size, Stage, Table, Tree
from training.models.sizes import SIZES

DATASET, SIZE, LATENTS = "dataset", "size", "latents"
_NAMED = re.compile(r"\$\{([a-z][a-z0-9_]*)(?:@(\d+)%)?(?::([a-z0-9_-]+))?\}")
EXPORT, EVALUATE = "export", "evaluate"


class MissingDatasetError(ConfigError):
    """A row names a dataset that was not given."""


@dataclass(frozen=True)
class Job:
    """One run of a command.

    Attributes:
        name: of its output directory; jobs of the same name are the same job.
        action: a `Program`, `export` or `evaluate`.
        settings: the workflow of a training, the options of others.
        needs: jobs whose outputs it reads.
    """

    name: str
    action: str
    settings: Tree
    needs: tuple[Job, ...] = ()

    def output(self, root: Path) -> Path:
        """Its output directory below that of all experiments."""
        return root / ("evaluations" if self.action == EVALUATE else "runs") / self.name


@dataclass(frozen=True)
class Plan:
    """What a table takes.

    Attributes:
        table: that is planned.
        evaluations: the job whose result is a row's, for each seed.
    """

    table: Table
    evaluations: Mapping[str, tuple[Job, ...]]

    def jobs(self) -> list[Job]:
        """All jobs, each once, behind those that it needs."""
        found: dict[str, Job] = {}
        # One seed of all rows tells more than all seeds of a few.
        for of_one_seed in zip(*self.evaluations.values(), strict=True):
            for job in of_one_seed:
                for each in with_needs(job):
                    found.setdefault(each.name, each)
        return list(found.values())


def plan(
    table: Table,
    size: Size,
    *,
    seeds: int,
    root: Path,
    datasets: Mapping[str, str],
    digests: Mapping[str, str] | None = None,
    models_dir: Path | None = None,
    rows: Sequence[str] = (),
) -> Plan:
    """The jobs of a table.

    Args:
        table: to plan.
        size: at which it is run.
        seeds: runs of each row, with the seeds 0, 1, …
        root: output directory of all experiments, absolute.
        datasets: paths or URLs by name; `dataset` is that of training and evaluation.
        digests: of the datasets, by name, which name the jobs in place of the paths.
        models_dir: directory of the weights registry's files.
        rows: of the table; all when empty.

    Raises:
        ConfigError: a row names a stage, dataset or key that there is not, or its configuration is invalid.
    """
    unknown = sorted(set(rows) - {row.name for row in table.rows})
    if unknown:
        known = ", ".join(row.name for row in table.rows)
        raise ConfigError(f"{table.name} has no row {unknown[0]!r}. Choose from {known}")
    chosen = [row for row in table.rows if not rows or row.name in rows]

    def evaluation(row: Row, seed: int) -> Job:
        directory = None if models_dir is None else str(models_dir)
        planner = _Planner(row, size, seed, root, datasets, directory, digests or {})
        return planner.evaluation(table.inputs)

    return Plan(table, {row.name: tuple(evaluation(row, seed) for seed in range(seeds)) for row in chosen})


def merged(base: Tree, changes: Tree) -> Tree:
    """A tree with the changes of another: mappings are merged, other values replaced."""
    return base | {
        key: merged(base[key], value)
        if isinstance(value, dict) and isinstance(base.get(key), dict)
        else value
        for key, value in changes.items()
    }


@dataclass
class _Planner:
    """Plans the jobs of one row and seed."""

    row: Row
    size: Size
    seed: int
    root: Path
    datasets: Mapping[str, str]
    models_dir: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    found: dict[str, Job] = field(default_factory=dict)

    def evaluation(self, inputs: Sequence[int]) -> Job:
        last = self.stage(list(self.row.stages)[-1])
        settings = {
            **self.size.evaluation.options(self.models_dir),
            "source": str(last.output(self.root)),
            "data": self.dataset(DATASET),
            "inputs": list(inputs),
        }
        identity = settings | {"source": last.name, "data": self.digests.get(DATASET, settings["data"])}
        if self.models_dir is not None:
            settings["models_dir"] = self.models_dir
        return Job(_name(last.name, identity), EVALUATE, settings, (last,))

    def stage(self, name: str) -> Job:
        """The job that trains a stage, and before it those that it needs."""
        if name in self.found:
            return self.found[name]
        stage = self.size.stages.get(name)
        own = self.row.stages.get(name)
        if stage is None or (own is None and stage.program == Program.TRAIN):
            raise ConfigError(f"row {self.row.name}: it needs a stage {name!r}, which it does not have")
        tree = merged(self._base(stage), own or {})
        needs: dict[str, Job] = {}
        identity, settings = (self._replaced(tree, needs, short) for short in (True, False))
        seed = self.seed if stage.seeded else 0
        identity["seed"] = settings["seed"] = seed
        if name_of_size := identity.get("representation", {}).get("size"):
            identity["networks"] = SIZES[name_of_size].model_dump() if name_of_size in SIZES else None
        job = Job(_name(f"{name}-seed{seed}", identity), stage.program, settings, tuple(needs.values()))
        if stage.program == Program.TRAIN:
            settings["output"] = str(job.output(self.root))
            if self.models_dir is not None and str(settings["representation"].get("kind")).startswith(
                "arcface"
            ):
                settings["representation"]["models_dir"] = self.models_dir
            self._validated(settings, name)
        self.found[name] = job
        return job

    def _base(self, stage: Stage) -> Tree:
        if stage.workflow is None:
            return merged({"data": f"${{{DATASET}}}"}, stage.overrides)
        tree = merged({"data": {"root": f"${{{DATASET}}}"}}, read_workflow(Path(stage.workflow)))
        return merged(tree, stage.overrides)

    def _validated(self, settings: Tree, stage: str) -> Config:
        try:
            return Config.model_validate(settings)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
            )
            raise ConfigError(f"row {self.row.name}, stage {stage}: {faults}") from error

    def _replaced(self, value: Any, needs: dict[str, Job], short: bool) -> Any:
        """A tree in which outputs and datasets are named: by jobs' names where short, else by their paths."""
        if isinstance(value, dict):
            return {key: self._replaced(item, needs, short) for key, item in value.items()}
        if isinstance(value, list):
            return [self._replaced(item, needs, short) for item in value]
        if not isinstance(value, str):
            return value

        whole = _NAMED.fullmatch(value)
        if whole and whole[1] == SIZE:  # not always text
            return self._replaced(self._value(whole[3]), needs, short)

        def named(match: re.Match[str]) -> str:
            name, percent, variant = match.groups()
            if name == DATASET:
                place = self.dataset(variant or DATASET)
                return self.digests.get(variant or DATASET, place) if short else place
            if match[0] == f"${{{LATENTS}}}":
                return name if short else str(self.root / LATENTS)
            job = self.stage(name) if percent is None else self._export(name, int(percent))
            needs[job.name] = job
            return job.name if short else str(job.output(self.root))

        found = _NAMED.sub(named, value)
        if "${" in found:
            raise ConfigError(
                f"row {self.row.name}: {value!r} is not understood. Expected ${{stage}}, ${{stage@20%}}, "
                "${dataset}, ${dataset:NAME}, ${latents} or ${size:NAME}"
            )
        return found

    def _export(self, stage: str, percent: int) -> Job:
        """The export of a stage's checkpoint after a share of its steps."""
        trained = self.stage(stage)
        config = self._validated(trained.settings, stage)
        step, kept = config.steps * percent // 100, config.checkpoints.keep_every
        if not kept or step % kept or not step:
            raise ConfigError(
                f"row {self.row.name}: {percent}% of the steps of {stage} is step {step:,}, whose checkpoint is "
                f"not kept. Set checkpoints.keep_every of the stage to a divisor of it (given: {kept})"
            )
        settings = {"run": str(trained.output(self.root)), "step": step}
        return Job(f"{trained.name}-step{step}", EXPORT, settings, (trained,))

    def _value(self, name: str | None) -> Any:
        if name is None or name not in self.size.values:
            raise ConfigError(f"row {self.row.name}: the size has no value {name!r}")
        return self.size.values[name]

    def dataset(self, name: str) -> str:
        """Path or URL of a dataset.

        Raises:
            MissingDatasetError: it was not given.
        """
        if name not in self.datasets:
            option = "--data DATASET" if name == DATASET else f"--data {name}=DATASET"
            raise MissingDatasetError(f"row {self.row.name} needs the dataset {name!r}. Pass {option}")
        return self.datasets[name]


def _name(stem: str, identity: Tree) -> str:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    stage, _, rest = stem.partition("-")
    return f"{stage}-{digest[:10]}{'-' + rest if rest else ''}"


def with_needs(job: Job) -> Iterator[Job]:
    """A job behind all that it needs; what several need comes several times."""
    for needed in job.needs:
        yield from with_needs(needed)
    yield job
