"""The zoo: one small net per structure that the engine must understand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.nets import Net

ZOO: dict[str, Callable[[], onnx.ModelProto]] = {}


def zoo(build: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    ZOO[build.__name__] = build
    return build


@zoo
def mlp() -> onnx.ModelProto:
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 8, 12))
    h = n.relu(n.gemm("fc2", h, 12, 10, bias=False))
    return n.build(n.gemm("fc3", h, 10, 4), ["batch", 8])


@zoo
def mlp_matmul() -> onnx.ModelProto:
    """MatMul and Add; one weight goes through a Transpose, as torch exports it."""
    n = Net()
    h = n.relu(n.matmul("fc1", "x", 8, 12))
    flipped = n.op("Transpose", n.weight("fc2.weight", 10, 12), perm=[1, 0])
    h = n.op("Add", n.weight("fc2.bias", 10), n.op("MatMul", h, flipped))
    return n.build(n.matmul("fc3", n.relu(h), 10, 4, bias=False), ["batch", 8])


@zoo
def mlp_tokens() -> onnx.ModelProto:
    """Three axes; the weights are too large to be folded."""
    n = Net()
    h = "x"
    for name, a, b in (("fc1", 8, 24), ("fc2", 24, 20), ("fc3", 20, 6)):
        flipped = n.op("Transpose", n.weight(f"{name}.weight", b, a), perm=[1, 0])
        h = n.op("Add", n.op("MatMul", h, flipped, out=name), n.weight(f"{name}.bias", b))
        h = h if name == "fc3" else n.op("Gelu", h)
    return n.build(h, ["batch", 5, 8], opset=20, ir_version=9)


@zoo
def mlp_square() -> onnx.ModelProto:
    """Every size is 16, in the manner of the formula ``x^T y``."""
    n = Net()
    h = n.relu(n.matmul("fc1", "x", 16, 16))
    h = n.op("Transpose", h, perm=[0, 2, 1])
    h = n.relu(n.matmul("fc2", h, 16, 16))
    h = n.op("Transpose", h, perm=[0, 2, 1])
    return n.build(n.matmul("fc3", h, 16, 16), ["batch", 16, 16])


@zoo
def residual() -> onnx.ModelProto:
    """Two blocks, the second with stride and a projection."""
    n = Net()
    s = n.relu(n.bn("bn0", n.conv("stem", "x", 3, 8, bias=False), 8))
    for name, a, b, steps in (("b1", 8, 8, [1, 1]), ("b2", 8, 12, [2, 2])):
        h = n.conv(f"{name}.conv1", s, a, b, bias=False, strides=steps)
        h = n.relu(n.bn(f"{name}.bn1", h, b))
        h = n.bn(f"{name}.bn2", n.conv(f"{name}.conv2", h, b, b, bias=False), b)
        if a != b:
            s = n.conv(f"{name}.skip", s, a, b, 1, bias=False, strides=steps)
            s = n.bn(f"{name}.bn3", s, b)
        s = n.relu(n.op("Add", h, s))
    h = n.op("Flatten", n.op("GlobalAveragePool", s))
    return n.build(n.gemm("head", h, 12, 5), ["batch", 3, 8, 8])


@zoo
def mobile() -> onnx.ModelProto:
    """Inverted residual: expand, depthwise, project; twice, the first with a skip."""
    n = Net()
    s = n.conv("stem", "x", 3, 8)
    for number in (1, 2):
        h = n.conv(f"m{number}.expand", s, 8, 24, 1, bias=False)
        h = n.op("HardSwish", n.bn(f"m{number}.bn1", h, 24))
        h = n.conv(f"m{number}.depthwise", h, 24, 24, group=24)
        h = n.op("Clip", h, n.constant(f"low{number}", np.array(0, np.float32)))
        h = n.conv(f"m{number}.project", h, 24, 8, 1)
        s = n.op("Add", h, s) if number == 1 else h
    h = n.op("ReduceMean", s, axes=[2, 3], keepdims=0)
    return n.build(n.gemm("head", h, 8, 5), ["batch", 3, 8, 8])


@zoo
def grouped() -> onnx.ModelProto:
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 12, 1))
    h = n.relu(n.conv("c2", h, 12, 16, group=4))
    return n.build(n.conv("c3", h, 16, 5, 1), ["batch", 3, 6, 6])


@zoo
def dense() -> onnx.ModelProto:
    n = Net()
    h = n.conv("stem", "x", 3, 8)
    for number, width in ((1, 8), (2, 12)):
        g = n.relu(n.bn(f"d{number}.bn", h, width))
        h = n.op("Concat", h, n.conv(f"d{number}.conv", g, width, 4), axis=1)
    h = n.relu(n.bn("last", h, 16))
    h = n.op("Flatten", n.op("GlobalMaxPool", h))
    return n.build(n.gemm("head", h, 16, 5), ["batch", 3, 6, 6])


@zoo
def unet() -> onnx.ModelProto:
    """Two paths that meet again, without a resize."""
    n = Net()
    a = n.relu(n.conv("down1", "x", 3, 6))
    b = n.relu(n.conv("down2", n.op("MaxPool", a, kernel_shape=[3, 3], pads=[1] * 4), 6, 10))
    c = n.relu(n.conv("up1", n.op("Concat", b, a, axis=-3), 16, 6))
    d = n.relu(n.conv("up2", n.op("Concat", c, a, b, axis=1), 22, 7))
    return n.build(n.conv("out", d, 7, 2, 1), ["batch", 3, 6, 6])


@zoo
def squeeze_excite() -> onnx.ModelProto:
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 12))
    g = n.relu(n.conv("down", n.op("GlobalAveragePool", h), 12, 4, 1))
    g = n.op("Sigmoid", n.conv("up", g, 4, 12, 1))
    return n.build(n.conv("c2", n.op("Mul", h, g), 12, 5), ["batch", 3, 6, 6])


@zoo
def flatten() -> onnx.ModelProto:
    n = Net()
    h = n.op("Flatten", n.relu(n.conv("c1", "x", 3, 6)))
    return n.build(n.gemm("fc", h, 96, 5), ["batch", 3, 4, 4])


@zoo
def reshape_constant() -> onnx.ModelProto:
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 6))
    h = n.op("Reshape", h, n.ints("shape", -1, 96))
    return n.build(n.gemm("fc", h, 96, 5), ["batch", 3, 4, 4])


@zoo
def reshape_live() -> onnx.ModelProto:
    """The target is computed from Shape, with the channels stated, then put back."""
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 6))
    shape = n.op("Shape", h)
    batch = n.op("Gather", shape, n.ints("zero", 0))
    channels = n.op("Gather", shape, n.ints("one", 1))
    flat = n.op("Mul", channels, n.ints("pixels", 16))
    h = n.op("Reshape", h, n.op("Concat", batch, flat, axis=0))
    h = n.op("Reshape", n.op("Tanh", h), shape)
    h = n.conv("c2", h, 6, 5)
    h = n.op("Reshape", h, n.op("Concat", batch, n.ints("rest", -1), axis=0))
    return n.build(n.gemm("fc", h, 80, 3), ["batch", 3, 4, 4])


@zoo
def reshape_free() -> onnx.ModelProto:
    """Height and width are free too."""
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 6))
    shape = n.op("Shape", h)
    parts = [n.op("Gather", shape, n.ints(f"i{i}", i)) for i in range(4)]
    pixels = n.op("Mul", parts[2], parts[3])
    h = n.op("Reshape", h, n.op("Concat", parts[0], parts[1], pixels, axis=0))
    h = n.op("Transpose", h, perm=[0, 2, 1])
    return n.build(n.matmul("fc", h, 6, 4), ["batch", 3, "height", "width"])


@zoo
def transposes() -> onnx.ModelProto:
    n = Net()
    h = n.op("Transpose", n.relu(n.conv("c1", "x", 3, 7)), perm=[0, 2, 3, 1])
    h = n.relu(n.matmul("fc1", h, 7, 9))
    h = n.op("Transpose", n.op("Transpose", h, perm=[3, 0, 1, 2]), perm=[1, 0, 2, 3])
    return n.build(n.conv("c2", h, 9, 4), ["batch", 3, 5, 5])


@zoo
def tied() -> onnx.ModelProto:
    """One weight is used as it is and transposed."""
    n = Net()
    w = n.weight("w", 24, 10)
    h = n.relu(n.gemm("fc1", "x", 8, 24))
    h = n.op("Tanh", n.op("MatMul", h, w))
    h = n.relu(n.op("MatMul", h, n.op("Transpose", w, perm=[1, 0])))
    return n.build(n.gemm("fc2", h, 24, 4), ["batch", 8])


@zoo
def called_twice() -> onnx.ModelProto:
    n = Net()
    w, b = n.weight("w", 10, 10), n.weight("b", 10)
    h = n.relu(n.gemm("fc1", "x", 8, 10))
    for _ in range(2):
        h = n.relu(n.op("Gemm", h, w, b))
    return n.build(n.gemm("fc2", h, 10, 4), ["batch", 8])


@zoo
def shared_bias() -> onnx.ModelProto:
    """The exporter merged equal biases of unrelated convolutions."""
    n = Net()
    zero = n.weight("zero", 8)
    h = "x"
    for number, a in ((1, 3), (2, 8), (3, 8)):
        w = n.weight(f"c{number}.weight", 8, a, 3, 3)
        h = n.relu(n.op("Conv", h, w, zero, pads=[1] * 4))
    return n.build(n.conv("out", h, 8, 2, 1), ["batch", 3, 5, 5])


@zoo
def gate() -> onnx.ModelProto:
    """A one-channel spatial gate and a scalar one."""
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 8))
    g = n.op("Sigmoid", n.conv("gate", h, 8, 1))
    h = n.op("Mul", n.op("Mul", h, g), n.constant("scale", np.array([0.5], np.float32)))
    return n.build(n.conv("c2", h, 8, 3), ["batch", 3, 5, 5])


@zoo
def attention() -> onnx.ModelProto:
    """Two heads, separate projections; batch and heads stay apart or are merged."""
    n = Net()
    heads = {}
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        h = n.matmul(name, "x", 8, 24)
        h = n.op("Reshape", h, n.ints(f"{name}.shape", 0, -1, 4, 6))
        heads[name] = n.op("Transpose", h, perm=order)
    s = n.op("Softmax", n.op("MatMul", heads["q"], heads["k"]), axis=-1)
    h = n.op("Transpose", n.op("MatMul", s, heads["v"]), perm=[0, 2, 1, 3])
    h = n.matmul("out", n.op("Reshape", h, n.ints("merge", 0, -1, 24)), 24, 8)
    h = n.op("Add", h, "x")
    h = n.op("LayerNormalization", h, n.weight("ln.scale", 8), n.weight("ln.shift", 8))
    h = n.op("Relu", n.matmul("ffn1", h, 8, 20))
    return n.build(n.matmul("ffn2", h, 20, 8), ["batch", 5, 8])


@zoo
def summed() -> onnx.ModelProto:
    """A sum over the channels reads them without any weight."""
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 8))
    s = n.op("ReduceSum", h, n.ints("axes", 1))
    return n.build(n.op("Add", n.conv("c2", h, 8, 3), s), ["batch", 3, 5, 5])
