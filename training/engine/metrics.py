"""Where the figures of a run go: the console, TensorBoard and `metrics.jsonl`, from one call.

Names are `<group>/<figure>`; TensorBoard draws a panel a group. The trainer writes `train/loss`,
`train/grad_norm`, `train/learning_rate`, `speed/images_per_s`, `speed/mfu`, `speed/data_wait` (shares of one),
`memory/peak_gb`, and the validation `val/…`. All three places survive a kill: what was logged is on the disk when
`log` returns, and a run that goes on from a checkpoint takes back what was logged past it. So a step must be
logged before its checkpoint is saved, or a kill in between loses that line.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from numpy.typing import NDArray
from rich.console import Console

from shards.atomic import remove_temporaries, write_bytes
from training.engine.console import Display
from training.engine.jsonl import JsonLines, out_of_space_in_words

if TYPE_CHECKING:
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsWriter:
    """Writes the figures of a run; a context manager, so that the terminal is restored whatever happens.

    Args:
        output: the run's folder.
        start_step: the step that the run goes on from, 0 for a new one; later figures are taken back.
        steps: the last step of the run.
        enabled: True on one process; on the others only `say` does anything.
        console: where to show progress; standard error by default.
        validation_owed: the validation of `start_step` comes again; a kill may have come between its figures and
            the checkpoint that says it is done.

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
    ) -> None:
        self._output = output
        self._lines: JsonLines | None = None
        self._board: SummaryWriter | None = None
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            with out_of_space_in_words(output / METRICS_FILE):
                self._lines = JsonLines(
                    output / METRICS_FILE, start_step, "val/" if validation_owed else None
                )
                self._board = SummaryWriter(
                    str(output / TENSORBOARD_FOLDER), purge_step=start_step + 1 if start_step else 0
                )
        self._display = Display(start_step, steps, enabled, console)

    def say(self, text: str) -> None:
        """Tell the person something, on any process, without tearing the progress bar."""
        self._display.say(text)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the figures of a step; it may be called again for the same step with others.

        Raises:
            OutOfSpace: the disk or the quota is full.
        """
        if self._lines is None or self._board is None:
            return
        self._lines.append(step, values)
        with out_of_space_in_words(self._output / TENSORBOARD_FOLDER):
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()
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
        with out_of_space_in_words(self._output / TENSORBOARD_FOLDER):
            self._board.add_image(name, image_HWC, step, dataformats="HWC")
            self._board.flush()

    def close(self) -> None:
        """Close the files and leave the terminal as it was."""
        self._display.close()
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What ended the run is worth more than that TensorBoard's last figures had no room either.
        with suppress(OSError) if error is not None else nullcontext():
            self.close()
