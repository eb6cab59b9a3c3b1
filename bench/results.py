"""The words in which measurements are told: a metric is a value with its interval and unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxtrim.bench.stats import yuen_interval


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        value: The estimate.
        low: Lower end of the two-sided 95% interval; equal to ``value`` where it is exact.
        high: Upper end of the interval.
        unit: ``"ms"``, ``"bytes"``, ``"ratio"``, ``"share"``, ``"points"`` (percentage points),
            ``"samples/s"``, ``"s/sample"`` (CPU time), ``"J"``, or ``"value"`` for a number in a
            unit of its own.
    """

    value: float
    low: float
    high: float
    unit: str

    @classmethod
    def exact(cls, value: float, unit: str) -> Metric:
        """A number without uncertainty, such as a file's size."""
        return cls(value, value, value, unit)

    @classmethod
    def of_logs(cls, logs: Sequence[float], unit: str, confidence: float = 0.95) -> Metric:
        """What launches say of a positive number, from its logarithm in each of them."""
        interval = yuen_interval(logs, confidence)
        return cls(math.exp(interval.value), math.exp(interval.low), math.exp(interval.high), unit)

    def to_json(self) -> dict[str, Any]:
        """The form in which it stands in result files."""
        return {"value": self.value, "low": self.low, "high": self.high, "unit": self.unit}


Metrics = dict[str, Metric]


def metrics_to_json(metrics: Metrics) -> dict[str, Any]:
    """``{name: {value, low, high, unit}}``, sorted by name."""
    return {name: metrics[name].to_json() for name in sorted(metrics)}
