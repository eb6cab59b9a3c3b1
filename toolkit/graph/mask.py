"""The reference that surgery must equal: the original with the removed units masked.

A unit is masked where it is *read*: its slice of the consumer's constant operand becomes zero, or,
where two activations meet, a ``Where`` is put on the edge (not ``Mul``: 0 * inf is NaN). This needs
no knowledge of what happens between producer and consumer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.execute import Probe, tensor_values
from onnxtrim.toolkit.graph.groups import Analysis, Touch
from onnxtrim.toolkit.graph.normalise import add_initializer, constant_array
from onnxtrim.toolkit.graph.resize import unique_name
from onnxtrim.toolkit.graph.surgery import Keep


def mask_units(model: ir.Model, analysis: Analysis, keep: Keep) -> ir.Model:
    """A copy of ``model`` in which no consumer sees the units that ``keep`` leaves out."""
    result = model.clone()
    nodes = {node.name: node for node in result.graph}
    edges = _edge_types(model, analysis, keep)
    for group in analysis.groups:
        mask = keep.get(group.name)
        if mask is None or mask.all():
            continue
        for touch in group.touches:
            if touch.role != "consumer":
                continue
            node = nodes[touch.node]
            if touch.value[0] in edges and not _has_weight(analysis.model, touch):
                stays = group.positions(touch.value, mask)
                rank = len(analysis.normalised.shapes[touch.value[0]])
                shape = [len(stays) if axis == touch.value[1] else 1 for axis in range(rank)]
                zero = np.zeros((), edges[touch.value[0]])
                _mask_edge(result.graph, node, touch.operand, stays.reshape(shape), zero)
            elif touch.weight is not None:
                stays = group.positions(touch.weight, mask)
                _mask_weight(result.graph, node, touch, stays)
    return result


def _has_weight(model: ir.Model, touch: Touch) -> bool:
    return touch.weight is not None and touch.weight[0] in model.graph.initializers


def _edge_types(model: ir.Model, analysis: Analysis, keep: Keep) -> dict[str, np.dtype[Any]]:
    """Type of every tensor that is masked itself; files need not state it."""
    names = {
        touch.value[0]
        for group in analysis.groups
        if group.name in keep
        for touch in group.touches
        if touch.role == "consumer" and not _has_weight(analysis.model, touch)
    }
    feeds = analysis.normalised.feeds
    inner = [value.name for value in tensor_values(model) if value.name in names]
    return {name: array.dtype for name, array in Probe(model, inner).run(feeds).items()}


def _mask_weight(graph: ir.Graph, node: ir.Node, touch: Touch, stays: NDArray[np.bool_]) -> None:
    """Zero the slices in a copy: the weight may be read elsewhere too."""
    array = constant_array(node.inputs[touch.weight_operand])
    if array is None or touch.weight is None:
        return
    masked = np.array(array)
    np.moveaxis(masked, touch.weight[1], 0)[~stays] = 0
    name = unique_name(graph, f"{touch.weight[0]}/masked")
    node.replace_input_with(touch.weight_operand, add_initializer(graph, name, masked))


def _mask_edge(
    graph: ir.Graph, node: ir.Node, operand: int, stays: NDArray[np.bool_], zero: NDArray[Any]
) -> None:
    value = node.inputs[operand]
    if value is None:
        return
    name = f"{value.name}/masked"
    condition = add_initializer(graph, unique_name(graph, f"{name}/units"), stays)
    nothing = add_initializer(graph, unique_name(graph, f"{name}/zero"), zero)
    where = ir.node("Where", [condition, value, nothing])
    where.name = unique_name(graph, f"{name}/node")
    where.outputs[0].name = unique_name(graph, name)
    graph.insert_before(node, where)
    node.replace_input_with(operand, where.outputs[0])
