"""The wheel with what it requires and nothing else: no torch, no plots, no tools."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.cli import PAIR, QUICK, SOME, UNMEASURED


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The ``bin`` of a virtual environment made without a network."""
    folder = tmp_path_factory.mktemp("plain")
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    install = ["--no-deps", "--no-index", "-q", "--disable-pip-version-check", str(wheel)]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", *install]
    subprocess.run(pip, check=True)
    (installed,) = importlib.metadata.distributions(name="onnxtrim", path=[str(site)])
    for name in required(installed):
        link(importlib.metadata.distribution(name), site)
    return folder / "bin"


def required(distribution: importlib.metadata.Distribution) -> set[str]:
    """Names of all packages that it needs without extras, and that those need."""
    found: set[str] = set()
    waiting = [distribution]
    while waiting:
        for text in waiting.pop().requires or ():
            need = Requirement(text)
            wanted = need.marker is None or need.marker.evaluate({"extra": ""})
            if wanted and need.name not in found:
                found.add(need.name)
                waiting.append(importlib.metadata.distribution(need.name))
    return found


def link(distribution: importlib.metadata.Distribution, site: Path) -> None:
    """Let a package that is installed here be found there, too."""
    names = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
    for name in names - {"__pycache__"}:
        target = Path(str(distribution.locate_file(name)))
        if not (site / name).exists():
            (site / name).symlink_to(target)


def call(*command: object, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, (command, result.stdout, result.stderr)
    return result.stdout


def test_it_holds_no_optional_package(programs: Path, tmp_path: Path) -> None:
    names = ("torch", "onnxscript", "matplotlib", "pytest", "onnxtrim", "numpy")
    code = f"import importlib.util as u; print(*[n for n in {names} if u.find_spec(n)])"
    assert call(programs / "python", "-c", code, folder=tmp_path).split() == ["onnxtrim", "numpy"]


def test_measuring_imports_little(programs: Path, tmp_path: Path) -> None:
    code = "import sys, onnxtrim.bench; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(call(programs / "python", "-c", code, folder=tmp_path).split())
    assert not loaded & {"torch", "onnx", "onnx_ir", "click", "rich"}


def test_onnx_files_need_no_torch(programs: Path, here: Path) -> None:
    """Every command but export and demo, as a user types it."""
    onnxtrim = programs / "onnxtrim"
    data, labels = ("--data", "calib.npz"), ("--eval", "test.npz")
    for command in (
        ("inspect", "model.onnx"),
        ("stats", "model.onnx", *data, "-o", "stats.npz"),
        ("prune", "model.onnx", "--stats", "stats.npz", *SOME, "-o", "small.onnx"),
        ("bench", "small.onnx", *QUICK, "--no-memory"),
        ("compare", "model.onnx", "small.onnx", *labels, *QUICK, "--no-latency"),
        ("sweep", "model.onnx", *data, *labels, *PAIR, "-o", "run", *UNMEASURED),
        ("report", "run", "-o", "report.html"),
    ):
        told = json.loads(call(onnxtrim, *command, "--json", folder=here))
        assert told["schema"] == f"onnxtrim.{command[0]}/1"
    assert (here / "report.html").stat().st_size > 100_000
    sizes = [(here / name).stat().st_size for name in ("model.onnx", "small.onnx")]
    assert sizes[1] < sizes[0]
