"""Simulated measuring processes: launch biases, noise, drift, a copy, a death."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from onnxtrim.bench.errors import WorkerError
from onnxtrim.bench.session import RunOptions

ONE = RunOptions(1)


def feeds(width: int = 64) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((1, width)).astype(np.float32)} for _ in range(3)]


class Weather:
    """A simulated machine: launch biases, noise, and a drift that hits whoever runs."""

    def __init__(self, seed: int, *, ratio: float, launch_sd: float = 0.005) -> None:
        self.rng = np.random.default_rng(seed)
        self.ratio = ratio
        self.launch_sd = launch_sd
        self.drift = 0.0  # relative growth per round
        self.rounds = 0
        self.turns: list[str] = []
        self.asked: list[tuple[str, int]] = []
        self.dies_after = 10**9
        self.floor_ms = 0.005
        self.pauses: list[float] = []
        self.unit = 200_000  # ns per call of the original


class FakeArm:
    """Stands in for a process; ``original`` is the name of the first model."""

    weather: Weather

    def __init__(self, model: str, pad: int = 0) -> None:
        assert 0 <= pad < 4096
        self.model = model
        self.bias = self.weather.rng.normal(0, self.weather.launch_sd)
        if Path(model).name != "original":
            self.bias += math.log(self.weather.ratio)

    def __enter__(self) -> FakeArm:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def wait_ready(self) -> None:
        pass

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        weather = self.weather
        if do == "floor":
            return {"floor_ms": weather.floor_ms}
        if do == "open":
            return {"create_ms": 10 * math.exp(self.bias), "first_run_ms": 1.0}
        if do == "warm_up":
            call_ms = weather.unit * math.exp(self.bias) / 1e6
            return {"calls": 20, "seconds": 0.25, "call_ms": call_ms}
        weather.rounds += 1
        weather.turns.append(Path(self.model).name)
        weather.pauses.append(values["pause"])
        weather.asked.append((Path(self.model).name, values["calls"]))
        if weather.rounds > weather.dies_after:
            raise WorkerError("died")
        level = self.bias + weather.drift * weather.rounds + weather.rng.normal(0, 0.01)
        calls = weather.unit * np.exp(level + 0.02 * weather.rng.standard_exponential(5))
        calls *= 1 + values.get("slower", 0.0)
        return {
            "calls_ns": [int(call) for call in calls],
            "settle_ns": [10**9] * values["settle"],  # must never count
            "wall_ns": max(int(calls.sum()), 1),
            "cpu_ns": int(calls.sum()),
            "wait_ns": int(calls.sum() / 4),
            "switches": 1,
            "joules": None,
        }
