"""Latency and memory: the statistics on simulated processes, the whole on real ones."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxtrim.bench import arms, latency
from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.latency import Protocol, compare_latency, measure_latency
from onnxtrim.bench.latency_metrics import latency_metrics
from onnxtrim.bench.launches import LatencyResult, Launch, Round
from onnxtrim.bench.memory import MemoryResult, measure_memory, memory_metrics
from onnxtrim.bench.model_file import drop_cached
from tests.bench_models import save_mlp
from tests.simulated import ONE, FakeArm, Weather, feeds


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("original", "candidate"):
        (tmp_path / name).write_text("not opened by the fake")
    return tmp_path / "original", tmp_path / "candidate"


def simulate(
    monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path], weather: Weather, **numbers: Any
) -> LatencyResult:
    monkeypatch.setattr(FakeArm, "weather", weather, raising=False)
    monkeypatch.setattr(latency, "Arm", FakeArm)
    return compare_latency(*paths, feeds(), ONE, Protocol(**numbers))


def test_order_is_abba_or_baab(monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path]) -> None:
    weather = Weather(0, ratio=1.0)
    result = simulate(monkeypatch, paths, weather, launches=4, rounds=24, seed=3)
    short = "".join("A" if name == "original" else "B" for name in weather.turns)
    blocks = {short[i : i + 4] for i in range(0, len(short), 4)}
    assert blocks == {"ABBA", "BAAB"}
    assert len(short) == 4 * 24 * 2
    assert {launch.order for launch in result.launches} == {(0, 1), (1, 0)}
    assert len({launch.pads for launch in result.launches}) == 4
    again = simulate(monkeypatch, paths, Weather(9, ratio=1.0), launches=4, rounds=24, seed=3)
    assert [k.order for k in again.launches] == [k.order for k in result.launches]
    assert result.wait_share() == pytest.approx(0.25, abs=1e-3)
    assert result.to_json()["rounds"] == [24] * 4


def test_no_launch_is_begun_after_a_time(
    monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path]
) -> None:
    """Two are made in any case, or there would be no interval."""
    monkeypatch.setattr(FakeArm, "weather", Weather(0, ratio=1.0), raising=False)
    monkeypatch.setattr(latency, "Arm", FakeArm)
    protocol = Protocol(launches=6, rounds=2)
    for until, made in ((0.0, 2), (time.monotonic() + 600, 6)):
        found = compare_latency(*paths, feeds(), ONE, protocol, until=until)
        assert len(found.launches) == made


def test_cold_loads_drop_each_model_before_it_is_opened(
    monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path]
) -> None:
    dropped: list[str] = []
    monkeypatch.setattr(latency, "drop_cached", lambda model: dropped.append(Path(model).name))
    simulate(monkeypatch, paths, Weather(0, ratio=1.0), launches=3, rounds=2, copy=True, cold=True)
    assert sorted(dropped) == ["candidate"] * 3 + ["original"] * 6, "the copy's file, too"
    simulate(monkeypatch, paths, Weather(0, ratio=1.0), launches=3, rounds=2)
    assert len(dropped) == 9


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what is read from disk")
def test_a_dropped_file_is_read_from_the_disk(tmp_path: Path) -> None:
    model = save_mlp(tmp_path / "m.onnx", [256, 512, 64])

    def from_disk(path: Path) -> int:
        before = re.search(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())
        path.read_bytes()
        after = re.search(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())
        assert before is not None
        assert after is not None
        return int(after[1]) - int(before[1])

    other = tmp_path / "other"
    other.write_bytes(model.read_bytes())
    with other.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if from_disk(other) == 0:
        pytest.skip("this file system keeps its files in memory")
    from_disk(model)
    assert from_disk(model) == 0, "it is in the page cache"
    drop_cached(model)
    assert from_disk(model) >= model.stat().st_size


def _exponential(sizes: list[int], seed: int) -> LatencyResult:
    """Launches with so many rounds of 10 calls of 1 ms and an exponential of 0.1 ms each."""
    rng = np.random.default_rng(seed)
    launches = []
    for size in sizes:
        rounds = []
        for turn in range(size):
            for arm in range(2):
                calls = tuple((1e6 + 1e5 * rng.exponential(size=10)).astype(int).tolist())
                rounds.append(Round(arm, float(turn), calls, (), sum(calls), sum(calls), 0, 0))
        launches.append(Launch((0, 1), (0, 0), (1.0, 1.0), (1.0, 1.0), ({}, {}), tuple(rounds)))
    return LatencyResult(tuple(launches), (10, 10), seed)


@pytest.mark.parametrize("sizes", [[24] * 12, [24] * 5 + [34] * 8])
def test_tails_of_launches_with_more_rounds_later(sizes: list[int]) -> None:
    """Rounds are raised after five launches; p99 is 1 + 0.1·ln 100 ms, in each draw its own."""
    truth = 1 + 0.1 * math.log(100)
    inside = 0
    for seed in range(12):
        metrics = latency_metrics(_exponential(sizes, seed))
        tail = metrics["latency.p99"]
        assert tail.value == pytest.approx(truth, rel=0.06)
        inside += tail.low <= truth <= tail.high
        assert metrics["latency.p99.ratio"].value == pytest.approx(1, abs=0.1)
    assert inside >= 9, "of 12 intervals of 95%"


def test_calls_per_round_are_frozen(
    monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path]
) -> None:
    weather = Weather(0, ratio=0.5, launch_sd=0.0)
    result = simulate(monkeypatch, paths, weather, launches=2, rounds=2)
    assert result.calls == (20, 40), "4 ms of 0.2 ms and of 0.1 ms"
    weather = Weather(0, ratio=0.5, launch_sd=0.0)
    weather.unit = 10_000_000
    result = simulate(monkeypatch, paths, weather, launches=2, rounds=2)
    assert result.calls == (5, 5), "at least five calls, however slow"
    assert len(result.launches[0].rounds[0].settle_ns) == 1
    weather = Weather(0, ratio=0.5, launch_sd=0.1)
    simulate(monkeypatch, paths, weather, launches=5, rounds=2)
    assert len(set(weather.asked)) == 2, "later launches are not calibrated anew"


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.05])
def test_ratio_is_found_and_swapping_inverts_it(
    monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path], ratio: float
) -> None:
    found = latency_metrics(simulate(monkeypatch, paths, Weather(1, ratio=ratio)))
    for name in ("latency.p50.ratio", "latency.p10.ratio"):
        assert found[name].value == pytest.approx(ratio, rel=0.01)
        assert found[name].low < found[name].value < found[name].high
    assert found["latency.p50.original"].value == pytest.approx(0.2, rel=0.05)
    assert found["latency.p50"].value == pytest.approx(0.2 * ratio, rel=0.05)
    assert found["load.session_create"].value == pytest.approx(10 * ratio, rel=0.02)
    assert found["load.to_first_run.original"].value == pytest.approx(11, rel=0.02)
    swapped = latency_metrics(compare_latency(paths[1], paths[0], feeds(), ONE))
    assert swapped["latency.p50.ratio"].value == pytest.approx(1 / ratio, rel=0.01)


def test_drift_hits_both_alike(monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path]) -> None:
    weather = Weather(2, ratio=1.0, launch_sd=0.0)
    weather.drift = 0.10 / (8 * 24 * 2)  # 10% over the whole session
    ratio = latency_metrics(simulate(monkeypatch, paths, weather))["latency.p50.ratio"]
    assert ratio.value == pytest.approx(1, abs=0.003)


def test_intervals_hold_the_truth(
    monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path]
) -> None:
    """A/A: at 94.5% true coverage, 8 or more misses in 60 have a probability of 2%."""
    missed = 0
    for seed in range(60):
        weather = Weather(seed, ratio=1.0)
        ratio = latency_metrics(simulate(monkeypatch, paths, weather, rounds=4, seed=seed))
        missed += not ratio["latency.p50.ratio"].low <= 1 <= ratio["latency.p50.ratio"].high
    assert missed < 8


def test_launches_are_the_sample(monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path]) -> None:
    """More rounds can't shrink the interval below what the launches differ by."""

    def width(**numbers: int) -> float:
        weather = Weather(4, ratio=1.0, launch_sd=0.02)
        found = latency_metrics(simulate(monkeypatch, paths, weather, **numbers))
        ratio = found["latency.p50.ratio"]
        return ratio.high - ratio.low

    assert width(launches=8, rounds=96) > 0.5 * width(launches=8, rounds=8)
    assert width(launches=32, rounds=8) < 0.7 * width(launches=8, rounds=8)


def test_broken_measurements_give_no_numbers(
    monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path]
) -> None:
    weather = Weather(0, ratio=1.0)
    weather.dies_after = 30
    with pytest.raises(WorkerError):
        simulate(monkeypatch, paths, weather)
    weather = Weather(0, ratio=1.0)
    weather.unit = 0
    with pytest.raises(WorkerError, match="clock does not move"):
        simulate(monkeypatch, paths, weather)
    fresh = Weather(0, ratio=1.0)
    bad: list[dict[str, Any]] = [{"launches": 1}, {"rounds": 3}, {"rounds": -2}, {"round_ms": 0.0}]
    for numbers in bad:
        with pytest.raises(InputError):
            simulate(monkeypatch, paths, fresh, **numbers)


def test_clock_that_stops_later_is_found(
    monkeypatch: pytest.MonkeyPatch, paths: tuple[Path, Path]
) -> None:
    class Stops(FakeArm):
        def ask(self, do: str, **values: Any) -> dict[str, Any]:
            answer = super().ask(do, **values)
            if do == "round" and self.weather.rounds > 10:
                answer["calls_ns"] = [0] * 5
            return answer

    Stops.weather = Weather(0, ratio=1.0)
    monkeypatch.setattr(latency, "Arm", Stops)
    with pytest.raises(WorkerError, match="clock does not move"):
        compare_latency(*paths, feeds(), ONE)


def test_real_models(tmp_path: Path) -> None:
    """A model of four times the work is found slower, one model and its copy are not far apart."""
    small = save_mlp(tmp_path / "small.onnx", [64, 256, 256, 10])
    large = save_mlp(tmp_path / "large.onnx", [64, 1024, 512, 10])
    copy = Path(shutil.copy(small, tmp_path / "copy.onnx"))
    quick = Protocol(launches=3, rounds=40, round_ms=5.0)
    slower = latency_metrics(compare_latency(small, large, feeds(), ONE, quick))
    assert slower["latency.p50.ratio"].value > 1.5
    assert slower["load.session_create"].value > 0
    steps: list[tuple[str, int, int]] = []
    same = compare_latency(
        small, copy, feeds(), ONE, quick, progress=lambda *step: steps.append(step)
    )
    assert latency_metrics(same)["latency.p50.ratio"].value == pytest.approx(1, abs=0.3)
    assert len(same.launches[2].rounds) == 80
    assert steps[-1] == ("latency", 3, 3)
    assert same.floor_ms is not None
    assert 0 < same.floor_ms < 1
    once = measure_latency(small, feeds(), ONE, Protocol(launches=2, rounds=2, round_ms=5.0))
    assert set(latency_metrics(once)) - {"latency.p99"} == {
        "latency.p10",
        "latency.p50",
        "load.session_create",
        "load.first_run",
        "load.to_first_run",
    }


def test_interrupt_ends_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def remember(*args: Any, **kwargs: Any) -> subprocess.Popen[str]:
        started.append(popen(*args, **kwargs))
        return started[-1]

    def interrupted(arm: arms.Arm, do: str, **values: Any) -> dict[str, Any]:
        if do == "round":
            raise KeyboardInterrupt
        return ask(arm, do, **values)

    ask = arms.Arm.ask
    monkeypatch.setattr(subprocess, "Popen", remember)
    monkeypatch.setattr(arms.Arm, "ask", interrupted)
    model = save_mlp(tmp_path / "m.onnx", [64, 16, 4])
    with pytest.raises(KeyboardInterrupt):
        compare_latency(model, model, feeds(), ONE)
    assert len(started) == 2
    # Not only asked to end: a process in a long round would not listen.
    assert {process.poll() for process in started} == {-signal.SIGKILL}


def test_memory_of_real_models(tmp_path: Path) -> None:
    small = save_mlp(tmp_path / "small.onnx", [64, 256, 10])
    large = save_mlp(tmp_path / "large.onnx", [64, 2048, 1024, 10])  # 8.9 MB of weights
    steps: list[tuple[str, int, int]] = []
    first, second = measure_memory(
        [small, large], feeds(), ONE, repeats=2, progress=lambda *step: steps.append(step)
    )
    metrics = memory_metrics(second, first)
    assert len(first.repeats) == len(second.repeats) == 2
    assert metrics["memory.load_peak"].value > 8e6
    assert metrics["memory.run_peak.ratio"].value > 1.5
    assert metrics["memory.run_peak"].low <= metrics["memory.run_peak"].value
    assert first.repeats[0]["method"] in ("hwm", "maxrss")
    assert not first.growing
    assert len(first.repeats[0]["steady_pss"]) == 5
    assert steps[-1] == ("memory", 4, 4)
    with pytest.raises(InputError, match="repeats is 0"):
        measure_memory([small], feeds(), ONE, repeats=0)


def test_memory_intervals_span_the_repeats() -> None:
    def result(*peaks: int) -> MemoryResult:
        steady = [10 << 20, 20 << 20]
        return MemoryResult(
            tuple({"load_peak": p, "run_peak": 2 * p, "steady_pss": steady} for p in peaks)
        )

    ratio = memory_metrics(result(50, 60), result(90, 100))["memory.load_peak.ratio"]
    assert (ratio.value, ratio.low, ratio.high) == (0.6, 0.5, 60 / 90)
    assert result(1, 2).growing
    assert "memory.load_peak.ratio" not in memory_metrics(result(50), result(0))
