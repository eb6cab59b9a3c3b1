"""What two models gave for the same samples, and the class scores in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError

Array = NDArray[Any]

MASKED = -100
"""The label of a step that does not count, as in torch's ``cross_entropy``."""


@dataclass(frozen=True)
class Seen:
    """One batch, as models saw it.

    Attributes:
        outputs: For each model all its outputs, shape ``(samples, ...)`` each.
        labels: Shape ``(samples, ...)``, or ``None``.
        samples: How many samples.
        first: Index of the first sample in the data.
        models: Names of the models, for messages.
        data: Name of the data, for messages.
    """

    outputs: tuple[list[Array], ...]
    labels: Array | None
    samples: int
    first: int
    models: tuple[str, ...]
    data: str

    def need_labels(self, metric: str) -> Array:
        """The labels.

        Raises:
            InputError: There are none.
        """
        if self.labels is None:
            raise InputError(f"{self.data}: has no labels, so {metric} can't be measured")
        return self.labels


@dataclass(frozen=True)
class ClassRows:
    """Class scores with their labels, one row per sample or per step that counts.

    Attributes:
        scores: For each model, shape ``(rows, classes)``.
        labels: Shape ``(rows,)``; ``None`` if there are none.
        sample: Index in the batch of the sample that a row belongs to, shape ``(rows,)``.
        steps: Whether samples have steps.
    """

    scores: list[Array]
    labels: Array | None
    sample: NDArray[np.int64]
    steps: bool

    def classes(self) -> list[NDArray[np.int64]]:
        """The class of the highest score, the first one of equals, for each model."""
        return [scores.argmax(axis=1) for scores in self.scores]


def is_class_scores(scores: Array, samples: int) -> bool:
    """Whether an output can be class scores of samples without steps."""
    return scores.ndim == 2 and scores.shape[0] == samples and scores.shape[1] >= 2


def class_rows(seen: Seen) -> ClassRows:
    """Read the first outputs as class scores.

    They have shape ``(samples, classes)``; where the labels have steps, shape ``(samples, steps)``,
    it is ``(samples, steps, classes)``, and steps whose label is ``MASKED`` do not count.

    Raises:
        InputError: Outputs or labels of another shape or type, NaN, or labels out of range.
    """
    labels = seen.labels
    if labels is not None and labels.dtype.kind not in "iu":
        raise InputError(
            f"{seen.data}: 'labels' is {labels.dtype}; give integers, the class of each sample, or"
            " measure what goes with numbers (metric mae or rmse)"
        )
    shape = (seen.samples,) if labels is None else labels.shape
    for model, outputs in zip(seen.models, seen.outputs):
        _check_scores(outputs[0], shape, seen, model)
    scores = [outputs[0].reshape(-1, outputs[0].shape[-1]) for outputs in seen.outputs]
    sample = np.repeat(np.arange(seen.samples), math.prod(shape[1:]))
    if labels is None:
        return ClassRows(scores, None, sample, steps=False)
    flat, steps = labels.reshape(-1), len(shape) > 1
    if steps and (flat == MASKED).any():
        counts = flat != MASKED
        scores, flat, sample = [each[counts] for each in scores], flat[counts], sample[counts]
    _check_labels(flat, scores[0].shape[1], seen.data)
    return ClassRows(scores, flat, sample, steps)


def are_probabilities(scores: Array) -> bool:
    """Whether all rows are distributions; else they are taken for logits."""
    rows = scores.astype(np.float64)
    return bool((rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) < 2e-3).all())


def log_softmax(scores: Array) -> NDArray[np.float64]:
    """Logarithms of the probabilities that logits of shape ``(rows, classes)`` stand for."""
    shifted = scores.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _check_scores(scores: Array, shape: tuple[int, ...], seen: Seen, model: str) -> None:
    if scores.shape[:-1] != shape or scores.ndim < 2 or scores.shape[-1] < 2:
        steps = "" if len(shape) == 1 else f" and labels {shape}"
        wanted = "(samples, classes)" if len(shape) == 1 else f"{shape} and a last axis of classes"
        raise InputError(
            f"{model}: the first output has shape {scores.shape} for {seen.samples} samples{steps};"
            f" class scores are {wanted} with at least 2 classes"
        )
    if scores.dtype.kind == "f" and np.isnan(scores).any():
        bad = np.isnan(scores).reshape(seen.samples, -1).any(axis=1)
        raise InputError(
            f"{model}: the output is NaN for sample {seen.first + int(np.argmax(bad))}"
        )


def _check_labels(labels: Array, classes: int, name: str) -> None:
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise InputError(
            f"{name}: labels go from {labels.min()} to {labels.max()}, but the model has classes"
            f" 0 to {classes - 1}"
        )
