"""An input that becomes a constant, and what that frees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.session import RunOptions, model_inputs, open_session, run
from onnxtrim.export.bind import bind_inputs
from onnxtrim.toolkit.prepare import prepare
from tests import cli


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two rates, two branches, each with weights of its own."""
    text = """
        <ir_version: 9, opset_import: ["": 18]>
        net (float[batch, 8] x, int64 rate) => (float[batch, 4] y) <int64 high = {16000}> {
            is_high = Equal (rate, high)
            h = If (is_high) <
                then_branch = wide () => (p) {
                    a = MatMul (x, w1)
                    r = Relu (a)
                    p = MatMul (r, w2)
                },
                else_branch = thin () => (q) { q = MatMul (x, w3) }
            >
            y = Tanh (h)
        }
    """
    found = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (8, 12), "w2": (12, 4), "w3": (8, 4)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        found.graph.initializer.append(numpy_helper.from_array(array, name))
    path = tmp_path / "net.onnx"
    onnx.save(found, path)
    return path


def test_a_branch_that_is_always_taken_can_be_pruned(model: Path) -> None:
    assert prepare(model)[0].analysis.groups == ()
    bound = model.with_name("bound.onnx")
    assert bind_inputs(model, {"rate": 16000}, bound) == ["x"]
    (group,) = prepare(bound)[0].analysis.groups
    assert (group.name, group.units) == ("w1", 12)
    thin = model.with_name("thin.onnx")
    bind_inputs(model, {"rate": 8000}, thin)
    assert prepare(thin)[0].analysis.groups == ()


@pytest.mark.parametrize("rate", [16000, 8000])
def test_it_computes_the_same(model: Path, rate: int) -> None:
    bound = model.with_name("bound.onnx")
    bind_inputs(model, {"rate": rate}, bound)
    x = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    one, other = (open_session(path, RunOptions(threads=1)) for path in (model, bound))
    assert [spec.name for spec in model_inputs(other)] == ["x"]
    wanted = run(one, {"x": x, "rate": np.array(rate)}, "net")
    assert np.array_equal(wanted[0], run(other, {"x": x}, "bound")[0])


def test_what_can_not_be_bound(model: Path) -> None:
    output = model.with_name("out.onnx")
    for values, reason in (
        ({"speed": 1}, r"has no input 'speed'; it has 'x', 'rate'"),
        ({"x": 1}, r"input 'x' has free dimensions"),
        ({"rate": [1, 2]}, r"input 'rate' takes 1 numbers, not 2"),
        ({"rate": 0.5}, r"input 'rate' of type INT64 can't be 0\.5"),
    ):
        with pytest.raises(InputError, match=reason):
            bind_inputs(model, values, output)
    assert not output.exists()


def test_the_command(model: Path) -> None:
    output = model.with_name("out.onnx")
    told = cli.run("bind", model, "rate=16000", "-o", output, "--json").json()
    assert told == {"schema": "onnxtrim.bind/1", "inputs": ["x"], "output": str(output)}
    cli.refused("bind", model, "rate", "-o", output, says="'rate': must look like sr=16000")
    cli.refused("bind", model, "rate=fast", "-o", output, says="must look like sr=16000")
    cli.refused("bind", model, "rate=1", "-o", model, says="the output is the input")
