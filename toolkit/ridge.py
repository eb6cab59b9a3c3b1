"""Ridge regression around a start, from sums of products alone, judged on other samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Rows = NDArray[np.float32]

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the mean diagonal; the one with the smallest error on the other half is taken."""

UNKNOWNS = 2400
"""Most coefficients per output; larger layers keep the weights that they have."""

ROWS = 12
"""Rows per coefficient that are wanted in each half."""

LEAST_ROWS = 10_000

TARGET_BYTES = 2**26
"""Most memory for the targets of one layer."""


def rows_wanted(rows: int, outputs: int, batches: int) -> int:
    """How many rows to sample from each batch.

    Args:
        rows: Rows for the coefficients of one half.
        outputs: Numbers in a row of the targets.
        batches: Number of batches, of both halves.
    """
    wanted = min(max(LEAST_ROWS, rows), TARGET_BYTES // (8 * outputs))
    return max(1, -(-2 * wanted // batches))


class Sums:
    """Sums of products of inputs and targets over one half of the samples.

    Args:
        inputs: Number of inputs, the constant included, which is the last.
        outputs: Number of targets.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.inner = np.zeros((inputs, inputs))
        self.cross = np.zeros((inputs, outputs))

    def add(self, patches: Rows, target: Rows) -> None:
        """Add some rows."""
        self.inner += patches.T @ patches
        self.cross += patches.T @ target

    def plus(self, other: Sums) -> Sums:
        """Both halves."""
        result = Sums(*self.cross.shape)
        result.inner = self.inner + other.inner
        result.cross = self.cross + other.cross
        return result

    def error(self, weight: Matrix) -> float:
        """Squared error of a weight but for a constant."""
        return float((weight * (self.inner @ weight - 2 * self.cross)).sum())

    def solve(self, start: Matrix, ridge: float) -> Matrix:
        """The ridge regression around a start; the last row is the constant, which is free."""
        size = len(self.inner) - 1
        scale = float(np.trace(self.inner[:-1, :-1])) / max(size, 1)
        diagonal = np.append(np.full(size, ridge * scale), 1e-9 * self.inner[-1, -1])
        if not scale > 0:
            return start
        rest = self.cross - self.inner @ start
        step = np.linalg.solve(self.inner + np.diag(diagonal), rest)
        return np.asarray(start + step, np.float64)


def best_fit(start: Matrix, one: Sums, other: Sums) -> Matrix:
    """The ridge that does best on the half that it was not fitted on, fitted on both."""
    errors = [
        other.error(one.solve(start, ridge)) + one.error(other.solve(start, ridge))
        for ridge in RIDGES
    ]
    best = int(np.argmin(errors))
    if not errors[best] < one.error(start) + other.error(start):
        return start
    return one.plus(other).solve(start, RIDGES[best])
