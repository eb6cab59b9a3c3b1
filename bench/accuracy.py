"""Accuracy on the same samples, both models in ONNX Runtime, one pass over the data."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.data import Batch, DataSource
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.results import Metric, Metrics
from onnxtrim.bench.session import RunOptions, open_session, run
from onnxtrim.bench.stats import Interval, clopper_pearson, mcnemar_p, tango_interval

Progress = Callable[[str, int, int], None]
PathLike = Union[str, "os.PathLike[str]"]


@dataclass
class AccuracyCounts:
    """What is counted while the samples stream by; ``first`` is the original.

    Attributes:
        samples: All samples.
        labelled: Samples with a label.
        right: Labelled samples that each model has right.
        losses: Right in the first, wrong in the second.
        gains: Wrong in the first, right in the second.
        classed: Samples for which both outputs are class scores.
        agreements: Samples to which both give the same class.
        squared_error: Sum of squared differences of the outputs.
        squared_output: Sum of squares of the first model's outputs.
    """

    samples: int = 0
    labelled: int = 0
    right: list[int] = field(default_factory=lambda: [0, 0])
    losses: int = 0
    gains: int = 0
    classed: int = 0
    agreements: int = 0
    squared_error: float = 0.0
    squared_output: float = 0.0

    def relative_error(self) -> float | None:
        """‖second − first‖ / ‖first‖ over all first outputs; ``None`` if that is no number."""
        if self.squared_output == 0 or not math.isfinite(self.squared_error + self.squared_output):
            return None
        return math.sqrt(self.squared_error / self.squared_output)


def measure_accuracy(
    model: PathLike,
    data: DataSource,
    options: RunOptions | None = None,
    batch: int = 256,
    progress: Progress | None = None,
) -> Metrics:
    """Top-1 accuracy of one model, with its Clopper–Pearson interval.

    Args:
        model: Its first output gives scores of shape ``(samples, classes)``.
        data: Samples with labels.
        options: How to run it.
        batch: Samples at a time.
        progress: Called with ``("accuracy", done, total)``; the total is 0 if unknown.

    Raises:
        InputError: The outputs or the labels do not fit, or there are no labels.
    """
    session = open_session(model, options or RunOptions())
    counts = AccuracyCounts()
    for part in data.batches(batch):
        scores = run(session, part.feeds, str(model))[0]
        classes = _classes(scores, part, str(model), counts.samples)
        counts.samples += len(part)
        if part.labels is None:
            raise InputError(f"{data.name}: has no labels, so accuracy can't be measured")
        _check_labels(part.labels, scores, data.name)
        counts.right[0] += int(np.count_nonzero(classes == part.labels))
        _report(progress, counts.samples, data)
    return {"accuracy.top1": _share(clopper_pearson(counts.right[0], counts.samples))}


def compare_accuracy(
    original: PathLike,
    candidate: PathLike,
    data: DataSource,
    options: RunOptions | None = None,
    batch: int = 256,
    progress: Progress | None = None,
) -> tuple[Metrics, AccuracyCounts]:
    """Top-1 accuracy of both models on the same samples, and how the candidate differs.

    With labels: the accuracies, their paired difference in percentage points (Tango's interval),
    the exact McNemar p-value, and the share of negative flips (right before, wrong now; Yan et
    al., CVPR 2021, https://arxiv.org/abs/2011.09161). If the output is class
    scores: the share of samples that get the same class. Shares have Clopper–Pearson intervals.

    Args:
        original: Its first output gives scores of shape ``(samples, classes)``.
        candidate: Likewise.
        data: Samples, with or without labels.
        options: How to run both.
        batch: Samples at a time.
        progress: Called with ``("accuracy", done, total)``; the total is 0 if unknown.

    Raises:
        InputError: The outputs or the labels do not fit.
    """
    paths = [str(original), str(candidate)]
    sessions = [open_session(path, options or RunOptions()) for path in paths]
    counts = AccuracyCounts()
    for part in data.batches(batch):
        scores = [run(s, part.feeds, p)[0] for s, p in zip(sessions, paths, strict=True)]
        _add(counts, scores, part, paths, data.name)
        _report(progress, counts.samples, data)
    if counts.labelled not in (0, counts.samples):
        raise InputError(f"{data.name}: only {counts.labelled} of the samples have labels")
    return _metrics(counts), counts


def _add(
    counts: AccuracyCounts, scores: list[NDArray[Any]], part: Batch, paths: list[str], name: str
) -> None:
    """Check and count one batch; ``name`` is the data's."""
    if scores[0].shape != scores[1].shape:
        raise InputError(
            f"the outputs differ in shape: {paths[0]} gives {scores[0].shape},"
            f" {paths[1]} gives {scores[1].shape}"
        )
    _count_error(counts, scores)
    if part.labels is not None or _is_class_scores(scores[0], len(part)):
        classes = [_classes(s, part, p, counts.samples) for s, p in zip(scores, paths, strict=True)]
        if part.labels is not None:
            _check_labels(part.labels, scores[0], name)
        _count(counts, classes, part.labels)
    counts.samples += len(part)


def _count_error(counts: AccuracyCounts, scores: list[NDArray[Any]]) -> None:
    first, second = (s.astype(np.float64) for s in scores)
    with np.errstate(all="ignore"):  # infinities end as no number, see relative_error
        counts.squared_error += float(np.sum((second - first) ** 2))
        counts.squared_output += float(np.sum(first**2))


def _count(
    counts: AccuracyCounts, classes: list[NDArray[Any]], labels: NDArray[Any] | None
) -> None:
    counts.classed += len(classes[0])
    counts.agreements += int(np.count_nonzero(classes[0] == classes[1]))
    if labels is None:
        return
    right = [found == labels for found in classes]
    counts.labelled += len(labels)
    for index in range(2):
        counts.right[index] += int(np.count_nonzero(right[index]))
    counts.losses += int(np.count_nonzero(right[0] & ~right[1]))
    counts.gains += int(np.count_nonzero(~right[0] & right[1]))


def _metrics(counts: AccuracyCounts) -> Metrics:
    count = counts.samples
    metrics: Metrics = {}
    if counts.classed == count:
        metrics["accuracy.agreement"] = _share(clopper_pearson(counts.agreements, count))
    if counts.labelled:
        delta = tango_interval(counts.losses, counts.gains, count)
        p = mcnemar_p(counts.losses, counts.gains)
        metrics |= {
            "accuracy.top1": _share(clopper_pearson(counts.right[1], count)),
            "accuracy.top1.original": _share(clopper_pearson(counts.right[0], count)),
            "accuracy.top1.delta": Metric(
                100 * delta.value, 100 * delta.low, 100 * delta.high, "points"
            ),
            "accuracy.negative_flip_rate": _share(clopper_pearson(counts.losses, count)),
            "accuracy.mcnemar_p": Metric.exact(p, "share"),
        }
    return metrics


def _share(interval: Interval) -> Metric:
    return Metric(interval.value, interval.low, interval.high, "share")


def _points(interval: Interval) -> Metric:
    return Metric(100 * interval.value, 100 * interval.low, 100 * interval.high, "points")


def _classes(scores: NDArray[Any], part: Batch, model: str, first: int) -> NDArray[Any]:
    if not _is_class_scores(scores, len(part)):
        raise InputError(
            f"{model}: the first output has shape {scores.shape} for {len(part)} samples; top-1"
            " accuracy needs (samples, classes) with at least 2 classes"
        )
    bad = np.isnan(scores).any(axis=1) if scores.dtype.kind == "f" else np.zeros(1, bool)
    if bad.any():
        raise InputError(f"{model}: the output is NaN for sample {first + int(np.argmax(bad))}")
    return np.asarray(scores.argmax(axis=1))


def _is_class_scores(scores: NDArray[Any], samples: int) -> bool:
    return scores.ndim == 2 and scores.shape[0] == samples and scores.shape[1] >= 2


def _check_labels(labels: NDArray[Any], scores: NDArray[Any], name: str) -> None:
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise InputError(
            f"{name}: labels go from {labels.min()} to {labels.max()}, but the model has classes"
            f" 0 to {scores.shape[1] - 1}"
        )


def _report(progress: Progress | None, done: int, data: DataSource) -> None:
    if progress is not None:
        progress("accuracy", done, data.samples or 0)
