"""The figures that follow from launches: metrics, the verdict on a limit, and warnings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench import looks
from onnxtrim.bench.conditions import DRIFT, contention, drift
from onnxtrim.bench.launches import CANDIDATE, COPY, ORIGINAL, LatencyResult
from onnxtrim.bench.results import Metric, Metrics
from onnxtrim.bench.stats import clopper_pearson, detectable

Values = NDArray[np.float64]

TAIL_CALLS = 662
"""Calls of an arm from which a 99th percentile is told: the smallest n for which at most one call
beyond it has a probability of 1% (as in MLPerf's load generator)."""

TAIL_LAUNCHES = 12
"""Launches from which a tail is compared."""

DRAWS = 2000
"""Of the bootstrap, drawn so many at once:"""

_AT_ONCE = 50

_HIGHEST = 0.25
"""Share of the calls, the longest, among which the 99th percentile of every draw is sought."""

FLOOR_TIMES = 10
"""Times the call of an empty model below which a model is bound by the overhead of a call."""


def latency_metrics(
    result: LatencyResult, budget_ms: float | None = None, confidence: float | None = None
) -> Metrics:
    """``latency.*``, ``load.*`` and ``energy.*`` with 95% intervals over launches.

    Times and their ratios are on the log scale. Where the launches ended at a planned look, the
    intervals are as much wider as holds 95% for all looks together.

    Args:
        result: What was measured.
        budget_ms: Time that a call may take, for ``latency.over_budget_rate``.
        confidence: Of the intervals, where it shall be another one.
    """
    pair = len(result.calls) > CANDIDATE
    tails = {arm: _tail(result, arm) for arm in (ORIGINAL, CANDIDATE)[: len(result.calls)]}
    if confidence is None:
        confidence = looks.confidence_after(len(result.launches)) if result.planned else 0.95
    metrics: Metrics = {}
    for arm, suffix in ((CANDIDATE, ""), (ORIGINAL, ".original")) if pair else ((ORIGINAL, ""),):
        for name, share in (("p50", 0.5), ("p10", 0.1)):
            logs = [launch.median_log(arm, share) for launch in result.launches]
            metrics[f"latency.{name}{suffix}"] = Metric.of_logs(logs, "ms", confidence)
        for name, values in _loads(result, arm).items():
            metrics[f"load.{name}{suffix}"] = Metric.of_logs(
                np.log(values).tolist(), "ms", confidence
            )
        if (tail := tails[arm]) is not None:
            metrics[f"latency.p99{suffix}"] = _between(*tail, "ms", confidence)
        if budget_ms is not None:
            metrics[f"latency.over_budget_rate{suffix}"] = _over_budget(
                result, arm, budget_ms, confidence
            )
        metrics |= _energy(result, arm, suffix, confidence)
    if not pair:
        return metrics
    for name, share in (("p50", 0.5), ("p10", 0.1)):
        metrics[f"latency.{name}.ratio"] = Metric.of_logs(result.logs(share), "ratio", confidence)
    if len(result.calls) > COPY:
        copy = Metric.of_logs(result.logs(0.5, COPY), "ratio", looks.GUARD)
        metrics["latency.copy.ratio"] = copy  # at 99%
    before = _loads(result, ORIGINAL)
    for name, values in _loads(result, CANDIDATE).items():
        ratios = np.log(values) - np.log(before[name])
        metrics[f"load.{name}.ratio"] = Metric.of_logs(ratios.tolist(), "ratio", confidence)
    first, second = tails[ORIGINAL], tails[CANDIDATE]
    if len(result.launches) >= TAIL_LAUNCHES and first is not None and second is not None:
        # Launches, and rounds in them, are drawn alike for both.
        ratio = _between(second[0] / first[0], second[1] / first[1], "ratio", confidence)
        metrics["latency.p99.ratio"] = ratio
    return metrics


def latency_verdict(result: LatencyResult, limit: float, rules: int = 1) -> looks.Verdict:
    """Whether the p50 of the candidate is shown to be at most ``limit`` times the original's.

    Never a pass from fewer launches than the first planned look, nor where two runs of the
    original differ by more than the tolerance.
    """
    logs = result.logs(0.5)
    if copies_differ(result):
        why = "two runs of the original differ, so nothing measured here can be trusted now"
        return looks.undecided(logs, limit, why)
    found = looks.judge(logs, limit, rules)
    if found is None:
        planned = ", ".join(map(str, looks.LOOKS))
        why = f"too few launches to tell (judged after {planned})"
        return looks.undecided(logs, limit, why)
    return found


def copies_differ(result: LatencyResult) -> bool:
    """Whether two runs of the original differ, if it ran against itself."""
    return len(result.calls) > COPY and looks.is_untrustworthy(result.logs(0.5, COPY))


def moving(result: LatencyResult) -> float | None:
    """By what share the original's time changes a minute; ``None`` if it stands still."""
    times = [launch.of(ORIGINAL)[0].at for launch in result.launches]
    change = drift(times, [launch.median_log(ORIGINAL, 0.5) for launch in result.launches])
    return None if change is None or abs(change) <= DRIFT else change


def latency_warnings(result: LatencyResult) -> list[str]:
    """What makes the figures less trustworthy, in words."""
    found = []
    busy = contention(result.wait_share(), result.conditions)
    if busy is not None:
        found.append(
            f"the machine was busy: {busy}; ratios hold for this load, absolute times are too high"
        )
    if copies_differ(result):
        low, high = (math.exp(end) for end in looks.copy_interval(result.logs(0.5, COPY))[1:])
        found.append(
            f"the original against itself: ratio {low:.4f} to {high:.4f} (99%); these ratios can't"
            " be trusted, measure again on a quieter machine"
        )
    if (change := moving(result)) is not None:
        found.append(
            f"not stationary: the original's time changed by {change:+.1%} a minute; the ratio"
            " holds, absolute times don't"
        )
    arms = (("original", ORIGINAL), ("candidate", CANDIDATE))[: len(result.calls)]
    for name, arm in arms if len(arms) > 1 else (("model", ORIGINAL),):
        call = math.exp(float(np.median([k.median_log(arm, 0.5) for k in result.launches])))
        if result.floor_ms is not None and call < FLOOR_TIMES * result.floor_ms:
            share = min(result.floor_ms / call, 1.0)
            found.append(
                f"overhead-bound: of a call of the {name}, {1000 * call:.1f} µs, {share:.0%} is"
                f" what a call of an empty model takes ({1000 * result.floor_ms:.1f} µs); no"
                " smaller model saves that"
            )
    return found


def ratio_above_floor(result: LatencyResult) -> float | None:
    """Ratio of the times without the overhead of a call, as information only."""
    if result.floor_ms is None or len(result.calls) <= CANDIDATE:
        return None
    times = [
        math.exp(float(np.mean([k.median_log(arm, 0.5) for k in result.launches])))
        for arm in (ORIGINAL, CANDIDATE)
    ]
    before, after = (time - result.floor_ms for time in times)
    return after / before if before > 0 and after > 0 else None


def smallest_effect(result: LatencyResult) -> float:
    """The ratio above 1 that so many launches find in 80% of cases."""
    return math.exp(detectable(result.logs(0.5)))


def _loads(result: LatencyResult, arm: int) -> dict[str, NDArray[np.float64]]:
    create = np.asarray([launch.create_ms[arm] for launch in result.launches])
    first = np.asarray([launch.first_run_ms[arm] for launch in result.launches])
    return {"session_create": create, "first_run": first, "to_first_run": create + first}


def _between(value: float, draws: Values, unit: str, confidence: float) -> Metric:
    """A value with the percentile interval of its draws."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Metric(value, min(float(low), value), max(float(high), value), unit)


def _tail(result: LatencyResult, arm: int) -> tuple[float, Values] | None:
    """99th percentile of the calls and its draws, in ms; ``None`` from too few."""
    calls = [launch.calls(arm) for launch in result.launches]
    if sum(map(len, calls)) < TAIL_CALLS or len(calls) < looks.LOOKS[0]:
        return None
    value = float(np.quantile(np.concatenate(calls), 0.99)) / 1e6
    return value, _resampled_p99(result, arm, np.random.default_rng(result.seed)) / 1e6


def _over_budget(result: LatencyResult, arm: int, budget_ms: float, confidence: float) -> Metric:
    calls = [launch.calls(arm) for launch in result.launches]
    over = [int(np.count_nonzero(part > 1e6 * budget_ms)) for part in calls]
    rounds = sum(len(launch.of(arm)) for launch in result.launches)
    return over_budget(over, [len(part) for part in calls], rounds, confidence)


def over_budget(
    over: Sequence[int], calls: Sequence[int], rounds: int, confidence: float = 0.95
) -> Metric:
    """Share of calls over a budget, with an exact interval for as many calls as count.

    Calls of one launch go together, so the counts are divided by the design effect (Kish, Survey
    Sampling, 1965): the variance of the launches' shares over that of independent calls. Few
    launches tell that variance badly, so its upper limit is taken (95%, chi-squared), and at least
    that all calls of a round count as one. From fewer launches than the first planned look
    nothing is known.

    Known limitation: bad spells that are rarer than launches are seen by none of them.

    Args:
        over: Calls over the budget, for each launch.
        calls: All its calls.
        rounds: Rounds of all launches.
        confidence: Of the interval.
    """
    from scipy import special  # not on a device, which only measures

    total, hits = sum(calls), sum(over)
    share = hits / total
    if len(calls) < looks.LOOKS[0]:
        return Metric(share, 0.0, 1.0, "share")
    effect = total / rounds
    if 0 < hits < total:
        freedom = len(calls) - 1
        shares = np.asarray(over) / np.asarray(calls)
        expected = share * (1 - share) / (total / len(calls))
        worst = freedom / float(special.chdtri(freedom, 0.95))
        effect = max(effect, worst * float(shares.var(ddof=1)) / expected)
    count = max(round(total / effect), 1)
    low = clopper_pearson(min(math.floor(share * count), count), count, confidence).low
    high = clopper_pearson(min(math.ceil(share * count), count), count, confidence).high
    return Metric(share, min(low, share), max(high, share), "share")


def _resampled_p99(result: LatencyResult, arm: int, rng: np.random.Generator) -> Values:
    """99th percentiles of two-stage draws: launches, and whole rounds within each."""
    rounds = [part for launch in result.launches for part in launch.of(arm)]
    sizes = [len(launch.of(arm)) for launch in result.launches]  # later ones may have more
    count = len(rounds[0].calls_ns)
    calls = np.concatenate([np.asarray(part.calls_ns, np.float64) for part in rounds])
    highest = np.argsort(-calls, kind="stable")[: math.ceil(_HIGHEST * len(calls))]
    owners = np.repeat(np.arange(len(rounds)), count)[highest]
    found = []
    launches = len(result.launches)
    for _ in range(DRAWS // _AT_ONCE):
        times = rng.multinomial(launches, np.full(launches, 1 / launches), size=_AT_ONCE)
        parts = [
            rng.multinomial(drawn * size, np.full(size, 1 / size))
            for drawn, size in zip(times.T, sizes)
        ]
        draws = np.concatenate(parts, axis=1)
        above = draws[:, owners].cumsum(axis=1)
        wanted = 0.01 * count * draws.sum(axis=1)
        place = np.argmax(above >= wanted[:, None], axis=1)
        place[above[:, -1] < wanted] = len(highest) - 1
        found.append(calls[highest][place])
    return np.concatenate(found)


def _energy(result: LatencyResult, arm: int, suffix: str, confidence: float) -> Metrics:
    """``energy.per_call``: joules of all packages, neighbours included."""
    logs = []
    for launch in result.launches:
        rounds = launch.of(arm)
        joules = [part.joules for part in rounds if part.joules is not None]
        if len(joules) != len(rounds) or sum(joules) <= 0:
            return {}
        logs.append(math.log(sum(joules) / sum(len(part.calls_ns) for part in rounds)))
    return {f"energy.per_call{suffix}": Metric.of_logs(logs, "J", confidence)}
