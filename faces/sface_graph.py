"""Makes OpenCV Zoo's block-quantised SFace run, and run fast, in onnxruntime.

onnxruntime rejects the published file: it declares its weights as graph inputs too, and some have no value.
It would also be slow: int8 weights are dequantised on every call, and PReLU has no fast kernel and keeps the
convolutions around it from sharing a memory layout. Here the weights are dequantised once, and PReLU becomes
slope * x + (1 - slope) * relu(x): the same function in operators that onnxruntime vectorises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_FOLDED = ("DequantizeLinear", "Reshape")


def runnable_sface(path: Path) -> bytes:
    """Load the ONNX file at `path` and return an equivalent model with float weights, serialised.

    Raises:
        ValueError: the file is no SFace: it has no input `data`.
    """
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(str(path))
    graph = model.graph
    data = [value for value in graph.input if value.name == "data"]
    if not data:
        raise ValueError(f"{path} is not an SFace network: it has no input `data`")

    constants = {tensor.name for tensor in graph.initializer}
    folded: list[Any] = []
    kept: list[Any] = []
    for node in graph.node:
        if node.op_type in _FOLDED and constants.issuperset(node.input):
            folded.append(node)
            constants.update(node.output)
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    names = [name for node in folded for name in node.output if name in used]
    weights_only = helper.make_model(
        helper.make_graph(
            folded,
            "weights",
            [],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names],
            initializer=graph.initializer,
        ),
        opset_imports=model.opset_import,
    )
    values = ReferenceEvaluator(weights_only).run(None, {})
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    weights += [
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in zip(names, values, strict=True)
    ]
    nodes, slopes = _without_prelu(kept, {tensor.name: tensor for tensor in weights})
    runnable = helper.make_model(
        helper.make_graph(nodes, "sface", data, graph.output, initializer=weights + slopes),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    serialised: bytes = runnable.SerializeToString()
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
