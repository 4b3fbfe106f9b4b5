"""Weights & Biases, optional (`run.wandb`): the figures and sample grids of a run, sent by rank 0.

<output>/wandb_run_id        the run's id at W&B, under which a resumed run continues
<output>/wandb/              files of the wandb package; an offline run is uploaded from there with `wandb sync`

Figures have the step of the trainer as their x-axis (`step`). A run that resumes from a checkpoint repeats the
steps since then with the same figures, so their points coincide. Sent are figures, grids and the configuration
without credentials, and nothing that the package collects by itself: no command line, code, host, console or
error reports.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from numpy.typing import NDArray

from shards.atomic import write_bytes
from training.config import Config, Wandb
from training.errors import TrainingError

if TYPE_CHECKING:
    import numpy as np

ID_FILE = "wandb_run_id"
STEP = "step"
START_TIMEOUT_S = 60
UPLOAD_TIMEOUT_S = 120
"""Of the upload at the end of a run; `wandb sync` uploads the rest."""


def load_wandb(config: Wandb | None) -> Any:
    """The wandb package, or None where it is not used.

    Raises:
        TrainingError: it is not installed, or cannot be imported.
    """
    if config is None:
        return None
    os.environ.setdefault(
        "WANDB_ERROR_REPORTING", "false"
    )  # read at import: the package reports its errors home
    try:
        return import_module("wandb")
    except ImportError as error:
        raise TrainingError(
            f"run.wandb: the package wandb cannot be imported ({error}). Install omniid[tracking], or set "
            "run.wandb=null"
        ) from error


class WandbTracker:
    """A run at W&B.

    Args:
        config: of the whole run, with `run.wandb`.

    Raises:
        TrainingError: the package is missing, there is no API key, or the server cannot be reached.
        OutOfSpace: the disk is full.
    """

    def __init__(self, config: Config) -> None:
        wanted = config.run.wandb
        if wanted is None:
            raise ValueError("run.wandb is null")
        self._wandb = load_wandb(wanted)
        mode = {"mode": wanted.mode} if wanted.mode else {}
        run_id = _run_id(config.output)
        try:
            settings = self._wandb.Settings(
                init_timeout=START_TIMEOUT_S,
                finish_timeout=UPLOAD_TIMEOUT_S,
                finish_timeout_raises=True,
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_disable_stats=True,
                x_save_requirements=False,
                **mode,
            )
            self._wandb.setup(settings)  # for `login`, which prints lines otherwise
            # A run that has no key must end here: `init` would prompt for one, and wait.
            if settings.mode == "online" and not self._wandb.login(prompt=False):
                raise TrainingError("no API key; run `wandb login`, or set WANDB_API_KEY")
            self._run = self._wandb.init(
                project=wanted.project,
                entity=wanted.entity,
                name=wanted.name,
                id=run_id,
                resume="allow",
                dir=str(config.output),
                config=without_credentials(config.model_dump(mode="json")),
                settings=settings,
            )
            self._run.define_metric(STEP, hidden=True)
            self._run.define_metric("*", step_metric=STEP)
        except Exception as error:  # the package raises many classes
            raise TrainingError(
                f"run.wandb: {' '.join(str(error).split()) or type(error).__name__}. To start without a "
                "connection, set run.wandb.mode=offline and upload later with `wandb sync`; to start without W&B, "
                "set run.wandb=null"
            ) from error

    @property
    def name(self) -> str:
        """Where the run is found: its URL, or the directory of an offline run."""
        return str(self._run.url or Path(self._run.dir).parent)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the figures of a step; does not wait for the server."""
        self._run.log({STEP: step, **values})

    def image(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        """Send an RGB image."""
        self._run.log({STEP: step, name: self._wandb.Image(image_HWC)})

    def close(self, *, failed: bool) -> None:
        """Upload what is left, and mark the run as finished or failed.

        Raises:
            TrainingError: the server did not take all of it in time.
        """
        try:
            self._run.finish(exit_code=int(failed))
        except TimeoutError as error:
            raise TrainingError(
                f"the upload did not end within {UPLOAD_TIMEOUT_S} s; `wandb sync {Path(self._run.dir).parent}` "
                "uploads the rest"
            ) from error


def without_credentials(value: Any) -> Any:
    """A configuration without what its URLs may hold: user and password, and the signature of a query."""
    if isinstance(value, dict):
        return {key: without_credentials(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_credentials(one) for one in value]
    if isinstance(value, str) and "://" in value:
        parts = urlsplit(value)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return value


def _run_id(output: Path) -> str:
    """The id of the run in an output directory; a new one for a new run."""
    path = output / ID_FILE
    if path.exists() and (known := path.read_text(encoding="ascii").strip()):
        return known
    made = secrets.token_hex(8)
    write_bytes(path, made.encode())
    return made
