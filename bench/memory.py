"""Memory of a model: a fresh process each time, never together with a latency run.

All figures are above what the process had before the model, in bytes:

a. ``load_peak``: highest resident size while the session is created;
b. ``run_peak``: highest resident size in the first run (where the kernel can't restart the
   mark, in both together: ``method`` is then ``"maxrss"``, or ``"working_set"`` on Windows, in
   place of ``"hwm"``);
c. ``steady_pss``: proportional size after 10, 20, ... runs, the last of which is the metric
   ``memory.steady``; if it still rises by more than 1% per ten runs at the end, ``growing`` is
   set.

Sizes of anonymous and of file pages (mapped weights) are kept apart in ``load_split``.
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
_NAMES = ("load_peak", "run_peak", "steady")

SPREAD, SLACK = 0.02, 256 << 10
"""Share, and bytes, by which the repeats of one figure may differ."""


@dataclass(frozen=True)
class MemoryResult:
    """Memory of one model in some fresh processes.

    Attributes:
        repeats: What each process told: ``load_peak``, ``run_peak``, ``load_pss``,
            ``load_split``, ``steady_pss`` (a list) and ``method``.
    """

    repeats: tuple[dict[str, Any], ...]

    def values(self, name: str) -> list[int]:
        """One figure of all repeats: bytes; empty where the system can't tell."""
        if name == "steady":  # after the last runs
            found = [repeat["steady_pss"][-1:] for repeat in self.repeats]
            values = [max(value, 0) for last in found for value in last if value is not None]
            return values if len(values) == len(self.repeats) else []
        return [repeat[name] for repeat in self.repeats]

    @property
    def unsteady(self) -> list[str]:
        """Figures whose repeats differ by more than 2% and 256 KiB."""
        return [
            name
            for name in _NAMES
            if (values := self.values(name))
            and max(values) - min(values) > SPREAD * max(values) + SLACK
        ]

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


def memory_metrics(
    result: MemoryResult, original: MemoryResult | None = None, setting: str = ""
) -> Metrics:
    """``memory.*`` metrics of a model, or of a candidate beside its original.

    The value is the highest of the repeats; the interval runs from the lowest to the highest,
    and for a ratio from the lowest to the highest that any two repeats give.

    Args:
        result: Of the model or the candidate.
        original: Of the original.
        setting: Added to the names, for another setting than the one in use.
    """
    metrics: Metrics = {}
    for kind in _NAMES:
        name, now = f"memory.{kind}{setting}", result.values(kind)
        if not now:
            continue
        metrics[name] = Metric(max(now), min(now), max(now), "bytes")
        before = original.values(kind) if original is not None else []
        if not before:
            continue
        metrics[f"{name}.original"] = Metric(max(before), min(before), max(before), "bytes")
        if min(before) > 0:
            metrics[f"{name}.ratio"] = Metric(
                max(now) / max(before), min(now) / max(before), max(now) / min(before), "ratio"
            )
    return metrics
