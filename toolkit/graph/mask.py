"""The reference that surgery must equal: the original with the removed units masked.

A unit is masked where it is *read*, by a ``Where`` on the edge into the consumer (not ``Mul``:
0 * inf is NaN). This needs no knowledge of the operator, nor of what happens between producer and
consumer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.edit import Edit
from onnxtrim.toolkit.graph.execute import Prober, tensor_values
from onnxtrim.toolkit.graph.groups import Analysis, Touch
from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.graph.surgery import Keep

Edge = tuple[str, int, AxisRef]  # node, operand, the axis read there


def mask_units(
    model: ir.Model, analysis: Analysis, keep: Keep, noise: np.random.Generator | None = None
) -> ir.Model:
    """A copy of ``model`` in which no consumer sees the units that ``keep`` leaves out.

    Args:
        model: The normalised model, possibly with repaired weights.
        analysis: The analysis of the normalised model.
        keep: For groups that lose units, a mask over their units.
        noise: Also move what each consumer sees by one or two rounding errors, as a control.
    """
    result = model.clone()
    nodes = {node.name: node for node in result.graph}
    stays = _masked_edges(analysis, keep)
    types = _types(model, analysis, {ref[0] for _, _, ref in stays})
    edit = Edit(result.graph, {}, analysis.normalised.shapes)
    for (name, operand, (tensor, axis)), mask in stays.items():
        rank = len(analysis.normalised.shapes[tensor])
        shape = [len(mask) if other == axis else 1 for other in range(rank)]
        dtype = types[tensor]
        _mask(edit, nodes[name], operand, mask.reshape(shape), np.zeros((), dtype))
        if noise is not None and np.issubdtype(dtype, np.floating):
            step = 2 * float(np.finfo(dtype).eps)
            factors = 1 + noise.uniform(-step, step, shape)
            _move(edit, nodes[name], operand, factors.astype(dtype))
    return result


def _masked_edges(analysis: Analysis, keep: Keep) -> dict[Edge, NDArray[np.bool_]]:
    """What stays visible on every edge that loses units; several groups can lie on one."""
    result: dict[Edge, NDArray[np.bool_]] = {}
    for group in analysis.groups:
        mask = keep.get(group.name)
        if mask is None or mask.all():
            continue
        for touch in group.touches:
            operand, ref = _edge(touch)
            if touch.role == "consumer" and ref in group.slices:
                edge = touch.node, operand, ref
                stays = group.positions(ref, mask)
                result[edge] = result[edge] & stays if edge in result else stays
    return result


def _edge(touch: Touch) -> tuple[int, AxisRef]:
    """The activation, which is smaller than most weights; the weight if that is not an input."""
    if touch.operand >= 0 or touch.weight is None:
        return touch.operand, touch.value
    return touch.weight_operand, touch.weight


def _types(model: ir.Model, analysis: Analysis, names: set[str]) -> dict[str, np.dtype[Any]]:
    """Type of every tensor that is masked; files need not state those of inner ones."""
    types = {
        name: tensor.dtype.numpy()
        for name in names
        if (value := model.graph.initializers.get(name)) is not None
        and (tensor := value.const_value) is not None
    }
    inner = [value.name for value in tensor_values(model) if value.name in names - types.keys()]
    probe = Prober(model, analysis.normalised.weights).probe(name for name in inner if name)
    found = probe.run(analysis.normalised.feeds)
    return types | {name: array.dtype for name, array in found.items()}


def _mask(
    edit: Edit, node: ir.Node, operand: int, stays: NDArray[np.bool_], zero: NDArray[Any]
) -> None:
    value = node.inputs[operand]
    if value is None:
        return
    condition = edit.constant(f"{value.name}/units", stays)
    where = edit.node(
        "Where", [condition, value, edit.constant(f"{value.name}/zero", zero)], f"{value.name}/seen"
    )
    edit.graph.insert_before(node, where)
    node.replace_input_with(operand, where.outputs[0])


def _move(edit: Edit, node: ir.Node, operand: int, factors: NDArray[Any]) -> None:
    value = node.inputs[operand]
    if value is not None:
        constant = edit.constant(f"{value.name}/factors", factors)
        moved = edit.node("Mul", [value, constant], f"{value.name}/moved")
        edit.graph.insert_before(node, moved)
        node.replace_input_with(operand, moved.outputs[0])
