"""More models with one thing wrong: functions, and bodies of Loop and If."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.bad_cases import ANY, CASES, WORKS, case, net
from tests.nets import Net

__all__ = ["CASES"]


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
