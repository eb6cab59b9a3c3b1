"""The reconstruction criterion: greedy elimination with least-squares compensation.

Removing the units R and solving the reader anew costs the Schur complement
``tr(W_R (G_RR − G_RK G_KK⁻¹ G_KR) W_Rᵀ)``. With ``H = (G + λI)⁻¹`` the next unit to go minimises
``tr(H_SS⁻¹ (W Wᵀ)_SS)`` over its positions S (Optimal Brain Surgeon at the level of units; Hassibi
& Stork 1993, OBSPA arXiv 2403.18955, ZipLM arXiv 2302.04089).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from onnxtrim.toolkit.graph.labels import Index

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

RIDGE = 1e-4
"""Of the mean diagonal of the moments."""

SHRINK = 0.05
"""Weight of the diagonal in the moments of the criterion: better orders with few samples."""

COMPACT = 0.7  # the matrices shrink when so many positions are left

STEPS = 128
"""A step removes at most one of so many units that are left: large groups go in small batches."""


@dataclass(frozen=True)
class Term:
    """What one reader loses.

    Attributes:
        moments: G at its input, (positions, positions), or its diagonal.
        products: ``W Wᵀ`` over outputs and taps, (positions, positions), or its diagonal. With
            diagonals nothing makes up for what leaves.
        units: The unit at each position, -1 for none.
        weight: 1 / E‖y‖² of the reader, so that readers of different size compare.
    """

    moments: Matrix
    products: Matrix
    units: Index
    weight: float


def eliminate(terms: Sequence[Term], count: int) -> tuple[Index, Vector]:
    """Order the units of a group.

    Args:
        terms: One entry for each reader.
        count: Number of units.

    Returns:
        The units, the one to remove first at the front, and the error curve: entry k is the
        summed relative error of the readers after the first k + 1 units left.
    """
    states = [_State(term) if term.moments.ndim == 2 else _Diagonal(term) for term in terms]
    order: list[int] = []
    errors: list[float] = []
    alive = np.ones(count, np.bool_)
    total = 0.0
    while alive.any():
        cost = np.zeros(count)
        for state in states:
            cost += state.costs(count)
        left = np.flatnonzero(alive)
        batch = max(1, len(left) // STEPS)
        chosen = left[np.argsort(cost[left], kind="stable")[:batch]]
        for unit in chosen:
            total += max(float(cost[unit]), 0.0)
            errors.append(total)
        order += chosen.tolist()
        alive[chosen] = False
        for state in states:
            state.remove(chosen)
    return np.asarray(order, np.int64), np.asarray(errors)


class _Diagonal:
    """A reader of which only variances are known: its terms add up."""

    def __init__(self, term: Term) -> None:
        own = term.units >= 0
        cost = term.weight * term.moments[own] * term.products[own]
        self.by_unit = np.bincount(term.units[own], cost)

    def costs(self, count: int) -> Vector:
        """What each unit costs."""
        return np.pad(self.by_unit, (0, count - len(self.by_unit)))

    def remove(self, chosen: Index) -> None:
        """The others cost the same."""


class _State:
    """H and W Wᵀ of one reader while units leave."""

    def __init__(self, term: Term) -> None:
        moments = (1 - SHRINK) * term.moments + SHRINK * np.diag(np.diag(term.moments))
        self.inverse = np.ascontiguousarray(inverse(moments))
        self.products = np.array(term.products, order="C")
        self.units = term.units.copy()
        self.weight = term.weight
        self.left = np.ones(len(self.units), np.bool_)
        counts = np.bincount(self.units[self.units >= 0])
        self.single = bool(counts.max(initial=0) <= 1)

    def costs(self, count: int) -> Vector:
        """What each unit would cost now; 0 for units that it does not read."""
        result = np.zeros(count)
        own = self.units >= 0
        if self.single:
            ratio = np.diag(self.products)[own] / np.diag(self.inverse)[own]
            result[self.units[own]] = ratio
        else:
            for unit in np.unique(self.units[own]):
                at = np.flatnonzero(self.units == unit)
                block = np.ix_(at, at)
                solved = np.linalg.solve(self.inverse[block], self.products[block])
                result[unit] = np.trace(solved)
        return self.weight * result

    def remove(self, chosen: Index) -> None:
        """Let units leave and the others make up for them."""
        at = np.flatnonzero(np.isin(self.units, chosen))
        if not len(at):
            return
        self.units[at] = -1
        self.left[at] = False
        block = np.ix_(at, at)
        rows = self.inverse[at]
        pull = np.asarray(np.linalg.solve(self.inverse[block], rows), np.float64)
        rest = self.products[at] - self.products[block] @ pull / 2
        # In place: both are symmetric, and rows of what left become zero.
        _subtract(self.inverse, rows, pull)
        _subtract(self.products, np.vstack([pull, rest]), np.vstack([rest, pull]))
        if self.left.sum() < COMPACT * len(self.left):
            keep = np.flatnonzero(self.left)
            self.inverse = np.ascontiguousarray(self.inverse[np.ix_(keep, keep)])
            self.products = np.ascontiguousarray(self.products[np.ix_(keep, keep)])
            self.units, self.left = self.units[keep], self.left[keep]


def _subtract(matrix: Matrix, one: Matrix, other: Matrix) -> None:
    """``matrix -= oneᵀ other`` for a symmetric result, without a copy of the matrix."""
    blas.dgemm(-1.0, one, other, 1.0, matrix.T, trans_a=True, overwrite_c=True)


def inverse(moments: Matrix) -> Matrix:
    """``(G + λI)⁻¹`` with λ as a share of the mean diagonal; symmetric."""
    size = len(moments)
    scale = float(np.trace(moments)) / max(size, 1)
    if not scale > 0:
        return np.eye(size)
    found = np.linalg.inv(moments + RIDGE * scale * np.eye(size))
    return (found + found.T) / 2
