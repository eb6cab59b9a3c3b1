"""Student's t and the normal distribution in plain Python: devices have no scipy."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

_STEPS = 200  # of a bisection, more than a float64 needs


def normal_quantile(share: float) -> float:
    """The value below which this share of a standard normal distribution lies."""
    return NormalDist().inv_cdf(share)


def t_share(value: float, freedom: int) -> float:
    """The share of Student's t below a value, for a whole number of degrees of freedom.

    The finite trigonometric sums of Abramowitz & Stegun, Handbook of Mathematical Functions
    (1964), 26.7.3 and 26.7.4.

    Raises:
        ValueError: ``freedom`` is below 1.
    """
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom")
    angle = math.atan2(value, math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term, total = 1.0, 0.0
    for index in range(freedom // 2):
        total += term
        term *= square * (2 * index + 1 + odd) / (2 * index + 2 + odd)
    if odd:
        both = (angle + math.sin(angle) * math.cos(angle) * total) * 2 / math.pi
    else:
        both = math.sin(angle) * total
    return (1 + both) / 2


@functools.cache
def t_quantile(share: float, freedom: int) -> float:
    """The value below which this share of Student's t lies.

    Raises:
        ValueError: ``share`` is not within (0, 1), or ``freedom`` is below 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"{share} is no share of a distribution")
    if share < 0.5:
        return -t_quantile(1 - share, freedom)
    low, high = 0.0, 1.0
    while t_share(high, freedom) < share:
        low, high = high, high * 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if t_share(middle, freedom) < share:
            low = middle
        else:
            high = middle
    return high
