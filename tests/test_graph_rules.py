"""Every operator of the rule table, alone between two layers, and against its schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, defs, helper

from onnxtrim.bench.session import RunOptions, open_session
from onnxtrim.toolkit.graph.node import Frozen, NodeView
from onnxtrim.toolkit.graph.rules import RULES, answer
from onnxtrim.toolkit.graph.selfcheck import self_check
from onnxtrim.toolkit.graph.signature import Signature, parse
from onnxtrim.toolkit.graph.surgery import count_parameters, parameters_after, remove_units
from tests.nets import Net, prepared

BOOLEAN = {"And", "Or", "Xor", "Not"}
INTEGER = {"BitShift", "BitwiseNot"}
NO_GRADUAL = {"IsInf", "IsNaN", "Not"}
NOT_IN_ORT = {"Swish"}  # the runtime has no kernel for it yet
POSITIVE = {"Log", "Sqrt", "Acosh", "ReduceLogSum", "Reciprocal", "Pow", "Div", "Mod"}
INSIDE = {"Acos", "Asin", "Atanh"}
REDUCTIONS = sorted(name for name in RULES if name.startswith("Reduce"))
VARIADIC = {"Max", "Mean", "Min", "Sum"}
BINARY = """Add And BitShift Div Equal Greater GreaterOrEqual Less LessOrEqual Mod Mul Or PRelu Pow
Sub Xor""".split()
SPECIAL = {
    "CastLike", "Clip", "Dropout", "Where", "Conv", "Gemm", "MatMul", "BatchNormalization",
    "LayerNormalization", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat",
    "Shape", "Cast",
}  # fmt: skip
POOLS = sorted(name for name in RULES if name.endswith("Pool"))
SOFTMAXES = ["Softmax", "LogSoftmax", "Hardmax"]
UNARY = sorted({*RULES} - {*REDUCTIONS, *VARIADIC, *BINARY, *SPECIAL, *POOLS, *SOFTMAXES})


def newest(operator: str) -> defs.OpSchema:
    return defs.get_schema(operator, defs.onnx_opset_version(), "")


def written(operator: str) -> Signature:
    """The signature of a node with as many operands as the schema allows."""
    schema = newest(operator)
    most = schema.max_input if schema.max_input < 100 else 3
    node = helper.make_node(operator, [f"i{k}" for k in range(most)], ["o"])
    shapes: tuple[Any, ...] = ((1, 6, 4, 5),) * most
    view = NodeView(ir.serde.deserialize_node(node), shapes, ((1, 6, 4, 5),), 23)
    view.node.attributes["perm"] = ir.AttrInt64s("perm", [0, 1, 2, 3])
    if operator == "Gemm":
        view = NodeView(view.node, ((2, 3), (3, 4), (4,)), ((2, 4),), 23)
    if operator.startswith("Reduce"):
        view.node.attributes["axes"] = ir.AttrInt64s("axes", [1])
    found, rule = answer(view)
    assert rule is RULES[operator]
    assert isinstance(found, str)
    return parse(found)


@pytest.mark.parametrize("operator", sorted(RULES.keys() - {"Concat"}))
def test_arity_fits_the_schema(operator: str) -> None:
    schema, signature = newest(operator), written(operator)
    assert schema.min_input <= len(signature.inputs) <= max(schema.max_input, 1)
    assert schema.min_output <= len(signature.outputs)
    if operator != "BatchNormalization":  # had two outputs more until opset 13
        assert len(signature.outputs) <= schema.max_output


def test_the_table_holds_only_operators_of_onnx() -> None:
    for operator in RULES:
        newest(operator)


def test_what_is_not_in_the_table_freezes_with_its_domain() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], domain="com.example")
    found, rule = answer(NodeView(ir.serde.deserialize_node(node), ((2, 3),), ((2, 3),), 20))
    assert (found, rule) == (Frozen("no rule for com.example.Relu"), None)


def net_around(
    operator: str, *extra: str, n: Net | None = None, opset: int = 22, **attributes: Any
) -> onnx.ModelProto:
    """Convolution, the operator (in the type and range that it takes), convolution."""
    n = n or Net()
    h = n.conv("c1", "x", 3, 7)
    if operator in POSITIVE:
        h = n.op("Softplus", h)
    elif operator in INSIDE:
        h = n.op("Mul", n.op("Tanh", h), n.constant("near", np.array(0.9, np.float32)))
    if operator == "Acosh":
        h = n.op("Add", h, n.constant("one", np.array(1.0, np.float32)))
    if operator in BOOLEAN:
        h = n.op("Cast", h, to=TensorProto.BOOL)
    elif operator in INTEGER:
        h = n.op("Cast", n.op("Abs", h), to=TensorProto.UINT32)
    h = n.op("Cast", n.op(operator, h, *extra, **attributes), to=TensorProto.FLOAT)
    return n.build(n.conv("c2", h, 7, 4), ["batch", 3, 5, 6], opset=opset, ir_version=10)


def run_case(
    model: onnx.ModelProto, folder: Path, groups: dict[str, int] | None, *, deaf: bool = False
) -> None:
    """Analyse; remove a third and check; or see that everything is frozen."""
    net = prepared(model, folder)
    found = {group.name: group.units for group in net.analysis.groups}
    if groups is not None:
        assert found == groups
    if not found:
        assert net.analysis.frozen
    masks = {name: np.arange(units) % 3 != 1 for name, units in found.items()}
    small = remove_units(net.analysis.model, net.analysis, masks)
    assert count_parameters(small) == parameters_after(net.analysis, masks)
    check = self_check(net.analysis.model, small, net.analysis, masks, net.feeds)
    assert deaf or not masks or check.effect > 0


@pytest.mark.parametrize("operator", UNARY)
def test_unary(operator: str, tmp_path: Path) -> None:
    if operator in NOT_IN_ORT:
        pytest.skip("ONNX Runtime has no kernel")
    run_case(net_around(operator), tmp_path, {"c1": 7}, deaf=operator in NO_GRADUAL)


@pytest.mark.parametrize("shape", [(7, 1, 1), (1, 7, 5, 6), (), (1,), (5, 6)], ids=str)
@pytest.mark.parametrize("operator", [*BINARY, *sorted(VARIADIC)])
def test_binary(operator: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """With a constant that lies on the channels, on other axes, or on none."""
    n = Net()
    values = np.random.default_rng(1).uniform(0.5, 2.0, shape)
    dtype = "?" if operator in BOOLEAN else "u4" if operator in INTEGER else "f4"
    second = n.constant("k", np.asarray(values).astype(dtype))
    own: dict[str, dict[str, Any]] = {"BitShift": {"direction": "LEFT"}, "Mod": {"fmod": 1}}
    model = net_around(operator, second, n=n, **own.get(operator, {}))
    run_case(model, tmp_path, {"c1": 7}, deaf=True)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1], [-1], [0, 2], [2, 3], [1, 2, 3], []], ids=str)
@pytest.mark.parametrize("operator", REDUCTIONS)
def test_reductions(operator: str, axes: list[int], keepdims: int, tmp_path: Path) -> None:
    n = Net()
    h = n.conv("c1", "x", 3, 7)
    h = n.op("Softplus", h) if operator == "ReduceLogSum" else h
    operand = [n.ints("axes", *axes)] if axes else []
    y = n.op(operator, h, *operand, keepdims=keepdims)
    reduced = {axis % 4 for axis in axes} or {0, 1, 2, 3}
    if keepdims and 1 not in reduced:
        y = n.op("Conv", y, n.weight("c2.weight", 4, 7, 1, 1))
    elif 1 not in reduced and 0 not in reduced:
        order = [0, *range(2, 4 - len(reduced)), 1]
        y = n.matmul("fc", n.op("Transpose", y, perm=order), 7, 4)
    summed = operator == "ReduceSum" and axes == [1]
    read = 1 not in reduced and (keepdims or 0 not in reduced)
    model = n.build(y, [1 if 0 in reduced else "batch", 3, 5, 6], opset=20, ir_version=9)
    run_case(model, tmp_path, {"c1": 7} if summed or read else None)


@pytest.mark.parametrize("axis", [1, -1, 2])
@pytest.mark.parametrize("operator", SOFTMAXES)
@pytest.mark.parametrize("opset", [11, 20])
def test_softmax(operator: str, axis: int, opset: int, tmp_path: Path) -> None:
    n = Net()
    h = n.op(operator, n.conv("c1", "x", 3, 7), axis=axis)
    model = n.build(n.conv("c2", h, 7, 4), ["batch", 3, 5, 6], opset=opset)
    run_case(model, tmp_path, {} if axis == 1 else {"c1": 7}, deaf=operator == "Hardmax")


@pytest.mark.parametrize("operator", POOLS)
def test_pools(operator: str, tmp_path: Path) -> None:
    attributes: dict[str, Any] = {"kernel_shape": [2, 3]}
    if operator.startswith("Global"):
        attributes = {}
    run_case(net_around(operator, opset=20, **attributes), tmp_path, {"c1": 7})


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_chains_of_views(rank: int, seed: int, tmp_path: Path) -> None:
    """Random transposes, squeezes and reshapes with all sizes different: never wrong."""
    rng = np.random.default_rng([rank, seed])
    n = Net()
    shape = [1, *rng.permutation([2, 3, 5, 4])[: rank - 1].tolist()]
    h = n.relu(n.matmul("fc1", "x", shape[-1], 7))
    now = [*shape[:-1], 7]
    for step in range(4):
        kind = rng.integers(4)
        if kind == 0:
            order = [0, *(1 + rng.permutation(len(now) - 1)).tolist()]
            h, now = n.op("Transpose", h, perm=order), [now[axis] for axis in order]
        elif kind == 1:
            axis = int(rng.integers(1, len(now) + 1))
            h = n.op("Unsqueeze", h, n.ints(f"axes{step}", axis))
            now.insert(axis, 1)
        elif kind == 2 and len(now) > 2:
            axis = int(rng.integers(1, len(now) - 1))
            now[axis : axis + 2] = [now[axis] * now[axis + 1]]
            h = n.op("Reshape", h, n.ints(f"target{step}", -1, *now[1:]))
        elif kind == 3 and 1 in now[1:]:
            axis = now.index(1, 1)
            h = n.op("Squeeze", h, n.ints(f"axes{step}", axis))
            now.pop(axis)
    out = n.matmul("fc2", h, now[-1], 6)
    run_case(n.build(out, ["batch", *shape[1:]]), tmp_path, None)


@pytest.mark.parametrize(
    ("operator", "attributes", "inputs"),
    [
        ("Clip", {}, ["low", "high"]),
        ("Clip", {}, ["", "high"]),
        ("CastLike", {}, ["low"]),
        ("Dropout", {}, []),
        ("Cast", {"to": TensorProto.DOUBLE}, []),
        ("Identity", {}, []),
    ],
)  # fmt: skip
def test_operators_that_pass(
    operator: str, attributes: dict[str, Any], inputs: list[str], tmp_path: Path
) -> None:
    n = Net()
    n.constant("low", np.array(-0.5, np.float32))
    n.constant("high", np.array(0.7, np.float32))
    run_case(net_around(operator, *inputs, n=n, **attributes), tmp_path, {"c1": 7})


def test_where_with_a_condition_of_its_own(tmp_path: Path) -> None:
    n = Net()
    a, b = n.conv("a", "x", 3, 7), n.conv("b", "x", 3, 7)
    h = n.op("Where", n.op("Greater", a, b), a, n.constant("k", np.ones((7, 1, 1), np.float32)))
    model = n.build(n.conv("c2", h, 7, 4), ["batch", 3, 5, 6])
    run_case(model, tmp_path, {"a": 7})


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("a", "b"), [(False, False), (True, False), (False, True), (True, True)])
def test_gemm_orientations(a: bool, b: bool, turned: bool, tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 5, 7))
    w = n.weight("w", *((6, 7) if b else (7, 6)))
    h = n.op("Transpose", h, perm=[1, 0]) if a else h
    if turned:  # the weight on the left
        w = n.weight("v", *((7, 6) if a else (6, 7)))
        h = n.op("Transpose", h, perm=[1, 0]) if a == b else h
        y = n.op("Gemm", w, h, transA=int(a), transB=int(b))
        y = n.op("Transpose", y, perm=[1, 0])
    else:
        y = n.op("Gemm", h, w, transA=int(a), transB=int(b))
    model = n.build(n.gemm("fc3", n.relu(y), 6, 4), ["batch", 5])
    run_case(model, tmp_path, {"fc1": 7, "v" if turned else "w": 6})


def test_matmul_of_vectors_and_batches(tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.matmul("fc1", "x", 5, 7))  # batch 3 7
    h = n.relu(n.op("MatMul", h, n.weight("batched", 3, 7, 6)))  # batch 3 6
    h = n.op("MatMul", n.weight("left", 4, 3), h)  # batch 4 6
    model = n.build(n.op("MatMul", h, n.weight("vector", 6)), ["batch", 3, 5])
    run_case(model, tmp_path, {"fc1": 7, "batched": 6})
    session = open_session(str(tmp_path / "net.onnx"), RunOptions())
    assert len(session.get_outputs()[0].shape) == 2
