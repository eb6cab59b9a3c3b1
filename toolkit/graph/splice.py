"""Rules of the operators that cut, join and select: Concat, Split, Slice, Gather, Pad.

A signature can't say which position becomes which, so these answer with positions. Their
surgery rests on one fact: the labels keep the positions of input and output in step.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.edit import Edit
from onnxtrim.toolkit.graph.labels import Index
from onnxtrim.toolkit.graph.node import Answer, Frozen, Move, NodeView, Piece, Spliced
from onnxtrim.toolkit.graph.values import constant_array

_FAR = 2**62  # beyond every size: "to the end" in the bounds of Slice


def concat(view: NodeView) -> Answer:
    """Inputs lie one after another on one axis."""
    axis = view.attribute("axis", 1) % view.rank()
    pieces, start = [], 0
    for operand, shape in enumerate(view.inputs):
        if shape is None:
            return Frozen("its shape is not known")
        put = np.arange(start, start + shape[axis])
        move = Move(axis, axis, np.arange(shape[axis]), put)
        pieces.append(Piece(operand, 0, _others(len(shape), axis), (move,)))
        start += shape[axis]
    return Spliced(tuple(pieces))


def split(view: NodeView) -> Answer:
    """The reverse of Concat."""
    axis = view.attribute("axis", 0) % view.rank()
    pieces, start = [], 0
    for output, shape in enumerate(view.outputs):
        if shape is None:  # an output that nobody reads is still cut off
            return Frozen("its shape is not known")
        taken = np.arange(start, start + shape[axis])
        move = Move(axis, axis, taken, np.arange(shape[axis]))
        pieces.append(Piece(0, output, _others(len(shape), axis), (move,)))
        start += shape[axis]
    return Spliced(tuple(pieces))


def slice_(view: NodeView) -> Answer:
    """Some positions of some axes."""
    shape, out = view.inputs[0], view.outputs[0]
    if shape is None or out is None:
        return Frozen("its shape is not known")
    axes = _slice_axes(view.node, len(shape))
    if axes is None:
        return Frozen("its axes are computed at run time")
    bounds = _bounds(view.node)
    moves, stay = [], []
    for entry, axis in enumerate(axes):
        if bounds is None:
            if shape[axis] != out[axis]:
                stay.append(axis)
                continue
            taken = np.arange(shape[axis])
        else:
            taken = _taken(bounds, entry, shape[axis])
        moves.append(Move(axis, axis, taken, np.arange(len(taken))))
    free = [move for move in moves if len(move.put) == out[move.target]]
    stay += [move.source for move in moves if len(move.put) != out[move.target]]
    piece = Piece(
        0,
        0,
        tuple((axis, axis) for axis in range(len(shape)) if axis not in axes),
        tuple(free),
        tuple((axis, None) for axis in stay),
        tuple(stay),
    )
    return Spliced((piece,))


def gather(view: NodeView) -> Answer:
    """Positions that constant indices name; an axis that live indices look into stays."""
    data, indices = view.inputs[0], view.inputs[1]
    if data is None or indices is None:
        return Frozen("its shape is not known")
    axis = view.attribute("axis", 0) % len(data)
    shift = len(indices) - 1  # axes behind the indices move by this
    passes = tuple(
        (other, other if other < axis else other + shift)
        for other in range(len(data))
        if other != axis
    )
    array = constant_array(view.node.inputs[1])
    if array is None:  # the axes of live indices go on in the output
        own = Piece(1, 0, tuple((k, axis + k) for k in range(len(indices))))
        return Spliced((Piece(0, 0, passes, (), ((axis, None),)), own))
    if array.ndim > 1:
        new = tuple(range(axis, axis + array.ndim))
        return Spliced((Piece(0, 0, passes, (), ((axis, None),), new),))
    taken = np.asarray(array, np.int64) % data[axis]
    if taken.ndim == 0:  # the axis vanishes; only the picked slice must stay
        return Spliced((Piece(0, 0, passes, (), ((axis, taken.reshape(1)),)),))
    return Spliced((Piece(0, 0, passes, (Move(axis, axis, taken, np.arange(len(taken))),)),))


def gather_nd(view: NodeView) -> Answer:
    """With constant indices of length 1: a Gather on the first axis."""
    data, indices = view.inputs[0], view.inputs[1]
    if data is None or indices is None or view.attribute("batch_dims", 0) or indices[-1] != 1:
        return Frozen("its indices look into several axes")
    array = view.constant(1, "indices")
    if array is None or array.ndim != 2:
        return Frozen("its indices have more than one axis")
    taken = np.asarray(array, np.int64).ravel() % data[0]
    move = Move(0, 0, taken, np.arange(len(taken)))
    return Spliced((Piece(0, 0, _others(len(data), 0), (move,)),))


def pad(view: NodeView) -> Answer:
    """Padded positions are new slices that can leave too; negative pads cut."""
    shape, out = view.inputs[0], view.outputs[0]
    if shape is None or out is None:
        return Frozen("its shape is not known")
    pads = _pads(view)
    if pads is None:
        stay = tuple(axis for axis, size in enumerate(shape) if size != out[axis] or axis > 1)
        passes = tuple((axis, axis) for axis in range(len(shape)) if axis not in stay)
        return Spliced((Piece(0, 0, passes, (), tuple((axis, None) for axis in stay), stay),))
    mode = view.text("mode", "constant")
    moves, stay_axes = [], []
    for axis, (before, after) in enumerate(pads):
        if mode != "constant" and (before or after):
            stay_axes.append(axis)
            continue
        taken = np.arange(max(0, -before), shape[axis] - max(0, -after))
        moves.append(Move(axis, axis, taken, taken + before))
    frozen = tuple((axis, None) for axis in stay_axes)
    return Spliced((Piece(0, 0, (), tuple(moves), frozen, tuple(stay_axes)),))


def cut_split(edit: Edit, node: ir.Node) -> None:
    """State how much of each part is left."""
    axis_attribute = node.attributes.get("axis")
    rank = len(edit.shapes[node.outputs[0].name or ""])
    axis = (0 if axis_attribute is None else axis_attribute.as_int()) % rank
    if edit.kept(node.inputs[0], axis) is None:
        return
    sizes = []
    for output in node.outputs:
        kept = edit.kept(output, axis)
        full = edit.shapes[output.name or ""][axis]
        sizes.append(full if kept is None else int(kept.sum()))
    if "split" in node.attributes or (len(node.inputs) == 1 and _opset(node) < 13):
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
        return
    node.attributes.pop("num_outputs", None)
    if len(node.inputs) < 2:
        node.resize_inputs(2)
    wanted = f"{node.outputs[0].name}/split"
    node.replace_input_with(1, edit.constant(wanted, np.array(sizes, np.int64)))


def cut_slice(edit: Edit, node: ir.Node) -> None:
    """Remap bounds to what is kept before them; what is no range any more becomes a Gather."""
    source, output = node.inputs[0], node.outputs[0]
    changed = edit.changed(source)
    axes = _slice_axes(node, len(edit.shapes[source.name or ""])) if source is not None else None
    bounds = _bounds(node)
    if source is None or axes is None or not changed.keys() & set(axes):
        return
    rows: dict[int, tuple[int, int, int]] = {}
    selected: dict[int, Index] = {}
    for entry, axis in enumerate(axes):
        kept = edit.kept(source, axis)
        size = edit.shapes[source.name or ""][axis]
        if bounds is None:  # computed at run time; the axis passes whole
            if kept is not None:
                continue
            return
        if kept is None:
            rows[axis] = (int(bounds[0][entry]), int(bounds[1][entry]), int(bounds[2][entry]))
            continue
        taken = _taken(bounds, entry, size)
        wanted = (np.cumsum(kept) - 1)[taken[kept[taken]]]
        if len(wanted) and np.array_equal(wanted, np.arange(wanted[0], wanted[0] + len(wanted))):
            rows[axis] = (int(wanted[0]), int(wanted[-1]) + 1, 1)
        else:
            selected[axis] = wanted
    if bounds is None:
        return
    _state_bounds(edit, node, rows)
    _select(edit, node, output, selected, keep_slice=bool(rows))


def cut_gather(edit: Edit, node: ir.Node) -> None:
    """Renumber the indices by rank; those of removed slices go."""
    source = node.inputs[0]
    if source is None:
        return
    rank = len(edit.shapes[source.name or ""])
    attribute = node.attributes.get("axis")
    axis = (0 if attribute is None else attribute.as_int()) % rank
    kept = edit.kept(source, axis)
    array = constant_array(node.inputs[1])
    if kept is None or array is None:
        return
    taken = np.asarray(array, np.int64) % len(kept)
    order = np.cumsum(kept) - 1
    new = order[taken[kept[taken]]] if taken.ndim else order[taken]
    if node.op_type == "GatherND":
        new = new.reshape(-1, 1)
    wanted = f"{node.outputs[0].name}/indices"
    node.replace_input_with(1, edit.constant(wanted, np.asarray(new, array.dtype)))


def cut_pad(edit: Edit, node: ir.Node) -> None:
    """Recount the padded and the cut positions that are left."""
    source, output = node.inputs[0], node.outputs[0]
    name = source.name or "" if source is not None else ""
    rank = len(edit.shapes[name])
    masks = {axis: (edit.kept(source, axis), edit.kept(output, axis)) for axis in range(rank)}
    pads = _stated_pads(node, rank)
    if pads is None or all(a is None and b is None for a, b in masks.values()):
        return
    new = []
    for axis, (before, after) in enumerate(pads):
        sizes = edit.shapes[name][axis], edit.shapes[output.name or ""][axis]
        kept_in, kept_out = (
            np.ones(size, np.bool_) if mask is None else mask
            for mask, size in zip(masks[axis], sizes, strict=True)
        )
        front = _recount(before, kept_in, kept_out)
        back = _recount(after, kept_in[::-1], kept_out[::-1])
        new.append((front, back))
    flat = [front for front, _ in new] + [back for _, back in new]
    if "pads" in node.attributes:
        node.attributes["pads"] = ir.AttrInt64s("pads", flat)
        return
    wanted = f"{output.name}/pads"
    node.replace_input_with(1, edit.constant(wanted, np.array(flat, np.int64)))
    if len(node.inputs) > 3:
        node.resize_inputs(3)  # all axes are stated now


def _recount(pad: int, kept_in: NDArray[np.bool_], kept_out: NDArray[np.bool_]) -> int:
    return int(kept_out[:pad].sum()) if pad >= 0 else -int(kept_in[:-pad].sum())


def _others(rank: int, axis: int) -> tuple[tuple[int, int], ...]:
    return tuple((other, other) for other in range(rank) if other != axis)


def _opset(node: ir.Node) -> int:
    if node.version is not None:
        return node.version
    graph = node.graph
    return 13 if graph is None else graph.opset_imports.get("", 13)


def _ints(node: ir.Node, name: str, operand: int) -> list[int] | None:
    """Integers from an attribute or constant operand; ``None`` if absent or computed."""
    attribute = node.attributes.get(name)
    if attribute is not None:
        return list(attribute.as_ints())
    value = node.inputs[operand] if operand < len(node.inputs) else None
    array = constant_array(value)
    return None if array is None else [int(item) for item in array.ravel()]


def _slice_axes(node: ir.Node, rank: int) -> list[int] | None:
    axes = _ints(node, "axes", 3)
    if axes is not None:
        return [axis % rank for axis in axes]
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        return None
    starts = _ints(node, "starts", 1)
    return list(range(rank if starts is None else len(starts)))


def _bounds(node: ir.Node) -> tuple[list[int], list[int], list[int]] | None:
    """Starts, ends and steps, if all are constant."""
    starts, ends = _ints(node, "starts", 1), _ints(node, "ends", 2)
    if starts is None or ends is None:
        return None
    steps = _ints(node, "steps", 4)
    if steps is None and len(node.inputs) > 4 and node.inputs[4] is not None:
        return None
    return starts, ends, steps or [1] * len(starts)


def _taken(bounds: tuple[list[int], list[int], list[int]], entry: int, size: int) -> Index:
    start, end, step = (column[entry] for column in bounds)
    # ONNX clamps the end of a reversed slice at -1 - size; Python reads -1 as the last position.
    stop = None if step < 0 and end < -size else end
    return np.arange(size, dtype=np.int64)[slice(start, stop, step)]


def _state_bounds(edit: Edit, node: ir.Node, rows: dict[int, tuple[int, int, int]]) -> None:
    columns = [list(column) for column in zip(*rows.values(), strict=True)] or [[], [], []]
    starts, ends, steps = columns
    order = {"starts": starts, "ends": ends, "axes": list(rows), "steps": steps}
    if "starts" in node.attributes:  # opset 9 knows no steps
        for name, column in list(order.items())[:3]:
            node.attributes[name] = ir.AttrInt64s(name, column)
        return
    node.resize_inputs(5)
    wanted = node.outputs[0].name
    for operand, (name, column) in enumerate(order.items(), start=1):
        array = np.clip(np.array(column, np.int64), -_FAR, _FAR)
        node.replace_input_with(operand, edit.constant(f"{wanted}/{name}", array))


def _select(
    edit: Edit, node: ir.Node, output: ir.Value, selected: dict[int, Index], *, keep_slice: bool
) -> None:
    """Put a Gather per axis behind the Slice, or in its place if it has nothing left to cut."""
    if not selected:
        return
    name = output.name or ""
    value = output
    if keep_slice:
        output.name = edit.names.fresh(f"{name}/sliced")
    else:
        assert node.inputs[0] is not None  # cut_slice saw it
        value = node.inputs[0]
        output.name = edit.names.fresh(f"{name}/unused")
    chain: list[ir.Node] = []
    for axis, indices in selected.items():
        constant = edit.constant(f"{name}/indices", indices)
        chain.append(edit.node("Gather", [value, constant], f"{name}/selected", axis=axis))
        value = chain[-1].outputs[0]
    for usage in list(output.uses()):
        if usage.node not in chain:
            usage.node.replace_input_with(usage.idx, value)
    for index, other in enumerate(edit.graph.outputs):
        if other is output:
            edit.graph.outputs[index] = value
    value.name, value.type = name, output.type
    edit.graph.insert_after(node, chain)


def _pads(view: NodeView) -> list[tuple[int, int]] | None:
    return _stated_pads(view.node, view.rank())


def _stated_pads(node: ir.Node, rank: int) -> list[tuple[int, int]] | None:
    """Pads of every axis, or ``None`` if they are computed at run time."""
    flat = _ints(node, "pads", 1)
    if flat is None:
        flat = _ints(node, "paddings", 1)
    if flat is None:
        return None
    axes = list(range(rank))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        stated = _ints(node, "axes", 3)
        if stated is None:
            return None
        axes = [axis % rank for axis in stated]
    result = [(0, 0)] * rank
    for entry, axis in enumerate(axes):
        result[axis] = (flat[entry], flat[entry + len(axes)])
    return result
