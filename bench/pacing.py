"""How many calls and rounds a launch is made of.

Neighbours and clocks disturb a machine for tens of milliseconds at a time, so two models compare
best in many short turns that lie close together: measured beside another job, 96 rounds of 5 ms
leave a third of the spread that 24 rounds of 20 ms leave, at the same cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxtrim.bench.launches import ORIGINAL, Launch

MIN_CALLS = 5
"""Calls of a round, however slow the model."""

MOST_ROUNDS, FEWEST_ROUNDS = 80, 24
"""Rounds of a fast and of a slow model, if nobody gave a number."""

REVIEW = 5
"""Launches after which the number of rounds is looked at once more, before the first look."""

GOOD = 0.0075  # spread of launches, as a share, from which on more rounds are thought of
MOST_RAISED = 2.0  # how many times more rounds there may be then
_NORMAL = 1.4826  # standard deviation of normal values, over their median absolute deviation


def calls_per_round(call_ms: float, round_ms: float) -> int:
    """Calls that fill a round."""
    return max(MIN_CALLS, math.ceil(round_ms / call_ms))


def rounds_per_launch(slowest_ms: float, round_ms: float) -> int:
    """Rounds that together take as long as the most rounds of ``round_ms``; an even number.

    Args:
        slowest_ms: Time from call to call of the slowest arm.
        round_ms: Length of a round that holds more than the fewest calls.
    """
    longest = max(round_ms, MIN_CALLS * slowest_ms)
    return 2 * round(max(MOST_ROUNDS * round_ms / longest, FEWEST_ROUNDS) / 2)


def raised(launches: Sequence[Launch], start_s: float, rounds_s: float) -> int:
    """How many rounds are worth their time, judged by the first launches; never fewer.

    No more than there are if the launches lie close together as it is. Only their spread is looked
    at, so that the looks stay valid. A launch has an error of its own and shares that of its
    rounds. With a cost of starting processes and one of a round, the best number of rounds is the
    root of cost of launch over cost of round times variance of rounds over that of launches
    (Kalibera & Jones, ISMM 2013, https://doi.org/10.1145/2464157.2464160).

    Args:
        launches: Of two or more arms.
        start_s: Seconds that a launch takes without its rounds.
        rounds_s: Seconds that its rounds take.

    Returns:
        An even number, at most twice the rounds so far.
    """
    arms = range(1, len(launches[0].order))
    rounds = len(launches[0].of(ORIGINAL))
    values, rests = [], []
    for arm in arms:
        for launch in launches:
            turns = launch.log_ratios(0.5, arm)
            rests.append(turns - np.median(turns))
        values.append([launch.log_ratio(0.5, arm) for launch in launches])
    total = float(np.mean(np.var(values, axis=1, ddof=1)))
    if total <= GOOD**2:
        return rounds
    spread = _NORMAL * float(np.median(np.abs(np.concatenate(rests))))
    of_rounds = math.pi / 2 * spread**2  # of a median, times the number of rounds
    of_launch = max(total - of_rounds / rounds, total / 1000)
    best = math.sqrt(start_s / (rounds_s / rounds) * of_rounds / of_launch)
    return max(rounds, 2 * round(min(best, MOST_RAISED * rounds) / 2))
