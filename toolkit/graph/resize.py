"""Who states a size scales it: adjustments of attributes and shape operands after slicing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from onnxtrim.toolkit.graph.edit import Edit
from onnxtrim.toolkit.graph.values import constant_array


def resize_groups(edit: Edit, node: ir.Node) -> None:
    """Conv: the channels that are left, over those of one group; ConvTranspose likewise."""
    group = node.attributes.get("group")
    if group is None or group.as_int() == 1:
        return
    channels = node.inputs[0] if node.op_type == "Conv" else node.outputs[0]
    total = _size(edit, channels, 1)
    each = _size(edit, node.inputs[1], 1)
    node.attributes["group"] = ir.AttrInt64("group", total // each)


def resize_norm_groups(edit: Edit, node: ir.Node) -> None:
    """GroupNormalization: whole groups leave."""
    changed = edit.changed(node.inputs[0]).get(1)
    if changed is not None:
        _scale_attribute(node, "num_groups", changed)


def state_axes(edit: Edit, node: ir.Node) -> None:
    """Squeeze without axes would also take an axis on which one position is left."""
    source = node.inputs[0]
    stated = "axes" in node.attributes or len(node.inputs) > 1
    changed = edit.changed(source)
    if stated or source is None or all(after > 1 for _, after in changed.values()):
        return
    axes = [axis for axis, size in enumerate(edit.shapes[source.name or ""]) if size == 1]
    if edit.graph.opset_imports.get("", 1) < 13:
        node.attributes["axes"] = ir.AttrInt64s("axes", axes)
    else:
        node.resize_inputs(2)
        operand = edit.constant(f"{source.name}/axes", np.array(axes, np.int64))
        node.replace_input_with(1, operand)


def resize_hidden(edit: Edit, node: ir.Node) -> None:
    """LSTM, GRU, RNN: the hidden size is the last axis of the recurrent weight."""
    if "hidden_size" in node.attributes:
        size = _size(edit, node.inputs[2], 2)
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", size)


def resize_heads(edit: Edit, node: ir.Node) -> None:
    """Attention: the heads that are left, and the scale of before if head dimensions left."""
    shapes = [() if value is None else edit.shapes[value.name or ""] for value in node.inputs[:2]]
    if "scale" not in node.attributes and shapes[0]:
        heads = node.attributes.get("q_num_heads")
        width = shapes[0][-1] // (heads.as_int() if heads is not None else 1)
        node.attributes["scale"] = ir.AttrFloat32("scale", 1 / math.sqrt(width))
    for operand, name in ((0, "q_num_heads"), (1, "kv_num_heads"), (0, "num_heads")):
        attribute = node.attributes.get(name)
        mask = edit.kept(node.inputs[operand], len(shapes[operand]) - 1)
        if attribute is not None and mask is not None and len(shapes[operand]) == 3:
            left = int(mask.reshape(attribute.as_int(), -1).any(axis=1).sum())
            node.attributes[name] = ir.AttrInt64(name, left)


def resize_rotary(edit: Edit, node: ir.Node) -> None:
    """RotaryEmbedding: only whole heads leave."""
    attribute = node.attributes.get("num_heads")
    changed = edit.changed(node.inputs[0]).get(2)
    if attribute is not None and attribute.as_int() and changed is not None:
        _scale_attribute(node, "num_heads", changed)


def resize_target(operand: int) -> Callable[[Edit, ir.Node], None]:
    """For an operand that states the shape of the output: scale it by new / old; 0 and -1 stay."""

    def resize(edit: Edit, node: ir.Node) -> None:
        changed = edit.changed(node.outputs[0])
        target = node.inputs[operand] if operand < len(node.inputs) else None
        if not changed or target is None:
            return
        name = node.outputs[0].name or ""
        rank = len(edit.shapes[name])
        array = constant_array(target)
        if array is not None:
            new = np.array(array)
            for axis, (before, after) in changed.items():
                entry = axis - rank + len(new)  # Expand: aligned at the right
                if entry >= 0 and new[entry] > 1:
                    new[entry] = new[entry] * after // before
            node.replace_input_with(operand, edit.constant(f"{name}/shape", new))
            return
        node.replace_input_with(operand, _scale_target(edit, node, target, changed, rank))

    return resize


def resize_reshape(edit: Edit, node: ir.Node) -> None:
    """Reshape: a 0 copies the size of the input's axis there, which may be other slices."""
    target, output = constant_array(node.inputs[1]), node.outputs[0]
    zero_is_size = node.attributes.get("allowzero")
    if target is not None and (zero_is_size is None or zero_is_size.as_int() == 0):
        stated = np.array(target)
        for axis in np.flatnonzero(target == 0).tolist():
            if _size(edit, node.inputs[0], axis) != _size(edit, output, axis):
                stated[axis] = edit.shapes[output.name or ""][axis]
        if not np.array_equal(stated, target):
            node.replace_input_with(1, edit.constant(f"{output.name}/stated", stated))
    resize_target(1)(edit, node)


def resize_sizes(edit: Edit, node: ir.Node) -> None:
    """Resize: its ``sizes`` may be limited to some axes, in any order."""
    limited = node.attributes.get("axes")
    array = constant_array(node.inputs[3]) if len(node.inputs) > 3 else None
    if limited is None or array is None:
        if limited is None:
            resize_target(3)(edit, node)
        return
    changed = edit.changed(node.outputs[0])
    rank, new = len(edit.shapes[node.outputs[0].name or ""]), np.array(array)
    for entry, axis in enumerate(limited.as_ints()):
        before, after = changed.get(axis % rank, (1, 1))
        new[entry] = new[entry] * after // before
    node.replace_input_with(3, edit.constant(f"{node.outputs[0].name}/shape", new))


def resize_shape(edit: Edit, node: ir.Node) -> None:
    """Shape: go on telling the original sizes, so that arithmetic on them stays right."""
    source, told = node.inputs[0], node.outputs[0]
    changed = edit.changed(source)
    if source is None or not changed:
        return
    rank = len(edit.shapes[source.name or ""])
    start, end = (node.attributes.get(name) for name in ("start", "end"))
    first, last, _ = slice(
        None if start is None else start.as_int(), None if end is None else end.as_int()
    ).indices(rank)
    pairs = {axis - first: pair[::-1] for axis, pair in changed.items() if first <= axis < last}
    if not pairs:
        return
    name = told.name or ""
    told.name = edit.names.fresh(f"{name}/live")
    uses = list(told.uses())
    nodes, result = _scale(edit, told, pairs, last - first, f"{name}/told")
    result.name, result.type, result.shape = name, told.type, told.shape
    for usage in uses:
        usage.node.replace_input_with(usage.idx, result)
    for index, output in enumerate(edit.graph.outputs):
        if output is told:
            edit.graph.outputs[index] = result
    edit.graph.insert_after(node, nodes)


def _size(edit: Edit, value: ir.Value | None, axis: int) -> int:
    if value is None:
        return 1
    kept = edit.kept(value, axis)
    return edit.shapes[value.name or ""][axis] if kept is None else int(kept.sum())


def _scale_attribute(node: ir.Node, name: str, changed: tuple[int, int]) -> None:
    before, after = changed
    value = node.attributes[name].as_int() * after // before
    node.attributes[name] = ir.AttrInt64(name, value)


def _scale_target(
    edit: Edit, node: ir.Node, target: ir.Value, changed: Mapping[int, tuple[int, int]], rank: int
) -> ir.Value:
    """``Where(e > 1, e * new / old, e)`` on a shape that is computed at run time."""
    name = node.outputs[0].name or ""
    stated = edit.shapes.get(target.name or "", (rank,))[0]
    entries = {axis - rank + stated: pair for axis, pair in changed.items()}
    entries = {entry: pair for entry, pair in entries.items() if entry >= 0}
    nodes, scaled = _scale(edit, target, entries, stated, f"{name}/scaled")
    one = edit.constant(f"{name}/one", np.array(1, np.int64))
    stating = edit.node("Greater", [target, one], f"{name}/stating")
    chosen = edit.node("Where", [stating.outputs[0], scaled, target], f"{name}/target")
    edit.graph.insert_before(node, [*nodes, stating, chosen])
    return chosen.outputs[0]


def _scale(
    edit: Edit, value: ir.Value, pairs: Mapping[int, tuple[int, int]], length: int, name: str
) -> tuple[list[ir.Node], ir.Value]:
    """Nodes that multiply entries of a shape by after / before; ``pairs`` is (before, after)."""
    times, by = np.ones(length, np.int64), np.ones(length, np.int64)
    for entry, (before, after) in pairs.items():
        times[entry], by[entry] = after, before
    factor = edit.constant(f"{name}/times", times)
    divisor = edit.constant(f"{name}/by", by)
    product = edit.node("Mul", [value, factor], f"{name}/product")
    quotient = edit.node("Div", [product.outputs[0], divisor], name)
    return [product, quotient], quotient.outputs[0]
