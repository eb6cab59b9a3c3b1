"""Models with one thing wrong each, and a word that the message must hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

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


@case("not UTF-8")
def name_that_is_no_text(folder: Path) -> bytes:
    whole: bytes = net().SerializeToString()
    return whole.replace(b"fc1/node", b"fc1\xe4\xe4ode")


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
