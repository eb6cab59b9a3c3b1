"""Rewrites to forms that have rules: branches that are always taken, sequences of tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxtrim.toolkit.graph.values import add_initializer, constant_array


def inline_branches(model: ir.Model) -> bool:
    """Replace every If whose condition is constant by the branch that is taken.

    Returns:
        Whether there was one; the branch may hold others.
    """
    found = False
    for node in list(model.graph):
        if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
            continue
        condition = constant_array(node.inputs[0])
        if condition is not None and condition.size == 1:
            name = "then_branch" if condition.item() else "else_branch"
            _inline(model.graph, node, node.attributes[name].as_graph())
            found = True
    return found


def _inline(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> None:
    """Move a branch's nodes and initializers before the node, then let its outputs stand in."""
    taken = {value.name for other in graph for value in other.outputs} | set(graph.initializers)
    taken |= {value.name for value in graph.inputs}

    def fresh(wanted: str | None) -> str:
        name, count = wanted or f"{node.name}/value", 1
        while name in taken:
            name, count = f"{wanted}.{count}", count + 1
        taken.add(name)
        return name

    for value in list(branch.initializers.values()):
        if value.const_value is not None:
            constant = add_initializer(graph, fresh(value.name), value.const_value.numpy())
            value.replace_all_uses_with(constant, replace_graph_outputs=True)
    results = list(branch.outputs)
    branch.outputs.clear()
    nodes = list(branch)
    branch.remove(nodes)
    for inner in nodes:
        inner.name = f"{node.name}/{inner.name}"
        for value in inner.outputs:
            value.name = fresh(value.name)
    graph.insert_before(node, nodes)
    for old, new in zip(node.outputs, results, strict=True):
        name = old.name
        old.replace_all_uses_with(new)
        for index, output in enumerate(graph.outputs):
            if output is old:  # an output of the model keeps its name
                graph.outputs[index] = _stand_in(graph, node, new, name, old)
    graph.remove(node, safe=True)
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            _forget(attribute.as_graph())


def _forget(branch: ir.Graph) -> None:
    """Let what is left of a branch use nothing: its uses would count as readers."""
    for inner in branch.all_nodes():
        for index in range(len(inner.inputs)):
            inner.replace_input_with(index, None)


def _stand_in(
    graph: ir.Graph, before: ir.Node, value: ir.Value, name: str | None, old: ir.Value
) -> ir.Value:
    same = ir.node("Identity", [value], name=f"{name}/branch")
    old.name = f"{name}/if"
    same.outputs[0].name, same.outputs[0].type, same.outputs[0].shape = name, old.type, old.shape
    graph.insert_before(before, same)
    return same.outputs[0]


def replace_sequences(graph: ir.Graph, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Split and Concat instead of sequences, where every reader has a constant index.

    SplitToSequence + SequenceAt becomes Split, SequenceConstruct + ConcatFromSequence Concat.
    """
    for node in list(graph):
        if node.op_type == "SplitToSequence":
            _split(graph, node, shapes)
        elif node.op_type == "SequenceConstruct":
            _concat(graph, node)


def _split(graph: ir.Graph, node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> None:
    readers = [usage.node for usage in node.outputs[0].uses()]
    indices = [constant_array(reader.inputs[1]) for reader in readers if len(reader.inputs) == 2]
    sizes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if (
        any(reader.op_type != "SequenceAt" for reader in readers)
        or len(indices) < len(readers)
        or any(index is None for index in indices)
        or node.outputs[0].is_graph_output()
        or sizes is None
    ):
        return
    source, axis = node.inputs[0], node.attributes.get("axis")
    assert source is not None  # checked above
    axis_number = 0 if axis is None else axis.as_int()
    if sizes.ndim == 0:  # the size of every part
        length, size = shapes[source.name or ""][axis_number], int(sizes)
        sizes = np.array([min(size, length - k) for k in range(0, length, size)])
    name = node.outputs[0].name or ""
    split = add_initializer(graph, f"{name}/split", sizes.astype(np.int64))
    new = ir.node(
        "Split",
        [source, split],
        attributes={"axis": axis_number},
        num_outputs=len(sizes),
        name=f"{node.name}/split",
    )
    for number, value in enumerate(new.outputs):
        value.name = f"{name}/part{number}"
    graph.insert_before(node, new)
    for reader, index in zip(readers, indices, strict=True):
        assert index is not None  # checked above
        _replace(graph, reader, new.outputs[int(index) % len(sizes)])
    graph.remove(node, safe=True)


def _concat(graph: ir.Graph, node: ir.Node) -> None:
    readers = [usage.node for usage in node.outputs[0].uses()]
    if (
        not readers
        or node.outputs[0].is_graph_output()
        or any(
            reader.op_type != "ConcatFromSequence"
            or ("new_axis" in reader.attributes and reader.attributes["new_axis"].as_int())
            for reader in readers
        )
    ):
        return
    for reader in readers:
        new = ir.node(
            "Concat",
            list(node.inputs),
            attributes={"axis": reader.attributes["axis"].as_int()},
            name=f"{reader.name}/concat",
        )
        new.outputs[0].name = f"{reader.outputs[0].name}/joined"
        graph.insert_before(reader, new)
        _replace(graph, reader, new.outputs[0])
    graph.remove(node, safe=True)


def _replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Let ``value`` stand for the only output of a node, also by name."""
    old = node.outputs[0]
    name, kind, shape = old.name, old.type, old.shape
    if old.is_graph_output():
        same = ir.node("Identity", [value], name=f"{node.name}/same")
        graph.insert_before(node, same)
        value = same.outputs[0]
        for index, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[index] = value
        old.name = f"{name}/old"
        value.name, value.type, value.shape = name, kind, shape
    old.replace_all_uses_with(value)
    graph.remove(node, safe=True)
