"""More models with one thing wrong: stored tensors, sizes, and bombs that a run sets off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import bad_bodies, bad_cases
from tests.bad_cases import ANY, WORKS, case, ints, n_build, net, plus
from tests.nets import Net

assert bad_bodies.CASES is bad_cases.CASES  # imported for what it registers
CASES = bad_cases.CASES
make = bad_cases.make


def resized(*dims: int) -> onnx.ModelProto:
    model = net()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    return model


@case("its shape 1099511627776x6 wants")
def absurd_weight(folder: Path) -> onnx.ModelProto:
    return resized(2**40, 6)


@case("impossible shape -12x6")
def negative_weight(folder: Path) -> onnx.ModelProto:
    return resized(-12, 6)


@case("wants 1361129467683753853853498429727072845824")
def overflowing_weight(folder: Path) -> onnx.ModelProto:
    return resized(2**62, 2**62, 2**4)


@case("wants 0")
def empty_weight_with_data(folder: Path) -> onnx.ModelProto:
    return resized(0, 6)


@case("weight 'fc1.weight' has 280 bytes of data, its shape 12x6 wants 288")
def short_weight(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-8]
    return model


@case("fc1.weight")
def too_few_values(folder: Path) -> onnx.ModelProto:
    model = net()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * 71)
    return model


@case("fc1.weight")
def values_of_another_type(folder: Path) -> onnx.ModelProto:
    model = net()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.int64_data.extend([1] * 72)
    return model


@case("has the unknown type 99")
def unknown_type(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.initializer[0].data_type = 99
    return model


@case("has no type")
def no_type(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.initializer[0].data_type = 0
    return model


@case("tensor(string)")
def string_weight(folder: Path) -> onnx.ModelProto:
    model = net()
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(np.full((12, 6), "a", object), tensor.name))
    return model


@case("tensor(string), which is not supported")
def string_input(folder: Path) -> onnx.ModelProto:
    model = net()
    model.graph.node.append(helper.make_node("Identity", ["text"], ["told"]))
    text = helper.make_tensor_value_info("text", TensorProto.STRING, [1])
    model.graph.input.append(text)
    model.graph.output.append(helper.make_tensor_value_info("told", TensorProto.STRING, [1]))
    return model


@case(WORKS)
def unused_text(folder: Path) -> onnx.ModelProto:
    model = net()
    text = numpy_helper.from_array(np.array(["a", "b"], object), "text")
    model.graph.initializer.append(text)
    return model


@case(ANY)
def nan_weights(folder: Path) -> onnx.ModelProto:
    model = net()
    weight = np.full((12, 6), np.nan, np.float32)
    model.graph.initializer[0].raw_data = weight.tobytes()
    return model


@case("sparse")
def sparse_weight(folder: Path) -> onnx.ModelProto:
    return sparse(12, 6)


@case(ANY)
def sparse_bomb(folder: Path) -> onnx.ModelProto:
    return sparse(2**20, 2**20)


def sparse(*dims: int) -> onnx.ModelProto:
    model = net()
    del model.graph.initializer[0]
    values = numpy_helper.from_array(np.ones(2, np.float32), "fc1.weight")
    indices = numpy_helper.from_array(np.array([1, 5], np.int64), "fc1.indices")
    tensor = helper.make_sparse_tensor(values, indices, list(dims))
    model.graph.sparse_initializer.append(tensor)
    return model


@case("more than 134217728 elements")
def absurd_input(folder: Path) -> onnx.ModelProto:
    n = Net()
    return n_build(n, n.op("Relu", "x"), [1, 2**40])


@case(ANY)
def input_of_size_zero(folder: Path) -> onnx.ModelProto:
    n = Net()
    return n_build(n, n.relu(n.gemm("fc1", "x", 6, 4)), [0, 6])


@case(ANY)
def layer_of_size_zero(folder: Path) -> onnx.ModelProto:
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 6, 0))
    return n.build(n.gemm("fc2", h, 0, 4), ["batch", 6])


# --- external data ------------------------------------------------------------------------------


def outside(folder: Path, **entries: str) -> onnx.ModelProto:
    """The first weight, of 288 bytes, lies in ``w.bin`` of 300 bytes."""
    model = net()
    tensor = model.graph.initializer[0]
    (folder / "w.bin").write_bytes(tensor.raw_data + bytes(12))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return model


def external(name: str, says: str, **entries: str) -> None:
    def build(folder: Path) -> onnx.ModelProto:
        return outside(folder, **entries)

    build.__name__ = f"external_{name}"
    case(says)(build)


external("whole", WORKS, offset="0", length="288")
external("without_length", WORKS)
external("offset_too_far", "cut off", offset="13")
external("offset_of_exabytes", "cut off", offset=str(2**63))
external("offset_negative", "from -1", offset="-1")
external("offset_text", "not a number", offset="one")
external("length_beyond", "its shape wants 288", length="1000")
external("length_short", "its shape wants 288", length="4")
external("absolute", "only files in the model's folder", location="/etc/hostname")
external("parent", "outside the model's folder", location="../w.bin")
external("folder", "no such file", location=".")
external("nul", "only files in the model's folder", location="w\0.bin")
external("long", "no such file", location="w" * 5000)
external("itself", "cut off", location="model.onnx", offset="100000")


@case("outside the model's folder")
def external_link(folder: Path) -> onnx.ModelProto:
    model = outside(folder, location="link.bin")
    (folder / "link.bin").symlink_to("/etc/hostname")
    return model


@case("only files in the model's folder")
def external_without_location(folder: Path) -> onnx.ModelProto:
    model = outside(folder)
    del model.graph.initializer[0].external_data[:]
    return model


# --- bombs --------------------------------------------------------------------------------------


def bomb(name: str, grow: Callable[[Net, str], str], says: str = "of memory") -> None:
    """A net that needs what ``grow`` makes of the first layer."""

    def build(folder: Path) -> onnx.ModelProto:
        n = Net()
        h = n.relu(n.gemm("fc1", "x", 6, 12))
        h = n.relu(n.gemm("fc2", plus(n, h, grow(n, h)), 12, 8))
        return n_build(n, n.gemm("fc3", h, 8, 3), ["batch", 6])

    build.__name__ = f"bomb_{name}"
    case(says)(build)


def of_shape(*sizes: int) -> Callable[[Net, str], str]:
    def grow(n: Net, h: str) -> str:
        return n.op("ConstantOfShape", ints(n, "sizes", *sizes))

    return grow


def live_shape(n: Net, h: str) -> str:
    """The size comes from the input: nothing can be known before the run."""
    size = n.op("Mul", n.op("Shape", h), ints(n, "factor", 10**6))
    return n.op("ConstantOfShape", size)


def long_range(n: Net, h: str) -> str:
    limits = [np.array(value, np.int64) for value in (0, 10**12, 1)]
    names = [n.constant(f"range{k}", value) for k, value in enumerate(limits)]
    return n.op("Cast", n.op("Range", *names), to=1)


def slow_loop(trips: int, *, gather: bool) -> Callable[[Net, str], str]:
    """A Loop of so many trips; it may gather what each trip makes."""

    def grow(n: Net, h: str) -> str:
        nodes = [
            helper.make_node("Identity", ["c"], ["d"]),
            helper.make_node("Relu", ["v"], ["u"]),
        ]
        outputs = [helper.make_tensor_value_info("d", TensorProto.BOOL, [])]
        outputs += [helper.make_tensor_value_info(k, 1, None) for k in ("u", *["s"] * gather)]
        if gather:
            nodes.append(helper.make_node("Identity", ["u"], ["s"]))
        inputs = [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", 1, None),
        ]
        body = helper.make_graph(nodes, "body", inputs, outputs)
        count = n.constant("trips", np.array(trips, np.int64))
        always = n.constant("always", np.array(True))
        names = ["looped", *["gathered"] * gather]
        n.nodes.append(helper.make_node("Loop", [count, always, h], names, body=body))
        return names[-1]

    return grow


bomb("constant", of_shape(10**12))
bomb("constant_of_two_sizes", of_shape(10**6, 10**6))
bomb("constant_overflows", of_shape(2**62, 2**62), "overflow")
bomb("constant_negative", of_shape(-1), "non-negative")
bomb("of_the_input", live_shape)
bomb("range", long_range)
bomb("expand", lambda n, h: n.op("Expand", "fc1.bias", ints(n, "sizes", 10**11, 12)))
bomb("tile", lambda n, h: n.op("Tile", h, ints(n, "repeats", 10**6, 10**6)), "exceeds")
bomb("pad", lambda n, h: n.op("Pad", h, ints(n, "pads", 0, 0, 10**6, 10**6)))
bomb("loop", slow_loop(2**62, gather=False), "is not finished after")
bomb("loop_gathers", slow_loop(2**62, gather=True), "is not finished after")
bomb(
    "outer_product",
    lambda n, h: n.op(
        "MatMul",
        n.op("ConstantOfShape", ints(n, "high", 10**6, 1)),
        n.op("ConstantOfShape", ints(n, "wide", 1, 10**6)),
    ),
)
