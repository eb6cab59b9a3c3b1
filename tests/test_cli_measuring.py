"""Commands that measure, sweep and report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxtrim.bench.session import RunOptions, open_session
from onnxtrim.bench.size import model_size
from tests import cli
from tests.bench_models import save_mlp
from tests.cli import QUICK, UNMEASURED, WIDTHS, refused, run, samples

METRIC = {"value", "low", "high", "unit"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a measured sweep has run; it is not to be changed."""
    folder = tmp_path_factory.mktemp("swept")
    cli.write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "grid.txt").write_text("0.3 0.5\n0.4 0.6  # the second\n0.400001, 0.600001\n")
        result = run(
            *("sweep", "model.onnx", "--data", "calib.npz", "--eval", "test.npz"),
            *(
                "--grid",
                "grid.txt",
                "-o",
                "runs/first",
                "--max-drop",
                "100",
                *QUICK,
                "--no-memory",
                "--json",
            ),
        )
        assert result.code == 0, result.err
        (folder / "sweep.out").write_text(result.out)
    yield folder


def metric_values(value: dict[str, Any]) -> dict[str, float]:
    """The values of ``metrics``, each of which must be whole."""
    for name, metric in value["metrics"].items():
        assert set(metric) == METRIC, name
        assert metric["low"] <= metric["value"] <= metric["high"], name
    return {name: metric["value"] for name, metric in value["metrics"].items()}


# --- bench, compare -----------------------------------------------------------------------------


def test_bench(here: Path) -> None:
    value = run("bench", "model.onnx", "--json", *QUICK).json()
    assert value["schema"] == "onnxtrim.bench/1"
    values = metric_values(value)
    for name in ("latency.p50", "load.to_first_run", "memory.run_peak", "memory.load_peak"):
        assert values[name] > 0, name
    assert values["model.file_bytes"] == (here / "model.onnx").stat().st_size
    assert not any(name.endswith((".ratio", ".original")) for name in values)
    assert value["options"]["threads"] == 1
    assert value["options"]["launches"] == 2
    assert value["machine"]["onnxruntime"]


def test_bench_against_another_model(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept)
    small = "runs/first/models/m0.4-s0.6.onnx"
    command = ("bench", small, "--against", "model.onnx", "--no-latency", "--threads", "1")
    value = run(*command, "--json").json()
    assert value["schema"] == "onnxtrim.bench/1"
    values = metric_values(value)
    assert 0 < values["model.initializer_bytes.ratio"] < 1
    assert values["memory.run_peak.original"] > 0
    shown = run(*command)
    assert shown.code == 0
    assert "ratio or difference" in shown.out


def test_compare(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept)
    small = "runs/first/models/m0.4-s0.6.onnx"
    command = ("compare", "model.onnx", small, "--eval", "test.npz", *QUICK)
    value = run(*command, "--json").json()
    assert value["schema"] == "onnxtrim.compare/1"
    assert value["original"]["path"] == "model.onnx"
    assert value["candidate"]["path"] == small
    values = metric_values(value)
    one, two = model_size("model.onnx"), model_size(small)
    assert values["model.file_bytes.ratio"] == two.file_bytes / one.file_bytes
    for name in ("latency.p50", "memory.run_peak", "load.to_first_run"):
        assert values[name] > 0
        assert values[f"{name}.original"] > 0
    ratio = value["metrics"]["latency.p50.ratio"]
    assert 0 < ratio["low"] < ratio["high"]
    delta = value["metrics"]["accuracy.top1.delta"]
    assert delta["low"] < delta["value"] < delta["high"]
    change = 100 * (values["accuracy.top1"] - values["accuracy.top1.original"])
    assert delta["value"] == pytest.approx(change)
    assert 0 <= values["accuracy.negative_flip_rate"] <= 1


def test_compare_prints_what_it_measured(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept)
    small = "runs/first/models/m0.4-s0.6.onnx"
    result = run("compare", "model.onnx", small, "--eval", "test.npz", *QUICK, "--no-memory")
    assert result.code == 0
    rows = {line.split()[0]: line for line in result.out.splitlines() if line.strip()}
    number = r"\d+\.\d+"  # two launches may differ by any factor
    assert re.search(rf" {number} \[{number}, {number}\]", rows["latency.p50"])
    assert re.search(r" [-+]\d+\.\d\d pp \[[-+]\d", rows["accuracy.top1"])
    assert re.search(r" B .* KiB|KiB .* KiB|B .* B ", rows["model.file_bytes"])
    other = run("compare", "model.onnx", small, *UNMEASURED)
    assert other.code == 0
    assert "no accuracy: give samples with labels by --eval" in other.err


def test_a_model_beside_itself_is_equal(here: Path) -> None:
    command = ("compare", "model.onnx", "model.onnx", "--eval", "test.npz", *UNMEASURED)
    values = metric_values(run(*command, "--json").json())
    assert values["model.file_bytes.ratio"] == 1
    assert values["accuracy.agreement"] == 1
    assert values["accuracy.top1.delta"] == 0


def test_verdict_is_told_and_decides_the_exit_code(here: Path) -> None:
    """0 for pass, 1 for fail, 3 for too few samples; the table comes in any case."""
    save_mlp(here / "other.onnx", WIDTHS, seed=5)
    x = samples(4000, seed=3)
    session = open_session("model.onnx", RunOptions(1))
    labels = session.run(None, {"x": x})[0].argmax(1)
    np.savez("many.npz", x=x, labels=labels)
    np.savez("few.npz", x=x[:60], labels=labels[:60])
    command = ("compare", "model.onnx", "model.onnx", "--max-drop", "0.5pp", *UNMEASURED)
    passed = run(*command, "--eval", "many.npz")
    assert (passed.code, passed.err) == (0, "")
    assert passed.out.splitlines()[-1].startswith("pass: the difference in accuracy is above -0.5")
    unknown = run(*command, "--eval", "few.npz")
    assert unknown.code == 3
    assert "needs about 539 samples, has 60" in unknown.out.splitlines()[-1]
    assert "accuracy.top1" in unknown.out
    other = ("compare", "model.onnx", "other.onnx", "--max-drop", "0.5", *UNMEASURED)
    failed = run(*other, "--eval", "many.npz", "--json")
    assert failed.code == 1
    verdict = json.loads(failed.out)["details"]["accuracy"]["verdict"]
    assert verdict["answer"] == "fail"
    assert verdict["high"] < -0.5


def test_metrics_by_name(here: Path) -> None:
    options = ("--eval", "test.npz", "--metric", "f1", "--metric", "kl", *UNMEASURED)
    shown = run("compare", "model.onnx", "model.onnx", *options)
    assert (shown.code, shown.err) == (0, "")
    rows = {line.split()[0]: line for line in shown.out.splitlines() if line.strip()}
    assert re.search(r"\d\d\.\d\d% \[.*\+0\.00 pp", rows["accuracy.f1"])
    assert "accuracy.kl" in rows
    assert "accuracy.top1" not in rows
    values = metric_values(run("compare", "model.onnx", "model.onnx", *options, "--json").json())
    assert values["accuracy.f1.delta"] == values["accuracy.kl"] == 0


def test_metrics_and_verdict_need_samples(here: Path) -> None:
    command = ("compare", "model.onnx", "model.onnx", *UNMEASURED)
    refused(*command, "--max-drop", "0.5", says="--max-drop needs --eval")
    refused(*command, "--metric", "f1", says="--metric needs --eval")
    refused(*command, "--eval", "test.npz", "--max-drop", "1%", says="0.5 or 0.5pp")
    refused(*command, "--eval", "test.npz", "--metric", "f2", says="metric 'f2': must be one of")


# --- sweep, report ------------------------------------------------------------------------------


def test_sweep(swept: Path) -> None:
    value = json.loads((swept / "sweep.out").read_text())
    assert value["schema"] == "onnxtrim.sweep/1"
    assert value["finished"] is True
    ids = [item["id"] for item in value["candidates"]]
    assert ids == ["m0.3-s0.5", "m0.4-s0.6", "m0.400001-s0.600001"]
    for item in [value["original"], *value["candidates"]]:
        values = metric_values(item)
        assert values["latency.p50"] > 0
        assert 0 <= values["accuracy.top1"] <= 1
    sizes = [item["parameters"]["after"] for item in value["candidates"]]
    assert value["original"]["parameters"] > sizes[0] > sizes[1] == sizes[2]
    assert value["candidates"][2]["same_as"] == "m0.4-s0.6"
    assert value["chosen"] == "m0.4-s0.6"  # any loss was allowed
    assert "m0.4-s0.6" in value["frontier"]
    assert set(value["frontier"]) <= set(ids)


def test_a_finished_sweep_is_told_again_without_work(
    swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(swept)
    before = (swept / "runs" / "first" / "results.jsonl").read_bytes()
    result = run(
        *("sweep", "model.onnx", "--data", "calib.npz", "--eval", "test.npz"),
        *("--grid", "grid.txt", "-o", "runs/first", "--max-drop", "100", *QUICK, "--no-memory"),
    )
    assert result.code == 0
    assert (swept / "runs" / "first" / "results.jsonl").read_bytes() == before
    assert "Smallest within 100 points: runs/first/models/m0.4-s0.6.onnx" in result.out
    assert "= 0.4, 0.6" in result.out
    assert "next: onnxtrim report runs/first" in result.err


def test_sweep_without_labels_says_so(here: Path) -> None:
    command = ("sweep", "model.onnx", "--data", "calib.npz", "--pair", "0.4", "0.6")
    result = run(*command, "-o", "run", *UNMEASURED)
    assert result.code == 0
    assert "No accuracy was measured" in result.out


def test_report(swept: Path, tmp_path: Path) -> None:
    page, plots = tmp_path / "page.html", tmp_path / "plots"
    command = ("report", swept / "runs" / "first", "-o", page, "--plots", plots)
    value = run(*command, "--json").json()
    assert value["schema"] == "onnxtrim.report/1"
    assert value["output"] == str(page)
    text = page.read_text(encoding="utf-8")
    assert "m0.4-s0.6" in text
    assert sorted(value["plots"]) == sorted(str(path) for path in plots.iterdir())
    assert len(value["plots"]) == 4  # memory was not measured
    for path in plots.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_report_lies_in_the_folder_by_default(here: Path) -> None:
    command = ("sweep", "model.onnx", "--data", "calib.npz", "--pair", "0.4", "0.6")
    assert run(*command, "-o", "run", *UNMEASURED).code == 0
    for _ in range(2):  # it may be written again
        assert run("report", "run").code == 0
    assert (here / "run" / "report.html").stat().st_size > 10_000
