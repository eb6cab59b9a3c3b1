"""The graph of a model with its groups, for the picture in the report (``graph.json``).

A picture of every node would drown the reader, so a node is joined into the block before it when
that hides nothing: all that it reads comes from that block, nothing else reads what lies between,
and neither parameters nor units begin or end there. ``Conv``, ``BatchNormalization``, ``Sigmoid``
and ``Mul`` become one block of four parts. What does not depend on the data is left out: sizes that
are computed at run time, and weights that are transposed or cast first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.values import independent_values
from onnxtrim.toolkit.prepare import Prepared

SCHEMA = "onnxtrim.graph/1"
_LOOK_AHEAD = 16  # nodes of a side branch, such as the one of GELU or SiLU
_ROLES = ("producer", "carrier", "consumer")


def graph_json(prepared: Prepared) -> dict[str, Any]:
    """Blocks, the tensors between them, and the groups that lie on both.

    ``nodes``: the inputs, the blocks in the order of the model, the outputs; each with its parts,
    weights, MACs, ``[group, role]`` pairs and reasons for which something of it is frozen.
    ``edges``: tensors, with the numbers of the two nodes and of the groups. ``groups``: by number.
    """
    analysis = prepared.analysis
    graph = analysis.model.graph
    flow = _Flow(graph)
    blocks = _blocks(analysis, flow)
    groups = analysis.all_groups()
    on_tensor: dict[str, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        for tensor in dict.fromkeys(tensor for tensor, _ in group.slices):
            on_tensor[tensor].append(number)
    nodes = [
        *(_end(value, "input") for value in graph.inputs),
        *_nodes(analysis, flow, blocks, on_tensor),
        *(_end(value, "output") for value in graph.outputs),
    ]
    outer = len(analysis.groups)
    return {
        "schema": SCHEMA,
        "model": {"sha256": prepared.sha256},
        "groups": [
            {
                "name": group.name,
                "units": group.units,
                "parameters": group.parameters,
                "macs": group.macs,
                "stage": 1 if number < outer else 2,
            }
            for number, group in enumerate(groups)
        ],
        "nodes": nodes,
        "edges": _edges(flow, graph, blocks, analysis.normalised.shapes, on_tensor),
    }


class _Flow:
    """The nodes through which data flow, and who reads what."""

    def __init__(self, graph: ir.Graph) -> None:
        fixed = set(independent_values(graph)[0])
        flowing = (node for node in graph if not all(v in fixed for v in node.outputs if v.name))
        self.order = {node: number for number, node in enumerate(flowing)}
        self.inputs = {
            node: [v for v in _read(node) if not v.is_initializer() and v not in fixed]
            for node in self.order
        }
        self.readers: dict[ir.Value, list[ir.Node]] = defaultdict(list)
        for node, values in self.inputs.items():
            for value in values:
                self.readers[value].append(node)

    def weights(self, node: ir.Node) -> list[ir.Value]:
        """The initializers that a node reads, also through nodes that move them."""
        found = dict[ir.Value, None]()
        waiting = [value for value in _read(node) if value not in self.inputs[node]]
        while waiting:
            value = waiting.pop(0)
            if value.is_initializer():
                found[value] = None
            elif (maker := value.producer()) is not None and maker not in self.order:
                waiting += _read(maker)
        return list(found)


def _read(node: ir.Node) -> list[ir.Value]:
    """What a node reads; the inner graphs of control flow read from outside too."""
    found = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        for graph in _inner(attribute):
            inner = [value for node in graph for value in _read(node)] + list(graph.outputs)
            found += [value for value in inner if value.graph is not graph]
    return list(dict.fromkeys(found))


def _inner(attribute: ir.Attr) -> list[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return list(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else []


def _blocks(analysis: Analysis, flow: _Flow) -> list[list[ir.Node]]:
    """Every node in exactly one block; only the last of a block is read by others."""
    ends = _beginnings(analysis)
    blocks: list[list[ir.Node]] = []
    taken: set[ir.Node] = set()
    for node in flow.order:
        if node in taken:
            continue
        block = [node]
        while more := _extension(block[-1], flow, ends | taken):
            block += more
        taken.update(block)
        blocks.append(block)
    return blocks


def _beginnings(analysis: Analysis) -> set[ir.Node]:
    """Nodes that begin a block: they compute, make or read units, or have several outputs."""
    names = set(analysis.macs_by_node)
    for group in analysis.all_groups():
        names.update(touch.node for touch in group.touches if touch.role != "carrier")
    return {
        node
        for node in analysis.model.graph
        if node.name in names
        or node.op_type == "Concat"  # where groups meet
        or len([value for value in node.outputs if value.name]) != 1
    }


def _extension(last: ir.Node, flow: _Flow, ends: set[ir.Node]) -> list[ir.Node]:
    """The next nodes that may be joined after ``last``; none if there are no such."""
    outputs = [value for value in last.outputs if value.name]
    if len(outputs) != 1 or outputs[0].is_graph_output():
        return []
    known, found = {outputs[0]}, list[ir.Node]()
    while len(found) < _LOOK_AHEAD:
        waiting = {node for value in known for node in flow.readers[value]} - set(found)
        fitting = [
            node for node in waiting - ends if all(value in known for value in flow.inputs[node])
        ]
        if not fitting:
            return []
        node = min(fitting, key=flow.order.__getitem__)
        found.append(node)
        result = next(value for value in node.outputs if value.name)
        if waiting == {node}:  # nothing else reads what lies between
            return found
        if result.is_graph_output():
            return []
        known.add(result)
    return []


def _nodes(
    analysis: Analysis,
    flow: _Flow,
    blocks: Sequence[Sequence[ir.Node]],
    on_tensor: Mapping[str, Sequence[int]],
) -> list[dict[str, Any]]:
    roles: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for number, group in enumerate(analysis.all_groups()):
        for touch in group.touches:
            roles[touch.node].add((number, touch.role))
    # Touches name only those carriers that have weights.
    for node in flow.order:
        made = (group for value in node.outputs for group in on_tensor.get(value.name or "", ()))
        roles[node.name or ""] |= {(group, "carrier") for group in made}
    frozen = _frozen(analysis)
    return [_node(analysis, flow, block, roles, frozen) for block in blocks]


def _node(
    analysis: Analysis,
    flow: _Flow,
    block: Sequence[ir.Node],
    roles: Mapping[str, set[tuple[int, str]]],
    frozen: Mapping[str, list[dict[str, str]]],
) -> dict[str, Any]:
    names = [node.name or "" for node in block]
    weights = dict.fromkeys(value for node in block for value in flow.weights(node))
    shapes = analysis.normalised.shapes
    mine = set[tuple[int, str]]().union(*(roles.get(name, ()) for name in names))
    # What a block makes it need not carry as well.
    mine = {(g, role) for g, role in mine if role != "carrier" or (g, "producer") not in mine}
    stored = [value.name or "" for value in weights]
    reasons = [reason for name in (*names, *stored) for reason in frozen.get(name, ())]
    return {
        "name": names[0],
        "kind": "operator",
        "parts": [{"name": node.name or "", "operator": node.op_type} for node in block],
        "weights": [
            {"name": value.name or "", "shape": list(shapes[value.name or ""])}
            for value in weights
            if _is_weight(value, shapes)
        ],
        "macs": sum(analysis.macs_by_node.get(name, 0) for name in names),
        "groups": [list(pair) for pair in sorted(mine, key=lambda p: (p[0], _ROLES.index(p[1])))],
        "frozen": [reason for n, reason in enumerate(reasons) if reason not in reasons[:n]],
    }


def _is_weight(value: ir.Value, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Not a scalar, and not a shape or a list of axes."""
    rank = len(shapes.get(value.name or "", ()))
    return rank > 1 or (rank == 1 and value.dtype is not None and value.dtype.is_floating_point())


def _frozen(analysis: Analysis) -> dict[str, list[dict[str, str]]]:
    """By node or weight, why it can't lose units."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for item in analysis.frozen:
        found[item.name].append(
            {"name": item.name, "operator": item.operator, "reason": item.reason, "by": item.node}
        )
    return found


def _end(value: ir.Value, kind: str) -> dict[str, Any]:
    return {
        "name": value.name or "",
        "kind": kind,
        "parts": [],
        "weights": [],
        "macs": 0,
        "groups": [],
        "frozen": [],
    }


def _edges(
    flow: _Flow,
    graph: ir.Graph,
    blocks: Sequence[Sequence[ir.Node]],
    shapes: Mapping[str, tuple[int, ...]],
    on_tensor: Mapping[str, Sequence[int]],
) -> list[dict[str, Any]]:
    """The tensors that pass from one block to another, each once per pair of blocks."""
    first = len(graph.inputs)
    source = {value: number for number, value in enumerate(graph.inputs)}
    pairs: list[tuple[int, int, ir.Value]] = []
    for number, block in enumerate(blocks, start=first):
        source |= {value: number for node in block for value in node.outputs}
    for number, block in enumerate(blocks, start=first):
        read = dict.fromkeys(value for node in block for value in flow.inputs[node])
        pairs += [(source[v], number, v) for v in read if source.get(v, number) != number]
    for number, value in enumerate(graph.outputs, start=first + len(blocks)):
        if value in source:  # not a constant
            pairs.append((source[value], number, value))
    return [
        {
            "from": one,
            "to": other,
            "tensor": value.name or "",
            "shape": list(shapes.get(value.name or "", ())),
            "groups": list(on_tensor.get(value.name or "", ())),
        }
        for one, other, value in pairs
    ]
