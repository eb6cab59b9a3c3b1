"""Plans on the command line: written, looked at, applied, and refused where they don't fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx

from onnxtrim.bench.session import RunOptions, open_session, run
from tests import cli
from tests.zoo import ZOO

PRUNE = ("prune", "model.onnx", "--data", "calib.npz", *cli.SOME)


def widths(path: str) -> dict[str, tuple[int, ...]]:
    return {item.name: tuple(item.dims) for item in onnx.load(path).graph.initializer}


def test_plan_then_apply_gives_the_same_file(here: Path) -> None:
    planned = cli.run(*PRUNE, "--no-repair", "--plan-only", "-o", "plan.json", "--json").json()
    assert planned["schema"] == "onnxtrim.plan/1"
    assert sorted(path.name for path in here.glob("*.onnx")) == ["model.onnx"]
    once = cli.run(*PRUNE, "--no-repair", "-o", "direct.onnx")
    assert once.code == 0
    told = cli.run(
        "prune", "model.onnx", "--apply", "plan.json", "-o", "small.onnx", "--json"
    ).json()
    assert told["self_check"]["effect"] > 0
    assert widths("small.onnx") == widths("direct.onnx")
    sessions = [open_session(name, RunOptions(threads=1)) for name in ("small.onnx", "direct.onnx")]
    name = sessions[0].get_inputs()[0].name
    x = np.load("calib.npz")[name][:5]
    one, other = (run(session, {name: x}, "model")[0] for session in sessions)
    assert np.array_equal(one, other)


def test_applied_with_data_it_repairs(here: Path) -> None:
    cli.run(*PRUNE, "--plan-only", "-o", "plan.json")
    cli.run(*PRUNE, "-o", "direct.onnx")
    applied = cli.run(
        "prune", "model.onnx", "--apply", "plan.json", "--data", "calib.npz", "-o", "small.onnx"
    )
    assert applied.code == 0
    assert Path("small.onnx").read_bytes() == Path("direct.onnx").read_bytes()


def test_globs_protect_and_alignment_holds(here: Path) -> None:
    whole = cli.run(*PRUNE, "-o", "a.onnx", "--json").json()
    names = [group["name"] for group in whole["groups"]]
    shrunk = [g["name"] for g in whole["groups"] if g["after"] < g["before"]]
    assert len(shrunk) == len(names) == 2
    less = cli.run(*PRUNE, "--exclude", f"{names[0]}*", "-o", "b.onnx", "--json").json()
    assert {g["name"] for g in less["groups"] if g["after"] < g["before"]} == {names[1]}
    only = cli.run(*PRUNE, "--include", f"{names[0]}*", "-o", "c.onnx", "--json").json()
    assert {g["name"] for g in only["groups"] if g["after"] < g["before"]} == {names[0]}
    aligned = cli.run(*PRUNE, "--align", "4", "-o", "d.onnx", "--json").json()
    assert all(g["after"] % 4 == 0 or g["after"] == g["before"] for g in aligned["groups"])
    cli.refused(*PRUNE, "--exclude", "nothing*", "-o", "e.onnx", says="--exclude 'nothing*'")
    assert not Path("e.onnx").exists()


def test_two_stages(tmp_path: Path) -> None:
    """Heads leave first, then head dimensions of the heads that stay."""
    path = tmp_path / "net.onnx"
    onnx.save(ZOO["attention"](), path)
    x = np.random.default_rng(0).standard_normal((40, 5, 8)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=x)
    plan = tmp_path / "plan.json"
    wide = ("--mean-below", "0.6", "--std-below", "1.4", "--absolute")
    told = cli.run(
        "prune", path, "--data", tmp_path / "calib.npz", *wide, "--plan-only", "-o", plan
    )
    assert told.code == 0, told.err
    stages = json.loads(plan.read_text())["stages"]
    assert len(stages) == 2
    assert any(item["group"].endswith("/inner") for item in stages[1]["removals"])
    small = tmp_path / "small.onnx"
    value = cli.run("prune", path, "--apply", plan, "-o", small, "--json").json()
    assert value["parameters"]["after"] < value["parameters"]["before"]


def test_what_is_refused(here: Path) -> None:
    cli.run(*PRUNE, "--plan-only", "-o", "plan.json")
    apply = ("prune", "model.onnx", "--apply", "plan.json", "-o", "out.onnx")
    cli.refused(*apply, "--mean-below", "0.1", says="--apply takes everything from the plan")
    cli.refused("prune", "model.onnx", "-o", "out.onnx", *cli.SOME, says="--data or --stats")
    cli.refused("prune", "model.onnx", "--data", "calib.npz", "-o", "o.onnx", says="--mean-below")
    value = json.loads(Path("plan.json").read_text())
    value["model"]["sha256"] = "0" * 64
    Path("plan.json").write_text(json.dumps(value))
    cli.refused(*apply, says="plan.json: this plan was made for another model file")
    Path("plan.json").write_text("{}")
    cli.refused(*apply, says="plan.json")
    assert not Path("out.onnx").exists()
