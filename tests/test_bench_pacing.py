"""How many rounds a launch has, and when there are more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxtrim.bench import latency
from onnxtrim.bench.latency import Protocol, measure_arms
from onnxtrim.bench.launches import LatencyResult, Launch, Round
from onnxtrim.bench.pacing import calls_per_round, raised, rounds_per_launch
from tests.simulated import ONE, FakeArm, Weather, feeds

Measure = Callable[..., LatencyResult]


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measure:
    paths = [tmp_path / name for name in ("original", "candidate")]
    for path in paths:
        path.write_bytes(b"")

    def run(weather: Weather, **numbers: float) -> LatencyResult:
        monkeypatch.setattr(FakeArm, "weather", weather, raising=False)
        monkeypatch.setattr(latency, "Arm", FakeArm)
        return measure_arms(paths, feeds(), ONE, Protocol(**numbers))  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize(
    ("call_ms", "calls", "rounds"),
    [(0.001, 4000, 80), (0.15, 27, 80), (0.8, 5, 80), (1.6, 5, 40), (3.2, 5, 24), (900.0, 5, 24)],
)
def test_a_launch_takes_as_long_for_all_fast_models(
    call_ms: float, calls: int, rounds: int
) -> None:
    assert calls_per_round(call_ms, 4.0) == calls
    assert rounds_per_launch(call_ms, 4.0) == rounds


def test_the_slowest_arm_decides_unless_rounds_are_given(measure: Measure) -> None:
    weather = Weather(0, ratio=8.0)  # 0.2 and 1.6 ms
    assert measure(weather, launches=2).to_json()["rounds"] == [40, 40]
    assert measure(weather, launches=2, rounds=6).to_json()["rounds"] == [6, 6]
    assert measure(weather, launches=2, hertz=20.0).to_json()["rounds"] == [24, 24]


def test_noisy_rounds_become_more_after_five_launches(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "raised", lambda done, *seconds: 80 + 10 * len(done))
    weather = Weather(0, ratio=1.0)
    assert measure(weather, launches=7).to_json()["rounds"] == [80] * 5 + [130] * 2
    assert measure(weather, launches=5).to_json()["rounds"] == [80] * 5  # nothing comes after
    assert measure(weather, launches=7, rounds=4).to_json()["rounds"] == [4] * 7  # as was asked


def _launches(of_launch: float, of_round: float, rounds: int = 24) -> list[Launch]:
    rng = np.random.default_rng(0)
    launches = []
    for _ in range(5):
        bias = rng.normal(0, of_launch)
        parts = []
        for turn in range(rounds):
            for arm in (0, 1):
                log = arm * bias + rng.normal(0, of_round / 2**0.5)
                call = (round(1e6 * np.exp(log)),)
                parts.append(Round(arm, float(turn), call, (), call[0], call[0], 0, 0))
        launches.append(Launch((0, 1), (0, 0), (1.0, 1.0), (1.0, 1.0), ({}, {}), tuple(parts)))
    return launches


@pytest.mark.parametrize(
    ("of_launch", "of_round", "expected"),
    [
        (0.003, 0.005, (24, 24)),  # close together as they are
        (0.0, 0.10, (48, 48)),  # rounds are all the noise
        (0.05, 0.05, (24, 24)),  # launches are: more rounds would not help
        (0.01, 0.10, (25, 48)),  # both
    ],
)
def test_more_rounds_only_where_rounds_are_the_noise(
    of_launch: float, of_round: float, expected: tuple[int, int]
) -> None:
    least, most = expected
    assert least <= raised(_launches(of_launch, of_round), 1.0, 1.0) <= most


def test_dear_rounds_are_not_raised() -> None:
    noisy = _launches(0.01, 0.10)
    assert raised(noisy, 0.01, 10.0) == 24 < raised(noisy, 1.0, 0.1)
