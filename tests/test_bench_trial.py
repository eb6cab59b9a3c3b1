"""The first runs of a model: bounded, and without a trace in later sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from onnxtrim.bench import trial
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.session import (
    MOST_ELEMENTS,
    RunOptions,
    model_inputs,
    open_session,
    random_feeds,
    run,
)
from onnxtrim.bench.trial import LimitError, Trial
from tests.bench_models import save_graph


def grower(path: Path, factor: int) -> Path:
    """``y`` has the size ``factor`` times ``x``."""
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["y"], name="grow"),
    ]
    weight = numpy_helper.from_array(np.array([factor], np.int64), "factor")
    kinds = {"x": onnx.TensorProto.INT64}
    return save_graph(path, nodes, [("x", [1])], [("y", [None])], [weight], dtypes=kinds)


def test_memory_is_bounded_before_it_is_taken(tmp_path: Path) -> None:
    path = grower(tmp_path / "a.onnx", 1 << 20)
    with Trial(path, 100) as bounded:
        bounded.run({"x": np.array([1], np.int64)})
        says = r"a\.onnx: one sample needs more than 4\.0 GiB of memory at node 'grow' \(Const"
        for size in (1 << 11, 1 << 30):
            with pytest.raises(LimitError, match=says):
                bounded.run({"x": np.array([size], np.int64)})
        bounded.run({"x": np.array([2], np.int64)})


def test_the_limit_grows_with_the_weights_and_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MEMORY", 1 << 20)
    path = grower(tmp_path / "a.onnx", 1 << 20)
    feeds = {"x": np.array([1], np.int64)}
    with Trial(path, 0) as small, pytest.raises(LimitError):
        small.run(feeds)
    with Trial(path, 16 << 20) as large:
        large.run(feeds)
    session = open_session(path, RunOptions(threads=1), shared_arena=True)
    assert run(session, feeds, "a")[0].size == 1 << 20


def test_time_is_one_budget_of_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    path = grower(tmp_path / "a.onnx", 1 << 24)
    with Trial(path, 0) as bounded, pytest.raises(LimitError, match="is not finished after 0 s"):
        for _ in range(3):
            bounded.run({"x": np.array([4], np.int64)})


def test_other_refusals_stay_as_they_are(tmp_path: Path) -> None:
    path = grower(tmp_path / "a.onnx", 1)
    with Trial(path, 0) as bounded, pytest.raises(InputError, match="can't run on these") as told:
        bounded.run({"x": np.array([-1], np.int64)})
    assert not isinstance(told.value, LimitError)


def test_inputs_of_absurd_size_are_not_made(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = save_graph(tmp_path / "a.onnx", nodes, [("x", ["n", "m"])], [("y", ["n", "m"])])
    inputs = model_inputs(ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]))
    for sizes in ({"m": MOST_ELEMENTS + 1}, {"x": (2, MOST_ELEMENTS)}):
        with pytest.raises(InputError, match=f"more than {MOST_ELEMENTS} elements; give"):
            random_feeds(inputs, sizes)
