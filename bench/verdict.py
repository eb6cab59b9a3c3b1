"""Whether a candidate may be called not worse than its original: yes, no, or not known yet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from onnxtrim.bench.stats import tango_interval
from onnxtrim.bench.student import normal_quantile

Answer = Literal["pass", "fail", "inconclusive"]

_POWER = 0.8  # with which the samples that are said to be needed would pass an equal candidate


@dataclass(frozen=True)
class Verdict:
    """A judgement of non-inferiority, shares as shares.

    Attributes:
        answer: ``"pass"``, ``"fail"`` or ``"inconclusive"``.
        margin: The loss of accuracy that is allowed.
        low: One-sided lower bound of the difference, candidate minus original.
        high: One-sided upper bound.
        samples: How many there were.
        needed: About how many samples it takes if the two are equally good; ``None`` if no number
            of samples is enough, as for a margin of 0.
    """

    answer: Answer
    margin: float
    low: float
    high: float
    samples: int
    needed: int | None

    def words(self) -> str:
        """The verdict in one line."""
        margin = f"{100 * self.margin:g} pp"
        low, high = 100 * self.low, 100 * self.high
        if self.answer == "pass":
            return f"pass: the difference in accuracy is above -{margin} (at least {low:+.2f} pp)"
        if self.answer == "fail":
            return f"fail: the difference in accuracy is below -{margin} (at most {high:+.2f} pp)"
        if self.needed is None:
            advice = "no number of samples can show a margin of 0"
        elif self.needed > self.samples:
            advice = f"needs about {self.needed} samples, has {self.samples}"
        else:
            advice = "it is too near to the margin for these samples; more may help"
        return (
            f"inconclusive: the difference in accuracy lies in [{low:+.2f}, {high:+.2f}] pp, on"
            f" both sides of -{margin}; {advice}"
        )

    def to_json(self) -> dict[str, Any]:
        """The form in which it stands in result files, differences in percentage points."""
        return {
            "answer": self.answer,
            "margin": 100 * self.margin,
            "low": 100 * self.low,
            "high": 100 * self.high,
            "samples": self.samples,
            "needed": self.needed,
            "words": self.words(),
        }


def non_inferior(
    losses: int, gains: int, count: int, margin: float, alpha: float = 0.05, rules: int = 1
) -> Verdict:
    """Judge whether a candidate loses less accuracy than a margin.

    Pass if Tango's one-sided lower bound of the difference is above −margin, fail if the upper
    bound is below it, else inconclusive. A candidate that loses just the margin passes with
    probability about ``alpha``.

    The samples needed to pass with power 80% if the two are equally good are
    n* = (z(1−α) + z(0.8))²·ψ/δ², δ the margin and ψ = (losses + gains)/count, but at least the
    z²·(1−δ)/δ below which not even a candidate without a single loss passes.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design", Statistics in Medicine 17(8), 1998; the number of
    samples is the usual normal approximation for a paired difference.

    Args:
        losses: Samples right in the original and wrong in the candidate.
        gains: Samples wrong in the original and right in the candidate.
        count: All samples.
        margin: Share of accuracy that may be lost, 0.005 for half a percentage point.
        alpha: Probability of a false pass at the margin.
        rules: How many claims are judged together: the probability of a false fail is divided.

    Raises:
        ValueError: Impossible counts, or a margin that is not in [0, 1).
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin is {margin}, must be in [0, 1)")
    low = tango_interval(losses, gains, count, confidence=1 - 2 * alpha).low
    high = tango_interval(losses, gains, count, confidence=1 - 2 * alpha / rules).high
    answer: Answer = "pass" if low > -margin else "fail" if high < -margin else "inconclusive"
    return Verdict(answer, margin, low, high, count, _needed(losses + gains, count, margin, alpha))


def _needed(flips: int, count: int, margin: float, alpha: float) -> int | None:
    if margin == 0:
        return None
    z, z_power = normal_quantile(1 - alpha), normal_quantile(_POWER)
    equal = (z + z_power) ** 2 * flips / count / margin**2
    return math.ceil(max(equal, z**2 * (1 - margin) / margin))
