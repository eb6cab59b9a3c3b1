"""Values of a graph: constants, and what depends on nothing but constants and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_RANDOM = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli Multinomial".split()
)


def independent_values(graph: ir.Graph) -> tuple[list[ir.Value], set[str]]:
    """Values computed only from constants and shapes.

    Returns:
        All of them, and the names of those that depend on nothing but constants.
    """
    constant = {value.name or "" for value in graph.initializers.values()}
    independent = set(constant)
    found: list[ir.Value] = []
    for node in graph:
        if node.op_type in _RANDOM or any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            continue
        # CastLike takes only the type of its second operand.
        read = node.inputs[:1] if node.op_type == "CastLike" else node.inputs
        names = [value.name or "" for value in read if value is not None]
        if node.op_type in ("Shape", "Size") or all(name in independent for name in names):
            values = [value for value in node.outputs if value.name]
            found += values
            independent.update(value.name or "" for value in values)
            if all(name in constant for name in names):
                constant.update(value.name or "" for value in values)
    return found, constant


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Register an initializer under a name that no other value has."""
    # Not ascontiguousarray: it turns a scalar into a vector of one.
    tensor = ir.tensor(np.array(array, order="C"), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def constant_array(value: ir.Value | None) -> NDArray[Any] | None:
    """The values of an initializer, or ``None``."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


def is_parameter(value: ir.Value) -> bool:
    """Whether an initializer holds weights: floats, or integers that are dequantised."""
    if value.dtype is None:
        return False
    return value.dtype.is_floating_point() or any(
        usage.node.op_type == "DequantizeLinear" and usage.idx == 0 for usage in value.uses()
    )


def remove_unused(graph: ir.Graph) -> None:
    """Remove nodes and initializers that nobody reads.

    Unlike onnx-ir's pass it leaves unread outputs of nodes that stay: ONNX Runtime wants those of
    an Attention with a cache.
    """
    outputs = set(graph.outputs)
    for node in reversed(graph):
        if not any(value.uses() or value in outputs for value in node.outputs):
            graph.remove(node, safe=True)
    kept = outputs | set(graph.inputs)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in kept:
            del graph.initializers[name]
