"""Run a model in ONNX Runtime to look at tensors inside it.

Used for shapes, for folding what does not depend on the input, for statistics and for the
self-check. Large weights lie in a temporary file that every session maps: however many sessions
are opened, the weights are in memory once, and no model is ever one string of bytes.
"""

from __future__ import annotations

import mmap
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from onnxtrim.bench.session import RunOptions, open_session, run

Feeds = Mapping[str, NDArray[Any]]

_IN_FILE_FROM = 1 << 16  # bytes; smaller weights stay in the model
_ALIGN = 1 << 12
_FILE = "weights.bin"
_OWNER = "onnxtrim.weight_file"

# Their outputs are sequences or optionals, which have no shape.
_NOT_TENSORS = frozenset(
    "SplitToSequence SequenceConstruct SequenceEmpty SequenceInsert SequenceErase SequenceMap"
    " Optional OptionalGetElement".split()
)


class WeightFile:
    """Large tensors in a temporary file, written once each.

    The file goes with the last reference to this object; adopted tensors hold one.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None  # made when the first large tensor comes
        self._held: dict[int, tuple[ir.TensorProtocol, ir.ExternalTensor]] = {}
        self._end = 0

    def session(self, model: ir.Model, *, optimise: bool) -> ort.InferenceSession:
        """Open a session on a model that may be changed: its large weights move to the file.

        Raises:
            InputError: ONNX Runtime refuses the model.
        """
        return self.open(self.proto(model), optimise=optimise)

    def open(self, proto: onnx.ModelProto, *, optimise: bool) -> ort.InferenceSession:
        """Open a session on what `proto` gave.

        Raises:
            InputError: ONNX Runtime refuses the model.
        """
        return open_session(
            proto.SerializeToString(),
            RunOptions(arena=False),  # it would keep what one large run needed
            optimise=optimise,
            weights=self._folder,
        )

    def proto(self, model: ir.Model) -> onnx.ModelProto:
        """Serialise a model that may be changed: its large weights move to the file."""
        for graph in model.graphs():
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None:
                    continue
                if graph is model.graph and tensor.nbytes >= _IN_FILE_FROM:
                    value.const_value = self._moved(tensor)
                elif isinstance(tensor, ir.ExternalTensor):  # of the user's file
                    value.const_value = ir.Tensor(
                        tensor.numpy(), dtype=tensor.dtype, name=tensor.name
                    )
        return ir.to_proto(model)

    def adopt(self, model: ir.Model) -> None:
        """Let the large weights of a model lie here only, not in memory as well."""
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.nbytes >= _IN_FILE_FROM:
                value.const_value = self._moved(tensor)
                value.const_value.meta[_OWNER] = self
                self._held.pop(id(tensor), None)

    def _moved(self, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        if isinstance(tensor, ir.ExternalTensor) and tensor.meta.get(_OWNER) is self:
            return tensor
        held = self._held.get(id(tensor))
        if held is not None:
            return held[1]
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="onnxtrim."))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        with (self._folder / _FILE).open("ab") as file:
            file.truncate(self._end)
            np.asarray(tensor.numpy()).tofile(file)
        moved = ir.ExternalTensor(
            _FILE,
            self._end,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(static_shape(tensor)),
            name=tensor.name or "",
            base_dir=self._folder,
        )
        self._end += -(-tensor.nbytes // _ALIGN) * _ALIGN
        self._held[id(tensor)] = tensor, moved  # held: an id is unique only while it lives
        return moved


def forget_pages(model: ir.Model) -> None:
    """Let the mapped weights of a model leave memory; the next reader fetches them again."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        pages = tensor.raw if isinstance(tensor, ir.ExternalTensor) else None
        if pages is not None and hasattr(pages, "madvise"):  # not on Windows
            pages.madvise(mmap.MADV_DONTNEED)


def tensor_values(model: ir.Model) -> list[ir.Value]:
    """Every tensor that a node of the main graph makes, in order."""
    return [
        value
        for node in model.graph
        if node.op_type not in _NOT_TENSORS
        for value in node.outputs
        if value.name
    ]


class Prober:
    """Makes sessions that yield inner tensors of one model; it is serialised once.

    Optimisation is off unless asked for, so that every tensor of the file exists at run time.

    Args:
        model: The model; it is not changed.
        weights: Where large weights go; a file of its own if nothing is said.
    """

    def __init__(self, model: ir.Model, weights: WeightFile | None = None) -> None:
        self._weights = weights or WeightFile()
        self._proto = self._weights.proto(model.clone())
        self._nodes = list(self._proto.graph.node)
        del self._proto.graph.node[:], self._proto.graph.output[:]

    def probe(
        self,
        names: Iterable[str],
        *,
        shapes_only: bool = False,
        optimise: bool = False,
        given: Mapping[str, np.dtype[Any]] | None = None,
    ) -> Probe:
        """A session for some tensors.

        Args:
            names: Names of the tensors to read.
            given: Inner tensors that will be fed, with their types.
            shapes_only: Read the shape of each tensor instead of its values. The tensors are then
                freed during the run, so that memory stays that of an ordinary run.
            optimise: Let ONNX Runtime rewrite the graph: faster, but other roundings.

        Raises:
            InputError: ONNX Runtime refuses the model.
        """
        wanted = list(names)
        if not wanted:  # ONNX Runtime refuses a graph without nodes
            return Probe([], None)
        graph = self._proto.graph
        given = given or {}
        graph.node.extend(self._needed(wanted, set(given)))
        inputs = len(graph.input)
        for name, dtype in given.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
        for name in wanted:
            shown = f"onnxtrim.shape/{name}" if shapes_only else name
            if shapes_only:
                graph.node.add(op_type="Shape", input=[name], output=[shown])
            graph.output.add(name=shown)
        try:
            session = self._weights.open(self._proto, optimise=optimise)
        finally:
            del graph.node[:], graph.output[:], graph.input[inputs:]
        return Probe(wanted, session)

    def _needed(self, names: list[str], given: set[str]) -> list[onnx.NodeProto]:
        """The nodes that some tensors depend on, in order."""
        wanted, needed = set(names) - given, []
        for node in reversed(self._nodes):
            if wanted & set(node.output):
                needed.append(node)
                wanted |= set(_reads(node)) - given
        return needed[::-1]


class Probe:
    """A session that yields chosen inner tensors of a model.

    Attributes:
        names: Names of the tensors.
    """

    def __init__(self, names: Sequence[str], session: ort.InferenceSession | None) -> None:
        self.names = names
        self._session = session

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """The tensors, by name.

        Raises:
            InputError: ONNX Runtime refuses the inputs.
        """
        if self._session is None:
            return {}
        wanted = {item.name for item in self._session.get_inputs()}
        used = {name: array for name, array in feeds.items() if name in wanted}
        return dict(zip(self.names, run(self._session, used, "the model"), strict=True))


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, also within its bodies."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
            yield from (output.name for output in graph.output)


def static_shape(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """Shape of a tensor that is stored in the model."""
    return tuple(size if isinstance(size, int) else 0 for size in tensor.shape)


def measure_shapes(
    model: ir.Model, feeds: Sequence[Feeds], weights: WeightFile
) -> list[dict[str, tuple[int, ...]]]:
    """Shape of every tensor, graph inputs and initializers included, for each of these feeds."""
    names = [value.name or "" for value in tensor_values(model)]
    probe = Prober(model, weights).probe(names, shapes_only=True)
    stored = {
        value.name or "": static_shape(value.const_value)
        for value in model.graph.initializers.values()
        if value.const_value is not None
    }
    result = []
    for feed in feeds:
        shapes = {name: tuple(array.tolist()) for name, array in probe.run(feed).items()}
        shapes |= stored
        shapes |= {name: array.shape for name, array in feed.items()}
        result.append(shapes)
    return result


def blocks(
    names: Sequence[str], shapes: Mapping[str, tuple[int, ...]], limit: int
) -> list[list[str]]:
    """Cut names into runs whose tensors have at most ``limit`` elements in all."""
    result: list[list[str]] = []
    size = 0
    for name in names:
        elements = int(np.prod(shapes[name], dtype=np.int64))
        if not result or size + elements > limit:
            result.append([])
            size = 0
        result[-1].append(name)
        size += elements
    return result
