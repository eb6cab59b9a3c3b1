"""A first policy from a measured pair, with comments."""

from __future__ import annotations

import json
import math

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate.quantity import show
from onnxtrim.bench.measurement import INDEPENDENT, Measurement
from onnxtrim.bench.results import Metric
from onnxtrim.bench.text import one_line
from onnxtrim.bench.verdict import non_inferior

_RATIOS = (
    ("latency.p50.ratio", "error", "median latency, candidate over original, in turns"),
    ("memory.run_peak.ratio", "error", "highest memory of a run, candidate over original"),
    ("memory.steady.ratio", "warn", "memory after fifty runs"),
    ("load.to_first_run.ratio", "warn", "time until the first result"),
    ("model.file_bytes.ratio", "error", "size of the file"),
)
_STEP = 0.05  # to which limits of ratios are rounded up


def draft(found: Measurement, source: str) -> str:
    """The text of a policy that such a pair passes, limits a step beyond the intervals.

    Args:
        found: A pair that is good enough.
        source: Where it came from, for the comment.

    Raises:
        InputError: The measurement is of one model, or nothing that a rule could be about.
    """
    if found.original is None:
        raise InputError(f"{source}: is of one model; 'onnxtrim compare -o' measures a pair")
    rules = [
        _ratio(name, level, about, metric)
        for name, level, about in _RATIOS
        if (metric := found.metrics.get(name)) is not None
    ]
    if (delta := found.metrics.get("accuracy.top1.delta")) is not None:
        limit = f'min = "-{_margin(found, delta):g} pp"'
        rules.append(_accuracy("accuracy.top1.delta", limit, "error", delta))
    if (flips := found.metrics.get("accuracy.negative_flip_rate")) is not None:
        most = max(0.01, math.ceil(100 * flips.high) / 100)
        limit = f'max = "{100 * most:g} %"'
        rules.append(_accuracy("accuracy.negative_flip_rate", limit, "warn", flips))
    if not rules:
        raise InputError(f"{source}: holds nothing that a rule could be about")
    options = found.settings
    hertz = float(options.get("hertz") or 0)
    scenario = (
        f'{{ paced = "{hertz:g} Hz" }}' if hertz else '"back_to_back"   # or { paced = "20 Hz" }'
    )
    head = f"""\
# A release gate of onnxtrim, drafted from {one_line(source)}. Read the limits, and change them:
# they lie a little beyond what was measured there, and only you know what is good enough.
# A rule is a claim that must be shown: what is too near to its limit is inconclusive (exit code 3),
# never passed by luck. 'onnxtrim gate plan' tells how many samples and launches that takes.

schema = 1

[gate]
alpha = 0.05                # probability of a wrong pass, per rule
on_inconclusive = "exit3"   # or "fail", or "warn"
on_missing = "fail"         # or "inconclusive"
max_duration = "10 min"     # no launch is begun after that

[target.here]
threads = {int(options.get("threads") or 1)}
batch = {int(options.get("batch") or 1)}
scenario = {scenario}
arena = {"true" if options.get("arena", True) else "false"}
provider = {json.dumps(str(options.get("provider") or "cpu"))}
"""
    return "\n".join([head, *rules])


def _margin(found: Measurement, delta: Metric) -> float:
    """The least half points that the pair passes, and that so many samples can decide."""
    margin = max(0.5, math.ceil(-2 * delta.low) / 2)
    counts = found.details.get("accuracy", {})
    losses, gains, samples = (int(counts.get(key, 0)) for key in ("losses", "gains", "samples"))
    while INDEPENDENT in found.metrics and margin < 50:
        needed = non_inferior(losses, gains, samples, margin / 100).needed
        if needed is not None and needed <= samples:
            break
        margin += 0.5
    return margin


def _ratio(name: str, level: str, about: str, metric: Metric) -> str:
    limit = _STEP * math.ceil(round(metric.high / _STEP, 6) + 0.2)
    slack = '\nslack = "256 KiB"' if name.startswith("memory.") else ""
    told = (
        f"{show(metric.value, 'ratio')} [{show(metric.low, 'ratio')}, {show(metric.high, 'ratio')}]"
    )
    return _rule(name, f"max = {limit:.2f}{slack}", level, f"{about}; was {told}")


def _accuracy(name: str, limit: str, level: str, metric: Metric) -> str:
    ends = f"[{show(metric.low, metric.unit)}, {show(metric.high, metric.unit)}]"
    return _rule(name, limit, level, f"was {show(metric.value, metric.unit)} {ends}")


def _rule(name: str, limit: str, level: str, comment: str) -> str:
    return f'[[target.here.rule]]  # {comment}\nmetric = "{name}"\n{limit}\nlevel = "{level}"\n'
