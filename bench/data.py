"""Calibration and evaluation data: checked before anything runs, then streamed in batches.

Four forms: an ``.npz`` file with one array per model input (and ``labels`` if any), a folder
of such shards, ``package.module:function`` that yields ``(feeds, labels)`` batches, and, from
Python, a mapping of arrays. Samples that are not independent, such as pictures of one person, are
told by an array ``groups``, or a third item of the batches.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.batches import ArrayHash, Batch, rebatch
from onnxtrim.bench.data_checks import (
    Headers,
    InputSpec,
    check_arrays,
    check_finite,
    check_length,
)
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import sha256_file
from onnxtrim.bench.npz import NpzFile

__all__ = ["Batch", "DataSource", "InputSpec", "open_data"]

_Check = Callable[[str, Headers], int]
"""From where arrays are and their headers to the number of samples."""

_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


class DataSource(ABC):
    """Samples that can be streamed again and again.

    Attributes:
        name: What the user gave, for messages and result files.
        samples: How many there are; ``None`` if only a full pass can tell and none was made.
    """

    def __init__(self, name: str, inputs: Sequence[InputSpec], samples: int | None) -> None:
        self.name = name
        self.samples = samples
        self._inputs = tuple(inputs)
        self._fixed = _fixed_batch(self._inputs)
        if samples is not None:
            check_length(name, samples, self._fixed)

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hash of the data; a function source makes one pass if none was made."""

    @abstractmethod
    def _blocks(self, size: int) -> Iterator[Batch]:
        """Samples in order, in pieces of any length."""

    def batches(self, size: int) -> Generator[Batch, None, None]:
        """Stream all samples in batches of ``size``; the last may be shorter.

        A model whose first dimension is fixed gets batches of exactly that many samples.

        Raises:
            InputError: NaN or infinity in an input, or damaged or unfit data.
            ValueError: ``size`` is below 1.
        """
        if size < 1:
            raise ValueError(f"size is {size}, must be at least 1")
        first = 0
        for batch in rebatch(self._blocks(self._fixed or size), self._fixed or size):
            if self._fixed:
                check_length(self.name, first + len(batch), self._fixed)
            check_finite(self.name, batch.feeds, first)
            if batch.labels is not None:
                check_finite(self.name, {"labels": batch.labels}, first)
            first += len(batch)
            yield batch


def open_data(
    source: str | os.PathLike[str] | Mapping[str, NDArray[Any]],
    inputs: Sequence[InputSpec],
    *,
    need_labels: bool = False,
    any_labels: bool = False,
) -> DataSource:
    """Open a data source and check it against the model's inputs.

    Args:
        source: A file, a folder of shards, ``package.module:function``, or arrays by name.
        inputs: What the model expects.
        need_labels: Whether data without labels is an error.
        any_labels: Whether labels may be numbers of shape ``(samples, ...)``; else they must be
            classes, integers of shape ``(samples,)``.

    Raises:
        InputError: Anything about the data that would not fit; see the module's text.
    """
    _fixed_batch(inputs)
    check = functools.partial(
        check_arrays, inputs=inputs, need_labels=need_labels, any_labels=any_labels
    )
    if isinstance(source, Mapping):
        return _Arrays(source, inputs, check)
    path = Path(source)
    function = _FUNCTION.fullmatch(str(source))
    if function and not path.exists():
        return _Function(function[1], function[2], inputs, check)
    if path.is_dir():
        shards = sorted(path.glob("*.npz"))
        if not shards:
            raise InputError(f"{path}: the folder holds no .npz file")
        return _Shards(str(path), shards, inputs, check)
    if not path.exists():
        raise InputError(f"{path}: no such file (or write package.module:function)")
    return _Shards(str(path), [path], inputs, check)


class _Shards(DataSource):
    """One ``.npz`` file, or several that follow each other."""

    def __init__(
        self, name: str, paths: Sequence[Path], inputs: Sequence[InputSpec], check: _Check
    ) -> None:
        self._files = [NpzFile(path) for path in paths]
        self._sha256: str | None = None
        samples = 0
        for file in self._files:
            headers = {n: (h.dtype, h.shape) for n, h in file.headers.items()}
            samples += check(str(file.path), headers)
        if len({frozenset(file.headers) for file in self._files}) > 1:
            raise InputError(f"{name}: some shards have labels or groups, and some have none")
        super().__init__(name, inputs, samples)

    @property
    def sha256(self) -> str:
        if self._sha256 is None:
            hashes = [sha256_file(file.path) for file in self._files]
            whole = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
            self._sha256 = hashes[0] if Path(self.name).is_file() else whole
        return self._sha256

    def _blocks(self, size: int) -> Iterator[Batch]:
        for file in self._files:
            for arrays in file.rows(list(file.headers), size):
                yield _batch(arrays, self._inputs)


class _Arrays(DataSource):
    """Arrays in memory."""

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], inputs: Sequence[InputSpec], check: _Check
    ) -> None:
        self._arrays = {name: np.asarray(array) for name, array in arrays.items()}
        headers = {n: (a.dtype, a.shape) for n, a in self._arrays.items()}
        samples = check("the data", headers)
        super().__init__("arrays in memory", inputs, samples)

    @property
    def sha256(self) -> str:
        hasher = ArrayHash()
        for batch in self._blocks(1024):
            hasher.update(batch)
        return hasher.hexdigest()

    def _blocks(self, size: int) -> Iterator[Batch]:
        for start in range(0, self.samples or 0, size):
            part = {name: array[start : start + size] for name, array in self._arrays.items()}
            yield _batch(part, self._inputs)


class _Function(DataSource):
    """``package.module:function``, called anew for each pass."""

    def __init__(
        self, module: str, function: str, inputs: Sequence[InputSpec], check: _Check
    ) -> None:
        super().__init__(f"{module}:{function}", inputs, None)
        self._call = import_function(module, function)
        self._check = check
        self._sha256: str | None = None
        for batch in self._blocks(1):  # so that unfit data is told before any work
            check_finite(self.name, batch.feeds, 0)
            break

    @property
    def sha256(self) -> str:
        if self._sha256 is None:
            for _ in self._blocks(1):
                pass
        assert self._sha256 is not None
        return self._sha256

    def _blocks(self, size: int) -> Iterator[Batch]:
        hasher = ArrayHash()
        samples = 0
        for feeds, labels, groups in self._yielded():
            arrays = {name: np.asarray(array) for name, array in feeds.items()}
            for name, more in (("labels", labels), ("groups", groups)):
                if more is not None and name in arrays:
                    raise InputError(f"{self.name}: yields {name}, and {name} is an input")
                if more is not None:
                    arrays[name] = np.asarray(more)
            headers = {n: (a.dtype, a.shape) for n, a in arrays.items()}
            samples += self._check(self.name, headers)
            batch = _batch(arrays, self._inputs)
            hasher.update(batch)
            yield batch
        check_length(self.name, samples, self._fixed)
        self.samples, self._sha256 = samples, hasher.hexdigest()

    def _yielded(self) -> Iterator[tuple[Mapping[str, Any], Any, Any]]:
        """What the function yields; its own exceptions become one line."""
        try:
            for item in self._call():
                feeds, labels, groups = (*item, None) if len(item) == 2 else item
                if not isinstance(feeds, Mapping):
                    raise TypeError(f"feeds are a {type(feeds).__name__}, not a mapping")
                yield feeds, labels, groups
        except InputError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{self.name}: must yield (feeds, labels or None) batches, perhaps with groups as a"
                f" third item, but raised {reason}"
            ) from error


def import_function(module: str, function: str) -> Callable[..., Any]:
    """A function of the user's, also from the current folder.

    Raises:
        InputError: There is none.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise InputError(f"{module}:{function}: the module can't be imported ({error})") from error
    except AttributeError as error:
        raise InputError(f"{module}:{function}: the module has no {function!r}") from error
    if not callable(found):
        raise InputError(f"{module}:{function}: is not a function")
    return found  # type: ignore[no-any-return]


def _batch(arrays: Mapping[str, NDArray[Any]], inputs: Sequence[InputSpec]) -> Batch:
    feeds = {spec.name: arrays[spec.name] for spec in inputs}
    labels, groups = (None if name in feeds else arrays.get(name) for name in ("labels", "groups"))
    return Batch(feeds, labels, None if groups is None else groups.astype(np.int64))


def _fixed_batch(inputs: Sequence[InputSpec]) -> int | None:
    """The number of samples per run if the model fixes it, else ``None``."""
    for spec in inputs:
        if not spec.shape:
            raise InputError(f"input {spec.name!r} of the model is a scalar: no samples to stream")
    sizes = {spec.shape[0] for spec in inputs if isinstance(spec.shape[0], int)}
    if len(sizes) > 1:
        raise InputError(f"the model's inputs have different first dimensions {sorted(sizes)}")
    return sizes.pop() if sizes else None
