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
        return f"{_choice(run, candidate, budget)} {_caution(candidate)}".rstrip()
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


def within_budget(candidate: Candidate, max_drop: float) -> str:
    """Whether it loses no more accuracy than that: ``"yes"``, ``"unproven"``, ``"no"`` or empty."""
    delta = candidate.measure("accuracy.top1.delta")
    if delta is None:
        return ""
    return "yes" if delta.low >= -max_drop else "no" if delta.high < -max_drop else "unproven"


def safe_choice(run: Run) -> Candidate | None:
    """The smallest candidate that is shown to lose no more accuracy than the budget."""
    safe = [c for c in run.candidates if within_budget(c, run.spec.max_drop) == "yes"]
    return min(safe, key=lambda c: c.parameters.after) if safe else None


def _choice(run: Run, candidate: Candidate, budget: str) -> str:
    """The smallest within the budget as measured, and what to take if that is not shown."""
    delta, safe = candidate.measure("accuracy.top1.delta"), safe_choice(run)
    gains = f"{candidate.id}, {_gains(candidate)}"
    if delta is None or within_budget(candidate, run.spec.max_drop) != "unproven":
        return f"Smallest within {budget} points, and shown to be: {gains}"
    most = f"Its loss may reach {words.number(-delta.low, 2)} points."
    if safe is None:
        told = f"Smallest within {budget} points, but unproven: {gains} {most}"
        return f"{told} More evaluation data would tell."
    return (
        f"Safe choice, shown to lose less than {budget} points: {safe.id}, {_gains(safe)}"
        f" Smaller, but unproven: {gains} {most}"
    )


def _caution(candidate: Candidate) -> str:
    """What else the intervals leave open."""
    remarks = []
    latency = candidate.measure("latency.p50.ratio")
    if latency and latency.low > 1:
        remarks.append("It is slower than the original.")
    elif latency and latency.high >= 1:
        remarks.append("It was not shown to be faster.")
    return " ".join(remarks)
