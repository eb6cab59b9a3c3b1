"""What each unit does: streaming statistics of the tensors that consumers read.

One pass in ONNX Runtime. The sums are appended to the graph and computed in float64 there, so
that only one number per unit and batch leaves the session; memory does not grow with the number
of samples. Values are shifted by the first batch's mean before squaring, so that the variance
does not cancel. Statistics over disjoint data merge exactly (Chan, Golub, LeVeque 1983).
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.data import DataSource
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import atomic_path
from onnxtrim.toolkit.comoments import Halves, SecondMoments, join
from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.probe import StatisticsProbe

SCHEMA = "onnxtrim.statistics/2"
_FIELDS = ("mean", "m2", "abs_mean", "zeros", "low", "high")

# What numpy and json raise on a file that something else wrote.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Statistics of every position on one axis of a tensor.

    Attributes:
        count: Values seen at each position (samples × elements on the other axes).
        mean: Their mean.
        m2: Sum of squared deviations from the mean.
        abs_mean: Mean absolute value.
        zeros: Share of exact zeros.
        low: Smallest value.
        high: Largest value.
    """

    count: int
    mean: Vector
    m2: Vector
    abs_mean: Vector
    zeros: Vector
    low: Vector
    high: Vector

    @property
    def variance(self) -> Vector:
        """Population variance of each position."""
        return self.m2 / self.count

    @property
    def std(self) -> Vector:
        """Population standard deviation of each position."""
        return np.sqrt(self.variance)

    def merge(self, other: Moments) -> Moments:
        """Statistics of both data sets together (Chan, Golub, LeVeque 1983)."""
        count = self.count + other.count
        share = other.count / count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * share,
            self.m2 + other.m2 + delta**2 * self.count * share,
            self.abs_mean + (other.abs_mean - self.abs_mean) * share,
            self.zeros + (other.zeros - self.zeros) * share,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def cut(self, stays: NDArray[np.bool_]) -> Moments:
        """Statistics of some positions."""
        return replace(self, **{part: getattr(self, part)[stays] for part in _FIELDS})

    def pool(self, units: NDArray[np.int64], count: int) -> Moments:
        """Statistics of units that each lie on one or several positions.

        Args:
            units: The unit at each position, -1 for none.
            count: Number of units; each lies on equally many positions.
        """
        chosen = units >= 0
        index = units[chosen]
        per_unit = np.bincount(index, minlength=count).astype(np.float64)

        def average(values: Vector) -> Vector:
            sums: Vector = np.bincount(index, values[chosen], count).astype(np.float64)
            return sums / per_unit

        mean = average(self.mean)
        between = self.count * (self.mean[chosen] - mean[index]) ** 2
        m2 = average(self.m2) * per_unit + np.bincount(index, between, count)
        low, high = np.full(count, np.inf), np.full(count, -np.inf)
        np.minimum.at(low, index, self.low[chosen])
        np.maximum.at(high, index, self.high[chosen])
        total = self.count * round(float(per_unit[0]))
        return Moments(total, mean, m2, average(self.abs_mean), average(self.zeros), low, high)


@dataclass(frozen=True)
class Statistics:
    """Statistics of every tensor axis at which units are read.

    Attributes:
        model_sha256: Hash of the model file they belong to.
        data_name: What the data were called.
        data_sha256: Hash of the data.
        samples: Number of samples seen.
        points: For every (tensor, axis) the moments of its positions.
        inputs: Shape of every input at the smallest batch.
        halves: Second moments of two parts of the data; empty if they were left out.
    """

    model_sha256: str
    data_name: str
    data_sha256: str
    samples: int
    points: dict[AxisRef, Moments]
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    halves: Halves = ({}, {})

    def of(self, group: Group) -> list[Moments]:
        """Statistics of a group's units, at each place where they are read."""
        return [
            self.points[ref].pool(group.slices[ref], group.units)
            for ref in group.consumer_inputs()
            if ref in group.slices
        ]

    def cut(self, stays: Positions) -> Statistics:
        """The statistics of what a stage leaves.

        Args:
            stays: For every axis that lost positions, which of them stay.
        """
        points = {
            ref: moments.cut(stays[ref]) if ref in stays else moments
            for ref, moments in self.points.items()
        }
        return replace(self, points=points, halves=({}, {}))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` file, whole or not at all, the same bytes for the same numbers."""
        points = [[tensor, axis, moments.count] for (tensor, axis), moments in self.points.items()]
        head = {
            "schema": SCHEMA,
            "model_sha256": self.model_sha256,
            "data": {"name": self.data_name, "sha256": self.data_sha256, "samples": self.samples},
            "points": points,
            "pairs": [
                [[tensor, axis, found.count] for (tensor, axis), found in half.items()]
                for half in self.halves
            ],
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
        }
        arrays: dict[str, NDArray[Any]] = {
            "head": np.frombuffer(json.dumps(head).encode(), np.uint8)
        }
        for number, moments in enumerate(self.points.values()):
            for part in _FIELDS:
                arrays[f"{number}.{part}"] = getattr(moments, part)
        for place, half in enumerate(self.halves):
            for number, found in enumerate(half.values()):
                arrays[f"pairs{place}.{number}.mean"] = found.mean
                arrays[f"pairs{place}.{number}.comoment"] = _packed(found.comoment)
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, array, allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: Missing, not a statistics file, or of another version.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                head = json.loads(bytes(archive["head"]))
                if head.get("schema") != SCHEMA:
                    raise InputError(
                        f"{path}: has schema {head.get('schema')!r}, expected {SCHEMA!r}"
                    )
                points = {
                    (str(tensor), int(axis)): Moments(
                        int(count), *(archive[f"{number}.{part}"] for part in _FIELDS)
                    )
                    for number, (tensor, axis, count) in enumerate(head["points"])
                }
                halves = tuple(
                    {
                        (str(tensor), int(axis)): _pairs(archive, f"pairs{place}.{number}", count)
                        for number, (tensor, axis, count) in enumerate(head["pairs"][place])
                    }
                    for place in range(2)
                )
                data = head["data"]
                inputs = {str(name): tuple(shape) for name, shape in head["inputs"].items()}
                return cls(
                    head["model_sha256"],
                    data["name"],
                    data["sha256"],
                    data["samples"],
                    points,
                    inputs,
                    (halves[0], halves[1]),
                )
        except _UNREADABLE as error:
            raise InputError(
                f"{path}: is not a statistics file; make one with 'onnxtrim stats'"
            ) from error

    def require(self, analysis: Analysis, model_sha256: str, path: str) -> None:
        """Check that these statistics belong to a model.

        Raises:
            InputError: They were gathered on another model.
        """
        missing = [ref for ref in analysis.consumer_inputs() if ref not in self.points]
        if self.model_sha256 != model_sha256 or missing:
            raise InputError(
                f"{path}: these statistics belong to another model;"
                " gather them again with 'onnxtrim stats'"
            )

    def require_halves(self, points: Sequence[AxisRef]) -> Halves:
        """The second moments, with a look at whether all are there.

        Raises:
            InputError: Some are missing.
        """
        if any(ref not in self.halves[0] for ref in points):
            raise InputError(
                "these statistics hold no second moments, which a budget needs; gather them again"
                " with 'onnxtrim stats', without --no-pairs"
            )
        return self.halves


def _packed(comoment: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper triangle of a symmetric matrix, row by row; a vector as it is."""
    return comoment if comoment.ndim == 1 else comoment[np.triu_indices(len(comoment))]


def _pairs(archive: Mapping[str, NDArray[Any]], name: str, count: int) -> SecondMoments:
    mean, packed = archive[f"{name}.mean"], archive[f"{name}.comoment"]
    if packed.shape == mean.shape and len(mean) > 1:
        return SecondMoments(int(count), mean, packed)
    comoment = np.zeros((len(mean), len(mean)))
    comoment[np.triu_indices(len(mean))] = packed
    return SecondMoments(int(count), mean, comoment + np.triu(comoment, 1).T)


Progress = Callable[[str, int, int | None], None]


def gather(
    analysis: Analysis,
    data: DataSource,
    model_sha256: str,
    *,
    batch: int = 256,
    progress: Progress | None = None,
) -> Statistics:
    """Run the calibration data through the model once and gather statistics.

    Args:
        analysis: The model and the axes to look at.
        data: Calibration data; labels are not used.
        model_sha256: Hash of the model's file.
        batch: Samples per run.
        progress: Called with a word, the samples done and their number if known.

    Raises:
        InputError: The data don't fit the model, or hold NaN or infinity, or there are none.
    """
    normalised = analysis.normalised
    probe = StatisticsProbe(
        analysis.model, analysis.consumer_inputs(), normalised.shapes, normalised.weights
    )
    total: dict[AxisRef, Moments] = {}
    samples = 0
    for feeds, size in _batches(data, batch):
        if not total:
            probe.centre(feeds)
        for ref, sums in probe.run(feeds).items():
            moments = Moments(*sums)
            require_finite(moments.mean, moments.m2, ref[0], data.name)
            total[ref] = total[ref].merge(moments) if ref in total else moments
        samples += size
        if progress is not None:
            progress("statistics", samples, data.samples)
    inputs = {name: array.shape for name, array in normalised.feeds.items()}
    return Statistics(model_sha256, data.name, data.sha256, samples, total, inputs)


def require_finite(
    mean: NDArray[np.float64], spread: NDArray[np.float64], tensor: str, data: str
) -> None:
    """Refuse statistics of activations that overflow.

    Raises:
        InputError: They are no numbers.
    """
    if not np.isfinite(mean).all() or not np.isfinite(spread).all():
        raise InputError(
            f"tensor {tensor!r} takes NaN or infinite values on {data};"
            " check the preprocessing of the data"
        )


def _batches(data: DataSource, batch: int) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
    for item in data.batches(batch):
        yield item.feeds, len(next(iter(item.feeds.values())))


def merge(one: Statistics, other: Statistics) -> Statistics:
    """Statistics over two disjoint data sets of the same model.

    Raises:
        InputError: They belong to different models, or one lacks second moments.
    """
    if one.model_sha256 != other.model_sha256 or one.points.keys() != other.points.keys():
        raise InputError("the two statistics belong to different models")
    if bool(one.halves[0]) != bool(other.halves[0]):
        raise InputError("only one of the two statistics holds second moments; gather both alike")
    points = {ref: one.points[ref].merge(other.points[ref]) for ref in one.points}
    halves = join(one.halves[0], other.halves[0]), join(one.halves[1], other.halves[1])
    name = f"{one.data_name} + {other.data_name}"
    sha256 = f"{one.data_sha256}+{other.data_sha256}"
    samples = one.samples + other.samples
    return replace(
        one, data_name=name, data_sha256=sha256, samples=samples, points=points, halves=halves
    )
