"""Prove that a pruned model computes the same as the original with the removed units masked.

Every inner tensor is compared (the kept slices of the masked original against the pruned model),
not only the output: saturated outputs would let errors through. No fixed tolerance is right for
every tensor, so each is allowed ``FACTOR`` times what it moves when the masked model's own input
moves by about one part in 10⁷, and at least as many rounding errors of its largest element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError, SelfCheckError
from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.execute import Feeds, Probe, WeightFile, blocks, tensor_values
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.mask import mask_units
from onnxtrim.toolkit.graph.surgery import Keep, positions, remove_units

FACTOR = 100.0
BLOCK_ELEMENTS = 8_000_000  # elements of inner tensors held at once, at the analysis size
SMALL_SHARE = 0.1  # of the removal, in the second check

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class SelfCheck:
    """What the self-check saw.

    Attributes:
        max_error: Largest difference of any tensor, relative to the tensor's largest element.
        effect: Largest relative change of a model output by the masking; 0 means that the
            removal changed nothing that this check could see.
        tensors: Number of tensors that were compared.
    """

    max_error: float
    effect: float
    tensors: int

    def to_json(self) -> dict[str, float | int]:
        """The form in which it stands in results."""
        return {"max_error": self.max_error, "effect": self.effect, "tensors": self.tensors}


def self_check(
    model: ir.Model, pruned: ir.Model, analysis: Analysis, keep: Keep, feeds: Sequence[Feeds]
) -> SelfCheck:
    """Compare a pruned model with its reference, and a smaller removal besides.

    Args:
        model: The normalised model with repaired weights, from which ``pruned`` was cut.
        pruned: The result of surgery.
        analysis: The analysis of the normalised model.
        keep: The removal.
        feeds: Inputs, real and random, at two batch sizes.

    Raises:
        SelfCheckError: Naming the first tensor that differs, its node and the groups there.
    """
    result = _compare(model, pruned, analysis, keep, feeds)
    small = _smaller(keep)
    original = analysis.model
    cut = remove_units(original, analysis, small)
    _compare(original, cut, analysis, small, feeds[:1])
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


def _compare(
    model: ir.Model, pruned: ir.Model, analysis: Analysis, keep: Keep, feeds: Sequence[Feeds]
) -> SelfCheck:
    masked = mask_units(model, analysis, keep)
    stays = positions(analysis, keep)
    present = {value.name for value in tensor_values(pruned)}
    shapes = analysis.normalised.shapes
    names = [
        value.name or ""
        for value in tensor_values(model)
        if value.name in present and value.name in shapes
    ]
    max_error = 0.0
    weights, pruned_weights = analysis.normalised.weights, WeightFile()
    for block in blocks(names, shapes, BLOCK_ELEMENTS):
        reference = Probe(masked, block, weights)
        results = _run_pruned(pruned, block, pruned_weights, feeds)
        for number, (feed, got) in enumerate(zip(feeds, results, strict=True)):
            want = reference.run(feed)
            moved = reference.run(_moved(feed, number))
            for name in block:
                error = _tensor_error(name, want[name], got[name], moved[name], stays)
                if error is None:
                    raise SelfCheckError(_message(analysis, keep, name, want, got, stays))
                max_error = max(max_error, error)
    return SelfCheck(max_error, _effect(model, masked, weights, feeds), len(names))


def _run_pruned(
    pruned: ir.Model, names: Sequence[str], weights: WeightFile, feeds: Sequence[Feeds]
) -> Iterator[Arrays]:
    try:
        probe = Probe(pruned, names, weights)
        for feed in feeds:
            yield probe.run(feed)
    except InputError as error:  # the user's input was right: the original took it
        raise SelfCheckError(f"self-check failed, nothing was written: {error}") from error


def _moved(feeds: Feeds, seed: int) -> dict[str, NDArray[Any]]:
    """The same inputs, moved by about one part in 10⁷ of their size."""
    rng = np.random.default_rng(seed)
    moved: dict[str, NDArray[Any]] = {}
    for name, array in feeds.items():
        if np.issubdtype(array.dtype, np.floating):
            step = 2 * float(np.finfo(array.dtype).eps)
            noise = rng.uniform(-step, step, array.shape)
            size = np.abs(array) + 0.1 * float(np.abs(array).max(initial=0.0))
            moved[name] = (array + noise * size).astype(array.dtype)
        else:
            moved[name] = array
    return moved


def _kept(name: str, array: NDArray[Any], stays: Positions) -> NDArray[Any]:
    for axis in range(array.ndim):
        if (name, axis) in stays:
            mask = stays[name, axis]
            # The analysis saw one sample; heads that are merged with the batch repeat.
            repeats = array.shape[axis] // len(mask)
            array = np.compress(np.tile(mask, repeats), array, axis=axis)
    return array


def _tensor_error(
    name: str,
    want: NDArray[Any],
    got: NDArray[Any],
    moved: NDArray[Any],
    stays: Positions,
) -> float | None:
    """Relative error of one tensor, or ``None`` if it is too large."""
    want, moved = _kept(name, want, stays), _kept(name, moved, stays)
    if want.shape != got.shape:
        return None
    if not np.issubdtype(want.dtype, np.floating):
        # Comparisons and roundings may flip where the control flips them too.
        differ = int((want != got).sum())
        return 0.0 if differ <= FACTOR * max(1, int((want != moved).sum())) * 0.1 else None
    a, b, c = (array.astype(np.float64) for array in (want, got, moved))
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return None
    finite = np.isfinite(a) & np.isfinite(c)
    scale = float(np.abs(a[finite]).max(initial=0.0))
    error = float(np.abs(a - b)[finite].max(initial=0.0))
    control = float(np.abs(a - c)[finite].max(initial=0.0))
    floor = float(np.finfo(want.dtype).eps) * scale
    if error > FACTOR * max(control, floor):
        return None
    return error / scale if scale > 0 else 0.0


def _effect(
    model: ir.Model, masked: ir.Model, weights: WeightFile, feeds: Sequence[Feeds]
) -> float:
    names = [value.name or "" for value in model.graph.outputs if value.producer() is not None]
    before, after = Probe(model, names, weights), Probe(masked, names, weights)
    effect = 0.0
    for feed in feeds:
        one, other = before.run(feed), after.run(feed)
        for name in names:
            a, b = one[name].astype(np.float64), other[name].astype(np.float64)
            scale = float(np.abs(a).max(initial=0.0))
            if scale > 0:
                effect = max(effect, float(np.abs(a - b).max()) / scale)
    return effect


def _message(
    analysis: Analysis, keep: Keep, name: str, want: Arrays, got: Arrays, stays: Positions
) -> str:
    producers = {value.name: node for node in analysis.model.graph for value in node.outputs}
    node = producers[name]
    touching = [
        group.name
        for group in analysis.groups
        if group.name in keep
        and (
            any(tensor == name for tensor, _ in group.slices)
            or any(touch.node == node.name for touch in group.touches)
        )
    ]
    expected = _kept(name, want[name], stays)
    return (
        f"self-check failed at tensor {name!r} (node {node.name!r}, {node.op_type}; groups"
        f" {', '.join(touching) or 'none'}): pruned {got[name].shape}, expected {expected.shape}"
        " or other values; nothing was written. Please report this model;"
        " --debug shows where it happened"
    )
