"""Intervals: against independent formulas, by their properties, and by simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from onnxtrim.bench.stats import (
    clopper_pearson,
    mcnemar_p,
    tango_interval,
    trimmed_mean,
    yuen_interval,
)

numbers = st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=40)


@given(numbers)
def test_trimmed_mean_is_scipys(values: list[float]) -> None:
    assert trimmed_mean(values) == pytest.approx(float(stats.trim_mean(values, 0.2)), abs=1e-9)


@given(numbers, st.floats(-10, 10), st.floats(0.1, 10))
def test_yuen_moves_and_scales_with_the_values(
    values: list[float], shift: float, scale: float
) -> None:
    before = yuen_interval(values)
    after = yuen_interval([shift + scale * v for v in values])
    for a, b in zip(before, after, strict=True):
        assert b == pytest.approx(shift + scale * a, abs=1e-6)
    assert before.low <= before.value <= before.high


def test_yuen_without_trimming_is_students_t() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert yuen_interval(values)[1:] == pytest.approx((interval.low, interval.high))
    assert yuen_interval(values) == yuen_interval(values, trim=0.0)


def test_yuen_by_hand() -> None:
    # 10 values, 2 cut at each end; winsorised: 2 2 2 3 4 5 6 7 7 7
    interval = yuen_interval([0, 1, 2, 3, 4, 5, 6, 7, 8, 90])
    variance = np.var([2, 2, 2, 3, 4, 5, 6, 7, 7, 7], ddof=1)
    half = stats.t.ppf(0.975, 5) * math.sqrt(9 * variance / (6 * 5))
    assert interval == pytest.approx((4.5, 4.5 - half, 4.5 + half))


def test_yuen_needs_two_values() -> None:
    for values in ([], [1.0]):
        with pytest.raises(ValueError):
            yuen_interval(values)
    with pytest.raises(ValueError):
        yuen_interval([1.0, 2.0], trim=0.5)


# From 200,000 draws each with an independent, vectorised program: a nominal 95% interval of this
# form is slightly too narrow for normal values once something is trimmed.
COVERAGE = {
    "normal": {3: 0.950, 5: 0.938, 8: 0.945, 12: 0.945},
    "t3": {3: 0.962, 5: 0.947, 8: 0.954, 12: 0.952},
    "wild": {3: 0.957, 5: 0.942, 8: 0.949, 12: 0.948},
}


@pytest.mark.parametrize("launches", [3, 5, 8, 12])
@pytest.mark.parametrize("shape", COVERAGE)
def test_yuen_covers_the_truth_as_often_as_it_should(launches: int, shape: str) -> None:
    rng = np.random.default_rng(0)
    draws = 3000
    values = rng.standard_normal((draws, launches))
    if shape == "t3":
        values = rng.standard_t(3, (draws, launches))
    if shape == "wild":  # one launch in twenty is 15 times as wide
        values[rng.random(values.shape) < 0.05] *= 15
    covered = [low <= 0 <= high for _, low, high in (yuen_interval(list(row)) for row in values)]
    error = 3 * math.sqrt(0.05 * 0.95 / draws)
    assert np.mean(covered) == pytest.approx(COVERAGE[shape][launches], abs=error)


@given(st.integers(1, 300), st.data())
def test_clopper_pearson_is_scipys(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    interval = stats.binomtest(hits, count).proportion_ci(0.95, "exact")
    found = clopper_pearson(hits, count)
    assert found == pytest.approx((hits / count, interval.low, interval.high), abs=1e-9)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_scipys(losses: int, gains: int) -> None:
    wanted = stats.binomtest(losses, losses + gains).pvalue if losses + gains else 1.0
    assert mcnemar_p(losses, gains) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("b", "c", "n"), [(9, 1, 50), (5, 5, 100), (3, 12, 400), (40, 2, 60)])
def test_tango_limits_solve_the_score_equation(b: int, c: int, n: int) -> None:
    """The score statistic once more, its q̂ found by maximising the likelihood."""

    def score(difference: float) -> float:
        def minus_log_likelihood(q: float) -> float:
            shares = [q, q + difference, 1 - 2 * q - difference]
            pairs = zip([b, c, n - b - c], shares, strict=True)
            return -sum(k * math.log(max(p, 1e-300)) for k, p in pairs if k)

        low, high = max(0.0, -difference), (1 - difference) / 2
        q = optimize.minimize_scalar(
            minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
        ).x
        variance = n * (2 * q + difference - difference**2)
        return float((c - b - n * difference) / math.sqrt(variance))

    interval = tango_interval(b, c, n)
    assert interval.value == (c - b) / n
    assert score(interval.low) == pytest.approx(1.959964, abs=1e-3)
    assert score(interval.high) == pytest.approx(-1.959964, abs=1e-3)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300))
def test_tango_is_ordered_mirrored_and_bounded(losses: int, gains: int, ties: int) -> None:
    count = losses + gains + ties
    if count == 0:
        with pytest.raises(ValueError):
            tango_interval(0, 0, 0)
        return
    value, low, high = tango_interval(losses, gains, count)
    mirrored = tango_interval(gains, losses, count)
    assert -1 <= low <= value <= high <= 1
    assert low < high
    assert (-mirrored.value, -mirrored.high, -mirrored.low) == pytest.approx((value, low, high))


def test_tango_without_flips_still_has_width() -> None:
    z = 1.959964
    _, low, high = tango_interval(0, 0, 500)
    assert (low, high) == pytest.approx((-(z**2) / (500 + z**2), z**2 / (500 + z**2)), rel=1e-5)


@pytest.mark.parametrize(
    ("count", "loss", "gain"), [(500, 0.012, 0.002), (500, 0.03, 0.03), (2000, 0.02, 0.01)]
)
def test_tango_covers_the_truth(count: int, loss: float, gain: float) -> None:
    rng = np.random.default_rng(count)
    draws = 1500
    flips = rng.multinomial(count, [loss, gain, 1 - loss - gain], size=draws)
    found = [tango_interval(int(b), int(c), count) for b, c, _ in flips]
    covered = np.mean([low <= gain - loss <= high for _, low, high in found])
    assert 0.95 - 2.6 * math.sqrt(0.05 * 0.95 / draws) < covered < 0.985


def test_impossible_counts_are_refused() -> None:
    for losses, gains, count in [(-1, 0, 5), (3, 3, 5), (0, 0, 0)]:
        with pytest.raises(ValueError):
            tango_interval(losses, gains, count)
    for hits, count in [(6, 5), (-1, 5), (0, 0)]:
        with pytest.raises(ValueError):
            clopper_pearson(hits, count)
