"""Whether this machine can be trusted: the harness measures what is known.

One model runs in four arms in turns: as it is, once more as it is, and with a busy loop that
makes its calls 2% and 5% slower. So all that is asked has a known answer.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxtrim.bench.conditions import contention
from onnxtrim.bench.latency import PathLike, Progress, Protocol, measure_arms
from onnxtrim.bench.launches import LatencyResult
from onnxtrim.bench.looks import FAIL, LOOKS, PASS, is_beyond_tolerance, judge
from onnxtrim.bench.session import Feeds, RunOptions
from onnxtrim.bench.stats import detectable, yuen_interval

SLOWER = (0.0, 0.0, 0.02, 0.05)
"""By how much the arms are slower than the first."""

LAUNCHES, DRIFTING, NOISY = 24, 8, 16
"""Of the arms as they are, while all get slower, and beside a noisy neighbour."""

RAMP = 0.10
"""By how much all arms get slower."""

_LAYERS, _WIDTH, _BATCH = 6, 128, 48  # of the network that is measured; 0.4 MB of weights

_COPY, _SMALL, _LARGE = 1, 2, 3
_GROUP = LOOKS[0]  # launches of one interval
_FREE = 0.02  # share of what was injected: a busy loop ends a little late
_STILL = 0.003  # that a ratio may move while all arms drift alike
_BURSTS = "import os, time, random\nr, p = random.Random(0), os.getppid()\n" + (
    "while os.getppid() == p:\n"  # or it would outlive a parent that was killed
    "    end = time.perf_counter() + r.uniform(0.05, 0.8)\n"
    "    while time.perf_counter() < end:\n        sum(range(1000))\n"
    "    time.sleep(r.uniform(0.05, 0.8))\n"
)


@dataclass(frozen=True)
class Check:
    """One question with a known answer.

    Attributes:
        name: What is asked.
        passed: Whether the answer was right.
        told: What was found, in words.
    """

    name: str
    passed: bool
    told: str


@dataclass(frozen=True)
class SelfCheck:
    """What the checks say.

    Attributes:
        checks: All of them.
        half_width: Of the interval of eight launches, as a share.
        effect: The ratio that eight launches find in 80% of cases, minus 1.
        busy: Why the machine counts as busy, or ``None``.
    """

    checks: tuple[Check, ...]
    half_width: float
    effect: float
    busy: str | None

    @property
    def passed(self) -> bool:
        """Whether all answers were right."""
        return all(check.passed for check in self.checks)

    def trusted(self, share: float) -> bool:
        """Whether verdicts on limits as near as ``share`` can be decided here."""
        return self.passed and self.effect <= share

    def to_json(self) -> dict[str, Any]:
        """``onnxtrim.selfcheck/1``."""
        return {
            "schema": "onnxtrim.selfcheck/1",
            "passed": self.passed,
            "trusted": {"2%": self.trusted(0.02), "5%": self.trusted(0.05)},
            "half_width": self.half_width,
            "smallest_effect": self.effect,
            "busy": self.busy,
            "checks": [vars(check) for check in self.checks],
        }


def reference_model(
    path: str | os.PathLike[str], extra: int = 0, width: int = _WIDTH, batch: int = _BATCH
) -> list[Feeds]:
    """Write a small network, 0.1 to 0.3 ms a call.

    Its weights fit in the nearest caches, so that the harness is checked and not what neighbours
    do to the memory.

    Args:
        path: Where to.
        extra: Rank of one layer more, of two thin products; 0 for none.
        width: Of every layer.
        batch: Samples per call.

    Returns:
        Feeds for it.
    """
    from onnx import TensorProto, helper, numpy_helper, save_model

    rng = np.random.default_rng(0)
    shapes = [(width, width)] * _LAYERS + ([(width, extra), (extra, width)] if extra else [])
    nodes, weights = [], []
    for layer, shape in enumerate(shapes):
        weight = rng.standard_normal(shape).astype(np.float32) / np.float32(shape[0] ** 0.5)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"y{layer}"]))
        nodes.append(helper.make_node("Relu", [f"y{layer}"], [f"x{layer + 1}"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, width])
        for name in ("x0", f"x{len(shapes)}")
    ]
    graph = helper.make_graph(nodes, "reference", ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", 13)]
    save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return [{"x0": rng.standard_normal((batch, width)).astype(np.float32)} for _ in range(8)]


def run_selfcheck(
    model: PathLike,
    feeds: Sequence[Feeds],
    options: RunOptions | None = None,
    *,
    rounds: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> SelfCheck:
    """Measure what is known, in two to five minutes.

    Args:
        model: Any model; a call of 0.1 to 1 ms shows most.
        feeds: Inputs of some runs.
        options: How to run it.
        rounds: Of each arm and launch, as of :class:`.Protocol`.
        seed: Of the orders.
        progress: Called with what is being done, how much is done, and the total.

    Raises:
        InputError: The model can't be run.
        WorkerError: A process died, or the clock does not move.
    """

    def measure(word: str, launches: int, slower: Sequence[float], ramp: float) -> LatencyResult:
        def told(_: str, done: int, total: int) -> None:
            if progress is not None:
                progress(word, done, total)

        protocol = Protocol(launches=launches, rounds=rounds, seed=seed)
        models = [model] * len(slower)
        return measure_arms(models, feeds, options, protocol, slower, ramp, told)

    pair = SLOWER[:2]
    found = measure("as it is", LAUNCHES, SLOWER, 0.0)
    drifting = measure("drifting", DRIFTING, pair, RAMP)
    with neighbour():
        noisy = measure("beside a neighbour", NOISY, pair, 0.0)
    return judge_arms(found, drifting, noisy)


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """A process that computes in bursts of 50 to 800 ms meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", _BURSTS])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def judge_arms(found: LatencyResult, drifting: LatencyResult, noisy: LatencyResult) -> SelfCheck:
    """Compare what was found with what is known."""
    logs = {arm: found.logs(0.5, arm) for arm in (_COPY, _SMALL, _LARGE)}
    groups = {arm: _groups(values) for arm, values in logs.items()}
    spread = yuen_interval(groups[_COPY][0])
    return SelfCheck(
        checks=(
            _copies("against itself", groups[_COPY]),
            _injected(logs, _SMALL),
            _injected(logs, _LARGE),
            _verdicts(groups),
            _drift(drifting.logs(0.5, _COPY)),
            _copies("beside a neighbour", _groups(noisy.logs(0.5, _COPY))),
        ),
        half_width=math.expm1(spread.high - spread.value),
        effect=math.expm1(sum(map(detectable, groups[_COPY])) / len(groups[_COPY])),
        busy=contention(found.wait_share(), found.conditions),
    )


def _copies(name: str, groups: Sequence[Sequence[float]]) -> Check:
    """A model against itself: one of a few intervals may exclude 1, and none by much."""
    intervals = [yuen_interval(group) for group in groups]
    alarms = sum(not interval.low <= 0 <= interval.high for interval in intervals)
    far = any(map(is_beyond_tolerance, intervals))
    told = f"{alarms} of {len(groups)} intervals of a model against itself exclude 1"
    return Check(name, alarms <= 1 and not far, told)


def _injected(logs: Mapping[int, Sequence[float]], arm: int) -> Check:
    """What a busy loop added is found."""
    truth = math.log1p(SLOWER[arm])
    interval = yuen_interval(logs[arm], 0.99)
    low, high = interval.low - _FREE * truth, interval.high + _FREE * truth
    told = (
        f"{SLOWER[arm]:+.0%} found as {math.expm1(interval.value):+.2%}"
        f" [{math.expm1(interval.low):+.2%}, {math.expm1(interval.high):+.2%}]"
    )
    return Check(f"injected {SLOWER[arm]:.0%}", low <= truth <= high, told)


def _verdicts(groups: Mapping[int, Sequence[Sequence[float]]]) -> Check:
    """What is 5% slower fails a limit of 2%, and passes it when the arms are swapped."""
    slow = [judge(group, 1.02) for group in groups[_LARGE]]
    swapped = [judge([-value for value in group], 1.02) for group in groups[_LARGE]]
    right = sum(verdict is not None and verdict.verdict == FAIL for verdict in slow)
    right += sum(verdict is not None and verdict.verdict == PASS for verdict in swapped)
    told = f"5% slower against a limit of 2%, and swapped: {right} of {2 * len(slow)} right"
    return Check("verdicts", right == 2 * len(slow), told)


def _drift(logs: Sequence[float]) -> Check:
    """All arms get slower by a tenth; their ratio does not move."""
    interval = yuen_interval(logs)
    still = abs(interval.value) <= _STILL or interval.low <= 0 <= interval.high
    told = f"while all get {RAMP:.0%} slower the ratio is {math.exp(interval.value):.4f}"
    return Check("drift", still, told)


def _groups(logs: Sequence[float]) -> list[Sequence[float]]:
    return [logs[start : start + _GROUP] for start in range(0, len(logs) - _GROUP + 1, _GROUP)]
