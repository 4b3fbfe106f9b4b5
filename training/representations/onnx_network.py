"""A frozen ONNX network as a torch module: face recognition networks are published as ONNX files.

In torch it runs on the device of the step, in batches of any size, without a copy to the host. The operators are
those of face recognition networks, each with the attributes that are computed here. Any other operator, attribute
or value is an error that names it: a network that is read otherwise than it was exported gives wrong embeddings,
and nothing else shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class OnnxNetwork(nn.Module):
    """Runs the graph of an ONNX model of one input and one output; never trained.

    Its weights are in no state dict: they come from the file.

    Args:
        model: an `onnx.ModelProto` with float weights.

    Raises:
        ValueError: the graph has an operator or an attribute that is not known, or another number of inputs or
            outputs.
    """

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        super().__init__()
        graph = model.graph
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                weights[node.output[0]] = numpy_helper.to_array(_attributes(node)["value"])
        inputs = [value.name for value in graph.input if value.name not in weights]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ValueError(
                f"expected one input and one output, got {inputs} and {len(graph.output)} outputs"
            )
        self._input, self._output = inputs[0], graph.output[0].name
        self._constants: dict[str, str] = {}
        for number, (name, value) in enumerate(weights.items()):
            self._constants[name] = f"weight_{number}"
            self.register_buffer(f"weight_{number}", torch.tensor(value), persistent=False)
        nodes = [node for node in graph.node if node.op_type != "Constant"]
        if unknown := sorted({node.op_type for node in nodes} - OPERATORS.keys()):
            raise ValueError(f"the operators {', '.join(unknown)} are not known")
        self._nodes = [
            (OPERATORS[node.op_type].compute, list(node.input), node.output[0], _known_attributes(node))
            for node in nodes
        ]

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """The network's output, (N, E) of (N, 3, H, W)."""
        values: dict[str, Any] = {name: getattr(self, buffer) for name, buffer in self._constants.items()}
        values |= {self._input: images_NCHW, "": None}
        for operator, inputs, output, attributes in self._nodes:
            values[output] = operator([values[name] for name in inputs], attributes)
        found: torch.Tensor = values[self._output]
        return found


def read_onnx(path: Path) -> OnnxNetwork:
    """The network in a file.

    Raises:
        ValueError: it is no ONNX file, or has an operator or an attribute that is not known.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path))
    except DecodeError as error:
        raise ValueError(f"{path} is no ONNX file: {error}") from error
    return OnnxNetwork(model)


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _known_attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node.

    Raises:
        ValueError: one is not computed here, or a node has more than one output that is used.
    """
    found = _attributes(node)
    operator = OPERATORS[node.op_type]
    for name, value in found.items():
        if name in operator.ignored:
            continue
        if name not in operator.attributes:
            raise ValueError(f"the attribute {name} of the operator {node.op_type} is not known")
        allowed = operator.attributes[name]
        if allowed is not None and value not in allowed:
            listed = " or ".join(map(str, allowed))
            raise ValueError(
                f"the attribute {name} of the operator {node.op_type} is {value!r}, and only {listed} is known"
            )
    return found


def _conv(inputs: Sequence[Any], given: dict[str, Any]) -> torch.Tensor:
    images, kernel, *bias = inputs
    top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
    padding = (top, left)
    if (top, left) != (bottom, right):
        images, padding = functional.pad(images, (left, right, top, bottom)), (0, 0)
    return functional.conv2d(
        images,
        kernel,
        bias[0] if bias else None,
        stride=tuple(given.get("strides", (1, 1))),
        padding=padding,
        dilation=tuple(given.get("dilations", (1, 1))),
        groups=given.get("group", 1),
    )


def _batch_norm(inputs: Sequence[Any], given: dict[str, Any]) -> torch.Tensor:
    values, scale, bias, mean, variance = inputs
    return functional.batch_norm(
        values, mean, variance, scale, bias, training=False, eps=given.get("epsilon", 1e-5)
    )


def _prelu(inputs: Sequence[Any], _given: dict[str, Any]) -> torch.Tensor:
    values, slope = inputs
    if slope.shape[1:] == (1,) * (values.ndim - 2):  # a slope for each channel
        return functional.prelu(values, slope.flatten())
    return torch.where(values >= 0, values, values * slope)


def _clip(inputs: Sequence[Any], given: dict[str, Any]) -> torch.Tensor:
    values, *limits = inputs
    low, high = (*limits, None, None)[:2] if limits else (given.get("min"), given.get("max"))
    return torch.clamp(values, min=low, max=high)


def _gemm(inputs: Sequence[Any], given: dict[str, Any]) -> torch.Tensor:
    a, b, *c = inputs
    a = a.mT if given.get("transA") else a
    b = b.mT if given.get("transB") else b
    product = given.get("alpha", 1.0) * (a @ b)
    return product + given.get("beta", 1.0) * c[0] if c else product


def _flatten(inputs: Sequence[Any], given: dict[str, Any]) -> torch.Tensor:
    (values,) = inputs
    axis = given.get("axis", 1)
    return values.reshape(*values.shape[:axis], -1) if axis == 1 else values.reshape(1, -1)


def _reshape(inputs: Sequence[Any], _given: dict[str, Any]) -> torch.Tensor:
    # To a vector for each image, whatever the number of images in the file.
    values = inputs[0]
    return values.reshape(len(values), -1)


@dataclass(frozen=True)
class Operator:
    """An ONNX operator.

    Attributes:
        compute: from inputs and attributes to the first output.
        attributes: those that are computed, each with the values that are; None for all.
        ignored: attributes that make no difference to inference.
    """

    compute: Callable[[Sequence[Any], dict[str, Any]], torch.Tensor]
    attributes: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()


OPERATORS = {
    "Add": Operator(lambda inputs, _: inputs[0] + inputs[1]),
    "BatchNormalization": Operator(
        _batch_norm, {"epsilon": None, "spatial": (1,), "training_mode": (0,)}, frozenset({"momentum"})
    ),
    "Clip": Operator(_clip, {"min": None, "max": None}),
    "Conv": Operator(
        _conv,
        {"auto_pad": (b"NOTSET",), "dilations": None, "group": None, "pads": None, "strides": None},
        frozenset({"kernel_shape"}),  # that of the weights
    ),
    "Dropout": Operator(lambda inputs, _: inputs[0], ignored=frozenset({"ratio", "seed"})),
    "Flatten": Operator(_flatten, {"axis": (0, 1)}),
    "Gemm": Operator(_gemm, dict.fromkeys(("alpha", "beta", "transA", "transB"))),
    "Identity": Operator(lambda inputs, _: inputs[0]),
    "Mul": Operator(lambda inputs, _: inputs[0] * inputs[1]),
    "PRelu": Operator(_prelu),
    "Relu": Operator(lambda inputs, _: inputs[0].relu()),
    "Reshape": Operator(_reshape, {"allowzero": (0,)}),
    "Sub": Operator(lambda inputs, _: inputs[0] - inputs[1]),
}
"""By their names. Attributes of older opsets that later became inputs (of `Clip`, `Dropout`) are known."""
