"""What a process takes, on systems that tell more or less; others than this one are faked."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxtrim.bench import arms, process
from onnxtrim.bench.arms import Arm
from onnxtrim.bench.errors import WorkerError
from onnxtrim.bench.latency import Protocol, compare_latency
from onnxtrim.bench.machine import affinity_count
from onnxtrim.bench.memory import measure_memory, memory_metrics
from tests.bench_models import save_mlp
from tests.simulated import ONE, feeds


@pytest.fixture
def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "Path", lambda path: Path("/no/such/folder" + path))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_linux() -> None:
    memory = process.ProcessMemory()
    memory.reset()
    before = memory.resident()
    block = b"x" * (32 << 20)
    assert memory.peak() - before >= 30 << 20
    del block
    memory.reset()
    assert memory.peak() - before < 16 << 20, "the mark is set anew"
    assert memory.method == "hwm"
    assert (process.proportional() or 0) > 0
    assert process.run_queue_wait() is not None


def test_macos(monkeypatch: pytest.MonkeyPatch, without_proc: None) -> None:
    """The highest of the whole process, in bytes and not in kilobytes."""
    linux = process.ProcessMemory().peak()
    monkeypatch.setattr(sys, "platform", "darwin")
    memory = process.ProcessMemory()
    memory.reset()
    assert memory.method == "maxrss"
    assert memory.peak() == pytest.approx(linux // 1024, rel=0.01)
    assert memory.resident() == pytest.approx(linux // 1024, rel=0.01)
    assert process.proportional() is None
    assert process.anonymous_and_file() == [None, None]
    assert process.run_queue_wait() is None
    assert process.involuntary_switches() >= 0


def _kernel(works: bool) -> Callable[[str], Any]:
    """``ctypes.WinDLL`` of a system whose process has 5 MiB and had 9 MiB."""

    class Kernel:
        def __init__(self, name: str) -> None:
            assert name == "kernel32"

            def info(handle: int, address: int, size: int) -> int:
                counters = process._Counters.from_address(address)
                assert (handle, size, counters.cb) == (7, ctypes.sizeof(counters), size)
                counters.WorkingSetSize, counters.PeakWorkingSetSize = 5 << 20, 9 << 20
                return int(works)

            self.K32GetProcessMemoryInfo: Any = info
            self.GetCurrentProcess: Any = lambda: 7

    return Kernel


@pytest.mark.parametrize("works", [True, False])
def test_windows(monkeypatch: pytest.MonkeyPatch, without_proc: None, works: bool) -> None:
    monkeypatch.setattr(ctypes, "WinDLL", _kernel(works), raising=False)
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    memory = process.ProcessMemory()
    memory.reset()
    try:
        sizes = (memory.method, memory.resident(), memory.peak())
    except OSError as error:
        sizes, told = None, str(error)
    switches = process.involuntary_switches()
    monkeypatch.undo()
    if works:
        assert sizes == ("working_set", 5 << 20, 9 << 20)
    else:
        assert "does not tell" in told, "no figure is not 0 bytes"
    assert switches == 0


def test_pipes_that_cannot_be_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On Windows a thread reads; the measurement is the same, and deaths and delays are found."""
    monkeypatch.setattr(arms, "WAITS_FOR_PIPES", False)
    large, small = (save_mlp(tmp_path / f"{n}.onnx", [64, n, 4]) for n in (32, 16))
    found = compare_latency(large, small, feeds(), ONE, Protocol(launches=2, rounds=2))
    assert len(found.logs(0.5)) == 2
    with Arm(large) as arm:
        arm.wait_ready()
        with pytest.raises(WorkerError, match="gave no answer for 0 s"):
            arm.ask("warm_up", seconds=0)
    with Arm(large) as arm:
        arm.wait_ready()
        os.kill(arm.pid, 9)
        with pytest.raises(WorkerError, match="died"):
            arm.ask("warm_up")


def test_no_affinity_and_no_marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Elsewhere all CPUs count, and what can't be told has no metric."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert affinity_count() == os.cpu_count()
    (result,) = measure_memory([save_mlp(tmp_path / "m.onnx", [64, 8, 4])], feeds(), ONE, repeats=1)
    (repeat,) = result.repeats
    untold = {**repeat, "steady_pss": [None] * 5, "method": "maxrss"}
    metrics = memory_metrics(type(result)((untold,)))
    assert set(metrics) == {"memory.load_peak", "memory.run_peak"}
