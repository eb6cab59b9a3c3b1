"""What the forest plot of a result shows: all ratios to the original, with their limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.report import metric_names, shell, words
from onnxtrim.bench.report.judgement import Judgement
from onnxtrim.bench.results import Metric

COPY = "latency.copy.ratio"
P50 = "latency.p50.ratio"
_FINEST = 1e-9  # of a ratio; the axis is logarithmic


@dataclass(frozen=True)
class Row:
    """One ratio.

    Attributes:
        name: Of the metric.
        label: For people.
        role: ``"better"``, ``"worse"`` or ``"open"`` (the interval has 1 in it), or ``"copy"``.
        metric: The ratio.
        limits: What rules allow: the number, and in words.
    """

    name: str
    label: str
    role: str
    metric: Metric
    limits: tuple[tuple[float, str], ...]

    @property
    def lines(self) -> list[str]:
        """The hover text."""
        confidence = "99%" if self.role == "copy" else "95%"
        exact = self.metric.low == self.metric.high
        told = words.with_interval(self.metric, 3)
        lines = [self.label, told if exact else f"{told}, {confidence}"]
        return lines + [f"limit {text}" for _, text in self.limits]


def rows(found: Measurement, judgement: Judgement | None = None) -> list[Row]:
    """All ratios of a comparison that can be drawn, as they are read; none of a single model."""
    ratios = {
        name: metric
        for name, metric in found.metrics.items()
        if name.endswith(".ratio") and min(metric.low, metric.value) > _FINEST
    }
    limits = limits_of(found, judgement)
    return [
        Row(
            name,
            metric_names.label(name),
            _role(name, ratios[name]),
            ratios[name],
            tuple(limits.get(name, {}).items()),
        )
        for name in metric_names.in_order(ratios)
    ]


def limits_of(found: Measurement, judgement: Judgement | None) -> dict[str, dict[float, str]]:
    """By metric: bounds of ratios and how they are told."""
    limits: dict[str, dict[float, str]] = {}
    asked = found.settings.get("limit")
    if asked is not None:
        limits[P50] = {float(asked): f"\N{LESS-THAN OR EQUAL TO} {asked:g}"}
    for rule in () if judgement is None else judgement.rules:
        if rule.bound is not None and rule.unit == "ratio" and _FINEST < rule.bound < math.inf:
            limits.setdefault(rule.metric, {})[rule.bound] = rule.limit
    return limits


def to_json(row: Row) -> Mapping[str, object]:
    """What the script draws."""
    numbers = (row.metric.value, row.metric.low, row.metric.high)
    return {
        "name": row.name,
        "label": row.label,
        "role": row.role,
        "x": [shell.short(number) for number in numbers],
        "limits": [[bound, text] for bound, text in row.limits],
        "told": words.with_interval(row.metric, 3),
        "lines": row.lines,
    }


def _role(name: str, metric: Metric) -> str:
    if name == COPY:
        return "copy"
    if metric.low <= 1 <= metric.high:
        return "open"
    return "better" if (metric.low > 1) == metric_names.is_larger_better(name) else "worse"
