"""How numbers are written in the report: one place, so that table, hover and text agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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


def significant(value: float) -> str:
    """Three figures, without an exponent where people do not need one."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}".replace("-", MINUS)
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return number(value, max(digits, 0))


def points(value: float) -> str:
    """A difference in percentage points, with its sign."""
    return number(value, 2, sign=True)


def budget(value: float) -> str:
    """A budget in percentage points as the user gave it, without trailing zeros."""
    return f"{value:g}".replace("-", MINUS)


def plain(metric: Metric | None, digits: int = 2) -> str:
    """The estimate in its unit, without the interval; ``digits`` are those of a ratio."""
    if metric is None:
        return NONE
    text = _figure(metric.value, metric.unit, digits)
    if metric.unit == "share":
        return f"{text}%"
    if metric.unit == "ratio":
        return f"{text}\N{MULTIPLICATION SIGN}"
    if metric.unit in ("bytes", "points", "parameters", "macs", "value"):
        return text
    if metric.unit == "s/sample":
        return f"{text} ms/sample"
    return f"{text} {metric.unit}"


def interval(metric: Metric | None, digits: int = 2) -> str:
    """The interval in brackets; empty for an exact number."""
    if metric is None or metric.low == metric.high:
        return ""
    low, high = (_figure(end, metric.unit, digits) for end in (metric.low, metric.high))
    return f"[{low}, {high}]"


def with_interval(metric: Metric | None, digits: int = 2) -> str:
    """Estimate and interval."""
    return f"{plain(metric, digits)} {interval(metric, digits)}".rstrip()


def _figure(value: float, unit: str, digits: int) -> str:
    if unit == "bytes":
        return size(value)
    if unit == "share":
        return number(100 * value, 2)
    if unit == "ratio":
        return number(value, digits)
    if unit == "points":
        return points(value)
    if unit in ("parameters", "macs"):
        return count(value)
    return significant(1000 * value if unit == "s/sample" else value)


def listed(names: Sequence[str], most: int = 8) -> str:
    """Some names, and how many more there are."""
    more = f" and {count(len(names) - most)} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
            yield name, ", ".join(str(item) for item in value) or NONE
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        elif isinstance(value, int):
            yield name, count(value)
        elif isinstance(value, float):
            yield name, f"{value:.4g}".replace("-", MINUS)
        elif value is not None:
            yield name, str(value)
