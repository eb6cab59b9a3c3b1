"""Integer labels for every slice of every tensor, and the edges between them.

A label stands for one position on one axis of one tensor. Rules tie labels ("these slices leave
together") or freeze them with a reason; one connected-components call at the end gives the
classes of slices that can only leave as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Index = NDArray[np.int64]
AxisRef = tuple[str, int]  # tensor name, axis


@dataclass(frozen=True)
class Freeze:
    """Why slices must stay: the node (empty for the graph itself), its operator, the reason."""

    node: str
    operator: str
    reason: str


class Labels:
    """Labels of all axes of all tensors.

    Args:
        shapes: Shape of every tensor.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self._start: dict[AxisRef, int] = {}
        self._size = 0
        for name, shape in shapes.items():
            for axis, size in enumerate(shape):
                self._start[name, axis] = self._size
                self._size += size
        self._edges: list[tuple[Index, Index]] = []
        self._frozen: list[tuple[Index, int]] = []
        self.freezes: list[Freeze] = []

    def axes(self) -> list[AxisRef]:
        """Every axis, in the order of the graph."""
        return list(self._start)

    def of(self, ref: AxisRef) -> Index:
        """The labels of an axis, one per position."""
        start = self._start[ref]
        return np.arange(start, start + self.shapes[ref[0]][ref[1]], dtype=np.int64)

    def fresh(self, size: int) -> Index:
        """Labels that belong to no axis, for a letter that occurs only inside composites."""
        start = self._size
        self._size += size
        return np.arange(start, start + size, dtype=np.int64)

    def tie(self, one: Index, other: Index) -> None:
        """These slices leave together, position by position."""
        self._edges.append((one, other))

    def freeze(self, labels: Index, cause: Freeze) -> None:
        """These slices stay."""
        if not self.freezes or self.freezes[-1] != cause:
            self.freezes.append(cause)
        self._frozen.append((labels, len(self.freezes) - 1))

    def close(self) -> Classes:
        """Join what is tied."""
        one = np.concatenate([a for a, _ in self._edges] or [np.empty(0, np.int64)])
        other = np.concatenate([b for _, b in self._edges] or [np.empty(0, np.int64)])
        matrix = coo_array(
            (np.ones(len(one), np.bool_), (one, other)), shape=(self._size, self._size)
        )
        count, of_label = connected_components(matrix, directed=False)
        cause = np.full(count, len(self.freezes), np.int64)
        for labels, index in self._frozen:
            np.minimum.at(cause, of_label[labels], index)
        return Classes(self, np.asarray(of_label, np.int64), cause)


@dataclass(frozen=True)
class Classes:
    """Classes of labels that leave together.

    Attributes:
        labels: The labels that were joined.
        of_label: Class of every label.
        cause: For every class the index of its first freeze; ``len(labels.freezes)`` if free.
    """

    labels: Labels
    of_label: Index
    cause: Index

    def of(self, ref: AxisRef) -> Index:
        """The class of every position of an axis."""
        return self.of_label[self.labels.of(ref)]

    def frozen(self) -> NDArray[np.bool_]:
        """For every class, whether it must stay."""
        return self.cause < len(self.labels.freezes)

    def why(self, ref: AxisRef) -> Freeze | None:
        """The first reason for which slices of an axis must stay, or ``None``."""
        causes = self.cause[self.of(ref)]
        first = int(causes.min(initial=len(self.labels.freezes)))
        return self.labels.freezes[first] if first < len(self.labels.freezes) else None
