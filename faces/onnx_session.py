"""One way to run an ONNX network: single-threaded, sequential, in batches, on the device that the caller names.

A worker of the pipeline owns one core; onnxruntime's default of a thread per core would make every worker
slow all the others, and a fixed thread count also fixes the order in which sums are formed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from faces.onnx_graph import with_free_axes
from faces.types import Floats

DEVICES = ("cpu", "cuda")
BATCH = {"cpu": 1, "cuda": 16}
"""Images a call. On a CPU a call of several takes longer than several calls, because their layers no longer fit
into the cache. No config key, because a GPU chooses its kernels by shape."""


class DeviceFailure(RuntimeError):  # noqa: N818 - names the event
    """A GPU failed: its memory ran out, or it is lost. Later calls will fail too."""


Output = dict[str, Floats]
"""A network's outputs for one image, by name."""


def open_session(network: Path | bytes, device: str = "cpu") -> Any:
    """Open an `onnxruntime.InferenceSession` with one thread.

    Args:
        network: path of an ONNX file, or a serialised model.
        device: "cpu" or "cuda". There is no fallback: "cuda" without a CUDA provider is an error.

    Raises:
        ValueError: unknown device.
        RuntimeError: `device` is "cuda" and this onnxruntime cannot use it.
    """
    import onnxruntime

    if device not in DEVICES:
        raise ValueError(f"device {device!r} is not one of {', '.join(DEVICES)}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    if device == "cpu":
        providers: list[Any] = ["CPUExecutionProvider"]
    else:
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise RuntimeError(
                "device 'cuda' needs onnxruntime's CUDA provider, which is not installed: "
                "replace the package onnxruntime by onnxruntime-gpu[cuda,cudnn], or set the device to 'cpu'"
            )
        # CUDA's libraries of torch's wheels, which the system's loader does not find.
        onnxruntime.preload_dlls()
        providers = [
            # The heuristic search picks the same kernels in every process; the exhaustive default may not.
            # TF32 keeps 10 bits of each factor: another embedding than a CPU's in the third digit.
            ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}),
            "CPUExecutionProvider",
        ]
    source = network if isinstance(network, bytes) else str(network)
    session = onnxruntime.InferenceSession(source, sess_options=options, providers=providers)
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError(
            "onnxruntime has a CUDA provider but could not start it: check that the driver and the CUDA and "
            "cuDNN libraries match onnxruntime-gpu, or set the device to 'cpu'"
        )
    return session


class BatchedSession:
    """A network that takes any number of images, a fixed number in each call.

    The last call of a batch is filled up with zeros: on a GPU kernels are chosen by shape, and with another kernel
    the last bits differ. On a CPU the outputs are the same to the bit for every batch.

    Args:
        network: path of an ONNX file, or a serialised model; one input, (N, C, H, W).
        device: "cpu" or "cuda".
        split: from an output for N images to (N, ...), when it is not a reshape.
    """

    def __init__(
        self,
        network: Path | bytes,
        device: str = "cpu",
        split: Callable[[Floats, int], Floats] | None = None,
    ) -> None:
        self._device = device
        self._batch = BATCH.get(device, 1)
        if self._batch > 1:
            import onnx

            is_path = isinstance(network, Path)
            model = onnx.load(str(network)) if is_path else onnx.load_from_string(network)
            network = with_free_axes(model, 0).SerializeToString()
        self._session = open_session(network, device)
        self._input: str = self._session.get_inputs()[0].name
        self._split = split or _images_first
        self.output_names: list[str] = [output.name for output in self._session.get_outputs()]

    def run(self, images: Floats) -> list[Output]:
        """The outputs of each of N images, (N, C, H, W).

        Raises:
            DeviceFailure: the network failed on a GPU.
        """
        found: list[Output] = []
        for start in range(0, len(images), self._batch):
            some = images[start : start + self._batch]
            missing = self._batch - len(some)
            if missing:
                some = np.concatenate([some, np.zeros((missing, *some.shape[1:]), some.dtype)])
            outputs = self._call(some)
            parts = [self._split(output, self._batch) for output in outputs]
            found.extend(
                {name: part[row] for name, part in zip(self.output_names, parts, strict=True)}
                for row in range(self._batch - missing)
            )
        return found

    def _call(self, images: Floats) -> list[Floats]:
        try:
            outputs: list[Floats] = self._session.run(self.output_names, {self._input: images})
        except Exception as error:
            # onnxruntime's own errors have no common class of their own.
            if self._device == "cuda":
                raise DeviceFailure(" ".join(str(error).split())) from error
            raise
        return outputs


def _images_first(output: Floats, count: int) -> Floats:
    return output.reshape(count, -1, output.shape[-1])
