"""Budgets on forms of graphs that are easy to get wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxtrim
from tests.nets import Net

Array = NDArray[Any]


def normal(*shape: int) -> Array:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def addmm(n: Net) -> str:
    """The third operand of Gemm is an activation."""
    h = n.relu(n.gemm("fc1", "x", 6, 12))
    other = n.gemm("side", "x", 6, 6)
    h = n.op("Gemm", h, n.weight("fc2.weight", 12, 6), other, out="fc2")
    return n.gemm("fc3", n.relu(h), 6, 3)


def wide_bias(n: Net) -> str:
    """A scalar bias of a Gemm, and a MatMul whose bias is one number."""
    h = n.relu(n.gemm("fc1", "x", 6, 12))
    h = n.op("Gemm", h, n.weight("fc2.weight", 12, 10), n.weight("c", 1, near=0.5), out="fc2")
    h = n.op("MatMul", n.relu(h), n.weight("fc3.weight", 10, 8), out="fc3")
    h = n.op("Add", h, n.weight("one", 1, near=0.5))
    return n.gemm("fc4", n.relu(h), 8, 3)


def left_product(n: Net) -> str:
    """The weight is the first operand, and square, so that a wrong axis would fit."""
    h = n.op("Transpose", n.relu(n.gemm("fc1", "x", 6, 12)), perm=[1, 0])
    h = n.op("MatMul", n.weight("left", 12, 12), h, out="product")
    h = n.op("Transpose", h, perm=[1, 0])
    return n.gemm("fc3", n.relu(h), 12, 3)


def vector_weight(n: Net) -> str:
    h = n.relu(n.gemm("fc1", "x", 6, 12))
    h = n.op("MatMul", h, n.weight("vector", 12), out="product")
    return n.op("Unsqueeze", h, n.ints("axes", 1))


def summed(n: Net) -> str:
    """A sum reads the units without a weight; one of them is a large constant."""
    h = n.relu(n.gemm("fc1", "x", 6, 12))
    a = n.op("ReduceSum", h, n.ints("axes", 1), keepdims=1)
    return n.op("Concat", a, n.gemm("fc2", h, 12, 3), axis=1)


def broadcast(n: Net) -> str:
    """What is added to a convolution's output has another shape."""
    h = n.relu(n.conv("c1", "x", 2, 12))
    pooled = n.op("GlobalAveragePool", h)
    h = n.op("Add", n.conv("c2", h, 12, 12), pooled)
    return n.conv("c3", n.relu(h), 12, 3)


def transposed(n: Net) -> str:
    h = n.relu(n.conv("c1", "x", 2, 12))
    h = n.op("ConvTranspose", h, n.weight("up.weight", 12, 10, 3, 3), out="up", strides=[2, 2])
    return n.conv("c3", n.relu(h), 10, 3)


def transposed_groups(n: Net) -> str:
    h = n.relu(n.conv("c1", "x", 2, 12))
    h = n.op("ConvTranspose", h, n.weight("up.weight", 12, 5, 3, 3), out="up", group=2)
    return n.conv("c3", n.relu(h), 10, 3)


def channels_last_weight(n: Net) -> str:
    """The weight of a convolution is transposed by the graph, as in files from TensorFlow."""
    h = n.relu(n.conv("c1", "x", 2, 12))
    weight = n.op("Transpose", n.weight("hwio", 3, 3, 12, 10), perm=[3, 2, 0, 1])
    return n.conv("c3", n.relu(n.op("Conv", h, weight, out="c2")), 10, 3)


def scaled(n: Net) -> str:
    """A residual block whose factors differ by orders of magnitude."""
    h = n.relu(n.conv("c1", "x", 2, 12))
    y = n.bn("bn", n.conv("c2", h, 12, 12), 12)
    factors = np.array([100, 0.5, 1] * 4, np.float32)
    n.weights = [
        onnx.numpy_helper.from_array(factors, w.name) if w.name == "bn.scale" else w
        for w in n.weights
    ]
    return n.conv("c3", n.relu(n.op("Add", y, h)), 12, 3)


def quiet(n: Net) -> str:
    """Activations of a thousandth."""
    h = n.op(
        "Mul", n.relu(n.gemm("fc1", "x", 6, 12)), n.constant("k", np.array([1e-3], np.float32))
    )
    return n.gemm("fc3", n.relu(n.gemm("fc2", h, 12, 10)), 10, 3)


FORMS = [
    *(addmm, wide_bias, left_product, vector_weight, summed, broadcast, transposed),
    *(transposed_groups, channels_last_weight, scaled, quiet),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_forms(form: Callable[[Net], str], tmp_path: Path) -> None:
    n = Net()
    y = form(n)
    image = any(tensor.name == "c1.weight" for tensor in n.weights)
    path = tmp_path / "net.onnx"
    onnx.save(n.build(y, ["n", 2, 6, 7] if image else ["n", 6]), path)
    x = {"x": normal(320, 2, 6, 7) if image else normal(640, 6)}
    found = {
        repair: onnxtrim.trim(path, x, remove=0.25, repair=repair).divergence
        for repair in ("none", "channel", "sequential")
    }
    none, channel, sequential = (value or 0.0 for value in found.values())
    assert channel <= 1.05 * none + 1e-9
    assert sequential <= 1.1 * channel + 1e-9


def test_only_what_a_cut_reaches_is_fitted(tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.matmul("fc1", "x", 6, 12, bias=False))
    h = n.relu(n.matmul("fc2", h, 12, 12, bias=False))
    h = n.relu(n.matmul("fc3", h, 12, 12, bias=False))
    y = n.matmul("fc4", h, 12, 3, bias=False)
    path = tmp_path / "net.onnx"
    onnx.save(n.build(y, ["n", 6]), path)
    result = onnxtrim.trim(path, {"x": normal(640, 6)}, remove=0.2, include=["fc3*"])
    before = {t.name: onnx.numpy_helper.to_array(t) for t in n.weights}
    after = {
        name: value.const_value.numpy()
        for name, value in result.model.graph.initializers.items()
        if value.const_value is not None
    }
    for name in ("fc1.weight", "fc2.weight"):
        np.testing.assert_array_equal(after[name], before[name])
    assert after["fc4.weight"].shape[0] < 12
    assert "fc2.bias" not in after


def test_models_that_tell_nothing(tmp_path: Path) -> None:
    n = Net()
    y = n.op("ArgMax", n.gemm("fc2", n.relu(n.gemm("fc1", "x", 6, 12)), 12, 5), axis=1)
    onnx.save(n.build(y, ["n", 6]), tmp_path / "argmax.onnx")
    with pytest.raises(onnxtrim.InputError, match="no output of the model holds floats"):
        onnxtrim.trim(tmp_path / "argmax.onnx", {"x": normal(100, 6)}, remove=0.2)
    n = Net()
    onnx.save(n.build(n.gemm("fc", "x", 6, 5), ["n", 6]), tmp_path / "frozen.onnx")
    with pytest.raises(onnxtrim.NothingToRemoveError, match="all is frozen"):
        onnxtrim.trim(tmp_path / "frozen.onnx", {"x": normal(100, 6)}, remove=0.2)
    n = Net()
    h = n.op("Exp", n.gemm("fc1", "x", 6, 12))
    onnx.save(n.build(n.gemm("fc2", h, 12, 5), ["n", 6]), tmp_path / "loud.onnx")
    with pytest.raises(onnxtrim.InputError, match="NaN or infinite values"):
        onnxtrim.trim(tmp_path / "loud.onnx", {"x": 1e3 * normal(100, 6)}, remove=0.2)
