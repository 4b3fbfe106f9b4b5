"""Where the figures of a run go: the console, TensorBoard, `metrics.jsonl` and, optionally, Weights & Biases.

Names are `<group>/<figure>`; TensorBoard shows a panel a group. The trainer writes `train/loss`,
`train/grad_norm`, `train/learning_rate`, `speed/targets_per_s`, `speed/mfu`, `speed/data_wait` (shares of one),
`memory/peak_gb`, and the validation `val/…`. The files survive a kill: figures are on the disk when `log`
returns, and a run that resumes from a checkpoint removes those past it. So a step must be logged before its
checkpoint is saved, or a kill in between loses that line. Weights & Biases never ends a run: an error of it is a
message, and the last that it gets.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from numpy.typing import NDArray
from rich.console import Console

from shards.atomic import remove_temporaries, write_bytes
from training.engine.console import Display
from training.engine.jsonl import JsonLines, as_out_of_space
from training.engine.tracking import WandbTracker

if TYPE_CHECKING:
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsWriter:
    """Writes the figures of a run; a context manager, which restores the terminal after an error too.

    Args:
        output: directory of the run.
        start_step: the step that the run resumes from, 0 for a new one; later figures are removed.
        steps: the last step of the run.
        enabled: True on rank 0; on the others only `message` does anything.
        console: where to show progress; standard error by default.
        validation_owed: the validation of `start_step` is repeated; a kill may have come between its figures and
            the checkpoint that marks it as done.
        tracker: gets the same figures and images.

    Raises:
        OutOfSpace: the disk or the quota is full.
    """

    def __init__(
        self,
        output: Path,
        start_step: int,
        steps: int,
        enabled: bool = True,
        console: Console | None = None,
        *,
        validation_owed: bool = False,
        tracker: WandbTracker | None = None,
    ) -> None:
        self._tracker = tracker
        self._output = output
        self._lines: JsonLines | None = None
        self._board: SummaryWriter | None = None
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            with as_out_of_space(output / METRICS_FILE):
                self._lines = JsonLines(
                    output / METRICS_FILE, start_step, "val/" if validation_owed else None
                )
                self._board = SummaryWriter(
                    str(output / TENSORBOARD_FOLDER), purge_step=start_step + 1 if start_step else 0
                )
        self._display = Display(start_step, steps, enabled, console)

    def message(self, text: str) -> None:
        """Show a message to the user, on any rank, above the progress bar."""
        self._display.message(text)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the figures of a step; it may be called again for the same step with others.

        Raises:
            OutOfSpace: the disk or the quota is full.
        """
        if self._lines is None or self._board is None:
            return
        self._lines.append(step, values)
        with as_out_of_space(self._output / TENSORBOARD_FOLDER):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()
        self._track(lambda tracker: tracker.log(step, values))
        self._display.show(step, values)

    def image(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        """Write an RGB image to `<output>/<name>/step-<step>.png` and to TensorBoard.

        Raises:
            OutOfSpace: the disk or the quota is full.
        """
        if self._board is None:
            return
        from PIL import Image

        png = io.BytesIO()
        Image.fromarray(image_HWC).save(png, "PNG")
        path = self._output / name / f"step-{step:09}.png"
        remove_temporaries(path.parent)
        write_bytes(path, png.getvalue())
        with as_out_of_space(self._output / TENSORBOARD_FOLDER):
            self._board.add_image(name, image_HWC, step, dataformats="HWC")
            self._board.flush()
        self._track(lambda tracker: tracker.image(step, name, image_HWC))

    def close(self, *, failed: bool = False) -> None:
        """Close the files and restore the terminal; `failed` marks the run as such at Weights & Biases."""
        self._display.close()
        self._track(lambda tracker: tracker.close(failed=failed))
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The error that ended the run must not be replaced by one of TensorBoard's last figures.
        with suppress(OSError) if error is not None else nullcontext():
            self.close(failed=error is not None)

    def _track(self, send: Callable[[WandbTracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            send(self._tracker)
        except Exception as error:  # of any class, and none of them may end the run
            self._tracker = None
            self.message(
                f"W&B gets no more figures of this run: {error or type(error).__name__}. The run is not affected, "
                f"and {self._output / METRICS_FILE} has all figures"
            )
