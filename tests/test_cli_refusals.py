"""Outputs, folders, options and missing extras: refused in one line, nothing written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.bench_models import save_mlp
from tests.cli import PAIR, QUICK, SOME, UNMEASURED, WIDTHS, refuse, run, samples

# --- outputs ------------------------------------------------------------------------------------

# Every command that writes a file, with OUTPUT in its place.
WRITE: dict[str, tuple[str, ...]] = {
    "stats": ("stats", "model.onnx", "--data", "calib.npz", "-o", "OUTPUT"),
    "prune": ("prune", "model.onnx", "--data", "calib.npz", *SOME, "-o", "OUTPUT"),
    "prune --plan": (
        *("prune", "model.onnx", "--data", "calib.npz", *SOME),
        *("-o", "o.onnx", "--plan", "OUTPUT"),
    ),
    "export": ("export", "benchmarks.nets:mlp", "--input", "1x784", "-o", "OUTPUT"),
    "finetune": (
        *("finetune", "benchmarks.nets:mlp", "--input", "1x784", "--data", "calib.npz"),
        *("--remove", "70%", "-o", "OUTPUT"),
    ),
    "finetune --checkpoint": (
        *("finetune", "benchmarks.nets:mlp", "--input", "1x784", "--data", "calib.npz"),
        *("--remove", "70%", "-o", "o.onnx", "--checkpoint", "OUTPUT"),
    ),
    "report": ("report", "run", "-o", "OUTPUT"),
}


@pytest.fixture
def run_here(here: Path) -> Path:
    """The work folder with a finished sweep ``run``."""
    command = ("sweep", "model.onnx", "--data", "calib.npz", *PAIR, "-o", "run", *UNMEASURED)
    assert run(*command).code == 0
    return here


@pytest.mark.parametrize("command", WRITE)
def test_outputs_that_cannot_be_written(
    run_here: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command.startswith(("export", "finetune")):
        pytest.importorskip("torch")
    for output, says in (
        ("no/such/out", "the folder no/such does not exist; make it first"),
        ("model.onnx/out", "does not exist"),
        (".", "is a folder; give the path of a file"),
        (os.devnull, "is not a regular file"),
    ):
        refuse(run_here, WRITE[command], says, OUTPUT=output)
    folder = run_here / "locked"
    folder.mkdir()
    (run_here / "fixed").touch()
    obey_permissions(monkeypatch)
    folder.chmod(0o500)
    (run_here / "fixed").chmod(0o400)
    refuse(run_here, WRITE[command], "can't write into the folder locked", OUTPUT="locked/out")
    refuse(run_here, WRITE[command], "is write-protected; choose another path", OUTPUT="fixed")


def obey_permissions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bits of the owner count, which root may ignore."""

    def access(path: str | Path, mode: int) -> bool:
        return (Path(path).stat().st_mode >> 6) & mode == mode

    if os.geteuid() == 0:
        monkeypatch.setattr(os, "access", access)


@pytest.mark.parametrize(
    ("command", "inputs"),
    [
        ("stats", ("model.onnx", "calib.npz")),
        ("prune", ("model.onnx", "calib.npz")),
        ("prune --plan", ("model.onnx", "calib.npz", "o.onnx")),
        ("finetune", ("calib.npz",)),
        ("finetune --checkpoint", ("calib.npz", "o.onnx")),
        ("report", ("run/results.jsonl", "run/models/m0.4-s0.6.onnx")),
    ],
)
def test_the_output_is_the_input(run_here: Path, command: str, inputs: tuple[str, ...]) -> None:
    (run_here / "o.onnx").write_bytes(b"old")
    for name in inputs:
        refuse(run_here, WRITE[command], "the output is the input", OUTPUT=name)
        (run_here / "soft").symlink_to(name)
        (run_here / "hard").hardlink_to(name)
        for link in ("soft", "hard"):
            refuse(run_here, WRITE[command], "the output is the input", OUTPUT=link)
            (run_here / link).unlink()


def test_the_output_is_the_weights_of_the_input(here: Path) -> None:
    model = onnx.load("model.onnx")
    path = str(here / "big.onnx")
    onnx.save(model, path, save_as_external_data=True, location="big.bin", size_threshold=0)
    for name in ("stats", "prune", "prune --plan"):
        command = tuple("big.onnx" if part == "model.onnx" else part for part in WRITE[name])
        refuse(here, command, "", OUTPUT="big.bin")


def test_statistics_do_not_join_the_data(here: Path) -> None:
    (here / "shards").mkdir()
    np.savez(here / "shards" / "a.npz", x=samples(20))
    command = ("stats", "model.onnx", "--data", "shards", "-o", "OUTPUT")
    refuse(here, command, "would lie among the data", OUTPUT="shards/b.npz")


@pytest.mark.parametrize("where", ["calib.npz", "calib.npz/run", "notes"])
def test_a_sweep_needs_a_folder_of_its_own(here: Path, where: str) -> None:
    (here / "notes").mkdir()
    (here / "notes" / "todo.txt").write_text("mine")
    command = ("sweep", "model.onnx", "--data", "calib.npz", *PAIR, "-o", "OUTPUT", *UNMEASURED)
    refuse(here, command, "folder", OUTPUT=where)


@pytest.mark.parametrize("where", ["calib.npz", "calib.npz/demo", "."])
def test_so_does_a_demo(here: Path, where: str) -> None:
    pytest.importorskip("torch")
    refuse(here, ("demo", "-o", "OUTPUT", "--epochs", "1"), "folder", OUTPUT=where)


# --- runs, statistics, options, extras ----------------------------------------------------------


def test_folders_that_hold_no_sweep(here: Path) -> None:
    (here / "void").mkdir()
    for name, says in (
        ("absent", "no such folder; give the folder that 'onnxtrim sweep -o' wrote"),
        ("void", "has no sweep.json"),
        ("model.onnx", "is not JSON"),
        ("absent.json", "can't be read"),
    ):
        refuse(here, ("report", "RUN"), says, RUN=name)


def test_a_broken_run(run_here: Path) -> None:
    results = run_here / "run" / "results.jsonl"
    lines = results.read_text().splitlines(keepends=True)
    results.write_text("".join(["nonsense\n", *lines]))
    refuse(run_here, ("report", "RUN"), "line 1 is broken", RUN="run")
    results.write_text(lines[0])
    refuse(run_here, ("report", "RUN"), "nothing measured yet", RUN="run")


def test_plots_need_a_folder(run_here: Path) -> None:
    pytest.importorskip("matplotlib")
    command = ("report", "run", "--plots", "PLOTS")
    refuse(run_here, command, "can't be made a folder", PLOTS="model.onnx")


def test_statistics_that_do_not_fit(here: Path) -> None:
    save_mlp(here / "other.onnx", WIDTHS, seed=5)
    made = run("stats", "other.onnx", "--data", "calib.npz", "-o", "other.npz")
    assert made.code == 0
    command = ("prune", "model.onnx", "--stats", "STATS", *SOME, "-o", "o.onnx")
    for name, says in (
        ("other.npz", "belong to another model; gather them again with 'onnxtrim stats'"),
        ("calib.npz", "is not a statistics file; make one with 'onnxtrim stats'"),
        ("absent.npz", "is not a statistics file"),
    ):
        refuse(here, command, says, STATS=name)
    refuse(here, (*command[:-1], "OUTPUT", "--stats", "other.npz"), "input", OUTPUT="other.npz")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "can't be read as a grid"),
        ("", "the grid is empty"),
        ("0.1\n", "like '0.1 0.4' on each line"),
        ("0.1 x\n", "like '0.1 0.4' on each line"),
        ("[[0.1, 0.4], 3]", "like '0.1 0.4' on each line"),
        ("0.1 0.4\n0.1 0.4\n", "twice"),
        ("0.1 nan\n", "must be a finite number"),
        ("0.1 0\n", "must be above 0"),
    ],
)
def test_grids(here: Path, content: str | None, says: str) -> None:
    if content is not None:
        (here / "grid.txt").write_text(content)
    command = ("sweep", "model.onnx", "--data", "calib.npz", "--grid", "grid.txt", "-o", "run")
    refuse(here, command, says)


MODEL = ("model.onnx",)
DATA = ("--data", "calib.npz")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("inspect",), "Missing argument 'MODEL'"),
        (("inspect", *MODEL, "--nonsense"), "--nonsense"),
        (("inspect", *MODEL, "--shape", "x=6"), "x"),
        (("inspect", *MODEL, "--shape", "1x6"), "must look like NAME=1x3x224x224"),
        (("stats", *MODEL, "-o", "s.npz"), "Missing option '--data'"),
        (("stats", *MODEL, *DATA), "Missing option '-o'"),
        (("stats", *MODEL, *DATA, "-o", "s.npz", "--batch", "0"), "--batch"),
        (("prune", *MODEL, *SOME, "-o", "o.onnx"), "give either --data or --stats"),
        (("prune", *MODEL, *DATA, "--stats", "s", *SOME, "-o", "o"), "either --data or --stats"),
        (("prune", *MODEL, *DATA, "--mean-below", "1", "-o", "o"), "--std-below"),
        (
            ("prune", *MODEL, *DATA, "--mean-below", "nan", "--std-below", "1", "-o", "o"),
            "--mean-below nan: must be a finite number",
        ),
        (
            ("prune", *MODEL, *DATA, "--mean-below", "1", "--std-below", "0", "-o", "o"),
            "--std-below 0.0: must be above 0",
        ),
        (("sweep", *MODEL, *DATA, *PAIR, "--grid", "g", "-o", "r"), "either --grid or --pair"),
        (("sweep", *MODEL, *DATA, "--max-drop", "-1", "-o", "r"), "--max-drop"),
        (("sweep", *MODEL, *DATA, "--max-drop", "1%", "-o", "r"), "such as 0.5 or 0.5pp"),
        (("bench", *MODEL, "--launches", "1"), "--launches"),
        (("bench", *MODEL, "--rounds", "3"), "rounds is 3; give an even number"),
        (("bench", *MODEL, "--threads", "0"), "--threads"),
        (("bench", *MODEL, "--shape", "x=1x7"), "shape 1x7 does not fit batchx6"),
        (("compare", *MODEL), "give ORIGINAL and CANDIDATE"),
        (("export", "a:b", "-o", "o.onnx"), "Missing option '--input'"),
        (("report",), "Missing argument 'RUN|RESULT'"),
        (("report", "run", "--target", "phone"), "--target needs --policy"),
    ],
)
def test_usage(here: Path, command: tuple[str, ...], says: str) -> None:
    refuse(here, command, says)


def test_a_free_dimension_without_a_size(here: Path) -> None:
    from tests.bench_models import save_graph

    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    shape = ("batch", "length")
    save_graph(here / "free.onnx", [node], [("x", shape)], [("y", shape)])
    for command in (("inspect", "free.onnx"), ("bench", "free.onnx", *QUICK)):
        refuse(here, command, "give it with --shape x=NxN, or real samples with --data")


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_without_torch(here: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    says = "pip install 'onnxtrim[torch]'"
    refuse(here, WRITE["export"], says)
    refuse(here, WRITE["finetune"], says)
    refuse(here, ("demo", "-o", "demo"), says)


def test_without_matplotlib(run_here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    command = ("report", "run", "--plots", "plots")
    refuse(run_here, command, "pip install 'onnxtrim[plots]'")


def test_the_demo_without_its_images(here: Path) -> None:
    refuse(here, ("demo", "-o", "demo", "--data", "DATA"), "no such file", DATA="absent.npz")
    refuse(here, ("demo", "-o", "demo", "--data", "DATA"), "data file", DATA="model.onnx")
