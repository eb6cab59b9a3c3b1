"""Means and sums of products of positions on an axis, which merge over data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.labels import AxisRef

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Moments = dict[AxisRef, "SecondMoments"]
Halves = tuple[Moments, Moments]
"""Of two parts of the data: what is fitted on one is judged on the other."""


@dataclass(frozen=True)
class SecondMoments:
    """Mean and comoments of every pair of positions on an axis.

    Attributes:
        count: Rows seen.
        mean: Mean of each position.
        comoment: Sum over the rows of the products of deviations from the mean; of a wide axis
            only the diagonal, as a vector.
    """

    count: int
    mean: Vector
    comoment: Matrix

    @property
    def covariance(self) -> Matrix:
        """Population covariance; a vector of variances if that is all that is known."""
        return self.comoment / self.count

    @property
    def uncentred(self) -> Matrix:
        """``E[x xᵀ]``, or its diagonal."""
        return self.covariance + _square(self.mean, self.comoment.ndim)

    def merge(self, other: SecondMoments) -> SecondMoments:
        """Moments of both data sets together (Chan, Golub, LeVeque 1983)."""
        count = self.count + other.count
        delta = other.mean - self.mean
        between = _square(delta, self.comoment.ndim) * (self.count * other.count / count)
        mean = self.mean + delta * (other.count / count)
        return SecondMoments(count, mean, self.comoment + other.comoment + between)


def _square(vector: Vector, ndim: int) -> Matrix:
    return np.outer(vector, vector) if ndim == 2 else vector**2


def join(one: Moments, other: Moments) -> Moments:
    """Moments of two data sets; points that only one of them has keep theirs."""
    both = {ref: found.merge(other[ref]) if ref in other else found for ref, found in one.items()}
    return both | {ref: found for ref, found in other.items() if ref not in one}
