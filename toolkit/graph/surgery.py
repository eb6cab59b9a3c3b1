"""Take units out of a model: slice its initializers and adjust the sizes that nodes state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.edit import Edit, Positions
from onnxtrim.toolkit.graph.execute import static_shape
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.graph.rules import RULES
from onnxtrim.toolkit.graph.values import constant_array, is_parameter, remove_unused

Keep = Mapping[str, NDArray[np.bool_]]  # group name -> which of its units stay


def positions(analysis: Analysis, keep: Keep) -> Positions:
    """Which positions stay on every axis that loses some.

    Args:
        analysis: The groups.
        keep: For groups that lose units, a mask over their units.

    Raises:
        ValueError: An axis would lose all its positions, or a mask has another length.
    """
    result: Positions = {}
    for group in analysis.groups:
        mask = keep.get(group.name)
        if mask is None or mask.all():
            continue
        if mask.shape != (group.units,):
            raise ValueError(f"group {group.name!r}: the mask must have {group.units} units")
        for ref in group.slices:
            stays = group.positions(ref, mask)
            result[ref] = result[ref] & stays if ref in result else stays
    for (tensor, axis), stays in result.items():
        if not stays.any():
            raise ValueError(f"tensor {tensor!r}: nothing would be left on axis {axis}")
    return result


def positions_with(analysis: Analysis, keep: Keep, new_biases: Mapping[str, AxisRef]) -> Positions:
    """The same, with the vectors that a repair added."""
    stays = positions(analysis, keep)
    for name, (tensor, axis) in new_biases.items():
        ref = (tensor, axis % len(analysis.normalised.shapes[tensor]))
        if ref in stays:
            stays[name, 0] = stays[ref]
    return stays


def cut_initializer(value: ir.Value, stays: Positions) -> None:
    """Take what leaves out of an initializer of full size."""
    name = value.name or ""
    masks = [(axis, stays[name, axis]) for axis in _axes(value) if (name, axis) in stays]
    if masks:
        _slice(value, masks)


def remove_units(
    model: ir.Model, analysis: Analysis, keep: Keep, new_biases: Mapping[str, AxisRef] | None = None
) -> ir.Model:
    """A copy of ``model`` without the units that ``keep`` leaves out.

    Args:
        model: The normalised model, possibly with repaired weights.
        analysis: The analysis of the normalised model.
        keep: For groups that lose units, a mask over their units.
        new_biases: Vectors that the repair added, each with the axis that it lies on.

    Returns:
        The smaller model; values keep their names. Initializers that were shared are not yet
        shared again.
    """
    result = model.clone()
    cut_units(result, analysis, keep, new_biases)
    return result


def cut_units(
    model: ir.Model, analysis: Analysis, keep: Keep, new_biases: Mapping[str, AxisRef] | None = None
) -> None:
    """The same on the model itself."""
    stays = positions_with(analysis, keep, new_biases or {})
    graph = model.graph
    edit = Edit(graph, stays, analysis.normalised.shapes)
    for value in list(graph.initializers.values()):
        cut_initializer(value, stays)
    for node in list(graph):
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is not None and rule.resize is not None:
            rule.resize(edit, node)
    _forget_inner_shapes(graph)
    remove_unused(graph)


def parameters_after(
    analysis: Analysis, keep: Keep, new_biases: Mapping[str, AxisRef] | None = None
) -> int:
    """Number of parameters that the plan leaves, from the labels alone.

    Surgery must arrive at the same number; the caller compares them. Copies of shared
    initializers count, see :func:`share_again`.
    """
    stays = positions(analysis, keep)
    shapes = analysis.normalised.shapes

    def length(ref: AxisRef) -> int:
        return int(stays[ref].sum()) if ref in stays else shapes[ref[0]][ref[1]]

    total = sum(
        length((tensor, axis % len(shapes[tensor]))) for tensor, axis in (new_biases or {}).values()
    )
    for name, value in analysis.model.graph.initializers.items():
        if is_parameter(value):
            total += math.prod(length((name, axis)) for axis in range(len(shapes[name])))
    return total


def count_parameters(model: ir.Model) -> int:
    """Elements of all parameters."""
    return sum(
        math.prod(static_shape(value.const_value))
        for value in model.graph.initializers.values()
        if value.const_value is not None and is_parameter(value)
    )


def _axes(value: ir.Value) -> range:
    return range(0 if value.const_value is None else len(value.const_value.shape))


def _slice(value: ir.Value, masks: list[tuple[int, NDArray[np.bool_]]]) -> None:
    array = constant_array(value)
    if array is None:
        return
    for axis, mask in masks:
        array = np.compress(mask, array, axis=axis)
    set_constant(value, array)


def set_constant(value: ir.Value, array: NDArray[Any]) -> None:
    """Give an initializer other values."""
    value.const_value = ir.tensor(np.array(array, order="C"), name=value.name)
    value.shape = ir.Shape(array.shape)


def _forget_inner_shapes(graph: ir.Graph) -> None:
    """Shapes noted inside the graph are stale now; ONNX Runtime infers them anew."""
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def share_again(model: ir.Model, copies: Mapping[str, str]) -> None:
    """Undo the copying of shared initializers, in place, where the copies are still equal."""
    graph = model.graph
    first: dict[tuple[str, bytes], ir.Value] = {}
    for name in (*dict.fromkeys(copies.values()), *copies):
        value = graph.initializers.get(name)
        array = constant_array(value)
        if value is None or array is None:
            continue
        other = first.setdefault((copies.get(name, name), array.tobytes()), value)
        if other is not value and not value.is_graph_output():
            value.replace_all_uses_with(other)
            del graph.initializers[name]
