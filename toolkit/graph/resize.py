"""Who states a size scales it: adjustments of attributes and shape operands after slicing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.graph.normalise import add_initializer, constant_array

Sizes = Mapping[AxisRef, tuple[int, int]]  # axis -> (size before, size after), changed axes only
Resize = Callable[[ir.Graph, ir.Node, Sizes], None]


def resize_groups(graph: ir.Graph, node: ir.Node, sizes: Sizes) -> None:
    """Conv: as many groups as whole groups were kept."""
    group = node.attributes.get("group")
    changed = sizes.get((node.outputs[0].name or "", 1))
    if group is None or group.as_int() == 1 or changed is None:
        return
    before, after = changed
    node.attributes["group"] = ir.AttrInt64("group", group.as_int() * after // before)


def resize_target(graph: ir.Graph, node: ir.Node, sizes: Sizes) -> None:
    """Reshape: scale the entries of the target by new / old; 0 and -1 stay."""
    name = node.outputs[0].name or ""
    target = node.inputs[1]
    changed = {axis: pair for (tensor, axis), pair in sizes.items() if tensor == name}
    if not changed or target is None:
        return
    array = constant_array(target)
    if array is not None:
        new = np.array(array)
        for axis, (before, after) in changed.items():
            if new[axis] > 0:
                new[axis] = new[axis] * after // before
        node.replace_input_with(1, add_initializer(graph, unique_name(graph, f"{name}/shape"), new))
        return
    node.replace_input_with(1, _scale_target(graph, node, target, changed))


def resize_shape(graph: ir.Graph, node: ir.Node, sizes: Sizes) -> None:
    """Shape: go on telling the original sizes, so that arithmetic on them stays right."""
    source, told = node.inputs[0], node.outputs[0]
    if source is None:
        return
    changed = {axis: pair for (tensor, axis), pair in sizes.items() if tensor == source.name}
    start = node.attributes.get("start")
    first = 0 if start is None else start.as_int()
    if not changed:
        return
    length = told.shape[0] if told.shape is not None else None
    rank = len(source.shape) if source.shape is not None else max(changed) + 1
    first = first + rank if first < 0 else first
    length = length if isinstance(length, int) else rank - first
    pairs = {
        axis - first: pair[::-1] for axis, pair in changed.items() if 0 <= axis - first < length
    }
    if not pairs:
        return
    name = told.name or ""
    told.name = unique_name(graph, f"{name}/live")
    uses = list(told.uses())
    nodes, result = _scale(graph, told, pairs, length, name)
    result.type, result.shape = told.type, told.shape
    for usage in uses:
        usage.node.replace_input_with(usage.idx, result)
    for index, output in enumerate(graph.outputs):
        if output is told:
            graph.outputs[index] = result
    graph.insert_after(node, nodes)


def _scale_target(
    graph: ir.Graph, node: ir.Node, target: ir.Value, changed: Mapping[int, tuple[int, int]]
) -> ir.Value:
    """``Where(e > 0, e * new / old, e)`` on a shape that is computed at run time."""
    name = node.outputs[0].name or ""
    rank = len(node.outputs[0].shape) if node.outputs[0].shape is not None else max(changed) + 1
    nodes, scaled = _scale(graph, target, changed, rank, f"{name}/scaled")
    zero = add_initializer(graph, unique_name(graph, f"{name}/zero"), np.array(0, np.int64))
    positive = _node(graph, "Greater", [target, zero], f"{name}/positive")
    chosen = _node(graph, "Where", [positive.outputs[0], scaled, target], f"{name}/target")
    graph.insert_before(node, [*nodes, positive, chosen])
    return chosen.outputs[0]


def _scale(
    graph: ir.Graph, value: ir.Value, pairs: Mapping[int, tuple[int, int]], length: int, name: str
) -> tuple[list[ir.Node], ir.Value]:
    """Nodes that multiply entries of a shape by after / before; ``pairs`` is (before, after)."""
    times, by = np.ones(length, np.int64), np.ones(length, np.int64)
    for entry, (before, after) in pairs.items():
        times[entry], by[entry] = after, before
    factor = add_initializer(graph, unique_name(graph, f"{name}/times"), times)
    divisor = add_initializer(graph, unique_name(graph, f"{name}/by"), by)
    product = _node(graph, "Mul", [value, factor], f"{name}/product")
    quotient = _node(graph, "Div", [product.outputs[0], divisor], name)
    return [product, quotient], quotient.outputs[0]


def _node(graph: ir.Graph, operator: str, inputs: list[ir.Value], output: str) -> ir.Node:
    node = ir.node(operator, inputs)
    node.outputs[0].name = unique_name(graph, output)
    node.name = unique_name(graph, f"{output}/node")
    return node


def unique_name(graph: ir.Graph, wanted: str) -> str:
    """``wanted``, with a number if a value or node of the graph has that name."""
    taken = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
    taken |= {value.name for value in graph.inputs} | {node.name for node in graph}
    name, count = wanted, 1
    while name in taken:
        name, count = f"{wanted}.{count}", count + 1
    return name
