"""What reads a group's units through a constant weight: linear maps that can be solved anew.

A reader computes ``y = W x + b`` from the positions *x* on one axis of a tensor. Its weight is
given as blocks ``(positions, matrix)``: the positions that the block reads, and a matrix with a
row for each of them and a column for everything that is made of it (outputs × kernel taps). All
readers have one block, but a grouped convolution has one for each group.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.groups import Analysis, Touch
from onnxtrim.toolkit.graph.labels import AxisRef, Index
from onnxtrim.toolkit.graph.values import constant_array
from onnxtrim.toolkit.stored import Stored, find_stored

Matrix = NDArray[np.float64]
Block = tuple[Index, Matrix]

_DENSE = frozenset(("Gemm", "MatMul"))
_PRODUCTS = _DENSE | {"Conv", "ConvTranspose"}
_LINEAR = _PRODUCTS | {"LSTM", "GRU", "RNN"}

_FOUND: WeakKeyDictionary[ir.Model, dict[str, Stored | None]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Reader:
    """A node that reads units through a weight.

    Attributes:
        node: Name of the node.
        operator: Its operator.
        point: The tensor and axis that it reads.
        size: Positions on that axis.
        weight: The weight.
        axis: The axis of the weight that lies on the positions.
        groups: Groups of a convolution.
        outputs: Channels of what it makes.
        padded: Whether it also reads zeros around the input.
        constant: Whether a constant can be added to every output channel.
    """

    node: str
    operator: str
    point: AxisRef
    size: int
    weight: Stored
    axis: int
    groups: int
    outputs: int
    padded: bool
    constant: bool

    @property
    def centred(self) -> bool:
        """Whether means need not be kept by the weights, because a constant makes up for them."""
        return self.constant and not self.padded

    @property
    def is_dense(self) -> bool:
        """Whether it is a product of matrices."""
        return self.operator in _DENSE

    def blocks(self, model: ir.Model) -> list[Block]:
        """The weight in a model, see the module."""
        array = self.weight.array(model).astype(np.float64)
        if self.groups == 1:
            rows = np.moveaxis(array, self.axis, 0)
            return [(np.arange(self.size), rows.reshape(self.size, -1))]
        outputs = np.split(array, self.groups)  # (outputs, positions, *kernel) of every group
        positions = np.split(np.arange(self.size), self.groups)
        matrices = [np.moveaxis(part, 1, 0).reshape(part.shape[1], -1) for part in outputs]
        return list(zip(positions, matrices, strict=True))

    def set_blocks(self, model: ir.Model, blocks: list[Block]) -> None:
        """Give the weight other values."""
        array = self.weight.array(model)
        parts = []
        for (_, matrix), part in zip(blocks, np.split(array, self.groups), strict=True):
            axis = self.axis if self.groups == 1 else 1
            shape = np.moveaxis(part, axis, 0).shape
            parts.append(np.moveaxis(matrix.reshape(shape), 0, axis))
        self.weight.write(model, np.concatenate(parts))


def find_readers(analysis: Analysis) -> list[Reader]:
    """Every reader of a unit, in the order of the graph, each once."""
    nodes = {node.name: node for node in analysis.model.graph}
    order = {name: number for number, name in enumerate(nodes)}
    found = dict.fromkeys(
        reader
        for group in analysis.groups
        for touch in group.touches
        if touch.role == "consumer"
        and (reader := _reader(analysis, touch, nodes[touch.node])) is not None
    )
    return sorted(found, key=lambda reader: (order[reader.node or ""], reader.weight.name))


def possible_biases(analysis: Analysis) -> dict[str, AxisRef]:
    """Biases that a repair may add, each with the axis of a tensor that it lies on."""
    nodes = {node.name: node for node in analysis.model.graph}
    found = {}
    for reader in find_readers(analysis):
        node = nodes[reader.node]
        if reader.constant and not _has_bias(node, reader):
            output = node.outputs[0].name or ""
            found[f"{reader.node}/bias"] = output, -1 if reader.is_dense else 1
    return found


def _has_bias(node: ir.Node, reader: Reader) -> bool:
    if node.op_type != "MatMul":
        return len(node.inputs) > 2 and node.inputs[2] is not None
    uses = list(node.outputs[0].uses())
    is_output = node.outputs[0].is_graph_output()
    if len(uses) != 1 or uses[0].node.op_type != "Add" or is_output:
        return False
    array = constant_array(uses[0].node.inputs[1 - uses[0].idx])
    return array is not None and array.shape == (reader.outputs,)


def stored(analysis: Analysis, value: ir.Value | None) -> Stored | None:
    """Where a weight of the normalised model lies; looked for once."""
    known = _FOUND.setdefault(analysis.model, {})
    name = "" if value is None else value.name or ""
    if name not in known:
        known[name] = find_stored(value)
    return known[name]


def _reader(analysis: Analysis, touch: Touch, node: ir.Node) -> Reader | None:
    operator, shapes = touch.operator, analysis.normalised.shapes
    if touch.weight is None or operator not in _LINEAR:
        return None
    if operator in _PRODUCTS and touch.weight_operand != 1:
        return None
    weight, axis = stored(analysis, node.inputs[touch.weight_operand]), touch.weight[1]
    if weight is None:
        return None
    tensor, place = touch.value
    size = shapes[tensor][place]
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    if operator == "ConvTranspose" and groups > 1:
        return None
    if operator in _DENSE and (len(weight.shape) != 2 or place != len(shapes[tensor]) - 1):
        return None
    if weight.shape[axis] * groups != size:
        return None
    outputs = 0
    if operator in _PRODUCTS:
        outputs = shapes[node.outputs[0].name or ""][-1 if operator in _DENSE else 1]
    return Reader(
        touch.node,
        operator,
        touch.value,
        size,
        weight,
        axis,
        groups,
        outputs,
        operator == "Conv" and _is_padded(node, shapes),
        _takes_constant(node, outputs),
    )


def _takes_constant(node: ir.Node, outputs: int) -> bool:
    """Whether :func:`~onnxtrim.toolkit.repair.add_to_output` can do it."""
    if node.op_type == "MatMul":
        return True
    if node.op_type not in ("Conv", "Gemm"):
        return False
    for name in ("alpha", "beta"):
        if name in node.attributes and node.attributes[name].as_float() == 0:
            return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant_array(bias)
    if bias is None:
        return True
    return array is not None and array.size == outputs and len(bias.uses()) == 1


def _is_padded(node: ir.Node, shapes: dict[str, tuple[int, ...]]) -> bool:
    pads = node.attributes.get("pads")
    auto = node.attributes.get("auto_pad")
    if auto is not None and auto.as_string().startswith("SAME"):
        kernel = shapes[node.inputs[1].name or ""][2:] if node.inputs[1] is not None else ()
        return any(size > 1 for size in kernel)
    return pads is not None and any(pads.as_ints())
