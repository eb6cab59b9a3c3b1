"""How many units each group gives: one global order of which any budget is a prefix.

Relative errors of layers don't compare across depth, so each group alone is cut to several sizes,
repaired, and the divergence of the model's *output* is measured on calibration data that the
repair did not see. The curves are made convex from below and followed greedily by divergence per
parameter, or per multiply-accumulate, saved. What groups cost together is not the sum of what each
costs alone, so the curves are measured again on the way, on the model as it then is: without what
has left, and with all layers fitted one after another.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.comoments import SecondMoments
from onnxtrim.toolkit.divergence import Divergence
from onnxtrim.toolkit.graph.execute import Feeds
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.labels import AxisRef, Index
from onnxtrim.toolkit.graph.surgery import Keep, cut_units, remove_units
from onnxtrim.toolkit.least_squares import LeastSquares, Solved, repair_channels
from onnxtrim.toolkit.limits import Limits
from onnxtrim.toolkit.orders import Orders
from onnxtrim.toolkit.repair import Repaired
from onnxtrim.toolkit.resume import Beginning
from onnxtrim.toolkit.sizes import PARAMETERS, cost_sizes
from onnxtrim.toolkit.statistics import Progress

SHARES = (0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
"""Of the units of a group, where its curve is measured."""

FEW_SHARES = (0.3, 0.7)
"""The same for groups that save little."""

LITTLE = 0.01
"""Of all that can be saved."""

WORST = 1e6
"""Divergence of outputs that are no numbers."""

STEPS = 64
"""In how many steps a group can leave."""

MILESTONES = (0.4, 0.65, 0.8, 0.9, 1.0)
"""Of what can leave, after which curves are measured again."""

Curve = NDArray[np.float64]


def measure_curves(
    probes: Probes,
    allowed: Sequence[Group],
    taken: Mapping[str, int],
    small: Container[str] = (),
) -> tuple[float, dict[str, Curve]]:
    """How the divergence grows when one group more loses units than have left already.

    Args:
        probes: The model, and what it is measured with.
        allowed: Groups that may lose units.
        taken: How many units of each have left.
        small: Groups whose curves need not be precise.

    Returns:
        The divergence so far, and for every group what is added when k units of it have left in
        all, k = 0 … units - 1.
    """
    solved: Solved = {}
    base = probes.repaired_without(taken, solved)
    model = remove_units(base.model, probes.analysis, probes.keep(taken), base.new_biases)
    beginning = probes.divergence.beginning(model)
    start = min(probes.divergence.of(model), WORST) if any(taken.values()) else 0.0
    curves = {}
    for number, group in enumerate(allowed):
        done = taken[group.name]
        counts, values = [done], [0.0]
        for share in FEW_SHARES if group.name in small else SHARES:
            wanted = done + round(share * (group.units - done))
            count = min(wanted, group.units - 1)
            if count > counts[-1]:
                counts.append(count)
                smaller = probes.model_without({**taken, group.name: count}, solved, base)
                found = min(probes.divergence.of(smaller, beginning), WORST)
                values.append(found - start)
        curves[group.name] = _convex(np.asarray(counts), np.asarray(values), group.units)
        if probes.progress is not None:
            probes.progress("curves", number + 1, len(allowed))
    return start, curves


@dataclass(frozen=True)
class Probes:
    """A model, and what divergences are measured with.

    Attributes:
        analysis: The groups.
        orders: For every group its units, the one to remove first at the front.
        moments: Second moments at the readers' inputs.
        divergence: Of the outputs, on samples that the moments are not of.
        limits: What must stay.
        batches: Inputs that layers are fitted on, not those of the divergence.
        progress: Called with a word, how many groups are done, and how many there are.
    """

    analysis: Analysis
    orders: Orders
    moments: Mapping[AxisRef, SecondMoments]
    divergence: Divergence
    limits: Limits
    batches: Sequence[Feeds] = ()
    progress: Progress | None = None

    def keep(self, taken: Mapping[str, int]) -> Keep:
        """What stays when so many units of each group leave."""
        removals = {name: self.orders[name][:units] for name, units in taken.items() if units}
        return self.limits.keep(self.analysis, removals)

    def repaired_without(self, taken: Mapping[str, int], solved: Solved) -> Repaired:
        """The model, still of full size, when units leave and all layers are fitted anew.

        Args:
            taken: How many units of each group leave.
            solved: Gets the solutions of channel least squares.
        """
        keep = self.keep(taken)
        solver = LeastSquares(self.moments, self.batches if keep else ())
        return solver(self.analysis, keep, solved)

    def model_without(
        self, taken: Mapping[str, int], solved: Solved | None = None, base: Repaired | None = None
    ) -> ir.Model:
        """The model when units leave and the next layers are solved anew.

        Args:
            taken: How many units of each group leave.
            solved: Solutions that are known.
            base: A repaired model that does without some of the units already.
        """
        keep = self.keep(taken)
        repaired = repair_channels(self.analysis, keep, self.moments, solved, start=base)
        cut_units(repaired.model, self.analysis, keep, repaired.new_biases)
        return repaired.model

    def divergence_without(self, taken: Mapping[str, int]) -> float:
        """The divergence of that model, at most `WORST`."""
        return min(self.divergence.of(self.model_without(taken), self._whole), WORST)

    @cached_property
    def _whole(self) -> Beginning:
        return self.divergence.beginning(self.analysis.model)


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
class Round:
    """A stretch of the global order, with the curves that it follows.

    Attributes:
        taken: How many units of each group left before.
        divergence: Measured when they had left.
        curves: What is added as more leave.
    """

    taken: Mapping[str, int]
    divergence: float
    curves: Mapping[str, Curve]


class GlobalOrder:
    """All that can leave, the cheapest divergence per saving first; any budget is a prefix.

    Divergences of groups don't add up, so the curves are measured again after some of what can
    leave is gone and the rest is repaired. That is done when it is asked for: small budgets need
    the first curves only.

    Args:
        probes: The model, and what it is measured with.
        allowed: Groups that may lose units.
        cost: What is saved, see :func:`.sizes.cost_sizes`.

    Attributes:
        steps: Groups with the number of units that leave them, as far as was asked for.
        rounds: The stretches so far.
    """

    def __init__(self, probes: Probes, allowed: Sequence[Group], cost: str = PARAMETERS) -> None:
        self._probes, self._allowed, self._cost = probes, allowed, cost
        self._sizes = cost_sizes(probes.analysis, cost)
        self._start = self._sizes.total()
        self._taken = {group.name: 0 for group in allowed}
        self._most = self._start - self._least()
        self._small = {
            group.name
            for group in allowed
            if self._sizes.saved(group.name, group.units) < LITTLE * self._most
        }
        self.steps: list[tuple[str, int]] = []
        self.rounds: list[Round] = []

    def taken(self, steps: int, more: int = 0) -> dict[str, int]:
        """How many units of each group leave in some steps, and some units of the next."""
        found = {group.name: 0 for group in self._allowed}
        for name, units in self.steps[:steps]:
            found[name] += units
        if more:
            found[self.steps[steps][0]] += more
        return found

    def most(self) -> dict[str, int]:
        """All that can leave."""
        stay = self._probes.limits.min_units
        return {group.name: max(group.units - stay, 0) for group in self._allowed}

    def extend(self) -> bool:
        """Measure once more and go on; whether there was anything left."""
        if len(self.rounds) == len(MILESTONES):
            return False
        until = MILESTONES[len(self.rounds)] * self._most
        before = dict(self._taken)
        divergence, curves = measure_curves(self._probes, self._allowed, before, self._small)
        self.rounds.append(Round(before, divergence, curves))
        while until > self._start - self._sizes.total() or until == self._most:
            step = self._next(curves)
            if step is None:
                break
            name, units = step
            self._sizes.remove(name, units)
            self._taken[name] += units
            self.steps.append(step)
        return True

    def predicted(self, taken: Mapping[str, int]) -> tuple[float, dict[str, float]]:
        """The divergence after some units left, and what each group has added to it."""
        by_group = dict.fromkeys(taken, 0.0)
        total = 0.0
        for number, stretch in enumerate(self.rounds):
            ahead = number + 1 < len(self.rounds)
            added = 0.0
            for name, units in taken.items():
                reached = min(units, self.rounds[number + 1].taken[name]) if ahead else units
                if reached > stretch.taken[name]:
                    part = float(stretch.curves[name][reached])
                    by_group[name] += part
                    added += part
            if added or not number:
                total = stretch.divergence + added
        return total, by_group

    def _next(self, curves: Mapping[str, Curve]) -> tuple[str, int] | None:
        best, least = None, np.inf
        most = self.most()
        for group in self._allowed:
            curve, done = curves[group.name], self._taken[group.name]
            step = min(max(1, group.units // STEPS), most[group.name] - done)
            if step < 1:
                continue
            saved = self._sizes.saved(group.name, step)
            price = (curve[done + step] - curve[done]) / saved if saved > 0 else np.inf
            if price < least or best is None:
                best, least = (group.name, step), price
        return best

    def _least(self) -> float:
        """What is left when all that can leave has left."""
        sizes = cost_sizes(self._probes.analysis, self._cost)
        for name, units in self.most().items():
            sizes.remove(name, units)
        return sizes.total()
