"""Subnormal weights: counted wherever they are stored, and said when they may do harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxtrim.bench import denormals
from onnxtrim.bench.compare import bench_model, compare
from onnxtrim.bench.denormals import count_denormals, denormal_warning
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings
from tests.bench_models import save_graph

SETTINGS = Settings(RunOptions(1), latency=False, memory=False)
TINY = float(np.finfo(np.float32).tiny)  # the smallest normal number


def weights(small: int, size: int = 64 * 16) -> NDArray[Any]:
    """A matrix (64, 16) with so many subnormal numbers, and every other kind there is."""
    array = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    array[:small] = np.resize(np.array([1e-40, -1e-42, TINY / 2, -1e-45], np.float32), small)
    array[small : small + 8] = np.array(
        [0, -0.0, TINY, -TINY, np.inf, -np.inf, np.nan, 1], np.float32
    )
    return array.reshape(64, 16)


def save(path: Path, tensor: onnx.TensorProto) -> Path:
    node = helper.make_node("MatMul", ["x", tensor.name], ["y"], name="product")
    return save_graph(path, [node], [("x", ["batch", 64])], [("y", ["batch", 16])], [tensor])


def test_raw_typed_and_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denormals, "_CHUNK", 1000)  # so that pieces end within the tensor
    array = weights(300)
    raw = save(tmp_path / "raw.onnx", numpy_helper.from_array(array, "w"))
    typed = helper.make_tensor("w", TensorProto.FLOAT, array.shape, array.ravel())
    assert not typed.HasField("raw_data")
    model = onnx.load(raw)
    second = numpy_helper.from_array(array[::-1], "unused")
    model.graph.initializer.append(second)
    onnx.save_model(
        model,
        tmp_path / "external.onnx",
        save_as_external_data=True,
        location="external.data",
        size_threshold=0,
    )
    for path in (raw, save(tmp_path / "typed.onnx", typed)):
        found = count_denormals(path)
        assert found["float32"] == (300, 1024), path
        assert found["float16"] == (0, 0)
    assert count_denormals(tmp_path / "external.onnx")["float32"] == (600, 2048)


def test_float16_counts_but_does_no_harm(tmp_path: Path) -> None:
    array = np.array([[1e-6, -6e-8, 6.2e-5, 0.0, np.inf, 1.0]], np.float16)
    raw = numpy_helper.from_array(array, "w")
    typed = helper.make_tensor("w", TensorProto.FLOAT16, array.shape, array.ravel())
    assert not typed.HasField("raw_data")
    for name, tensor in (("raw", raw), ("typed", typed)):
        found = count_denormals(save(tmp_path / f"{name}.onnx", tensor))
        assert found["float16"] == (2, 6), name
        assert denormal_warning("m.onnx", found) is None


def test_other_types_and_no_weights(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.array([1, 2], np.int64), "w")
    found = count_denormals(save(tmp_path / "m.onnx", tensor))
    assert found["float32"] == (0, 0)
    assert found["float32"].share == 0


def test_the_warning_begins_above_one_in_ten_thousand(tmp_path: Path) -> None:
    at = {"float32": denormals.Denormals(1, 10_000)}
    above = {"float32": denormals.Denormals(2, 10_000)}
    assert denormal_warning("m.onnx", at) is None
    assert "0.02%" in (denormal_warning("m.onnx", above) or "")


def test_measurements_tell_of_them(tmp_path: Path) -> None:
    bad = save(tmp_path / "bad.onnx", numpy_helper.from_array(weights(256), "w"))
    good = save(tmp_path / "good.onnx", numpy_helper.from_array(weights(0), "w"))
    result = compare(good, bad, settings=SETTINGS)
    found = result.details["denormals"]
    assert found["model"]["float32"] == {"subnormal": 256, "elements": 1024, "share": 0.25}
    assert found["original"]["float32"]["subnormal"] == 0
    (warning,) = result.warnings
    assert warning.startswith(f"denormal weights: 25.00% of {bad}")
    assert "session.set_denormal_as_zero=1" in warning
    assert "\n" not in warning
    assert bench_model(good, settings=SETTINGS).warnings == ()


def test_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", numpy_helper.from_array(weights(1), "w"))
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../elsewhere")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="outside the model's folder"):
        count_denormals(path)
