"""Throughput: samples per second of some threads that call one session, in turns.

The protocol is that of latency: fresh processes per launch, the launch as the unit, rounds in a
random order and the same backwards. A round is longer, for it holds calls of several threads. CPU
seconds per sample stand beside: a model that wins by burning more cores is seen.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from onnxtrim.bench.arms import Arm, patience, written_feeds
from onnxtrim.bench.errors import WorkerError
from onnxtrim.bench.results import Metric, Metrics
from onnxtrim.bench.session import Feeds, RunOptions

Progress = Callable[[str, int, int], None]
PathLike = Union[str, "os.PathLike[str]"]

ROUND_SECONDS = 0.2
MIN_CALLS = 5  # of each thread in a round
ROUNDS = 4  # of each model, setting and launch

Cell = tuple[int, int]
"""Threads that call at once, and samples per call."""


@dataclass(frozen=True)
class ThroughputResult:
    """What was measured.

    Attributes:
        cells: Threads and samples per call of each setting.
        launches: For each launch, setting and arm (the original last): samples per second and
            CPU seconds per sample, medians of the rounds.
    """

    cells: tuple[Cell, ...]
    launches: tuple[tuple[tuple[tuple[float, float], ...], ...], ...]

    def metrics(self, confidence: float = 0.95) -> Metrics:
        """``throughput.<threads>x<batch>`` and ``throughput.<threads>x<batch>.cpu``, and ratios.

        Intervals over launches, on the log scale.
        """
        metrics: Metrics = {}
        for place, (threads, batch) in enumerate(self.cells):
            name = f"throughput.{threads}x{batch}"
            logs = np.log([launch[place] for launch in self.launches])  # (launches, arms, 2)
            for kind, suffix, unit in ((0, "", "samples/s"), (1, ".cpu", "s/sample")):
                values = logs[:, :, kind]
                metrics[f"{name}{suffix}"] = Metric.of_logs(values[:, 0].tolist(), unit, confidence)
                if values.shape[1] > 1:
                    metrics[f"{name}{suffix}.original"] = Metric.of_logs(
                        values[:, 1].tolist(), unit, confidence
                    )
                    ratio = values[:, 0] - values[:, 1]
                    metrics[f"{name}{suffix}.ratio"] = Metric.of_logs(
                        ratio.tolist(), "ratio", confidence
                    )
        return metrics

    def to_json(self) -> dict[str, Any]:
        """All launch values."""
        return {"cells": [list(cell) for cell in self.cells], "launches": self.launches}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ThroughputResult:
        """What :meth:`to_json` wrote."""
        cells = tuple((int(threads), int(batch)) for threads, batch in value["cells"])
        launches = tuple(
            tuple(tuple((float(a), float(b)) for a, b in cell) for cell in launch)
            for launch in value["launches"]
        )
        return cls(cells, launches)


def measure_throughput(
    models: Sequence[PathLike],
    feeds: Mapping[int, Sequence[Feeds]],
    threads: Sequence[int],
    options: RunOptions | None = None,
    *,
    launches: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
    until: float | None = None,
) -> ThroughputResult:
    """Measure all settings of threads and samples per call.

    Args:
        models: ``[model]`` or ``[candidate, original]``.
        feeds: For each number of samples per call some inputs.
        threads: Numbers of threads that call one session at once; the session itself has one.
        options: How to run the models.
        launches: Fresh starts.
        seed: Of the orders and paddings.
        progress: Called with ``("throughput", done, total)`` after each launch.
        until: As of :func:`.compare_latency`.

    Raises:
        InputError: ONNX Runtime refuses a model or the feeds.
        WorkerError: A process died, or the clock does not move.
    """
    # Threads must not share the bindings of a call.
    told = {**(options or RunOptions()).to_json(), "threads": 1, "plain": True}
    cells = tuple((count, batch) for count in threads for batch in feeds)
    generator = random.Random(seed)
    done = []
    with contextlib.ExitStack() as stack:
        paths = {batch: stack.enter_context(written_feeds(some)) for batch, some in feeds.items()}
        for number in range(launches):
            if until is not None and number > 1 and time.monotonic() > until:
                break
            if progress is not None:
                progress("throughput", number, launches)
            done.append(_launch([str(model) for model in models], cells, paths, told, generator))
    if progress is not None:
        progress("throughput", launches, launches)
    return ThroughputResult(cells, tuple(done))


def _launch(
    models: list[str],
    cells: Sequence[Cell],
    paths: Mapping[int, str],
    options: dict[str, Any],
    generator: random.Random,
) -> tuple[tuple[tuple[float, float], ...], ...]:
    found = []
    with contextlib.ExitStack() as stack:
        order = generator.sample(range(len(models)), len(models))
        arms = {i: stack.enter_context(Arm(models[i], generator.randrange(4096))) for i in order}
        for arm in arms.values():
            arm.wait_ready()
        for threads, batch in cells:
            seconds = {}
            for i in order:
                arms[i].ask("open", model=models[i], feeds=paths[batch], options=options)
                call_ms = arms[i].ask("warm_up")["call_ms"]
                seconds[i] = max(ROUND_SECONDS, MIN_CALLS * call_ms / 1000)
            rounds: dict[int, list[tuple[float, float]]] = {i: [] for i in order}
            for _ in range(ROUNDS // 2):
                first = generator.sample(range(len(models)), len(models))
                for i in (*first, *reversed(first)):
                    rounds[i].append(_round(arms[i], threads, batch, seconds[i]))
            medians = [np.median(rounds[i], axis=0) for i in range(len(models))]
            found.append(tuple((float(rate), float(cpu)) for rate, cpu in medians))
    return tuple(found)


def _round(arm: Arm, threads: int, batch: int, seconds: float) -> tuple[float, float]:
    """Samples per second, and CPU seconds per sample."""
    limit = patience(1, 1000 * seconds)
    answer = arm.ask("throughput", seconds=limit, clients=threads, length=seconds)
    if answer["wall_ns"] <= 0 or answer["calls"] <= 0:
        raise WorkerError(f"{arm.model}: the clock does not move between calls")
    samples = answer["calls"] * batch
    return 1e9 * samples / answer["wall_ns"], max(answer["cpu_ns"], 1) / 1e9 / samples
