"""Checkpoints: atomic, asynchronous, sharded, and the newest few of them.

    checkpoints/
        step-000001000/            complete
            state.json             step, configuration, dataset, counters
            .metadata  __<rank>_0.distcp     the tensors: weights, optimiser, EMA
        .step-000002000.tmp-<16 hexadecimal digits>/     being written, or left by a run that was killed

A step waits only for a copy of the tensors to main memory; a thread writes them while training goes on. When all
ranks have flushed their files, rank 0 adds `state.json` and renames the directory. So a directory whose name has
no leading dot is complete, whatever was killed and when.
"""

from __future__ import annotations

import errno
import json
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
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.tensor import DTensor

from settings.section import Section
from shards.atomic import TEMPORARY, OutOfSpace, sync_folder, write_bytes
from training.engine.collectives import USER_ERRORS, Collectives
from training.engine.dcp import StoredTensors, UnreadableTensors, write_tensors
from training.engine.processes import World
from training.errors import RunEnded, TrainingError

FOLDER = "checkpoints"
STATE_FILE = "state.json"
_NAME = re.compile(r"step-(\d{9})")
_STAGES_ONCE = (2, 11) <= tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13)
"""A regression of torch 2.11: its stager frees its memory after a copy, and raises a KeyError at the next one."""
_LOG = logging.getLogger(__name__)


class SavedState(Section):
    """Metadata of a checkpoint, `state.json`."""

    format: Literal[2] = 2
    code: str
    """Version of omniid that wrote it."""
    step: int
    """Optimiser steps done. The order of the data is a function of it, so nothing else says where to resume."""
    config: dict[str, Any]
    """What shapes the result (`Config.defining`)."""
    dataset_sha256: str
    """Of the dataset's metadata."""
    frozen_digests: dict[str, str]
    """Of weights that are not trained and not saved (`IdentityModel.frozen_digests`)."""
    damaged: dict[str, str]
    """Damaged identities so far, by key, with the error of each."""
    validation_owed: bool = False
    """A stop cut the validation of this step short; the resumed run begins with it."""
    world_size: int
    """Ranks that wrote it; any other number may read it."""
    torch: str
    """Version."""


class Checkpoints:
    """The checkpoints of a run; a context manager that waits at its end for the one being written.

    Args:
        output: directory of the run.
        keep: number of newest checkpoints that are kept.
        keep_every: checkpoints at multiples of this step are kept as well.
        collectives: of the ranks.
    """

    def __init__(
        self, output: Path, keep: int, collectives: Collectives, *, keep_every: int | None = None
    ) -> None:
        self._folder = output / FOLDER
        self._keep = keep
        self._keep_every = keep_every
        self._collectives = collectives
        self._world = collectives.world
        self._stager = self._new_stager()
        self._token = collectives.broadcast(lambda: secrets.token_hex(8))
        self._thread: threading.Thread | None = None
        self._problem: str | None = None
        self.saved_step: int | None = None
        """Step of the newest checkpoint that was saved or loaded."""

    def newest(self) -> SavedState | None:
        """The newest checkpoint, from which a run resumes; removes what killed runs have left.

        Raises:
            RunEnded: it cannot be read.
        """
        return self._collectives.broadcast(self._find_newest)

    def load(self, state: SavedState, tensors: Mapping[str, torch.Tensor]) -> None:
        """Read a checkpoint into the tensors.

        Raises:
            RunEnded: it cannot be read.
        """
        path = self._path(state.step)
        remedy = "Remove it to resume from the checkpoint before, or from step 0"
        with self._collectives.barrier():
            try:
                stored = StoredTensors(path)
            except UnreadableTensors as error:
                raise TrainingError(f"the checkpoint {path} cannot be read: {error}. {remedy}") from error
        problem = None
        try:
            stored.read_into(tensors, self._world.main_group)
        except UnreadableTensors as error:
            problem = f"the checkpoint {path} cannot be read: {error}. {remedy}"
        self._collectives.all_reduce(problem=problem)
        self.saved_step = state.step

    def save(self, state: SavedState, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy the tensors and start writing them; waits until the checkpoint before is written.

        Raises:
            RunEnded: the checkpoint before cannot be written.
        """
        self.finish()
        if _STAGES_ONCE:
            self._stager = self._new_stager()
        copies = self._stager.stage(own_tensors(tensors, self._world))
        # A daemon: when another rank has ended, this thread waits for it and must not keep this process alive.
        self._thread = threading.Thread(target=self._write, args=(state, copies), daemon=True)
        self._thread.start()
        self.saved_step = state.step

    def amend(self, state: SavedState) -> None:
        """Replace the metadata of the newest checkpoint, whose tensors are the current ones.

        Raises:
            RunEnded: it cannot be written.
        """
        self.finish()
        with self._collectives.barrier():
            if self._world.is_main:
                write_bytes(self._path(state.step) / STATE_FILE, state.model_dump_json(indent=2).encode())

    def problem(self) -> str | None:
        """The error of the writer thread, once it has ended; for the next all-reduce."""
        return None if self._thread is not None and self._thread.is_alive() else self._problem

    def finish(self) -> None:
        """Wait until all ranks have written the checkpoint that was started.

        Raises:
            RunEnded: it cannot be written.
        """
        if self._thread is not None:
            self._thread.join()
        self._collectives.all_reduce(problem=self._problem)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        in_step = error is None or isinstance(error, RunEnded)
        if self._thread is not None and in_step:
            self._thread.join()

    def _new_stager(self) -> DefaultStager:
        """Copies into page-locked memory, which is reused by the next checkpoint."""
        on_gpu = self._world.device.type == "cuda"
        return DefaultStager(StagingOptions(on_gpu, False, False, on_gpu))

    def _write(self, state: SavedState, copies: Mapping[str, torch.Tensor]) -> None:
        path = self._path(state.step)
        temporary = path.with_name(f".{path.name}.tmp-{self._token}")
        try:
            with _on_own_stream(self._world.device):
                write_tensors(temporary, copies, self._world.writing)
            if self._world.is_main:
                write_bytes(temporary / STATE_FILE, state.model_dump_json(indent=2).encode())
                temporary.replace(path)
                sync_folder(self._folder)
        except USER_ERRORS as error:
            self._problem = str(error)
        except Exception as error:
            self._problem = _write_error(error, path)
        if not self._world.is_main:
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
            _check_format(path)
            return SavedState.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{path} cannot be read: {error}. Remove the directory {path.parent} to resume from the "
                "checkpoint before, or from step 0"
            ) from error

    def _remove_old(self) -> None:
        for step in self._steps()[: -self._keep]:
            if self._keep_every and step % self._keep_every == 0:
                continue
            path = self._path(step)
            # Renamed first, so that a partly removed checkpoint never has the name of a complete one.
            removed = path.with_name(f".{path.name}.tmp-{self._token}")
            try:
                path.rename(removed)
            except OSError as error:
                _LOG.warning("old checkpoint %s cannot be removed: %s", path, error)
            else:
                _remove(removed)

    def _steps(self) -> list[int]:
        matches = [_NAME.fullmatch(path.name) for path in self._folder.iterdir()]
        return sorted(int(match[1]) for match in matches if match)

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:09}"


def _check_format(path: Path) -> None:
    """Check that a checkpoint has the current format.

    Raises:
        TrainingError: it has another one; the message names the version that wrote it, where that is known.
    """
    state = json.loads(path.read_bytes())
    current = SavedState.model_fields["format"].default
    if isinstance(state, dict) and (found := state.get("format")) != current:
        wrote = f" (omniid {state['code']})" if "code" in state else ""
        raise TrainingError(
            f"{path} has checkpoint format {found}{wrote}; this version reads format {current}. Finish the run "
            "with the version that wrote it, or start a new run in another output, with representation.weights "
            "set to the encoder that the old run exports"
        )


def own_tensors(tensors: Mapping[str, torch.Tensor], world: World) -> dict[str, torch.Tensor]:
    """The tensors that this rank writes: its shards, and about 1 / world size of the replicated ones.

    Otherwise each rank would copy all replicated tensors to main memory before torch drops all copies but one.
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


@contextmanager
def _on_own_stream(device: torch.device) -> Iterator[None]:
    """Let a thread use this rank's device, on a stream of its own.

    Its default would be the first GPU of the machine, on the stream of the training steps.
    """
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_device(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        yield


def _remove(path: Path) -> None:
    """Remove a directory that is no longer used; a failure costs disk space and does not end the run."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        _LOG.warning("unused directory %s cannot be removed: %s", path, error)


def _write_error(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        free = shutil.disk_usage(path.parent).free
        return str(OutOfSpace(path, free, error.errno))
    return f"the checkpoint {path} cannot be written: {error}"
