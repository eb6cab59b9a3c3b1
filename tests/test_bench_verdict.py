"""The verdict: how often it passes what it must not, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from onnxtrim.bench.stats import tango_interval
from onnxtrim.bench.verdict import non_inferior

Rule = Callable[[int, int, int, float], bool]

# Samples, margin, share of flips: a candidate that loses the margin must flip at least as much.
CASES = [
    (count, margin, flips)
    for count in (500, 2_000, 20_000)
    for margin, flips in ((0.005, 0.006), (0.005, 0.02), (0.01, 0.012), (0.01, 0.04), (0.02, 0.1))
]


def passes(losses: int, gains: int, count: int, margin: float) -> bool:
    return non_inferior(losses, gains, count, margin).answer == "pass"


def wald(losses: int, gains: int, count: int, margin: float) -> bool:
    """The usual normal approximation, which takes its variance from what was observed."""
    difference = (gains - losses) / count
    variance = (losses + gains - count * difference**2) / count**2
    return difference - 1.644854 * math.sqrt(variance) > -margin


def false_passes(rule: Rule, count: int, margin: float, flips: float) -> float:
    """Probability that a candidate passes that loses just the margin; no simulation, the sum."""
    loss, gain = (flips + margin) / 2, (flips - margin) / 2
    weights = stats.binom.pmf(np.arange(count + 1), count, loss)
    return float(
        sum(
            weights[losses]
            * stats.binom.sf(
                _fewest_gains(rule, losses, count, margin) - 1, count - losses, gain / (1 - loss)
            )
            for losses in np.flatnonzero(weights > 1e-9).tolist()
        )
    )


def _fewest_gains(rule: Rule, losses: int, count: int, margin: float) -> int:
    """With how many gains a candidate with these losses passes; with more it does, too."""
    low, high = -1, count - losses + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rule(losses, middle, count, margin) else (middle, high)
    return high


@pytest.mark.parametrize(("count", "margin", "flips"), CASES)
def test_false_passes_are_rare(count: int, margin: float, flips: float) -> None:
    assert 0.01 < false_passes(passes, count, margin, flips) <= 0.055


def test_the_naive_rule_would_not_do() -> None:
    """Of 500 samples it passes a candidate that loses the margin twice as often as it says."""
    found = [false_passes(wald, *case) for case in CASES]
    assert max(found) > 0.1
    assert sum(share > 0.055 for share in found) >= 6


def test_the_sum_is_what_a_simulation_finds() -> None:
    count, margin, flips = 500, 0.01, 0.04
    shares = [(flips + margin) / 2, (flips - margin) / 2, 1 - flips]
    drawn = np.random.default_rng(0).multinomial(count, shares, 20_000)
    kinds, times = np.unique(drawn, axis=0, return_counts=True)
    passed = [passes(int(b), int(c), count, margin) for b, c, _ in kinds]
    share = times[passed].sum() / times.sum()
    assert share == pytest.approx(false_passes(passes, count, margin, flips), abs=0.005)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 3000), st.floats(0.001, 0.2))
def test_answers_follow_the_bounds(losses: int, gains: int, ties: int, margin: float) -> None:
    count = losses + gains + ties
    found = non_inferior(losses, gains, count, margin)
    _, low, high = tango_interval(losses, gains, count, confidence=0.9)
    assert (found.low, found.high) == (low, high)
    assert (found.answer == "pass") == (low > -margin)
    assert (found.answer == "fail") == (high < -margin)
    better = non_inferior(losses, gains + 1, count + 1, margin)
    assert found.answer != "pass" or better.answer == "pass"


def test_needed_samples() -> None:
    """The figures of the usual formula, and that they are enough for an equal candidate."""
    assert non_inferior(10, 10, 500, 0.01).needed == pytest.approx(2474, abs=2)  # flips 4%
    assert non_inferior(10, 10, 1000, 0.005).needed == pytest.approx(4948, abs=2)
    assert non_inferior(0, 0, 20, 0.01).needed == math.ceil(1.644854**2 * 99)
    assert non_inferior(3, 3, 500, 0.0).needed is None
    count, flips = 2474, 0.04
    drawn = np.random.default_rng(1).multinomial(count, [flips / 2, flips / 2, 1 - flips], 500)
    power = np.mean([passes(int(b), int(c), count, 0.01) for b, c, _ in drawn])
    assert power == pytest.approx(0.8, abs=0.06)


def test_fewer_samples_than_needed_without_a_flip_never_pass() -> None:
    needed = non_inferior(0, 0, 20, 0.01).needed
    assert needed is not None
    assert not passes(0, 0, needed - 1, 0.01)
    assert passes(0, 0, needed + 1, 0.01)


@pytest.mark.parametrize(
    ("losses", "gains", "count", "margin", "words"),
    [
        (2, 2, 5000, 0.005, ["pass", "above -0.5 pp", "at least -0.09"]),
        (200, 20, 1000, 0.01, ["fail", "below -1 pp", "at most -15"]),
        (10, 10, 500, 0.01, ["inconclusive", "needs about 2474 samples, has 500"]),
        (60, 10, 5000, 0.01, ["inconclusive", "more may help"]),
        (3, 3, 500, 0.0, ["inconclusive", "margin of 0"]),
    ],
)
def test_words(losses: int, gains: int, count: int, margin: float, words: list[str]) -> None:
    found = non_inferior(losses, gains, count, margin)
    assert found.answer == words[0]
    assert all(word in found.words() for word in words), found.words()
    assert found.to_json()["words"] == found.words()
    assert found.to_json()["margin"] == 100 * margin


def test_impossible_margins_are_refused() -> None:
    for margin in (-0.01, 1.0, math.nan):
        with pytest.raises(ValueError, match="margin"):
            non_inferior(1, 1, 10, margin)
