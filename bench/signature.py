"""Whether two models can stand in for each other: the same inputs and outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Union

import onnxruntime as ort

from onnxtrim.bench.data_checks import InputSpec
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.session import (
    RunOptions,
    check_model_file,
    model_inputs,
    model_outputs,
    open_session,
)

PathLike = Union[str, "os.PathLike[str]"]


def check_models(models: Sequence[PathLike], options: RunOptions) -> list[InputSpec]:
    """Check that the files can be run, and that two models are called alike.

    Args:
        models: ``[model]`` or ``[candidate, original]``.
        options: How to run them.

    Returns:
        The inputs of the last.

    Raises:
        InputError: A file can't be used, or inputs or outputs differ.
    """
    for model in models:
        check_model_file(model)
    sessions = [open_session(model, options) for model in models]
    inputs = [model_inputs(session) for session in sessions]
    if len(models) == 2:
        _check_inputs(models, inputs)
        _check_outputs(models, sessions)
    return inputs[-1]


def _check_inputs(models: Sequence[PathLike], inputs: list[list[InputSpec]]) -> None:
    candidate, original = ({spec.name: spec for spec in specs} for specs in inputs)
    if set(candidate) != set(original):
        raise InputError(
            f"the inputs differ: {models[1]} has {', '.join(original)}, {models[0]} has"
            f" {', '.join(candidate)}"
        )
    for name, spec in original.items():
        pair = [(s.dtype, _fixed(s.shape)) for s in (spec, candidate[name])]
        if pair[0] != pair[1]:
            raise InputError(
                f"input {name!r} differs: {models[1]} takes {_text(spec.dtype, spec.shape)},"
                f" {models[0]} takes {_text(candidate[name].dtype, candidate[name].shape)}"
            )


def _check_outputs(models: Sequence[PathLike], sessions: list[ort.InferenceSession]) -> None:
    candidate, original = (model_outputs(session) for session in sessions)
    if len(candidate) != len(original):
        raise InputError(
            f"{models[1]} has {len(original)} outputs but {models[0]} has {len(candidate)}"
        )
    for (name, kind, shape), (_, other_kind, other) in zip(original, candidate):
        # Shape inference may know a size in one file only; two known sizes must agree.
        alike = len(shape) == len(other) and all(
            a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(shape, other)
        )
        if kind != other_kind or not alike:
            raise InputError(
                f"output {name!r} differs: {models[1]} gives {_text(kind, shape)}, {models[0]}"
                f" gives {_text(other_kind, other)}"
            )


def _fixed(shape: tuple[int | str | None, ...]) -> tuple[int | None, ...]:
    """The shape without the names of free dimensions, which mean nothing."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _text(kind: Any, shape: tuple[Any, ...]) -> str:
    return f"{kind} ({', '.join('?' if size is None else str(size) for size in shape)})"
