"""Planned looks: error rates on simulated launches, and the guards around a verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special

from onnxtrim.bench import latency, looks
from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.latency import Protocol, compare_latency
from onnxtrim.bench.latency_metrics import (
    latency_metrics,
    latency_verdict,
    latency_warnings,
    over_budget,
)
from onnxtrim.bench.launches import COPY, LatencyResult, Round
from onnxtrim.bench.looks import LOOKS, SPENT, judge
from onnxtrim.bench.stats import yuen_interval
from onnxtrim.bench.student import t_quantile
from tests.simulated import ONE, FakeArm, Weather, feeds

LIMIT = 1.02


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("original", "candidate"):
        (tmp_path / name).write_text("not opened by the fake")
    return tmp_path / "original", tmp_path / "candidate"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path]) -> Any:
    def run(weather: Weather, **numbers: Any) -> LatencyResult:
        monkeypatch.setattr(FakeArm, "weather", weather, raising=False)
        monkeypatch.setattr(latency, "Arm", FakeArm)
        return compare_latency(*paths, feeds(), ONE, Protocol(**numbers))

    return run


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 8, 15, 23, 40])
def test_student_is_scipys(freedom: int) -> None:
    for share in (0.02, 0.5, 0.8, 0.95, 0.975, 0.9975):
        assert t_quantile(share, freedom) == pytest.approx(
            special.stdtrit(freedom, share), rel=1e-9, abs=1e-12
        )


def run_of(draw: Any, truth: float) -> tuple[str, int]:
    """The verdict on launches drawn one after another, and how many it took."""
    logs = draw(LOOKS[-1]) + math.log(truth)
    for count in LOOKS:
        verdict = judge(logs[:count].tolist(), LIMIT)
        if verdict is not None:
            return verdict.verdict, verdict.launches
    raise AssertionError("the last look always ends it")


def shares(kind: str, truth: float, runs: int = 1500) -> dict[str, float]:
    rng = np.random.default_rng(5)
    draws = {
        "normal": lambda n: rng.normal(0, 0.006, n),
        "t3": lambda n: 0.006 * rng.standard_t(3, n),
        "wild": lambda n: rng.normal(0, np.where(rng.random(n) < 0.05, 0.09, 0.006)),
    }
    found = [run_of(draws[kind], truth)[0] for _ in range(runs)]
    return {word: found.count(word) / runs for word in ("pass", "fail", "inconclusive")}


@pytest.mark.parametrize("kind", ["normal", "t3", "wild"])
def test_error_rates_at_the_limit(kind: str) -> None:
    """At most 5% pass, and fail, falsely; two standard errors of 1500 runs are 1.1%."""
    found = shares(kind, LIMIT)
    assert found["pass"] <= 0.05 + 0.011
    assert found["fail"] <= 0.05 + 0.011


def test_looks_at_five_percent_each_would_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: without alpha spending it does."""
    monkeypatch.setattr(looks, "SPENT", (0.05,) * 4)
    assert shares("normal", LIMIT)["pass"] > 0.061


def test_power() -> None:
    """A launch spread of 0.6% decides one percent on either side of the limit."""
    assert shares("normal", 1.0, 300)["pass"] > 0.99
    assert shares("normal", 1.03, 300)["fail"] > 0.99
    assert math.isclose(sum(SPENT), 0.05)


def test_launches_end_at_the_look_that_decides(measure: Any) -> None:
    fast = measure(Weather(1, ratio=0.8, launch_sd=0.003), limit=0.9, rounds=4)
    assert len(fast.launches) == 8
    assert fast.planned
    assert latency_verdict(fast, 0.9).verdict == "pass"
    slow = measure(Weather(1, ratio=1.2, launch_sd=0.003), limit=0.9, rounds=4)
    assert latency_verdict(slow, 0.9).verdict == "fail"
    near = measure(Weather(1, ratio=0.9, launch_sd=0.003), limit=0.9, rounds=4)
    assert len(near.launches) == 24
    verdict = latency_verdict(near, 0.9)
    assert verdict.verdict == "inconclusive"
    assert "limit" in verdict.why


def test_intervals_after_looks_are_wider(measure: Any) -> None:
    planned = measure(Weather(1, ratio=0.8), limit=0.9, rounds=4)
    logs = planned.logs(0.5)
    ratio = latency_metrics(planned)["latency.p50.ratio"]
    assert ratio.high == pytest.approx(math.exp(yuen_interval(logs, 0.995).high))


@pytest.mark.parametrize("launches", [2, 3, 7])
def test_fewer_launches_than_the_first_look_never_pass(measure: Any, launches: int) -> None:
    result = measure(Weather(0, ratio=0.1, launch_sd=0.0), launches=launches, rounds=2)
    verdict = latency_verdict(result, 5.0)
    assert verdict.verdict == "inconclusive"
    assert "too few" in verdict.why


def with_slower_copy(result: LatencyResult) -> LatencyResult:
    """The same with a copy of the original that takes 5% longer."""

    def slower(part: Round) -> Round:
        calls = part.calls_ns if part.arm != COPY else tuple(int(1.05 * c) for c in part.calls_ns)
        return replace(part, calls_ns=calls)

    return replace(
        result,
        launches=tuple(
            replace(launch, rounds=tuple(map(slower, launch.rounds))) for launch in result.launches
        ),
    )


def test_copy_that_differs_forbids_a_verdict(measure: Any) -> None:
    result = with_slower_copy(
        measure(Weather(0, ratio=0.5, launch_sd=0.0005), launches=8, rounds=4, copy=True)
    )
    verdict = latency_verdict(result, 0.9)
    assert verdict.verdict == "inconclusive"
    assert "two runs of the original differ" in verdict.why
    assert any("original against itself" in text for text in latency_warnings(result))


def test_copy_that_does_not_differ_allows_it(measure: Any) -> None:
    result = measure(Weather(0, ratio=0.5, launch_sd=0.0005), launches=8, rounds=4, copy=True)
    assert latency_verdict(result, 0.9).verdict == "pass"
    assert not any("itself" in text for text in latency_warnings(result))
    assert result.calls[COPY] == result.calls[0]
    assert len(result.to_json()["copy_ratio"]) == 8


def test_turns_of_three_arms_are_mirrored(measure: Any) -> None:
    weather = Weather(0, ratio=1.0)
    result = measure(weather, launches=3, rounds=8, copy=True)
    for launch in result.launches:
        arms = [part.arm for part in launch.rounds]
        for start in range(0, len(arms), 6):
            block = arms[start : start + 6]
            assert block == block[::-1]
            assert sorted(block[:3]) == [0, 1, 2]


def test_drift_beyond_a_ratio_of_turns_would_be_seen(measure: Any) -> None:
    """A ramp of 10% on all arms: turns cancel it, one model after the other would not."""
    weather = Weather(2, ratio=1.0, launch_sd=0.0)
    weather.drift = 0.10 / (8 * 24 * 2)
    result = measure(weather)
    assert latency_metrics(result)["latency.p50.ratio"].value == pytest.approx(1, abs=0.003)
    sequential = []
    for launch in result.launches:
        logs = [part.log_quantile(0.5) for part in launch.rounds]
        half = len(logs) // 2
        sequential.append(np.median(logs[half:]) - np.median(logs[:half]))
    assert math.exp(float(np.mean(sequential))) > 1.003
    weather = Weather(2, ratio=1.0, launch_sd=0.0)
    weather.drift = 0.10 / (8 * 24 * 2)
    clocked = measure(weather)
    assert any("not stationary" in text for text in latency_warnings(clocked))


def test_overhead_is_told(measure: Any) -> None:
    weather = Weather(0, ratio=0.5)
    weather.floor_ms = 0.03
    told = [text for text in latency_warnings(measure(weather, launches=2)) if "overhead" in text]
    assert len(told) == 2
    weather = Weather(0, ratio=0.5)
    weather.floor_ms = 0.001
    assert not any("overhead" in text for text in latency_warnings(measure(weather, launches=2)))


def test_a_death_keeps_what_was_finished(measure: Any) -> None:
    weather = Weather(0, ratio=0.5)
    weather.dies_after = 30
    with pytest.raises(WorkerError) as error:
        measure(weather, rounds=4)
    finished = error.value.finished
    assert isinstance(finished, LatencyResult)
    assert len(finished.launches) == 3
    assert latency_verdict(finished, 5.0).verdict == "inconclusive"
    weather = Weather(0, ratio=0.5)
    weather.dies_after = 3
    with pytest.raises(WorkerError) as error:
        measure(weather, rounds=4)
    assert error.value.finished is None


def test_calls_over_a_budget() -> None:
    """The interval holds although calls of a launch, or of its rounds, go together."""
    few = over_budget([0, 0], [480, 480], 48)
    assert (few.low, few.high) == (0.0, 1.0), "two launches tell nothing"
    none = over_budget([0] * 8, [480] * 8, 192)
    assert 0.015 < none.high < 0.025, "as if the calls of a round were one"
    even = over_budget([48] * 8, [480] * 8, 192)
    assert even.low < 0.1 < even.high
    assert over_budget([384, *[0] * 7], [480] * 8, 192).high > 2 * even.high


def test_calls_over_a_budget_hold_the_truth() -> None:
    """Shares that differ between launches: the upper bound is missed in a few per cent at most."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(400):
        shares = rng.beta(1, 49, 8)  # 2% on average
        over = rng.binomial(480, shares).tolist()
        missed += over_budget(over, [480] * 8, 192).high < 0.02
    assert missed <= 0.05 * 400


def test_paced_calls_are_asked_for(measure: Any) -> None:
    weather = Weather(0, ratio=1.0)
    result = measure(weather, launches=2, rounds=2, hertz=20.0)
    assert set(weather.pauses) == {0.05}
    assert result.calls == (5, 5)


@pytest.mark.parametrize("bad", [{"limit": 0.0}, {"limit": math.inf}, {"hertz": -1.0}])
def test_bad_protocols(bad: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Protocol(**bad)  # type: ignore[arg-type]


def test_more_rules_need_more_evidence_to_fail() -> None:
    logs = (math.log(1.026) + np.linspace(-0.005, 0.005, 8)).tolist()
    alone, together = judge(logs, LIMIT), judge(logs, LIMIT, rules=20)
    assert alone is not None
    assert alone.verdict == "fail"
    assert together is None, "more launches are needed"
