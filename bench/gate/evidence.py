"""What a measurement says about a metric, with the certainty that a claim needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxtrim.bench import looks
from onnxtrim.bench.bootstrap import LEAST_SAMPLES
from onnxtrim.bench.conditions import contention
from onnxtrim.bench.gate.policy import Policy, Rule
from onnxtrim.bench.latency_metrics import (
    TAIL_LAUNCHES,
    copies_differ,
    latency_metrics,
    moving,
)
from onnxtrim.bench.launches import COPY
from onnxtrim.bench.measurement import INDEPENDENT, Measurement
from onnxtrim.bench.memory import MemoryResult
from onnxtrim.bench.results import Metric, Metrics
from onnxtrim.bench.stats import clopper_pearson, tango_interval
from onnxtrim.bench.throughput import ThroughputResult

OF_LAUNCHES = ("latency", "load", "energy")
"""Families whose sample are the launches."""

RECORDED = 0.95
"""Confidence of the intervals of what can't be computed anew from a result file."""


@dataclass
class Evidence:
    """A measurement, asked with whatever confidence; answers are kept."""

    found: Measurement
    _metrics: dict[tuple[float | None, float], Metrics] = field(default_factory=dict)

    def spent(self, rule: Rule, alpha: float) -> float:
        """The part of the error that a claim about a rule may use now.

        Launches are looked at again and again, so each look has its own share (:mod:`.looks`).
        """
        if rule.family not in OF_LAUNCHES or self.found.latency is None:
            return alpha
        return alpha * looks.share_after(len(self.found.latency.launches))

    def interval(self, rule: Rule, confidence: float) -> Metric | None:
        """The metric of a rule, its interval at least as wide as a two-sided confidence asks.

        ``None`` if it was not measured, is no number, or too little was measured for it.
        """
        found = self._computed(rule, confidence)
        if found is None or not math.isfinite(found.value):
            return None
        return None if math.isnan(found.low) or math.isnan(found.high) else found

    def _computed(self, rule: Rule, confidence: float) -> Metric | None:
        if rule.family in OF_LAUNCHES:
            return self._of_launches(rule, confidence)
        if rule.family == "accuracy":
            return self._accuracy(rule, confidence)
        if rule.family == "throughput" and "throughput" in self.found.details:
            told = ThroughputResult.from_json(self.found.details["throughput"])
            return told.metrics(confidence).get(rule.metric)
        if rule.family == "memory" and not self._memories(rule.metric):
            return None  # nothing tells whether its repeats agree
        return self.found.metrics.get(rule.metric)

    def _of_launches(self, rule: Rule, confidence: float) -> Metric | None:
        latency = self.found.latency
        fewest = TAIL_LAUNCHES if ".p99" in rule.metric else looks.LOOKS[0]
        if latency is None or len(latency.launches) < fewest:
            return None
        key = (rule.budget_ms, confidence)
        if key not in self._metrics:
            self._metrics[key] = latency_metrics(latency, rule.budget_ms, confidence)
        return self._metrics[key].get(rule.metric)

    def flips(self, rule: Rule) -> tuple[int, int, int] | None:
        """Losses, gains and samples that a rule on the difference of top-1 accuracies is about.

        ``None`` if they were not counted, or are not independent.
        """
        counts = self.found.details.get("accuracy")
        if rule.metric != "accuracy.top1.delta" or not self.independent or not counts:
            return None
        if rule.of_class is not None:
            named = [one for one in counts["classes"] if one["class"] == rule.of_class]
            if len(named) != 1:
                return None
            counts = named[0]
        losses, gains, samples = (int(counts[key]) for key in ("losses", "gains", "samples"))
        return losses, gains, samples

    def _accuracy(self, rule: Rule, confidence: float) -> Metric | None:
        name = rule.metric
        recorded = self.found.metrics.get(name)
        counts = self.found.details.get("accuracy")
        if recorded is None or not isinstance(counts, dict):
            return None
        flips = self.flips(rule)
        if flips is not None:
            ends = tango_interval(*flips, confidence)
            return Metric(100 * ends.value, 100 * ends.low, 100 * ends.high, "points")
        if rule.of_class is not None:
            return None
        if not self._is_bootstrapped(rule):
            samples = int(counts["samples"])
            flips_only = name == "accuracy.negative_flip_rate"
            hits = int(counts["losses"]) if flips_only else round(recorded.value * samples)
            return Metric(*clopper_pearson(hits, samples, confidence), "share")
        found = _recorded(recorded, counts.get("intervals", {}).get(name, ()), confidence)
        return _not_certain(found, self._units(), confidence)

    @property
    def independent(self) -> bool:
        """Whether top-1 accuracy is of answers that are independent."""
        return INDEPENDENT in self.found.metrics

    def doubt(self, rule: Rule, policy: Policy) -> str:
        """Why nothing may be claimed about a rule, though it was measured; or empty."""
        if rule.family == "memory":
            return self._unsteady(rule.metric)
        if rule.family == "accuracy":
            return self._too_few(rule)
        if rule.family not in (*OF_LAUNCHES, "throughput"):
            return ""
        changed = str(self.found.details.get("changed") or "")
        latency = self.found.latency
        if changed:
            return changed
        if latency is None or rule.family == "throughput":
            return ""
        wait = latency.wait_share()
        if policy.max_wait is not None and (wait is None or wait > policy.max_wait):
            told = "is not known" if wait is None else f"was {wait:.1%} of the time"
            return f"the wait for a CPU {told}, {policy.max_wait:.1%} is allowed"
        if not policy.require_aa:
            return ""
        if len(latency.calls) <= COPY:
            return "the original did not run against itself (require_aa)"
        if copies_differ(latency):
            return "two runs of the original differ, so nothing measured here can be trusted now"
        return ""

    def doubts_about_times(self, rule: Rule) -> tuple[str, str]:
        """Why an absolute time may not pass, and why it may not fail; empty where it may.

        Neighbours only add time: what is too slow beside them may be fast enough alone, and the
        other way round for a rule that asks for a least time.
        """
        latency = self.found.latency
        timed = rule.family in (*OF_LAUNCHES, "throughput")
        absolute = timed and not rule.metric.endswith(".ratio")
        if not absolute or latency is None:
            return "", ""
        change = moving(latency)
        drifts = "" if change is None else f"the original's time changed by {change:+.1%} a minute"
        busy = contention(latency.wait_share(), latency.conditions)
        told = "" if busy is None else f"the machine was busy ({busy})"
        slow_fails = (rule.max is not None) != (rule.unit == "samples/s")
        return (drifts, told) if slow_fails else (drifts or told, "")

    def _too_few(self, rule: Rule) -> str:
        units = self._units()
        if not self._is_bootstrapped(rule) or units >= LEAST_SAMPLES:
            return ""
        return (
            f"the bootstrap's interval needs {LEAST_SAMPLES} independent samples, or groups of like"
            f" size; in effect there are {units}"
        )

    def _units(self) -> int:
        """How many independent samples there are in effect: groups if there are any."""
        return int(self.found.details["accuracy"]["units"])

    def _is_bootstrapped(self, rule: Rule) -> bool:
        if rule.metric == "accuracy.agreement":
            return self._units() < int(self.found.details["accuracy"]["samples"])
        top1 = ("accuracy.top1", "accuracy.top1.delta", "accuracy.negative_flip_rate")
        return rule.metric not in top1 or not self.independent

    def is_marked(self, rule: Rule) -> bool:
        """Whether the kernel marked the peaks of memory; elsewhere they are of a whole process."""
        repeats = [one for told in self._memories(rule.metric).values() for one in told["repeats"]]
        return "_peak" not in rule.metric or all(one.get("method") == "hwm" for one in repeats)

    def _unsteady(self, metric: str) -> str:
        kind = metric.split(".")[1]
        for role, told in self._memories(metric).items():
            if kind in MemoryResult(tuple(told["repeats"])).unsteady:
                return f"repeats of the {role} differ by more than 2%"
        return ""

    def _memories(self, metric: str) -> dict[str, Any]:
        arena = bool(self.found.settings.get("arena", True))
        other = ".arena_off" if arena else ".arena_on"
        name = "memory_other_arena" if other in metric else "memory"
        return dict(self.found.details.get(name, {}))


def _not_certain(metric: Metric, units: int, confidence: float) -> Metric:
    """An interval without width, of shares, with what samples that were not drawn may hold.

    Where no sample tells the models apart, all draws are alike; but samples that do may have a
    share of up to 1 − (α/2)^(1/n), by which a share of answers differs at most. Of metrics that
    weigh classes alike, and of groups of unlike size, that is a rough figure.
    """
    if metric.low < metric.high or metric.unit not in ("share", "points"):
        return metric
    unseen = clopper_pearson(0, units, confidence).high * (100 if metric.unit == "points" else 1)
    return Metric(metric.value, metric.low - unseen, metric.high + unseen, metric.unit)


def _recorded(metric: Metric, others: Sequence[Sequence[float]], confidence: float) -> Metric:
    """The metric with the narrowest interval on record that is certain enough.

    Without any bound, if what is on record is less certain than what is asked.
    """
    for certain, low, high in sorted([(RECORDED, metric.low, metric.high), *map(tuple, others)]):
        if certain >= confidence - 1e-9:
            return Metric(metric.value, low, high, metric.unit)
    return Metric(metric.value, -math.inf, math.inf, metric.unit)
