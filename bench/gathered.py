"""What metrics keep while the samples stream by, and how they come out for weights on the samples.

Kept are a few numbers per sample, not the outputs; ``auc`` alone keeps the scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.bootstrap import Resampled, Weights, alike
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.predictions import (
    Array,
    ClassRows,
    Seen,
    are_probabilities,
    class_rows,
    log_softmax,
)

Values = NDArray[np.float64]
Sums = Callable[[Seen], Values]

MOST_SCORES = 2**24
"""Scores that ``auc`` keeps per model: a million samples of ten classes."""


class Gathered(Protocol):
    """A metric of two models while the samples stream by."""

    @property
    def unit(self) -> str:
        """``"share"``, or ``"value"`` for a number in a unit of its own."""

    def add(self, seen: Seen) -> None:
        """Take the next samples.

        Raises:
            InputError: The outputs or the labels do not fit the metric.
        """

    def resampled(self, merge: bool = True) -> Resampled:
        """The metric as a function of weights on the samples.

        Args:
            merge: Whether samples that are alike may become one unit.
        """


class SampleMean:
    """The mean of numbers of which every sample has its own, or the root of that mean.

    Args:
        name: For messages.
        sums: From a batch to an array ``(samples, 3)``: the sums of the numbers of the original and
            of the candidate, and how many numbers these sums have.
        unit: Of the metric.
        root: Whether the metric is the root of the mean.
    """

    def __init__(self, name: str, sums: Sums, unit: str = "value", root: bool = False) -> None:
        self.unit = unit
        self._name, self._sums, self._root = name, sums, root
        self._parts: list[Values] = []

    @property
    def samples(self) -> int:
        """How many were added."""
        return sum(map(len, self._parts))

    def add(self, seen: Seen) -> None:
        """See :class:`Gathered`."""
        with np.errstate(all="ignore"):  # what is no number is told below
            sums = self._sums(seen)
        bad = ~np.isfinite(sums)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"{seen.models[min(column, 1)]}: {self._name} is no finite number for sample"
                f" {seen.first + row}"
            )
        self._parts.append(sums)

    def resampled(self, merge: bool = True) -> Resampled:
        """See :class:`Gathered`."""
        sums = np.concatenate(self._parts)
        counts = np.ones(len(sums), np.int64)
        if merge:
            sums, counts = alike(sums)

        def values(weights: Weights) -> Values:
            total = weights @ sums
            with np.errstate(invalid="ignore"):  # a draw may have only steps that do not count
                mean = total[:, :2] / total[:, 2:]
            return np.sqrt(mean) if self._root else np.asarray(mean)

        return Resampled(counts, values, len(counts))


class MacroF1:
    """Mean over the classes of F1 = 2·TP / (labels + answers), classes without labels left out.

    A draw leaves out the classes that have no labels in it.
    """

    unit = "share"

    def __init__(self) -> None:
        self._parts: list[NDArray[np.int64]] = []  # sample, label, answer, answer
        self._samples = self._classes = 0
        self._steps = False

    def add(self, seen: Seen) -> None:
        """See :class:`Gathered`."""
        labels, rows = _labelled_rows(seen, "f1")
        columns = [rows.sample + seen.first, labels, *rows.classes()]
        self._parts.append(np.stack(columns, axis=1).astype(np.int64))
        self._samples += seen.samples
        self._classes, self._steps = rows.scores[0].shape[1], rows.steps

    def resampled(self, merge: bool = True) -> Resampled:
        """See :class:`Gathered`."""
        rows = np.concatenate(self._parts)
        units, counts = rows[:, 0], np.ones(self._samples, np.int64)
        if merge and not self._steps:
            kinds, counts = alike(rows[:, 1:])
            units, rows = np.arange(len(kinds)), np.insert(kinds, 0, 0, axis=1)
        labels = rows[:, 1]

        def matrix(classes: NDArray[np.int64], where: NDArray[np.bool_] | None = None) -> Any:
            """How often a unit has a class, transposed, so that it takes weights."""
            ones = np.ones(len(rows)) if where is None else where.astype(np.float64)
            shape = (self._classes, len(counts))
            from scipy import sparse  # not on a device

            return sparse.csr_array((ones, (classes, units)), shape=shape)

        truth = matrix(labels)
        answers = [matrix(rows[:, 2 + model]) for model in range(2)]
        right = [matrix(labels, rows[:, 2 + model] == labels) for model in range(2)]

        def values(weights: Weights) -> Values:
            drawn = weights.T
            wanted = truth @ drawn
            occurs = wanted > 0
            columns = []
            for hits, given in zip(right, answers):
                f1 = 2 * (hits @ drawn) / np.maximum(wanted + given @ drawn, 1)
                columns.append(_mean(f1, occurs))
            return np.stack(columns, axis=1)

        return Resampled(counts, values, self._classes)


class MacroAuc:
    """Area under the ROC curve; of several classes the mean, each against all the rest.

    The area is the probability that a sample of the class has a higher score than one of the rest,
    ties counting half: of two classes the score is that of class 1 (the output itself if there is
    only one score, else the difference), of more the probability of the class. A class that has no
    labels, or all of them, has no area and is left out, in draws too.

    Source: J. A. Hanley, B. J. McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", Radiology 143(1), 1982,
    https://doi.org/10.1148/radiology.143.1.7063747.
    """

    unit = "share"

    def __init__(self) -> None:
        self._scores: tuple[list[Array], list[Array]] = ([], [])
        self._labels: list[Array] = []
        self._units: list[NDArray[np.int64]] = []
        self._samples = self._kept = 0
        self._logits = False

    def add(self, seen: Seen) -> None:
        """See :class:`Gathered`."""
        labels, scores, sample = self._read(seen)
        self._kept += scores[0].size
        if self._kept > MOST_SCORES:
            raise InputError(
                f"{seen.data}: auc keeps all scores, and these are more than {MOST_SCORES} per"
                " model; give fewer samples"
            )
        for kept, new in zip(self._scores, scores):
            kept.append(new)
        self._labels.append(labels)
        self._units.append(sample + seen.first)
        self._samples += seen.samples

    def _read(self, seen: Seen) -> tuple[Array, list[Array], NDArray[np.int64]]:
        firsts = [outputs[0] for outputs in seen.outputs]
        labels = seen.need_labels("auc")
        if labels.ndim == 1 and firsts[0].shape in ((seen.samples,), (seen.samples, 1)):
            return labels, _single_scores(seen, labels), np.arange(seen.samples)
        labels, rows = _labelled_rows(seen, "auc")
        if rows.scores[0].shape[1] == 2:
            scores = [s[:, 1:] - s[:, :1] for s in rows.scores]
        else:
            if self._kept == 0:  # decided once, so that all samples are read alike
                self._logits = not are_probabilities(rows.scores[0])
            scores = [log_softmax(s) if self._logits else s for s in rows.scores]
        return labels, scores, rows.sample

    def resampled(self, merge: bool = True) -> Resampled:
        """See :class:`Gathered`; samples are never merged.

        Raises:
            InputError: All labels are of one class.
        """
        labels, units = np.concatenate(self._labels), np.concatenate(self._units)
        pair = [np.concatenate(parts) for parts in self._scores]
        columns = pair[0].shape[1]
        classes = [1] if columns == 1 else range(columns)
        known = [c for c in classes if 0 < np.count_nonzero(labels == c) < len(labels)]
        if not known:
            raise InputError("auc needs labels of at least two classes")
        ranked = [
            [_Ranked(scores[:, c if columns > 1 else 0], labels == c, units) for c in known]
            for scores in pair
        ]

        def values(weights: Weights) -> Values:
            return np.stack([_macro(each, weights) for each in ranked], axis=1)

        return Resampled(np.ones(self._samples, np.int64), values, len(labels))


class _Ranked:
    """One class against the rest, sorted by score."""

    def __init__(
        self, scores: Array, positive: NDArray[np.bool_], units: NDArray[np.int64]
    ) -> None:
        order = np.argsort(scores, kind="stable")
        ordered = scores[order]
        self._units = units[order]
        self._positive = positive[order]
        hits = ordered[self._positive]
        self._below = np.searchsorted(ordered, hits, side="left")
        self._upto = np.searchsorted(ordered, hits, side="right")

    def area(self, weights: Weights) -> Values:
        """For weights ``(draws, units)``, shape ``(draws,)``."""
        drawn = weights[:, self._units]
        hits = drawn[:, self._positive]
        drawn[:, self._positive] = 0
        misses = np.cumsum(np.pad(drawn, ((0, 0), (1, 0))), axis=1)
        won = (hits * (misses[:, self._below] + misses[:, self._upto])).sum(axis=1) / 2
        with np.errstate(invalid="ignore"):
            return np.asarray(won / (hits.sum(axis=1) * misses[:, -1]))


def _macro(classes: list[_Ranked], weights: Weights) -> Values:
    areas = np.stack([each.area(weights) for each in classes])
    return _mean(areas, ~np.isnan(areas))


def _mean(values: Values, counts: NDArray[np.bool_]) -> Values:
    """Means over the first axis of the values that count; NaN where none does."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(counts, values, 0.0).sum(axis=0) / counts.sum(axis=0))


def _labelled_rows(seen: Seen, metric: str) -> tuple[Array, ClassRows]:
    seen.need_labels(metric)
    rows = class_rows(seen)
    assert rows.labels is not None
    return rows.labels, rows


def _single_scores(seen: Seen, labels: Array) -> list[Array]:
    """Scores of class 1, shape ``(samples, 1)`` for each model."""
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 1:
        raise InputError(f"{seen.data}: auc of a single score needs integer labels 0 and 1")
    scores = [outputs[0].reshape(-1, 1) for outputs in seen.outputs]
    for model, each in zip(seen.models, scores):
        if np.isnan(each).any():
            sample = seen.first + int(np.argmax(np.isnan(each)))
            raise InputError(f"{model}: the output is NaN for sample {sample}")
    return scores
