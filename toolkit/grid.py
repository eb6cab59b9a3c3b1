"""The points of a sweep: pairs of thresholds, budgets, and baselines of budgets."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from onnxtrim.bench.errors import InputError

DEFAULT_GRID = ((0.1, 0.4), (0.2, 0.5), (0.3, 0.6), (0.3, 0.8), (0.5, 1.0), (0.7, 1.2))


@dataclass(frozen=True)
class Point:
    """What one candidate is made by.

    Attributes:
        values: Thresholds (mean_below, std_below), or a budget (share of the parameters,).
        baseline: The criterion of a baseline, which gets no repair; empty for none.
    """

    values: tuple[float, ...]
    baseline: str = ""

    @property
    def is_budget(self) -> bool:
        """Whether it is a share to remove."""
        return len(self.values) == 1

    @property
    def id(self) -> str:
        """The name of the candidate."""
        if not self.is_budget:
            return "m{:g}-s{:g}".format(*self.values)
        return f"r{100 * self.values[0]:g}" + (f"-{self.baseline}" if self.baseline else "")

    @property
    def settings(self) -> dict[str, float | str]:
        """The same by name."""
        if not self.is_budget:
            return dict(zip(("mean_below", "std_below"), self.values, strict=True))
        baseline = {"baseline": self.baseline} if self.baseline else {}
        return {"remove": self.values[0], **baseline}

    def to_json(self) -> list[float | str]:
        """The form in which it stands in the spec of a sweep."""
        return [*self.values, *([self.baseline] if self.baseline else [])]


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
