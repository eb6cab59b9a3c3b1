"""Models with one thing wrong each, and a word that the message must hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.nets import Net

Build = Callable[[Path], "onnx.ModelProto | bytes"]
WORKS, ANY = "", "*"
CASES: dict[str, tuple[Build, str]] = {}


def case(says: str) -> Callable[[Build], Build]:
    """Register a model with what its refusal says; ``WORKS`` if it is a good one, ``ANY``
    if it may work or be refused."""

    def register(build: Build) -> Build:
        CASES[build.__name__] = build, says
        return build

    return register


def make(job: str, folder: Path) -> tuple[Path, Path | None]:
    """Write the model of a case, and data if its input is ``x`` (batch, 6)."""
    model = CASES[job][0](folder)
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    if isinstance(model, bytes):
        return path, None
    inputs = [(item.name, len(item.type.tensor_type.shape.dim)) for item in model.graph.input]
    if inputs != [("x", 2)]:
        return path, None
    x = np.random.default_rng(3).standard_normal((16, 6)).astype(np.float32)
    np.savez(folder / "calib.npz", x=x)
    return path, folder / "calib.npz"


def net(*, named: str = "", extra: Callable[[Net, str], str] | None = None) -> onnx.ModelProto:
    """An MLP 6-12-8-3; ``extra`` may add something after the first Relu."""
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 6, 12))
    if extra is not None:
        h = extra(n, h)
    h = n.relu(n.gemm("fc2", h, 12, 8))
    model = n.build(n.gemm("fc3", h, 8, 3), ["batch", 6])
    for node in model.graph.node:
        node.name = named or node.name
    return model


def ints(n: Net, name: str, *values: int) -> str:
    return n.constant(name, np.array(values, np.int64))


def plus(n: Net, h: str, huge: str) -> str:
    """``h`` plus 0 times something, so that it is needed."""
    total = n.op("ReduceMax", huge, keepdims=0)
    return n.op("Add", h, n.op("Mul", total, n.constant("nought", np.array(0, np.float32))))


# --- the graph ----------------------------------------------------------------------------------


@case("the graph has a cycle: node")
def cycle(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.node[0].input[0] = model.graph.node[2].output[0]
    return model


@case("the graph has a cycle: node")
def reads_itself(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.node[1].input[0] = model.graph.node[1].output[0]
    return model


@case("reads 'fc1.weight', which nothing makes")
def missing_initializer(folder: Path) -> onnx.ModelProto:
    model = net()
    del model.graph.initializer[0]
    return model


@case("reads 'x', which nothing makes")
def missing_input(folder: Path) -> onnx.ModelProto:
    model = net()
    del model.graph.input[:]
    return model


@case("both make 'fc1'")
def two_makers(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.node[2].output[0] = "fc1"
    return model


@case("makes 'fc1.bias', which is there before it")
def makes_a_weight(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.node[1].output[0] = "fc1.bias"
    return model


@case("two weights are named 'fc1.bias'")
def two_weights(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.initializer[0].name = "fc1.bias"
    return model


@case("two inputs are named 'x'")
def two_inputs(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.input.append(model.graph.input[0])
    return model


@case("two nodes with same node name")
def nodes_of_one_name(folder: Path) -> onnx.ModelProto:
    return net(named="same")


@case("is not an ONNX model")
def no_outputs(folder: Path) -> onnx.ModelProto:
    model = net()
    del model.graph.output[:]
    return model


@case("nothing makes the output 'nobody'")
def output_of_nobody(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.output[0].name = "nobody"
    return model


@case("is not an ONNX model")
def empty_graph(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.Clear()
    return model


@case("nothing makes the output")
def no_nodes(folder: Path) -> onnx.ModelProto:
    model = net()
    del model.graph.node[:]
    return model


@case("NoSuchOperator")
def unknown_operator(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.node[1].op_type = "NoSuchOperator"
    return model


@case("nobody.org")
def unknown_domain(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.node[1].domain = "nobody.org"
    model.opset_import.append(helper.make_opsetid("nobody.org", 1))
    return model


@case("Opset 9999")
def opset_of_the_future(folder: Path) -> onnx.ModelProto:
    model = net()
    model.opset_import[0].version = 9999
    return model


@case("is not an ONNX model")
def no_opset(folder: Path) -> onnx.ModelProto:
    model = net()
    del model.opset_import[:]
    return model


@case("does not say which opset")
def no_opset_of_the_operators(folder: Path) -> onnx.ModelProto:
    model = net()
    model.opset_import[0].domain = "nobody.org"
    return model


@case("function 'f' calls itself")
def recursive_function(folder: Path) -> onnx.ModelProto:
    return functions([("f", "g"), ("g", "f")])


@case("unfold to")
def exploding_functions(folder: Path) -> onnx.ModelProto:
    """Each calls the next one twice: a few kilobytes are 2**40 nodes."""
    chain = [(f"f{k}", f"f{k + 1}", f"f{k + 1}") for k in range(40)]
    return functions([*chain, ("f40",)])


def functions(bodies: list[tuple[str, ...]]) -> onnx.ModelProto:
    """Local functions by name, with the functions that each calls in a row."""
    model = net()
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[1].domain, model.graph.node[1].op_type = "own", bodies[0][0]
    for name, *calls in bodies:
        names = ["a", *(f"t{k}" for k in range(len(calls))), "b"]
        nodes = [
            helper.make_node(callee, [names[k]], [names[k + 1]], domain="own")
            for k, callee in enumerate(calls)
        ]
        nodes.append(helper.make_node("Relu", [names[-2]], ["b"]))
        model.functions.append(
            helper.make_function("own", name, ["a"], ["b"], nodes, list(model.opset_import))
        )
    return model


def nested(depth: int) -> onnx.ModelProto:
    """Loops within Loops, each of one trip."""
    model = net()
    once = helper.make_node("Relu", ["fc1"], ["made0"])
    for level in range(1, depth + 1):
        inputs = [
            helper.make_tensor_value_info(f"i{level}", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"c{level}", TensorProto.BOOL, []),
            onnx.ValueInfoProto(name=f"v{level}"),
        ]
        go_on = helper.make_node("Identity", [f"c{level}"], [f"d{level}"])
        outputs = [helper.make_tensor_value_info(f"d{level}", TensorProto.BOOL, [])]
        outputs.append(onnx.ValueInfoProto(name=once.output[0]))
        body = helper.make_graph([go_on, once], f"g{level}", inputs, outputs)
        once = helper.make_node("Loop", ["trips", "", "fc1"], [f"made{level}"], body=body)
    once.output[0] = model.graph.node[1].output[0]
    model.graph.node[1].CopyFrom(once)
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "trips"))
    return model


@case(WORKS)
def three_bodies(folder: Path) -> onnx.ModelProto:
    return nested(3)


@case(ANY)
def thirty_bodies(folder: Path) -> onnx.ModelProto:
    return nested(30)


@case("is not an ONNX model")
def a_thousand_bodies(folder: Path) -> bytes:
    """Deeper than any parser goes, so put together by hand."""

    def field(number: int, content: bytes) -> bytes:
        size, rest = b"", len(content)
        while rest > 127:
            size, rest = size + bytes([rest % 128 + 128]), rest // 128
        return bytes([number * 8 + 2]) + size + bytes([rest]) + content

    inner = helper.make_node("Relu", ["fc1"], ["r"]).SerializeToString()
    for _ in range(1000):
        attribute = onnx.AttributeProto(
            name="then_branch", type=onnx.AttributeProto.GRAPH
        ).SerializeToString()
        attribute += field(6, field(1, inner))
        inner = onnx.NodeProto(op_type="If", input=["flag"], output=["r"]).SerializeToString()
        inner += field(5, attribute)
    whole: bytes = net().SerializeToString()
    return whole + field(7, field(1, inner))


def shadowing(name: str) -> onnx.ModelProto:
    """A Loop whose body has an own tensor of that name."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Relu", [name], ["u"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            onnx.ValueInfoProto(name=name),
        ],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []), onnx.ValueInfoProto(name="u")],
    )

    def extra(n: Net, h: str) -> str:
        trips = n.constant("trips", np.array(2, np.int64))
        return n.op("Loop", trips, "", h, body=body)

    return net(extra=extra)


@case(WORKS)
def a_body_shadows_a_tensor(folder: Path) -> onnx.ModelProto:
    return shadowing("fc1")


@case(WORKS)
def a_body_shadows_a_weight(folder: Path) -> onnx.ModelProto:
    return shadowing("fc2.weight")


# --- shapes and tensors -------------------------------------------------------------------------


@case("fc2")
def gemm_of_a_wrong_rank(folder: Path) -> onnx.ModelProto:
    model = net()
    tensor = model.graph.initializer[2]
    tensor.dims.append(1)
    return model


@case("conv")
def conv_of_a_wrong_rank(folder: Path) -> onnx.ModelProto:
    n = Net()
    h = n.op("Conv", "x", n.weight("w", 4, 3, 3), out="conv")
    return n_build(n, h, ["batch", 3, 6, 6])


@case("conv")
def conv_of_wrong_channels(folder: Path) -> onnx.ModelProto:
    n = Net()
    return n_build(n, n.op("Conv", "x", n.weight("w", 4, 5, 3, 3), out="conv"), [1, 3, 6, 6])


def n_build(n: Net, y: str, shape: list[int | str]) -> onnx.ModelProto:
    """A model whose shapes can't be inferred."""
    graph = helper.make_graph(
        n.nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info(y, 1, None)],
        n.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
