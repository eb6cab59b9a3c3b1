"""Inputs that the model takes, at two sizes: what holds at one size must not be built in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxtrim.bench.errors import NothingToRemoveError
from onnxtrim.bench.session import RunOptions, open_session, run
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.trim import trim
from tests import cli
from tests.nets import Net
from tests.zoo import ZOO


@pytest.fixture
def picky(tmp_path: Path) -> Path:
    """Rows of a table that ids name, a mask of truth values, and a target made from Shape."""
    n = Net()
    h = n.relu(n.gemm("fc1", n.op("Gather", "x", "ids"), 4, 8))
    h = n.gemm("fc2", h, 8, 3)
    mask = n.op("Unsqueeze", n.op("Cast", "mask", to=TensorProto.FLOAT), n.ints("last", 1))
    target = n.op("Concat", n.op("Shape", "ids"), n.ints("three", 3), axis=0)
    y = n.op("Reshape", n.op("Mul", h, mask), target)
    model = n.build(y, {"x": ["rows", 4], "ids": ["n"], "mask": ["n"]})
    for value, kind in zip(
        model.graph.input[1:], (TensorProto.INT64, TensorProto.BOOL), strict=True
    ):
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, ["n"]))
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    return path


def feeds(rows: int, n: int) -> dict[str, Any]:
    rng = np.random.default_rng(n)
    x = rng.standard_normal((rows, 4)).astype(np.float32)
    return {"x": x, "ids": rng.integers(0, rows, n), "mask": np.ones(n, np.bool_)}


def test_a_size_that_was_seen_is_not_built_in(picky: Path) -> None:
    """Random ids are out of range at the second size; zeros are not."""
    net, _ = prepare(picky, sizes={"rows": 1, "n": 12})
    assert [len(feed["ids"]) for feed in net.feeds] == [12, 3]
    assert "Shape" in {node.op_type for node in net.analysis.model.graph}
    assert [group.units for group in net.analysis.groups] == [8]


def test_the_pruned_model_runs_at_other_sizes(picky: Path) -> None:
    try:
        result = trim(picky, feeds(12, 12), mean_below=0.6, std_below=0.9)
    except NothingToRemoveError:
        pytest.fail("the thresholds are meant to take some units")
    small = picky.with_name("small.onnx")
    result.save(small)
    session = open_session(small, RunOptions(threads=1))
    for n in (1, 5, 40):
        assert run(session, feeds(7, n), "small")[0].shape == (n, 3)


def test_dimensions_are_given_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(ZOO["reshape_free"](), path)
    told = cli.run("inspect", path, "--shape", "height=4", "--shape", "width=6", "--json").json()
    assert [group["name"] for group in told["groups"]] == ["c1"]
    cli.refused("inspect", path, "--shape", "height=4", says="dimension 'width' has no fixed size")
