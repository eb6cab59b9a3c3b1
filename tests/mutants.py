"""Damaged copies of small models, in the bytes of the file or in a field of the model.

A job is ``net:seed``; the same job always makes the same file.
"""

from __future__ import annotations

import contextlib
import copy
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from tests.nets import Net
from tests.zoo import ZOO

ODD = (-1, 0, 1, 2, 3, 5, 7, -(2**63), 2**63 - 1, 2**31, 2**40, -9)
OPERATORS = (
    "Add Conv Div Gemm MatMul Relu Softmax Reshape Transpose Concat Split Gather Slice Expand If"
    " Loop LSTM ConstantOfShape Shape Range NonZero MaxPool BatchNormalization Cast Identity Pad"
    " Resize Tile TopK Einsum NoSuchOperator"
).split()


def branches() -> onnx.ModelProto:
    """An If that the input decides, and a Loop."""
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        net (float[batch, 6] x) => (float[batch, 4] y) {
          total = ReduceSum <keepdims: int = 0> (x)
          flag = Greater (total, zero)
          h = Gemm (x, w, b)
          r = Relu (h)
          s = If (flag) <
            then_branch = yes () => (float[batch, 8] p) { p = Mul (r, two) },
            else_branch = no () => (float[batch, 8] q) { q = Identity (r) }>
          t = Loop (trips, true_, s) <
            body = one (int64 i, bool c, float[batch, 8] v) => (bool d, float[batch, 8] u) {
              d = Identity (c)
              u = Add (v, two) }>
          y = MatMul (t, last)
        }"""
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, value in {
        "w": rng.standard_normal((6, 8)).astype(np.float32),
        "b": np.ones(8, np.float32),
        "last": rng.standard_normal((8, 4)).astype(np.float32),
        "zero": np.float32(0),
        "two": np.float32(2),
        "trips": np.int64(3),
        "true_": np.True_,
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def recurrent() -> onnx.ModelProto:
    """Two LSTMs with a Squeeze between."""
    n = Net()
    h = "x"
    for name, a, b in (("l1", 5, 6), ("l2", 6, 4)):
        weights = n.weight(f"{name}.w", 1, 4 * b, a), n.weight(f"{name}.r", 1, 4 * b, b)
        h = n.op("LSTM", h, *weights, n.weight(f"{name}.b", 1, 8 * b), hidden_size=b)
        h = n.op("Squeeze", h, n.ints(f"{name}.axes", 1))
    return n.build(n.matmul("fc", h, 4, 3), [3, 1, 5])


def function() -> onnx.ModelProto:
    """A model-local function that is called twice."""
    text = """
        <ir_version: 8, opset_import: ["": 17, "own": 1]>
        net (float[batch, 6] x) => (float[batch, 6] y) {
          h = own.layer (x, w1)
          y = own.layer (h, w2)
        }
        <domain: "own", opset_import: ["": 17]>
        layer (a, m) => (c) { b = MatMul (a, m)  c = Relu (b) }"""
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name in ("w1", "w2"):
        weight = rng.standard_normal((6, 6)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    return model


NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": ZOO["mlp"],
    "mlp-external": ZOO["mlp_tokens"],
    "residual-external": ZOO["residual"],
    "grouped": ZOO["grouped"],
    "attention": ZOO["attention"],
    "reshape_live": ZOO["reshape_live"],
    "branches": branches,
    "recurrent": recurrent,
    "function": function,
}


@cache
def _net(name: str) -> onnx.ModelProto:
    return NETS[name]()


def make(job: str, folder: Path) -> tuple[Path, Path]:
    """Write the model of a job, and data for the net it was made from."""
    name, _, seed = job.partition(":")
    rng = Random(zlib.crc32(job.encode()))
    model = copy.deepcopy(_net(name))
    data = folder / "calib.npz"
    np.savez(data, **_samples(model))
    path, external = folder / "model.onnx", name.endswith("external")
    if external:
        onnx.save(model, path, save_as_external_data=True, location="model.bin", size_threshold=64)
        model = onnx.load(path, load_external_data=False)
    if seed == "whole":
        path.write_bytes(model.SerializeToString())
    elif int(seed) % 2:
        path.write_bytes(damage_bytes(model.SerializeToString(), rng))
    else:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            damage_field(model, rng)
        path.write_bytes(model.SerializeToString())
    return path, data


def _samples(model: onnx.ModelProto) -> dict[str, Any]:
    (x,) = model.graph.input
    sizes = [dim.dim_value or 16 for dim in x.type.tensor_type.shape.dim]
    return {x.name: np.random.default_rng(3).standard_normal(sizes).astype(np.float32)}


def damage_bytes(content: bytes, rng: Random) -> bytes:
    """Flip, cut, copy, zero or insert bytes."""
    data = bytearray(content)
    # Weights fill most of a file; half of the damage goes to where the structure is.
    place = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 900))
    length = rng.choice((1, 2, 4, 8, 64))
    kind = rng.choice("flip flip flip flip cut zero copy insert drop".split())
    if kind == "flip":
        for _ in range(rng.choice((1, 1, 2, 5))):
            spot = (place + rng.randrange(64)) % len(data)
            data[spot] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[place:]
    elif kind == "zero":
        data[place : place + length] = bytes(len(data[place : place + length]))
    elif kind == "copy":
        other = rng.randrange(len(data))
        data[place : place + length] = data[other : other + length]
    elif kind == "insert":
        data[place:place] = rng.randbytes(length)
    else:
        del data[place : place + length]
    return bytes(data)


def damage_field(model: onnx.ModelProto, rng: Random) -> None:
    """Change one thing that a careless or hostile writer could get wrong."""
    graph, change = rng.choice(_graphs(model)), rng.choice(CHANGES)
    with contextlib.suppress(Exception):  # there is nothing to change, or the value has no place
        change(model, graph, rng)


def _graphs(model: onnx.ModelProto) -> list[Any]:
    found: list[Any] = [model.graph, *model.functions]
    for graph in found:
        for node in graph.node:
            for attribute in node.attribute:
                found += [attribute.g] if attribute.HasField("g") else []
    return found


def _any_name(graph: Any, rng: Random) -> str:
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    names += [item.name for item in getattr(graph, "initializer", [])]
    return str(rng.choice([*names, "", "nobody"]))


def _list(model: onnx.ModelProto, graph: Any, rng: Random) -> None:
    """Drop, double or swap something in a list of things."""
    node = rng.choice(graph.node)
    lists = [graph.node, node.attribute, graph.input, graph.output, node.input, node.output]
    lists += [getattr(graph, "initializer", []), model.opset_import, graph.value_info]
    items = rng.choice([items for items in lists if items])
    first, second = rng.choices(range(len(items)), k=2)
    if (kind := rng.choice(("drop", "double", "swap"))) == "drop":
        del items[first]
    elif kind == "double":
        items.append(items[first])
    else:
        whole = list(items)
        whole[first], whole[second] = copy.deepcopy(whole[second]), copy.deepcopy(whole[first])
        del items[:]
        items.extend(whole)


def _rename(model: onnx.ModelProto, graph: Any, rng: Random) -> None:
    node = rng.choice(graph.node)
    names = rng.choice([node.input, node.output])
    names[rng.randrange(len(names))] = _any_name(graph, rng)


def _rename_item(model: onnx.ModelProto, graph: Any, rng: Random) -> None:
    item = rng.choice([*graph.input, *graph.output, *graph.initializer, *graph.node])
    item.name = _any_name(graph, rng)


def _operator(model: onnx.ModelProto, graph: Any, rng: Random) -> None:
    node = rng.choice(graph.node)
    if rng.random() < 0.2:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "own", "nobody"))
    else:
        node.op_type = rng.choice(OPERATORS)


def _attribute(model: onnx.ModelProto, graph: Any, rng: Random) -> None:
    node = rng.choice([node for node in graph.node if node.attribute])
    attribute = rng.choice(node.attribute)
    kind = rng.random()
    if kind < 0.15:
        attribute.type = rng.randrange(16)
    elif kind < 0.25:
        attribute.name = rng.choice(("axis", "perm", "group", "pads", "to", "nobody", ""))
    elif attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(ODD)
    elif attribute.HasField("i"):
        attribute.i = rng.choice(ODD)
    elif attribute.HasField("f"):
        attribute.f = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    elif attribute.HasField("s"):
        attribute.s = rng.choice((b"", b"NOTSET", b"\xff\xfe", b"linear"))


def _new_attribute(model: onnx.ModelProto, graph: Any, rng: Random) -> None:
    name = rng.choice("axis axes perm group strides dilations pads kernel_shape keepdims".split())
    value = [rng.choice(ODD) for _ in range(rng.randrange(1, 5))] if name[-1] == "s" else 9
    rng.choice(graph.node).attribute.append(helper.make_attribute(name, value))


def _tensor(model: onnx.ModelProto, graph: Any, rng: Random) -> None:
    tensor = rng.choice(graph.initializer)
    kind = rng.choice("dim more fewer type data values external location".split())
    if kind == "dim":
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(ODD)
    elif kind == "more":
        tensor.dims.append(rng.choice(ODD))
    elif kind == "fewer":
        tensor.dims.pop()
    elif kind == "type":
        tensor.data_type = rng.choice((*range(27), 99, -1))
    elif kind == "data":
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind == "values":
        array = numpy_helper.to_array(tensor).copy()
        values = ODD if array.dtype.kind == "i" else (np.nan, np.inf, 0.0, 1e38)
        array.flat[rng.randrange(array.size)] = rng.choice(values)
        tensor.raw_data = array.tobytes()
    else:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        if not tensor.external_data or rng.random() < 0.2:
            tensor.external_data.add(key=rng.choice(("location", "offset", "length", "nobody")))
        value = rng.choice(("model.bin", "model.onnx", ".", "", "\0", "-1", "1", str(2**64)))
        rng.choice(tensor.external_data).value = value


def _shape(model: onnx.ModelProto, graph: Any, rng: Random) -> None:
    kind = rng.choice([*graph.input, *graph.output]).type
    dims = kind.tensor_type.shape.dim
    change = rng.choice("dim type more kind free".split())
    if change == "type":
        kind.tensor_type.elem_type = rng.choice((*range(27), 99))
    elif change == "more":
        dims.add(dim_value=rng.choice(ODD))
    elif change == "kind":
        kind.sequence_type.elem_type.tensor_type.elem_type = 1
    elif change == "free":
        dims[rng.randrange(len(dims))].dim_param = rng.choice(("batch", "n", ""))
    else:
        dims[rng.randrange(len(dims))].dim_value = rng.choice(ODD)


def _version(model: onnx.ModelProto, graph: Any, rng: Random) -> None:
    if rng.random() < 0.3:
        model.ir_version = rng.choice((0, 1, 2, 3, 99, -1))
    else:
        rng.choice(model.opset_import).version = rng.choice((0, 1, 5, 9, 13, 25, 9999, -1))


CHANGES = (
    *(_list, _list, _list, _rename, _rename, _rename_item, _operator, _operator),
    *(_attribute, _attribute, _new_attribute, _tensor, _tensor, _tensor, _shape, _version),
)
