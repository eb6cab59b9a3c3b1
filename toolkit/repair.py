"""Repair what a removal takes from the consumers, without labels and without gradients.

Mean folding: a removed unit's mean contribution moves into the consumer's bias,
``b + W_R μ_R``. It is exact for units that are constant. At the zero-padded border of a
convolution a kernel tap that lies outside contributes nothing, so each tap counts with the share
of output positions at which it lies inside; the mean over the output is then kept exactly for a
mean that does not depend on the position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.edit import Names, Positions
from onnxtrim.toolkit.graph.execute import Prober, tensor_values
from onnxtrim.toolkit.graph.groups import Analysis, Touch
from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.graph.surgery import Keep, set_constant
from onnxtrim.toolkit.graph.values import add_initializer, constant_array
from onnxtrim.toolkit.patches import window_of
from onnxtrim.toolkit.statistics import Statistics

Vector = NDArray[np.float64]


@dataclass
class Repaired:
    """A model of full size whose consumers make up for the units that will leave.

    Attributes:
        model: The repaired model.
        new_biases: For every bias that was added, the axis of a tensor that it lies on, so that
            surgery cuts it with that axis.
        skipped: Consumers that could not be repaired, with the reason.
    """

    model: ir.Model
    new_biases: dict[str, AxisRef] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


class Repair(Protocol):
    """What makes the consumers do without the units that leave."""

    def __call__(self, analysis: Analysis, keep: Keep) -> Repaired:
        """Change the weights of the normalised model, at full size.

        Args:
            analysis: The groups.
            keep: For groups that lose units, a mask over their units.
        """

    def cut(self, stays: Positions) -> Repair | None:
        """What can repair the next stage, on the model that this one leaves.

        Args:
            stays: For every axis that lost positions, which of them stay.
        """


@dataclass(frozen=True)
class MeanFolding:
    """Folds the means of the removed units into the biases of their consumers.

    Attributes:
        statistics: Means at the consumers' inputs.
    """

    statistics: Statistics

    def __call__(self, analysis: Analysis, keep: Keep) -> Repaired:
        """See :class:`Repair`."""
        return fold_means(analysis, keep, self.statistics)

    def cut(self, stays: Positions) -> MeanFolding:
        """See :class:`Repair`."""
        return MeanFolding(self.statistics.cut(stays))


def fold_means(analysis: Analysis, keep: Keep, statistics: Statistics) -> Repaired:
    """Fold the means of the removed units into the biases of their consumers.

    Args:
        analysis: The groups.
        keep: For groups that lose units, a mask over their units.
        statistics: Means at the consumers' inputs.
    """
    result = Repaired(analysis.model.clone())
    nodes = {node.name: node for node in result.model.graph}
    computed = _computed_weights(analysis)
    for group in analysis.groups:
        mask = keep.get(group.name)
        if mask is None or mask.all():
            continue
        for touch in group.touches:
            if touch.role != "consumer" or touch.value not in group.slices:
                continue
            removed = ~group.positions(touch.value, mask)
            means = np.where(removed, statistics.points[touch.value].mean, 0.0)
            _fold(result, analysis, nodes[touch.node], touch, means, computed)
    return result


def _computed_weights(analysis: Analysis) -> dict[str, NDArray[Any]]:
    """Weights of consumers that the graph computes, such as transposed ones."""
    names = {
        touch.weight[0]
        for group in analysis.groups
        for touch in group.touches
        if touch.role == "consumer" and touch.weight is not None
    }
    inner = [value.name for value in tensor_values(analysis.model) if value.name in names]
    probe = Prober(analysis.model, analysis.normalised.weights).probe(inner)
    return probe.run(analysis.normalised.feeds)


def _fold(
    result: Repaired,
    analysis: Analysis,
    node: ir.Node,
    touch: Touch,
    means: Vector,
    computed: Mapping[str, NDArray[Any]],
) -> None:
    weight = None
    if touch.weight_operand == 1 and touch.weight is not None:
        weight = computed.get(touch.weight[0], constant_array(node.inputs[1]))
    if weight is None or touch.weight is None:
        result.skipped.append(f"{node.name}: no constant weight")
        return
    # Axes: (the contracted one, outputs, kernel taps).
    matrix = np.moveaxis(weight.astype(np.float64), touch.weight[1], 0)
    if node.op_type == "Conv":
        taps = _coverage(node, analysis.normalised.shapes).ravel()
        each, outputs = matrix.shape[:2]
        groups = len(means) // each  # of the convolution: each reads its own positions
        blocks = matrix.reshape(each, groups, outputs // groups, -1)
        delta = np.einsum("gi,igok,k->go", means.reshape(groups, each), blocks, taps).ravel()
    elif node.op_type in ("Gemm", "MatMul") and matrix.ndim == 2:
        delta = means @ matrix
    else:
        result.skipped.append(f"{node.name}: no bias can be added to this {node.op_type}")
        return
    add_to_output(result, analysis, node, delta, weight.dtype)


def add_to_output(
    result: Repaired,
    analysis: Analysis,
    node: ir.Node,
    delta: Vector,
    dtype: np.dtype[np.generic],
) -> None:
    """Add a constant to every output channel of a Conv, Gemm or MatMul (before alpha).

    Args:
        result: The repaired model, which holds the node; what can't be done is noted there.
        analysis: The analysis of the normalised model.
        node: The consumer.
        delta: What to add, per output channel; for Gemm in units of the product, before alpha.
        dtype: Type of the bias, if one is to be made.
    """
    graph = result.model.graph
    if node.op_type == "Gemm":
        alpha, beta = (_float(node, name) for name in ("alpha", "beta"))
        if len(node.inputs) < 3:
            beta = 1.0
            node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
        elif beta == 0:
            result.skipped.append(f"{node.name}: its bias is multiplied by 0")
            return
        _add_bias(result, graph, node, alpha / beta * delta, dtype, -1)
    elif node.op_type == "Conv":
        _add_bias(result, graph, node, delta, dtype, 1)
    else:
        _add_after(result, analysis, node, delta, dtype)


def _float(node: ir.Node, name: str) -> float:
    attribute = node.attributes.get(name)
    return 1.0 if attribute is None else attribute.as_float()


def _add_bias(
    result: Repaired,
    graph: ir.Graph,
    node: ir.Node,
    delta: Vector,
    dtype: np.dtype[np.generic],
    axis: int,
) -> None:
    """Add to the third operand, which holds one number per output channel."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        array = constant_array(bias)
        if array is None or array.size != len(delta) or len(bias.uses()) > 1:
            result.skipped.append(f"{node.name}: its bias is not a constant vector")
            return
        folded = array.astype(np.float64) + delta.reshape(array.shape)
        set_constant(bias, folded.astype(dtype))
        return
    node.resize_inputs(3)
    node.replace_input_with(2, _new_bias(result, graph, node, delta, dtype, axis))


def _new_bias(
    result: Repaired,
    graph: ir.Graph,
    node: ir.Node,
    delta: Vector,
    dtype: np.dtype[np.generic],
    axis: int,
) -> ir.Value:
    weight = node.inputs[1].name or "" if node.inputs[1] is not None else ""
    name = Names(graph).fresh(f"{weight.removesuffix('.weight')}.bias")
    output = node.outputs[0].name or ""
    result.new_biases[name] = (output, axis)
    return add_initializer(graph, name, delta.astype(dtype))


def _add_after(
    result: Repaired,
    analysis: Analysis,
    node: ir.Node,
    delta: Vector,
    dtype: np.dtype[np.generic],
) -> None:
    """MatMul has no bias: add to the Add that follows, or put one there."""
    graph = result.model.graph
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not output.is_graph_output():
        bias = uses[0].node.inputs[1 - uses[0].idx]
        array = constant_array(bias)
        if bias is not None and array is not None and array.shape == delta.shape:
            set_constant(bias, (array.astype(np.float64) + delta).astype(dtype))
            return
    name = output.name or ""
    axis = len(analysis.normalised.shapes[name]) - 1
    bias = _new_bias(result, graph, node, delta, dtype, axis)
    add = ir.node("Add", [output, bias])
    add.outputs[0].type = output.type
    add.outputs[0].shape = output.shape
    output.replace_all_uses_with(add.outputs[0], replace_graph_outputs=True)
    add.replace_input_with(0, output)
    output.name = Names(graph).fresh(f"{name}/without_bias")
    add.outputs[0].name = name
    add.name = Names(graph).fresh(f"{name}/bias")
    graph.insert_after(node, add)


def _coverage(node: ir.Node, shapes: dict[str, tuple[int, ...]]) -> Vector:
    """For every kernel tap the share of output positions at which it lies inside the input."""
    window = window_of(node, shapes)
    assert window is not None  # it is a Conv
    source = shapes[node.inputs[0].name or ""][2:] if node.inputs[0] is not None else ()
    target = shapes[node.outputs[0].name or ""][2:]
    pads = window.padding(source, target)
    coverage = np.ones(())
    for axis, size in enumerate(source):
        taps = np.arange(window.kernel[axis])[:, None] * window.dilations[axis]
        index = np.arange(target[axis])[None, :] * window.strides[axis] - pads[axis][0] + taps
        inside = ((index >= 0) & (index < size)).mean(axis=1)
        coverage = np.multiply.outer(coverage, inside)
    return coverage
