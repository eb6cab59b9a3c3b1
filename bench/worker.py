"""A measuring process: one model, commands as JSON lines on stdin, answers on stdout.

Run by :mod:`onnxtrim.bench.arms`; imports numpy and
ONNX Runtime only. While it is another process's turn it sleeps in ``read()``.

Commands: ``{"do": "open" | "warm_up" | "floor" | "round" | "throughput" | "memory" | "profile",
...}``; the arguments are those of the methods of :class:`Worker` with these names, the answers
what they return. A failure is ``{"error": <one line>, "input": <whether the user's input is to
blame>}``. End of input ends the process.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxtrim.bench.conditions import EnergyCounter
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.process import (
    ProcessMemory,
    anonymous_and_file,
    involuntary_switches,
    proportional,
    run_queue_wait,
)

MIN_WARM_CALLS = 3
MIN_WARM_SECONDS = 0.25
MAX_WARM_SECONDS = 2.0
FLOOR_CALLS = 400
LATE_STEP = 20  # ns by which the expected lateness of a busy loop follows the last one
STEADY = 0.05  # medians of the last ten calls and the ten before agree within this


IDENTITY = (
    b'\x08\x07:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""A model whose output y is its input x, one float32: onnx, which could make it, is not here."""


class Worker:
    """The model, its feeds and the methods that measure it."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []
        self._position = 0
        self._feeds: list[dict[str, Any]] = []  # bound arrays must stay alive
        self._energy = EnergyCounter()
        self._due = 0.0
        self._late = 0.0  # ns by which a busy loop ends late

    def open(self, model: str, feeds: str, options: dict[str, Any]) -> dict[str, Any]:
        """Open the model and run it once; both timed, in ms."""
        from onnxtrim.bench.session import RunOptions, open_session

        settings = RunOptions(**options)
        self._feeds = samples = _load_feeds(feeds)
        start = time.perf_counter_ns()
        session = open_session(model, settings)
        created = time.perf_counter_ns()
        prepared = _plain_calls if settings.plain else _bound_calls
        self._calls = list(prepared(session, samples[:1]))
        bound = time.perf_counter_ns()
        _first_call(self._calls[0], model)
        ran = time.perf_counter_ns()
        self._calls += prepared(session, samples[1:])
        return {"create_ms": (created - start) / 1e6, "first_run_ms": (ran - bound) / 1e6}

    def warm_up(self) -> dict[str, Any]:
        """Call until the time per call is steady, for 0.25 to 2 s; tells how long it took."""
        gc.collect()
        gc.disable()
        times: list[int] = []
        begin = time.perf_counter()
        while True:
            times.append(self._timed_call())
            seconds = time.perf_counter() - begin
            enough = len(times) >= MIN_WARM_CALLS and seconds >= MIN_WARM_SECONDS
            if enough and (seconds >= MAX_WARM_SECONDS or _is_steady(times)):
                break
            if time.perf_counter() <= begin and len(times) >= 1000:
                break  # a clock that stands still; the parent finds zeros and says so
        call_ms = statistics.median(times[-20:]) / 1e6
        return {"calls": len(times), "seconds": seconds, "call_ms": call_ms}

    def floor(self, options: dict[str, Any]) -> dict[str, Any]:
        """Time per call of a model that only copies one number, in ms."""
        from onnxtrim.bench.session import RunOptions, open_session

        settings = RunOptions(**options)
        session = open_session(IDENTITY, settings)
        prepared = _plain_calls if settings.plain else _bound_calls
        (call,) = prepared(session, [{"x": np.zeros(1, np.float32)}])
        times = []
        for _ in range(FLOOR_CALLS):
            start = time.perf_counter_ns()
            call()
            times.append(time.perf_counter_ns() - start)
        return {"floor_ms": statistics.median(times[FLOOR_CALLS // 2 :]) / 1e6}

    def round(
        self,
        calls: int,
        settle: int,
        first: int,
        pause: float = 0.0,
        slower: float = 0.0,
    ) -> dict[str, Any]:
        """One turn: ``settle`` calls to refill the caches, then ``calls`` calls.

        Args:
            calls: Calls that count.
            settle: Calls before them.
            first: Which of the feeds comes first; they are cycled.
            pause: Seconds from the start of one call to the start of the next, at least.
            slower: Share by which a busy loop prolongs every call, to check the harness.
        """
        self._position = first
        settle_ns = [self._timed_call(pause, slower) for _ in range(settle)]
        energy = self._energy.read()
        wait, switches, cpu = run_queue_wait(), involuntary_switches(), time.process_time_ns()
        begin = time.perf_counter_ns()
        calls_ns = [self._timed_call(pause, slower) for _ in range(calls)]
        wall = time.perf_counter_ns() - begin
        cpu, wait_after = time.process_time_ns() - cpu, run_queue_wait()
        return {
            "settle_ns": settle_ns,
            "calls_ns": calls_ns,
            "wall_ns": wall,
            "cpu_ns": cpu,
            "wait_ns": None if wait is None or wait_after is None else wait_after - wait,
            "switches": involuntary_switches() - switches,
            "joules": self._energy.since(energy),
        }

    def throughput(self, clients: int, length: float) -> dict[str, Any]:
        """So many threads call one after another for so many seconds; calls that ended count."""
        counts = [0] * clients
        begin = time.perf_counter()

        def work(client: int) -> None:
            place = client
            while time.perf_counter() - begin < length:
                self._calls[place % len(self._calls)]()
                place += clients
                counts[client] += 1

        threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
        cpu, start = time.process_time_ns(), time.perf_counter_ns()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {
            "calls": sum(counts),
            "wall_ns": time.perf_counter_ns() - start,
            "cpu_ns": time.process_time_ns() - cpu,
        }

    def memory(self, model: str, feeds: str, options: dict[str, Any], runs: int) -> dict[str, Any]:
        """Memory above what the process had before the model, in bytes; see ``bench.memory``."""
        from onnxtrim.bench.session import RunOptions, open_session

        settings = RunOptions(**options)
        samples = _load_feeds(feeds)
        gc.collect()
        memory = ProcessMemory()
        memory.reset()
        rss, pss, split = memory.resident(), proportional(), anonymous_and_file()
        session = open_session(model, settings)
        load_peak, load_pss = memory.peak() - rss, _grown(pss)
        load_split = [
            None if a is None or b is None else b - a for a, b in zip(split, anonymous_and_file())
        ]
        memory.reset()
        calls = list(_bound_calls(session, samples[:1]))
        _first_call(calls[0], model)
        run_peak = memory.peak() - rss
        calls += _bound_calls(session, samples[1:])
        steady = []
        for index in range(runs):
            calls[index % len(calls)]()
            if (index + 1) % 10 == 0:
                steady.append(_grown(pss))
        return {
            "load_peak": max(load_peak, 0),
            "run_peak": max(run_peak, 0),
            "load_pss": load_pss,
            "load_split": load_split,
            "steady_pss": steady,
            "method": memory.method,
        }

    def profile(
        self,
        model: str,
        feeds: str,
        options: dict[str, Any],
        folder: str,
        runs: int,
        copy: str | None = None,
    ) -> dict[str, Any]:
        """Kernel times of the nodes; see ``bench.profiler``."""
        from onnxtrim.bench.profiler import profile_nodes
        from onnxtrim.bench.session import RunOptions

        settings = RunOptions(**options)
        return profile_nodes(model, _load_feeds(feeds), settings, Path(folder), runs, copy)

    def _timed_call(self, pause: float = 0.0, slower: float = 0.0) -> int:
        call = self._calls[self._position % len(self._calls)]
        self._position += 1
        if pause:
            self._sleep_until_due(pause)
        start = time.perf_counter_ns()
        call()
        if slower:
            due = start + (1 + slower) * (time.perf_counter_ns() - start)
            _compute_until(due - self._late)
        end = time.perf_counter_ns()
        if slower:  # half of the loops end late, half early
            self._late += LATE_STEP if end > due else -LATE_STEP
        return end - start

    def _sleep_until_due(self, pause: float) -> None:
        """Sleep until the next call is due; a late one does not hasten those after it."""
        now = time.perf_counter()
        self._due = max(self._due, now)
        time.sleep(self._due - now)
        self._due += pause


def _compute_until(end: float) -> None:
    while time.perf_counter_ns() < end:
        pass


def _load_feeds(path: str) -> list[dict[str, Any]]:
    """Feeds as :func:`onnxtrim.bench.arms.write_feeds` wrote them: arrays ``<sample>:<name>``."""
    samples: dict[int, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            index, _, name = key.partition(":")
            samples.setdefault(int(index), {})[name] = archive[key]
    return [samples[index] for index in sorted(samples)]


def _bound_calls(session: Any, samples: list[dict[str, Any]]) -> Iterator[Callable[[], None]]:
    """One function per sample that runs it; the arrays are bound once, outside the timer."""
    for feeds in samples:
        binding = session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for output in session.get_outputs():
            binding.bind_output(output.name)
        yield functools.partial(session.run_with_iobinding, binding)


def _plain_calls(session: Any, samples: list[dict[str, Any]]) -> Iterator[Callable[[], None]]:
    """One function per sample that runs it as most programs do."""
    for feeds in samples:
        yield functools.partial(session.run, None, feeds)


def _first_call(call: Callable[[], None], model: str) -> None:
    try:
        call()
    except Exception as error:  # ORT's exceptions have no common base
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{model}: can't run on these inputs: {reason}") from error


def _is_steady(times: list[int]) -> bool:
    if len(times) < 20:
        return False
    last, before = statistics.median(times[-10:]), statistics.median(times[-20:-10])
    return abs(last - before) < STEADY * before


def _grown(before: int | None) -> int | None:
    now = proportional()
    return None if before is None or now is None else now - before


def _answer(worker: Worker, line: str) -> dict[str, Any]:
    try:
        command = json.loads(line)
        method = getattr(worker, command.pop("do"))
        return method(**command)  # type: ignore[no-any-return]
    except InputError as error:
        return {"error": str(error), "input": True}
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return {"error": reason, "input": False}


def _claim_stdout() -> IO[str]:
    """Keep stdout for answers alone: whatever else is printed goes to stderr from here on."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def main() -> None:
    """Answer commands until the input ends."""
    channel = _claim_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    import onnxruntime  # noqa: F401  (its time must not be in the first command's)

    worker = Worker()
    channel.write('{"ready": true}\n')
    channel.flush()
    for line in sys.stdin:
        channel.write(json.dumps(_answer(worker, line)) + "\n")
        channel.flush()
