"""Second moments of the tensors that are read: uncentred sums of products, streaming.

``G = E[x xᵀ]`` over all elements on the other axes (Hassibi & Stork 1993 and what followed need
nothing else). The products are computed inside ONNX Runtime, shifted by the first batch's mean
against cancellation; only one C×C array per tensor and batch leaves the session and is added in
float64. Long axes are read at every n-th element, another one in every batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.bench.data import DataSource
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.session import run
from onnxtrim.toolkit.comoments import Halves, Moments, SecondMoments
from onnxtrim.toolkit.graph.execute import Feeds, WeightFile
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.graph.values import add_initializer
from onnxtrim.toolkit.statistics import Progress, require_finite

WIDE = 4096
"""Longest axis of which every pair is looked at; of longer ones only the variances are taken."""

ROWS = 400_000
"""Most rows per tensor that are wanted; more change nothing that a repair can use."""


class Sums:
    """Shifted sums of one point, over batches."""

    def __init__(self) -> None:
        self._count = 0
        self._total: Any = 0.0
        self._products: Any = 0.0

    def add(self, products: NDArray[Any], total: NDArray[Any], count: int) -> None:
        """Add a batch."""
        if self._count:
            self._products += products
            self._total += total
        else:
            self._products = products.astype(np.float64)
            self._total = total.astype(np.float64)
        self._count += count

    def moments(self, shift: NDArray[Any]) -> SecondMoments:
        """The moments of what was added, given what was subtracted before."""
        mean = self._total / self._count
        with np.errstate(invalid="ignore", over="ignore"):  # infinities are the caller's to refuse
            if self._products.ndim == 2:
                self._products -= np.outer(self._total, mean)
            else:
                self._products -= self._total * mean
        return SecondMoments(self._count, shift + mean, self._products)


class MomentsProbe:
    """The model with products appended at the points of interest.

    Args:
        model: The normalised model; it is not changed.
        points: Tensor and axis of each point.
        shapes: Shape of every tensor at the analysis size.
        steps: For every point, of how many rows one is read.
        weights: Where large weights go.
    """

    def __init__(
        self,
        model: ir.Model,
        points: Sequence[AxisRef],
        shapes: Mapping[str, tuple[int, ...]],
        steps: Mapping[AxisRef, int],
        weights: WeightFile,
    ) -> None:
        self._points = list(points)
        self._steps = [steps[point] for point in self._points]
        clone = model.clone()
        graph = clone.graph
        values = {value.name: value for node in graph for value in node.outputs}
        values.update({value.name: value for value in graph.inputs})
        graph.outputs.clear()
        for number, (tensor, axis) in enumerate(self._points):
            _append(graph, values[tensor], axis, shapes[tensor], number, self._steps[number] > 1)
        self._shifts = [np.zeros(shapes[t][a], np.float32) for t, a in self._points]
        self._session = weights.session(clone, optimise=True)
        self._inputs = {item.name for item in self._session.get_inputs()}
        self._runs = 0

    def centre(self, feeds: Feeds) -> None:
        """Shift by the means of this batch from now on."""
        sums: dict[AxisRef, Sums] = {}
        self.add(feeds, sums)
        for number, ref in enumerate(self._points):
            if ref in sums:
                mean = np.nan_to_num(sums[ref].moments(np.zeros(1)).mean, posinf=0, neginf=0)
                self._shifts[number] = mean.astype(np.float32)
        self._runs = 0

    def add(self, feeds: Feeds, sums: dict[AxisRef, Sums]) -> None:
        """Add one batch to the sums of every point.

        Raises:
            InputError: ONNX Runtime refuses the inputs.
        """
        wanted = dict(feeds)
        for number, (shift, step) in enumerate(zip(self._shifts, self._steps, strict=True)):
            wanted[f"onnxtrim.shift/{number}"] = shift
            wanted[f"onnxtrim.first/{number}"] = np.array([self._runs % step], np.int64)
            wanted[f"onnxtrim.step/{number}"] = np.array([step], np.int64)
        self._runs += 1
        wanted = {name: array for name, array in wanted.items() if name in self._inputs}
        found = iter(run(self._session, wanted, "the model"))
        for ref in self._points:
            products, total, shape = (next(found) for _ in range(3))
            if shape[0]:  # or the tensor is empty, as with no detections
                sums.setdefault(ref, Sums()).add(products, total, int(shape[0]))

    def moments(self, sums: Mapping[AxisRef, Sums]) -> Moments:
        """What was added."""
        points = zip(self._points, self._shifts, strict=True)
        return {ref: sums[ref].moments(shift) for ref, shift in points if ref in sums}


def _append(
    graph: ir.Graph,
    value: ir.Value,
    axis: int,
    shape: tuple[int, ...],
    number: int,
    is_sampled: bool,
) -> None:
    def op(operator: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        node = ir.node(operator, list(inputs), attributes=attributes)
        graph.append(node)
        return node.outputs[0]

    def constant(name: str, content: list[int]) -> ir.Value:
        return add_initializer(graph, f"onnxtrim.{name}/{number}", np.array(content, np.int64))

    def feed(name: str, dtype: ir.DataType, size: int) -> ir.Value:
        fed = ir.Value(
            name=f"onnxtrim.{name}/{number}", shape=ir.Shape([size]), type=ir.TensorType(dtype)
        )
        graph.inputs.append(fed)
        return fed

    size = shape[axis]
    opset = graph.opset_imports.get("", 1)

    def sampled(rows: ir.Value, along: int) -> ir.Value:
        if not is_sampled or opset < 10:  # Slice takes no operands
            return rows
        first, step = feed("first", ir.DataType.INT64, 1), feed("step", ir.DataType.INT64, 1)
        end = constant("end", [np.iinfo(np.int64).max])
        return op("Slice", rows, first, end, constant("axes", [along]), step)

    rows = op("Cast", value, to=ir.DataType.FLOAT)
    if is_sampled and axis == 1 and len(shape) > 2:  # a sample is cheaper to transpose
        rows = sampled(op("Reshape", rows, constant("pixels", [0, size, -1])), 2)
        rows = op("Transpose", rows, perm=[0, 2, 1])
        rows = op("Reshape", rows, constant("rows", [-1, size]))
    else:
        last = [other for other in range(len(shape)) if other != axis] + [axis]
        if last != sorted(last):
            rows = op("Transpose", rows, perm=last)
        rows = sampled(op("Reshape", rows, constant("rows", [-1, size])), 0)
    rows = op("Sub", rows, feed("shift", ir.DataType.FLOAT, size))
    over = constant("over", [0])

    def summed(values: ir.Value) -> ir.Value:
        if opset >= 13:  # ReduceSum takes an operand
            return op("ReduceSum", values, over, keepdims=0)
        return op("ReduceSum", values, axes=[0], keepdims=0)

    total = summed(rows)
    if size <= WIDE:
        products = op("MatMul", op("Transpose", rows, perm=[1, 0]), rows)
    else:
        products = summed(op("Mul", rows, rows))
    for name, output in (("products", products), ("total", total), ("shape", op("Shape", rows))):
        output.name = f"onnxtrim.{name}.out/{number}"
        graph.outputs.append(output)


BATCH = 64
"""Samples per run; every second batch is for judging."""

AT_ONCE = 8
"""Most batches of one half in a run."""

ELEMENTS = 4_000_000
"""Most elements of the tensors that are read, where batches are joined."""


def half_batch(samples: int | None) -> int:
    """Samples per run; small sets are cut finer, so that both halves get some."""
    return BATCH if samples is None else max(1, min(BATCH, samples // 8))


def read_points(analysis: Analysis) -> list[AxisRef]:
    """Tensors and axes at which units are read."""
    groups = analysis.groups
    return list(dict.fromkeys(r for g in groups for r in g.consumer_inputs() if r in g.slices))


def gather_halves(
    analysis: Analysis,
    points: Sequence[AxisRef],
    data: DataSource,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Halves:
    """Second moments of the even and of the odd batches.

    What is fitted on the first half is judged on the second.

    Args:
        analysis: The model.
        points: Where units are read.
        data: Calibration data.
        batch: Samples per run; :func:`half_batch` if nothing is said.
        progress: Called with a word, the samples done and their number if known.

    Raises:
        InputError: The data don't fit the model, there are none, or a tensor is always empty.
    """
    batch = batch or half_batch(data.samples)
    normalised = analysis.normalised
    steps = _steps(normalised.shapes, normalised.feeds, points, data.samples)
    if not points:
        return {}, {}
    probe = MomentsProbe(analysis.model, points, normalised.shapes, steps, normalised.weights)
    sums: tuple[dict[AxisRef, Sums], dict[AxisRef, Sums]] = ({}, {})
    seen = 0
    at_once = _batches_at_once(analysis, points, batch)
    waiting: tuple[list[Feeds], list[Feeds]] = ([], [])
    for number, item in enumerate(data.batches(batch)):
        if not number:
            probe.centre(item.feeds)
        _add(probe, waiting[number % 2], sums[number % 2], item.feeds, at_once)
        seen += len(item)
        if progress is not None:
            progress("second moments", seen, data.samples)
    for rest, half in zip(waiting, sums, strict=True):
        for feeds in rest:
            probe.add(feeds, half)
    even, odd = (probe.moments(half) for half in sums)
    for found in (even, odd):
        for (tensor, _), moments in found.items():
            require_finite(moments.mean, moments.comoment, tensor, data.name)
    for ref in points:
        if ref not in even and ref not in odd:
            raise InputError(
                f"{data.name}: tensor {ref[0]!r} is empty for all samples; give others"
            )
    return even, odd


def _batches_at_once(analysis: Analysis, points: Sequence[AxisRef], batch: int) -> int:
    """How many batches of a half to run together: small tensors give large sums too often."""
    shapes = analysis.normalised.shapes
    if any(
        value.shape is None or not len(value.shape) or isinstance(value.shape[0], int)
        for value in analysis.model.graph.inputs
    ):
        return 1
    small = max(min(len(array) for array in analysis.normalised.feeds.values()), 1)
    elements = sum(int(np.prod(shapes[tensor])) for tensor, _ in points) * batch // small
    return max(1, min(AT_ONCE, ELEMENTS // max(elements, 1)))


def _add(
    probe: MomentsProbe,
    waiting: list[Feeds],
    sums: dict[AxisRef, Sums],
    feeds: Feeds,
    at_once: int,
) -> None:
    if waiting and any(waiting[0][name].shape[1:] != feeds[name].shape[1:] for name in feeds):
        for other in waiting:  # of another length
            probe.add(other, sums)
        waiting.clear()
    waiting.append(feeds)
    if len(waiting) == at_once:
        together = feeds
        if at_once > 1:
            together = {name: np.concatenate([f[name] for f in waiting]) for name in feeds}
        waiting.clear()
        probe.add(together, sums)


def _steps(
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Feeds,
    points: Sequence[AxisRef],
    samples: int | None,
) -> dict[AxisRef, int]:
    """Of how many rows one is read: odd, so that no column of an image is always missed."""
    batch = max(1, min((len(array) for array in feeds.values() if array.ndim), default=1))
    steps = {}
    for tensor, axis in points:
        rows = int(np.prod(shapes[tensor])) // max(shapes[tensor][axis], 1) // batch
        total = rows * (ROWS if samples is None else samples)
        step = max(1, min(total // ROWS, rows // 4))
        steps[tensor, axis] = step | 1
    return steps
