"""From a budget to a plan: order the units, allocate, and cut the global order where it is met."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxtrim.bench.data import DataSource
from onnxtrim.bench.errors import NothingToRemoveError
from onnxtrim.toolkit.allocation import GlobalOrder, Probes
from onnxtrim.toolkit.budget import Budget
from onnxtrim.toolkit.comoments import Moments, join
from onnxtrim.toolkit.divergence import Divergence, first_batches
from onnxtrim.toolkit.graph.execute import Feeds
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.surgery import Keep, parameters_after, remove_units
from onnxtrim.toolkit.least_squares import LeastSquares
from onnxtrim.toolkit.limits import Limits
from onnxtrim.toolkit.orders import DEFAULT, find_criterion, order_units
from onnxtrim.toolkit.plan import Plan, Removal, Stage
from onnxtrim.toolkit.prepare import Prepared
from onnxtrim.toolkit.readers import possible_biases
from onnxtrim.toolkit.repair import Repair, Repaired
from onnxtrim.toolkit.second_moments import gather_halves, half_batch, read_points
from onnxtrim.toolkit.sizes import MACS, PARAMETERS
from onnxtrim.toolkit.statistics import Progress, Statistics, gather

JUDGED = 256
"""Calibration samples, of those that no fit saw, on which divergences are measured at most."""

LEAST_JUDGED = 96

JUDGING = 6e10
"""Multiply-accumulates of a point of every group's curve down to which fewer samples do."""

FITTED = 1024
"""Calibration samples that the sequential repair looks at at least, if there are so many."""

MOST_FITTED = 10_000

WORK = 1e11
"""Multiply-accumulates of one pass up to which it looks at more samples."""

ON_THE_WAY = 0.25
"""Of these samples, how many the repairs between two measurements of the curves get."""

BYTES = 2**28
"""Memory for inputs up to which it looks at more samples."""

FEW = 64
"""Calibration samples below which a warning is due."""

ALARM = 0.6
"""Share of what can be removed above which accuracy tends to collapse."""


class Planner:
    """Orders, curves and the global order of a model, found once; any budget is a prefix.

    Args:
        prepared: The analysed model.
        data: Calibration data; labels are not used.
        limits: Which groups may lose units.
        criterion: In which order units leave, see :mod:`.orders`.
        progress: Called with a word, how much is done and how much there is.
        statistics: Statistics with second moments, so that only the beginning of the data is
            looked at: for divergences, and for the sequential repair.
        seen: What another planner saw of the same data.

    Attributes:
        solver: The repair that goes with the plans.
        seen: What was seen of the data, for other planners.
        data_sha256: Hash of the data, and of those of the statistics.
        divergence: Of the outputs, on samples that no curve was fitted on.
        probes: What curves are measured with.

    Raises:
        InputError: The data don't fit the model, the statistics hold no second moments, or a glob
            matches nothing.
        NothingToRemoveError: Nothing can be removed.
    """

    def __init__(
        self,
        prepared: Prepared,
        data: DataSource,
        limits: Limits | None = None,
        criterion: str = DEFAULT,
        progress: Progress | None = None,
        statistics: Statistics | None = None,
        seen: Seen | None = None,
    ) -> None:
        analysis = prepared.analysis
        self._prepared, self._limits = prepared, limits or Limits()
        self._limits.check(analysis)
        self._criterion = criterion
        if criterion != DEFAULT:
            find_criterion(criterion)  # before any work
        allowed = [group for group in analysis.groups if self._limits.allows(analysis, group)]
        if not allowed:
            why = "--include and --exclude leave no group" if analysis.groups else "all is frozen"
            raise NothingToRemoveError(
                f"{prepared.path}: nothing can be removed ({why}); 'onnxtrim inspect' tells more"
            )
        hashes = [data.sha256]  # counts the samples, too, which tells the size of the halves
        if statistics is not None:
            hashes += statistics.data_sha256.split("+")
        self.data_sha256 = "+".join(dict.fromkeys(hashes))
        if seen is None:
            seen = look(prepared, data, progress, statistics)
        self._one_batch = not seen.both
        self._samples = data.samples or 0 if statistics is None else statistics.samples
        self.solver, self.seen = seen.solver, seen
        self._progress = progress
        self._orders = order_units(
            analysis,
            seen.solver.moments,
            criterion,
            lambda: statistics or gather(analysis, data, prepared.sha256, progress=progress),
        )
        self.divergence = Divergence(analysis.model, seen.judged)
        self.probes = Probes(
            analysis,
            self._orders,
            seen.half,
            self.divergence,
            self._limits,
            seen.fitted,
            progress,
        )
        self._ordered = {
            cost: GlobalOrder(self.probes, allowed, cost) for cost in (PARAMETERS, MACS)
        }

    def plan(self, budget: Budget, *, repaired: bool = True) -> Plan:
        """The shortest prefix of the global order that meets a budget.

        The order is by divergence per parameter; of a budget of multiply-accumulates per such.

        Args:
            budget: What to meet.
            repaired: Whether a repair follows, which may add biases.

        Raises:
            NothingToRemoveError: It can't be met, or is met already.
        """
        analysis = self._prepared.analysis
        target = budget.target(analysis)
        biases = possible_biases(analysis) if repaired else {}
        order = self._ordered[MACS if budget.kind == "macs" else PARAMETERS]
        least = budget.spent(analysis, self.probes.keep(order.most()), biases)
        if least > target:
            raise NothingToRemoveError(budget.refusal(analysis, least))

        def meets(count: int, units: int = 0) -> bool:
            keep = self.probes.keep(order.taken(count, units))
            return budget.spent(analysis, keep, biases) <= target

        if meets(0):
            raise NothingToRemoveError("the model is within the budget as it is")
        steps = order.steps
        while not meets(len(steps)) and order.extend():
            pass
        count = bisect.bisect_left(range(len(steps)), True, key=meets)
        whole = range(steps[count - 1][1])  # of the last step perhaps not all units
        units = bisect.bisect_left(whole, True, key=lambda units: meets(count - 1, units))
        return self._plan(order, order.taken(count - 1, units), budget.to_json())

    def largest(
        self,
        accepts: Callable[[ir.Model], bool],
        repair: Repair | None,
        about: Mapping[str, object],
    ) -> Plan:
        """The longest prefix of the global order whose repaired model is accepted, by bisection.

        Args:
            accepts: Whether a pruned and repaired model is good enough.
            repair: The repair that it will get.
            about: What is asked for, for the plan.

        Raises:
            NothingToRemoveError: Even the first units are too many.
        """
        analysis, order = self._prepared.analysis, self._ordered[PARAMETERS]

        def fits(count: int) -> bool:
            keep = self.probes.keep(order.taken(count))
            repaired = Repaired(analysis.model) if repair is None else repair(analysis, keep)
            return accepts(remove_units(repaired.model, analysis, keep, repaired.new_biases))

        low, steps = 0, order.steps
        while order.extend() and fits(len(steps)):
            low = len(steps)
        high = len(steps)
        tries = (high - low).bit_length()
        while low < high:
            if self._progress is not None:
                self._progress("search", tries - (high - low).bit_length(), tries)
            middle = (low + high + 1) // 2
            if fits(middle):
                low = middle
            else:
                high = middle - 1
        taken = order.taken(low)
        if not self.probes.keep(taken):
            raise NothingToRemoveError(
                f"{self._prepared.path}: no unit can leave within what was asked for"
            )
        return self._plan(order, taken, about)

    def _plan(
        self, order: GlobalOrder, taken: Mapping[str, int], about: Mapping[str, object]
    ) -> Plan:
        analysis, keep = self._prepared.analysis, self.probes.keep(taken)
        removals, measured = [], {}
        total, predicted = order.predicted(taken)
        for group in analysis.groups:
            mask = keep.get(group.name)
            if mask is None:
                continue
            tensor, axis = next(iter(group.slices))
            gone = tuple(int(unit) for unit in self._orders[group.name] if not mask[unit])
            removals.append(Removal(group.name, tensor, axis, group.units, gone))
            measured[group.name] = self.probes.divergence_without({group.name: len(gone)})
        criterion = {
            "name": self._criterion,
            "budget": dict(about),
            "predicted_divergence": total,
            "predicted_by_group": {name: predicted[name] for name in measured},
            "alone_by_group": measured,
        }
        return Plan(
            self._prepared.sha256,
            self.data_sha256,
            criterion,
            (Stage(dict(analysis.choices), tuple(removals)),) if removals else (),
            self._limits,
            tuple(self._warnings(keep)),
            {name: array.shape for name, array in analysis.normalised.feeds.items()},
        )

    def _warnings(self, keep: Keep) -> list[str]:
        analysis, warnings = self._prepared.analysis, []
        if self._one_batch:
            warnings.append(
                "the calibration data are one batch: nothing was held back to judge what was fitted"
            )
        samples = self._samples
        widest = max((group.units for group in analysis.groups), default=0)
        rows = min((found.count for found in self.solver.moments.values()), default=0)
        if samples < FEW or rows < widest:
            warnings.append(
                f"{samples} calibration samples are few ({rows} rows for up to {widest} units):"
                " what was fitted may not hold on other data; give more"
            )
        share = 1 - parameters_after(analysis, keep) / max(analysis.parameters, 1)
        prunable = analysis.prunable_parameters / max(analysis.parameters, 1)
        if ALARM * prunable < share < ALARM:
            warnings.append(
                f"this takes {share / prunable:.0%} of the weights that can be pruned, because the"
                " rest is frozen; look at the accuracy before you use it"
            )
        return warnings


@dataclass(frozen=True)
class Seen:
    """What was seen of the calibration data.

    Attributes:
        half: Second moments of the half that fits are tried on.
        fitted: Samples of it.
        judged: Samples of the other half.
        both: Whether there is another half.
        solver: The repair, from all samples.
    """

    half: Moments
    fitted: list[Feeds]
    judged: list[Feeds]
    both: bool
    solver: LeastSquares


def look(
    prepared: Prepared,
    data: DataSource,
    progress: Progress | None = None,
    statistics: Statistics | None = None,
) -> Seen:
    """Go through the calibration data once, or through its beginning if there are statistics.

    Raises:
        InputError: The data don't fit the model, or the statistics hold no second moments.
    """
    analysis = prepared.analysis
    points = read_points(analysis)
    if statistics is None:
        half, other = gather_halves(analysis, points, data, progress=progress)
    else:
        half, other = statistics.require_halves(points)
    fitted, judged = _fitted(analysis), _judged(analysis)
    batches = first_batches(data, max(judged * 2, fitted), half_batch(data.samples))
    solver = LeastSquares(join(half, other), _first(batches, fitted), progress)
    return Seen(
        half,
        _first(batches[::2], math.ceil(ON_THE_WAY * fitted)),
        _first(batches[1::2] or batches, judged),
        len(batches) > 1,
        solver,
    )


def _fitted(analysis: Analysis) -> int:
    """How many samples the sequential repair gets.

    Small models bear more, and need them: a product of matrices may see one row of each.
    """
    feeds = analysis.normalised.feeds.values()
    size = sum(array.nbytes / max(len(array), 1) for array in feeds if array.ndim)
    most = min(WORK / max(analysis.macs, 1), BYTES / max(size, 1))
    return int(np.clip(most, FITTED, MOST_FITTED))


def _judged(analysis: Analysis) -> int:
    """How many samples divergences are measured on."""
    work = max(analysis.macs * len(analysis.groups), 1)
    return int(np.clip(JUDGING / work, LEAST_JUDGED, JUDGED))


def _first(batches: Sequence[Feeds], count: int) -> list[Feeds]:
    found: list[Feeds] = []
    seen = 0
    for feeds in batches:
        if seen >= count:
            break
        found.append(feeds)
        seen += len(next(iter(feeds.values())))
    return found
