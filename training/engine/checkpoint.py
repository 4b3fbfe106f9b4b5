"""Checkpoints: atomic, asynchronous, sharded, and the newest few of them.

    checkpoints/
        step-000001000/            whole, or it would not have this name
            state.json             step, configuration, data set, counters
            .metadata  __<rank>_0.distcp     the tensors: weights, optimiser, average of the weights
        .step-000002000.tmp-<16 hexadecimal digits>/     being written, or left by a run that was killed

The step stops only for a copy of the tensors to memory; a thread then writes them while training goes on. When
all processes have flushed their files, the first one adds `state.json` and renames the folder. So a name without
a dot means whole, whatever was killed and when.
"""

from __future__ import annotations

import errno
import logging
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.tensor import DTensor

from settings.section import Section, differences
from shards.atomic import TEMPORARY, OutOfSpace, sync_folder, write_bytes
from training.engine.consensus import IN_WORDS, Consensus
from training.engine.dcp import StoredTensors, UnreadableTensors, write_tensors
from training.engine.processes import World
from training.errors import RunEnded, TrainingError
from training.models.digest import weights_digest
from training.models.stage import Stage

FOLDER = "checkpoints"
STATE_FILE = "state.json"
_NAME = re.compile(r"step-(\d{9})")
_LOG = logging.getLogger(__name__)


class SavedState(Section):
    """What a checkpoint says about itself, in `state.json`."""

    format: Literal[1] = 1
    step: int
    """Optimiser steps done. The order of the data is a function of it, so nothing else says where to go on."""
    config: dict[str, Any]
    """What shapes the result (`Config.defining`)."""
    dataset_sha256: str
    """Of the data set's manifest."""
    frozen_digest: str = ""
    """Of weights that are not trained and not saved (`Stage.frozen_digest`)."""
    damaged: dict[str, str]
    """Damaged identities met so far, and what is wrong with each."""
    validation_owed: bool = False
    """A stop cut the validation of this step short: the run makes up for it when it goes on."""
    world_size: int
    """Processes that wrote it; any other number may read it."""
    torch: str
    """Version."""


class Checkpoints:
    """The checkpoints of a run; a context manager that lets a checkpoint being written be finished.

    Args:
        output: the run's folder.
        keep: the newest so many stay.
        consensus: of the processes.
    """

    def __init__(self, output: Path, keep: int, consensus: Consensus) -> None:
        self._folder = output / FOLDER
        self._keep = keep
        self._consensus = consensus
        self._world = consensus.world
        on_gpu = self._world.device.type == "cuda"
        # Copies into page-locked memory, which is kept from one checkpoint to the next.
        self._stager = DefaultStager(StagingOptions(on_gpu, False, False, on_gpu))
        self._token = consensus.from_leader(lambda: secrets.token_hex(8))
        self._thread: threading.Thread | None = None
        self._problem: str | None = None
        self.saved_step: int | None = None
        """Of the newest checkpoint that was saved or loaded."""

    def newest(self) -> SavedState | None:
        """The newest checkpoint, which a run goes on from; what killed runs left behind is removed.

        Raises:
            RunEnded: it cannot be read.
        """
        return self._consensus.from_leader(self._find_newest)

    def load(self, state: SavedState, tensors: Mapping[str, torch.Tensor]) -> None:
        """Read a checkpoint into the tensors.

        Raises:
            RunEnded: it cannot be read.
        """
        path = self._path(state.step)
        remedy = "Remove it, and the run goes on from the one before, or from the start"
        with self._consensus.together():
            try:
                stored = StoredTensors(path)
            except UnreadableTensors as error:
                raise TrainingError(f"the checkpoint {path} cannot be read: {error}. {remedy}") from error
        problem = None
        try:
            stored.read_into(tensors, self._world.control)
        except UnreadableTensors as error:
            problem = f"the checkpoint {path} cannot be read: {error}. {remedy}"
        self._consensus.agree(problem=problem)
        self.saved_step = state.step

    def save(self, state: SavedState, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy the tensors and begin to write them; waits for the checkpoint before, if that is not written yet.

        Raises:
            RunEnded: the checkpoint before could not be written.
        """
        self.finish()
        copies = self._stager.stage(own_share(tensors, self._world))
        # A daemon: when another process has died, this thread waits for it and must not keep this one alive.
        self._thread = threading.Thread(target=self._write, args=(state, copies), daemon=True)
        self._thread.start()
        self.saved_step = state.step

    def amend(self, state: SavedState) -> None:
        """Replace what the newest checkpoint, whose tensors are those of now, says about itself.

        Raises:
            RunEnded: it could not be written.
        """
        self.finish()
        with self._consensus.together():
            if self._world.leads:
                write_bytes(self._path(state.step) / STATE_FILE, state.model_dump_json(indent=2).encode())

    def problem(self) -> str | None:
        """What was wrong with writing, once that is known; for the next exchange."""
        return None if self._thread is not None and self._thread.is_alive() else self._problem

    def finish(self) -> None:
        """Wait until what was begun is written on all processes.

        Raises:
            RunEnded: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
        self._consensus.agree(problem=self._problem)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        together = error is None or isinstance(error, RunEnded)
        if self._thread is not None and together:
            self._thread.join()

    def _write(self, state: SavedState, copies: Mapping[str, torch.Tensor]) -> None:
        path = self._path(state.step)
        temporary = path.with_name(f".{path.name}.tmp-{self._token}")
        try:
            with _beside_training(self._world.device):
                write_tensors(temporary, copies, self._world.writing)
            if self._world.leads:
                write_bytes(temporary / STATE_FILE, state.model_dump_json(indent=2).encode())
                temporary.replace(path)
                sync_folder(self._folder)
        except IN_WORDS as error:
            self._problem = str(error)
        except Exception as error:
            self._problem = _in_words(error, path)
        if not self._world.leads:
            return
        if self._problem:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            self._remove_old()

    def _find_newest(self) -> SavedState | None:
        if not self._folder.is_dir():
            return None
        for path in self._folder.iterdir():
            if TEMPORARY.match(path.name):
                _remove(path)
        steps = self._steps()
        if not steps:
            return None
        path = self._path(steps[-1]) / STATE_FILE
        try:
            return SavedState.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise TrainingError(
                f"{path} cannot be read: {error}. Remove the folder {path.parent}, and the run goes on from "
                "the checkpoint before, or from the start"
            ) from error

    def _remove_old(self) -> None:
        for step in self._steps()[: -self._keep]:
            path = self._path(step)
            # Under a temporary name first, so that a checkpoint half removed is never taken for a whole one.
            doomed = path.with_name(f".{path.name}.tmp-{self._token}")
            try:
                path.rename(doomed)
            except OSError as error:
                _LOG.warning("%s, of which there are newer ones, cannot be removed: %s", path, error)
            else:
                _remove(doomed)

    def _steps(self) -> list[int]:
        matches = [_NAME.fullmatch(path.name) for path in self._folder.iterdir()]
        return sorted(int(match[1]) for match in matches if match)

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:09}"


def own_share(tensors: Mapping[str, torch.Tensor], world: World) -> dict[str, torch.Tensor]:
    """What this process writes: its shards and, of the tensors that all have alike, about as much as each other.

    Without it every process would copy all of them to main memory, where torch would then find out that one
    copy is enough.
    """
    own = {}
    sizes = [0] * world.world_size
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].nbytes, item[0])):
        if isinstance(tensor, DTensor):
            own[name] = tensor
            continue
        writer = sizes.index(min(sizes))
        sizes[writer] += tensor.nbytes
        if writer == world.rank:
            own[name] = tensor
    return own


def check_same_run(saved: SavedState, config: dict[str, Any], dataset_sha256: str, output: Path) -> None:
    """Refuse to go on with another configuration or data set than the checkpoint's.

    Raises:
        TrainingError: naming what differs.
    """
    changed = differences(saved.config, config)
    if saved.dataset_sha256 != dataset_sha256:
        changed.append(f"data set (sha256 of its manifest): {saved.dataset_sha256} -> {dataset_sha256}")
    if changed:
        listed = "\n  ".join(changed)
        raise TrainingError(
            f"{output} holds checkpoints of another run, which differs in\n  {listed}\n"
            "Give the configuration of that run to go on with it, or another output to start a new one"
        )


def check_alike(stage: Stage, saved: SavedState | None, output: Path, consensus: Consensus) -> None:
    """Refuse to train networks that are not the same everywhere, or around others than those of the checkpoint.

    Raises:
        RunEnded: they are others.
    """
    frozen, whole = stage.frozen_digest, weights_digest(stage)
    frozen_there, whole_there = consensus.gather((frozen, whole))[0]
    with consensus.together():
        if frozen != frozen_there:
            raise TrainingError(
                "what is not trained, of FLUX (flow.base) or an autoencoder (flow.scratch.vae), has other weights "
                "here than at the first process; give all machines the same folder"
            )
        if whole != whole_there:
            raise TrainingError(
                "what is trained begins with other weights here than at the first process; give all machines the "
                "same flow.encoder or model.clip, and the same version of torch"
            )
        if saved and saved.frozen_digest not in {"", frozen}:
            raise TrainingError(
                f"{output} holds checkpoints of a run around another FLUX (flow.base) or autoencoder "
                "(flow.scratch.vae), whose weights are others now. Give the same again to go on, or another "
                "output to start a new run"
            )


@contextmanager
def _beside_training(device: torch.device) -> Iterator[None]:
    """Let a thread use this process's device, on a stream of its own.

    By itself it would use the first GPU of the machine, and wait for the steps of training with every megabyte.
    """
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_device(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        yield


def _remove(path: Path) -> None:
    """Remove a folder that nobody will read; what stays of it costs room, and the run goes on."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        _LOG.warning("%s is of no more use and cannot be removed: %s", path, error)


def _in_words(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        free = shutil.disk_usage(path.parent).free
        return str(OutOfSpace(path, free, error.errno))
    return f"the checkpoint {path} cannot be written: {error}"
