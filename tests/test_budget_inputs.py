"""Budgets on models and data that are awkward: types, shapes, constant and singular activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

import onnxtrim
from onnxtrim.bench.session import RunOptions, open_session
from onnxtrim.export.model_io import model_bytes
from tests.nets import Net

Array = NDArray[Any]


def normal(*shape: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def errors(path: Path, feeds: dict[str, Array], **options: Any) -> dict[str, float]:
    """The divergence on data by repair, of a budget of a third."""
    found = {}
    for repair in ("none", "channel", "sequential"):
        result = onnxtrim.trim(path, feeds, remove=0.33, repair=repair, **options)
        assert result.divergence is not None
        assert np.isfinite(result.divergence)
        found[repair] = result.divergence
    return found


def test_half_precision(tmp_path: Path) -> None:
    """Computed in single precision and in double, given back in half."""
    n = Net()
    h = n.relu(n.conv("c1", "x", 2, 16))
    h = n.relu(n.conv("c2", h, 16, 16))
    y = n.conv("c3", h, 16, 4)
    n.weights = [
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(w).astype(np.float16), w.name)
        for w in n.weights
    ]
    path = tmp_path / "half.onnx"
    onnx.save(n.build(y, ["n", 2, 6, 6], dtype=TensorProto.FLOAT16), path)
    x = normal(256, 2, 6, 6).astype(np.float16)
    found = errors(path, {"x": x})
    assert found["sequential"] < 0.7 * found["none"]
    result = onnxtrim.trim(path, {"x": x}, remove=0.33)
    kinds = {value.dtype for value in result.model.graph.initializers.values()}
    assert kinds == {ir.DataType.FLOAT16}
    outputs = open_session(model_bytes(result.model), RunOptions()).run(None, {"x": x[:3]})
    assert outputs[0].dtype == np.float16


def test_tokens_and_a_mask(tmp_path: Path) -> None:
    """Sequences of several lengths: padding is masked before the mean."""
    n = Net()
    table = n.weight("table", 20, 12)
    h = n.op("Gather", table, "tokens", axis=0)
    h = n.relu(n.matmul("up", h, 12, 32))
    h = n.matmul("down", h, 32, 12)
    mask = n.op("Unsqueeze", "mask", n.ints("last", 2))
    total = n.op("ReduceSum", n.op("Mul", h, mask), n.ints("steps", 1), keepdims=0)
    y = n.matmul("out", total, 12, 3)
    model = n.build(y, {"tokens": ["n", 7], "mask": ["n", 7]})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    path = tmp_path / "tokens.onnx"
    onnx.save(model, path)
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 8, 400)
    mask_values = (np.arange(7) < lengths[:, None]).astype(np.float32)
    tokens = rng.integers(1, 20, (400, 7)) * mask_values.astype(np.int64)
    found = errors(path, {"tokens": tokens, "mask": mask_values})
    assert found["channel"] < found["none"]
    assert found["sequential"] <= 1.05 * found["channel"]


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    n = Net()
    a = n.relu(n.gemm("a1", "a", 6, 16))
    b = n.relu(n.gemm("b1", "b", 4, 16))
    h = n.op("Concat", a, b, axis=1)
    h = n.relu(n.gemm("both", h, 32, 24))
    outputs = [n.gemm("y1", h, 24, 3), n.gemm("y2", a, 16, 2)]
    path = tmp_path / "two.onnx"
    onnx.save(n.build(outputs, {"a": ["n", 6], "b": ["n", 4]}), path)
    feeds = {"a": normal(400, 6), "b": normal(400, 4, seed=4)}
    found = errors(path, feeds)
    assert found["sequential"] <= 1.05 * found["channel"] < found["none"]
    with pytest.raises(onnxtrim.InputError, match="samples"):
        onnxtrim.trim(path, {"a": feeds["a"], "b": feeds["b"][:100]}, remove=0.3)


def dead_and_constant(tmp_path: Path) -> Path:
    """Of 24 units 6 are always zero, 6 always the same, and 6 copies of others."""
    n = Net()
    y = n.gemm("fc2", n.relu(n.gemm("fc1", "x", 6, 24)), 24, 3)
    for number, tensor in enumerate(n.weights):
        array = np.array(onnx.numpy_helper.to_array(tensor))
        if tensor.name == "fc1.weight":
            array[:12] = 0
            array[12:18] = array[18:]
        elif tensor.name == "fc1.bias":
            array[:6], array[6:12] = -1, 2
            array[12:18] = array[18:]
        n.weights[number] = onnx.numpy_helper.from_array(array, tensor.name)
    path = tmp_path / "dead.onnx"
    onnx.save(n.build(y, ["n", 6]), path)
    return path


def test_units_that_say_nothing_leave_first(tmp_path: Path) -> None:
    """Their moments are singular and their variances zero."""
    path, x = dead_and_constant(tmp_path), {"x": normal(400, 6)}
    result = onnxtrim.trim(path, x, remove=0.7)
    (change,) = result.groups.values()
    assert change.before == 24
    assert change.after <= 8
    gone = {unit for removal in result.plan.removals for unit in removal.remove}
    assert set(range(12)) <= gone
    assert result.divergence is not None
    half = onnxtrim.trim(path, x, remove=0.6)
    assert half.divergence is not None
    assert half.divergence < 1e-6


def test_inputs_that_never_change(tmp_path: Path) -> None:
    """Then nothing is known of any unit; the means are folded, and the outputs stay."""
    path = dead_and_constant(tmp_path)
    x = {"x": np.repeat(normal(1, 6), 100, axis=0)}
    result = onnxtrim.trim(path, x, remove=0.5)
    original, small = (
        open_session(file, RunOptions()).run(None, x)[0]
        for file in (path, model_bytes(result.model))
    )
    np.testing.assert_allclose(small, original, rtol=1e-3, atol=1e-3)


def test_data_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    x = normal(100, 6)
    x[50, 2] = np.nan
    with pytest.raises(onnxtrim.InputError, match="NaN"):
        onnxtrim.trim(dead_and_constant(tmp_path), {"x": x}, remove=0.5)


def test_fewer_samples_than_units(tmp_path: Path) -> None:
    """Said, and still better than no repair on other data."""
    n = Net()
    y = n.gemm("fc2", n.relu(n.gemm("fc1", "x", 6, 64)), 64, 3)
    path = tmp_path / "wide.onnx"
    onnx.save(n.build(y, ["n", 6]), path)
    few, other = {"x": normal(40, 6)}, {"x": normal(500, 6, seed=9)}
    error = {}
    for repair in ("none", "sequential"):
        result = onnxtrim.trim(path, few, remove=0.4, repair=repair)
        assert any("are few" in text for text in result.warnings)
        one, two = (
            open_session(file, RunOptions()).run(None, other)[0]
            for file in (path, model_bytes(result.model))
        )
        error[repair] = float(((one - two) ** 2).mean())
    assert error["sequential"] < 0.5 * error["none"]


def test_samples_of_several_lengths(tmp_path: Path) -> None:
    """One shard for each: batches of one length run together."""
    n = Net()
    y = n.matmul("fc2", n.relu(n.matmul("fc1", "x", 8, 24)), 24, 3)
    path, folder = tmp_path / "net.onnx", tmp_path / "shards"
    onnx.save(n.build(y, ["n", "t", 8]), path)
    folder.mkdir()
    for length in (10, 12):
        np.savez(folder / f"{length}.npz", x=normal(600, length, 8, seed=length))
    result = onnxtrim.trim(path, folder, remove=0.3)
    assert result.divergence is not None
    assert result.divergence < 0.2


def test_a_bias_that_is_computed_of_constants_is_no_residual(tmp_path: Path) -> None:
    """At batch 1 it has the shape of the squeezed output that it is added to."""
    n = Net()
    h = n.relu(n.conv("c1", "x", 2, 16))
    z = n.op("GlobalAveragePool", h)
    bias = n.op("Reshape", n.weight("raw", 16), n.ints("shape", 1, 16, 1, 1))
    z = n.op("Add", n.conv("squeeze", z, 16, 16, 1, bias=False), bias)
    h = n.op("Mul", h, n.op("Sigmoid", z))
    y = n.conv("c3", n.relu(n.conv("c2", h, 16, 16)), 16, 3)
    path = tmp_path / "excite.onnx"
    onnx.save(n.build(y, ["n", 2, 6, 6]), path)
    found = errors(path, {"x": normal(256, 2, 6, 6)})
    assert found["sequential"] <= 1.05 * found["channel"] < found["none"]


def test_every_data_set_that_a_model_was_made_with_is_noted(tmp_path: Path) -> None:
    path = dead_and_constant(tmp_path)
    first, second = {"x": normal(200, 6)}, {"x": normal(200, 6, seed=5)}
    once = onnxtrim.trim(path, first, remove=0.3)
    once.save(tmp_path / "once.onnx")
    twice = onnxtrim.trim(tmp_path / "once.onnx", second, remove=0.3)
    key = "onnxtrim.calibration_sha256"
    hashes = twice.model.metadata_props[key].split("+")
    assert once.model.metadata_props[key] in hashes
    assert len(hashes) == 2


def test_limits(tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.conv("c1", "x", 2, 32))
    h = n.relu(n.conv("c2", h, 32, 32))
    h = n.op("Flatten", n.op("GlobalAveragePool", h))
    y = n.gemm("fc2", n.relu(n.gemm("fc1", h, 32, 50)), 50, 3)
    path = tmp_path / "net.onnx"
    onnx.save(n.build(y, ["n", 2, 6, 6]), path)
    x = {"x": normal(128, 2, 6, 6)}
    result = onnxtrim.trim(path, x, remove=0.6, align="auto", repair="none")
    multiple = result.plan.limits.align
    assert multiple in (8, 16)
    assert all(
        result.groups[name].after % multiple == 0 for name in result.groups if name.startswith("c")
    )
    kept = onnxtrim.trim(path, x, remove=0.5, min_units=13, repair="none")
    assert min(change.after for change in kept.groups.values()) >= 13
    with pytest.raises(onnxtrim.NothingToRemoveError, match="at most"):
        onnxtrim.trim(path, x, remove=0.9, min_units=13)
    near = onnxtrim.trim(path, x, max_divergence=1e-5)
    far = onnxtrim.trim(path, x, max_divergence=1e-4)
    assert 0 < near.parameters.removed < far.parameters.removed
    with pytest.raises(onnxtrim.NothingToRemoveError, match="no unit can leave"):
        onnxtrim.trim(path, x, max_divergence=0.0)
