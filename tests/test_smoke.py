"""The first ten seconds: does it import, does the command answer, does it refuse nonsense."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper, save

import onnxtrim

ROOT = Path(__file__).parents[1]


def onnxtrim_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnxtrim", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((6, 8)).astype(np.float32)
    second = rng.standard_normal((8, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "fc1"),
            helper.make_node("Relu", ["h"], ["r"], "relu"),
            helper.make_node("Gemm", ["r", "w2"], ["y"], "fc2"),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", 1, ["batch", 6])],
        [helper.make_tensor_value_info("y", 1, ["batch", 3])],
        [
            numpy_helper.from_array(first, "w1"),
            numpy_helper.from_array(np.zeros(8, np.float32), "b1"),
            numpy_helper.from_array(second, "w2"),
        ],
    )
    path = tmp_path / "mlp.onnx"
    opsets = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_the_package_imports() -> None:
    assert onnxtrim.__version__
    assert issubclass(onnxtrim.InputError, onnxtrim.OnnxtrimError)


def test_help_lists_the_commands() -> None:
    result = onnxtrim_command("--help")
    assert result.returncode == 0, result.stderr
    for command in ("inspect", "stats", "prune", "sweep", "bench", "compare", "export", "report"):
        assert command in result.stdout


def test_version() -> None:
    result = onnxtrim_command("--version")
    assert result.returncode == 0, result.stderr
    assert onnxtrim.__version__ in result.stdout


def test_a_model_is_inspected(mlp: Path) -> None:
    result = onnxtrim_command("inspect", mlp)
    assert result.returncode == 0, result.stderr
    assert "80 parameters" in result.stdout
    assert "fc2" in result.stdout  # what consumes the eight units of fc1


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is not a model\n")
    for path in (tmp_path / "text.onnx", tmp_path / "missing.onnx"):
        result = onnxtrim_command("inspect", path)
        assert result.returncode == 2, result.stderr
        assert result.stdout == ""
        assert path.name in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
