"""From a budget to a plan: order the units, allocate, and cut the global order where it is met."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxtrim.bench.data import DataSource
from onnxtrim.bench.errors import InputError, NothingToRemoveError
from onnxtrim.export.model_io import tensor_bytes
from onnxtrim.toolkit.allocation import Curve, Divergence, global_order, measure_curves
from onnxtrim.toolkit.graph.analyse import analyse
from onnxtrim.toolkit.graph.execute import Feeds
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.graph.normalise import remeasure
from onnxtrim.toolkit.graph.surgery import Keep, parameters_after, remove_units
from onnxtrim.toolkit.least_squares import LeastSquares
from onnxtrim.toolkit.limits import Limits
from onnxtrim.toolkit.plan import Plan, Removal, Stage
from onnxtrim.toolkit.prepare import Prepared
from onnxtrim.toolkit.reconstruction import Orders, order_units
from onnxtrim.toolkit.second_moments import (
    Moments,
    SecondMoments,
    gather_halves,
    merge_halves,
)
from onnxtrim.toolkit.statistics import Progress

JUDGED = 256
"""Calibration samples, of those that no fit saw, on which divergences are measured."""

FITTED = 1024
"""Calibration samples that the sequential repair looks at."""

BATCH = 64
"""Samples per run; every second batch is for judging."""

FEW = 64
"""Calibration samples below which a warning is due."""

ALARM = 0.6
"""Share of what can be removed above which accuracy tends to collapse."""

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Budget:
    """What must be reached.

    Attributes:
        kind: ``"remove"`` (share of the parameters that leaves), ``"macs"`` (share of the
            multiply-accumulates that stays) or ``"size"`` (bytes of the weights).
        value: How much.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind == "size":
            if not self.value >= 1:
                raise InputError(f"--size {self.value:g}: must be at least one byte")
        elif not 0 < self.value < 1:
            raise InputError(f"--{self.kind} {self.value:.6g}: must be between 0% and 100%")

    @classmethod
    def parse(cls, kind: str, text: str) -> Budget:
        """Read ``70%``, ``0.7``, ``2MB``, ``500KiB``.

        Raises:
            InputError: It is none of these.
        """
        if kind == "size":
            found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?I?B)\s*", text.upper())
            if found is None:
                raise InputError(f"--size {text!r}: give bytes such as 2MB, 500KB or 1.5MiB")
            return cls(kind, float(found[1]) * _UNITS[found[2]])
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
        if found is None:
            raise InputError(f"--{kind} {text!r}: give a share such as 70% or 0.7")
        return cls(kind, float(found[1]) / (100 if found[2] else 1))

    def target(self, analysis: Analysis) -> float:
        """The most of :meth:`spent` that is allowed."""
        if self.kind == "remove":
            return (1 - self.value) * analysis.parameters
        return self.value * analysis.macs if self.kind == "macs" else self.value

    def spent(self, analysis: Analysis, keep: Keep) -> float:
        """Parameters, multiply-accumulates or bytes of a model without some units."""
        if self.kind == "remove":
            return parameters_after(analysis, keep)
        pruned = remove_units(analysis.model, analysis, keep)
        if self.kind == "size":
            return tensor_bytes(pruned)
        return analyse(remeasure(analysis.normalised, pruned), {}).macs

    def to_json(self) -> dict[str, object]:
        """The form in which it stands in plans."""
        return {"kind": self.kind, "value": self.value}


def plan_for(
    prepared: Prepared,
    data: DataSource,
    budget: Budget,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> tuple[Plan, LeastSquares]:
    """Order the units of every group, allocate, and take as many as the budget needs.

    Args:
        prepared: The analysed model.
        data: Calibration data; labels are not used.
        budget: What must be reached.
        limits: Which groups may lose units.
        progress: Called with a word, how much is done and how much there is.

    Returns:
        The plan, and the repair that goes with it.

    Raises:
        InputError: The data don't fit the model, or a glob matches nothing.
        NothingToRemoveError: Nothing can be removed, or not as much as the budget needs.
    """
    analysis, limits = prepared.analysis, limits or Limits()
    limits.check(analysis)
    allowed = [group for group in analysis.groups if limits.allows(analysis, group)]
    seen = look(prepared, data, progress)
    divergence = Divergence(analysis.model, seen.judged)
    orders = order_units(analysis, seen.solver.moments)
    curves = measure_curves(analysis, allowed, orders, seen.half, divergence, progress)
    keep = _met(analysis, budget, limits, orders, global_order(analysis, curves, allowed))
    plan = _plan(prepared, data, budget, limits, orders, keep, curves, seen.solver.moments)
    return plan, seen.solver


@dataclass(frozen=True)
class Seen:
    """What was seen of the calibration data.

    Attributes:
        half: Second moments of the half that fits are tried on.
        judged: Samples of the other half.
        solver: The repair, from all samples.
    """

    half: Moments
    judged: list[Feeds]
    solver: LeastSquares


def look(prepared: Prepared, data: DataSource, progress: Progress | None = None) -> Seen:
    """Go through the calibration data once.

    Raises:
        InputError: The data don't fit the model.
    """
    analysis = prepared.analysis
    points = dict.fromkeys(
        ref for group in analysis.groups for ref in group.consumer_inputs() if ref in group.slices
    )
    # Small sets are cut finer, so that both halves get some.
    size = BATCH if data.samples is None else max(1, min(BATCH, data.samples // 8))
    half, other = gather_halves(analysis, list(points), data, size, progress)
    batches = _batches(data, max(JUDGED * 2, FITTED), size)
    solver = LeastSquares(merge_halves(half, other), _first(batches, FITTED), progress)
    return Seen(half, _first(batches[1::2] or batches, JUDGED), solver)


def _met(
    analysis: Analysis,
    budget: Budget,
    limits: Limits,
    orders: Orders,
    steps: Sequence[tuple[str, int]],
) -> Keep:
    """The masks of the shortest prefix of the global order that meets the budget."""

    def keep(count: int) -> Keep:
        taken: dict[str, int] = {}
        for name, units in steps[:count]:
            taken[name] = taken.get(name, 0) + units
        return limits.keep(analysis, {name: orders[name][:units] for name, units in taken.items()})

    target = budget.target(analysis)
    least = budget.spent(analysis, keep(len(steps)))
    if not steps or least > target:
        raise NothingToRemoveError(_too_much(analysis, budget, least if steps else None))
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        if budget.spent(analysis, keep(middle)) <= target:
            high = middle
        else:
            low = middle + 1
    if low == 0:
        raise NothingToRemoveError("the model is within the budget as it is")
    return keep(low)


def _too_much(analysis: Analysis, budget: Budget, least: float | None) -> str:
    if least is None:
        return "nothing can be removed; 'onnxtrim inspect' says why"
    if budget.kind == "remove":
        most = 1 - least / analysis.parameters
        return f"--remove {budget.value:.4g}: at most {most:.1%} of the parameters can be removed"
    if budget.kind == "macs":
        return f"--macs {budget.value:.4g}: at least {least / analysis.macs:.1%} of the MACs stay"
    return f"--size {budget.value:.0f}B: the weights have at least {least:.0f} bytes"


def _plan(
    prepared: Prepared,
    data: DataSource,
    budget: Budget,
    limits: Limits,
    orders: Orders,
    keep: Keep,
    curves: Mapping[str, Curve],
    moments: Mapping[AxisRef, SecondMoments],
) -> Plan:
    analysis = prepared.analysis
    removals, predicted = [], {}
    for group in analysis.groups:
        mask = keep.get(group.name)
        if mask is None:
            continue
        tensor, axis = next(iter(group.slices))
        gone = tuple(int(unit) for unit in orders[group.name] if not mask[unit])
        removals.append(Removal(group.name, tensor, axis, group.units, gone))
        predicted[group.name] = float(curves[group.name][len(gone)])
    stage = Stage(dict(analysis.choices), tuple(removals))
    samples = data.samples or 0
    warnings = []
    widest = max((group.units for group in analysis.groups), default=0)
    rows = min((found.count for found in moments.values()), default=0)
    if samples < FEW or rows < widest:
        warnings.append(
            f"{samples} calibration samples are few for {widest} units: what was fitted may not"
            " hold on other data; give more"
        )
    share = 1 - parameters_after(analysis, keep) / analysis.parameters
    prunable = analysis.prunable_parameters / max(analysis.parameters, 1)
    if ALARM * prunable < share < ALARM:
        warnings.append(
            f"this takes {share / prunable:.0%} of the weights that can be pruned, because the rest"
            " is frozen; look at the accuracy before you use it"
        )
    criterion = {
        "name": "reconstruction",
        "budget": budget.to_json(),
        "predicted_divergence": float(np.sum(list(predicted.values()))),
        "predicted_by_group": predicted,
    }
    return Plan(
        prepared.sha256,
        data.sha256,
        criterion,
        (stage,) if removals else (),
        limits,
        tuple(warnings),
        {name: array.shape for name, array in analysis.normalised.feeds.items()},
    )


def _batches(data: DataSource, count: int, size: int) -> list[Feeds]:
    found: list[Feeds] = []
    seen = 0
    for batch in data.batches(size):
        found.append(batch.feeds)
        seen += len(batch)
        if seen >= count:
            break
    return found


def _first(batches: Sequence[Feeds], count: int) -> list[Feeds]:
    found: list[Feeds] = []
    seen = 0
    for feeds in batches:
        if seen >= count:
            break
        found.append(feeds)
        seen += len(next(iter(feeds.values())))
    return found
