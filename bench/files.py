"""Files that are never half-written, and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnxtrim.bench.errors import InputError


def check_target(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written there, without writing anything.

    Raises:
        InputError: The folder is missing or can't be written; what is there is a folder, a device,
            a pipe, or write-protected.
    """
    target = Path(path)
    try:
        if not target.parent.is_dir():
            raise InputError(f"{target}: the folder {target.parent} does not exist; make it first")
        if target.is_dir():
            raise InputError(f"{target}: is a folder; give the path of a file")
        if target.exists() and not target.is_file():
            raise InputError(f"{target}: is not a regular file; give the path of a file")
    except OSError as error:
        raise InputError(f"{target}: can't write there ({error.strerror})") from error
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"{target}: can't write into the folder {target.parent}; choose another")
    if target.exists() and not os.access(target, os.W_OK):
        raise InputError(f"{target}: is write-protected; choose another path")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` when the block succeeds.

    A link at ``path`` is replaced; the file that it points to stays as it is.

    Raises:
        InputError: A file can't be written there, see :func:`check_target`.
    """
    target = Path(path)
    check_target(target)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InputError(f"{target}: can't write there ({error.strerror})") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private
        with temporary.open("r+b") as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as readable JSON, whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str], schema: str) -> dict[str, Any]:
    """Read a JSON object and check that its ``schema`` is the one expected.

    Raises:
        InputError: Missing file, not JSON, or another schema.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
    found = value.get("schema") if isinstance(value, dict) else None
    if found != schema:
        raise InputError(f"{path}: has schema {found!r}, expected {schema!r}")
    return value  # type: ignore[no-any-return]


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    try:
        with Path(path).open("rb") as file:
            return _digest(file)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
