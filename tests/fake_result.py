"""A made-up result of a comparison, or of one model, and a judgement of it."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxtrim.bench.launches import LatencyResult, Launch, Round
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.results import Metric
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings
from onnxtrim.bench.slices import ClassCounts
from onnxtrim.bench.verdict import non_inferior

LAUNCHES = 8
CLASSES = 10
RATIO = 0.62
MACHINE = {
    "system": "Linux 6.1.0",
    "architecture": "x86_64",
    "cpu": "AMD EPYC 7B13",
    "cpu_flags": ["avx2", "fma"],
    "cpus": 2,
    "cpu_quota": None,
    "load_average": [0.3, 0.4, 0.5],
    "memory_bytes": 8_000_000_000,
    "python": "3.11.7",
    "onnxruntime": "1.32.0",
    "onnxtrim": "0.1.0",
}


@dataclass(frozen=True)
class Rule:
    """What the report needs to know of a rule."""

    metric: str
    verdict: str
    limit: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = "ratio"
    bound: float | None = None
    level: str = "error"
    why: str = ""


@dataclass(frozen=True)
class Judgement:
    """What the report needs to know of a judgement."""

    verdict: str
    words: str
    rules: Sequence[Rule]
    target: str = "laptop"
    policy: Mapping[str, str] = field(default_factory=lambda: {"source": "rules/gate.toml"})
    tried: int = 6


def judgement(verdict: str = "pass", words: str = "Pass: all 2 rules hold.") -> Judgement:
    """Rules of all verdicts."""
    return Judgement(
        verdict,
        words,
        (
            Rule("latency.p50.ratio", "pass", "≤ 0.8", 0.62, 0.615, 0.626, bound=0.8),
            Rule("model.file_bytes.ratio", "pass", "≤ 0.5", 0.25, 0.25, 0.25, bound=0.5),
            Rule("memory.run_peak.ratio", "fail", "≤ 0.7", 0.74, 0.72, 0.76, bound=0.7),
            Rule("accuracy.top1.delta", "inconclusive", "≥ -0.5", -0.2, -0.6, 0.2, "points", -0.5),
            Rule("latency.p99.ratio", "missing", "≤ 1", why="not known after 6 launches"),
            Rule("accuracy.agreement", "waived", "≥ 99%", 0.985, 0.98, 0.99, "share", 0.99, "warn"),
        ),
    )


def latency(arms: int = 3, *, ratio: float = RATIO, again: float = 1.0) -> LatencyResult:
    """Launches whose arms differ by ``ratio``, the copy by ``again``."""
    rng = np.random.default_rng(0)
    factors = (1.0, ratio, again)[:arms]
    launches = []
    for number in range(LAUNCHES):
        biases = rng.normal(0, 0.006, arms)
        rounds = []
        for turn in range(8):
            for arm, (factor, bias) in enumerate(zip(factors, biases, strict=True)):
                calls = 210_000 * factor * np.exp(bias + rng.normal(0, 0.01, 12))
                wall = int(calls.sum())
                places = (arm, number + turn / 8, tuple(map(int, calls)), (1_000_000,))
                rounds.append(Round(*places, wall, wall, 0, 0))
        every = tuple(range(arms))
        warm_up = tuple({"calls": 9, "call_ms": 0.2} for _ in every)
        create = tuple(10.0 * f for f in factors)
        launches.append(Launch(every, (0,) * arms, create, (1.0,) * arms, warm_up, tuple(rounds)))
    conditions = {"steal": 0.0, "pressure": 0.01, "frequency": None, "temperature": None}
    return LatencyResult(tuple(launches), (12,) * arms, 0, conditions, 0.004)


def measurement(*, pair: bool = True, **changes: Any) -> Measurement:
    """A comparison with everything measured, or a single model."""
    return replace(copy.deepcopy(_measurement(pair)), **changes)


@functools.cache
def _measurement(pair: bool) -> Measurement:
    settings = replace(Settings(RunOptions(1), max_drop=0.5 if pair else None, profile=True))
    metrics = _metrics()
    if not pair:
        ends = (".original", ".ratio", ".delta")
        metrics = {name: m for name, m in metrics.items() if not name.endswith(ends)}
    details: dict[str, Any] = {
        "feeds": "data",
        "data": {"name": "test.npz", "sha256": "b2" * 32, "samples": 2000},
        "profile": _profile() if pair else _single_profile(),
    }
    if pair:
        verdict = non_inferior(12, 8, 2000, 0.005)
        details["accuracy"] = {
            "samples": 2000,
            "units": 2000,
            "losses": 12,
            "gains": 8,
            "relative_error": 0.0312,
            "classes": _classes(),
            "verdict": verdict.to_json(),
        }
    found = Measurement(
        metrics=metrics,
        model={"path": "models/small.onnx", "sha256": "c3" * 32},
        original={"path": "models/large.onnx", "sha256": "3f" * 32} if pair else None,
        settings=settings.to_json() | {"threads": 1},
        machine=MACHINE,
        details=details,
        warnings=("memory of the model still grows after 50 runs",),
        latency=None,
        verdict=verdict if pair else None,
    )
    return found.with_latency(latency(3 if pair else 1))


def _metrics() -> dict[str, Metric]:
    metrics = {
        "model.file_bytes": Metric.exact(1_462_000, "bytes"),
        "model.file_bytes.original": Metric.exact(5_855_000, "bytes"),
        "model.file_bytes.ratio": Metric.exact(0.2497, "ratio"),
        "accuracy.top1": Metric(0.882, 0.867, 0.896, "share"),
        "accuracy.top1.original": Metric(0.884, 0.869, 0.898, "share"),
        "accuracy.top1.delta": Metric(-0.2, -0.66, 0.24, "points"),
        "accuracy.agreement": Metric(0.985, 0.979, 0.99, "share"),
        "accuracy.negative_flip_rate": Metric(0.006, 0.003, 0.0105, "share"),
        "accuracy.mcnemar_p": Metric.exact(0.503, "share"),
    }
    pairs = (
        ("memory.run_peak", "bytes", 8.1e6, 11e6, 0.02),
        ("memory.steady", "bytes", 6.2e6, 8.8e6, 0.03),
        ("memory.run_peak.arena_off", "bytes", 6.0e6, 8.8e6, 0.02),
        ("throughput.1x8", "samples/s", 12_400.0, 7_900.0, 0.015),
        ("throughput.1x8.cpu", "s/sample", 8.1e-5, 12.7e-5, 0.015),
    )
    for name, unit, now, before, spread in pairs:
        ratio = now / before
        for suffix, value, kind in (("", now, unit), (".original", before, unit)):
            metrics[name + suffix] = Metric(value, value * (1 - spread), value * (1 + spread), kind)
        low, high = (ratio * math.exp(sign * 1.5 * spread) for sign in (-1, 1))
        metrics[f"{name}.ratio"] = Metric(ratio, low, high, "ratio")
    return metrics


def _classes() -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    counts = ClassCounts()
    labels = np.repeat(np.arange(CLASSES), 200)
    first = rng.random(2000) < 0.884
    second = first ^ (rng.random(2000) < 0.01 * (1 + labels / 4))
    counts.add(labels, first, second, CLASSES)
    return counts.to_json(independent=True)


def _layer(share: float, channels: list[int], macs: int) -> dict[str, Any]:
    return {
        "kernel": "Conv NCHWc",
        "share": share,
        "median_us": 100 * share,
        "calls": 1.0,
        "channels": channels,
        "shape": [1, channels[1], 8, 8],
        "macs": macs,
    }


def _profile() -> dict[str, Any]:
    layers = []
    for number, (before, after) in enumerate(((0.4, 0.3), (0.3, 0.35), (0.2, 0.25), (0.05, 0.05))):
        layers.append(
            {
                "name": f"/features/{number}/conv",
                "operator": "Conv",
                "original": _layer(before, [32, 64], 1_000_000),
                "candidate": _layer(after, [32, 41], 640_000),
                "channels": [64, 41],
                "macs_ratio": 0.64,
                "time_ratio": RATIO * after / before,
                "reason": (None, "alignment", "not_pruned", "unexplained")[number],
            }
        )
    return {
        "runs": {"original": 30, "candidate": 30},
        "block": 8,
        "scaled_by": "latency.p50.ratio",
        "layers": layers,
        "others": [
            {"name": None, "operator": "ReorderOutput", "original": 0.05, "candidate": 0.04}
        ],
    }


def _single_profile() -> dict[str, Any]:
    layer = _layer(0.9, [32, 64], 1_000_000)
    return {
        "runs": 30,
        "layers": [{"name": "/features/0/conv", "operator": "Conv", **layer}],
        "others": [{"name": None, "operator": "ReorderOutput", "share": 0.1}],
    }
