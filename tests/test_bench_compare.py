"""The whole of one measurement: what it holds, and what it refuses before measuring."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxtrim.bench.compare import bench_model, compare
from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.files import sha256_file
from onnxtrim.bench.latency import Protocol
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.session import RunOptions, open_session
from onnxtrim.bench.settings import Settings
from onnxtrim.bench.verdict import non_inferior
from tests.bench_models import save_graph, save_mlp

QUICK = Settings(RunOptions(1), Protocol(launches=2, rounds=2))
NOTHING = Settings(RunOptions(1), latency=False, memory=False)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return (
        save_mlp(tmp_path / "big.onnx", [8, 64, 4]),
        save_mlp(tmp_path / "small.onnx", [8, 16, 4], seed=1),
    )


def samples(count: int, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 8)).astype(np.float32)
    return {"x": x, "labels": rng.integers(0, 4, count), **changes}


def test_comparison_holds_everything(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    data = tmp_path / "d.npz"
    np.savez(data, **samples(20))
    result = compare(*pair, data=data, settings=QUICK)
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert value["schema"] == "onnxtrim.compare/1"
    assert value["original"] == {"path": str(pair[0]), "sha256": sha256_file(pair[0])}
    assert value["candidate"] == {"path": str(pair[1]), "sha256": sha256_file(pair[1])}
    names = set(value["metrics"])
    for base in ("memory.load_peak", "memory.run_peak", "model.file_bytes"):
        assert {base, f"{base}.original", f"{base}.ratio"} <= names
    assert {"latency.p50", "latency.p50.original", "latency.p50.ratio"} <= names
    assert {"latency.p10.ratio", "load.to_first_run", "load.first_run.original"} <= names
    assert {"accuracy.top1", "accuracy.top1.delta", "accuracy.mcnemar_p"} <= names
    size = value["metrics"]["model.initializer_bytes"]
    assert size["value"] == 4 * (8 * 16 + 16 + 16 * 4 + 4)
    assert value["metrics"]["model.file_bytes.ratio"]["value"] < 1
    assert value["details"]["data"] == {
        "name": str(data),
        "sha256": sha256_file(data),
        "samples": 20,
    }
    assert value["options"]["threads"] == 1
    assert len(value["details"]["latency"]["p50_ratio"]) == 2
    assert result.latency is not None
    assert len(result.latency.launches[0].rounds) == 4


def test_one_model(pair: tuple[Path, Path]) -> None:
    value = bench_model(pair[0], settings=QUICK).to_json()
    assert value["schema"] == "onnxtrim.bench/1"
    assert value["model"]["path"] == str(pair[0])
    assert "original" not in value
    assert {"latency.p50", "memory.run_peak", "model.file_bytes"} <= set(value["metrics"])
    assert not any(name.endswith((".original", ".ratio")) for name in value["metrics"])
    assert value["details"]["feeds"] == "random"
    with_data = bench_model(pair[0], data=samples(20), settings=NOTHING)
    assert "accuracy.top1" in with_data.metrics
    unlabelled = {"x": samples(20)["x"]}
    assert "accuracy.top1" not in bench_model(pair[0], data=unlabelled, settings=NOTHING).metrics


def test_only_what_is_asked_for(pair: tuple[Path, Path]) -> None:
    settings = Settings(RunOptions(1), latency=False, memory=False, accuracy=False)
    found = compare(*pair, data=samples(5), settings=settings).metrics
    assert found
    assert all(name.startswith("model.") for name in found)


def test_fixed_batch_and_real_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [save_mlp(tmp_path / f"{n}.onnx", [8, n, 4], batch=2) for n in (16, 8)]
    seen: list[Any] = []

    def record(paths: Any, feeds: Any, *rest: Any, **others: Any) -> Any:
        seen.extend(feeds)
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxtrim.bench.compare.measure_memory", record)
    data = samples(20)
    with pytest.raises(KeyboardInterrupt):
        compare(*models, data=data, settings=QUICK)
    assert len(seen) == 8
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in seen]), data["x"][:16])


def test_generated_inputs_beside_data(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accuracy is of the data, latency and memory are not."""
    seen: list[Any] = []

    def record(paths: Any, feeds: Any, *rest: Any, **others: Any) -> Any:
        seen.extend(feeds)
        raise WorkerError("enough")

    monkeypatch.setattr("onnxtrim.bench.compare.measure_memory", record)
    data = samples(20)
    settings = Settings(RunOptions(1), Protocol(seed=7), latency=False, generated=True, batch=4)
    with pytest.raises(WorkerError) as caught:
        compare(*pair, data=data, settings=settings)
    finished = caught.value.finished
    assert isinstance(finished, Measurement)
    assert "accuracy.top1.delta" in finished.metrics
    assert finished.details["feeds"] == "random"
    assert len(seen) == 8
    assert all(feeds["x"].shape == (4, 8) for feeds in seen)
    assert not np.array_equal(seen[0]["x"], data["x"][:4])


def test_models_that_are_not_called_alike(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    original = pair[0]
    node = helper.make_node("Identity", ["z"], ["y"])
    cases = {
        "inputs differ": save_graph(
            tmp_path / "name.onnx", [node], [("z", ["n", 4])], [("y", ["n", 4])]
        ),
        r"'x' differs: .* takes float32 \(batch, 8\), .* \(batch, 9\)": save_mlp(
            tmp_path / "width.onnx", [9, 4]
        ),
        r"'x' differs: .*\(batch, 8\), .* \(1, 8\)": save_mlp(
            tmp_path / "batch.onnx", [8, 4], batch=1
        ),
        r"'y' differs: .*\(batch, 4\).*\(batch, 5\)": save_mlp(tmp_path / "out.onnx", [8, 5]),
        "'x' differs: .* takes float32": save_graph(
            tmp_path / "type.onnx",
            [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
            [("x", ["n", 8])],
            [("y", ["n", 8])],
            dtypes={"x": TensorProto.DOUBLE},
        ),
        "has 1 outputs but .* has 2": save_graph(
            tmp_path / "two.onnx",
            [helper.make_node("Split", ["x"], ["y", "z"], axis=1)],
            [("x", ["n", 8])],
            [("y", ["n", 4]), ("z", ["n", 4])],
        ),
    }
    for words, path in cases.items():
        with pytest.raises(InputError, match=words) as error:
            compare(original, path, settings=NOTHING)
        assert "\n" not in str(error.value)
        assert path.name in str(error.value)
    renamed = save_mlp(tmp_path / "renamed.onnx", [8, 4], batch="N")
    assert compare(original, renamed, settings=NOTHING).metrics, "names of free sizes don't matter"


def test_bad_input(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="absent"):
        compare(pair[0], tmp_path / "absent.onnx", settings=NOTHING)
    with pytest.raises(InputError, match="launches is 1"):
        compare(*pair, settings=Settings(RunOptions(1), Protocol(launches=1), memory=False))
    with pytest.raises(InputError, match="float64"):
        compare(*pair, data={"x": np.zeros((2, 8))}, settings=NOTHING)
    with pytest.raises(InputError, match="batch is 0"):
        Settings(batch=0)


def test_more_threads_than_cpus_is_said(pair: tuple[Path, Path]) -> None:
    crowded = Settings(RunOptions(4096), latency=False, memory=False)
    from onnxtrim.bench.compare import _warnings

    (warning,) = _warnings(crowded, [])
    assert "4096 threads" in warning


def test_verdict(pair: tuple[Path, Path]) -> None:
    """A model beside itself passes with enough samples; one that answers otherwise fails."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 8)).astype(np.float32)
    session = open_session(pair[0], RunOptions(1))
    labels = session.run(None, {"x": x})[0].argmax(1)
    settings = replace(NOTHING, max_drop=0.5)
    data = {"x": x, "labels": labels}
    same = compare(pair[0], pair[0], data=data, settings=settings)
    assert same.verdict == non_inferior(0, 0, 2000, 0.005)
    assert same.verdict is not None
    assert same.verdict.answer == "pass"
    value = json.loads(json.dumps(same.to_json(), allow_nan=False))
    assert value["details"]["accuracy"]["verdict"] == same.verdict.to_json()
    assert value["options"]["max_drop"] == 0.5
    worse = compare(*pair, data=data, settings=settings).verdict
    assert worse is not None
    assert worse.answer == "fail"
    few = {"x": x[:50], "labels": labels[:50]}
    unknown = compare(pair[0], pair[0], data=few, settings=settings).verdict
    assert unknown is not None
    assert (unknown.answer, unknown.samples) == ("inconclusive", 50)
    assert compare(*pair, data=data, settings=NOTHING).verdict is None


def test_verdicts_that_cannot_be_given(pair: tuple[Path, Path]) -> None:
    settings = replace(NOTHING, max_drop=0.5)
    with pytest.raises(InputError, match="max_drop needs samples with labels"):
        compare(*pair, settings=settings)
    with pytest.raises(InputError, match="has no labels, so max_drop can't be judged"):
        compare(*pair, data={"x": samples(5)["x"]}, settings=settings)
    with pytest.raises(InputError, match="percentage points below 100"):
        replace(NOTHING, max_drop=-1.0)
    with pytest.raises(InputError, match="add top1"):
        replace(settings, metrics=("f1",))
    with pytest.raises(InputError, match="add top1"):
        replace(settings, accuracy=False)


def test_metrics_of_the_settings(pair: tuple[Path, Path]) -> None:
    settings = replace(NOTHING, metrics=("rmse",))
    labels = np.zeros((20, 4))
    result = compare(*pair, data=samples(20, labels=labels), settings=settings)
    assert {"accuracy.rmse", "accuracy.rmse.original"} <= set(result.metrics)
    assert result.to_json()["options"]["metrics"] == ["rmse"]
    with pytest.raises(InputError, match="metric 'f2': must be one of"):
        compare(*pair, data=samples(5), settings=replace(NOTHING, metrics=("f2",)))
    with pytest.raises(InputError, match="give integers, the class of each sample"):
        bench_model(pair[0], data=samples(20, labels=labels), settings=NOTHING)
    alone = bench_model(pair[0], data=samples(20, labels=labels), settings=settings)
    assert alone.metrics["accuracy.rmse"] == result.metrics["accuracy.rmse.original"]
