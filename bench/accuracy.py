"""Accuracy on the same samples, both models in ONNX Runtime, one pass over the data."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.bootstrap import (
    CONFIDENCES,
    Resampled,
    by_groups,
    effective_units,
    paired_bootstrap,
)
from onnxtrim.bench.data import DataSource
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gathered import Gathered, SampleMean, Sums
from onnxtrim.bench.metrics import (
    RELATIVE,
    TOP1,
    agreement_sums,
    find_metric,
    flip_sums,
    top1_sums,
)
from onnxtrim.bench.predictions import ClassRows, Seen, class_rows, is_class_scores
from onnxtrim.bench.results import Metric, Metrics
from onnxtrim.bench.session import RunOptions, open_session, run
from onnxtrim.bench.slices import ClassCounts
from onnxtrim.bench.stats import Interval, clopper_pearson, mcnemar_p, tango_interval

Progress = Callable[[str, int, int], None]
PathLike = Union[str, "os.PathLike[str]"]
Intervals = dict[str, list[list[float]]]

AGREEMENT, FLIPS = "agreement", "negative_flip_rate"


@dataclass
class AccuracyCounts:
    """What is counted while the samples stream by; ``first`` is the original.

    Where samples have steps, ``right``, ``losses`` and ``gains`` count steps.

    Attributes:
        samples: All samples.
        labelled: Samples with a label, if top-1 accuracy is measured.
        right: Labelled samples that each model has right.
        losses: Right in the first, wrong in the second.
        gains: Wrong in the first, right in the second.
        classed: Samples for which both outputs are class scores.
        agreements: Samples to which both give the same class.
        squared_error: Sum of squared differences of the outputs.
        squared_output: Sum of squares of the first model's outputs.
        dependent: Metrics of answers that are not independent, by name: top-1 accuracy where
            samples have steps; where they have groups also agreement and negative flips.
        groups: Numbers of the groups of all samples, batch by batch.
        named: The number of each group's name.
        classes: The same counts for each class of the labels.
        intervals: ``[confidence, low, high]`` of each metric that the bootstrap tells of, by name:
            what is kept of it, since a claim may need another certainty than 95%.
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
    dependent: dict[str, SampleMean] = field(default_factory=dict)
    groups: list[NDArray[np.int64]] = field(default_factory=list)
    named: dict[int, int] = field(default_factory=dict)
    classes: ClassCounts = field(default_factory=ClassCounts)
    intervals: Intervals = field(default_factory=dict)

    def relative_error(self) -> float | None:
        """‖second − first‖ / ‖first‖ over all first outputs; ``None`` if that is no number."""
        if self.squared_output == 0 or not math.isfinite(self.squared_error + self.squared_output):
            return None
        return math.sqrt(self.squared_error / self.squared_output)

    def to_json(self) -> dict[str, Any]:
        """The counts as they stand in result files, with what came of every class."""
        return {
            "samples": self.samples,
            "losses": self.losses,
            "gains": self.gains,
            "relative_error": self.relative_error(),
            "classes": self.classes.to_json(independent=not self.dependent),
            "intervals": self.intervals,
            "groups": len(self.named) or None,
            "units": self.units(),
        }

    def add_groups(self, groups: NDArray[Any] | None) -> None:
        """Take the groups of the next samples."""
        if groups is not None:
            numbers = [self.named.setdefault(name, len(self.named)) for name in groups.tolist()]
            self.groups.append(np.asarray(numbers, np.int64))

    def add_dependent(self, name: str, sums: Sums, seen: Seen) -> None:
        """Take a batch of answers that are not independent."""
        self.dependent.setdefault(name, SampleMean(name, sums, "share")).add(seen)

    def check(self, data: str) -> None:
        """Refuse data of which only some samples have labels or groups.

        Raises:
            InputError: So it is.
        """
        grouped = sum(map(len, self.groups))
        for count, what in ((self.labelled, "labels"), (grouped, "groups")):
            if count not in (0, self.samples):
                raise InputError(f"{data}: only {count} of the samples have {what}")
        if len(self.named) == 1:
            raise InputError(f"{data}: all samples are of one group, so nothing can be told")

    def units(self) -> int:
        """How many independent samples there are in effect, see :func:`.effective_units`."""
        return int(effective_units(np.concatenate(self.groups))) if self.groups else self.samples

    def resampled(self, metric: Gathered) -> Resampled:
        """A metric with whole groups drawn, if samples have groups."""
        if not self.groups:
            return metric.resampled()
        return by_groups(metric.resampled(merge=False), np.concatenate(self.groups))


def measure_accuracy(
    model: PathLike,
    data: DataSource,
    options: RunOptions | None = None,
    batch: int = 256,
    progress: Progress | None = None,
    *,
    metrics: Sequence[str] = (),
    seed: int = 0,
) -> Metrics:
    """Metrics of one model: top-1 accuracy with its Clopper–Pearson interval, others bootstrapped.

    Args:
        model: Its first output gives scores of shape ``(samples, classes)``, or what the metrics
            need.
        data: Samples, with labels if the metrics need them.
        options: How to run it.
        batch: Samples at a time.
        progress: Called with ``("accuracy", done, total)``; the total is 0 if unknown.
        metrics: As of :func:`compare_accuracy`, but none that is a difference to an original; none
            for top-1.
        seed: Of the bootstrap.

    Raises:
        InputError: The outputs or the labels do not fit, or there is no such metric.
    """
    if relative := [name for name in metrics if name in RELATIVE]:
        raise InputError(f"metric {relative[0]}: is of two models; compare them")
    gathered: dict[str, Gathered] = {n: find_metric(n) for n in metrics if n != TOP1}
    session = open_session(model, options or RunOptions())
    counts = AccuracyCounts()
    for part in data.batches(batch):
        found = run(session, part.feeds, str(model))
        # A model beside itself: metrics are of two.
        twice = (found, found)
        seen = Seen(twice, part.labels, len(part), counts.samples, (str(model),) * 2, data.name)
        counts.add_groups(part.groups)
        if TOP1 in metrics or not metrics:
            _count_right(counts, seen)
        for metric in gathered.values():
            metric.add(seen)
        counts.samples += len(part)
        _report(progress, counts.samples, data)
    result: Metrics = {}
    counts.check(data.name)
    if TOP1 in counts.dependent:
        gathered[TOP1] = counts.dependent[TOP1]
    elif counts.labelled:
        result["accuracy.top1"] = _share(clopper_pearson(counts.right[1], counts.samples))
    for name, metric in gathered.items():
        plain = f"accuracy.{name}"
        result[plain] = _bootstrapped(name, counts.resampled(metric), metric.unit, seed)[plain]
    return result


def compare_accuracy(
    original: PathLike,
    candidate: PathLike,
    data: DataSource,
    options: RunOptions | None = None,
    batch: int = 256,
    progress: Progress | None = None,
    *,
    metrics: Sequence[str] = (),
    seed: int = 0,
) -> tuple[Metrics, AccuracyCounts]:
    """Metrics of both models on the same samples, and how the candidate differs.

    Top-1 accuracy: the accuracies, their paired difference in percentage points (Tango's interval),
    the exact McNemar p-value, and the share of negative flips (right before, wrong now; Yan et
    al., CVPR 2021, https://arxiv.org/abs/2011.09161). If the output is class
    scores: the share of samples that get the same class. Shares have Clopper–Pearson intervals.

    Any other metric, and top-1 accuracy over steps, has the intervals of a paired bootstrap over
    the samples, and is ``accuracy.NAME`` of the candidate, ``accuracy.NAME.original``, and
    ``accuracy.NAME.delta``, the candidate's minus the original's (shares in percentage points).
    Where the data tell of groups, all intervals are of a bootstrap that draws whole groups.

    Args:
        original: Its first output gives scores of shape ``(samples, classes)``, or what the
            metrics need (see :mod:`onnxtrim.bench.metrics`).
        candidate: Likewise.
        data: Samples, with or without labels.
        options: How to run both.
        batch: Samples at a time.
        progress: Called with ``("accuracy", done, total)``; the total is 0 if unknown.
        metrics: Names of metrics, ``"top1"`` among them; none for top-1 if there are labels.
        seed: Of the bootstrap.

    Raises:
        InputError: The outputs or the labels do not fit, or there is no such metric.
    """
    paths = (str(original), str(candidate))
    gathered = {name: find_metric(name) for name in metrics if name != TOP1}
    sessions = [open_session(path, options or RunOptions()) for path in paths]
    counts = AccuracyCounts()
    for part in data.batches(batch):
        outputs = tuple(run(s, part.feeds, p) for s, p in zip(sessions, paths))
        seen = Seen(outputs, part.labels, len(part), counts.samples, paths, data.name)
        counts.add_groups(part.groups)
        _add(counts, seen, TOP1 in metrics or (not metrics and part.labels is not None))
        for metric in gathered.values():
            metric.add(seen)
        _report(progress, counts.samples, data)
    counts.check(data.name)
    found = _metrics(counts, seed)
    for name, metric in gathered.items():
        drawn = counts.resampled(metric)
        found |= _bootstrapped(name, drawn, metric.unit, seed, counts.intervals)
    return found, counts


def _add(counts: AccuracyCounts, seen: Seen, top1: bool) -> None:
    """Check and count one batch."""
    scores = [outputs[0] for outputs in seen.outputs]
    if scores[0].shape != scores[1].shape:
        raise InputError(
            f"the outputs differ in shape: {seen.models[0]} gives {scores[0].shape},"
            f" {seen.models[1]} gives {scores[1].shape}"
        )
    _count_error(counts, scores)
    if top1:
        rows = _count_right(counts, seen)
        if not rows.steps:
            _count_agreements(counts, seen, rows)
    elif is_class_scores(scores[0], seen.samples) and not _has_numbers(seen):
        _count_agreements(counts, seen, class_rows(replace(seen, labels=None)))
    counts.samples += seen.samples


def _count_right(counts: AccuracyCounts, seen: Seen) -> ClassRows:
    """Top-1 accuracy of one batch."""
    seen.need_labels("top-1 accuracy")
    rows = class_rows(seen)
    _count(counts, rows)
    counts.labelled += seen.samples
    if rows.steps or counts.groups:
        counts.add_dependent(TOP1, top1_sums, seen)
    if counts.groups and not rows.steps:
        counts.add_dependent(FLIPS, flip_sums, seen)
    return rows


def _has_numbers(seen: Seen) -> bool:
    """Whether the labels say that the output is no class scores."""
    return seen.labels is not None and (seen.labels.ndim > 1 or seen.labels.dtype.kind == "f")


def _count_error(counts: AccuracyCounts, scores: list[NDArray[Any]]) -> None:
    first, second = (s.astype(np.float64) for s in scores)
    with np.errstate(all="ignore"):  # infinities end as no number, see relative_error
        counts.squared_error += float(np.sum((second - first) ** 2))
        counts.squared_output += float(np.sum(first**2))


def _count(counts: AccuracyCounts, rows: ClassRows) -> None:
    assert rows.labels is not None
    first, second = (found == rows.labels for found in rows.classes())
    for index, right in enumerate((first, second)):
        counts.right[index] += int(np.count_nonzero(right))
    counts.losses += int(np.count_nonzero(first & ~second))
    counts.gains += int(np.count_nonzero(~first & second))
    counts.classes.add(rows.labels, first, second, rows.scores[0].shape[1])


def _count_agreements(counts: AccuracyCounts, seen: Seen, rows: ClassRows) -> None:
    if counts.groups:
        counts.add_dependent(AGREEMENT, agreement_sums, seen)
    first, second = rows.classes()
    counts.classed += len(first)
    counts.agreements += int(np.count_nonzero(first == second))


def _metrics(counts: AccuracyCounts, seed: int) -> Metrics:
    count = counts.samples
    metrics: Metrics = {}
    if counts.classed == count and not counts.groups:
        metrics["accuracy.agreement"] = _share(clopper_pearson(counts.agreements, count))
    for name, mean in counts.dependent.items():
        if mean.samples < count:  # not all samples have it
            continue
        drawn = counts.resampled(mean)
        found = _bootstrapped(name, drawn, mean.unit, seed, counts.intervals)
        if name != TOP1:  # is of both models together
            del counts.intervals[f"accuracy.{name}.delta"]
            found = {f"accuracy.{name}": found[f"accuracy.{name}"]}
        metrics |= found
    if counts.labelled and not counts.dependent:
        p = mcnemar_p(counts.losses, counts.gains)
        metrics |= {
            "accuracy.top1": _share(clopper_pearson(counts.right[1], count)),
            "accuracy.top1.original": _share(clopper_pearson(counts.right[0], count)),
            "accuracy.top1.delta": _points(tango_interval(counts.losses, counts.gains, count)),
            "accuracy.negative_flip_rate": _share(clopper_pearson(counts.losses, count)),
            "accuracy.mcnemar_p": Metric.exact(p, "share"),
        }
    return metrics


def _bootstrapped(
    name: str, metric: Resampled, unit: str, seed: int, kept: Intervals | None = None
) -> Metrics:
    """The metric of both models; its intervals of other confidences go into ``kept``."""
    drawn = paired_bootstrap(metric, seed)
    if math.isnan(drawn.whole[1] - drawn.whole[0]):
        raise InputError(f"metric {name}: no sample counts, so it has no value")
    share = unit == "share"
    plain = f"accuracy.{name}"
    if kept is not None:
        pairs = [(confidence, drawn.at(confidence)) for confidence in CONFIDENCES]
        kept[plain] = [[c, pair.candidate.low, pair.candidate.high] for c, pair in pairs]
        deltas = [(c, _difference(pair.delta, share=share)) for c, pair in pairs]
        kept[f"{plain}.delta"] = [[c, delta.low, delta.high] for c, delta in deltas]
    found = drawn.at()
    return {
        plain: Metric(*found.candidate, unit),
        f"{plain}.original": Metric(*found.original, unit),
        f"{plain}.delta": _difference(found.delta, share=share),
    }


def _difference(delta: Interval, *, share: bool) -> Metric:
    return _points(delta) if share else Metric(*delta, "value")


def _share(interval: Interval) -> Metric:
    return Metric(interval.value, interval.low, interval.high, "share")


def _points(interval: Interval) -> Metric:
    return Metric(100 * interval.value, 100 * interval.low, 100 * interval.high, "points")


def _report(progress: Progress | None, done: int, data: DataSource) -> None:
    if progress is not None:
        progress("accuracy", done, data.samples or 0)
