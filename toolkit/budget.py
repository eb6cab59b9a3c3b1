"""What must be reached: a share of the parameters, of the multiply-accumulates, or a size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from onnxtrim.bench.errors import InputError
from onnxtrim.export.model_io import tensor_bytes
from onnxtrim.toolkit.graph.analyse import analyse
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.graph.normalise import remeasure
from onnxtrim.toolkit.graph.surgery import Keep, parameters_after, remove_units

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

SEARCHED = ("max-drop", "max-divergence")
"""Kinds of budgets for which models are made and looked at."""


@dataclass(frozen=True)
class Budget:
    """What must be reached.

    Attributes:
        kind: ``"remove"`` (share of the parameters that leaves), ``"macs"`` (share of the
            multiply-accumulates that stays), ``"size"`` (bytes of the weights), ``"max-drop"``
            (percentage points of accuracy) or ``"max-divergence"`` (of the outputs); the last two
            are searched for, see :func:`.trim.plan_to`.
        value: How much.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind == "size":
            if not self.value >= 1:
                raise InputError(f"--size {self.value:g}: must be at least one byte")
        elif self.kind in SEARCHED:
            if not self.value >= 0:
                raise InputError(f"--{self.kind} {self.value:g}: must not be negative")
        elif not 0 < self.value < 1:
            raise InputError(f"--{self.kind} {self.value:.6g}: must be between 0% and 100%")

    @classmethod
    def parse(cls, kind: str, text: str) -> Budget:
        """Read ``70%``, ``0.7``, ``2MB``, ``500KiB``.

        Raises:
            InputError: It is none of these.
        """
        if kind == "size":
            found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?I?B)\s*", text.upper())
            if found is None:
                raise InputError(f"--size {text!r}: give bytes such as 2MB, 500KB or 1.5MiB")
            return cls(kind, float(found[1]) * _UNITS[found[2]])
        found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", text)
        if found is None:
            raise InputError(f"--{kind} {text!r}: give a share such as 70% or 0.7")
        return cls(kind, float(found[1]) / (100 if found[2] else 1))

    def target(self, analysis: Analysis) -> float:
        """The most of :meth:`spent` that is allowed."""
        if self.kind == "remove":
            return (1 - self.value) * analysis.parameters
        return self.value * analysis.macs if self.kind == "macs" else self.value

    def spent(
        self, analysis: Analysis, keep: Keep, biases: Mapping[str, AxisRef] | None = None
    ) -> float:
        """Parameters, multiply-accumulates or bytes of a model without some units.

        Args:
            analysis: The groups.
            keep: For groups that lose units, a mask over their units.
            biases: Vectors that a repair may add, each with the axis that it lies on.
        """
        with_biases = parameters_after(analysis, keep, biases)
        if self.kind == "remove":
            return with_biases
        pruned = remove_units(analysis.model, analysis, keep)
        if self.kind == "size":
            return tensor_bytes(pruned) + 4 * (with_biases - parameters_after(analysis, keep))
        return analyse(remeasure(analysis.normalised, pruned), {}).macs

    def to_json(self) -> dict[str, object]:
        """The form in which it stands in plans."""
        return {"kind": self.kind, "value": self.value}

    def refusal(self, analysis: Analysis, least: float) -> str:
        """Why it can't be met, with the most that can be done.

        Args:
            analysis: The groups.
            least: The least of :meth:`spent` that can be reached.
        """
        if self.kind == "remove":
            most = 1 - least / analysis.parameters
            return f"--remove {self.value:.4g}: at most {most:.1%} of the parameters can be removed"
        if self.kind == "macs":
            return f"--macs {self.value:.4g}: at least {least / analysis.macs:.1%} of the MACs stay"
        return f"--size {self.value:.0f}B: the weights have at least {least:.0f} bytes"
