"""The checks that data must pass; each failure is one line with what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError

Headers = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: Its name in the graph.
        dtype: The numpy type that it takes.
        shape: Sizes; a name or ``None`` where the size is free.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]


def check_arrays(
    where: str,
    headers: Headers,
    inputs: Sequence[InputSpec],
    need_labels: bool,
    any_labels: bool = False,
) -> int:
    """Check names, types, shapes and lengths; return the number of samples.

    Args:
        where: What the arrays came from, for messages.
        headers: ``(dtype, shape)`` of each array, ``labels`` and ``groups`` included.
        inputs: What the model expects.
        need_labels: Whether missing labels are an error.
        any_labels: Whether labels may be numbers of shape ``(samples, ...)``, not just classes.

    Raises:
        InputError: The first thing that does not fit.
    """
    _check_names(where, headers, inputs, need_labels)
    for spec in inputs:
        _check_array(f"{where}: array {spec.name!r}", spec, *headers[spec.name])
    samples = headers[inputs[0].name][1][0]
    for spec in inputs[1:]:
        if headers[spec.name][1][0] != samples:
            raise InputError(
                f"{where}: {inputs[0].name!r} has {samples} samples but {spec.name!r} has"
                f" {headers[spec.name][1][0]}"
            )
    if samples == 0:
        raise InputError(f"{where}: array {inputs[0].name!r} has no samples")
    if "labels" in headers and all(spec.name != "labels" for spec in inputs):
        _check_labels(where, *headers["labels"], samples, any_labels)
    if "groups" in headers and all(spec.name != "groups" for spec in inputs):
        dtype, shape = headers["groups"]
        if shape != (samples,) or dtype.kind not in "iu":
            raise InputError(
                f"{where}: 'groups' is {dtype} of shape {shape}; give integers, the group of each"
                f" of the {samples} samples"
            )
    return samples


def check_length(where: str, samples: int, fixed: int | None) -> None:
    """Refuse no samples, and a number that a fixed first dimension does not divide."""
    if samples == 0:
        raise InputError(f"{where}: has no samples")
    if fixed and samples % fixed:
        raise InputError(
            f"{where}: the model takes exactly {fixed} samples at a time, and {samples} is not"
            f" a multiple of {fixed}; drop {samples % fixed} samples or use a free batch dimension"
        )


def check_finite(where: str, feeds: Mapping[str, NDArray[Any]], first: int) -> None:
    """Refuse NaN and infinity; ``first`` is the index of the first sample in ``feeds``."""
    for name, array in feeds.items():
        if array.dtype.kind not in "fc" or np.isfinite(array).all():
            continue
        rows = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        raise InputError(
            f"{where}: array {name!r} has NaN or infinite values,"
            f" first in sample {first + int(np.argmax(rows))}"
        )


def _names(names: Collection[str]) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"


def _check_names(
    where: str, headers: Headers, inputs: Sequence[InputSpec], need_labels: bool
) -> None:
    wanted = [spec.name for spec in inputs]
    if not wanted:
        raise InputError("the model has no inputs, so there is nothing to feed")
    given = [name for name in headers if name not in ("labels", "groups") or name in wanted]
    missing = [name for name in wanted if name not in headers]
    extra = [name for name in given if name not in wanted]
    if len(wanted) == len(given) == len(missing) == 1:
        raise InputError(
            f"{where}: the array is named {given[0]!r} but the model's input is {wanted[0]!r};"
            " rename it"
        )
    if missing or extra:
        raise InputError(
            f"{where}: holds {_names(given)} but the model's inputs are {_names(wanted)}"
            f" (missing {_names(missing)}; not wanted {_names(extra)})"
        )
    if need_labels and "labels" not in headers:
        raise InputError(f"{where}: has no labels; add an integer array named 'labels'")


def _check_array(where: str, spec: InputSpec, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if dtype != spec.dtype:
        raise InputError(
            f"{where} is {dtype} but the model takes {spec.dtype};"
            f' save {spec.name}.astype("{spec.dtype}")'
        )
    wanted = "(" + ", ".join("?" if n is None else str(n) for n in spec.shape) + ")"
    if len(shape) != len(spec.shape):
        raise InputError(
            f"{where} has shape {shape} but the model takes {wanted}: {len(spec.shape)}"
            " dimensions, samples first"
        )
    for axis, (have, need) in enumerate(zip(shape, spec.shape)):
        if axis and isinstance(need, int) and have != need:
            raise InputError(f"{where} has shape {shape} but the model takes {wanted}")


def _check_labels(
    where: str, dtype: np.dtype[Any], shape: tuple[int, ...], samples: int, any_labels: bool
) -> None:
    if dtype.kind not in ("iuf" if any_labels else "iu"):
        raise InputError(f"{where}: 'labels' is {dtype}; give integers, the class of each sample")
    if (shape[:1] if any_labels else shape) != (samples,):
        raise InputError(
            f"{where}: 'labels' has shape {shape} but there are {samples} samples; give"
            f" shape ({samples},)"
        )
