"""Accuracy: counted right, paired right, and refused clearly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxtrim.bench.accuracy import compare_accuracy, measure_accuracy
from onnxtrim.bench.bootstrap import CONFIDENCES
from onnxtrim.bench.data import DataSource, InputSpec, open_data
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.stats import clopper_pearson, mcnemar_p, tango_interval
from tests.bench_models import Dim, save_graph

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


def test_metrics_of_one_model(models: tuple[Path, Path]) -> None:
    """The same figures as beside another model."""
    rng = np.random.default_rng(2)
    x = rng.random((200, 3))
    data = source(x, (x + rng.random((200, 3))).argmax(1))
    names = ["top1", "f1", "auc"]
    pair, _ = compare_accuracy(*models, data, metrics=names)
    for model, end in zip(models, (".original", ""), strict=True):
        alone = measure_accuracy(model, data, metrics=names)
        assert list(alone) == [f"accuracy.{name}" for name in names]
        for name, metric in alone.items():
            beside = pair[f"{name}{end}"]
            assert metric.value == beside.value
            assert (metric.low, metric.high) == pytest.approx((beside.low, beside.high), abs=0.02)
    for name in ("cosine", "kl"):
        with pytest.raises(InputError, match="is of two models"):
            measure_accuracy(models[0], data, metrics=[name])
    specs = [InputSpec("x", F32, ("n", 3))]
    numbers = open_data({"x": x.astype(np.float32), "labels": x}, specs, any_labels=True)
    assert list(measure_accuracy(models[0], numbers, metrics=["rmse"])) == ["accuracy.rmse"]


def test_samples_in_groups(models: tuple[Path, Path]) -> None:
    """Ten samples of each of 60 groups are alike: intervals are those of 60 samples."""
    rng = np.random.default_rng(2)
    x = rng.random((60, 3)).astype(np.float32)
    labels = np.where(rng.random(60) < 0.8, x.argmax(1), rng.integers(0, 3, 60))
    persons = 1000 + np.arange(60)
    specs = [InputSpec("x", F32, ("n", 3))]
    order = rng.permutation(600)
    arrays = {"x": x, "labels": labels, "groups": persons}
    many = open_data({n: np.repeat(a, 10, axis=0)[order] for n, a in arrays.items()}, specs)
    metrics, counts = compare_accuracy(*models, many, batch=64, metrics=["top1", "f1"])
    plain, _ = compare_accuracy(*models, source(x, labels), metrics=["top1", "f1"])
    assert (counts.to_json()["groups"], counts.units()) == (60, 60)
    assert "accuracy.mcnemar_p" not in metrics, "it is for independent samples"
    assert set(plain) - set(metrics) == {"accuracy.mcnemar_p"}
    for name, metric in metrics.items():
        one = plain[name]
        assert metric.value == pytest.approx(one.value), name
        assert metric.high - metric.low == pytest.approx(one.high - one.low, rel=0.35), name
        assert metric.low < metric.value < metric.high
    assert set(counts.intervals) >= {"accuracy.agreement", "accuracy.top1.delta", "accuracy.f1"}
    assert "accuracy.agreement.delta" not in counts.intervals
    alone = measure_accuracy(models[1], many)
    assert alone == {"accuracy.top1": metrics["accuracy.top1"]}
    unlabelled = open_data({"x": x, "groups": np.arange(60)}, specs)
    assert list(compare_accuracy(*models, unlabelled)[0]) == ["accuracy.agreement"]
    for bad in (persons[:, None], np.ones(60), np.arange(59), persons.astype(str)):
        with pytest.raises(InputError, match=r"'groups' is .* give integers, the group of each"):
            open_data({"x": x, "groups": bad}, specs)


def test_one_group_tells_nothing_and_a_large_one_little(models: tuple[Path, Path]) -> None:
    specs = [InputSpec("x", F32, ("n", 3))]
    x = np.random.default_rng(0).random((100, 3)).astype(np.float32)
    arrays = {"x": x, "labels": x.argmax(1)}
    with pytest.raises(InputError, match="all samples are of one group"):
        compare_accuracy(*models, open_data({**arrays, "groups": np.zeros(100, int)}, specs))
    groups = np.maximum(np.arange(100) - 89, 0)  # one of 90, ten of one
    _, counts = compare_accuracy(*models, open_data({**arrays, "groups": groups}, specs))
    assert counts.to_json()["groups"] == 11
    assert counts.units() == 1, "100² / (90² + 10)"


def test_only_some_have_groups(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_groups.py").write_text(
        "import numpy as np\n"
        "def data():\n"
        "    x = np.eye(3, dtype=np.float32)\n"
        "    yield {'x': x}, np.arange(3), np.arange(3)\n"
        "    yield {'x': x}, np.arange(3)\n"
    )
    monkeypatch.chdir(tmp_path)
    specs = [InputSpec("x", F32, ("n", 3))]
    with pytest.raises(InputError, match="only 3 of the samples have groups"):
        compare_accuracy(*models, open_data("some_groups:data", specs), batch=3)


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


def test_classes_are_told_apart(models: tuple[Path, Path]) -> None:
    """The second model never answers class 2, so that class 2 is lost and no other."""
    rng = np.random.default_rng(2)
    x = rng.random((300, 3))
    labels = x.argmax(1)
    classes = compare_accuracy(*models, source(x, labels), batch=64)[1].to_json()["classes"]
    assert [each["class"] for each in classes] == [0, 1, 2]
    assert [each["samples"] for each in classes] == np.bincount(labels).tolist()
    lost = classes[2]
    assert (lost["original"], lost["candidate"]) == (1, 0)
    assert (lost["losses"], lost["gains"]) == (lost["samples"], 0)
    wanted = tango_interval(lost["losses"], 0, lost["samples"])
    found = [lost["delta"][end] for end in ("value", "low", "high")]
    assert found == pytest.approx([100 * end for end in wanted])
    assert classes[0]["delta"]["value"] == 0
    absent = compare_accuracy(*models, source(x, labels * 0))[1].to_json()["classes"]
    assert [each["class"] for each in absent] == [0], "a class without samples has no entry"


def test_chosen_metrics(models: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(3)
    x = rng.random((200, 3))
    data = source(x, x.argmax(1))
    metrics, _ = compare_accuracy(*models, data, metrics=["f1", "cosine", "f1"])
    assert "accuracy.top1" not in metrics, "it is not among the chosen"
    assert metrics["accuracy.f1.original"].value == 1
    assert metrics["accuracy.f1"].unit == "share"
    delta = metrics["accuracy.f1.delta"]
    assert delta.unit == "points"
    assert delta.value == pytest.approx(100 * (metrics["accuracy.f1"].value - 1))
    assert delta.low < delta.value < delta.high < 0
    assert metrics["accuracy.cosine"].unit == metrics["accuracy.cosine.delta"].unit == "value"
    both, _ = compare_accuracy(*models, data, metrics=["top1", "kl"])
    assert {"accuracy.top1.delta", "accuracy.kl.delta"} <= set(both)
    assert "accuracy.cosine" in compare_accuracy(*models, source(x), metrics=["cosine"])[0]
    for name in ("top1", "f1"):
        with pytest.raises(InputError, match="has no labels, so"):
            compare_accuracy(*models, source(x), metrics=[name])
    again, _ = compare_accuracy(*models, data, batch=7, metrics=["f1"])
    assert again["accuracy.f1.delta"] == delta


def sequences(tmp_path: Path) -> tuple[Path, Path]:
    """``(x, z)`` → ``x + z`` and ``x − z``; scores of shape (samples, steps, 3)."""
    shape: list[Dim] = ["n", "t", 3]
    paths = []
    for name, node in (
        ("sum", helper.make_node("Add", ["x", "z"], ["y"])),
        ("difference", helper.make_node("Sub", ["x", "z"], ["y"])),
    ):
        path = tmp_path / f"{name}.onnx"
        paths.append(save_graph(path, [node], [("x", shape), ("z", shape)], [("y", shape)]))
    return paths[0], paths[1]


def test_steps_and_several_inputs(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    x, z = rng.standard_normal((2, 60, 5, 3)).astype(np.float32)
    labels = (x + z).argmax(-1)
    labels[:, 3:] = -100
    labels[7] = -100  # nothing of this sample counts
    specs = [InputSpec(name, F32, ("n", "t", 3)) for name in "xz"]
    data = open_data({"x": x, "z": z, "labels": labels}, specs, any_labels=True)
    metrics, counts = compare_accuracy(*sequences(tmp_path), data, batch=16)
    kept = labels != -100
    right = ((x - z).argmax(-1) == labels)[kept]
    assert metrics["accuracy.top1.original"].value == 1
    assert metrics["accuracy.top1"].value == pytest.approx(right.mean())
    assert (counts.losses, counts.gains) == (np.sum(~right), 0)
    assert "accuracy.mcnemar_p" not in metrics, "it is for independent samples"
    delta = metrics["accuracy.top1.delta"]
    assert delta.value == pytest.approx(100 * (right.mean() - 1))
    assert delta.low < delta.value < delta.high
    classes = counts.to_json()["classes"]
    assert sum(each["samples"] for each in classes) == kept.sum()
    assert all(list(each["delta"]) == ["value"] for each in classes)
    alone = measure_accuracy(sequences(tmp_path)[1], data, metrics=["top1"])
    assert alone["accuracy.top1"] == metrics["accuracy.top1"]
    told = counts.intervals["accuracy.top1.delta"]
    assert [confidence for confidence, _, _ in told] == list(CONFIDENCES)
    assert [told[2][1], told[2][2]] == [delta.low, delta.high]
    masked = open_data({"x": x, "z": z, "labels": labels * 0 - 100}, specs, any_labels=True)
    with pytest.raises(InputError, match="no sample counts"):
        compare_accuracy(*sequences(tmp_path), masked)


def test_steps_of_changing_length_stream(tmp_path: Path) -> None:
    """Shards whose sequences differ in length are not joined."""
    rng = np.random.default_rng(5)
    for steps in (2, 4):
        x = rng.standard_normal((6, steps, 3)).astype(np.float32)
        np.savez(tmp_path / f"{steps}.npz", x=x, z=0 * x, labels=x.argmax(-1))
    specs = [InputSpec(name, F32, ("n", "t", 3)) for name in "xz"]
    data = open_data(tmp_path, specs, any_labels=True)
    metrics, counts = compare_accuracy(*sequences(tmp_path), data, batch=4)
    assert metrics["accuracy.top1"].value == 1
    assert sum(each["samples"] for each in counts.to_json()["classes"]) == 6 * 2 + 6 * 4


def test_regression(models: tuple[Path, Path]) -> None:
    x = np.random.default_rng(6).random((40, 3)).astype(np.float32)
    specs = [InputSpec("x", F32, ("n", 3))]
    data = open_data({"x": x, "labels": x}, specs, any_labels=True)
    metrics, _ = compare_accuracy(*models, data, metrics=["mae", "rmse"])
    assert metrics["accuracy.mae.original"].value == 0
    assert metrics["accuracy.mae"].value == pytest.approx(x[:, 2].sum() / x.size)
    assert metrics["accuracy.rmse"].value == pytest.approx(((x[:, 2] ** 2).sum() / x.size) ** 0.5)
    assert "accuracy.agreement" not in metrics, "numbers are no class scores"
    with pytest.raises(InputError, match=r"'labels' is float32; give integers.*mae or rmse"):
        compare_accuracy(*models, data)
    with pytest.raises(InputError, match="array 'labels' has NaN"):
        bad = {"x": x, "labels": np.where(x < 0.1, np.nan, x)}
        compare_accuracy(*models, open_data(bad, specs, any_labels=True), metrics=["mae"])
