"""Bring a model into the one form that the analysis reads.

1. Nodes in topological order, functions inlined, every constant an initializer.
2. What does not depend on the input is folded: the model is run at two sizes, and a small tensor
   that is computed only from constants and shapes and is equal in both becomes an initializer.
   So does everything that is computed from constants alone, except moves of weights (transposed,
   joined, cut, cast), which keep their names and their tying.
3. Ifs whose condition was folded are replaced by the branch taken, sequences by Split and Concat.
4. All-zero initial states and biases are dropped: they would tie what is not tied.
5. Vectors and integer tensors that several nodes share become one copy per use: exporters merge
   equal initializers, and slicing one for one node would break the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from numpy.typing import NDArray

from onnxtrim.bench.machine import release_memory
from onnxtrim.toolkit.graph.execute import (
    Feeds,
    Prober,
    WeightFile,
    measure_shapes,
    tensor_values,
)
from onnxtrim.toolkit.graph.rewrite import inline_branches, replace_sequences
from onnxtrim.toolkit.graph.values import (
    add_initializer,
    constant_array,
    independent_values,
    remove_unused,
)

FOLD_LIMIT = 64  # elements; longer tensors are folded only if they have one axis
_MOVES = frozenset(
    "Cast CastLike Concat DequantizeLinear Flatten Identity Reshape Slice Split Squeeze Transpose"
    " Unsqueeze".split()
)
_ARITHMETIC = frozenset("Add Div MatMul Mul Sub".split())  # low-rank and normalised weights
_BIASED = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
_STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
_DEEPEST = 8  # Ifs within Ifs


@dataclass(frozen=True)
class Normalised:
    """A model ready for analysis.

    Attributes:
        model: The normalised model; it computes the same as the one given.
        shapes: Shape of every tensor at the smallest batch.
        feeds: The inputs at which the shapes were measured.
        copies: For every copy of a shared initializer, the name of the one it was made from.
        varying: For tensors with axes whose size depends on the inputs, those axes with their
            size at the last feeds.
        weights: Where the large weights of this model lie for sessions.
    """

    model: ir.Model
    shapes: dict[str, tuple[int, ...]]
    feeds: Feeds
    copies: dict[str, str]
    varying: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    weights: WeightFile = field(default_factory=WeightFile, repr=False, compare=False)


def normalise(model: ir.Model, feeds: Sequence[Feeds], *, fold_shapes: bool = True) -> Normalised:
    """Normalise a copy of ``model``.

    Args:
        model: The model; only its nodes are sorted, a copy needs that.
        feeds: Inputs at the smallest batch and, if the model has free dimensions, at a larger one.
        fold_shapes: Whether what is computed from shapes, and equal at both sizes, is constant;
            not if the model could be run at one size only.

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
    weights = WeightFile()
    for _ in range(_DEEPEST):
        folded, sizes = _fold(result, feeds, weights, fold_shapes)
        if not inline_branches(result):
            break
    replace_sequences(result.graph, sizes)
    _drop_zero_states(result, feeds, weights)
    _drop_zero_biases(result.graph, folded)
    remove_unused(result.graph)
    copies = _unshare(result.graph)
    weights.adopt(result)
    release_memory()
    shapes = measure_shapes(result, feeds, weights)
    release_memory()
    return Normalised(result, shapes[0], feeds[0], copies, _varying(shapes), weights)


def remeasure(normalised: Normalised, model: ir.Model) -> Normalised:
    """The same for a model that was cut out of a normalised one."""
    weights = WeightFile()
    shapes = measure_shapes(model, [normalised.feeds], weights)[0]
    return replace(normalised, model=model, shapes=shapes, weights=weights)


def _varying(shapes: Sequence[Mapping[str, tuple[int, ...]]]) -> dict[str, dict[int, int]]:
    """Axes that differ between the first and the last feeds."""
    first, last = shapes[0], shapes[-1]
    return {
        name: {k: last[name][k] for k, size in enumerate(shape) if size != last[name][k]}
        for name, shape in first.items()
        if shape != last[name]
    }


def _fold(
    model: ir.Model, feeds: Sequence[Feeds], weights: WeightFile, fold_shapes: bool
) -> tuple[set[str], dict[str, tuple[int, ...]]]:
    """Make initializers of what the input does not change.

    Returns:
        Their names, and the shape of every tensor at the first feeds.
    """
    tensors = {value.name for value in tensor_values(model)}
    values, constant = independent_values(model.graph)
    shapes = measure_shapes(model, feeds[:1], weights)[0]
    known = set(model.graph.initializers) | {value.name or "" for value in values}
    moved = _moved_weights(model.graph, constant, known, shapes)
    values = [
        value
        for value in values
        if value.name in tensors and not value.is_graph_output() and value.name not in moved
    ]
    small = [
        value.name or ""
        for value in values
        if value.name in constant
        or len(shapes[value.name or ""]) <= 1
        or int(np.prod(shapes[value.name or ""], dtype=np.int64)) <= FOLD_LIMIT
    ]
    probe = Prober(model, weights).probe(small)
    runs = [probe.run(feed) for feed in feeds]
    folded: set[str] = set()
    for value in values:
        name = value.name or ""
        if name in runs[0] and (
            name in constant
            or (
                fold_shapes
                and (len(runs) > 1 or not _free_dimensions(model))
                and all(np.array_equal(runs[0][name], run[name]) for run in runs[1:])
            )
        ):
            _replace_by_initializer(model.graph, value, runs[0][name])
            folded.add(name)
    remove_unused(model.graph)
    return folded, shapes


def _moved_weights(
    graph: ir.Graph,
    constant: set[str],
    known: set[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> set[str]:
    """Weights that are moved, cast or combined: folded, they would lose their names and tying.

    Where matrices are cut may come from a shape (``known``), as torch exports an LSTM's gates.
    """
    initial = {
        value.name or ""
        for value in graph.initializers.values()
        if value.const_value is not None
        and len(value.const_value.shape) > 0
        and (not value.const_value.dtype.is_integer() or _is_dequantised(value))
    }
    moved = set(initial)
    for node in graph:
        read = node.inputs[:1] if node.op_type == "CastLike" else node.inputs
        names = {value.name or "" for value in read if value is not None}
        wide = any(len(shapes[name]) > 1 for name in names & moved)
        fits = node.op_type in _MOVES or (node.op_type in _ARITHMETIC and wide)
        sure = known if wide and node.op_type in _MOVES else constant | moved
        if fits and names & moved and names <= sure:
            moved |= {value.name or "" for value in node.outputs}
    return moved - initial


def _is_dequantised(value: ir.Value) -> bool:
    return any(usage.node.op_type == "DequantizeLinear" for usage in value.uses())


def _free_dimensions(model: ir.Model) -> bool:
    return any(
        not isinstance(size, int) for value in model.graph.inputs for size in value.shape or ()
    )


def _replace_by_initializer(graph: ir.Graph, value: ir.Value, array: NDArray[Any]) -> None:
    name = value.name or ""
    value.name = f"{name}.folded"  # two values can't have the same name; this one becomes unused
    new = add_initializer(graph, name, array)
    value.replace_all_uses_with(new)


def _drop_zero_states(model: ir.Model, feeds: Sequence[Feeds], weights: WeightFile) -> None:
    """Initial states of recurrent nodes that are zero for every input: absent means the same."""
    free = {value.name for value in independent_values(model.graph)[0]}
    free |= set(model.graph.initializers)
    inner = {value.name for value in tensor_values(model)}
    places = [
        (node, index, value)
        for node in model.graph
        for index in _STATES.get(node.op_type, ())
        if index < len(node.inputs)
        and (value := node.inputs[index]) is not None
        and value.name in free
    ]
    names = list(dict.fromkeys(value.name or "" for _, _, value in places if value.name in inner))
    probe = Prober(model, weights).probe(names)
    runs = [probe.run(feed) for feed in feeds] if names else []
    for node, index, value in places:
        array = constant_array(value)
        found = [run[value.name or ""] for run in runs] if array is None else [array]
        if not any(state.any() for state in found):
            node.replace_input_with(index, None)


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
