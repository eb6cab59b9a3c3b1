"""Criteria: which units of a group leave, in which order, from their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.graph.groups import Group
from onnxtrim.toolkit.statistics import Moments


@dataclass(frozen=True)
class Choice:
    """Units of one group that a criterion gives up.

    Attributes:
        order: Unit numbers, the one to remove first at the front.
        emptied: Whether the criterion would have removed every unit; the best one stays.
    """

    order: NDArray[np.int64]
    emptied: bool = False


class Criterion(Protocol):
    """What every criterion offers."""

    @property
    def name(self) -> str:
        """Its name in plans and results."""

    def choose(self, group: Group, moments: Sequence[Moments]) -> Choice:
        """Say which units leave.

        Args:
            group: The group.
            moments: Statistics per unit, one entry for each place where the units are read.
        """

    def to_json(self) -> dict[str, object]:
        """Its name and settings."""


@dataclass(frozen=True)
class Threshold:
    """Remove a unit if its mean and its standard deviation are both below a threshold.

    The statistics are taken after the activation function, where a consumer reads the unit; a
    unit that several consumers read must be below the thresholds at each of them.

    Attributes:
        mean_below: Threshold on the mean, in units of the activation.
        std_below: Threshold on the standard deviation, in units of the activation.
        absolute: Compare the absolute value of the mean (for activations that go negative).
    """

    mean_below: float
    std_below: float
    absolute: bool = False
    name: str = "threshold"

    def __post_init__(self) -> None:
        for option, value in (("--mean-below", self.mean_below), ("--std-below", self.std_below)):
            if not np.isfinite(value):
                raise InputError(f"{option} {value}: must be a finite number")
        if self.std_below <= 0:
            raise InputError(
                f"--std-below {self.std_below}: must be above 0 (a standard deviation never is"
                " below it)"
            )

    def choose(self, group: Group, moments: Sequence[Moments]) -> Choice:
        """See :class:`Criterion`."""
        below = np.ones(group.units, np.bool_)
        strength = np.zeros(group.units)
        for item in moments:
            mean = np.abs(item.mean) if self.absolute else item.mean
            below &= (mean < self.mean_below) & (item.std < self.std_below)
            strength = np.maximum(strength, item.mean**2 + item.variance)
        order = np.argsort(strength, kind="stable")
        order = order[below[order]]
        if len(order) == group.units:
            return Choice(order[:-1], emptied=True)
        return Choice(order)

    def to_json(self) -> dict[str, object]:
        """See :class:`Criterion`."""
        return {
            "name": self.name,
            "mean_below": self.mean_below,
            "std_below": self.std_below,
            "absolute": self.absolute,
        }
