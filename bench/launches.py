"""What a latency run measured, and the metrics that follow from it.

The launch is the unit: each gives one value, and intervals are over launches. What was measured
never changes; every figure is a function of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxtrim.bench.results import Metric, Metrics
from onnxtrim.bench.stats import yuen_interval


@dataclass(frozen=True)
class Round:
    """One turn of one process.

    Attributes:
        arm: 0 for the original (or only) model, 1 for the candidate.
        calls_ns: Duration of each call that counts.
        settle_ns: Calls before them, which refill the caches; in no statistic.
        wall_ns: From the first counted call to the last.
        cpu_ns: CPU time of the process meanwhile.
        wait_ns: Time that it was runnable without a CPU; ``None`` where the system can't tell.
        switches: Involuntary context switches.
    """

    arm: int
    calls_ns: tuple[int, ...]
    settle_ns: tuple[int, ...]
    wall_ns: int
    cpu_ns: int
    wait_ns: int | None
    switches: int

    def log_quantile(self, share: float) -> float:
        """Logarithm of a quantile of the calls, in ms."""
        return math.log(float(np.quantile(self.calls_ns, share)) / 1e6)


@dataclass(frozen=True)
class Launch:
    """One start of the processes and all their rounds.

    Attributes:
        order: In which order the arms were started.
        pads: Bytes by which each arm's environment was padded.
        create_ms: Time to create the session, per arm.
        first_run_ms: Time of the first run, per arm.
        warm_up: Length of the warm-up and time per call, per arm.
        rounds: In the order in which they ran; of two arms, each four are ABBA or BAAB.
    """

    order: tuple[int, ...]
    pads: tuple[int, ...]
    create_ms: tuple[float, ...]
    first_run_ms: tuple[float, ...]
    warm_up: tuple[dict[str, Any], ...]
    rounds: tuple[Round, ...]

    def median_log(self, arm: int, share: float) -> float:
        """Median over an arm's rounds of the logarithm of a quantile of the calls, in ms."""
        return float(np.median([r.log_quantile(share) for r in self.rounds if r.arm == arm]))

    def log_ratio(self, share: float) -> float:
        """Median over adjacent rounds of ln(candidate / original)."""
        pairs = zip(self.rounds[::2], self.rounds[1::2], strict=True)
        return float(
            np.median(
                [
                    (b.log_quantile(share) - a.log_quantile(share)) * (b.arm - a.arm)
                    for a, b in pairs
                ]
            )
        )


@dataclass(frozen=True)
class LatencyResult:
    """What was measured; everything else is computed from the launches.

    Attributes:
        launches: The sample.
        calls: Calls per round and arm, fixed after the first warm-up.
        seed: Of the orders and paddings.
    """

    launches: tuple[Launch, ...]
    calls: tuple[int, ...]
    seed: int

    def metrics(self) -> Metrics:
        """``latency.*`` and ``load.*``; 95% intervals over launches, on the log scale."""
        two = len(self.calls) == 2
        metrics: Metrics = {}
        for arm, suffix in ((1, ""), (0, ".original")) if two else ((0, ""),):
            p50 = [launch.median_log(arm, 0.5) for launch in self.launches]
            metrics[f"latency.p50{suffix}"] = _metric(p50, "ms")
            for name, values in self._load(arm).items():
                metrics[f"load.{name}{suffix}"] = _metric([math.log(v) for v in values], "ms")
        if two:
            for name, share in (("p50", 0.5), ("p10", 0.1)):
                ratios = [launch.log_ratio(share) for launch in self.launches]
                metrics[f"latency.{name}.ratio"] = _metric(ratios, "ratio")
        return metrics

    def wait_share(self) -> float | None:
        """Median share of a round spent waiting for a CPU; ``None`` where it can't be read."""
        shares = [
            r.wait_ns / r.wall_ns
            for launch in self.launches
            for r in launch.rounds
            if r.wait_ns is not None
        ]
        return float(np.median(shares)) if shares else None

    def to_json(self) -> dict[str, Any]:
        """Launch values and conditions; the single calls stay in ``launches``."""
        arms = range(len(self.calls))
        value: dict[str, Any] = {
            "seed": self.seed,
            "calls_per_round": list(self.calls),
            "rounds": [len(launch.rounds) // len(arms) for launch in self.launches],
            "start_order": [list(launch.order) for launch in self.launches],
            "warm_up": [list(launch.warm_up) for launch in self.launches],
            "p50_ms": [[math.exp(k.median_log(a, 0.5)) for a in arms] for k in self.launches],
            "wait_share": self.wait_share(),
            "involuntary_switches": sum(r.switches for k in self.launches for r in k.rounds),
        }
        if len(arms) == 2:
            value["p50_ratio"] = [math.exp(k.log_ratio(0.5)) for k in self.launches]
            value["p10_ratio"] = [math.exp(k.log_ratio(0.1)) for k in self.launches]
        return value

    def _load(self, arm: int) -> dict[str, list[float]]:
        create = [launch.create_ms[arm] for launch in self.launches]
        first = [launch.first_run_ms[arm] for launch in self.launches]
        both = [c + f for c, f in zip(create, first, strict=True)]
        return {"session_create": create, "first_run": first, "to_first_run": both}


def _metric(logs: Sequence[float], unit: str) -> Metric:
    interval = yuen_interval(logs)
    return Metric(math.exp(interval.value), math.exp(interval.low), math.exp(interval.high), unit)
