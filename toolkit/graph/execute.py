"""Run a model in ONNX Runtime to look at tensors inside it.

Used for shapes, for folding what does not depend on the input, and for the self-check.
Optimisation is off, so that every tensor of the file exists at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.bench.session import RunOptions, open_session, run
from onnxtrim.export.model_io import model_bytes

Feeds = Mapping[str, NDArray[Any]]

# Their outputs are sequences or optionals, which have no shape.
_NOT_TENSORS = frozenset(
    "SplitToSequence SequenceConstruct SequenceEmpty SequenceInsert SequenceErase SequenceMap"
    " Optional OptionalGetElement".split()
)


def tensor_values(model: ir.Model) -> list[ir.Value]:
    """Every tensor that a node of the main graph makes, in order."""
    return [
        value
        for node in model.graph
        if node.op_type not in _NOT_TENSORS
        for value in node.outputs
        if value.name
    ]


class Probe:
    """A session that yields chosen inner tensors of a model.

    Args:
        model: The model; it is not changed.
        names: Names of the tensors to read.
        shapes_only: Read the shape of each tensor instead of its values. The tensors are then
            freed during the run, so that memory stays that of an ordinary run.
    """

    def __init__(self, model: ir.Model, names: Iterable[str], *, shapes_only: bool = False) -> None:
        self.names = list(names)
        clone = model.clone()
        graph = clone.graph
        values = {value.name: value for value in tensor_values(clone)}
        graph.outputs.clear()
        for name in self.names:
            value = values[name]
            if shapes_only:
                node = ir.node("Shape", [value])
                node.outputs[0].name = f"onnxtrim.shape/{name}"
                graph.append(node)
                value = node.outputs[0]
            graph.outputs.append(value)
        _drop_stale_shapes(graph)
        self._session = open_session(model_bytes(clone), RunOptions(), optimise=False)

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """The tensors, by name.

        Raises:
            InputError: ONNX Runtime refuses the inputs.
        """
        if not self.names:
            return {}
        wanted = {item.name for item in self._session.get_inputs()}
        used = {name: array for name, array in feeds.items() if name in wanted}
        return dict(zip(self.names, run(self._session, used, "the model"), strict=True))


def _drop_stale_shapes(graph: ir.Graph) -> None:
    for value in graph.outputs:
        value.shape = None


def static_shape(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """Shape of a tensor that is stored in the model."""
    return tuple(size if isinstance(size, int) else 0 for size in tensor.shape)


def measure_shapes(model: ir.Model, feeds: Feeds) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, graph inputs and initializers included, for these feeds."""
    names = [value.name or "" for value in tensor_values(model)]
    found = Probe(model, names, shapes_only=True).run(feeds)
    shapes = {name: tuple(int(size) for size in array) for name, array in found.items()}
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            shapes[value.name or ""] = static_shape(value.const_value)
    shapes.update({name: array.shape for name, array in feeds.items()})
    return shapes


def blocks(
    names: Sequence[str], shapes: Mapping[str, tuple[int, ...]], limit: int
) -> list[list[str]]:
    """Cut names into runs whose tensors have at most ``limit`` elements in all, 40 at most each."""
    result: list[list[str]] = []
    size = 0
    for name in names:
        elements = int(np.prod(shapes[name], dtype=np.int64))
        if not result or size + elements > limit or len(result[-1]) == 40:
            result.append([])
            size = 0
        result[-1].append(name)
        size += elements
    return result
