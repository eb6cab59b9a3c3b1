"""What reads a group's units through a constant weight: linear maps that can be solved anew.

A reader computes ``y = W x + b`` from the positions *x* on one axis of a tensor. Its weight is
given as blocks ``(positions, matrix)``: the positions that the block reads, and a matrix with a
row for each of them and a column for everything that is made of it (outputs × kernel taps). All
readers have one block, but a grouped convolution has one for each group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.groups import Analysis, Touch
from onnxtrim.toolkit.graph.labels import AxisRef, Index
from onnxtrim.toolkit.graph.surgery import set_constant
from onnxtrim.toolkit.graph.values import constant_array

Matrix = NDArray[np.float64]
Block = tuple[Index, Matrix]

_DENSE = frozenset(("Gemm", "MatMul"))
_LINEAR = _DENSE | {"Conv", "ConvTranspose", "LSTM", "GRU", "RNN"}


@dataclass(frozen=True)
class Reader:
    """A node that reads units through a weight.

    Attributes:
        node: Name of the node.
        operator: Its operator.
        point: The tensor and axis that it reads.
        size: Positions on that axis.
        weight: The initializer.
        axis: The axis of the initializer that lies on the positions.
        groups: Groups of a convolution.
        padded: Whether it also reads zeros around the input.
    """

    node: str
    operator: str
    point: AxisRef
    size: int
    weight: str
    axis: int
    groups: int = 1
    padded: bool = False

    @property
    def is_dense(self) -> bool:
        """Whether it is a product of matrices."""
        return self.operator in _DENSE

    def blocks(self, model: ir.Model) -> list[Block]:
        """The weight in a model, see the module."""
        array = self._array(model).astype(np.float64)
        if self.groups == 1:
            rows = np.moveaxis(array, self.axis, 0)
            return [(np.arange(self.size), rows.reshape(self.size, -1))]
        outputs = np.split(array, self.groups)  # (outputs, positions, *kernel) of every group
        positions = np.split(np.arange(self.size), self.groups)
        matrices = [np.moveaxis(part, 1, 0).reshape(part.shape[1], -1) for part in outputs]
        return list(zip(positions, matrices, strict=True))

    def set_blocks(self, model: ir.Model, blocks: list[Block]) -> None:
        """Give the weight other values."""
        array = self._array(model)
        parts = []
        for (_, matrix), part in zip(blocks, np.split(array, self.groups), strict=True):
            axis = self.axis if self.groups == 1 else 1
            shape = np.moveaxis(part, axis, 0).shape
            parts.append(np.moveaxis(matrix.reshape(shape), 0, axis))
        value = model.graph.initializers[self.weight]
        set_constant(value, np.concatenate(parts).astype(array.dtype))

    def _array(self, model: ir.Model) -> NDArray[np.generic]:
        array = constant_array(model.graph.initializers[self.weight])
        assert array is not None  # `find_readers` saw to it
        return array


def find_readers(analysis: Analysis) -> list[Reader]:
    """Every reader of a unit, in the order of the graph, each once."""
    order = {node.name: number for number, node in enumerate(analysis.model.graph)}
    found = dict.fromkeys(
        reader
        for group in analysis.groups
        for touch in group.touches
        if (reader := _reader(analysis, touch)) is not None
    )
    return sorted(found, key=lambda reader: (order[reader.node], reader.weight))


def unsolvable(analysis: Analysis) -> Iterator[Touch]:
    """Consumers of units that are no readers: products of two activations and the like."""
    for group in analysis.groups:
        for touch in group.touches:
            if touch.role == "consumer" and _reader(analysis, touch) is None:
                yield touch


def _reader(analysis: Analysis, touch: Touch) -> Reader | None:
    if touch.role != "consumer" or touch.weight is None or touch.operator not in _LINEAR:
        return None
    found = _initializer(analysis.model.graph, touch.weight)
    if found is None:
        return None
    weight, axis = found
    shapes = analysis.normalised.shapes
    tensor, place = touch.value
    size = shapes[tensor][place]
    node = next(node for node in analysis.model.graph if node.name == touch.node)
    groups = 1
    if touch.operator == "Conv" and "group" in node.attributes:
        groups = node.attributes["group"].as_int()
    if shapes[weight][axis] * groups != size:
        return None
    padded = touch.operator == "Conv" and _is_padded(node, shapes)
    return Reader(touch.node, touch.operator, touch.value, size, weight, axis, groups, padded)


def _initializer(graph: ir.Graph, ref: AxisRef) -> AxisRef | None:
    """The float initializer that a weight is, directly or transposed, if nothing else reads it."""
    name, axis = ref
    value = graph.initializers.get(name)
    if value is None:
        made = next((n for n in graph for v in n.outputs if v.name == name), None)
        if made is None or made.op_type != "Transpose" or len(made.outputs[0].uses()) > 1:
            return None
        value = made.inputs[0]
        rank = len(value.shape) if value is not None and value.shape is not None else 0
        perm = made.attributes.get("perm")
        order = list(range(rank))[::-1] if perm is None else list(perm.as_ints())
        axis = order[axis]
    array = constant_array(value)
    if value is None or array is None or not np.issubdtype(array.dtype, np.floating):
        return None
    if len(value.uses()) > 1 or value.is_graph_output():
        return None
    return value.name or "", axis


def _is_padded(node: ir.Node, shapes: dict[str, tuple[int, ...]]) -> bool:
    pads = node.attributes.get("pads")
    auto = node.attributes.get("auto_pad")
    if auto is not None and auto.as_string().startswith("SAME"):
        kernel = shapes[node.inputs[1].name or ""][2:] if node.inputs[1] is not None else ()
        return any(size > 1 for size in kernel)
    return pads is not None and any(pads.as_ints())
