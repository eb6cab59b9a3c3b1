"""Result files: read back without measuring, bound to what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import pytest

from onnxtrim import bench
from onnxtrim.bench import looks
from onnxtrim.bench.arms import Arm
from onnxtrim.bench.compare import bench_model, compare
from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.latency import Protocol, measure_latency
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.result_file import digest, load_result, raw_path, save_result
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings
from tests.bench_models import save_mlp
from tests.cli import run

QUICK = Protocol(launches=2, rounds=2, round_ms=2.0, copy=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    large = save_mlp(folder / "large.onnx", [8, 512, 512, 4])
    return large, save_mlp(folder / "small.onnx", [8, 16, 4])


@pytest.fixture(scope="module")
def result(pair: tuple[Path, Path]) -> Measurement:
    settings = Settings(RunOptions(1), QUICK, both_arenas=True, budget_ms=0.001)
    return compare(*pair, settings=settings)


def _signed(text: str) -> str:
    """The text with the digest that belongs to it, if it is JSON at all."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return json.dumps({**value, "digest": digest(value)} if isinstance(value, dict) else value)


def test_a_file_that_was_edited(result: Measurement, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_result(result, path)
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text)))  # written in another way, and the same
    load_result(path)
    value = json.loads(text)
    value["metrics"]["model.file_bytes"]["value"] -= 1
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="was changed after it was measured"):
        load_result(path)


def test_read_back_is_the_same(result: Measurement, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_result(result, path)
    again = load_result(path)
    assert again.to_json() == result.to_json()
    assert again.latency == result.latency
    assert again.metrics["latency.over_budget_rate.original"].value > 0
    assert "memory.run_peak.arena_off.ratio" in again.metrics


@pytest.mark.parametrize("damage", [None, "schema", "metrics", "model"])
def test_follows_the_schema(result: Measurement, tmp_path: Path, damage: str | None) -> None:
    schemas = Path(bench.__file__).parent / "schemas"
    check = fastjsonschema.compile(json.loads((schemas / "result.json").read_text()))
    path = tmp_path / "result.json"
    save_result(result, path)
    value = json.loads(path.read_text())
    if damage == "model":
        value["model"] = value["candidate"]
    elif damage is not None:
        value[damage] = "something else"
    if damage is None:
        check(value)
        return
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check(value)


def test_no_claim_without_evidence(result: Measurement, tmp_path: Path) -> None:
    """A limit or a drop that a file says was judged can't pass without what it is judged by."""
    path = tmp_path / "result.json"
    save_result(result, path)
    text = path.read_text()
    path.write_text(_signed(text.replace('"max_drop": null', '"max_drop": 0.5')))
    with pytest.raises(InputError, match="no accuracy"):
        load_result(path)
    value = json.loads(text)
    value["options"]["limit"], value["details"]["latency"] = 5.0, {"verdict": "pass"}
    path.write_text(_signed(json.dumps(value)))
    with pytest.raises(InputError, match="damaged"):
        load_result(path)


def test_the_data_is_not_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """The raw rounds of result.json would be result.npz."""
    data = tmp_path / "result.npz"
    np.savez(data, x=np.zeros((4, 8), np.float32))
    before = data.read_bytes()
    found = run("bench", pair[1], "--data", data, "-o", tmp_path / "result.json")
    assert found.code == 2
    assert "would replace" in found.err
    assert data.read_bytes() == before


def test_a_model_that_changes_meanwhile(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(pair[1].read_bytes())

    def meanwhile(*arguments: Any) -> Any:
        model.write_bytes(pair[0].read_bytes())
        return measure_latency(*arguments)

    monkeypatch.setattr("onnxtrim.bench.compare.measure_latency", meanwhile)
    quick = Settings(RunOptions(1), Protocol(launches=2, rounds=2), memory=False)
    with pytest.raises(InputError, match="was changed while"):
        bench_model(model, settings=quick)


def test_figures_are_computed_anew(result: Measurement, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_result(result, path)
    value = json.loads(path.read_text())
    value["metrics"]["latency.p50.ratio"]["value"] = 0.001
    value["metrics"]["memory.run_peak"]["value"] = 1.0
    path.write_text(_signed(json.dumps(value)))
    assert load_result(path).metrics == result.metrics


def test_other_rounds_are_refused(result: Measurement, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_result(result, path)
    with np.load(raw_path(path)) as archive:
        arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    arrays["calls_ns"] //= 2
    np.savez(raw_path(path), **arrays)
    with pytest.raises(InputError, match="hash differs"):
        load_result(path)
    raw_path(path).unlink()
    with pytest.raises(InputError, match="can't be read"):
        load_result(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: "", "not JSON"),
        (lambda text: "[]", "not a JSON object"),
        (lambda text: text.replace("onnxtrim.compare/1", "onnxtrim.compare/9"), "schema"),
        (lambda text: text.replace('"start_order"', '"other"'), "damaged"),
        (lambda text: text.replace('"details"', '"detail"'), "'details'"),
        (lambda text: text.replace('"value"', '"worth"'), "damaged"),
        (lambda text: text.replace('"seed"', '"seeds"'), "damaged"),
        (lambda text: text.replace('"raw"', '"rough"'), "'raw'"),
        (lambda text: text.replace('"latency": {', '"late": {'), "damaged|no latency"),
        (lambda text: text.replace('"conditions": {', '"conditions": 3, "other": {'), "damaged"),
        (lambda text: text.replace('"calls_per_round": [', '"calls_per_round": [1,'), "damaged"),
    ],
)
def test_damaged_files(result: Measurement, tmp_path: Path, damage: Any, words: str) -> None:
    path = tmp_path / "result.json"
    save_result(result, path)
    path.write_text(_signed(damage(path.read_text())))
    with pytest.raises(InputError, match=words) as error:
        load_result(path)
    assert "\n" not in str(error.value)


def test_what_was_finished_is_written(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process dies in the middle of the ninth launch: exit code 4, no verdict, no loss."""
    ask, asked = Arm.ask, []

    def dying(arm: Arm, do: str, **values: Any) -> dict[str, Any]:
        asked.append(do)
        if do == "round" and asked.count("round") > 3 * 2 * 2 + 2:
            raise WorkerError("killed")
        return ask(arm, do, **values)

    monkeypatch.setattr(Arm, "ask", dying)
    output = tmp_path / "result.json"
    options = ["--no-memory", "--launches", "4", "--rounds", "2", "-x", "1", "--limit", "5"]
    found = run("compare", *map(str, pair), *options, "-o", str(output))
    assert found.code == 4
    monkeypatch.undo()
    kept = load_result(output)
    assert kept.latency is not None
    assert len(kept.latency.launches) == 2
    assert kept.latency_verdict is not None
    assert kept.latency_verdict.verdict == "inconclusive"
    assert any("not finished" in text for text in kept.warnings)


def test_commands(pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "LOOKS", (4, 5, 6, 7))  # sooner
    output = tmp_path / "result.json"
    options = ["--no-memory", "--rounds", "2", "-x", "1", "-e", "CPU"]
    done = run("compare", *map(str, pair), *options, "--limit", "0.9", "-o", str(output))
    assert done.code == 0, done.err
    assert "pass: latency ratio" in done.out
    again = run("compare", "--from", str(output))
    assert again.code == 0
    assert set(again.out.splitlines()[1:]) == set(done.out.splitlines()[1:])
    failed = run("bench", str(pair[0]), "--against", str(pair[1]), *options, "--limit", "0.9")
    assert failed.code == 1
    assert "fail: latency ratio" in failed.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench"], "give the MODEL"),
        (["compare"], "give ORIGINAL"),
        (["bench", "m.onnx", "--limit", "0.9"], "--against"),
        (["bench", "m.onnx", "--from", "r.json"], "--from does not look at MODEL"),
        (["compare", "--from", "r.json", "--limit", "0.1"], "--from does not look at --limit"),
        (["bench", "selfcheck", "-o", "r.json"], "selfcheck does not look at --output"),
        (["bench", "--runner", "-o", "r.pyz", "m.onnx"], "--runner does not look at MODEL"),
        (["compare", "{model}", "{model}", "--limit", "1", "--no-latency"], "limit judges latency"),
        (["bench", "{model}", "-o", "{model}"], "the output is the input"),
        (["bench", "{model}", "-o", "r.npz"], "call it .json"),
        (["bench", "--from", "absent.json"], "can't be read"),
        (["bench", "{model}", "-C", "nonsense"], "KEY=VALUE"),
        (["bench", "{model}", "-e", "tpu"], "provider 'tpu'"),
    ],
)
def test_bad_options(pair: tuple[Path, Path], arguments: list[str], words: str) -> None:
    found = run(*(text.format(model=pair[1]) for text in arguments))
    assert found.code == 2
    assert words in found.err
