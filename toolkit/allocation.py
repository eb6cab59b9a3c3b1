"""How many units each group gives: one global order of which any budget is a prefix.

Relative errors of layers don't compare across depth, so each group alone is cut to several sizes,
repaired, and the divergence of the model's *output* is measured on calibration data that the
repair did not see. The curves are made convex from below and followed greedily by divergence per
parameter saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxtrim.toolkit.comoments import SecondMoments
from onnxtrim.toolkit.divergence import Divergence
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.labels import AxisRef, Index
from onnxtrim.toolkit.graph.surgery import Keep, cut_units
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
            counts.append(count)
            values.append(divergence_without(analysis, keep, moments, divergence))
        curves[group.name] = _convex(np.asarray(counts), np.asarray(values), group.units)
        if progress is not None:
            progress("curves", number + 1, len(allowed))
    return curves


def divergence_without(
    analysis: Analysis,
    keep: Keep,
    moments: Mapping[AxisRef, SecondMoments],
    divergence: Divergence,
) -> float:
    """The divergence when some units leave and the next layers are solved anew, at most `WORST`."""
    repaired = repair_channels(analysis, keep, moments)
    cut_units(repaired.model, analysis, keep, repaired.new_biases)
    return min(divergence.of(repaired.model), WORST)


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
