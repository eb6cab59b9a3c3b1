"""Sweeps in this process: the grid, duplicates, resuming, the lock, what lies in the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxtrim.bench.errors import InputError, NothingToRemoveError
from onnxtrim.bench.latency import Protocol
from onnxtrim.bench.run_folder import load_run
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings
from onnxtrim.bench.size import model_size
from onnxtrim.toolkit import sweep as module
from onnxtrim.toolkit.apply import apply_plan
from onnxtrim.toolkit.grid import Point
from onnxtrim.toolkit.plan import Plan
from onnxtrim.toolkit.sweep import SweepOptions, sweep
from tests.bench_models import save_mlp
from tests.cli import WIDTHS, samples, snapshot

GRID = ((0.3, 0.5), (0.4, 0.6), (0.400001, 0.600001), (0.5, 0.8))
IDS = [Point(pair).id for pair in GRID]
SETTINGS = Settings(options=RunOptions(threads=1), latency=False, memory=False)


def options(**changes: Any) -> SweepOptions:
    return SweepOptions(**{"grid": GRID, "settings": SETTINGS, **changes})


def start(here: Path, output: str = "run", **changes: Any) -> Any:
    """A sweep of the model in the work folder."""
    callback = changes.pop("on_candidate", None)
    return sweep(
        here / "model.onnx",
        here / "calib.npz",
        here / output,
        evaluation=here / "test.npz",
        options=options(**changes),
        on_candidate=callback,
    )


def lines(here: Path, output: str = "run") -> list[dict[str, Any]]:
    text = (here / output / "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by the hash of the plan whenever a candidate is built."""
    seen: list[str] = []
    original = apply_plan

    def counting(prepared: Any, plan: Plan, *rest: Any) -> Any:
        seen.append(plan.kept_hash())
        return original(prepared, plan, *rest)

    monkeypatch.setattr(module, "apply_plan", counting)
    return seen


class StopError(Exception):
    """What interrupts a sweep."""


def stop_after(count: int) -> Callable[[dict[str, Any]], None]:
    seen: list[dict[str, Any]] = []

    def callback(line: dict[str, Any]) -> None:
        seen.append(line)
        if len(seen) == count:
            raise StopError

    return callback


# --- what a sweep gives -------------------------------------------------------------------------


def test_the_grid_in_its_order(here: Path) -> None:
    told: list[str] = []
    run = start(here, on_candidate=lambda line: told.append(line["id"]))
    assert run.finished
    assert [item.id for item in run.candidates] == IDS == told
    assert [item["id"] for item in lines(here)] == ["original", *IDS]
    before = model_size(here / "model.onnx")
    sizes = [before.parameters, *(item.parameters.after for item in run.candidates)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[1] > sizes[2] == sizes[3] > sizes[4]
    for item in run.candidates:
        size = model_size(run.model_path(item))
        assert item.parameters.after == size.parameters
        assert item.bytes is not None
        assert item.bytes.after == size.initializer_bytes
        assert item.parameters.before == run.original.parameters == before.parameters
        onnx.checker.check_model(run.model_path(item), full_check=True)
    assert run.original.metrics["accuracy.top1"].unit == "share"


def test_the_folder(here: Path) -> None:
    start(here)
    names = {path.relative_to(here / "run").as_posix() for path in (here / "run").rglob("*")}
    unique = [name for name in IDS if name != IDS[2]]
    models = {f"models/{name}{end}" for name in unique for end in (".onnx", ".plan.json")}
    files = {"sweep.json", "statistics.npz", "distributions.json", "graph.json"}
    files |= {"results.jsonl", ".lock"}
    assert names == files | models | {"models"}
    spec = json.loads((here / "run" / "sweep.json").read_text())
    assert spec["grid"] == [list(pair) for pair in GRID]
    assert spec["data"]["samples"] == 120
    assert spec["eval"]["samples"] == 90
    assert spec["machine"]["onnxruntime"]
    layers = json.loads((here / "run" / "distributions.json").read_text())["layers"]
    assert [len(layer["mean"]) for layer in layers] == list(WIDTHS[1:3])


def test_candidates_with_the_same_kept_units_are_built_once(here: Path, built: list[str]) -> None:
    run = start(here)
    assert len(built) == len(set(built)) == len(GRID) - 1
    twin, first = run.candidates[2], run.candidates[1]
    assert twin.same_as == first.id
    assert twin.plan == first.plan
    assert twin.model == first.model
    assert twin.metrics == first.metrics
    assert lines(here)[3]["metrics"] == {}  # measured once
    assert twin.settings == {"mean_below": GRID[2][0], "std_below": GRID[2][1]}


def test_a_twin_of_a_twin_names_the_first(here: Path, built: list[str]) -> None:
    pairs = ((0.4, 0.6), (0.400001, 0.600001), (0.400002, 0.600002))
    run = start(here, grid=pairs)
    assert len(built) == 1
    assert [item.same_as for item in run.candidates] == [None, "m0.4-s0.6", "m0.4-s0.6"]


def test_repair_is_a_part_of_the_sweep(here: Path) -> None:
    repaired, plain = start(here), start(here, "plain", repair="none")
    assert [item.plan for item in plain.candidates] == [item.plan for item in repaired.candidates]
    divergences = [
        [line["divergence"] for line in lines(here, folder)[1:]] for folder in ("run", "plain")
    ]
    assert all(a < b for a, b in zip(*divergences, strict=True))


# --- going on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_an_interrupted_sweep_goes_on_where_it_was(
    here: Path, built: list[str], count: int
) -> None:
    start(here, "whole")
    built.clear()
    with pytest.raises(StopError):
        start(here, on_candidate=stop_after(count))
    results = here / "run" / "results.jsonl"
    kept = results.read_bytes()
    assert [line["id"] for line in lines(here)] == ["original", *IDS[:count]]
    assert not load_run(here / "run").finished or count == len(GRID)
    run = start(here)
    assert run.finished
    assert results.read_bytes().startswith(kept)
    assert len(built) == len(set(built)) == len(GRID) - 1, "nothing was built twice"
    assert lines(here) == lines(here, "whole")
    assert snapshot(here / "run" / "models") == snapshot(here / "whole" / "models")


def test_a_finished_sweep_does_nothing(
    here: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(here)
    built.clear()
    before = snapshot(here)

    def unexpected(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    for name in ("gather", "compare", "bench_model"):
        monkeypatch.setattr(module, name, unexpected)
    assert start(here).finished
    assert not built
    assert snapshot(here) == before


def test_what_a_kill_left_half_written_goes_away(here: Path) -> None:
    start(here, "whole")
    with pytest.raises(StopError):
        start(here, on_candidate=stop_after(2))
    with (here / "run" / "results.jsonl").open("ab") as file:
        file.write(b'{"schema": "onnxtrim.result/1", "kind": "cand')
    for name in (".results.jsonl.x1", ".statistics.npz.x2", "models/.m0.5-s0.8.onnx.x3"):
        (here / "run" / name).write_bytes(b"half")
    assert load_run(here / "run").candidates[-1].id == IDS[1]  # readable meanwhile
    start(here)
    assert lines(here) == lines(here, "whole")
    assert snapshot(here / "run").keys() == snapshot(here / "whole").keys()


def test_the_files_may_have_moved(here: Path) -> None:
    with pytest.raises(StopError):
        start(here, on_candidate=stop_after(1))
    for name in ("model.onnx", "calib.npz", "test.npz"):
        (here / name).rename(here / f"moved-{name}")
    (here / "run").rename(here / "elsewhere")
    run = sweep(
        here / "moved-model.onnx",
        here / "moved-calib.npz",
        here / "elsewhere",
        evaluation=here / "moved-test.npz",
        options=options(),
    )
    assert run.finished


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"grid": GRID[:2]}, "another grid"),
        ({"repair": "none"}, "another repair"),
        ({"absolute": True}, "another criterion"),
        (
            {"settings": replace(SETTINGS, protocol=Protocol(seed=1))},
            "another bench",
        ),
    ],
)
def test_another_sweep_is_refused(here: Path, changes: dict[str, Any], says: str) -> None:
    start(here)
    before = snapshot(here)
    with pytest.raises(InputError, match=f"{says}; choose another folder with -o"):
        start(here, **changes)
    assert snapshot(here) == before


def test_another_model_or_other_data_are_refused(here: Path) -> None:
    start(here)
    before = snapshot(here / "run")
    np.savez(here / "calib.npz", x=samples(seed=7))
    save_mlp(here / "model.onnx", WIDTHS, seed=7)
    with pytest.raises(InputError, match="another model, data; choose another folder"):
        start(here)
    assert snapshot(here / "run") == before


def test_only_the_choice_depends_on_the_budget(here: Path, built: list[str]) -> None:
    start(here, max_drop=0.5)
    results = (here / "run" / "results.jsonl").read_bytes()
    built.clear()
    run = start(here, max_drop=100)
    assert run.spec.max_drop == 100
    assert not built
    assert (here / "run" / "results.jsonl").read_bytes() == results


# --- folders ------------------------------------------------------------------------------------


def test_one_sweep_at_a_time(here: Path) -> None:
    def second(_: dict[str, Any]) -> None:
        with pytest.raises(InputError, match="another sweep is running there"):
            start(here)
        raise StopError

    with pytest.raises(StopError):
        start(here, on_candidate=second)
    assert start(here).finished, "the lock went with the sweep that held it"


def test_a_folder_with_other_files_is_left_alone(here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "results.jsonl").write_text("mine\n")
    before = snapshot(here)
    with pytest.raises(InputError, match="is not empty and holds no sweep"):
        start(here)
    assert snapshot(here) == before


def test_nothing_is_left_of_a_sweep_that_could_not_begin(here: Path) -> None:
    before = snapshot(here)
    with pytest.raises(NothingToRemoveError, match="smallest mean"):
        start(here, "deep/er/run", grid=((-9.0, 0.1),))
    assert snapshot(here) == before


def test_one_hopeless_pair_is_no_reason_to_stop(here: Path) -> None:
    run = start(here, grid=((-9.0, 0.1), (0.4, 0.6)))
    assert [item.removed > 0 for item in run.candidates] == [False, True]
