"""Changes ONNX networks so that onnxruntime runs them, in batches.

onnxruntime rejects OpenCV Zoo's block-quantised files: some declare weights as graph inputs without a value, and
its kernel for block-quantised biases fails. Dequantising on every call would also be slow. So the weights are
dequantised once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_FOLDED = ("DequantizeLinear", "Reshape")


def with_float_weights(path: Path, kind: str, data: str) -> Any:
    """The `onnx.ModelProto` of a file, its weights as floats.

    Args:
        path: ONNX file.
        kind: what the network is called in an error.
        data: name of its one input that is no weight.

    Raises:
        ValueError: the file has no such input.
    """
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(str(path))
    graph = model.graph
    inputs = [value for value in graph.input if value.name == data]
    if not inputs:
        raise ValueError(f"{path} is not {kind}: it has no input `{data}`")
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
    return helper.make_model(
        helper.make_graph(kept, graph.name, inputs, graph.output, initializer=weights),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )


def with_free_axes(model: Any, *axes: int) -> Any:
    """The model with these axes of its input free, and with outputs of unknown shape.

    Args:
        model: an `onnx.ModelProto`, which is changed.
        axes: of its input.
    """
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    for axis in axes:
        dimensions[axis].ClearField("dim_value")
        dimensions[axis].dim_param = f"axis_{axis}"
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model
