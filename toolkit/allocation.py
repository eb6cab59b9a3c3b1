"""How many units each group gives: one global order of which any budget is a prefix.

Relative errors of layers don't compare across depth, so each group alone is cut to several sizes,
repaired, and the divergence of the model's *output* is measured on calibration data that the
repair did not see. The curves are made convex from below and followed greedily by divergence per
parameter saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.session import run
from onnxtrim.toolkit.comoments import SecondMoments
from onnxtrim.toolkit.graph.execute import Feeds, WeightFile
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.labels import AxisRef, Index
from onnxtrim.toolkit.graph.surgery import remove_units
from onnxtrim.toolkit.graph.values import is_parameter
from onnxtrim.toolkit.least_squares import repair_channels
from onnxtrim.toolkit.limits import Limits
from onnxtrim.toolkit.orders import Orders
from onnxtrim.toolkit.statistics import Progress

SHARES = (0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
"""Of the units of a group, where its curve is measured."""

WORST = 1e6
"""Divergence of outputs that are no numbers."""

STEPS = 64
"""In how many steps a group can leave."""

Curve = NDArray[np.float64]


class Divergence:
    """How far a model's outputs are from the original's, on some samples.

    The measure is the squared difference over the variance of the original's output, averaged
    over the outputs of floats.

    Args:
        model: The original.
        batches: Inputs.

    Raises:
        InputError: No output holds floats, or they overflow.
    """

    def __init__(self, model: ir.Model, batches: Sequence[Feeds]) -> None:
        self._names = [value.name or "" for value in model.graph.outputs]
        self._batches = batches
        self._wanted = list(self._outputs(model))
        floats = [name for name in self._names if name in self._wanted[0]]
        if not floats:
            raise InputError(
                "no output of the model holds floats, so that nothing tells how far a smaller model"
                " is from it; cut the model where it gives scores"
            )
        self._variance = {name: self._variance_of(name) for name in floats}
        if not all(np.isfinite(value) for value in self._variance.values()):
            raise InputError("the outputs of the model overflow on the calibration data")

    def of(self, model: ir.Model) -> float:
        """The divergence of a model; infinite if its outputs are no numbers or of other shapes."""
        total = 0.0
        for want, got in zip(self._wanted, self._outputs(model), strict=True):
            for name, variance in self._variance.items():
                if want[name].shape != got[name].shape:
                    return np.inf
                error = float(((want[name].astype(np.float64) - got[name]) ** 2).sum())
                total += error / variance if variance > 0 else error
        return total / len(self._variance) if np.isfinite(total) else np.inf

    def _variance_of(self, name: str) -> float:
        """Sum of squared deviations from the mean."""
        arrays = [found[name].astype(np.float64) for found in self._wanted]
        mean = sum(float(array.sum()) for array in arrays) / max(sum(a.size for a in arrays), 1)
        return sum(float(((array - mean) ** 2).sum()) for array in arrays)

    def _outputs(self, model: ir.Model) -> Iterator[dict[str, NDArray[np.floating[Any]]]]:
        session = WeightFile().session(model.clone(), optimise=True)
        for feeds in self._batches:
            arrays = zip(self._names, run(session, dict(feeds), "the model"), strict=True)
            yield {name: a for name, a in arrays if np.issubdtype(a.dtype, np.floating)}


def measure_curves(
    analysis: Analysis,
    allowed: Sequence[Group],
    orders: Orders,
    moments: Mapping[AxisRef, SecondMoments],
    divergence: Divergence,
    progress: Progress | None = None,
) -> dict[str, Curve]:
    """For every group the divergence after its first k units left, k = 0 … units - 1."""
    curves = {}
    for number, group in enumerate(allowed):
        counts, values = [0], [0.0]
        for share in SHARES:
            wanted = min(round(share * group.units), group.units - 1)
            keep = Limits().keep(analysis, {group.name: orders[group.name][:wanted]})
            count = int((~keep[group.name]).sum()) if group.name in keep else 0
            if count <= counts[-1]:
                continue
            repaired = repair_channels(analysis, keep, moments)
            pruned = remove_units(repaired.model, analysis, keep, repaired.new_biases)
            counts.append(count)
            values.append(min(divergence.of(pruned), WORST))
        curves[group.name] = _convex(np.asarray(counts), np.asarray(values), group.units)
        if progress is not None:
            progress("curves", number + 1, len(allowed))
    return curves


def _convex(counts: Index, values: Curve, units: int) -> Curve:
    """The largest convex curve below some points, at 0 … units - 1; never falling."""
    hull: list[tuple[float, float]] = []
    values = np.maximum.accumulate(values)
    for x, y in zip(counts.tolist(), values.tolist(), strict=True):
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2:]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    xs, ys = zip(*hull, strict=True)
    curve = np.asarray(np.interp(np.arange(units), xs, ys), np.float64)
    beyond = np.arange(units) > xs[-1]
    slope = (ys[-1] - ys[-2]) / (xs[-1] - xs[-2]) if len(xs) > 1 else 0.0
    curve[beyond] = ys[-1] + slope * (np.arange(units)[beyond] - xs[-1])
    return curve


@dataclass(frozen=True)
class Sizes:
    """The sizes of all weights while units leave.

    Attributes:
        axes: For every weight the length of each axis.
        groups: For every group, on which axes of weights it lies and with how many positions per
            unit.
    """

    axes: dict[str, list[float]]
    groups: Mapping[str, Sequence[tuple[str, int, float]]]

    def saved(self, group: str, count: float) -> float:
        """Parameters that leave if so many units of a group do."""
        lost: dict[str, dict[int, float]] = {}
        for tensor, axis, per_unit in self.groups[group]:
            lost.setdefault(tensor, {})[axis] = per_unit * count
        total = 0.0
        for tensor, cut in lost.items():
            before = after = 1.0
            for axis, length in enumerate(self.axes[tensor]):
                before *= length
                after *= length - cut.get(axis, 0.0)
            total += before - after
        return total

    def remove(self, group: str, count: float) -> None:
        """Let them leave."""
        for tensor, axis, per_unit in self.groups[group]:
            self.axes[tensor][axis] -= per_unit * count


def weight_sizes(analysis: Analysis) -> Sizes:
    """The sizes of the original."""
    axes = {
        name: [float(size) for size in analysis.normalised.shapes[name]]
        for name, value in analysis.model.graph.initializers.items()
        if is_parameter(value)
    }
    return Sizes(axes, {group.name: _places(group, axes) for group in analysis.groups})


def _places(group: Group, axes: Mapping[str, Sequence[float]]) -> list[tuple[str, int, float]]:
    return [
        (tensor, axis, float((units >= 0).sum()) / group.units)
        for (tensor, axis), units in group.slices.items()
        if tensor in axes
    ]


def global_order(
    analysis: Analysis, curves: Mapping[str, Curve], allowed: Sequence[Group]
) -> list[tuple[str, int]]:
    """All that can leave, the cheapest divergence per parameter first.

    Args:
        analysis: The groups.
        curves: The divergence after k units of each group left.
        allowed: Groups that may lose units.

    Returns:
        Steps (group, units that leave it now); any budget is a prefix of them.
    """
    sizes = weight_sizes(analysis)
    taken = {group.name: 0 for group in allowed}
    order: list[tuple[str, int]] = []
    while True:
        best, rate, count = "", np.inf, 0
        for group in allowed:
            curve, done = curves[group.name], taken[group.name]
            step = min(max(1, group.units // STEPS), group.units - 1 - done)
            if step < 1:
                continue
            saved = sizes.saved(group.name, step)
            price = (curve[done + step] - curve[done]) / saved if saved > 0 else np.inf
            if price < rate or not best:
                best, rate, count = group.name, price, step
        if not best:
            return order
        sizes.remove(best, count)
        taken[best] += count
        order.append((best, count))
