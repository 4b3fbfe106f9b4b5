"""Makes OpenCV Zoo's SFace fast in onnxruntime.

PReLU has no fast kernel there and keeps the convolutions around it from sharing a memory layout. It becomes
slope * x + (1 - slope) * relu(x): the same function in operators that onnxruntime vectorises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from faces.onnx_graph import with_float_weights, with_free_axes


def runnable_sface(path: Path) -> bytes:
    """An equivalent of the ONNX file at `path` for any number of faces, serialised.

    Raises:
        ValueError: the file is no SFace: it has no input `data`.
    """
    model = with_free_axes(with_float_weights(path, "an SFace network", "data"), 0)
    graph = model.graph
    nodes, slopes = _without_prelu(list(graph.node), {tensor.name: tensor for tensor in graph.initializer})
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(slopes)
    serialised: bytes = model.SerializeToString()
    return serialised


def _without_prelu(nodes: list[Any], weights: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Replace every PReLU; returns the new nodes and the tensors of 1 - slope that they need."""
    from onnx import helper, numpy_helper

    replaced: list[Any] = []
    complements: list[Any] = []
    for node in nodes:
        if node.op_type != "PRelu":
            replaced.append(node)
            continue
        (x, slope), y = node.input, node.output[0]
        complement = np.float32(1) - numpy_helper.to_array(weights[slope])
        complements.append(numpy_helper.from_array(complement, f"{y}_complement"))
        replaced += [
            helper.make_node("Relu", [x], [f"{y}_relu"]),
            helper.make_node("Mul", [f"{y}_relu", f"{y}_complement"], [f"{y}_upper"]),
            helper.make_node("Mul", [x, slope], [f"{y}_lower"]),
            helper.make_node("Add", [f"{y}_upper", f"{y}_lower"], [y]),
        ]
    return replaced, complements
