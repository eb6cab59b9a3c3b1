from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from onnxtrim.bench.errors import InputError, MissingExtraError
from onnxtrim.bench.report import write_plots
from onnxtrim.bench.run_folder import load_run
from tests import fake_run


def _size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_the_pictures_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    files = write_plots(load_run(fake_run.write_run(tmp_path / "run")), tmp_path)
    kinds = ("size", "latency", "memory", "macs")
    names = [*(f"accuracy-{kind}.png" for kind in kinds), "distributions.png"]
    assert [file.name for file in files] == names
    assert all(min(_size(file)) > 600 for file in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "run"])
    assert "matplotlib.pyplot" not in sys.modules  # no global state


def test_strange_names_are_drawn_as_text(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    line = fake_run.candidate(3, id="$\\frac{<b>层\ud800\n$")
    layers = fake_run.distributions()
    layers["layers"][0]["name"] = "$x_{" + "long" * 30
    folder = fake_run.write_run(tmp_path / "run", [line], layers=layers)
    assert len(write_plots(load_run(folder), tmp_path)) == 5


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    folder = fake_run.write_run(tmp_path / "run", [fake_run.candidate(0, metrics={})])
    (folder / "distributions.json").unlink()
    assert write_plots(load_run(folder), tmp_path) == []


def test_a_missing_library_or_folder_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(fake_run.write_run(tmp_path / "run"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"PNG plots needs .* 'onnxtrim\[plots\]'"):
        write_plots(run, tmp_path)
    monkeypatch.undo()
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't be made a folder"):
        write_plots(run, tmp_path / "file" / "plots")
