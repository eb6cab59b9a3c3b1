"""Subnormal numbers among a model's weights: each may cost a CPU a hundred times the usual.

Pruning and weight decay make them. Those of float16 are counted too, but do no harm: ONNX Runtime's
CPU kernels compute in float32, where they are ordinary numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.model_file import external_files, read_model_proto, stored_bytes, tensors

if TYPE_CHECKING:
    import onnx

MANY = 1e-4
"""Share of subnormal float32 weights from which a warning is due."""

_CHUNK = 1 << 22  # bytes
_DTYPES = {"float32": "<u4", "float16": "<u2"}  # bit patterns, to be counted as integers
_EXPONENTS = {"float32": 0x7F800000, "float16": 0x7C00}
_MANTISSAS = {"float32": 0x007FFFFF, "float16": 0x03FF}


class Denormals(NamedTuple):
    """Subnormal numbers of one type among the stored tensors of a model.

    Attributes:
        subnormal: How many there are.
        elements: Among how many numbers.
    """

    subnormal: int
    elements: int

    @property
    def share(self) -> float:
        """Of the numbers of this type."""
        return self.subnormal / self.elements if self.elements else 0.0


def count_denormals(path: str | os.PathLike[str]) -> dict[str, Denormals]:
    """Count the subnormal weights of a model by type, ``"float32"`` and ``"float16"``.

    External data is read piece by piece.

    Raises:
        InputError: See ``read_model_proto`` and ``external_files``.
    """
    model = read_model_proto(path)
    external_files(path, model)  # refuses what lies elsewhere or is cut off
    count, elements = dict.fromkeys(_DTYPES, 0), dict.fromkeys(_DTYPES, 0)
    for tensor in tensors(model):
        kind = _kind(tensor)
        if kind is None:
            continue
        for bits in _pieces(tensor, kind, Path(path).parent):
            small = (bits & _EXPONENTS[kind] == 0) & (bits & _MANTISSAS[kind] != 0)
            count[kind] += int(np.count_nonzero(small))
            elements[kind] += bits.size
    return {kind: Denormals(count[kind], elements[kind]) for kind in _DTYPES}


def denormals_to_json(found: dict[str, Denormals]) -> dict[str, Any]:
    """Counts and shares by type."""
    return {kind: {**item._asdict(), "share": item.share} for kind, item in found.items()}


def denormal_warning(model: str | os.PathLike[str], found: dict[str, Denormals]) -> str | None:
    """One line if a model has so many subnormal weights that they may slow it down."""
    share = found["float32"].share
    if share <= MANY:
        return None
    return (
        f"denormal weights: {share:.2%} of {model}'s float32 weights are subnormal and may slow it"
        " down many times over; set them to zero, or run it with ONNX Runtime's session option"
        " session.set_denormal_as_zero=1"
    )


def _kind(tensor: onnx.TensorProto) -> str | None:
    if tensor.data_type == tensor.FLOAT:
        return "float32"
    return "float16" if tensor.data_type == tensor.FLOAT16 else None


def _pieces(tensor: onnx.TensorProto, kind: str, folder: Path) -> Iterator[NDArray[Any]]:
    """The bit patterns of a tensor."""
    dtype = np.dtype(_DTYPES[kind])
    if tensor.data_location == tensor.EXTERNAL:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        left = stored_bytes(tensor)
        with (folder / entries["location"]).open("rb") as file:
            file.seek(int(entries.get("offset") or 0))
            while left and (block := file.read(min(_CHUNK, left))):
                left -= len(block)
                yield np.frombuffer(block, dtype)
    elif tensor.HasField("raw_data"):
        raw = memoryview(tensor.raw_data)
        for start in range(0, len(raw), _CHUNK):
            yield np.frombuffer(raw[start : start + _CHUNK], dtype)
    elif kind == "float32":
        yield np.array(tensor.float_data, np.float32).view(dtype)
    else:
        yield np.array(tensor.int32_data, np.uint32).astype(dtype)
