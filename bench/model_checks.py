"""Is a parsed model whole: names, order, stored tensors, functions. Nothing is run.

ONNX Runtime refuses most of this too, but neither all of it nor in words that help; and what comes
after it (rewrites of the graph) relies on it. The checker of ``onnx`` is no substitute: it refuses
models that run, such as those with unsorted nodes or with operators of ONNX Runtime's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from onnxtrim.bench.errors import InputError

if TYPE_CHECKING:
    import onnx

MOST_NODES = 10**6
"""Most nodes after the functions of a model were put in place of their calls."""

_AGAIN = "export the model again"


def check_structure(name: str, model: onnx.ModelProto) -> None:
    """Check that every name has one maker, that nothing depends on itself, that tensors are whole.

    Args:
        name: What to call the model in messages.
        model: The parsed file; external data is not looked at.

    Raises:
        InputError: It is not.
    """
    try:
        if not _is_text(model):
            raise InputError(f"{name}: holds a name that is not UTF-8; {_AGAIN}")
        check = _Structure(name, model)
        check.opsets()
        check.graph(model.graph, set())
        for function in model.functions:
            check.function(function)
        check.expansion()
    except RecursionError as error:
        raise InputError(f"{name}: its bodies or functions are nested too deeply") from error


def bits_per_element(data_type: int) -> int:
    """Bits of one element of a stored tensor; text counts as nothing.

    Raises:
        ValueError: No such type.
    """
    import onnx

    name = onnx.TensorProto.DataType.Name(data_type)
    if name in ("STRING", "UNDEFINED"):
        return 0
    if name.endswith("INT4") or name == "FLOAT4E2M1":
        return 4
    if name.endswith("INT2"):
        return 2
    return onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize * 8


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all bodies in it."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def shown(node: onnx.NodeProto) -> str:
    """A node for people: its name, or its first output, and its operator."""
    name = node.name or next((output for output in node.output if output), "")
    return f"node {name!r} ({node.op_type})"


class _Structure:
    def __init__(self, name: str, model: onnx.ModelProto) -> None:
        self.name = name
        self.model = model

    def refuse(self, what: str, advice: str = _AGAIN) -> InputError:
        return InputError(f"{self.name}: {what}; {advice}")

    def opsets(self) -> None:
        """ONNX Runtime guesses where nothing is said; nobody should."""
        standard = {"", "ai.onnx"}
        used = any(node.domain in standard for node in self.model.graph.node)
        if used and not any(item.domain in standard for item in self.model.opset_import):
            raise self.refuse("does not say which opset its operators are of")

    def graph(self, graph: onnx.GraphProto, outer: set[str]) -> None:
        """One graph and its bodies; they see the names of the graphs around them."""
        own: set[str] = set()
        for item in graph.input:
            if not item.name or item.name in own:
                raise self.refuse(f"two inputs are named {item.name!r}, or one has no name")
            own.add(item.name)
        stored: set[str] = set()
        for tensor in graph.initializer:
            if not tensor.name or tensor.name in stored:
                raise self.refuse(f"two weights are named {tensor.name!r}, or one has no name")
            stored.add(tensor.name)
            self.tensor(tensor, f"weight {tensor.name!r}")
        own |= stored | {sparse.values.name for sparse in graph.sparse_initializer}
        names = self.nodes(graph.node, own, outer)
        for output in graph.output:
            if output.name not in names:
                raise self.refuse(f"nothing makes the output {output.name!r}")

    def function(self, function: onnx.FunctionProto) -> None:
        """A function sees its parameters only."""
        if len(set(function.input)) < len(function.input):
            raise self.refuse(f"function {function.name!r} has two inputs of one name")
        names = self.nodes(function.node, set(function.input), set())
        for output in function.output:
            if output not in names:
                raise self.refuse(f"nothing makes output {output!r} of function {function.name!r}")

    def nodes(self, nodes: Iterable[onnx.NodeProto], own: set[str], outer: set[str]) -> set[str]:
        """Makers, readers and order of nodes; the names that they see or make."""
        nodes = list(nodes)
        makers: dict[str, int] = {}
        for number, node in enumerate(nodes):
            for output in node.output:
                if output in own:
                    raise self.refuse(f"{shown(node)} makes {output!r}, which is there before it")
                if output in makers:
                    first = shown(nodes[makers[output]])
                    raise self.refuse(f"{first} and {shown(node)} both make {output!r}")
                if output:
                    makers[output] = number
        names = own | makers.keys()
        needs: list[set[int]] = []
        for node in nodes:
            reads = set(_captured(node)) | {item for item in node.input if item}
            for item in node.input:
                if item and item not in names and item not in outer:
                    raise self.refuse(f"{shown(node)} reads {item!r}, which nothing makes")
            needs.append({makers[item] for item in reads if item in makers})
            self.attributes(node, names | outer)
        self.order(nodes, needs)
        return names

    def attributes(self, node: onnx.NodeProto, visible: set[str]) -> None:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                self.tensor(attribute.t, f"attribute {attribute.name!r} of {shown(node)}")
        for body in bodies(node):
            self.graph(body, visible)

    def order(self, nodes: list[onnx.NodeProto], needs: list[set[int]]) -> None:
        """Every node can run at some time; they need not be sorted."""
        readers: list[list[int]] = [[] for _ in nodes]
        missing = [len(need) for need in needs]
        for number, need in enumerate(needs):
            for other in need:
                readers[other].append(number)
        ready = [number for number, count in enumerate(missing) if not count]
        for number in ready:  # grows while it is read
            for reader in readers[number]:
                missing[reader] -= 1
                if not missing[reader]:
                    ready.append(reader)
        if len(ready) < len(nodes):
            stuck = next(number for number, count in enumerate(missing) if count)
            raise self.refuse(f"the graph has a cycle: {shown(nodes[stuck])} depends on itself")

    def tensor(self, tensor: onnx.TensorProto, what: str) -> None:
        """Type, shape and number of stored bytes."""
        import onnx

        dims = "x".join(map(str, tensor.dims))
        if any(size < 0 for size in tensor.dims):
            raise self.refuse(f"{what} has the impossible shape {dims}")
        try:
            bits = bits_per_element(tensor.data_type)
        except (ValueError, KeyError) as error:
            raise self.refuse(f"{what} has the unknown type {tensor.data_type}") from error
        if tensor.data_type == onnx.TensorProto.UNDEFINED:
            raise self.refuse(f"{what} has no type")
        if tensor.data_location == onnx.TensorProto.EXTERNAL or not tensor.HasField("raw_data"):
            return
        wanted = -(-math.prod(tensor.dims) * bits // 8)
        if bits == 0 or len(tensor.raw_data) != wanted:
            raise self.refuse(
                f"{what} has {len(tensor.raw_data)} bytes of data, its shape {dims or '()'} wants"
                f" {wanted}"
            )

    def expansion(self) -> None:
        """No function calls itself, and all calls together stay few."""
        functions = {(item.domain, item.name): item for item in self.model.functions}
        sizes: dict[tuple[str, str], int] = {}
        active: set[tuple[str, str]] = set()

        def size(nodes: Iterable[onnx.NodeProto]) -> int:
            total = 0
            for node in nodes:
                key = (node.domain, node.op_type)
                total += 1 if key not in functions else called(key)
                total += sum(size(body.node) for body in bodies(node))
            return total

        def called(key: tuple[str, str]) -> int:
            if key in active:
                raise self.refuse(f"function {key[1]!r} calls itself")
            if key not in sizes:
                active.add(key)
                sizes[key] = size(functions[key].node)
                active.remove(key)
            return sizes[key]

        total = size(self.model.graph.node)
        for key in functions:
            called(key)
        if total > MOST_NODES:
            raise self.refuse(
                f"its functions unfold to {total} nodes, more than {MOST_NODES}",
                "give a smaller model",
            )


def _is_text(message: Any) -> bool:
    """Whether all strings in a message are text; protobuf gives bytes where one is not."""
    import onnx

    if isinstance(message, onnx.TensorProto):  # not its data
        entries = all(_is_text(entry) for entry in message.external_data)
        return entries and isinstance(message.name, str) and isinstance(message.doc_string, str)
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if not all(isinstance(text, str) for text in texts):
                return False
        elif field.type == field.TYPE_MESSAGE:
            messages = [value] if hasattr(value, "ListFields") else value
            if not all(_is_text(item) for item in messages):
                return False
    return True


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node's bodies read from outside, and some that they don't."""
    for body in bodies(node):
        own = {item.name for item in body.input} | {item.name for item in body.initializer}
        own |= {output for inner in body.node for output in inner.output}
        for inner in body.node:
            yield from (item for item in inner.input if item not in own)
            yield from (item for item in _captured(inner) if item not in own)
