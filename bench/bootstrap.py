"""The paired bootstrap: intervals for metrics that have no formula of their own.

Source: B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1),
1979, https://doi.org/10.1214/aos/1176344552; the percentile interval is from B. Efron,
"Nonparametric standard errors and confidence intervals", Canadian Journal of Statistics 9(2), 1981,
https://doi.org/10.2307/3314608. For few samples its ends are moved outwards as in
T. Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69(4),
2015, https://doi.org/10.1080/00031305.2015.1089789.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.stats import Interval
from onnxtrim.bench.student import t_quantile

Weights = NDArray[np.float64]

DRAWS = 2000

CONFIDENCES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
"""Confidences that result files hold the intervals of; beyond them too few draws are left."""

LEAST_SAMPLES = 50
"""Samples, or groups of like size, below which intervals are rough."""

_MANY = 1000  # samples from which Student's t is normal
_ELEMENTS = 2**20  # of one array at a time, or of one draw if that has more


@dataclass(frozen=True)
class Resampled:
    """A metric of two models as a function of how often each sample is drawn.

    Attributes:
        counts: How many samples each unit stands for, shape ``(units,)``: samples that are alike
            can be one unit, which changes nothing in the distribution of the draws.
        values: From weights of shape ``(draws, units)`` to the metric of the original and of the
            candidate, shape ``(draws, 2)``; NaN where a draw has no value.
        width: Columns of the widest array that ``values`` makes per draw.
        units: How many independent samples that is in effect; 0 for all of ``counts``.
    """

    counts: NDArray[np.int64]
    values: Callable[[Weights], NDArray[np.float64]]
    width: int
    units: float = 0.0


class Paired(NamedTuple):
    """A metric of both models, and the candidate's minus the original's."""

    original: Interval
    candidate: Interval
    delta: Interval


@dataclass(frozen=True)
class Drawn:
    """A metric of two models, and what draws of the samples make of it.

    Attributes:
        whole: Of all samples: of the original, of the candidate.
        draws: Of the draws, shape ``(draws, 2)``.
        units: How many independent samples, or groups of like size, there are in effect.
    """

    whole: NDArray[np.float64]
    draws: NDArray[np.float64]
    units: float

    def at(self, confidence: float = 0.95) -> Paired:
        """With percentile intervals of a confidence, the difference from the same draws."""
        first, second = self.whole
        before, after = self.draws.T
        tail = _tail((1 - confidence) / 2, int(self.units))
        return Paired(
            _interval(first, before, tail),
            _interval(second, after, tail),
            _interval(second - first, after - before, tail),
        )


def paired_bootstrap(metric: Resampled, seed: int = 0, draws: int = DRAWS) -> Drawn:
    """A metric of two models on draws of the samples, the same for both.

    A draw takes as many samples as there are, with replacement. Memory does not grow with the
    draws, and with the samples only as the metric's own values do; time grows with both: about a
    minute for a million samples of which no two are alike, several minutes for ``auc``.

    Known limitation: where no sample tells the models apart the interval has no width, however
    few the samples are; and it is still too narrow for fewer than about 20.

    Raises:
        ValueError: No samples.
    """
    total = int(metric.counts.sum())
    if total == 0:
        raise ValueError("no samples")
    rng = np.random.default_rng(seed)
    size = max(1, _ELEMENTS // max(metric.width, len(metric.counts)))
    parts = []
    for start in range(0, draws, size):
        weights = _draw(rng, metric.counts, total, min(size, draws - start))
        parts.append(metric.values(weights))
    whole = metric.values(metric.counts[None].astype(np.float64))[0]
    return Drawn(whole, np.concatenate(parts), metric.units or total)


def by_groups(metric: Resampled, groups: NDArray[np.int64]) -> Resampled:
    """The metric as a function of how often each group of samples is drawn, whole.

    Samples of one group go together, so that drawing them one by one would give intervals that are
    too narrow.

    Args:
        metric: With one unit for each sample.
        groups: Number of the group of each sample, from 0 on, shape ``(samples,)``.
    """
    width = max(metric.width, len(groups))
    ones = np.ones(int(groups.max()) + 1, np.int64)
    units = effective_units(groups)
    return Resampled(ones, lambda weights: metric.values(weights[:, groups]), width, units)


def effective_units(groups: NDArray[np.int64]) -> float:
    """Groups of like size that know as much: (Σn)²/Σn² for groups of n samples (Kish, 1965)."""
    sizes = np.bincount(groups).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def alike(rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The different rows and how often each occurs, if that makes far fewer; else all rows."""
    found, counts = np.unique(rows, axis=0, return_counts=True)
    if 4 * len(found) <= len(rows):
        return found, counts
    return rows, np.ones(len(rows), np.int64)


def _draw(rng: np.random.Generator, counts: NDArray[np.int64], total: int, size: int) -> Weights:
    """How often each unit is drawn, shape ``(size, units)``."""
    units = len(counts)
    if units < total:
        return rng.multinomial(total, counts / total, size=size).astype(np.float64)
    places = rng.integers(0, units, (size, units))
    places += units * np.arange(size)[:, None]
    weights = np.bincount(places.ravel(), minlength=size * units)
    return weights.reshape(size, units).astype(np.float64)


def _tail(share: float, units: int) -> float:
    """The share of draws beyond an end, so that it holds for few samples, too: Φ(−√(n/(n−1))·t)."""
    if units >= _MANY:
        return share
    if units < 2:
        return 0.0
    moved = math.sqrt(units / (units - 1)) * t_quantile(1 - share, units - 1)
    return math.erfc(moved / math.sqrt(2)) / 2


def _interval(value: float, drawn: NDArray[np.float64], tail: float) -> Interval:
    known = drawn[~np.isnan(drawn)]
    if len(known) == 0:
        return Interval(float(value), float(value), float(value))
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))
