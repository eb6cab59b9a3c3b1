"""Batches of samples: cut to size, joined, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        feeds: One array per model input, shape ``(samples, ...)``.
        labels: Shape ``(samples, ...)``, or ``None``; integers of shape ``(samples,)`` unless the
            data was opened with labels of any kind.
        groups: Number of the person, the film, ... that a sample is of, shape ``(samples,)``, or
            ``None`` if samples are independent.
    """

    feeds: dict[str, NDArray[Any]]
    labels: NDArray[Any] | None
    groups: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))


def rebatch(blocks: Iterator[Batch], size: int) -> Iterator[Batch]:
    """Batches of ``size`` from blocks of any length; a change of shape ends a batch early."""
    held: list[Batch] = []
    for block in blocks:
        if held and _row_shapes(held[0]) != _row_shapes(block):
            yield _join(held)
            held = []
        held.append(block)
        if sum(map(len, held)) < size:
            continue
        whole = _join(held)
        full = len(whole) - len(whole) % size
        for start in range(0, full, size):
            yield _cut(whole, start, start + size)
        held = [_cut(whole, full, len(whole))] if full < len(whole) else []
    if held:
        yield _join(held)


def _row_shapes(batch: Batch) -> list[tuple[int, ...]]:
    labels = [] if batch.labels is None else [batch.labels]
    return [array.shape[1:] for array in (*batch.feeds.values(), *labels)]


def _join(parts: list[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    feeds = {name: np.concatenate([p.feeds[name] for p in parts]) for name in parts[0].feeds}
    labels = [p.labels for p in parts if p.labels is not None]
    groups = [p.groups for p in parts if p.groups is not None]
    return Batch(
        feeds,
        np.concatenate(labels) if labels else None,
        np.concatenate(groups) if groups else None,
    )


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    feeds = {name: array[start:stop] for name, array in batch.feeds.items()}
    return Batch(
        feeds,
        None if batch.labels is None else batch.labels[start:stop],
        None if batch.groups is None else batch.groups[start:stop],
    )


class ArrayHash:
    """A hash of named arrays that does not depend on how they were cut into batches."""

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}

    def update(self, batch: Batch) -> None:
        """Add the next samples."""
        arrays = dict(batch.feeds)
        if batch.labels is not None:
            arrays["labels"] = batch.labels
        if batch.groups is not None:
            arrays["groups"] = batch.groups
        for name, array in arrays.items():
            if name not in self._parts:
                about = f"{name}\n{array.dtype.str}\n{array.shape[1:]}\n"
                self._parts[name] = hashlib.sha256(about.encode())
            self._parts[name].update(np.ascontiguousarray(array).data)

    def hexdigest(self) -> str:
        """The hash of all samples so far."""
        digests = "\n".join(self._parts[name].hexdigest() for name in sorted(self._parts))
        return hashlib.sha256(digests.encode()).hexdigest()
