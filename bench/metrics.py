"""Metrics beside top-1 accuracy, of two models on the same samples.

==========  =====================================================================  ========
name        what it is                                                             labels
==========  =====================================================================  ========
``top5``    share of samples whose label is among the five highest scores          classes
``f1``      F1, the mean over the classes that occur in the labels                 classes
``auc``     area under the ROC curve; of several classes the mean of each against  classes
            the rest
``mae``     mean absolute error of the output                                      numbers
``rmse``    root of the mean squared error of the output                           numbers
``cosine``  mean cosine similarity of the output to the original's                 none
``kl``      mean Kullback–Leibler divergence of the output's probabilities from    none
            the original's, in nats
==========  =====================================================================  ========

All look at the first output. Where samples have steps, labels ``(samples, steps)``, the metrics of
classes are over all steps that count.

A metric of the user's own is a function ``package.module:function``. It gets ``(outputs, labels)``
of one batch and one model: ``outputs`` is a list of all its outputs in order, arrays of shape
``(samples, ...)``, and ``labels`` the labels of these samples, or ``None``. It gives one finite
number per sample, shape ``(samples,)``; the metric is their mean over all samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.data import import_function
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gathered import Gathered, MacroAuc, MacroF1, SampleMean
from onnxtrim.bench.predictions import (
    Array,
    ClassRows,
    Seen,
    are_probabilities,
    class_rows,
    log_softmax,
)

Values = NDArray[np.float64]

TOP1 = "top1"
"""Counted apart, for it has exact intervals."""

RELATIVE = ("cosine", "kl")
"""Differences to an original, which one model alone does not have."""

_LEAST = 1e-12  # a probability in a logarithm


def known_metrics() -> tuple[str, ...]:
    """Names of the metrics that are built in."""
    return tuple(_METRICS)


def find_metric(name: str) -> Gathered:
    """A metric with nothing gathered yet.

    Raises:
        InputError: There is none of this name.
    """
    if name in _METRICS:
        return _METRICS[name]()
    module, _, function = name.partition(":")
    if not (module and function):
        known = ", ".join((TOP1, *_METRICS))
        raise InputError(f"metric {name!r}: must be one of {known}, or package.module:function")
    return SampleMean(name, _own(name, import_function(module, function)))


def top1_sums(seen: Seen) -> Values:
    """Right answers of both models and how many there could be, per sample."""
    rows = class_rows(seen)
    return _per_sample([found == rows.labels for found in rows.classes()], rows, seen.samples)


def agreement_sums(seen: Seen) -> Values:
    """Samples to which both models give the same class."""
    first, second = class_rows(replace(seen, labels=None)).classes()
    same = (first == second).astype(np.float64)
    return np.stack([same, same, np.ones(seen.samples)], axis=1)


def flip_sums(seen: Seen) -> Values:
    """Samples right in the first model and wrong in the second."""
    rows = class_rows(seen)
    first, second = (found == rows.labels for found in rows.classes())
    lost = (first & ~second).astype(np.float64)
    return np.stack([lost, lost, np.ones(seen.samples)], axis=1)


def _top5(seen: Seen) -> Values:
    seen.need_labels("top5")
    rows = class_rows(seen)
    if rows.scores[0].shape[1] <= 5:
        raise InputError(
            f"{seen.models[0]}: top5 of {rows.scores[0].shape[1]} classes is always right"
        )
    assert rows.labels is not None
    hits = []
    for scores in rows.scores:
        own = np.take_along_axis(scores, rows.labels[:, None], axis=1)
        before = np.arange(scores.shape[1]) < rows.labels[:, None]  # of equals, as argmax does
        rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
        hits.append(rank < 5)
    return _per_sample(hits, rows, seen.samples)


def _errors(power: int, name: str) -> Callable[[Seen], Values]:
    """Sums over the output of \\|output − label\\| to a power."""

    def sums(seen: Seen) -> Values:
        labels = seen.need_labels(name).astype(np.float64)
        columns = []
        for model, outputs in zip(seen.models, seen.outputs):
            output = outputs[0]
            if _without_ones(output.shape) != _without_ones(labels.shape):
                raise InputError(
                    f"{model}: the first output has shape {output.shape}, but the labels have"
                    f" {labels.shape}; {name} needs one number for each"
                )
            error = output.astype(np.float64).reshape(labels.shape) - labels
            columns.append((np.abs(error) ** power).reshape(seen.samples, -1).sum(axis=1))
        numbers = np.full(seen.samples, labels.size / seen.samples)
        return np.stack([*columns, numbers], axis=1)

    return sums


def _cosine(seen: Seen) -> Values:
    """Of two outputs that are zero it is 1, of one that is, 0."""
    outputs = [outputs[0].astype(np.float64) for outputs in seen.outputs]
    if outputs[0].shape[:1] != (seen.samples,):
        raise InputError(
            f"{seen.models[0]}: the first output has shape {outputs[0].shape} for {seen.samples}"
            " samples; cosine needs (samples, ...)"
        )
    flat = [each.reshape(seen.samples, -1) for each in outputs]
    norms = [np.linalg.norm(each, axis=1) for each in flat]
    product = norms[0] * norms[1]
    same = (norms[0] == 0) & (norms[1] == 0)
    cosine = (flat[0] * flat[1]).sum(axis=1) / np.where(product == 0, 1.0, product)
    ones = np.ones(seen.samples)
    return np.stack([ones, np.where(same, 1.0, cosine), ones], axis=1)


class _Divergence:
    """KL(original ‖ candidate); the first batch tells whether scores are logits."""

    def __init__(self) -> None:
        self._logits: bool | None = None

    def __call__(self, seen: Seen) -> Values:
        scores = [outputs[0] for outputs in seen.outputs]
        shape = scores[0].shape
        if len(shape) < 2 or shape[-1] < 2 or shape[0] != seen.samples:
            raise InputError(
                f"{seen.models[0]}: the first output has shape {shape} for {seen.samples} samples;"
                " kl needs (samples, ..., classes) with at least 2 classes"
            )
        rows = [each.reshape(-1, shape[-1]) for each in scores]
        if self._logits is None:
            self._logits = not are_probabilities(rows[0])
        first, second = (self._logarithms(each) for each in rows)
        found = (np.exp(first) * (first - second)).sum(axis=1).reshape(seen.samples, -1)
        numbers = np.full(seen.samples, found.shape[1])
        return np.stack([np.zeros(seen.samples), found.sum(axis=1), numbers], axis=1)

    def _logarithms(self, rows: Array) -> Values:
        if self._logits:
            return log_softmax(rows)
        return np.asarray(np.log(np.maximum(rows.astype(np.float64), _LEAST)))


def _own(name: str, function: Callable[..., Any]) -> Callable[[Seen], Values]:
    """A user's function, called once per model and batch."""

    def sums(seen: Seen) -> Values:
        columns = []
        for outputs in seen.outputs:
            try:
                found = np.asarray(function(list(outputs), seen.labels), np.float64)
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise InputError(f"metric {name}: raised {reason}") from error
            if found.shape != (seen.samples,):
                raise InputError(
                    f"metric {name}: gave shape {found.shape} for {seen.samples} samples; must give"
                    f" one number per sample, shape ({seen.samples},)"
                )
            columns.append(found)
        return np.stack([*columns, np.ones(seen.samples)], axis=1)

    return sums


_METRICS: dict[str, Callable[[], Gathered]] = {
    "top5": lambda: SampleMean("top5", _top5, "share"),
    "f1": MacroF1,
    "auc": MacroAuc,
    "mae": lambda: SampleMean("mae", _errors(1, "mae")),
    "rmse": lambda: SampleMean("rmse", _errors(2, "rmse"), root=True),
    "cosine": lambda: SampleMean("cosine", _cosine),
    "kl": lambda: SampleMean("kl", _Divergence()),
}


def _per_sample(hits: list[NDArray[np.bool_]], rows: ClassRows, samples: int) -> Values:
    """Sums of rows over their samples, shape ``(samples, 3)``."""
    columns = [np.bincount(rows.sample, each, samples) for each in hits]
    return np.stack([*columns, np.bincount(rows.sample, minlength=samples)], axis=1)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of each sample without axes of size 1."""
    return shape[:1] + tuple(n for n in shape[1:] if n != 1)
