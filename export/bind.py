"""Give an input of a model a fixed value: it becomes a constant, and is no input any more."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxtrim.bench.errors import InputError
from onnxtrim.export.model_io import load_model, save_model

Value = float | int | bool | Sequence[float]


def bind_inputs(
    path: str | os.PathLike[str], values: Mapping[str, Value], output: str | os.PathLike[str]
) -> list[str]:
    """Write a model with fewer inputs.

    A branch that depends on such an input, say on the sampling rate, is then known when the
    model is pruned, and its weights can leave.

    Args:
        path: The ONNX file.
        values: What each input becomes: a number, or numbers in the order of the input's elements
            if its shape is fixed.
        output: The file to write.

    Returns:
        Names of the inputs that are left.

    Raises:
        InputError: No such input, a value that does not fit it, or a path that can't be used.
        WorkError: The written file is refused.
    """
    model = load_model(path)
    inputs = {value.name: value for value in model.graph.inputs}
    for name, value in values.items():
        if name not in inputs:
            known = ", ".join(repr(other) for other in inputs) or "none"
            raise InputError(f"{path}: has no input {name!r}; it has {known}")
        _bind(model.graph, inputs[name], value, path)
    left = [value.name or "" for value in model.graph.inputs]
    if not left:
        raise InputError(f"{path}: no input would be left; leave one out")
    save_model(model, output, source=path)
    return left


def _bind(graph: ir.Graph, old: ir.Value, value: Value, path: str | os.PathLike[str]) -> None:
    shape = [size if isinstance(size, int) else None for size in old.shape or ()]
    array = np.asarray(value)
    if old.dtype is None:
        raise InputError(f"{path}: input {old.name!r} has no type")
    count = 1 if None in shape else int(np.prod([size for size in shape if size is not None]))
    if None in shape and shape != [None]:
        raise InputError(f"{path}: input {old.name!r} has free dimensions; it can't be bound")
    if shape == [None]:
        shape = [array.size]
    elif array.size != count:
        raise InputError(f"{path}: input {old.name!r} takes {count} numbers, not {array.size}")
    typed = array.astype(old.dtype.numpy()).reshape([size or 0 for size in shape])
    if not np.array_equal(typed.ravel().astype(np.float64), array.ravel().astype(np.float64)):
        raise InputError(f"{path}: input {old.name!r} of type {old.dtype} can't be {value}")
    name = old.name or ""
    graph.inputs.remove(old)
    old.name = f"{name}.input"  # two values can't have one name
    constant = ir.Value(
        name=name,
        shape=ir.Shape(typed.shape),
        type=ir.TensorType(old.dtype),
        const_value=ir.tensor(typed, name=name),
    )
    graph.register_initializer(constant)
    old.replace_all_uses_with(constant, replace_graph_outputs=True)
