"""Unlabelled samples for distillation: some held back, the others shuffled, all streamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxtrim.bench.batches import Batch, rebatch
from onnxtrim.bench.data import DataSource
from onnxtrim.bench.errors import InputError

HOLD = 10
"""One block of samples in so many is held back where no validation data are given."""

WINDOW = 64 * 2**20
"""Bytes of samples among which the order is random."""


@dataclass(frozen=True)
class Samples:
    """Where training batches and validation batches come from.

    Blocks of consecutive samples are held back, because neighbours may be near duplicates.

    Attributes:
        data: What is trained on.
        validation: What is judged on; ``None`` holds back one block in ten of ``data``.
        count: Samples of ``data``.
        batch: Samples per step.
        seed: Of the order.
    """

    data: DataSource
    validation: DataSource | None
    count: int
    batch: int
    seed: int

    def training(self, epoch: int) -> Iterator[Batch]:
        """One pass in an order that depends on the seed and the pass alone.

        The order is random within windows of 64 MiB: data that are sorted should be mixed before.
        A batch of less than half the size, at the end or before samples of another shape, is left
        out if any of that shape was whole.
        """
        random = np.random.default_rng([self.seed, epoch])
        windows = rebatch(self._blocks(held=False), self._window())
        whole = set()
        for batch in rebatch((_shuffled(window, random) for window in windows), self.batch):
            shape = tuple(array.shape[1:] for array in batch.feeds.values())
            if shape not in whole or 2 * len(batch) >= self.batch:
                yield batch
            if len(batch) == self.batch:
                whole.add(shape)

    def judged(self) -> Iterator[Batch]:
        """The samples that are not trained on, in order."""
        if self.validation is not None:
            return self.validation.batches(self.batch)
        return rebatch(self._blocks(held=True), self.batch)

    def require_judged(self) -> None:
        """Check that there is something to judge on, and something to train on.

        Raises:
            InputError: There are too few samples to hold some back.
        """
        if next(self.judged(), None) is None:
            raise InputError(
                f"{self.data.name}: {self.count} samples are too few to hold some back for"
                " validation; give more, or validation data"
            )

    def _blocks(self, *, held: bool) -> Iterator[Batch]:
        if self.validation is not None:
            yield from self.data.batches(self.batch)
            return
        size = max(1, min(self.batch, self.count // (2 * HOLD)))
        for number, block in enumerate(self.data.batches(size)):
            if (number % HOLD == HOLD - 1) == held:
                yield block

    def _window(self) -> int:
        """Samples that a window holds: whole batches, at least one."""
        first = next(self.data.batches(1))
        size = sum(array.nbytes for array in first.feeds.values()) // len(first)
        return max(1, WINDOW // max(size, 1) // self.batch) * self.batch


def _shuffled(window: Batch, random: np.random.Generator) -> Batch:
    order = random.permutation(len(window))
    feeds = {name: array[order] for name, array in window.feeds.items()}
    return Batch(feeds, None if window.labels is None else window.labels[order])
