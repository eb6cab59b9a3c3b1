"""The folder of a sweep on disk: begun once, locked while in use, appended to whole lines."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from onnxtrim.bench.errors import InputError, NothingToRemoveError
from onnxtrim.bench.files import read_json, write_json

_SPEC, _LOCK = "sweep.json", ".lock"
_FILES = (_SPEC, "statistics.npz", "distributions.json", "graph.json", "results.jsonl")
_OURS = (_LOCK, f".{_SPEC}.")  # all that a kill can leave before there is a specification

# What must not differ between the parts of one sweep.
_FIXED = ("model", "data", "eval", "criterion", "repair", "grid", "bench")


@contextlib.contextmanager
def opened(folder: Path, spec: dict[str, Any]) -> Iterator[None]:
    """Start a sweep in a new or empty folder, or go on with the one that lies there.

    No other sweep can open the folder meanwhile. If the input turns out to be unfit before
    anything is measured, a sweep that was just started leaves nothing behind.

    Raises:
        InputError: The folder can't be used, is in use, or holds another sweep or other files.
    """
    _check_ours(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with _locked(folder):
        fresh = not (folder / _SPEC).exists()
        try:
            _begin(folder, spec)
            yield
        except (InputError, NothingToRemoveError):
            if fresh and not read_lines(folder / "results.jsonl"):
                _remove(folder, made)
            raise


def _check_ours(folder: Path) -> None:
    try:
        begun = not folder.exists() or (folder / _SPEC).exists()
        if not begun and any(not item.name.startswith(_OURS) for item in folder.iterdir()):
            raise InputError(
                f"{folder}: is not empty and holds no sweep; choose another folder with -o"
            )
    except OSError as error:
        raise InputError(f"{folder}: can't be used as a folder ({error.strerror})") from error


def _begin(folder: Path, spec: dict[str, Any]) -> None:
    path = folder / _SPEC
    if not path.exists():
        write_json(path, spec)
    old = read_json(path, spec["schema"])
    differ = [key for key in _FIXED if _identity(old.get(key)) != _identity(spec[key])]
    if differ:
        raise InputError(
            f"{folder}: holds a sweep with another {', '.join(differ)}; choose another folder"
            " with -o"
        )
    if old.get("max_drop") != spec["max_drop"]:  # only the choice depends on it
        write_json(path, {**old, "max_drop": spec["max_drop"]})
    (folder / "models").mkdir(exist_ok=True)
    half = [left for name in _FILES for left in folder.glob(f".{name}.*")]
    for left in (*half, *folder.glob("models/.*")):  # what a kill left half-written
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    _drop_torn_line(folder / "results.jsonl")


def _identity(value: Any) -> Any:
    """What must be equal: of a file its content, not what it was called."""
    value = json.loads(json.dumps(value))
    return value["sha256"] if isinstance(value, dict) and "sha256" in value else value


def _remove(folder: Path, made: list[Path]) -> None:
    shutil.rmtree(folder / "models", ignore_errors=True)
    for name in (*_FILES, _LOCK):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody put something there
        for path in made:
            path.rmdir()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The finished lines of a results file; none if it does not exist.

    Raises:
        InputError: A line is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(f"{path}: a line is broken ({error}); choose another folder") from error


def append_line(file: IO[bytes], line: dict[str, Any]) -> None:
    """One write, then to the disk: a line is there whole or is dropped on resuming."""
    file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _drop_torn_line(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second sweep out of the folder; the lock goes with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("w")
    except OSError as error:
        raise InputError(f"{folder}: can't be used as a folder ({error.strerror})") from error
    with file:
        _lock(file, folder)
        yield


def _lock(file: IO[str], folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(f"{folder}: another sweep is running there") from error
