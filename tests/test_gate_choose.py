"""Choosing from a sweep by a policy, and confirming it once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxtrim.bench.data import InputSpec, open_data
from onnxtrim.bench.errors import InputError, NothingToRemoveError
from onnxtrim.bench.files import sha256_file
from onnxtrim.bench.gate import parse_policy
from onnxtrim.bench.gate.choice import Choice, choose_by
from onnxtrim.bench.model_file import model_sha256
from onnxtrim.bench.run_folder import load_run
from tests import cli, fake_run
from tests.bench_models import save_mlp
from tests.gate_cases import measurement, policy


def choose(folder: Path, *rules: str) -> Choice:
    return choose_by(load_run(folder), parse_policy(policy(*rules)).target())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fake_run.write_run(tmp_path / "run", [fake_run.candidate(i) for i in range(6)])


def test_the_fastest_that_fits(folder: Path) -> None:
    found = choose(folder, "accuracy.top1.delta min = '-0.5 pp'", "latency.p50.ratio max = 0.9")
    assert found.candidate.id == "m0.3-s0.8", "the fastest of those within"
    assert (found.tried, found.fitting, found.unknown) == (6, 3, ())
    assert choose(folder, "latency.p50.ratio max = 0.9").candidate.id == "m0.5-s1.0"
    small = choose(folder, "model.file_bytes.ratio max = 0.1", "latency.p99.ratio max = 1")
    assert small.candidate.id == "m0.7-s1.2"
    assert small.unknown == ("latency.p99.ratio",), "left to the gate"
    memory = choose(folder, "memory.run_peak max = '9 MB'", "accuracy.top1 min = '86 %'")
    assert (memory.candidate.id, memory.fitting) == ("m0.5-s1.0", 4)


def test_none_fits(folder: Path) -> None:
    with pytest.raises(NothingToRemoveError, match=r"latency\.p50\.ratio must be ≤ 0\.1"):
        choose(folder, "latency.p50.ratio max = 0.1", "accuracy.top1.delta min = '-9 pp'")
    with pytest.raises(NothingToRemoveError, match="none fits all"):
        choose(folder, "latency.p50.ratio max = 0.4", "accuracy.top1.delta min = '-0.5 pp'")
    with pytest.raises(InputError, match="measured nothing"):
        choose(folder, "latency.p99.ratio max = 1")


@pytest.fixture
def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Any]]:
    """The run in a folder where its original lies, measuring replaced."""
    calls: list[Any] = []

    def measured(policy: Any, original: Any, candidate: Any, **rest: Any) -> Any:
        calls.append((Path(original).name, Path(candidate).name, rest["data"]))
        return measurement(0.5)

    monkeypatch.setattr("onnxtrim.toolkit.cli.choose_command.measure_for", measured)
    monkeypatch.chdir(folder.parent)
    original = Path(fake_run.spec()["model"]["path"])
    original.parent.mkdir(parents=True)
    save_mlp(original, [4, 4, 2])
    for value, name in enumerate(("test", "val")):
        x = np.full((3, 4), value, np.float32)
        np.savez(f"{name}.npz", x=x, labels=np.zeros(3, np.int64))
    about = json.loads((folder / "sweep.json").read_text())
    about["model"]["sha256"] = model_sha256(original)
    about["eval"]["sha256"] = sha256_file("val.npz")
    (folder / "sweep.json").write_text(json.dumps(about))
    return folder, calls


def test_it_is_confirmed_once(prepared: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, calls = prepared
    path = tmp_path / "gate.toml"
    path.write_text(policy("accuracy.top1.delta min = '-0.5 pp'", "latency.p50.ratio max = 0.9"))
    data = "test.npz"
    found = cli.run("choose", folder, "--policy", path, "--data", data)
    assert found.code == 0, found.err
    assert calls == [("mlp.onnx", "m0.3-s0.8.onnx", data)]
    assert found.out.startswith("m0.3-s0.8 (")
    assert "the best of 3 that fit, of 6 candidates" in found.out
    assert found.out.splitlines()[-1].startswith("PASS")
    value = cli.run("choose", folder, "--policy", path, "--data", data, "--json").json()
    assert value["candidates_tried"] == 6
    named = cli.run("choose", folder, "--policy", path, "--no-confirm", "--json").json()
    assert named["candidate"] == "m0.3-s0.8"
    path.write_text(policy("latency.p50.ratio max = 0.45"))
    failed = cli.run("choose", folder, "--policy", path, "--data", data)
    assert failed.code == 1, "what the sweep said of it did not hold, and no other is tried"
    assert len(calls) == 3


def test_the_data_of_the_sweep_is_refused(prepared: tuple[Path, list[Any]]) -> None:
    folder, calls = prepared
    rest = ("--policy", "onnxtrim:accuracy-only", "--data")
    cli.refused("choose", folder, *rest, "val.npz", says="the sweep used these samples")
    Path("shards").mkdir()
    shutil.copy("val.npz", "shards/1.npz")
    about = json.loads((folder / "sweep.json").read_text())
    about["eval"]["sha256"] = open_data(
        "shards", [InputSpec("x", np.dtype(np.float32), ("n", 4))]
    ).sha256
    (folder / "sweep.json").write_text(json.dumps(about))
    cli.refused("choose", folder, *rest, "shards", says="the sweep used these samples")
    cli.refused("choose", folder, *rest, "none.npz", says="no such")
    original = Path(about["model"]["path"])
    save_mlp(original, [4, 5, 2])
    cli.refused("choose", folder, *rest, "test.npz", says="is not the sweep's original")
    original.unlink()
    cli.refused("choose", folder, *rest, "test.npz", says="give it with --original")
    assert not calls
