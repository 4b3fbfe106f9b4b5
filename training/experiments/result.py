"""The result of a table's row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A figure of a row.

    Attributes:
        value: mean over seeds.
        low: lower end of its 95 % interval.
        high: upper end.
        seeds: values by seed.
        paper: the paper's, if it has one.
    """

    value: float
    low: float
    high: float
    seeds: Mapping[int, float]
    paper: float | None


Figures = dict[str, dict[int, Figure]]
"""By the name of the figure and the number of inputs."""


@dataclass(frozen=True)
class RowResult:
    """A row, as far as it is evaluated.

    Attributes:
        row: its name.
        label: what it is called at this size.
        x: where it stands in a figure; None in tables.
        figures: by figure and number of inputs; empty before a seed is evaluated.
        minus_first: the same, minus the first row; empty for that row, and before both have an evaluated seed in
            common.
        network: identity network that measured; None before a seed is evaluated.
        seeds: how many are evaluated.
        planned: how many the experiment has.
        code_versions: of the code that evaluated.
        warnings: of the evaluations, each once.
        without: figures of the table that the evaluated seeds do not have.
        not_compared: seeds in common with the first row that were evaluated under other conditions
            (`Evaluated.conditions`).
    """

    row: str
    label: str
    x: float | None
    figures: Figures
    minus_first: Figures
    network: str | None
    seeds: int
    planned: int
    code_versions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    not_compared: int = 0
