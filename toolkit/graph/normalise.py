"""Bring a model into the one form that the analysis reads.

1. Nodes in topological order, functions inlined, every constant an initializer.
2. What does not depend on the input is folded: the model is run at two sizes, and a small tensor
   that is computed only from constants and shapes and is equal in both becomes an initializer.
3. All-zero biases that the folding brought to light are dropped.
4. Vectors and integer tensors that several nodes share become one copy per use: exporters merge
   equal initializers, and slicing one for one node would break the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.execute import Feeds, Probe, measure_shapes, tensor_values

FOLD_LIMIT = 64  # elements; longer tensors are folded only if they have one axis
_RANDOM = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli".split()
)
_BIASED = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}


@dataclass(frozen=True)
class Normalised:
    """A model ready for analysis.

    Attributes:
        model: The normalised model; it computes the same as the one given.
        shapes: Shape of every tensor at the smallest batch.
        feeds: The inputs at which the shapes were measured.
        copies: For every copy of a shared initializer, the name of the one it was made from.
    """

    model: ir.Model
    shapes: dict[str, tuple[int, ...]]
    feeds: Feeds
    copies: dict[str, str]


def normalise(model: ir.Model, feeds: Sequence[Feeds]) -> Normalised:
    """Normalise a copy of ``model``.

    Args:
        model: The model; only its nodes are sorted, a copy needs that.
        feeds: Inputs at the smallest batch and, if the model has free dimensions, at a larger one.

    Raises:
        InputError: The model does not run with these inputs.
    """
    passes.TopologicalSortPass()(model)
    result = model.clone()
    for change in (
        passes.InlinePass(),
        passes.TopologicalSortPass(),
        passes.RemoveInitializersFromInputsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.NameFixPass(),
    ):
        change(result)
    result.ir_version = max(result.ir_version, 4)  # in version 3 weights had to be inputs
    folded = _fold(result, feeds)
    _drop_zero_biases(result.graph, folded)
    passes.RemoveUnusedNodesPass()(result)
    copies = _unshare(result.graph)
    return Normalised(result, measure_shapes(result, feeds[0]), feeds[0], copies)


def independent_values(graph: ir.Graph) -> tuple[list[ir.Value], set[str]]:
    """Values computed only from constants and shapes.

    Returns:
        All of them, and the names of those that depend on nothing but constants.
    """
    constant = {value.name or "" for value in graph.initializers.values()}
    independent = set(constant)
    found: list[ir.Value] = []
    for node in graph:
        if node.op_type in _RANDOM or any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            continue
        # CastLike takes only the type of its second operand.
        read = node.inputs[:1] if node.op_type == "CastLike" else node.inputs
        names = [value.name or "" for value in read if value is not None]
        if node.op_type in ("Shape", "Size") or all(name in independent for name in names):
            values = [value for value in node.outputs if value.name]
            found += values
            independent.update(value.name or "" for value in values)
            if all(name in constant for name in names):
                constant.update(value.name or "" for value in values)
    return found, constant


def _fold(model: ir.Model, feeds: Sequence[Feeds]) -> set[str]:
    """Make initializers of what the input does not change; return their names."""
    tensors = {value.name for value in tensor_values(model)}
    values, constant = independent_values(model.graph)
    values = [
        value
        for value in values
        if value.name in tensors and not value.is_graph_output() and not _is_flipped_weight(value)
    ]
    shapes = measure_shapes(model, feeds[0])
    small = [
        value.name or ""
        for value in values
        if len(shapes[value.name or ""]) <= 1
        or int(np.prod(shapes[value.name or ""], dtype=np.int64)) <= FOLD_LIMIT
    ]
    probe = Probe(model, small)
    runs = [probe.run(feed) for feed in feeds]
    folded: set[str] = set()
    for value in values:
        name = value.name or ""
        if name in runs[0] and (
            name in constant
            or (
                (len(runs) > 1 or not _free_dimensions(model))
                and all(np.array_equal(runs[0][name], run[name]) for run in runs[1:])
            )
        ):
            _replace_by_initializer(model.graph, value, runs[0][name])
            folded.add(name)
    return folded


def _is_flipped_weight(value: ir.Value) -> bool:
    """Whether it is a weight, transposed: folded, it would lose its name and its tying."""
    node = value.producer()
    if node is None or node.op_type != "Transpose":
        return False
    source = node.inputs[0]
    tensor = None if source is None else source.const_value
    return tensor is not None and len(tensor.shape) > 1 and not tensor.dtype.is_integer()


def _free_dimensions(model: ir.Model) -> bool:
    return any(
        not isinstance(size, int) for value in model.graph.inputs for size in value.shape or ()
    )


def _replace_by_initializer(graph: ir.Graph, value: ir.Value, array: NDArray[Any]) -> None:
    name = value.name or ""
    value.name = f"{name}.folded"  # two values can't have the same name; this one becomes unused
    new = add_initializer(graph, name, array)
    value.replace_all_uses_with(new)


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Register an initializer under a name that no other value has."""
    # Not ascontiguousarray: it turns a scalar into a vector of one.
    tensor = ir.tensor(np.array(array, order="C"), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def constant_array(value: ir.Value | None) -> NDArray[Any] | None:
    """The values of an initializer, or ``None``."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


def _drop_zero_biases(graph: ir.Graph, folded: set[str]) -> None:
    for node in graph:
        index = _BIASED.get(node.op_type)
        if index is None or len(node.inputs) <= index:
            continue
        bias = node.inputs[index]
        array = constant_array(bias)
        if bias is not None and bias.name in folded and array is not None and not array.any():
            node.resize_inputs(index)


def _unshare(graph: ir.Graph) -> dict[str, str]:
    copies: dict[str, str] = {}
    taken = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or value.is_graph_output():
            continue
        if len(tensor.shape) > 1 and not tensor.dtype.is_integer():
            continue  # real weight tying: its labels tie both uses
        for count, usage in enumerate(list(value.uses())[1:], start=1):
            name = f"{value.name}.copy{count}"
            while name in taken:
                name += "_"
            taken.add(name)
            usage.node.replace_input_with(usage.idx, add_initializer(graph, name, tensor.numpy()))
            copies[name] = value.name or ""
    return copies
