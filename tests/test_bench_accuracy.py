"""Accuracy: counted right, paired right, and refused clearly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxtrim.bench.accuracy import compare_accuracy, measure_accuracy
from onnxtrim.bench.data import DataSource, InputSpec, open_data
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.stats import clopper_pearson, mcnemar_p, tango_interval
from tests.bench_models import save_graph

F32 = np.dtype(np.float32)


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """``x`` and ``x`` without its third class (times 1, 1, 0)."""
    first = save_graph(
        tmp_path / "first.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", ["n", 3])],
        [("y", ["n", 3])],
    )
    second = save_graph(
        tmp_path / "second.onnx",
        [helper.make_node("Mul", ["x", "m"], ["y"])],
        [("x", ["n", 3])],
        [("y", ["n", 3])],
        [numpy_helper.from_array(np.array([1, 1, 0], np.float32), "m")],
    )
    return first, second


def source(x: NDArray[Any], labels: NDArray[Any] | None = None) -> DataSource:
    arrays = {"x": x.astype(np.float32)}
    if labels is not None:
        arrays["labels"] = labels
    return open_data(arrays, [InputSpec("x", F32, ("n", 3))])


def test_counts_and_intervals(models: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((500, 3))
    labels = np.where(rng.random(500) < 0.8, x.argmax(1), rng.integers(0, 3, 500))
    first, second = x.argmax(1), (x * [1, 1, 0]).argmax(1)
    losses = int(np.sum((first == labels) & (second != labels)))
    gains = int(np.sum((first != labels) & (second == labels)))
    assert losses and gains
    seen: list[tuple[str, int, int]] = []
    metrics, counts = compare_accuracy(
        *models, source(x, labels), batch=64, progress=lambda *step: seen.append(step)
    )
    assert (counts.losses, counts.gains) == (losses, gains)
    assert metrics["accuracy.top1.original"].value == np.mean(first == labels)
    assert metrics["accuracy.top1"].value == np.mean(second == labels)
    delta = metrics["accuracy.top1.delta"]
    wanted = [100 * end for end in tango_interval(losses, gains, 500)]
    assert (delta.value, delta.low, delta.high) == pytest.approx(tuple(wanted))
    assert delta.value < 0, "the candidate is worse, so the difference is negative"
    assert metrics["accuracy.mcnemar_p"].value == mcnemar_p(losses, gains)
    assert metrics["accuracy.negative_flip_rate"].value == losses / 500
    agreement = metrics["accuracy.agreement"]
    exact = clopper_pearson(int(np.sum(first == second)), 500)
    assert (agreement.value, agreement.low, agreement.high) == exact
    error = counts.relative_error()
    assert error == pytest.approx(np.linalg.norm(x[:, 2]) / np.linalg.norm(x), rel=1e-5)
    assert seen[-1] == ("accuracy", 500, 500)
    swapped, _ = compare_accuracy(models[1], models[0], source(x, labels))
    assert swapped["accuracy.top1.delta"].value == -delta.value


def test_one_model(models: tuple[Path, Path]) -> None:
    x, labels = np.eye(3), np.array([0, 1, 0])
    found = measure_accuracy(models[0], source(x, labels))["accuracy.top1"]
    assert (found.value, found.low, found.high) == clopper_pearson(2, 3)
    with pytest.raises(InputError, match="no labels"):
        measure_accuracy(models[0], source(x))


def test_batch_size_changes_nothing(models: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(1)
    data = source(rng.random((50, 3)), rng.integers(0, 3, 50))
    one, other = (compare_accuracy(*models, data, batch=size)[0] for size in (7, 50))
    assert one == other


def test_without_labels_only_agreement(models: tuple[Path, Path]) -> None:
    metrics, _ = compare_accuracy(*models, source(np.eye(3)))
    assert list(metrics) == ["accuracy.agreement"]


def test_labels_out_of_range(models: tuple[Path, Path]) -> None:
    for bad in (3, -1):
        with pytest.raises(InputError, match=r"labels go from .* classes 0 to 2"):
            compare_accuracy(*models, source(np.eye(3), np.array([0, 1, bad])))


def test_outputs_that_are_no_class_scores(tmp_path: Path, models: tuple[Path, Path]) -> None:
    flat = save_graph(
        tmp_path / "flat.onnx",
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        [("x", ["n", 3])],
        [("y", [])],
    )
    x, labels = np.eye(3), np.array([0, 1, 2])
    with pytest.raises(InputError, match=r"shape \(\) for 3 samples.*\(samples, classes\)"):
        compare_accuracy(flat, flat, source(x, labels))
    metrics, counts = compare_accuracy(flat, flat, source(x))
    assert metrics == {}
    assert counts.relative_error() == 0
    with pytest.raises(InputError, match="differ in shape"):
        compare_accuracy(models[0], flat, source(x, labels))


def test_nan_output_is_not_counted(tmp_path: Path, models: tuple[Path, Path]) -> None:
    root = save_graph(
        tmp_path / "root.onnx",
        [helper.make_node("Sqrt", ["x"], ["y"])],
        [("x", ["n", 3])],
        [("y", ["n", 3])],
    )
    x = np.ones((5, 3))
    x[3, 1] = -1
    with pytest.raises(InputError, match=r"root\.onnx: the output is NaN for sample 3"):
        compare_accuracy(models[0], root, source(x, np.zeros(5, int)), batch=2)
