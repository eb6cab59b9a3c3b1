"""Weights that the graph makes of its initializers by moving elements about.

Exporters store weights otherwise than the operator wants them: transposed, or the gates of an
LSTM in another order, cut and joined. Every element of such a weight is an element of an
initializer. Which one, is found by running the same nodes on numbers of elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.bench.session import RunOptions, open_session, run
from onnxtrim.toolkit.graph.surgery import set_constant
from onnxtrim.toolkit.graph.values import constant_array

_MOVES = frozenset(
    "Identity Transpose Reshape Squeeze Unsqueeze Flatten Slice Split Concat Gather".split()
)


@dataclass(frozen=True)
class Stored:
    """A weight, as its operator reads it.

    Attributes:
        name: Name of the value that the operator reads.
        sources: The initializers that hold its elements; itself if it is one.
        shape: Its shape.
        elements: For every element its number in the sources, which are counted one after
            another; ``None`` if it is an initializer itself.
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...] = field(compare=False)
    elements: NDArray[np.int32] | None = field(compare=False, repr=False)

    def array(self, model: ir.Model) -> NDArray[Any]:
        """The weight in a model that has these initializers at full size."""
        arrays = [self._array(model, name) for name in self.sources]
        if self.elements is None:
            return arrays[0]
        flat = (
            arrays[0].ravel() if len(arrays) == 1 else np.concatenate([a.ravel() for a in arrays])
        )
        return np.asarray(flat[self.elements])

    def dtype(self, model: ir.Model) -> np.dtype[Any]:
        """Type of its elements."""
        return self._array(model, self.sources[0]).dtype

    def write(self, model: ir.Model, array: NDArray[Any]) -> None:
        """Give the weight other values, in the type of its initializers."""
        if self.elements is None:
            values = model.graph.initializers[self.name]
            set_constant(values, array.astype(self.dtype(model)))
            return
        first = 0
        for name in self.sources:
            old = self._array(model, name)
            inside = (self.elements >= first) & (self.elements < first + old.size)
            new = old.copy().ravel()
            new[self.elements[inside] - first] = array[inside]
            set_constant(model.graph.initializers[name], new.reshape(old.shape))
            first += old.size

    @staticmethod
    def _array(model: ir.Model, name: str) -> NDArray[Any]:
        array = constant_array(model.graph.initializers[name])
        assert array is not None  # `find_stored` saw to it
        return array


def find_stored(value: ir.Value | None) -> Stored | None:
    """Where the elements of a weight lie.

    ``None`` if it is not made of float initializers, if one element stands in it twice, or if
    something else reads the initializers, too.
    """
    if value is None:
        return None
    array = constant_array(value)
    if array is not None:
        name = value.name or ""
        return Stored(name, (name,), array.shape, None) if _is_own(value, array) else None
    nodes = _makers(value)
    if nodes is None:
        return None
    inside = set(nodes)
    sources: dict[str, NDArray[Any]] = {}
    operands: dict[str, NDArray[Any]] = {}
    for node in nodes:
        made = [output for output in node.outputs if output is not value]
        if any(use.node not in inside for output in made for use in output.uses()):
            return None
        for operand in node.inputs:
            array = constant_array(operand)
            if operand is None or array is None:
                continue
            if not np.issubdtype(array.dtype, np.floating):
                operands[operand.name or ""] = array
            elif all(use.node in inside for use in operand.uses()):
                sources[operand.name or ""] = array
            else:
                return None
    total = sum(array.size for array in sources.values())
    if not sources or total >= 2**31 or len({array.dtype for array in sources.values()}) > 1:
        return None
    assert value.graph is not None
    elements = _run(nodes, _numbered(sources) | operands, value, value.graph.opset_imports)
    if len(np.unique(elements)) != elements.size:
        return None
    return Stored(value.name or "", tuple(sources), elements.shape, elements)


def _is_own(value: ir.Value, array: NDArray[Any]) -> bool:
    is_read_once = len(value.uses()) == 1 and not value.is_graph_output()
    return is_read_once and bool(np.issubdtype(array.dtype, np.floating))


def _makers(value: ir.Value) -> list[ir.Node] | None:
    """The nodes that make a value of constants by moving elements, in order."""
    if value.is_graph_output() or len(value.uses()) != 1:
        return None
    found: dict[ir.Node, None] = {}
    waiting = [value]
    while waiting:
        operand = waiting.pop()
        if constant_array(operand) is not None:
            continue
        node = operand.producer()
        if node is None or node.op_type not in _MOVES or node.domain:
            return None
        if node not in found:
            found[node] = None
            waiting += [read for read in node.inputs if read is not None]
    graph = value.graph
    assert graph is not None
    return [node for node in graph if node in found] if isinstance(graph, ir.Graph) else None


def _numbered(sources: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    found, first = {}, 0
    for name, array in sources.items():
        found[name] = np.arange(first, first + array.size, dtype=np.int32).reshape(array.shape)
        first += array.size
    return found


def _run(
    nodes: list[ir.Node],
    feeds: dict[str, NDArray[Any]],
    value: ir.Value,
    opsets: Mapping[str, int],
) -> NDArray[np.int32]:
    """The value that the nodes make of other constants."""
    graph = onnx.GraphProto(name="moves")
    graph.node.extend(ir.to_proto(node) for node in nodes)
    for name, array in feeds.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    graph.output.add(name=value.name or "")
    imports = [onnx.helper.make_opsetid("", opsets.get("", 1))]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = open_session(model.SerializeToString(), RunOptions(threads=1))
    return np.asarray(run(session, feeds, "the model")[0], np.int32)
