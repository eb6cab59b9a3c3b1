"""The runner: one file, in an environment that holds numpy and ONNX Runtime and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from onnxtrim.bench.result_file import load_result
from tests.bench_models import save_mlp
from tests.cli import refused, run

NEEDED = ("numpy", "onnxruntime", "flatbuffers", "google", "packaging")


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with links to the few packages that are allowed."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in NEEDED:
        spec = find_spec(name)
        assert spec is not None
        for place in spec.submodule_search_locations or ():
            target = packages / name
            if not target.exists():
                target.symlink_to(place)
            libraries = Path(place).parent / f"{name}.libs"
            if libraries.exists():
                (packages / libraries.name).symlink_to(libraries)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runner") / "runner.pyz"
    done = run("bench", "--runner", "-o", path)
    assert done.code == 0
    assert "next, on the device: python runner.pyz" in done.err
    return path


def call(python: str, runner: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [python, str(runner), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=runner.parent
    )


def test_measures_where_nothing_else_is(bare_python: str, runner: Path, tmp_path: Path) -> None:
    for package in ("scipy", "onnx", "click", "onnxtrim"):
        found = subprocess.run(
            [bare_python, "-I", "-c", f"import {package}"], capture_output=True, check=False
        )
        assert found.returncode == 1, f"{package} is there, so the test would show nothing"
    large = save_mlp(tmp_path / "large.onnx", [8, 512, 512, 4])
    small = save_mlp(tmp_path / "small.onnx", [8, 16, 4])
    output = tmp_path / "device.json"
    options = ["--launches", "2", "--rounds", "2", "-x", "1"]
    done = call(bare_python, runner, large, small, "-o", output, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("latency.p50.ratio 0.")
    result = load_result(output)
    assert result.metrics["latency.p50.ratio"].value < 1
    assert result.metrics["memory.load_peak"].value > 0
    assert result.metrics["model.file_bytes.ratio"].value < 0.1
    told = run("compare", "--from", output, "--json").json()
    assert told["metrics"] == json.loads(output.read_text())["metrics"]


def test_refuses_in_one_line(bare_python: str, runner: Path, tmp_path: Path) -> None:
    output = tmp_path / "device.json"
    done = call(bare_python, runner, tmp_path / "absent.onnx", "-o", output)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    secret = tmp_path / "external.onnx"
    secret.write_bytes(b"\x08\x07\n\x08location\x12\x0b/etc/passwd")
    done = call(bare_python, runner, secret, "-o", output)
    assert done.returncode == 2
    assert "other files" in done.stderr
    assert not output.exists()


def test_needs_an_output() -> None:
    refused("bench", "--runner", says="-o runner.pyz")


def test_is_written_for_python_3_9(runner: Path) -> None:
    """No word of a newer Python: found by vermin, which knows them all."""
    with zipfile.ZipFile(runner) as archive:
        archive.extractall(runner.parent / "unpacked")
    vermin = Path(sys.executable).parent / "vermin"
    command = [str(vermin), "-t=3.9-", "--no-tips", str(runner.parent / "unpacked")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
