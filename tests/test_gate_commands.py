"""The gate as a user runs it: on a real pair, on results, in a shell script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxtrim.bench import looks
from onnxtrim.bench.arms import Arm
from onnxtrim.bench.errors import WorkerError
from onnxtrim.bench.gate import load_policy
from onnxtrim.bench.result_file import save_result
from onnxtrim.bench.session import RunOptions, open_session
from tests import cli
from tests.bench_models import save_mlp
from tests.gate_cases import measurement, policy

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Looks after fewer launches; how they spend the error is tested elsewhere."""
    monkeypatch.setattr(looks, "LOOKS", (4, 5, 6, 7))
    yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large and a small model, and samples whose labels are what the large one says."""
    where = tmp_path_factory.mktemp("gate")
    large = save_mlp(where / "large.onnx", [16, 700, 700, 4])
    save_mlp(where / "small.onnx", [16, 8, 4])
    x = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    (scores,) = open_session(large, RunOptions(1)).run(None, {"x": x})
    np.savez(where / "test.npz", x=x, labels=scores.argmax(axis=1))
    return where


def gate(folder: Path, text: str, *more: object, swap: bool = False) -> cli.Result:
    path = folder / "gate.toml"
    path.write_text(text)
    models = [folder / "large.onnx", folder / "small.onnx"]
    original, candidate = models[::-1] if swap else models
    return cli.run("gate", path, "--original", original, "--candidate", candidate, *more)


def test_a_faster_smaller_candidate_passes(folder: Path, tmp_path: Path) -> None:
    text = policy(
        "latency.p50.ratio max = 0.8",
        "memory.run_peak.ratio max = 1.0; slack = '256 KiB'",
        "model.file_bytes.ratio max = 0.5",
    )
    output, junit, told = (tmp_path / name for name in ("result.json", "gate.xml", "gate.md"))
    found = gate(folder, text, "-o", output, "--junit", junit, "--markdown", told)
    assert found.code == 0, found.out + found.err
    assert found.out.splitlines()[-1] == "PASS: 3 of 3 required rules are shown to hold"
    assert 'failures="0"' in junit.read_text()
    assert told.read_text().startswith("### PASS")
    again = cli.run("gate", folder / "gate.toml", "--from", output, "--json")
    value = again.json()
    assert value["verdict"] == "pass"
    assert {rule["verdict"] for rule in value["rules"]} == {"pass"}
    models = ("--original", folder / "large.onnx", "--candidate", folder / "small.onnx")
    same = cli.run("gate", folder / "gate.toml", "--from", output, "--quiet", *models)
    assert (same.code, same.err) == (0, "")
    assert same.out.count("\n") == 1
    cli.refused(
        *("gate", folder / "gate.toml", "--from", output, *models[:2], "--candidate"),
        folder / "large.onnx",
        says="another candidate",
    )
    value = json.loads(output.read_text())
    value["metrics"]["model.file_bytes.ratio"]["value"] = 0.1
    output.write_text(json.dumps(value))
    cli.refused("gate", folder / "gate.toml", "--from", output, says="was changed after")


@pytest.mark.parametrize(
    ("rule", "swap"),
    [
        ("latency.p50.ratio max = 1.0", True),  # slower
        ("memory.run_peak.ratio max = 1.0", True),  # larger
        ("accuracy.top1.delta min = '-2 pp'", False),  # wrong
    ],
)
def test_what_should_fail_fails(folder: Path, rule: str, swap: bool) -> None:
    found = gate(folder, policy(rule), "--data", folder / "test.npz", swap=swap)
    assert found.code == 1, found.out + found.err
    assert f"FAIL: {rule.split()[0]}" in found.out


def test_a_rule_on_accuracy_needs_samples(folder: Path) -> None:
    found = gate(folder, policy("accuracy.top1.delta min = '-2 pp'"))
    assert found.code == 2
    assert "accuracy.top1.delta needs samples; give them with --data" in found.err


def test_a_limit_at_the_truth_is_inconclusive(folder: Path) -> None:
    """A copy is as right as the original, and not shown to be."""
    copy = folder / "copy.onnx"
    copy.write_bytes((folder / "large.onnx").read_bytes())
    text = policy("accuracy.top1.delta min = '-0.5 pp'")
    (folder / "gate.toml").write_text(text)
    models = ("--original", folder / "large.onnx", "--candidate", copy)
    found = cli.run("gate", folder / "gate.toml", *models, "--data", folder / "test.npz")
    assert found.code == 3, found.out + found.err
    assert "INCONCLUSIVE" in found.out
    assert "needs about" in found.out


def test_retries_share_the_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alphas = []

    def counted(*arguments: Any, attempts: int, seed: int, **rest: Any) -> Any:
        alphas.append((attempts, seed))
        return measurement(0.8, launches=24, details={"attempts": attempts})

    monkeypatch.setattr("onnxtrim.toolkit.cli.gate_command.measure_for", counted)
    monkeypatch.setattr(looks, "LOOKS", (8, 12, 18, 24))
    text = policy("latency.p50.ratio max = 0.8")
    found = gate(folder, text, "--on-inconclusive", "retry:2")
    assert found.code == 3
    assert alphas == [(3, seed) for seed in range(3)]
    decided = gate(folder, policy("latency.p50.ratio max = 0.9"), "--on-inconclusive", "retry:2")
    assert decided.code == 0
    assert len(alphas) == 4


def test_a_process_that_dies(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, asked = Arm.ask, []

    def dying(arm: Arm, do: str, **values: Any) -> dict[str, Any]:
        asked.append(do)
        if asked.count("open") > 9:  # three arms and launches
            raise WorkerError("killed")
        return ask(arm, do, **values)

    monkeypatch.setattr(Arm, "ask", dying)
    output = tmp_path / "result.json"
    found = gate(folder, policy("latency.p50.ratio max = 0.9"), "-o", output)
    assert found.code == 4, found.out + found.err
    assert "ERROR: latency.p50.ratio" in found.out
    assert output.exists(), "what was finished is kept"
    monkeypatch.undo()
    again = cli.run("gate", folder / "gate.toml", "--from", output)
    assert again.code == 4


def test_a_process_that_dies_in_the_memory_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CI server learns of it, too."""

    def dying(*_: Any, **__: Any) -> Any:
        raise WorkerError("large.onnx: the measuring process died (SIGKILL)")

    monkeypatch.setattr("onnxtrim.bench.compare.measure_memory", dying)
    output, junit = tmp_path / "result.json", tmp_path / "gate.xml"
    rules = ("memory.run_peak.ratio max = 1.0", "model.file_bytes.ratio max = 0.5")
    found = gate(folder, policy(*rules), "-o", output, "--junit", junit)
    assert found.code == 4, found.out + found.err
    assert "ERROR: memory.run_peak.ratio not measured" in found.out
    assert 'errors="1"' in junit.read_text()
    monkeypatch.undo()
    assert cli.run("gate", folder / "gate.toml", "--from", output).code == 4


def test_a_time_that_is_too_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = policy("latency.p50.ratio max = 0.8", gate='max_duration = "0.001 s"')
    found = gate(folder, text, "--json")
    assert found.code == 1, "what was not measured fails"
    (rule,) = json.loads(found.out)["rules"]
    assert rule["verdict"] == "missing"
    assert "there are 2; max_duration was over" in rule["why"]


def test_no_older_report_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CI server shows the file that is there: after a bad policy it must not be a pass."""
    output, path = tmp_path / "result.json", tmp_path / "gate.toml"
    reports = ("--junit", tmp_path / "gate.xml", "--markdown", tmp_path / "gate.md")
    path.write_text(policy("latency.p50.ratio max = 0.9"))
    save_result(measurement(), output)
    assert cli.run("gate", path, "--from", output, *reports).code == 0
    assert 'errors="0"' in (tmp_path / "gate.xml").read_text()
    path.write_text(policy("latency.p50.ratio maxx = 0.9"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    found = cli.run("gate", path, "--from", output, *reports)
    assert found.code == 2
    assert "::error title=onnxtrim gate::" in found.err
    for name in ("gate.xml", "gate.md"):
        assert "unknown key" in (tmp_path / name).read_text()
    assert 'errors="1"' in (tmp_path / "gate.xml").read_text()


def test_a_limit_on_the_wrong_side_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(policy("accuracy.top1.delta max = '1 pp'"))
    found = cli.run("gate", "check", path)
    assert found.code == 0
    assert "is min meant?" in found.err


def test_nothing_is_drafted_from_what_a_gate_does_not_judge(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    found = measurement()
    save_result(replace(found, settings=found.settings | {"cold": True}), output)
    cli.refused("gate", "init", "--from", output, "-o", tmp_path / "g.toml", says="without --cold")


def test_another_policy_is_told(tmp_path: Path) -> None:
    output, path = tmp_path / "result.json", tmp_path / "gate.toml"
    path.write_text(policy("latency.p50.ratio max = 0.9"))
    save_result(measurement(details={"policy_sha256": "0" * 64}), output)
    found = cli.run("gate", path, "--from", output)
    assert found.code == 0, found.err
    assert "was measured for another policy" in found.err


def test_results_of_files(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    save_result(measurement(launches=12), output)
    drafted = tmp_path / "onnxtrim-gate.toml"
    assert cli.run("gate", "init", "--from", output, "-o", drafted).code == 0
    asked = load_policy(drafted)
    assert {rule.metric for rule in asked.target().rules} >= {
        "latency.p50.ratio",
        "memory.run_peak.ratio",
        "accuracy.top1.delta",
    }
    cli.refused("gate", "init", "--from", output, "-o", drafted, says="is there already")
    looks_of_file = cli.run("gate", drafted, "--from", output)
    assert looks_of_file.code == 0, looks_of_file.out
    assert "load.to_first_run.ratio (warn)" in looks_of_file.out
    told = cli.run("gate", "check", drafted)
    assert "memory.run_peak.ratio" in told.out
    assert cli.run("gate", "check", drafted, "--json").json()["targets"] == {"here": 7}


def test_plan(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(policy("accuracy.top1.delta min = '-0.5 pp'", "latency.p50.ratio max = 0.8"))
    rows = cli.run("gate", "plan", path, "--flips", "0.02", "--json").json()["rules"]
    assert rows[0]["samples"] == pytest.approx(4948, abs=3), "(1.645 + 0.842)² · 0.02 / 0.005²"
    assert rows[1]["launches"] == [4, 7]
    few = cli.run("gate", "plan", path, "--samples", "500")
    assert few.code == 3
    assert "a required rule can't be decided" in few.err
    assert cli.run("gate", "plan", path, "--samples", "20000").code == 0
    path.write_text(policy("latency.p50.ratio max = 0.8", gate='max_duration = "10 s"'))
    short = cli.run("gate", "plan", path)
    assert short.code == 3
    assert "max_duration ends after about 3" in " ".join(short.out.split())
    assert cli.run("gate", "plan", path, "--launch-seconds", 1).code == 0
    path.write_text(policy("accuracy.top1.delta classes = [3]; min = '-3 pp'"))
    for samples, code, possible in ((100, 3, False), (100_000, 0, None)):
        found = cli.run("gate", "plan", path, "--samples", samples, "--json")
        assert found.code == code
        assert json.loads(found.out)["rules"][0]["possible"] is possible, "of the class only"
    path.write_text(policy("accuracy.negative_flip_rate max = '1 %'"))
    (row,) = cli.run("gate", "plan", path, "--json").json()["rules"]
    assert 1000 < row["samples"] < 2000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gate", "GATE"], "give --original and --candidate"),
        (["gate", "GATE", "--original", "a.onnx"], "give --original and --candidate"),
        (["gate", "GATE", "--original", "a.onnx", "--candidate", "b.onnx"], "a.onnx: can't be"),
        (["gate", "GATE", "--on-inconclusive", "again"], "must look like retry:2"),
        (["gate", "GATE", "--from", "r.json", "-o", "x.json"], "measures nothing"),
        (["gate", "GATE", "--target", "there"], "has no target 'there'"),
        (["gate", "GATE", "--junit", "none/gate.xml"], "does not exist"),
        (["gate", "none.toml"], "can't be read"),
        (["gate", "https://example.org/p.toml"], "from the network is refused"),
        (["gate", "check", "none.toml"], "can't be read"),
        (["gate", "init", "--from", "none.json", "-o", "new.toml"], "can't be read"),
    ],
)
def test_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gate.toml").write_text(policy("accuracy.top1.delta min = '-0.5 pp'"))
    cli.refused(*("gate.toml" if word == "GATE" else word for word in arguments), says=says)


def test_the_data_of_the_calibration_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "onnxtrim.bench.compare._used_before", lambda *_: ["used before: give others"]
    )
    found = gate(folder, policy("accuracy.top1.delta min = '-2 pp'"), "--data", folder / "test.npz")
    assert found.code == 2
    assert "used before" in found.err


def test_github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, summary = tmp_path / "result.json", tmp_path / "summary.md"
    save_result(measurement(launches=12), output)
    (tmp_path / "gate.toml").write_text(policy("latency.p50.ratio max = 0.7"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    found = cli.run("gate", tmp_path / "gate.toml", "--from", output)
    assert found.code == 1
    assert found.out.startswith("::error title=onnxtrim gate::FAIL: latency.p50.ratio")
    assert summary.read_text().startswith("### FAIL")


def test_the_shell_script(folder: Path, tmp_path: Path) -> None:
    """As in a plain CI job; the command is this one."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    command = bin_folder / "onnxtrim"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m onnxtrim "$@"\n')
    command.chmod(0o755)
    rules = ("model.file_bytes.ratio max = 0.5", "accuracy.agreement min = '1 %'")
    for limit, code, says in (("0.5", 0, "release"), ("0.0001", 1, "stop")):
        text = policy(rules[0].replace("0.5", limit), rules[1])
        (tmp_path / "gate.toml").write_text(text)
        done = subprocess.run(
            ["sh", str(ROOT / "docs" / "ci" / "gate.sh"), "gate.toml"]
            + [str(folder / name) for name in ("large.onnx", "small.onnx", "test.npz")],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{bin_folder}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert done.stdout.startswith(says)
        assert json.loads((tmp_path / "gate.json").read_text())["exit_code"] == code
        assert (tmp_path / "gate.xml").exists()


def test_the_snippets_are_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    for name in ("github.yml", "gitlab.yml"):
        value = yaml.safe_load((ROOT / "docs" / "ci" / name).read_text())
        assert "onnxtrim gate onnxtrim-gate.toml" in json.dumps(value)
