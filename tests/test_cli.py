"""Commands on models and data: what they print, write and return; exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxtrim.bench.errors import SelfCheckError
from onnxtrim.bench.size import model_size
from onnxtrim.toolkit.plan import Plan
from onnxtrim.toolkit.statistics import Statistics
from tests.cli import QUICK, SOME, UNMEASURED, WIDTHS, refused, run, snapshot

# --- inspect, stats, prune ----------------------------------------------------------------------


def test_inspect(here: Path) -> None:
    value = run("inspect", "model.onnx", "--json").json()
    a, b, c, d = WIDTHS
    parameters = a * b + b + b * c + c + c * d + d
    assert value["schema"] == "onnxtrim.inspect/1"
    assert value["parameters"] == parameters
    assert 0 < value["prunable_parameters"] <= parameters
    assert value["macs"] == a * b + b * c + c * d
    assert [group["units"] for group in value["groups"]] == [b, c]
    keys = {"name", "units", "parameters", "macs", "producers", "carriers", "consumers"}
    assert all(keys <= set(group) for group in value["groups"])
    assert value["groups"][0]["macs"] == a * b + b * c
    assert value["frozen"]
    assert all({"name", "operator", "reason"} <= set(item) for item in value["frozen"])
    shown = run("inspect", "model.onnx")
    assert shown.code == 0
    assert shown.err == ""
    assert f"{parameters:,} parameters" in shown.out
    assert value["groups"][0]["name"] in shown.out
    assert value["frozen"][0]["reason"] in shown.out


def test_stats(here: Path) -> None:
    result = run("stats", "model.onnx", "--data", "calib.npz", "-o", "stats.npz", "--json")
    value = result.json()
    assert value["schema"] == "onnxtrim.stats/1"
    assert value["samples"] == 120
    assert value["output"] == "stats.npz"
    assert [group["units"] for group in value["groups"]] == list(WIDTHS[1:3])
    saved = Statistics.load("stats.npz")
    assert saved.samples == 120
    assert saved.data_sha256 == value["data"]["sha256"]
    first = value["groups"][0]["mean"]
    assert first["min"] < first["median"] < first["max"]
    assert first["min"] == min(m.mean.min() for (name, _), m in saved.points.items() if "0" in name)
    assert "next: onnxtrim prune" in result.err
    again = run("stats", "model.onnx", "--data", "calib.npz", "-o", "stats.npz")
    assert again.code == 0
    assert "120 samples of calib.npz" in again.out


def test_prune(here: Path) -> None:
    command = ("prune", "model.onnx", "--data", "calib.npz", *SOME)
    result = run(*command, "-o", "small.onnx", "--plan", "plan.json", "--json")
    value = result.json()
    assert value["schema"] == "onnxtrim.prune/1"
    for name in ("parameters", "bytes", "macs"):
        assert 0 < value[name]["after"] < value[name]["before"], name
    assert value["removed"] == 1 - value["parameters"]["after"] / value["parameters"]["before"]
    before, after = model_size("model.onnx"), model_size("small.onnx")
    assert value["parameters"] == {"before": before.parameters, "after": after.parameters}
    assert value["bytes"]["after"] == after.initializer_bytes
    assert value["self_check"]["max_error"] < 1e-4
    assert value["divergence"] > 0
    assert value["predicted_error"] is None  # repair by second moments is to come
    assert value["output"] == "small.onnx"
    plan = Plan.load("plan.json")
    assert [g["before"] - g["after"] for g in value["groups"]] == [
        len(removal.remove) for removal in plan.removals
    ]
    assert "next: onnxtrim compare model.onnx small.onnx" in result.err
    shown = run(*command, "-o", "small.onnx")
    assert shown.code == 0
    assert "self-check passed" in shown.out
    assert f"{value['removed']:.1%}" in shown.out


def test_prune_from_statistics_gives_the_same_model(here: Path) -> None:
    assert run("stats", "model.onnx", "--data", "calib.npz", "-o", "stats.npz").code == 0
    run("prune", "model.onnx", "--data", "calib.npz", *SOME, "-o", "one.onnx")
    other = run("prune", "model.onnx", "--stats", "stats.npz", *SOME, "-o", "other.onnx", "--json")
    assert other.json()["divergence"] is None  # there are no data
    one, two = onnx.load("one.onnx"), onnx.load("other.onnx")
    assert one.graph == two.graph


def test_prune_without_repair_keeps_the_biases(here: Path) -> None:
    command = ("prune", "model.onnx", "--data", "calib.npz", *SOME)
    repaired = run(*command, "-o", "repaired.onnx", "--json").json()
    plain = run(*command, "-o", "plain.onnx", "--no-repair", "--json").json()
    assert plain["parameters"] == repaired["parameters"]
    assert plain["divergence"] > repaired["divergence"]
    last = onnx.numpy_helper.to_array(
        next(item for item in onnx.load("plain.onnx").graph.initializer if item.name == "b2")
    )
    assert not last.any()  # as in the original


def test_thresholds_that_would_empty_a_layer_keep_its_best_unit(here: Path) -> None:
    everything = ("--mean-below", "1e6", "--std-below", "1e6")
    command = ("prune", "model.onnx", "--data", "calib.npz", *everything, "-o", "small.onnx")
    result = run(*command, "--json")
    value = result.json()
    assert [group["after"] for group in value["groups"]] == [1, 1]
    warnings = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert len(value["warnings"]) == len(warnings) == 3
    assert "the model computes something else" in warnings[-1]
    for group in value["groups"]:
        assert any(
            repr(group["name"]) in line and "the best one stays" in line for line in warnings
        )
    onnx.checker.check_model("small.onnx")


def test_nothing_to_remove_is_a_no_with_reasons(here: Path) -> None:
    before = snapshot(here)
    rest = ("--mean-below", "-5", "--std-below", "0.1", "-o", "small.onnx")
    refused("prune", "model.onnx", "--data", "calib.npz", *rest, says="smallest mean", code=1)
    sweep = ("sweep", "model.onnx", "--data", "calib.npz", "--pair", "-5", "0.1", *UNMEASURED)
    refused(*sweep, "-o", "deep/runs", says="smallest mean", code=1)
    assert snapshot(here) == before


# --- export -------------------------------------------------------------------------------------

MODULE = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
def number():
    return 3
"""


@pytest.fixture
def module(here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a function that builds a module, in the work folder."""
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    monkeypatch.delitem(sys.modules, "cli_nets", raising=False)
    (here / "cli_nets.py").write_text(MODULE)
    return "cli_nets:build"


def test_export(module: str, here: Path) -> None:
    import torch

    weights = {name: 2 * value for name, value in sys_module().build().state_dict().items()}
    torch.save(weights, here / "w.pt")
    command = ("export", module, "--weights", "w.pt", "--input", "1x6", "--input-name", "x")
    value = run(*command, "-o", "out.onnx", "--json").json()
    assert value["schema"] == "onnxtrim.export/1"
    assert value["inputs"] == {"x": ["batch", 6]}
    assert value["parameters"] == 6 * 8 + 8 + 8 * 3 + 3
    assert value["max_error"] < 1e-5
    stored = {item.name: item for item in onnx.load("out.onnx").graph.initializer}
    assert np.array_equal(onnx.numpy_helper.to_array(stored["0.weight"]), weights["0.weight"])
    pruned = run("inspect", "out.onnx", "--json").json()
    assert [group["units"] for group in pruned["groups"]] == [8]


def sys_module() -> Any:
    """The module of :func:`module`."""
    import importlib

    return importlib.import_module("cli_nets")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"callable": "cli_nets"}, "cli_nets"),
        ({"callable": "no_such_module_here:build"}, "no_such_module_here"),
        ({"callable": "cli_nets:absent"}, "absent"),
        ({"callable": "cli_nets:number"}, "cli_nets:number"),
        ({"shape": "1xtwo"}, "1xtwo"),
        ({"shape": "1x5"}, "1x5"),
        ({"weights": "absent.pt"}, "absent.pt"),
        ({"weights": "calib.npz"}, "calib.npz"),
        ({"output": "no/such/folder.onnx"}, "no/such"),
    ],
)
def test_export_refuses(module: str, here: Path, changes: dict[str, str], says: str) -> None:
    given = {"callable": module, "shape": "1x6", "output": "out.onnx"} | changes
    before = snapshot(here)
    weights = ("--weights", given["weights"]) if "weights" in given else ()
    shape = ("--input", given["shape"])
    refused("export", given["callable"], *shape, *weights, "-o", given["output"], says=says)
    after = {name: hashed for name, hashed in snapshot(here).items() if "__pycache__" not in name}
    assert after == before


# --- exit codes ---------------------------------------------------------------------------------


def test_a_failed_self_check_ends_with_4(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise SelfCheckError("group 'fc1': nothing was written")

    monkeypatch.setattr("onnxtrim.toolkit.cli.prune_command.apply_plan", broken)
    before = snapshot(here)
    command = ("prune", "model.onnx", "--data", "calib.npz", *SOME, "-o", "small.onnx")
    refused(*command, says="group 'fc1'", code=4)
    assert snapshot(here) == before


def test_a_dead_worker_ends_with_4(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    refused("bench", "model.onnx", *QUICK, says="the measuring process died", code=4)


def test_a_bug_is_one_line_and_debug_shows_where(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("onnxtrim.toolkit.cli.stats_command.gather", broken)
    command = ("stats", "model.onnx", "--data", "calib.npz", "-o", "s.npz")
    result = run(*command)
    assert result.code == 4
    assert result.err == "error: internal: ZeroDivisionError: two lines (--debug shows where)\n"
    shown = run(*command, "--debug")
    assert shown.code == 4
    assert "Traceback" in shown.err
    assert shown.err.splitlines()[-1] == result.err.strip()


def test_an_interruption_ends_with_130(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxtrim.toolkit.cli.stats_command.gather", interrupted)
    before = snapshot(here)
    result = run("stats", "model.onnx", "--data", "calib.npz", "-o", "s.npz")
    assert result.code == 130
    assert result.err.startswith("interrupted")
    assert len(result.err.splitlines()) == 1
    assert snapshot(here) == before


@pytest.mark.parametrize(
    "command",
    [
        *("bench", "choose", "compare", "demo", "export", "finetune", "inspect", "prune", "report"),
        *("stats", "sweep"),
    ],
)
def test_help_teaches(command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert result.err == ""
    assert f"Usage: onnxtrim {command}" in result.out
    assert "--json" in result.out
    if command != "demo":
        assert f"onnxtrim {command} " in result.out.partition("Example:")[2]
