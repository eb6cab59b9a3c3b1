"""A session that returns sums over tensors instead of the tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.bench.session import run
from onnxtrim.toolkit.graph.execute import Feeds, WeightFile
from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.graph.values import add_initializer

Vector = NDArray[np.float64]
Sums = tuple[int, Vector, Vector, Vector, Vector, Vector, Vector]

_SHIFT = "onnxtrim.shift/{}"
_SUM = "onnxtrim.{}/{}"


class StatisticsProbe:
    """The model with reductions appended at the points of interest.

    Args:
        model: The normalised model; it is not changed.
        points: Tensor and axis of each point.
        shapes: Shape of every tensor at the analysis size (for the ranks).
        weights: Where large weights go; a file of its own if nothing is said.
    """

    def __init__(
        self,
        model: ir.Model,
        points: Sequence[AxisRef],
        shapes: Mapping[str, tuple[int, ...]],
        weights: WeightFile | None = None,
    ) -> None:
        self._points = list(points)
        self._sizes = [shapes[tensor][axis] for tensor, axis in self._points]
        clone = model.clone()
        graph = clone.graph
        opset = clone.opset_imports.get("", 1)
        values = {value.name: value for node in graph for value in node.outputs}
        values.update({value.name: value for value in graph.inputs})
        graph.outputs.clear()
        for number, (tensor, axis) in enumerate(self._points):
            _Reductions(graph, values[tensor], number, opset).append(axis, len(shapes[tensor]))
        self._shifts = [np.zeros(size) for size in self._sizes]
        self._session = (weights or WeightFile()).session(clone, optimise=True)
        self._inputs = {item.name for item in self._session.get_inputs()}

    def centre(self, feeds: Feeds) -> None:
        """Shift by the means of this batch from now on (against cancellation in the variance)."""
        self._shifts = [sums[1] for sums in self.run(feeds).values()]

    def run(self, feeds: Feeds) -> dict[AxisRef, Sums]:
        """Count, mean, m2, mean of |x|, share of zeros, minimum and maximum at every point.

        Raises:
            InputError: ONNX Runtime refuses the inputs.
        """
        if not self._points:
            return {}
        wanted = {name: array for name, array in feeds.items() if name in self._inputs}
        for number, shift in enumerate(self._shifts):
            wanted[_SHIFT.format(number)] = shift
        found = iter(run(self._session, wanted, "the model"))
        result: dict[AxisRef, Sums] = {}
        for ref, size, shift in zip(self._points, self._sizes, self._shifts, strict=True):
            elements, total, squares, absolute, zeros, low, high = (
                np.asarray(next(found), np.float64) for _ in range(7)
            )
            count = int(elements) // size
            mean = total / count
            with np.errstate(invalid="ignore"):  # infinities are the caller's to refuse
                m2 = np.maximum(squares - total * mean, 0.0)
            result[ref] = (count, shift + mean, m2, absolute / count, zeros / count, low, high)
        return result


class _Reductions:
    """Appends the reductions of one point to a graph."""

    def __init__(self, graph: ir.Graph, value: ir.Value, number: int, opset: int) -> None:
        self.graph, self.value, self.number, self.opset = graph, value, number, opset

    def append(self, axis: int, rank: int) -> None:
        axes = [other for other in range(rank) if other != axis]
        shift = ir.Value(
            name=_SHIFT.format(self.number),
            shape=ir.Shape([f"onnxtrim.units/{self.number}"]),
            type=ir.TensorType(ir.DataType.DOUBLE),
        )
        self.graph.inputs.append(shift)
        shape = self._constant("shape", np.array([1] * axis + [-1] + [1] * (rank - axis - 1)))
        double = self._double(self.value)
        shifted = self._op("Sub", double, self._op("Reshape", shift, shape))
        self._output("count", self._op("Size", self.value))
        self._output("sum", self._reduce("ReduceSum", shifted, axes))
        self._output("squares", self._reduce("ReduceSum", self._op("Mul", shifted, shifted), axes))
        self._output("absolute", self._reduce("ReduceSum", self._op("Abs", double), axes))
        nonzero = self._op("Cast", double, to=ir.DataType.BOOL)  # Equal takes floats from opset 11
        zeros = self._double(self._op("Not", nonzero))
        self._output("zeros", self._reduce("ReduceSum", zeros, axes))
        self._output("low", self._reduce("ReduceMin", double, axes))
        self._output("high", self._reduce("ReduceMax", double, axes))

    def _double(self, value: ir.Value) -> ir.Value:
        return self._op("Cast", value, to=ir.DataType.DOUBLE)

    def _op(self, operator: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        node = ir.node(operator, list(inputs), attributes=attributes)
        self.graph.append(node)
        return node.outputs[0]

    def _constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        return add_initializer(self.graph, _SUM.format(name, self.number), array)

    def _reduce(self, operator: str, value: ir.Value, axes: list[int]) -> ir.Value:
        if not axes:
            return self._op("Identity", value)  # an output can be listed only once
        # The axes moved from an attribute to an operand.
        if self.opset >= (13 if operator == "ReduceSum" else 18):
            name = _SUM.format("axes", self.number)
            operand = self.graph.initializers.get(name)
            if operand is None:
                operand = self._constant("axes", np.array(axes, np.int64))
            return self._op(operator, value, operand, keepdims=0)
        return self._op(operator, value, axes=axes, keepdims=0)

    def _output(self, name: str, value: ir.Value) -> None:
        value.name = _SUM.format(f"{name}.out", self.number)
        self.graph.outputs.append(value)
