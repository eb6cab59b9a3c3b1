"""Planned looks: when enough launches have been made to say pass or fail.

A claim such as "at most 2% slower" is judged after 8, 12, 18 and 24 launches and at no other
time. Each look has its own share of the error, 5% in all, so that stopping at the first that
decides does not raise it (a union bound, whatever the dependence between looks). Simulated at the
limit, 3.3 to 3.8% pass falsely; with looks at 5% each it would be 12%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnxtrim.bench.stats import Interval, yuen_interval

LOOKS = (8, 12, 18, 24)
"""Launches after which a claim is judged."""

SPENT = (0.005, 0.010, 0.015, 0.020)
"""Probability of a wrong pass at each look; the same of a wrong fail."""

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"

CODES = {PASS: 0, FAIL: 1, INCONCLUSIVE: 3}
"""Exit codes of verdicts."""

TOLERANCE = 0.005
"""How far two runs of one model may be apart, as a share."""

GUARD = 0.99
"""Confidence of the interval that guards it."""


@dataclass(frozen=True)
class Verdict:
    """What is said about a claim.

    Attributes:
        verdict: ``"pass"``, ``"fail"`` or ``"inconclusive"``.
        limit: The largest ratio that is allowed.
        launches: After how many it was said.
        low: One-sided lower bound of the ratio, at the error of this look.
        high: One-sided upper bound.
        why: Why it is inconclusive, or empty.
        broken: Whether the measurement itself forbids a verdict, whatever the launches say.
    """

    verdict: str
    limit: float
    launches: int
    low: float
    high: float
    why: str = ""
    broken: bool = False

    def to_json(self) -> dict[str, Any]:
        """The form in which it stands in result files."""
        return asdict(self)

    def words(self) -> str:
        """In words."""
        bounds = f"between {self.low:.4f} and {self.high:.4f} after {self.launches} launches"
        text = f"{self.verdict}: latency ratio {bounds}, limit {self.limit:g}"
        return f"{text}; {self.why}" if self.why else text


def judge(logs: Sequence[float], limit: float, rules: int = 1) -> Verdict | None:
    """Judge the claim that a ratio is at most ``limit``.

    Args:
        logs: Logarithm of the ratio of each launch.
        limit: The largest ratio that is allowed.
        rules: How many claims are judged together: some wrong fail among them gets 5%, so each
            gets a part. All of them must pass, so a wrong pass needs no correction
            (intersection-union test).

    Returns:
        The verdict, or ``None`` where no look is planned or more launches may decide.
    """
    count = len(logs)
    if count not in LOOKS:
        return None
    spent = SPENT[LOOKS.index(count)]
    high = yuen_interval(logs, 1 - 2 * spent).high
    low = yuen_interval(logs, 1 - 2 * spent / rules).low
    bounds = (limit, count, math.exp(low), math.exp(high))
    if high <= math.log(limit):
        return Verdict(PASS, *bounds)
    if low > math.log(limit):
        return Verdict(FAIL, *bounds)
    if count == LOOKS[-1]:
        return Verdict(INCONCLUSIVE, *bounds, "the truth is too near the limit to tell")
    return None


def undecided(logs: Sequence[float], limit: float, why: str, *, broken: bool = False) -> Verdict:
    """An inconclusive verdict on whatever there is, from 2 launches on."""
    interval = yuen_interval(logs, 1 - 2 * SPENT[0])
    low, high = math.exp(interval.low), math.exp(interval.high)
    return Verdict(INCONCLUSIVE, limit, len(logs), low, high, why, broken)


def share_after(count: int) -> float:
    """Part of the whole error that a claim may use after so many launches, planned or not.

    That of the last look on the way; nothing before the first.
    """
    spent = [share for look, share in zip(LOOKS, SPENT) if look <= count]
    return spent[-1] / sum(SPENT) if spent else 0.0


def confidence_after(count: int) -> float:
    """Confidence of a two-sided interval after planned looks: 95% for all looks together."""
    return 1 - SPENT[LOOKS.index(count)] if count in LOOKS else 0.95


def copy_interval(logs: Sequence[float]) -> Interval:
    """The guarding interval of the ratio of two runs of one model, on the log scale."""
    return yuen_interval(logs, GUARD)


def is_untrustworthy(logs: Sequence[float]) -> bool:
    """Whether two runs of one model differ, by more than the tolerance and by the guard."""
    return is_beyond_tolerance(copy_interval(logs))


def is_beyond_tolerance(interval: Interval) -> bool:
    """Whether a ratio's interval, on the log scale, lies wholly outside the tolerance around 1."""
    return interval.low > math.log1p(TOLERANCE) or interval.high < math.log1p(-TOLERANCE)
