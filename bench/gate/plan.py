"""What a policy needs to be decided, told before anything is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxtrim.bench import looks
from onnxtrim.bench.gate.evidence import OF_LAUNCHES
from onnxtrim.bench.gate.policy import Policy, Rule, Target
from onnxtrim.bench.gate.quantity import show
from onnxtrim.bench.latency_metrics import TAIL_LAUNCHES
from onnxtrim.bench.stats import clopper_pearson
from onnxtrim.bench.student import normal_quantile, t_quantile
from onnxtrim.bench.verdict import non_inferior

FLIPS = 0.03
"""Share of samples to which two models are taken to give unlike answers, if nothing is known."""

LAUNCH_SD = 0.005
"""Spread of launches, as a share, of a machine that computes something else beside."""

LAUNCH_SECONDS = 3.5
"""Of three processes and a fast model."""

_POWER = 0.8
_TRIMMED = 1.06  # standard error of a 20% trimmed mean over that of a mean, normal values
_MOST_SAMPLES = 10**7


@dataclass(frozen=True)
class Need:
    """What a rule needs.

    Attributes:
        rule: Which one.
        samples: Labelled samples from which it can be decided, or ``None``.
        launches: Launches, fewest and most, or ``None``.
        seconds: Time for the most launches.
        possible: Whether what is there is enough; ``None`` if that is not known.
        told: In words.
    """

    rule: Rule
    samples: int | None
    launches: tuple[int, int] | None
    seconds: float
    possible: bool | None
    told: str


def plan(
    policy: Policy,
    target: Target,
    *,
    samples: int | None = None,
    flips: float = FLIPS,
    launch_seconds: float = LAUNCH_SECONDS,
) -> list[Need]:
    """What each rule needs to be decided with power 80%.

    Args:
        policy: For its alpha and its longest time.
        target: Whose rules.
        samples: How many there are; ``None`` if that is not known.
        flips: Share of samples with unlike answers that is expected.
        launch_seconds: Time of a launch.
    """
    return [_need(rule, policy, samples, flips, launch_seconds) for rule in target.rules]


def _need(
    rule: Rule, policy: Policy, samples: int | None, flips: float, launch_seconds: float
) -> Need:
    if rule.family in OF_LAUNCHES:
        return _launches(rule, policy, launch_seconds)
    if rule.family == "accuracy":
        needed, told = _samples(rule, policy.alpha, flips)
        if needed is None:
            return Need(rule, None, None, 0.0, False if "no number" in told else None, told)
        possible = None if samples is None else samples >= needed
        if rule.of_class is not None and possible:
            possible = None  # how many of them are of the class is not known
        return Need(rule, needed, None, 0.0, possible, told)
    if rule.family == "memory":
        return Need(rule, None, None, 6.0, True, "three fresh processes per model; repeats agree")
    if rule.family == "throughput":
        return Need(rule, None, (8, 8), 8 * launch_seconds, None, "eight launches")
    return Need(rule, None, None, 0.0, True, "exact, from the file")


def _launches(rule: Rule, policy: Policy, launch_seconds: float) -> Need:
    first = TAIL_LAUNCHES if ".p99" in rule.metric else looks.LOOKS[0]
    planned = [look for look in looks.LOOKS if look >= first]
    fewest, most = planned[0], planned[-1]
    near = _nearest(most, policy.alpha)
    told = f"{fewest} to {most} launches; a truth within {near:.1%} of the limit stays open"
    if rule.metric == "latency.over_budget_rate":
        told = f"{fewest} to {most} launches, of which each round counts as one call"
    elif ".ratio" not in rule.metric:
        told += "; absolute times need a quiet machine"
    possible = None
    if policy.max_seconds is not None and (fewest - 1) * launch_seconds > policy.max_seconds:
        possible = False
        begun = math.floor(policy.max_seconds / launch_seconds) + 1
        told = f"{fewest} launches at least, and max_duration ends after about {begun}"
    return Need(rule, None, (fewest, most), most * launch_seconds, possible, told)


def _nearest(look: int, alpha: float) -> float:
    """Distance to the limit that so many launches decide."""
    spent = alpha * looks.share_after(look)
    freedom = look - 2 * math.floor(0.2 * look) - 1
    error = _TRIMMED * LAUNCH_SD / math.sqrt(look)
    return (t_quantile(1 - spent, freedom) + t_quantile(_POWER, freedom)) * error


def _samples(rule: Rule, alpha: float, flips: float) -> tuple[int | None, str]:
    if rule.metric == "accuracy.top1.delta" and rule.min is not None:
        if rule.min >= 0:
            return None, "no number of samples can show a margin of 0, unless it gains"
        count = 10**6  # large, so that the share of flips is met
        half = round(flips * count / 2)
        needed = non_inferior(half, half, count, -rule.min / 100, alpha).needed
        assert needed is not None  # the margin is not 0
        which = "" if rule.of_class is None else f" of class {rule.of_class}"
        told = f"{needed} samples{which}, if equally good and unlike in {flips:.1%} of them"
        return needed, told
    limit = rule.max if rule.max is not None else rule.min
    counted = ("accuracy.top1", "accuracy.agreement", "accuracy.negative_flip_rate")
    if rule.metric not in counted or limit is None:
        return (
            None,
            "depends on the spread of the metric; its interval must lie inside the limit",
        )
    if rule.metric == "accuracy.top1":
        z = normal_quantile(1 - alpha) + normal_quantile(_POWER)
        needed = math.ceil(z**2 * limit * (1 - limit) / 0.01**2)
        return needed, f"{needed} samples, if the truth is a point from the limit"
    share = limit if rule.max is not None else 1 - limit
    if not 0 < share < 1:
        return None, "no number of samples can show that"
    needed = _fewest(share, alpha)
    return needed, f"{needed} samples, if the truth is half of {show(share, 'share')}"


def _fewest(share: float, alpha: float) -> int:
    """Samples of which half the allowed hits still show that there are no more than allowed."""
    low, high = 1, 1
    while high < _MOST_SAMPLES and not _shows(high, share, alpha):
        low, high = high, 2 * high
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _shows(middle, share, alpha) else (middle, high)
    return high


def _shows(count: int, share: float, alpha: float) -> bool:
    hits = math.ceil(count * share / 2)
    return clopper_pearson(hits, count, 1 - 2 * alpha).high <= share
