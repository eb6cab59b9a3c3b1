"""Limits of a policy as text with units, and the metrics that they may be put on."""

from __future__ import annotations

import difflib
import math
import re
from typing import Any

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.metrics import known_metrics

FACTORS: dict[str, dict[str, float]] = {
    "ratio": {"": 1.0},
    "value": {"": 1.0},
    "share": {"": 1.0, "%": 0.01},
    "points": {"pp": 1.0},
    "ms": {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3},
    "bytes": {
        "B": 1.0,
        "kB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "KiB": 2.0**10,
        "MiB": 2.0**20,
        "GiB": 2.0**30,
    },
    "J": {"mJ": 1e-3, "J": 1.0},
    "samples/s": {"/s": 1.0},
    "s/sample": {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0},
}
"""Units in which a limit may be written, by the unit of the metric, with their factors."""

_LATENCY = ("latency.p50", "latency.p10", "latency.p99")
_LOAD = ("load.session_create", "load.first_run", "load.to_first_run")
_MEMORY = ("memory.load_peak", "memory.run_peak", "memory.steady")
_SIZE = ("model.file_bytes", "model.initializer_bytes")
_UNITS: dict[str, str] = {
    **dict.fromkeys((*_LATENCY, *_LOAD), "ms"),
    **dict.fromkeys((*_MEMORY, *_SIZE), "bytes"),
    **{f"{name}.arena_{state}": "bytes" for name in _MEMORY for state in ("on", "off")},
    "energy.per_call": "J",
    "latency.over_budget_rate": "share",
    "accuracy.top1": "share",
    "accuracy.agreement": "share",
    "accuracy.negative_flip_rate": "share",
}
_RATIOS = [f"{name}.ratio" for name, unit in _UNITS.items() if unit in ("ms", "bytes")]
_THROUGHPUT = re.compile(r"throughput\.\d+x\d+(?P<cpu>\.cpu)?(?P<ratio>\.ratio)?$")
_ACCURACY = re.compile(r"accuracy\.(?P<name>[\w:.]+?)(?P<delta>\.delta)?$")
_SHARES = ("top1", "top5", "f1", "auc")
_SIGNED = ("points", "value")
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*")


def unit_of(metric: str) -> str:
    """The unit in which a metric is measured.

    Raises:
        InputError: No rule can be put on such a metric; the message tells what is near it.
    """
    if metric in _UNITS:
        return _UNITS[metric]
    if metric in _RATIOS:
        return "ratio"
    if found := _THROUGHPUT.match(metric):
        return "ratio" if found["ratio"] else "s/sample" if found["cpu"] else "samples/s"
    if metric == "accuracy.mcnemar_p":
        raise InputError(
            f"{metric} can't be a rule: 'not significantly different' is not 'not worse';"
            " use accuracy.top1.delta"
        )
    found = _ACCURACY.match(metric)
    names = {"top1", *known_metrics()}
    if found and (found["name"] in names or ":" in found["name"]):
        share = found["name"] in _SHARES
        if found["delta"]:
            return "points" if share else "value"
        return "share" if share else "value"
    accuracies = [f"accuracy.{name}{end}" for name in sorted(names) for end in ("", ".delta")]
    near = difflib.get_close_matches(metric, [*_UNITS, *_RATIOS, *accuracies], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"there is no metric {metric!r}{hint}")


def is_larger_better(metric: str) -> bool | None:
    """Whether more of a metric is better; ``None`` if only the user knows."""
    if metric.startswith("throughput."):
        return ".cpu" not in metric
    if not metric.startswith("accuracy."):
        return False
    name = accuracy_name(metric)
    if name in (*_SHARES, "agreement", "cosine"):
        return True
    return False if name in ("mae", "rmse", "kl", "negative_flip_rate") else None


def accuracy_name(metric: str) -> str:
    """Name of the metric of accuracy that a rule's metric is made from."""
    return metric.removeprefix("accuracy.").removesuffix(".delta")


def parse_quantity(value: Any, unit: str) -> float:
    """A limit in the metric's own unit.

    Args:
        value: A number, or text such as ``"20 ms"``, ``"64 MiB"``, ``"1 %"``, ``"-0.5 pp"``.
        unit: Of the metric, a key of :data:`FACTORS`.

    Raises:
        InputError: Not a finite number, or a unit of another kind.
    """
    factors = FACTORS[unit]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(f"{value!r} is neither a number nor text")
    if unit == "share" and not isinstance(value, str):
        raise InputError(
            f"{value!r} lacks a unit; is 1 meant as 1 % or 100 %? write {_example(unit)}"
        )
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        raise InputError(f"{value!r} is not a number with a unit, such as {_example(unit)}")
    if found[2] not in factors:
        if not found[2]:
            raise InputError(f"{value!r} lacks a unit; write {_example(unit)}")
        if unit == "ratio":
            raise InputError(
                f"{value!r}: a ratio has no unit; is 20 % meant as 0.2, 0.8 or 1.2? write {0.8!r}"
            )
        raise InputError(f"{value!r} has the wrong unit; write {_example(unit)}")
    number = float(found[1]) * factors[found[2]]
    if not math.isfinite(number):
        raise InputError(f"{value!r} is too large")
    if number < 0 and unit not in _SIGNED:
        raise InputError(f"{value!r} is below 0")
    if (unit == "share" and number > 1) or (unit == "points" and abs(number) >= 100):
        raise InputError(f"{value!r} is more than there can be")
    return number


def parse_duration(value: Any) -> float:
    """Seconds of ``"10 min"``, ``"90 s"`` or ``"1 h"``.

    Raises:
        InputError: Not of this form.
    """
    found = _QUANTITY.fullmatch(str(value)) if isinstance(value, str) else None
    factor = {"s": 1.0, "min": 60.0, "h": 3600.0}.get(found[2]) if found else None
    if found is None or factor is None or not 0 < float(found[1]) * factor < math.inf:
        raise InputError(f'{value!r} is not a duration, such as "10 min" or "90 s"')
    return float(found[1]) * factor


def show(number: float, unit: str) -> str:
    """A number of a metric for people, with its unit."""
    if unit == "bytes":
        power = min(3, int(math.log(max(abs(number), 1), 1024)))
        return f"{number / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB')[power]}"
    if unit == "share":
        return f"{100 * number:.4g} %"
    if unit == "points":
        return f"{number:+.3g} pp"
    if unit in ("ratio", "value"):
        return f"{number:.4g}"
    return f"{number:.4g} {'/s' if unit == 'samples/s' else unit}"


def _example(unit: str) -> str:
    return {
        "ratio": "0.8",
        "value": "0.8",
        "share": '"1 %"',
        "points": '"-0.5 pp"',
        "ms": '"20 ms"',
        "bytes": '"64 MiB"',
        "J": '"2 mJ"',
        "samples/s": '"500 /s"',
        "s/sample": '"2 ms"',
    }[unit]
