"""What the user of a run sees: a progress bar on a terminal, the lines of metrics.jsonl in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from settings.units import duration

SHOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "train/loss": ("loss", "{:.4f}".format),
    "speed/targets_per_s": ("targets/s", "{:,.1f}".format),
    "speed/mfu": ("MFU", "{:.1%}".format),
    "speed/data_wait": ("data wait", "{:.1%}".format),
}
"""The figures that are shown, in this order; the others are in TensorBoard and in metrics.jsonl."""


class Display:
    """Shows how far the training is.

    Args:
        start_step: where this process began, possibly in the middle of a run.
        steps: the last step of the run.
        is_main: whether this is rank 0, which shows the figures; the others show their messages alone.
        console: where to write; standard error by default, so that results can be piped.
    """

    def __init__(
        self, start_step: int, steps: int, is_main: bool = True, console: Console | None = None
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._steps = steps
        self._is_main = is_main
        self._timed_from: tuple[float, int] | None = None
        self._bar: Progress | None = None
        if is_main and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("step"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                console=self.console,
                expand=True,
            )
            self._task = self._bar.add_task("", total=steps, completed=start_step, figures="")
            self._bar.start()

    def message(self, text: str) -> None:
        """Write one message, above the bar where there is one; any rank may."""
        self.console.print(text, markup=False)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show the figures of a step: those of training in the bar or on a line, those of validation on a line."""
        if not self._is_main:
            return
        validation = {name: value for name, value in values.items() if name.startswith("val/")}
        if validation:
            self.message(
                f"step {step:,}/{self._steps:,}  validation: {'  '.join(_with_intervals(validation))}"
            )
        labels = SHOWN | {
            name: (name.removeprefix("train/"), "{:.4f}".format)
            for name in values
            if name.startswith("train/loss_")
        }
        shown = [f"{label} {form(values[name])}" for name, (label, form) in labels.items() if name in values]
        if shown:
            self._progress(step, "  ".join([*shown, *self._time_left(step)]))

    def close(self) -> None:
        """Restore the terminal; the bar stays where it is."""
        if self._bar is not None:
            self._bar.stop()

    def _progress(self, step: int, figures: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=figures)
            return
        # Without a terminal (a Slurm log, `kubectl logs`), every line of figures: one each `run.log_every` steps.
        self.message(f"step {step:,}/{self._steps:,}  {figures}")

    def _time_left(self, step: int) -> list[str]:
        """Measured from the first figures on: the steps before them compile, warm up and fill caches."""
        now = time.monotonic()
        if self._timed_from is None:
            self._timed_from = now, step
        began_s, began = self._timed_from
        if step <= began:
            return []
        return [f"ETA {duration((now - began_s) / (step - began) * (self._steps - step))}"]


def _with_intervals(figures: Mapping[str, float]) -> Iterator[str]:
    """Each figure with its name; those with an interval as `swap_ratio 1.2000 [1.1000, 1.3000]`."""
    for name, value in figures.items():
        if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in figures:
            continue
        ends = [figures[f"{name}_{end}"] for end in ("low", "high") if f"{name}_{end}" in figures]
        interval = f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else ""
        yield f"{name.removeprefix('val/')} {value:{'d' if isinstance(value, int) else '.4f'}}{interval}"
