"""Prove that a pruned model computes the same as the original with the removed units masked.

Every inner tensor is compared (the kept slices of the masked original against the pruned model),
not only the output: saturated outputs would let errors through. No fixed tolerance is right for
every tensor, so each is allowed ``FACTOR`` rounding errors of its largest element, or as many
times what it moves when the masked model's input, and what each consumer sees, move by about one
part in 10⁷.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError, SelfCheckError
from onnxtrim.bench.machine import release_memory
from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.execute import (
    Feeds,
    Prober,
    WeightFile,
    blocks,
    tensor_values,
)
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.mask import mask_units
from onnxtrim.toolkit.graph.surgery import Keep, positions, remove_units

FACTOR = 100.0
FLIPS = 10.0  # the same for the share of integers that differ
BLOCK_ELEMENTS = 4_000_000  # elements of inner tensors held at once, for the largest input
SMALL_SHARE = 0.1  # of the removal, in the second check

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class SelfCheck:
    """What the self-check saw.

    Attributes:
        max_error: Largest difference of any tensor, relative to the tensor's largest element.
        effect: Largest relative change of a model output by masking and repair; 0 means that
            the removal changed nothing that this check could see.
        tensors: Number of tensors that were compared.
    """

    max_error: float
    effect: float
    tensors: int

    def joined(self, other: SelfCheck) -> SelfCheck:
        """What two checks saw together."""
        return SelfCheck(
            max(self.max_error, other.max_error),
            max(self.effect, other.effect),
            self.tensors + other.tensors,
        )

    def to_json(self) -> dict[str, float | int]:
        """The form in which it stands in results."""
        return {"max_error": self.max_error, "effect": self.effect, "tensors": self.tensors}


def self_check(
    model: ir.Model,
    pruned: ir.Model,
    analysis: Analysis,
    keep: Keep,
    feeds: Sequence[Feeds],
    *,
    deep: bool = True,
) -> SelfCheck:
    """Compare a pruned model with its reference, and a smaller removal besides.

    Args:
        model: The normalised model with repaired weights, from which ``pruned`` was cut.
        pruned: The result of surgery.
        analysis: The analysis of the normalised model.
        keep: The removal.
        feeds: Inputs, real and random, at two batch sizes.
        deep: Compare every inner tensor; else only the outputs, and no smaller removal.

    Raises:
        SelfCheckError: Naming the first tensor that differs, its node and the groups there.
    """
    result = _Comparison(model, pruned, analysis, keep).run(feeds, deep=deep)
    if deep:
        small = _smaller(keep)
        cut = remove_units(analysis.model, analysis, small)
        _Comparison(analysis.model, cut, analysis, small).run(feeds[:1], deep=True)
    return result


def _smaller(keep: Keep) -> dict[str, NDArray[np.bool_]]:
    """The same removal with a tenth of its units, so that the signal survives."""
    small = {}
    for name, mask in keep.items():
        removed = np.flatnonzero(~mask)
        some = removed[:: max(1, round(1 / SMALL_SHARE))]
        small[name] = np.ones(len(mask), np.bool_)
        small[name][some] = False
    return small


class _Comparison:
    """A pruned model beside the masked original."""

    def __init__(self, model: ir.Model, pruned: ir.Model, analysis: Analysis, keep: Keep) -> None:
        weights = analysis.normalised.weights
        masked = mask_units(model, analysis, keep)
        self.analysis, self.keep = analysis, keep
        self.stays = positions(analysis, keep)
        self.values = [value.name or "" for value in tensor_values(model)]
        self.outputs = [
            value.name or "" for value in model.graph.outputs if value.producer() is not None
        ]
        self.present = {value.name for value in tensor_values(pruned)}
        self.original, self.masked = Prober(analysis.model, weights), Prober(masked, weights)
        pruned_weights = WeightFile()
        pruned_weights.adopt(pruned)
        self.pruned = Prober(pruned, pruned_weights)
        self.masked_outputs: dict[tuple[int, str], NDArray[Any]] = {}
        self.model = model

    @functools.cached_property
    def control(self) -> Prober:
        """The masked original in which every consumer sees slightly other values."""
        noise = np.random.default_rng(0)
        moved = mask_units(self.model, self.analysis, self.keep, noise)
        return Prober(moved, self.analysis.normalised.weights)

    def run(self, feeds: Sequence[Feeds], *, deep: bool) -> SelfCheck:
        shapes = self.analysis.normalised.shapes
        names = self.outputs
        if deep:
            names = [name for name in self.values if name in self.present and name in shapes]
        largest = max(_elements(feed) for feed in feeds)
        limit = BLOCK_ELEMENTS * _elements(self.analysis.normalised.feeds) // max(largest, 1)
        max_error = 0.0
        for block in blocks(names, shapes, limit):
            max_error = max(max_error, self._block(block, feeds))
            release_memory()
        return SelfCheck(max_error, self._effect(feeds), len(names))

    def _block(self, names: Sequence[str], feeds: Sequence[Feeds]) -> float:
        reference = self.masked.probe(names)
        max_error = 0.0
        try:
            pruned = self.pruned.probe(names)
            for number, feed in enumerate(feeds):
                got, want = pruned.run(feed), reference.run(feed)
                for name in set(self.outputs) & set(names):
                    self.masked_outputs[number, name] = want[name]
                errors = {name: self._difference(name, want[name], got[name]) for name in names}
                doubtful = [name for name, error in errors.items() if error.is_large]
                if doubtful:
                    self._judge(doubtful, feed, number, want, got, errors)
                max_error = max([max_error, *(error.relative for error in errors.values())])
        except InputError as error:  # the user's input was right: the original took it
            raise SelfCheckError(f"self-check failed, nothing was written: {error}") from error
        return max_error

    def _difference(self, name: str, want: NDArray[Any], got: NDArray[Any]) -> Difference:
        kept = _kept(name, want, self.stays)
        if kept.shape != got.shape:
            raise SelfCheckError(self._message(name, kept, got))
        return difference(kept, got)

    def _judge(
        self,
        names: list[str],
        feed: Feeds,
        seed: int,
        want: Arrays,
        got: Arrays,
        errors: Mapping[str, Difference],
    ) -> None:
        """Allow what the control moves as much."""
        moved = self.control.probe(names).run(_moved(feed, seed))
        for name in names:
            kept = _kept(name, want[name], self.stays)
            control = difference(kept, _kept(name, moved[name], self.stays))
            allowed = FACTOR * control.size
            if not np.issubdtype(kept.dtype, np.floating):  # a rounding that flips, flips by chance
                allowed = max(FLIPS * control.size, 1 / kept.size, 1e-3)
            if not errors[name].size <= allowed:
                raise SelfCheckError(self._message(name, kept, got[name]))

    def _effect(self, feeds: Sequence[Feeds]) -> float:
        before = self.original.probe(self.outputs)
        effect = 0.0
        for number, feed in enumerate(feeds):
            one = before.run(feed)
            for name in self.outputs:
                other = self.masked_outputs[number, name]
                a, b = one[name].astype(np.float64), other.astype(np.float64)
                finite = np.isfinite(a) & np.isfinite(b)
                scale = float(np.abs(a[finite]).max(initial=0.0))
                if scale > 0:
                    effect = max(effect, float(np.abs(a - b)[finite].max()) / scale)
        return effect

    def _message(self, name: str, want: NDArray[Any], got: NDArray[Any]) -> str:
        producers = {v.name: node for node in self.analysis.model.graph for v in node.outputs}
        node = producers[name]
        touching = [
            group.name
            for group in self.analysis.groups
            if group.name in self.keep
            and (
                any(tensor == name for tensor, _ in group.slices)
                or any(touch.node == node.name for touch in group.touches)
            )
        ]
        return (
            f"self-check failed at tensor {name!r} (node {node.name!r}, {node.op_type}; groups"
            f" {', '.join(touching) or 'none'}): pruned {got.shape}, expected {want.shape} or other"
            " values; nothing was written. Please report this model; --debug shows where it"
            " happened"
        )


def _elements(feeds: Feeds) -> int:
    return sum(array.size for array in feeds.values())


def _moved(feeds: Feeds, seed: int) -> dict[str, NDArray[Any]]:
    """The same inputs, moved by about one part in 10⁷ of their size."""
    rng = np.random.default_rng(seed)
    return {name: _moved_array(array, rng) for name, array in feeds.items()}


def _moved_array(array: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    if not np.issubdtype(array.dtype, np.floating):
        return array
    step = 2 * float(np.finfo(array.dtype).eps)
    noise = rng.uniform(-step, step, array.shape)
    size = np.abs(array) + 0.1 * float(np.abs(array).max(initial=0.0))
    return np.asarray((array + noise * size).astype(array.dtype))


def _kept(name: str, array: NDArray[Any], stays: Positions) -> NDArray[Any]:
    for axis in range(array.ndim):
        if (name, axis) in stays:
            mask = stays[name, axis]
            # Heads that are merged with the batch or the time repeat as often as these sizes say.
            array = np.compress(np.resize(mask, array.shape[axis]), array, axis=axis)
    return array


@dataclass(frozen=True)
class Difference:
    """How far two tensors of one shape are apart.

    Attributes:
        size: Largest difference; for integers the share of elements that differ.
        relative: The same over the largest element of the first.
        is_large: Whether it exceeds ``FACTOR`` rounding errors of the largest element.
    """

    size: float
    relative: float
    is_large: bool


def difference(one: NDArray[Any], other: NDArray[Any]) -> Difference:
    """Compare two tensors; NaN and infinities must stand at the same places."""
    if one.size == 0:
        return Difference(0.0, 0.0, False)
    if not np.issubdtype(one.dtype, np.floating):
        share = float(np.mean(one != other))
        return Difference(share, 0.0, share > 0)
    a, b = (x.astype(np.float32) if x.dtype.itemsize < 4 else x for x in (one, other))
    scale = float(np.abs(a).max())
    if not np.isfinite(scale):
        finite = np.isfinite(a)
        if not (
            np.array_equal(finite, np.isfinite(b))
            and np.array_equal(a[~finite], b[~finite], equal_nan=True)
        ):
            return Difference(np.inf, np.inf, True)
        a, b = a[finite], b[finite]
        scale = float(np.abs(a).max(initial=0.0))
    size = float(np.abs(a - b).max(initial=0.0))
    limit = FACTOR * float(np.finfo(one.dtype).eps) * scale
    return Difference(size, size / scale if scale > 0 else size, not size <= limit)
