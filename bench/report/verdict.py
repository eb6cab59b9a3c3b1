"""The result of a sweep in a sentence or two."""

from __future__ import annotations

from onnxtrim.bench.report import words
from onnxtrim.bench.results import Metric
from onnxtrim.bench.run_folder import Candidate, Run, choose


def verdict(run: Run) -> str:
    """What to take and what it costs, or why nothing is chosen."""
    budget = words.budget(run.spec.max_drop)
    chosen = choose(run.candidates, run.spec.max_drop)
    if chosen is not None:
        candidate = run.candidate(chosen)
        told = f"{chosen} is the smallest within {budget} points: {_gains(candidate)}"
        return f"{told} {_caution(candidate, run.spec.max_drop, budget)}".rstrip()
    smallest = min(run.candidates, key=lambda c: c.parameters.after)
    deltas = [(d.value, c.id) for c in run.candidates if (d := c.measure("accuracy.top1.delta"))]
    if not deltas:
        return (
            "Nothing is chosen, because no labelled data was given. "
            f"The smallest candidate, {smallest.id}: {_gains(smallest)}"
        )
    value, closest = max(deltas)
    return (
        f"No candidate stays within {budget} points of the original's accuracy; the closest is "
        f"{closest} at {words.points(value)} points. Try lower thresholds."
    )


def _gains(candidate: Candidate) -> str:
    parts = [f"{words.percent(candidate.removed)} fewer parameters"]
    if delta := candidate.measure("accuracy.top1.delta"):
        parts.append(f"accuracy {_told(delta, ' points')}")
    elif agreement := candidate.measure("accuracy.agreement"):
        parts.append(f"the same answer in {_told(agreement, '')}")
    if latency := candidate.measure("latency.p50.ratio"):
        parts.append(f"latency {_told(latency, '')} of the original")
    return f"{', '.join(parts)}."


def _told(metric: Metric, unit: str) -> str:
    return f"{words.plain(metric)}{unit} {words.interval(metric)}".rstrip()


def _caution(candidate: Candidate, max_drop: float, budget: str) -> str:
    """What the intervals leave open."""
    remarks = []
    delta = candidate.measure("accuracy.top1.delta")
    if delta and delta.low < -max_drop:
        remarks.append(
            f"The loss may be larger than the budget of {budget} points: "
            "more evaluation data would tell."
        )
    latency = candidate.measure("latency.p50.ratio")
    if latency and latency.low > 1:
        remarks.append("It is slower than the original.")
    elif latency and latency.high >= 1:
        remarks.append("It was not shown to be faster.")
    return " ".join(remarks)
