"""The points of a sweep: pairs of thresholds, and budgets."""

from __future__ import annotations

import json
import os
from pathlib import Path

from onnxtrim.bench.errors import InputError

DEFAULT_GRID = ((0.1, 0.4), (0.2, 0.5), (0.3, 0.6), (0.3, 0.8), (0.5, 1.0), (0.7, 1.2))


Point = tuple[float, ...]
"""Thresholds (mean_below, std_below), or a budget (share of the parameters to remove,)."""


def candidate_id(point: Point) -> str:
    """The name of a candidate, from its thresholds or its budget."""
    if len(point) == 1:
        return f"r{100 * point[0]:g}"
    return f"m{point[0]:g}-s{point[1]:g}"


def point_settings(point: Point) -> dict[str, float]:
    """The same by name."""
    names = ("remove",) if len(point) == 1 else ("mean_below", "std_below")
    return dict(zip(names, point, strict=True))


def read_grid(path: str | os.PathLike[str]) -> list[tuple[float, float]]:
    """Read a grid: a JSON list of pairs, or one pair per line (blanks or a comma between).

    Raises:
        InputError: Missing, or not pairs of numbers.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as a grid ({error})") from error
    try:
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            lines = (line.partition("#")[0].replace(",", " ").split() for line in text.splitlines())
            rows = [line for line in lines if line]
        return [(float(mean), float(std)) for mean, std in rows]
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: must hold pairs of thresholds, like '0.1 0.4' on each line"
        ) from error
