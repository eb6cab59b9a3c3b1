"""Mean folding: exact for constant units, and right on the mean elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxtrim.bench.session import RunOptions, open_session
from onnxtrim.export.model_io import model_bytes
from onnxtrim.toolkit.graph.execute import Prober
from onnxtrim.toolkit.graph.mask import mask_units
from onnxtrim.toolkit.graph.selfcheck import self_check
from onnxtrim.toolkit.graph.surgery import (
    Keep,
    count_parameters,
    parameters_after,
    remove_units,
)
from onnxtrim.toolkit.prepare import Prepared, prepare
from onnxtrim.toolkit.repair import Repaired, fold_means
from onnxtrim.toolkit.statistics import gather
from tests.nets import Net
from tests.zoo import ZOO

Array = NDArray[Any]
KEEP = np.array([True, False, True, True, False, True])  # of every group of six


def dead(n: Net, name: str, *, axis: int, level: float = 0.8) -> None:
    """Make the units that KEEP leaves out constant: no weights, a positive bias."""
    for index, weight in enumerate(n.weights):
        array = np.array(numpy_helper.to_array(weight))
        if weight.name == f"{name}.weight":
            np.moveaxis(array, axis, 0)[~KEEP] = 0
        elif weight.name == f"{name}.bias":
            array[~KEEP] = level * np.arange(1, 3)
        n.weights[index] = numpy_helper.from_array(array, weight.name)


def study(
    model: onnx.ModelProto, folder: Path, x: Array, keep: Keep
) -> tuple[Prepared, Repaired, Callable[[Array], Array], Callable[[Array], Array]]:
    """Fold, cut, check; returns also the original and the pruned model as functions."""
    path = folder / "net.onnx"
    onnx.save(model, path)
    net, data = prepare(path, {"x": x})
    assert data is not None
    statistics = gather(net.analysis, data, net.sha256, batch=64)
    repaired = fold_means(net.analysis, keep, statistics)
    small = remove_units(repaired.model, net.analysis, keep, repaired.new_biases)
    expected = parameters_after(net.analysis, keep, repaired.new_biases)
    assert count_parameters(small) == expected
    self_check(repaired.model, small, net.analysis, keep, net.feeds)

    def function(source: str | bytes) -> Callable[[Array], Array]:
        session = open_session(source, RunOptions())
        return lambda value: np.asarray(session.run(None, {"x": value})[0])

    return net, repaired, function(str(path)), function(model_bytes(small))


def normal(*shape: int, dtype: type[np.floating[Any]] = np.float32) -> Array:
    return np.random.default_rng(3).standard_normal(shape).astype(dtype)


def gemm(n: Net, h: str, *, c: str = "", **attributes: Any) -> str:
    weight = n.weight("fc2.weight", 6, 6)
    return n.op("Gemm", h, weight, *([c] if c else []), out="fc2", **attributes)


def flipped(n: Net, h: str) -> str:
    w = n.op("Transpose", n.weight("fc2.weight", 6, 6), perm=[1, 0])
    return n.op("Add", n.weight("fc2.bias", 6), n.op("MatMul", h, w))


CONSUMERS: dict[str, Callable[[Net, str], str]] = {
    "Gemm": lambda n, h: n.gemm("fc2", h, 6, 6),
    "Gemm without bias": lambda n, h: n.gemm("fc2", h, 6, 6, bias=False),
    "Gemm, alpha and beta": lambda n, h: gemm(n, h, c=n.weight("c", 6), alpha=0.5, beta=3.0),
    "Gemm, a row": lambda n, h: gemm(n, h, c=n.weight("c", 1, 6), beta=0.25),
    "Gemm, alpha": lambda n, h: gemm(n, h, alpha=0.5, beta=3.0),
    "MatMul and Add": lambda n, h: n.matmul("fc2", h, 6, 6),
    "MatMul": lambda n, h: n.matmul("fc2", h, 6, 6, bias=False),
    "MatMul, transposed": flipped,
}


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("also", [False, True], ids=["fc1", "fc1 and fc2"])
def test_constant_units_of_an_mlp(consumer: str, also: bool, tmp_path: Path) -> None:
    """Removing them changes nothing, whether or not the consumer loses units too."""
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 5, 6))
    h = CONSUMERS[consumer](n, h)
    # Behind a constant factor of zero the units of fc2 are constant whatever they are made of.
    mask = np.where(KEEP, 1, 0).astype(np.float32)
    h = n.op("Tanh", n.op("Mul", h, n.constant("mask", mask)) if also else h)
    model = n.build(n.gemm("fc3", h, 6, 3), ["batch", 5])
    dead(n, "fc1", axis=0)
    del model.graph.initializer[:]
    model.graph.initializer.extend(n.weights)
    x = normal(200, 5)
    net, repaired, original, pruned = study(model, tmp_path, x, {})
    names = [group.name for group in net.analysis.groups]
    keep = dict.fromkeys(names if also else names[:1], KEEP)
    net, repaired, original, pruned = study(model, tmp_path, x, keep)
    assert len(names) == 2
    assert not repaired.skipped
    np.testing.assert_allclose(pruned(x), original(x), rtol=1e-4, atol=1e-5)


def test_constant_units_that_make_the_output(tmp_path: Path) -> None:
    """A MatMul without bias at the end: the output keeps its name."""
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 5, 6))
    dead(n, "fc1", axis=0)
    model = n.build(n.matmul("fc2", h, 6, 3, bias=False), ["batch", 5])
    x = normal(100, 5)
    _, repaired, original, pruned = study(model, tmp_path, x, {"fc1": KEEP})
    assert [value.name for value in repaired.model.graph.outputs] == ["fc2_mm"]
    np.testing.assert_allclose(pruned(x), original(x), rtol=1e-4, atol=1e-5)


def test_two_groups_that_meet_at_one_consumer(tmp_path: Path) -> None:
    n = Net()
    parts = [n.relu(n.gemm(name, "x", 5, 6)) for name in ("a", "b")]
    for name in ("a", "b"):
        dead(n, name, axis=0)
    h = n.matmul("fc", n.op("Concat", *parts, axis=1), 12, 3, bias=False)
    x = normal(100, 5)
    keep = {"a": KEEP, "b": KEEP}
    _, repaired, original, pruned = study(n.build(h, ["batch", 5]), tmp_path, x, keep)
    assert len(repaired.new_biases) == 1
    np.testing.assert_allclose(pruned(x), original(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_constant_units_before_an_unpadded_convolution(bias: bool, tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 6))
    dead(n, "c1", axis=0)
    model = n.build(n.conv("c2", h, 6, 4, bias=bias, pad=False), ["batch", 3, 6, 6])
    x = normal(50, 3, 6, 6)
    _, _, original, pruned = study(model, tmp_path, x, {"c1": KEEP})
    np.testing.assert_allclose(pruned(x), original(x), rtol=1e-4, atol=1e-5)


PADDED: list[dict[str, Any]] = [
    {"pads": [1, 1, 1, 1]},
    {"pads": [0, 2, 1, 0], "strides": [2, 1]},
    {"pads": [2, 2, 2, 2], "dilations": [2, 2]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 2], "dilations": [1, 1]},
    {"auto_pad": "VALID"},
]


@pytest.mark.parametrize("attributes", PADDED, ids=str)
def test_padded_convolutions_keep_the_mean_of_the_image(
    attributes: dict[str, Any], tmp_path: Path
) -> None:
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 6))
    dead(n, "c1", axis=0)
    h = n.op("Conv", h, n.weight("c2.weight", 4, 6, 3, 3), **attributes)
    x = normal(20, 3, 7, 6)
    model = n.build(h, ["batch", 3, 7, 6])
    _, _, original, pruned = study(model, tmp_path, x, {"c1": KEEP})
    before, after = original(x), pruned(x)
    np.testing.assert_allclose(after.mean((2, 3)), before.mean((2, 3)), rtol=1e-4, atol=1e-5)
    exact = attributes.get("auto_pad") == "VALID"
    assert np.allclose(after, before, rtol=1e-4, atol=1e-5) == exact


@pytest.mark.parametrize("consumer", ["Gemm", "MatMul", "MatMul, transposed"])
def test_the_mean_of_any_unit_is_kept(consumer: str, tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 5, 6))
    x = normal(300, 5)
    model = n.build(CONSUMERS[consumer](n, h), ["batch", 5])
    _, _, original, pruned = study(model, tmp_path, x, {"fc1": KEEP})
    before, after = original(x), pruned(x)
    assert np.abs(before - after).max() > 0.1
    np.testing.assert_allclose(after.mean(0), before.mean(0), atol=1e-5)


def test_a_new_bias_is_cut_with_the_outputs_of_its_consumer(tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 6))
    h = n.relu(n.conv("c2", h, 6, 6, bias=False))
    model = n.build(n.conv("c3", h, 6, 2), ["batch", 3, 5, 5])
    x = normal(20, 3, 5, 5)
    keep = {"c1": KEEP, "c2": ~KEEP}
    net, repaired, *_ = study(model, tmp_path, x, keep)
    assert repaired.new_biases == {"c2.bias": ("c2", 1)}
    small = remove_units(repaired.model, net.analysis, keep, repaired.new_biases)
    whole = repaired.model.graph.initializers["c2.bias"].const_value
    cut = small.graph.initializers["c2.bias"].const_value
    assert whole is not None
    assert cut is not None
    assert np.array_equal(cut.numpy(), whole.numpy()[~KEEP])


def test_the_given_analysis_is_not_changed(tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 5, 6))
    model = n.build(n.gemm("fc2", h, 6, 3), ["batch", 5])
    net, repaired, *_ = study(model, tmp_path, normal(50, 5), {"fc1": KEEP})
    before = net.analysis.model.graph.initializers["fc2.bias"].const_value
    after = repaired.model.graph.initializers["fc2.bias"].const_value
    assert before is not None
    assert after is not None
    (given,) = (w for w in model.graph.initializer if w.name == "fc2.bias")
    assert np.array_equal(before.numpy(), numpy_helper.to_array(given))
    assert not np.array_equal(after.numpy(), before.numpy())


def test_half_precision(tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 5, 6))
    h = n.relu(n.matmul("fc2", h, 6, 6, bias=False))
    h = n.gemm("fc3", h, 6, 3, bias=False)
    dead(n, "fc1", axis=0)
    n.weights = [
        numpy_helper.from_array(numpy_helper.to_array(w).astype(np.float16), w.name)
        for w in n.weights
    ]
    model = n.build(h, ["batch", 5], dtype=onnx.TensorProto.FLOAT16)
    x = normal(100, 5, dtype=np.float16)
    _, repaired, original, pruned = study(model, tmp_path, x, {"fc1": KEEP})
    (bias,) = repaired.new_biases
    value = repaired.model.graph.initializers[bias].const_value
    assert value is not None
    assert value.numpy().dtype == np.float16
    np.testing.assert_allclose(pruned(x), original(x), rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda n, h: n.op("ReduceSum", h, n.ints("axes", 1)), "no constant weight"),
        (lambda n, h: n.op("MatMul", h, n.weight("w", 6)), "no bias can be added"),
        (lambda n, h: n.op("Gemm", h, n.weight("w", 6, 3), n.weight("c", 1)), "its bias is not"),
        (lambda n, h: gemm(n, h, c=n.weight("c", 6), beta=0.0), "its bias is multiplied by 0"),
    ],
    ids=["ReduceSum", "MatMul with a vector", "Gemm with one number", "Gemm with beta 0"],
)
def test_what_is_not_repaired_is_said(
    build: Callable[[Net, str], str], reason: str, tmp_path: Path
) -> None:
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 5, 6))
    model = n.build(build(n, h), ["batch", 5])
    _, repaired, *_ = study(model, tmp_path, normal(50, 5), {"fc1": KEEP})
    assert len(repaired.skipped) == 1
    assert reason in repaired.skipped[0]


def test_channels_within_the_groups_of_a_convolution(tmp_path: Path) -> None:
    """Each group reads its own positions; the means of its outputs are kept."""
    onnx.save(ZOO["grouped"](), tmp_path / "net.onnx")
    net, data = prepare(tmp_path / "net.onnx", {"x": normal(200, 3, 6, 6)})
    assert data is not None
    inner = net.analysis.inner
    assert inner is not None
    group = next(g for g in inner.groups if g.units == 3)
    keep = {group.name: np.array([True, False, True])}
    statistics = gather(net.analysis, data, net.sha256)
    feeds = next(iter(data.batches(200))).feeds

    def means(model: ir.Model) -> Array:
        probe = Prober(mask_units(model, inner, keep)).probe(["c2"])
        return np.asarray(probe.run(feeds)["c2"].mean((0, 2, 3)))

    want = Prober(inner.model).probe(["c2"]).run(feeds)["c2"].mean((0, 2, 3))
    lost = np.abs(means(inner.model) - want).max()
    folded = np.abs(means(fold_means(inner, keep, statistics).model) - want).max()
    assert folded < 0.05 * lost
