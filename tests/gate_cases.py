"""Measurements and policies for tests of the gate, made without measuring."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from onnxtrim.bench.launches import LatencyResult, Launch, Round
from onnxtrim.bench.machine import fingerprint
from onnxtrim.bench.measurement import Measurement, memory_from_details
from onnxtrim.bench.results import Metric
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings
from onnxtrim.bench.stats import clopper_pearson, tango_interval

HEAD = "schema = 1\n[target.here]\n"


def policy(*rules: str, gate: str = "", waiver: str = "") -> str:
    """The text of a policy; each rule as its lines after ``metric =``."""
    text = "schema = 1\n" + (f"[gate]\n{gate}\n" if gate else "") + "[target.here]\nthreads = 1\n"
    for rule in rules:
        name, _, rest = rule.partition(" ")
        lines = rest.replace("; ", "\n")
        text += f'[[target.here.rule]]\nmetric = "{name}"\n{lines}\n'
    return text + waiver


def waiver(metric: str, expires: str = "2999-01-01") -> str:
    return f'[[waiver]]\nmetric = "{metric}"\nreason = "known"\nexpires = {expires}\n'


@functools.lru_cache
def latency(
    ratio: float = 0.8,
    *,
    launches: int = 24,
    spread: float = 0.003,
    copy: float = 1.0,
    base_ns: float = 1e6,
    seed: int = 0,
    wait: float = 0.0,
    with_copy: bool = True,
    drift: float = 0.0,
) -> LatencyResult:
    """Launches whose ratios have this centre and spread."""
    rng = np.random.default_rng(seed)
    arms = 3 if with_copy else 2
    made = []
    for number in range(launches):
        rounds = []
        for turn in range(2):
            level = base_ns * (1 + drift * number)
            for arm, factor in list(enumerate((1.0, ratio, copy)))[:arms]:
                noise = np.exp(rng.normal(0, spread)) if arm else 1.0
                call = max(1, round(level * factor * noise))
                parts = (call, call + 1, call + 2)
                wall = sum(parts)
                rounds.append(
                    Round(arm, 2.0 * number + turn, parts, (call,), wall, wall, int(wait * wall), 0)
                )
        made.append(
            Launch(
                tuple(range(arms)),
                (0,) * arms,
                tuple(float(10 * f) for f in (1.0, ratio, copy)[:arms]),
                (1.0,) * arms,
                ({"calls": 20, "seconds": 0.25, "call_ms": base_ns / 1e6},) * arms,
                tuple(rounds),
            )
        )
    return LatencyResult(tuple(made), (3,) * arms, seed, planned=launches in (8, 12, 18, 24))


def repeats(*peaks: int, method: str = "hwm") -> dict[str, Any]:
    return {
        "repeats": [
            {
                "load_peak": peak,
                "run_peak": peak,
                "load_pss": peak,
                "load_split": [peak, 0],
                "steady_pss": [peak] * 5,
                "method": method,
            }
            for peak in peaks
        ],
        "growing": False,
    }


def measurement(
    ratio: float | None = 0.8,
    *,
    losses: int = 10,
    gains: int = 10,
    samples: int = 10_000,
    right: int = 9_000,
    peaks: tuple[int, ...] = (50 << 20, 50 << 20, 50 << 20),
    original_peaks: tuple[int, ...] = (60 << 20, 60 << 20, 60 << 20),
    file_ratio: float = 0.5,
    details: dict[str, Any] | None = None,
    method: str = "hwm",
    **launches: Any,
) -> Measurement:
    """A pair: faster, smaller and as accurate, unless something else is said.

    Of 500 samples of class 0 it loses and gains 2, of as many of class 1 it loses 50.
    """
    delta = tango_interval(losses, gains, samples)
    told: dict[str, Any] = {
        "memory": {
            "model": repeats(*peaks, method=method),
            "original": repeats(*original_peaks, method=method),
        },
        "accuracy": {
            "samples": samples,
            "units": samples,
            "losses": losses,
            "gains": gains,
            "classes": [
                {"class": 0, "samples": 500, "losses": 2, "gains": 2},
                {"class": 1, "samples": 500, "losses": 50, "gains": 0},
            ],
        },
        "data": {"name": "test.npz", "sha256": "d" * 64, "samples": samples},
        **(details or {}),
    }
    before = right - gains + losses
    metrics = {
        "model.file_bytes": Metric.exact(1000 * file_ratio, "bytes"),
        "model.file_bytes.original": Metric.exact(1000, "bytes"),
        "model.file_bytes.ratio": Metric.exact(file_ratio, "ratio"),
        "accuracy.top1": Metric(*clopper_pearson(right, samples), "share"),
        "accuracy.top1.original": Metric(*clopper_pearson(before, samples), "share"),
        "accuracy.top1.delta": Metric(
            100 * delta.value, 100 * delta.low, 100 * delta.high, "points"
        ),
        "accuracy.negative_flip_rate": Metric(*clopper_pearson(losses, samples), "share"),
        "accuracy.agreement": Metric(*clopper_pearson(samples - 30, samples), "share"),
        "accuracy.mcnemar_p": Metric.exact(0.5, "share"),
    }
    metrics |= memory_from_details(told, arena=True)
    found = Measurement(
        metrics=metrics,
        model={"path": "small.onnx", "sha256": "b" * 64},
        original={"path": "model.onnx", "sha256": "a" * 64},
        settings=Settings(RunOptions(1)).to_json(),
        machine=fingerprint(),
        details=told,
        warnings=(),
        latency=None,
    )
    return found if ratio is None else found.with_latency(latency(ratio, **launches))
