"""What became of each class: information, not a judgement."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.stats import tango_interval

_COLUMNS = ("samples", "original", "candidate", "losses", "gains")


class ClassCounts:
    """For each class of the labels: samples, right answers of both models, losses and gains."""

    def __init__(self) -> None:
        self._counts = np.zeros((len(_COLUMNS), 0), np.int64)

    def add(
        self,
        labels: NDArray[Any],
        first: NDArray[np.bool_],
        second: NDArray[np.bool_],
        classes: int,
    ) -> None:
        """Count samples.

        Args:
            labels: Shape ``(samples,)``.
            first: Which ones the original has right.
            second: Which ones the candidate has right.
            classes: How many classes there are.
        """
        if self._counts.shape[1] == 0:
            self._counts = np.zeros((len(_COLUMNS), classes), np.int64)
        chosen = (np.ones(len(labels), np.bool_), first, second, first & ~second, ~first & second)
        for row, mask in zip(self._counts, chosen):
            row += np.bincount(labels[mask], minlength=classes)

    def to_json(self, *, independent: bool) -> list[dict[str, Any]]:
        """One entry per class that has samples, the classes in order.

        ``delta`` is the difference of the accuracies in percentage points, with Tango's interval.
        The intervals are of each class alone: of twenty classes one lies outside by chance.

        Args:
            independent: Whether what was counted is independent, as the steps of a sample are not;
                without that there are no intervals.
        """
        found = []
        for number in np.flatnonzero(self._counts[0]):
            samples, original, candidate, losses, gains = (int(n) for n in self._counts[:, number])
            delta = {"value": 100 * (gains - losses) / samples}
            if independent:
                _, low, high = tango_interval(losses, gains, samples)
                delta |= {"low": 100 * low, "high": 100 * high}
            found.append(
                {
                    "class": int(number),
                    "samples": samples,
                    "original": original / samples,
                    "candidate": candidate / samples,
                    "losses": losses,
                    "gains": gains,
                    "delta": delta,
                }
            )
        return found
