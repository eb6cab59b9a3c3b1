"""Integer labels for every slice of every tensor, and the edges between them.

A label stands for one position on one axis of one tensor. Rules tie labels ("these slices leave
together") or freeze them with a reason; one connected-components call at the end gives the
classes of slices that can only leave as a whole.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
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
    """The numbers of all positions of all axes of all tensors.

    Args:
        shapes: Shape of every tensor.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self._start: dict[AxisRef, int] = {}
        self.size = 0
        for name, shape in shapes.items():
            for axis, size in enumerate(shape):
                self._start[name, axis] = self.size
                self.size += size
        self._refs = list(self._start)
        self._starts = np.fromiter(self._start.values(), np.int64, len(self._start))

    def axes(self) -> list[AxisRef]:
        """Every axis, in the order of the graph."""
        return self._refs

    def axis_numbers(self) -> Index:
        """For every label of an axis, which of `axes` it lies on."""
        sizes = [self.shapes[name][axis] for name, axis in self._refs]
        return np.repeat(np.arange(len(sizes)), sizes)

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
        start = self.size
        self.size += size
        return np.arange(start, start + size, dtype=np.int64)

    def ref(self, label: int) -> AxisRef | None:
        """The axis of a label; ``None`` for one made by `fresh`."""
        number = int(np.searchsorted(self._starts, label, side="right")) - 1
        ref = self._refs[number]
        span = self.span(ref)
        return ref if span.start <= label < span.stop else None


class Ties:
    """What one node ties and freezes.

    Args:
        node: Its name; empty for the graph's own inputs and outputs.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self._edges: list[tuple[Index, Index]] = []
        self.frozen: list[tuple[Index, Freeze]] = []

    def tie(self, one: Index, other: Index) -> None:
        """These slices leave together, position by position."""
        self._edges.append((one, other))

    def freeze(self, labels: Index, cause: Freeze) -> None:
        """These slices stay."""
        self.frozen.append((labels, cause))

    @functools.cached_property
    def edges(self) -> tuple[Index, Index]:
        """All ties; nothing may be tied afterwards."""
        empty = np.empty(0, np.int64)
        one, other = zip(*self._edges, strict=True) if self._edges else ((empty,), (empty,))
        return np.concatenate(one), np.concatenate(other)


def close(labels: Labels, ties: Sequence[Ties]) -> Classes:
    """Join what is tied."""
    count, of_label = connected_components(_matrix(labels, ties), directed=False)
    causes = [cause for part in ties for _, cause in part.frozen]
    frozen = [found for part in ties for found, _ in part.frozen]
    cause = np.full(count, len(causes), np.int64)
    if frozen:
        index = np.repeat(np.arange(len(frozen)), [len(found) for found in frozen])
        np.minimum.at(cause, of_label[np.concatenate(frozen)], index)
    return Classes(labels, ties, np.asarray(of_label, np.int64), cause, causes)


def _matrix(labels: Labels, ties: Sequence[Ties]) -> coo_array[Any, Any]:
    """The edges as a matrix; entry k + 1 says that one is of the k-th of ``ties``."""
    one = np.concatenate([part.edges[0] for part in ties])
    other = np.concatenate([part.edges[1] for part in ties])
    numbers = np.arange(1, len(ties) + 1, dtype=np.int32)
    owner = np.repeat(numbers, [len(part.edges[0]) for part in ties])
    return coo_array((owner, (one, other)), shape=(labels.size, labels.size))


@dataclass(frozen=True)
class Classes:
    """Classes of labels that leave together.

    Attributes:
        labels: The labels that were joined.
        ties: What joined and froze them.
        of_label: Class of every label.
        cause: For every class the index of its first freeze; ``len(causes)`` if free.
        causes: Every freeze, in the order of the graph.
    """

    labels: Labels
    ties: Sequence[Ties]
    of_label: Index
    cause: Index
    causes: Sequence[Freeze]

    def of(self, ref: AxisRef) -> Index:
        """The class of every position of an axis."""
        return self.of_label[self.labels.span(ref)]

    def frozen(self) -> NDArray[np.bool_]:
        """For every class, whether it must stay."""
        return self.cause < len(self.causes)

    def why(self, ref: AxisRef) -> Freeze | None:
        """The first reason for which slices of an axis must stay, or ``None``."""
        first = int(self.cause[self.of(ref)].min(initial=len(self.causes)))
        return self.causes[first] if first < len(self.causes) else None

    def path(self, start: Index, goal: NDArray[np.bool_]) -> list[tuple[AxisRef, str]]:
        """The shortest way along ties from some labels to a label of ``goal``.

        Args:
            start: Labels to begin with.
            goal: For every label whether it is one to arrive at.

        Returns:
            The axes on the way, each with the node that ties it to the one before (empty for the
            first); nothing if there is no way.
        """
        edges = _matrix(self.labels, self.ties)
        hub = self.labels.size  # a node tied to all starts: one search instead of many
        rows = np.concatenate([edges.coords[0], np.full(len(start), hub)])
        columns = np.concatenate([edges.coords[1], start])
        matrix = coo_array((np.ones(len(rows)), (rows, columns)), shape=(hub + 1, hub + 1)).tocsr()
        order, before = breadth_first_order(matrix, hub, directed=False)
        found = next((int(label) for label in order[1:] if goal[label]), None)
        if found is None:
            return []
        way = [found]
        while before[way[-1]] != hub:
            way.append(int(before[way[-1]]))
        way.reverse()
        owners = ["", *(self._owner(edges, *pair) for pair in itertools.pairwise(way))]
        steps = zip((self.labels.ref(label) for label in way), owners, strict=True)
        return [(ref, node) for ref, node in steps if ref is not None]

    def _owner(self, edges: coo_array[Any, Any], one: int, other: int) -> str:
        rows, columns = edges.coords
        found = ((rows == one) & (columns == other)) | ((rows == other) & (columns == one))
        return self.ties[int(edges.data[np.flatnonzero(found)[0]]) - 1].node
