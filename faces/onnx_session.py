"""One way to open an ONNX network: single-threaded, sequential and on the device that the caller names.

A worker of the pipeline owns one core; onnxruntime's default of a thread per core would make every worker
slow all the others, and a fixed thread count also fixes the order in which sums are formed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

DEVICES = ("cpu", "cuda")


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
                "replace the package onnxruntime by onnxruntime-gpu, or set the device to 'cpu'"
            )
        providers = [
            # The heuristic search picks the same kernels in every process; the exhaustive default may not.
            ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC"}),
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
