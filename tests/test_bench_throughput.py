"""Throughput: samples per second and CPU time per sample, of models whose order is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxtrim.bench import throughput
from onnxtrim.bench.arms import Arm
from onnxtrim.bench.compare import compare
from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.latency import Protocol
from onnxtrim.bench.result_file import load_result, save_result
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings
from onnxtrim.bench.throughput import ThroughputResult, measure_throughput
from tests.bench_models import save_mlp


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "ROUND_SECONDS", 0.02)


@pytest.mark.usefixtures("quick")
def test_the_smaller_model_does_more(tmp_path: Path) -> None:
    large = save_mlp(tmp_path / "large.onnx", [64, 1024, 1024, 10])
    small = save_mlp(tmp_path / "small.onnx", [64, 16, 10])
    settings = Settings(
        RunOptions(2), Protocol(launches=2), latency=False, memory=False, throughput=4
    )
    result = compare(large, small, settings=settings)
    cells = result.details["throughput"]["cells"]
    assert cells == [[1, 1], [1, 4], [2, 1], [2, 4]]
    for cell in ("1x1", "2x4"):
        assert result.metrics[f"throughput.{cell}.ratio"].value > 2
        assert result.metrics[f"throughput.{cell}.cpu.ratio"].value < 0.5
    path = tmp_path / "result.json"
    save_result(result, path)
    again = load_result(path)
    assert again.metrics == result.metrics
    json.dumps(again.to_json(), allow_nan=False)


@pytest.mark.usefixtures("quick")
def test_a_fixed_batch_is_measured_once(tmp_path: Path) -> None:
    model = save_mlp(tmp_path / "m.onnx", [8, 16, 4], batch=3)
    settings = Settings(
        RunOptions(1), Protocol(launches=2), latency=False, memory=False, throughput=8
    )
    result = compare(model, model, settings=settings)
    assert result.details["throughput"]["cells"] == [[1, 3]]


def test_figures_of_made_up_launches() -> None:
    launch = (((200.0, 0.01), (100.0, 0.02)),)
    found = ThroughputResult(((2, 8),), (launch, launch)).metrics()
    assert found["throughput.2x8"].value == pytest.approx(200)
    assert found["throughput.2x8.original"].value == pytest.approx(100)
    assert found["throughput.2x8.ratio"].value == pytest.approx(2)
    assert found["throughput.2x8.cpu.ratio"].value == pytest.approx(0.5)


def test_a_clock_that_stands_still(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ask = Arm.ask

    def still(arm: Any, do: str, **values: Any) -> dict[str, Any]:
        answer = ask(arm, do, **values)
        return {**answer, "wall_ns": 0} if do == "throughput" else answer

    monkeypatch.setattr(Arm, "ask", still)
    model = save_mlp(tmp_path / "m.onnx", [8, 16, 4])
    feeds = {1: [{"x": np.zeros((1, 8), np.float32)}]}
    with pytest.raises(WorkerError, match="clock"):
        measure_throughput([model], feeds, [1], launches=2)
    with pytest.raises(InputError, match="throughput is -1"):
        Settings(throughput=-1)
