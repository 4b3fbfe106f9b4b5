"""What a node lacks for a build, seen from that node: paths, packages, GPU, sandbox. Opens no video."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from faces.registry import Weights
from pipeline.config import Config
from pipeline.errors import MachineFault
from pipeline.model_files import on_this_machine
from pipeline.provenance import library_versions
from pipeline.time_limit import within
from storage.path import AnyPath, path_of_listed


@dataclass(frozen=True)
class Expected:
    """What a node must find as the driver does.

    Attributes:
        videos: path of one unfinished video of each source.
        mark: a file in the output.
        content: of that file.
        versions: of the libraries that shape a dataset.
    """

    videos: tuple[str, ...]
    mark: AnyPath
    content: bytes
    versions: dict[str, str]


@dataclass(frozen=True)
class Lacks:
    """What a node lacks for a build, a sentence each.

    Attributes:
        faults: without which it cannot run analysers.
        remarks: without which it can.
    """

    faults: list[str]
    remarks: list[str]


def lacks_here(config: Config, weights: Weights, expected: Expected) -> Lacks:
    """What this machine lacks for a build.

    Args:
        config: of the build.
        weights: the networks' files, as the driver has found them.
        expected: what the driver sees.
    """
    limit_s = config.run.storage_timeout_s
    output = expected.mark.parent.parent
    faults: list[str] = []
    for video in expected.videos:
        path = path_of_listed(video)
        if fault := _fault(limit_s, path, path.exists):
            faults.append(
                f"the source's file {path} {fault}. Mount the source at the same path on every node"
            )
    if fault := _fault(limit_s, output, partial(_holds, expected.mark, expected.content)):
        faults.append(f"output {output} {fault}. Give a directory that is the same on every node")
    try:
        weights = on_this_machine(weights, config.run.models_dir)
    except MachineFault as error:
        return Lacks([*faults, str(error)], [])
    faults += _missing_weights(config, weights)
    faults += _other_versions(expected.versions)
    faults += _missing_gpu(config, weights)
    required, remarks = _missing_sandbox(config)
    return Lacks([*faults, *required], remarks)


def _fault(limit_s: float, path: AnyPath, look: Callable[[], bool]) -> str:
    """Why `look` does not succeed within a time; empty where it does."""
    try:
        return "" if within(limit_s, str(path), look) else "is not there"
    except MachineFault:
        return f"does not answer within {limit_s:g} s"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _holds(path: AnyPath, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _missing_weights(config: Config, weights: Weights) -> Iterator[str]:
    for name, found in weights.items():
        if fault := _fault(config.run.storage_timeout_s, found.path, found.path.is_file):
            yield f"the network {name} {fault}: {found.path}. Every node needs it at the same path"


def _other_versions(versions: dict[str, str]) -> Iterator[str]:
    try:
        here = library_versions()
    except importlib.metadata.PackageNotFoundError as error:
        yield f"the package {error.name} is not installed there. Install the same lock on every node"
        return
    for name, version in versions.items():
        if here[name] != version:
            yield (
                f"{name} is {here[name]} there and {version} where the build starts. Install the same lock on "
                "every node"
            )


def _missing_gpu(config: Config, weights: Weights) -> Iterator[str]:
    if config.run.device != "cuda":
        return
    import torch

    from faces.onnx_session import open_session

    for path in [found.path for found in weights.values() if found.path.suffix == ".onnx"][:1]:
        try:
            open_session(path, config.run.device)
        except Exception as error:  # whatever it is, this node would fail with its first video
            yield f"onnxruntime: {error}"
    if not torch.cuda.is_available():
        yield "torch finds no GPU. Check the driver, and that the container is given the GPU"


def _missing_sandbox(config: Config) -> tuple[list[str], list[str]]:
    """What `run.sandbox` requires, and what decoders only would be safer with."""
    from pipeline.sandbox import SandboxedDecoder

    try:
        decoder = SandboxedDecoder(mode=config.run.sandbox, threads=config.frames.decoder == "decord")
    except RuntimeError as error:
        return [str(error)], []
    decoder.close()
    return [], [f"the decoder's sandbox lacks {what}" for what in decoder.enforced.missing]
