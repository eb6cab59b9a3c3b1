"""Fixtures for several files of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import cli


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder, with a model and data, beside a file that no model may reach."""
    folder = tmp_path / "work"
    folder.mkdir()
    cli.write_files(folder)
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    monkeypatch.chdir(folder)
    return folder
