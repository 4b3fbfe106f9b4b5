"""Sharded files of tensors, as torch's distributed checkpoint writes them, read without trusting them.

The format keeps its table of contents (`.metadata`) as a pickle, which torch reads with no restriction: who can
write a checkpoint could run code in the process that resumes from it. Here only the classes of such a table are
allowed, and only tensors, which torch reads with `weights_only`.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

TABLE = ".metadata"
# Without `BytesStorageMetadata`, whose contents torch would unpickle.
_IN_A_TABLE = {
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
}


class UnreadableTensors(ValueError):  # noqa: N818 - names the fault of the files
    """The files cannot be read, or are not those of a checkpoint."""


def write_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], group: dist.ProcessGroup) -> None:
    """Write tensors, each rank its shards; a collective. Flushed to the disk when it returns.

    Raises:
        OSError: a rank could not write.
    """
    writer = dcp.FileSystemWriter(folder, sync_files=False)  # `_File` does it
    writer.fs = _Files()
    try:
        dcp.save(dict(tensors), storage_writer=writer, process_group=group)
    except CheckpointException as failure:
        raise _cause(failure) from failure


class StoredTensors(dcp.FileSystemReader):
    """Tensors in a directory; opening it reads their table of contents.

    Raises:
        UnreadableTensors: there is none, or it lists something other than tensors.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._table = _read_table(folder / TABLE)

    def read_into(self, tensors: Mapping[str, torch.Tensor], group: dist.ProcessGroup | None) -> None:
        """Read into tensors, which may be sharded differently.

        Args:
            tensors: to fill.
            group: a collective of its ranks; None for a process that reads alone, also among other ranks.

        Raises:
            UnreadableTensors: files are missing or damaged, or hold other tensors.
        """
        try:
            dcp.load(dict(tensors), storage_reader=self, process_group=group, no_dist=group is None)
        except CheckpointException as failure:
            raise UnreadableTensors(str(_cause(failure))) from failure

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The table of contents, for torch."""
        self._table.storage_meta = StorageMeta(load_id=self.load_id)
        return self._table


def _read_table(path: Path) -> Metadata:
    try:
        with path.open("rb") as file:
            table = _TableUnpickler(file).load()
    except Exception as error:  # a damaged pickle raises anything
        raise UnreadableTensors(f"{path.name}: {_text(error)}") from error
    if not isinstance(table, Metadata):
        raise UnreadableTensors(f"{path.name} is not a table of contents")
    return table


def _cause(failure: CheckpointException) -> Exception:
    """The error of the lowest rank that has one."""
    rank, (error, _) = min(failure.failures.items())
    return error if isinstance(error, OSError) else RuntimeError(f"rank {rank}: {_text(error)}")


def _text(error: BaseException) -> str:
    """A truncated file raises errors without a text."""
    return str(error) or f"{type(error).__name__}, as for a truncated file"


class _File(io.BufferedWriter):
    """Keeps the error of a write: torch's serialiser drops it and reports "unexpected pos" instead."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise

    def close(self) -> None:
        """Flush to the disk; some versions of torch would do so before this buffer is empty."""
        try:
            if not self.closed:
                self.flush()
                os.fsync(self.fileno())
        finally:
            super().close()


class _Files(FileSystem):
    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[io.IOBase]:
        if mode != "wb":
            with super().create_stream(path, mode) as stream:
                yield stream
            return
        with _File(io.FileIO(path, "w")) as file:
            try:
                yield file
            except RuntimeError as error:
                raise file.failure or error from None


class _TableUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _IN_A_TABLE.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")
