"""The self-check: it trusts a quiet machine, and neither a noisy nor a biased one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from onnxtrim.bench import latency, selfcheck
from onnxtrim.bench.selfcheck import SelfCheck, neighbour, reference_model, run_selfcheck
from onnxtrim.bench.session import RunOptions, open_session, run
from tests import cli
from tests.simulated import ONE, FakeArm, Weather, feeds


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    (tmp_path / "original").write_text("not opened by the fake")

    def run_it(weather: Weather, arm: type[FakeArm] = FakeArm) -> SelfCheck:
        monkeypatch.setattr(arm, "weather", weather, raising=False)
        monkeypatch.setattr(latency, "Arm", arm)
        return run_selfcheck(tmp_path / "original", feeds(), ONE, rounds=8)

    return run_it


def test_a_quiet_machine_is_trusted(check: Any) -> None:
    found = check(Weather(0, ratio=1.0, launch_sd=0.002))
    assert found.passed, found.checks
    assert found.trusted(0.02)
    assert [item.name for item in found.checks][1:3] == ["injected 2%", "injected 5%"]


def test_a_noisy_machine_is_not(check: Any) -> None:
    found = check(Weather(1, ratio=1.0, launch_sd=0.05))
    assert not found.trusted(0.02)
    assert not found.trusted(0.05)
    assert found.effect > 0.02


def test_a_harness_that_adds_nothing_is_found_out(check: Any) -> None:
    class Deaf(FakeArm):
        def ask(self, do: str, **values: Any) -> dict[str, Any]:
            return super().ask(do, **{**values, "slower": 0.0})

    found = check(Weather(0, ratio=1.0, launch_sd=0.002), Deaf)
    wrong = {item.name for item in found.checks if not item.passed}
    assert {"injected 2%", "injected 5%"} <= wrong
    assert not found.passed


def test_the_reference_runs(tmp_path: Path) -> None:
    samples = reference_model(tmp_path / "m.onnx")
    session = open_session(tmp_path / "m.onnx", RunOptions(1))
    (found,) = run(session, samples[0], "m")
    assert found.shape == (48, 128)
    assert found.std() > 0


def test_a_neighbour_computes_and_goes() -> None:
    with neighbour():
        time.sleep(0.01)


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAUNCHES", "DRIFTING", "NOISY"):
        monkeypatch.setattr(selfcheck, name, 8)
    monkeypatch.setattr(latency, "Arm", FakeArm)
    monkeypatch.setattr(FakeArm, "weather", Weather(0, ratio=1.0, launch_sd=0.002), raising=False)
    found = cli.run("bench", "selfcheck", "--rounds", "8")
    assert "can be trusted at a limit of" in found.out
    value = cli.run("bench", "selfcheck", "--rounds", "8", "--json")
    assert '"schema": "onnxtrim.selfcheck/1"' in value.out
