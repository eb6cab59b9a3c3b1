"""Memory of a model: a fresh process each time, never together with a latency run.

All figures are above what the process had before the model, in bytes:

a. ``load_peak``: highest resident size while the session is created;
b. ``run_peak``: highest resident size in the first run (where the kernel can't restart the
   mark, in both together: ``method`` is then ``"maxrss"`` in place of ``"hwm"``);
c. ``steady_pss``: proportional size after 10, 20, ... runs; if it still rises by more than 1%
   per ten runs at the end, ``growing`` is set.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from onnxtrim.bench.arms import Arm, written_feeds
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import sha256_file
from onnxtrim.bench.results import Metric, Metrics
from onnxtrim.bench.session import Feeds, RunOptions

Progress = Callable[[str, int, int], None]

RUNS = 50
_NAMES = ("load_peak", "run_peak")


@dataclass(frozen=True)
class MemoryResult:
    """Memory of one model in some fresh processes.

    Attributes:
        repeats: What each process told: ``load_peak``, ``run_peak``, ``load_pss``,
            ``steady_pss`` (a list) and ``method``.
    """

    repeats: tuple[dict[str, Any], ...]

    def values(self, name: str) -> list[int]:
        """One figure of all repeats."""
        return [repeat[name] for repeat in self.repeats]

    @property
    def growing(self) -> bool:
        """Whether every process still grew by more than 1% in its last ten runs."""
        ends = [repeat["steady_pss"][-2:] for repeat in self.repeats]
        return all(
            len(end) == 2 and None not in end and end[1] - end[0] > 0.01 * max(end[0], 1 << 20)
            for end in ends
        )

    def to_json(self) -> dict[str, Any]:
        """All repeats, and whether memory still grows."""
        return {"repeats": list(self.repeats), "growing": self.growing}


def measure_memory(
    models: Sequence[str | os.PathLike[str]],
    feeds: Sequence[Feeds],
    options: RunOptions | None = None,
    *,
    repeats: int = 3,
    progress: Progress | None = None,
) -> list[MemoryResult]:
    """Memory of some models, taking turns, each time in a fresh process.

    Args:
        models: Their paths.
        feeds: The inputs of some runs, cycled.
        options: How to run them.
        repeats: Processes per model.
        progress: Called with ``("memory", done, total)``.

    Raises:
        InputError: ONNX Runtime refuses a model or the feeds, or ``repeats`` is below 1.
        WorkerError: A process died.
    """
    if repeats < 1:
        raise InputError(f"repeats is {repeats}; give at least 1")
    settings = (options or RunOptions()).to_json()
    found: list[list[dict[str, Any]]] = [[] for _ in models]
    total = repeats * len(models)
    for model in models:
        sha256_file(model)  # into the page cache
    with written_feeds(feeds) as path:
        for done in range(total):
            if progress is not None:
                progress("memory", done, total)
            which = done % len(models)
            model = str(models[which])
            with Arm(model) as arm:
                arm.wait_ready()
                found[which].append(
                    arm.ask("memory", model=model, feeds=path, options=settings, runs=RUNS)
                )
    if progress is not None:
        progress("memory", total, total)
    return [MemoryResult(tuple(repeats)) for repeats in found]


def memory_metrics(result: MemoryResult, original: MemoryResult | None = None) -> Metrics:
    """``memory.*`` metrics of a model, or of a candidate beside its original.

    The value is the highest of the repeats; the interval runs from the lowest to the highest,
    and for a ratio from the lowest to the highest that any two repeats give.
    """
    metrics: Metrics = {}
    for name in _NAMES:
        now = result.values(name)
        metrics[f"memory.{name}"] = Metric(max(now), min(now), max(now), "bytes")
        if original is None:
            continue
        before = original.values(name)
        metrics[f"memory.{name}.original"] = Metric(max(before), min(before), max(before), "bytes")
        if min(before) > 0:
            metrics[f"memory.{name}.ratio"] = Metric(
                max(now) / max(before), min(now) / max(before), max(now) / min(before), "ratio"
            )
    return metrics
