"""Reading ``.npz`` files row by row, without loading or unpickling anything."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of one stored array says.

    Attributes:
        dtype: Type of the elements.
        shape: Its shape; the first dimension counts the samples.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class NpzFile:
    """One ``.npz`` file; opening it reads only the headers.

    Args:
        path: The file.

    Raises:
        InputError: Missing, empty or damaged file, pickled objects, or arrays in column order.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.headers: dict[str, ArrayHeader] = {}
        with _readable(self.path), self._open_zip() as archive:
            for info in archive.infolist():
                name, dot, suffix = info.filename.rpartition(".")
                if f"{dot}{suffix}" != ".npy":
                    raise InputError(f"{self.path}: holds {info.filename!r}, which is no array")
                with archive.open(info) as member:
                    self.headers[name] = self._header(member, name, info.file_size)

    def rows(self, names: Sequence[str], size: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Blocks of at most ``size`` rows of the named arrays, in lock-step.

        Memory holds one block, however long the file is. The arrays must be of one length.

        Raises:
            InputError: The file is damaged.
        """
        length = self.headers[names[0]].shape[0]
        with _readable(self.path), self._open_zip() as archive, contextlib.ExitStack() as stack:
            members = {n: stack.enter_context(archive.open(f"{n}.npy")) for n in names}
            for name, member in members.items():
                self._header(member, name, None)
            for start in range(0, length, size):
                count = min(size, length - start)
                yield {n: self._read(members[n], n, count) for n in names}

    def _open_zip(self) -> zipfile.ZipFile:
        if self.path.stat().st_size == 0:
            raise InputError(f"{self.path}: is empty")
        if not zipfile.is_zipfile(self.path):
            raise InputError(f"{self.path}: is not an .npz file; write it with numpy.savez")
        return zipfile.ZipFile(self.path)

    def _header(self, member: IO[bytes], name: str, stored: int | None) -> ArrayHeader:
        where = f"{self.path}: array {name!r}"
        version = npy.read_magic(member)
        if version == (1, 0):
            shape, columns, dtype = npy.read_array_header_1_0(member)
        elif version == (2, 0):
            shape, columns, dtype = npy.read_array_header_2_0(member)
        else:
            raise InputError(f"{where} has named fields; give plain numbers")
        if dtype.hasobject:
            raise InputError(f"{where} holds pickled Python objects, which are never read")
        if columns and len(shape) > 1:
            raise InputError(
                f"{where} is stored in column order; save numpy.ascontiguousarray({name})"
            )
        if stored is not None and stored != member.tell() + math.prod(shape) * dtype.itemsize:
            raise InputError(f"{where} is damaged: its size and its header differ")
        return ArrayHeader(dtype, shape)

    def _read(self, member: IO[bytes], name: str, count: int) -> NDArray[Any]:
        header = self.headers[name]
        shape = (count, *header.shape[1:])
        wanted = math.prod(shape) * header.dtype.itemsize
        data = member.read(wanted)
        if len(data) != wanted:
            raise InputError(f"{self.path}: array {name!r} is cut short")
        return np.frombuffer(data, dtype=header.dtype).reshape(shape)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what zipfile, zlib and the header parser raise into an InputError."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: is damaged or not an .npz file ({reason})") from error
    except (NotImplementedError, RuntimeError) as error:  # encrypted or unknown compression
        raise InputError(f"{path}: can't be read ({error})") from error
