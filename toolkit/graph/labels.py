"""Integer labels for every slice of every tensor, and the edges between them.

A label stands for one position on one axis of one tensor. Rules tie labels ("these slices leave
together") or freeze them with a reason; one connected-components call at the end gives the
classes of slices that can only leave as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

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
        self._refs = list(self._start)
        self._starts = np.fromiter(self._start.values(), np.int64, len(self._start))
        self._edges: list[tuple[Index, Index]] = []
        self._owners: list[str] = []
        self._frozen: list[tuple[Index, int]] = []
        self.freezes: list[Freeze] = []

    def axes(self) -> list[AxisRef]:
        """Every axis, in the order of the graph."""
        return self._refs

    def of(self, ref: AxisRef) -> Index:
        """The labels of an axis, one per position."""
        span = self.span(ref)
        return np.arange(span.start, span.stop, dtype=np.int64)

    def span(self, ref: AxisRef) -> slice:
        """The same as a range of numbers."""
        start = self._start[ref]
        return slice(start, start + self.shapes[ref[0]][ref[1]])

    def fresh(self, size: int) -> Index:
        """Labels that belong to no axis, for a letter that occurs only inside composites."""
        start = self._size
        self._size += size
        return np.arange(start, start + size, dtype=np.int64)

    def tie(self, one: Index, other: Index, node: str) -> None:
        """These slices leave together, position by position, because of a node."""
        if len(one):
            self._edges.append((one, other))
            self._owners.append(node)

    def freeze(self, labels: Index, cause: Freeze) -> None:
        """These slices stay."""
        if not self.freezes or self.freezes[-1] != cause:
            self.freezes.append(cause)
        self._frozen.append((labels, len(self.freezes) - 1))

    def close(self) -> Classes:
        """Join what is tied."""
        count, of_label = connected_components(self._matrix(), directed=False)
        cause = np.full(count, len(self.freezes), np.int64)
        if self._frozen:
            frozen = np.concatenate([labels for labels, _ in self._frozen])
            index = np.repeat(
                [index for _, index in self._frozen], [len(labels) for labels, _ in self._frozen]
            )
            np.minimum.at(cause, of_label[frozen], index)
        return Classes(self, np.asarray(of_label, np.int64), cause)

    def _matrix(self) -> coo_array[Any, Any]:
        """The edges as a matrix; entry k + 1 says that they are of the k-th call of `tie`."""
        empty = [np.empty(0, np.int64)]
        one = np.concatenate([a for a, _ in self._edges] or empty)
        other = np.concatenate([b for _, b in self._edges] or empty)
        numbers = np.arange(1, len(self._edges) + 1, dtype=np.int32)
        owner = np.repeat(numbers, [len(a) for a, _ in self._edges])
        return coo_array((owner, (one, other)), shape=(self._size, self._size))

    def path(self, start: Index, goal: NDArray[np.bool_]) -> list[tuple[AxisRef, str]]:
        """The shortest way along ties from some labels to a label of ``goal``.

        Args:
            start: Labels to begin with.
            goal: For every label whether it is one to arrive at.

        Returns:
            The axes on the way, each with the node that ties it to the one before (empty for the
            first); nothing if there is no way.
        """
        edges = self._matrix()
        hub = self._size  # a node tied to all starts: one search instead of many
        rows = np.concatenate([edges.coords[0], np.full(len(start), hub)])
        columns = np.concatenate([edges.coords[1], start])
        matrix = coo_array((np.ones(len(rows)), (rows, columns)), shape=(hub + 1, hub + 1)).tocsr()
        order, before = breadth_first_order(matrix, hub, directed=False)
        found = next((label for label in order[1:] if goal[label]), None)
        if found is None:
            return []
        way = [int(found)]
        while before[way[-1]] != hub:
            way.append(int(before[way[-1]]))
        owner = {}
        for one, other, number in zip(*edges.coords, edges.data, strict=True):
            owner[one, other] = owner[other, one] = self._owners[number - 1]
        way.reverse()
        nodes = ["", *(owner[pair] for pair in itertools.pairwise(way))]
        steps = zip((self._ref(label) for label in way), nodes, strict=True)
        return [(ref, node) for ref, node in steps if ref is not None]

    def _ref(self, label: int) -> AxisRef | None:
        """The axis of a label; ``None`` for one made by `fresh`."""
        number = int(np.searchsorted(self._starts, label, side="right")) - 1
        ref = self._refs[number]
        within = label - int(self._starts[number]) < self.shapes[ref[0]][ref[1]]
        return ref if within else None


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
        return self.of_label[self.labels.span(ref)]

    def frozen(self) -> NDArray[np.bool_]:
        """For every class, whether it must stay."""
        return self.cause < len(self.labels.freezes)

    def why(self, ref: AxisRef) -> Freeze | None:
        """The first reason for which slices of an axis must stay, or ``None``."""
        causes = self.cause[self.of(ref)]
        first = int(causes.min(initial=len(self.labels.freezes)))
        return self.labels.freezes[first] if first < len(self.labels.freezes) else None
