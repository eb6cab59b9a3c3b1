"""The same net in every form in which a file may come, and what must stay frozen in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from onnxtrim.toolkit.graph.selfcheck import self_check
from onnxtrim.toolkit.graph.surgery import count_parameters, parameters_after, remove_units
from onnxtrim.toolkit.prepare import Prepared, prepare
from tests.nets import Net, prepared

CONV_NET = {"c1": 6, "c2": 5}  # its groups


def conv_net(opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    """Convolution, batch normalisation, pooling, a view, softmax: all that changed with opsets."""
    n = Net()
    h = n.relu(n.bn("bn", n.conv("c1", "x", 3, 6, bias=False), 6))
    h = n.op("MaxPool", n.conv("c2", h, 6, 5), kernel_shape=[2, 2], strides=[2, 2])
    if opset < 13:
        h = n.op("Squeeze", n.op("ReduceSum", h, axes=[2], keepdims=1), axes=[2])
    else:
        h = n.op("ReduceSum", h, n.ints("two", 2), keepdims=1)
        h = n.op("Squeeze", h, n.ints("axes", 2))
    if opset < 18:
        h = n.op("ReduceMax", h, axes=[-1], keepdims=0)
    else:
        h = n.op("ReduceMax", h, n.ints("last", -1), keepdims=0)
    h = n.op("Softmax", n.gemm("fc", h, 5, 4), axis=1)
    return n.build(h, ["batch", 3, 6, 6], opset=opset, ir_version=ir_version)


def shrink(net: Prepared) -> None:
    """Remove a third of everything and check."""
    masks = {group.name: np.arange(group.units) % 3 != 1 for group in net.analysis.groups}
    small = remove_units(net.analysis.model, net.analysis, masks)
    assert count_parameters(small) == parameters_after(net.analysis, masks)
    check = self_check(net.analysis.model, small, net.analysis, masks, net.feeds)
    assert check.effect > 1e-4 or not masks


def units(net: Prepared) -> dict[str, int]:
    return {group.name: group.units for group in net.analysis.groups}


def reasons(net: Prepared) -> dict[str, str]:
    return {item.operator: item.reason for item in net.analysis.frozen}


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 20, 23])
def test_opsets(opset: int, tmp_path: Path) -> None:
    net = prepared(conv_net(opset, 10 if opset > 21 else 8), tmp_path)
    assert units(net) == CONV_NET
    shrink(net)


def weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    model.ir_version = 3
    for weight in model.graph.initializer:
        info = helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
        model.graph.input.append(info)
    return model


def weights_as_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    nodes = [helper.make_node("Constant", [], [w.name], value=w) for w in model.graph.initializer]
    nodes += list(model.graph.node)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    return model


def unsorted_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def without_names(model: onnx.ModelProto) -> onnx.ModelProto:
    for node in model.graph.node:
        node.name = ""
    return model


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


FORMS = [weights_as_inputs, weights_as_constants, unsorted_nodes, without_names, half]


@pytest.mark.parametrize("change", FORMS, ids=lambda change: change.__name__)
def test_forms(change: Callable[[onnx.ModelProto], onnx.ModelProto], tmp_path: Path) -> None:
    net = prepared(change(conv_net(11 if change is weights_as_inputs else 17)), tmp_path)
    assert units(net) == CONV_NET
    shrink(net)


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(conv_net(), path, save_as_external_data=True, location="net.data", size_threshold=100)
    net = prepare(path)[0]
    assert units(net) == CONV_NET
    shrink(net)


def test_a_local_function(tmp_path: Path) -> None:
    """Two calls of one function: inlined, each with its own weights."""
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "local": 1]>
        net (float[batch, 8] x) => (float[batch, 4] y)
        <float[8, 12] w1, float[12] b1, float[12, 10] w2, float[10] b2, float[10, 4] w3> {
            h1 = local.dense (x, w1, b1)
            h2 = local.dense (h1, w2, b2)
            y = MatMul (h2, w3)
        }
        <domain: "local", opset_import: ["": 18]>
        dense (x, w, b) => (y) { m = MatMul (x, w)  a = Add (m, b)  y = LeakyRelu (a) }
    """)
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 12), "b1": (12,), "w2": (12, 10), "b2": (10,), "w3": (10, 4)}
    del model.graph.initializer[:]
    for name, shape in shapes.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    net = prepared(model, tmp_path)
    assert units(net) == {"w1": 12, "w2": 10}
    shrink(net)


def unknown(n: Net, h: str) -> str:
    return n.op("Compress", h, n.constant("all", np.ones(6, np.bool_)), axis=1)


OVER_CHANNELS: list[tuple[str, Callable[[Net, str], str], str]] = [
    ("Softmax", lambda n, h: n.op("Softmax", h, axis=1), "it normalises over this axis"),
    ("LogSoftmax", lambda n, h: n.op("LogSoftmax", h, axis=-3), "it normalises over this axis"),
    ("CumSum", lambda n, h: n.op("CumSum", h, n.constant("axis", np.array(1, np.int64))),
     "it computes over this axis"),
    *((f"Reduce{kind}", lambda n, h, kind=kind: n.op(f"Reduce{kind}", h, axes=[1]),
       "it computes over this axis") for kind in ("Max", "Min", "Mean", "Prod", "L1", "L2")),
    ("ArgMax", lambda n, h: n.op("Cast", n.op("ArgMax", h, axis=1), to=1),
     "it computes over this axis"),
    ("LRN", lambda n, h: n.op("LRN", h, size=3), "it normalises over this axis"),
    ("Compress", unknown, "no rule for Compress"),
    ("MaxPool", lambda n, h: maxpool_indices(n, h), "its indices count across channels"),
]  # fmt: skip


def maxpool_indices(n: Net, h: str) -> str:
    n.nodes.append(helper.make_node("MaxPool", [h], ["pooled", "where"], kernel_shape=[1, 1]))
    return n.op("Add", "pooled", n.op("Cast", "where", to=1))


@pytest.mark.parametrize(
    ("operator", "build", "reason"), OVER_CHANNELS, ids=[item[0] for item in OVER_CHANNELS]
)
def test_operators_over_the_channel_axis(
    operator: str, build: Callable[[Net, str], str], reason: str, tmp_path: Path
) -> None:
    """The channels that the operator sees stay, those before and after it can leave."""
    n = Net()
    h = n.conv("c2", n.relu(n.conv("c1", "x", 3, 7)), 7, 6)
    h = build(n, h)
    channels = (
        6 if operator in ("Softmax", "LogSoftmax", "CumSum", "LRN", "Compress", "MaxPool") else 1
    )
    h = n.conv("c4", n.relu(n.conv("c3", h, channels, 5)), 5, 4)
    net = prepared(n.build(h, ["batch", 3, 6, 6]), tmp_path)
    assert units(net) == {"c1": 7, "c3": 5}
    assert reasons(net)[operator] == reason
    assert "c2.weight" in {item.name for item in net.analysis.frozen}
    shrink(net)


def test_layer_norm_over_channels_last(tmp_path: Path) -> None:
    """Its axis stays; the outputs with its statistics carry the other axes."""
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 7))
    outputs = ["normed", "mean", "inverse"]
    weights = [n.weight("scale", 5), n.weight("shift", 5)]
    n.nodes.append(helper.make_node("LayerNormalization", [h, *weights], outputs))
    h = n.op("Add", "normed", n.op("Mul", "mean", "inverse"))
    net = prepared(n.build(n.conv("c2", h, 7, 4), ["batch", 3, 5, 5]), tmp_path)
    assert units(net) == {"c1": 7}
    assert ("mean", 1) in net.analysis.groups[0].slices
    shrink(net)


def test_what_an_if_body_captures_stays(tmp_path: Path) -> None:
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18]>
        net (float[batch, 8] x, bool[1] flag) => (float[batch, 4] y) {
            a = MatMul (x, w1)
            h = Relu (a)
            c = MatMul (x, w2)
            g = Tanh (c)
            d = If (flag) <
                then_branch = yes () => (p) { p = Mul (h, h) },
                else_branch = no () => (q) { q = Neg (h) }
            >
            e = MatMul (d, w3)
            f = MatMul (g, w4)
            y = Add (e, f)
        }
    """)
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (8, 9), "w2": (8, 7), "w3": (9, 4), "w4": (7, 4)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    net = prepare(path)[0]
    assert units(net) == {"w2": 7}
    assert reasons(net)["If"] == "If has a body, and what the body reads stays"
    shrink(net)


def test_free_height_and_width_are_not_folded(tmp_path: Path) -> None:
    """The sizes at which the model was analysed must not get into the file."""
    from tests.zoo import reshape_free

    net = prepared(reshape_free(), tmp_path)
    sizes = {feeds["x"].shape for feeds in net.feeds}
    assert {shape[0] for shape in sizes} == {1, 3}
    assert len({shape[2:] for shape in sizes}) == 2
    assert "Shape" in {node.op_type for node in net.analysis.model.graph}


def test_constants_that_are_contracted_with_each_other(tmp_path: Path) -> None:
    """A low-rank weight: the rank has no statistics, it stays."""
    n = Net()
    w = n.op("MatMul", n.weight("a", 16, 4), n.weight("b", 4, 32))
    h = n.relu(n.op("MatMul", "x", w))
    net = prepared(n.build(n.matmul("fc", h, 32, 4), ["batch", 16]), tmp_path)
    assert units(net) == {"b": 32}
    assert all(name == "relu_2" for name, _ in net.analysis.consumer_inputs())
    shrink(net)
