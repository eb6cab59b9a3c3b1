"""Fixtures for several files of tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests import cli

# Other machines are slower, and two workers share the cores; the same examples everywhere.
settings.register_profile("same everywhere", deadline=None, derandomize=True)
settings.load_profile("same everywhere")

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: workers that take whole files then end together."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder, with a model and data, beside a file that no model may reach."""
    folder = tmp_path / "work"
    folder.mkdir()
    cli.write_files(folder)
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the tree."""
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools 77 or newer")
    folder = tmp_path_factory.mktemp("wheel")
    skip = (".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", "runs")
    ignore = shutil.ignore_patterns(*skip, "demo-output", ".hypothesis")
    shutil.copytree(ROOT, folder / "tree", symlinks=True, ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(folder), str(folder / "tree")], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def torch_exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where exports of the torch zoo are kept for all workers; making one takes seconds."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "torch_zoo"
    folder.mkdir(exist_ok=True)
    return folder
