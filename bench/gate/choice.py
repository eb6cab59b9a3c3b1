"""Choose from a sweep what the policy would let through; a gate on other data then confirms it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxtrim.bench.errors import InputError, NothingToRemoveError
from onnxtrim.bench.gate.policy import Rule, Target
from onnxtrim.bench.gate.quantity import show
from onnxtrim.bench.results import Metric
from onnxtrim.bench.run_folder import Candidate, Run

ORDER = ("latency.p50.ratio", "memory.run_peak.ratio", "bytes", "parameters")
"""By what the best is told, first things first; less is better."""


@dataclass(frozen=True)
class Choice:
    """The best candidate by what the sweep measured.

    Attributes:
        candidate: Which one.
        tried: How many there were to choose from.
        fitting: How many of them fit.
        unknown: Metrics of required rules that the sweep did not measure.
    """

    candidate: Candidate
    tried: int
    fitting: int
    unknown: tuple[str, ...]


def choose_by(run: Run, target: Target) -> Choice:
    """The best candidate whose intervals lie inside all limits that decide.

    Rules whose metric the sweep did not measure are left to the gate. What is chosen among many
    looks better than it is, so that a gate on samples that had no part in the choice must confirm
    it.

    Raises:
        NothingToRemoveError: None fits; the message tells which rule comes nearest.
        InputError: The sweep measured nothing that the policy asks for.
    """
    candidates = [c for c in run.candidates if c.same_as is None]
    rules = [rule for rule in target.rules if rule.level == "error"]
    known = [r for r in rules if any(_measured(c, r) is not None for c in candidates)]
    if not known:
        raise InputError(f"{run.folder}: measured nothing that target {target.name} asks for")
    fitting = [c for c in candidates if all(_fits(c, rule) for rule in known)]
    if not fitting:
        raise NothingToRemoveError(
            f"none of {len(candidates)} candidates fits: {_why(candidates, known)}"
        )
    best = min(fitting, key=_rank)
    unknown = tuple(rule.name for rule in rules if rule not in known)
    return Choice(best, len(candidates), len(fitting), unknown)


def _measured(candidate: Candidate, rule: Rule) -> Metric | None:
    metric = rule.name  # a sweep measures nothing of single classes
    if metric == "model.file_bytes":
        return candidate.measure("bytes")
    if metric == "model.file_bytes.ratio" and candidate.bytes is not None:
        change = candidate.bytes
        return Metric.exact(change.after / change.before, "ratio") if change.before else None
    return candidate.measure(metric)


def _fits(candidate: Candidate, rule: Rule) -> bool:
    found = _measured(candidate, rule)
    if found is None:
        return False
    low, high = found.low, found.high
    if rule.family == "memory":  # judged by the value, see the gate
        low = high = found.value
    room = rule.slack
    if room and rule.metric.endswith(".ratio"):
        before = candidate.measure(f"{rule.metric.removesuffix('.ratio')}.original")
        room = rule.slack / before.value if before is not None and before.value > 0 else 0.0
    return (rule.max is None or high <= rule.max + room) and (
        rule.min is None or low >= rule.min - room
    )


def _rank(candidate: Candidate) -> tuple[float, ...]:
    found = [candidate.measure(name) for name in ORDER]
    return tuple(math.inf if metric is None else metric.value for metric in found)


def _why(candidates: list[Candidate], rules: list[Rule]) -> str:
    """The rule that the fewest candidates fit, and how near the best comes."""
    fits = {rule: sum(_fits(c, rule) for c in candidates) for rule in rules}
    rule = min(rules, key=lambda one: fits[one])
    found = [metric for c in candidates if (metric := _measured(c, rule)) is not None]
    if fits[rule]:
        return f"each fits some rules, none fits all; {rule.metric} is fit by {fits[rule]}"
    ends = [metric.high for metric in found] if rule.max is not None else [m.low for m in found]
    nearest = min(ends) if rule.max is not None else max(ends)
    return (
        f"{rule.metric} must be {rule.limit()}, and the nearest bound is {show(nearest, rule.unit)}"
    )
