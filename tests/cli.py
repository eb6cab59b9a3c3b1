"""Commands as a user runs them, but in this process: quick, and without a terminal."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.toolkit.cli import main
from tests.bench_models import save_mlp

WIDTHS = (6, 24, 16, 4)
SOME = ("--mean-below", "0.4", "--std-below", "0.6")
PAIR = ("--pair", "0.4", "0.6")
QUICK = ("--launches", "2", "--rounds", "2", "--threads", "1")
UNMEASURED = ("--no-latency", "--no-memory", "--threads", "1")


@dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        assert self.code == 0, self.err
        value: dict[str, Any] = json.loads(self.out)
        return value


def run(*arguments: object) -> Result:
    """Run ``onnxtrim`` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            code = stop.code
    return Result(code, out.getvalue(), err.getvalue())


def refused(*arguments: object, says: str, code: int = 2) -> str:
    """Run a command that must be refused in one line; returns the line."""
    result = run(*arguments)
    assert result.code == code, (result.out, result.err)
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.endswith("\n")
    assert len(result.err.splitlines()) == 1, result.err
    assert says in result.err, result.err
    assert "Traceback" not in result.err
    assert "internal" not in result.err, "a bug, not a refusal"
    return result.err


def refuse(folder: Path, command: tuple[str, ...], says: str, **places: str) -> None:
    """The command must be refused, name what stands at ``places``, and write nothing.

    Args:
        folder: The work folder; nothing beside it may change, either.
        command: The arguments; those in ``places`` are replaced.
        says: What the line must hold.
        places: For each replaced argument what to give instead.
    """
    before = snapshot(folder.parent)
    line = refused(*(places.get(part, part) for part in command), says=says)
    assert all(name in line for name in places.values()), line
    assert snapshot(folder.parent) == before


def environment() -> dict[str, str]:
    """For a command in a process of its own, wherever it runs."""
    root = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def samples(count: int = 120, seed: int = 0) -> NDArray[Any]:
    """Inputs (count, 6) of the model of :func:`write_files`."""
    return np.random.default_rng(seed).standard_normal((count, WIDTHS[0])).astype(np.float32)


def write_files(folder: Path) -> None:
    """An MLP ``model.onnx`` with ``calib.npz``, and ``test.npz`` with labels."""
    save_mlp(folder / "model.onnx", WIDTHS)
    np.savez(folder / "calib.npz", x=samples())
    labels = np.arange(90) % WIDTHS[-1]
    np.savez(folder / "test.npz", x=samples(90, seed=1), labels=labels)


def snapshot(folder: Path) -> dict[str, str]:
    """Every path under a folder, with the hash of what the files hold."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }
