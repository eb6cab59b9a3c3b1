"""``--profile`` and the warning of denormal weights, as a user sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.bench_models import save_mlp
from tests.cli import UNMEASURED, WIDTHS, run


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}


def test_compare(here: Path) -> None:
    save_mlp(here / "small.onnx", [6, 9, 16, 4])
    command = ("compare", "model.onnx", "small.onnx", "--profile", *UNMEASURED)
    shown = run(*command)
    assert shown.code == 0, shown.err
    found = rows(shown.out)
    assert {"h0", "h1", "y"} <= set(found)
    assert found["h0"][1] == "Gemm"
    assert found["h0"][2].endswith("%")
    assert found["h0"][5:9] == ["0.38", "24", "→", "9"]
    assert found["y"][-1] == "not_pruned"
    profile = run(*command, "--json").json()["details"]["profile"]
    layers = {layer["name"]: layer for layer in profile["layers"]}
    assert layers["h0"]["channels"] == [24, 9]
    assert layers["h1"]["macs_ratio"] == 9 / 24
    assert profile["block"] in (8, 16)


def test_bench(here: Path) -> None:
    command = ("bench", "model.onnx", "--profile", *UNMEASURED)
    found = rows(run(*command).out)
    assert found["h0"][3:] == ["6", "→", "24"]
    assert found["h0"][2].endswith("%")
    profile = run(*command, "--json").json()["details"]["profile"]
    assert {layer["name"] for layer in profile["layers"]} >= {"h0", "h1", "y"}
    against = run("bench", "model.onnx", "--against", "model.onnx", "--profile", *UNMEASURED)
    assert rows(against.out)["h0"][-1] == "not_pruned"
    assert "h0" not in rows(run("bench", "model.onnx", *UNMEASURED).out)


def test_a_long_table_is_cut(here: Path) -> None:
    save_mlp(here / "deep.onnx", [6, *[8] * 20, 4])
    shown = run("bench", "deep.onnx", "--profile", *UNMEASURED)
    assert "; 6 more layers in --json" in shown.out
    assert sum(row[1:2] == ["Gemm"] for row in rows(shown.out).values()) == 15
    profile = run("bench", "deep.onnx", "--profile", *UNMEASURED, "--json").json()
    assert len(profile["details"]["profile"]["layers"]) == 21


def test_denormal_weights(here: Path) -> None:
    model = onnx.load(here / "model.onnx")
    weight = np.full((WIDTHS[0], WIDTHS[1]), 1e-40, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w0"))
    onnx.save(model, here / "model.onnx")
    shown = run("bench", "model.onnx", *UNMEASURED)
    assert shown.code == 0
    (line,) = [line for line in shown.err.splitlines() if "denormal" in line]
    assert line.startswith("warning: denormal weights: ")
    assert "session.set_denormal_as_zero=1" in line
