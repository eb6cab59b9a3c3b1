"""How far the outputs of a model are from the original's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.bench.data import DataSource
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.session import run
from onnxtrim.toolkit.graph.execute import Feeds, WeightFile
from onnxtrim.toolkit.resume import Beginning

Outputs = Mapping[str, NDArray[Any]]

KEPT_BYTES = 2**28
"""Of the original's outputs; if they take more, the original runs again every time."""


class Divergence:
    """How far a model's outputs are from the original's, on some samples.

    The measure is the squared difference over the variance of the original's output, averaged
    over the outputs of floats.

    Args:
        model: The original; it stays as it is.
        batches: Inputs.

    Raises:
        InputError: No output holds floats, or they overflow.
    """

    def __init__(self, model: ir.Model, batches: Sequence[Feeds]) -> None:
        self._names = [value.name or "" for value in model.graph.outputs]
        self._batches = batches
        self._session = WeightFile().session(model.clone(), optimise=True)
        self._kept: list[Outputs] | None = []
        self._variance = self._variances()
        if not self._variance:
            raise InputError(
                "no output of the model holds floats, so that nothing tells how far a smaller model"
                " is from it; cut the model where it gives scores"
            )
        if not all(np.isfinite(value) for value in self._variance.values()):
            raise InputError("the outputs of the model overflow on the calibration data")

    def of(self, model: ir.Model, beginning: Beginning | None = None) -> float:
        """The divergence of a model; infinite if its outputs are no numbers or of other shapes.

        Args:
            model: Its large weights move to a temporary file that goes: give one that is not
                needed any more, or a clone.
            beginning: A model that begins like it, with the same inputs (see :meth:`beginning`).
        """
        total = 0.0
        if beginning is None:
            outputs = self._outputs(WeightFile().session(model, optimise=True))
        else:
            outputs = beginning.run(model, list(self._variance))
        for want, got in zip(self._originals(), outputs, strict=True):
            for name, variance in self._variance.items():
                if want[name].shape != got[name].shape:
                    return np.inf
                with np.errstate(over="ignore", invalid="ignore"):
                    error = float(((want[name].astype(np.float64) - got[name]) ** 2).sum())
                total += error / variance if variance > 0 else error
        return total / len(self._variance) if np.isfinite(total) else np.inf

    def beginning(self, model: ir.Model) -> Beginning:
        """A model that others may begin with; it is not changed."""
        return Beginning(model, self._batches)

    def _variances(self) -> dict[str, float]:
        """Sums of squared deviations from the mean, shifted by the first value."""
        shifts: dict[str, float] = {}
        sums: dict[str, NDArray[np.float64]] = {}
        size = 0
        for found in self._outputs(self._session):
            for name, array in found.items():
                if array.size:
                    shift = shifts.setdefault(name, float(array.flat[0]))
                    with np.errstate(over="ignore", invalid="ignore"):
                        values = array.astype(np.float64) - shift
                        part = np.array([values.size, values.sum(), (values**2).sum()])
                    sums[name] = sums.get(name, np.zeros(3)) + part
            size += sum(array.nbytes for array in found.values())
            if self._kept is not None:
                self._kept.append(found)
                if size > KEPT_BYTES:
                    self._kept = None
        with np.errstate(invalid="ignore"):
            return {
                name: float(squares - total * total / count)
                for name, (count, total, squares) in sums.items()
            }

    def _originals(self) -> Iterator[Outputs]:
        yield from self._outputs(self._session) if self._kept is None else self._kept

    def _outputs(self, session: Any) -> Iterator[Outputs]:
        for feeds in self._batches:
            arrays = zip(self._names, run(session, dict(feeds), "the model"), strict=True)
            yield {name: a for name, a in arrays if np.issubdtype(a.dtype, np.floating)}


def first_batches(data: DataSource, count: int, size: int) -> list[Feeds]:
    """Inputs of the first samples, so many or a few more, in batches."""
    found: list[Feeds] = []
    seen = 0
    with contextlib.closing(data.batches(size)) as batches:
        for batch in batches:
            found.append(batch.feeds)
            seen += len(batch)
            if seen >= count:
                break
    return found


def divergence_of(original: ir.Model, model: ir.Model, batches: Sequence[Feeds]) -> float | None:
    """The divergence of a model, or ``None`` if the original's outputs can't tell.

    Args:
        original: It stays as it is.
        model: It stays as it is.
        batches: Inputs.
    """
    try:
        measure = Divergence(original, batches)
    except InputError:  # no floats, or they overflow
        return None
    return measure.of(model.clone())
