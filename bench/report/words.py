"""How numbers are written in the report: one place, so that table, hover and text agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnxtrim.bench.results import Metric

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
_PREFIXES = ("B", "kB", "MB", "GB", "TB")


def number(value: float, digits: int, sign: bool = False) -> str:
    """Fixed digits, thousands separated by commas, a real minus; never "−0.00"."""
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def count(value: float) -> str:
    """A whole number."""
    return number(value, 0)


def size(value: float) -> str:
    """Bytes with a decimal prefix, three figures."""
    step = 0
    while abs(value) >= 999.5 and step < len(_PREFIXES) - 1:
        value, step = value / 1000, step + 1
    digits = 0 if step == 0 else max(0, 2 - (abs(value) >= 9.995) - (abs(value) >= 99.95))
    return f"{number(value, digits)} {_PREFIXES[step]}"


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{number(100 * share, digits)}%"


def ratio(value: float) -> str:
    """A factor of the original's."""
    return f"{number(value, 2)}\N{MULTIPLICATION SIGN}"


def points(value: float) -> str:
    """A difference in percentage points, with its sign."""
    return number(value, 2, sign=True)


def budget(value: float) -> str:
    """A budget in percentage points as the user gave it, without trailing zeros."""
    return f"{value:g}".replace("-", MINUS)


def plain(metric: Metric | None) -> str:
    """The estimate in its unit, without the interval."""
    if metric is None:
        return NONE
    value = metric.value
    if metric.unit == "bytes":
        return size(value)
    if metric.unit == "share":
        return percent(value, 2)
    if metric.unit == "ratio":
        return ratio(value)
    if metric.unit == "points":
        return points(value)
    if metric.unit in ("parameters", "macs"):
        return count(value)
    return f"{value:.3g} {metric.unit}".replace("-", MINUS)


def interval(metric: Metric | None) -> str:
    """The 95% interval in brackets; empty for an exact number."""
    if metric is None or metric.low == metric.high:
        return ""
    if metric.unit == "points":
        ends = points(metric.low), points(metric.high)
    elif metric.unit == "ratio":
        ends = number(metric.low, 2), number(metric.high, 2)
    elif metric.unit == "share":
        ends = number(100 * metric.low, 2), number(100 * metric.high, 2)
    else:
        ends = f"{metric.low:.3g}", f"{metric.high:.3g}"
    return f"[{ends[0]}, {ends[1]}]"


def with_interval(metric: Metric | None) -> str:
    """Estimate and interval."""
    return f"{plain(metric)} {interval(metric)}".rstrip()


def settings(values: Mapping[str, Any]) -> str:
    """The settings of a candidate, in the words of the command line."""
    names = {
        "mean_below": "mean < {}",
        "std_below": "std < {}",
        "remove": "remove {:.4%}",
        "baseline": "by {}, no repair",
    }
    texts = (names.get(key, key + " = {}").format(value) for key, value in values.items())
    return ", ".join(text.replace(".0000%", "%") for text in texts)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as pairs of a name and a text."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name} ")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(str(item) for item in value)
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        elif isinstance(value, int):
            yield name, count(value)
        elif isinstance(value, float):
            yield name, f"{value:.4g}".replace("-", MINUS)
        elif value is not None:
            yield name, str(value)
