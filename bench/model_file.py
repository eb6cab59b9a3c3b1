"""What can be learnt from a model file without running it: is it safe, and how big is it."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import sha256_file
from onnxtrim.bench.model_checks import bits_per_element, check_structure

if TYPE_CHECKING:
    import onnx

_LOCATION = b"\n\x08location\x12"  # the key of an external file, in the wire format


def check_model_file(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Check that a file is an ONNX model whose data stays in its folder.

    Returns:
        The external data files, each once.

    Raises:
        InputError: Missing, empty, a folder, not ONNX, or external data that is absolute,
            missing, or outside the model's folder (also through a link); without the package
            onnx, any external data.
    """
    if has_onnx():
        return external_files(path, read_model_proto(path))
    if _LOCATION in _content(path):
        raise InputError(
            f"{path}: has weights in other files, which can't be checked without the package"
            " onnx; install it, or save the model as one file"
        )
    return ()


def has_onnx() -> bool:
    """Whether the package onnx is here; a device that only measures does without."""
    return importlib.util.find_spec("onnx") is not None


def files_sha256(files: Sequence[Path]) -> str:
    """SHA-256 of a model in these files, the ``.onnx`` file first."""
    hashes = [sha256_file(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def model_sha256(path: str | os.PathLike[str]) -> str:
    """Hash of a model with its external data, as results have it.

    Raises:
        InputError: As of :func:`check_model_file`.
    """
    return files_sha256([Path(path), *check_model_file(path)])


def drop_cached(path: str | os.PathLike[str]) -> None:
    """Take a model and its external data out of the page cache, as far as the system does that.

    Raises:
        InputError: A file can't be read.
    """
    for file in (Path(path), *check_model_file(path)):
        try:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())  # what is not on the disk yet can't be dropped
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise InputError(f"{file}: can't be read ({error.strerror})") from error


def read_model_proto(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Parse a model without its external data, and check that it is whole.

    Raises:
        InputError: Missing, empty, a folder, not ONNX, or see ``check_structure``.
    """
    import onnx

    content = _content(path)
    try:
        model: onnx.ModelProto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError, of a module without types
        raise InputError(f"{path}: is not an ONNX model") from error
    # A random file can parse as unknown fields.
    if not model.ir_version or not model.opset_import or not model.graph.output:
        raise InputError(f"{path}: is not an ONNX model")
    check_structure(str(path), model)
    return model


def _content(path: str | os.PathLike[str]) -> bytes:
    try:
        content = Path(path).read_bytes()
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder; give the path of an .onnx file") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    if not content:
        raise InputError(f"{path}: is empty")
    return content


def external_files(path: str | os.PathLike[str], model: onnx.ModelProto) -> tuple[Path, ...]:
    """The external data files that a model refers to, checked as in :func:`check_model_file`."""
    import onnx

    folder = Path(path).parent
    found: dict[Path, None] = {}
    for tensor in tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        short = location if len(location) < 200 else f"{location[:200]}..."
        where = f"{path}: tensor {tensor.name!r} has its data in {short!r}"
        if not location or Path(location).is_absolute() or "\\" in location or "\0" in location:
            raise InputError(f"{where}; only files in the model's folder are read")
        file = folder / location
        try:
            inside, exists = file.resolve().is_relative_to(folder.resolve()), file.is_file()
        except (OSError, RuntimeError):  # too long, or links in a circle
            inside, exists = True, False
        if not inside:
            raise InputError(f"{where}, outside the model's folder; only that folder is read")
        if not exists:
            raise InputError(f"{where}, and there is no such file beside the model")
        _check_range(tensor, entries, file.stat().st_size, where)
        found[file.resolve()] = None
    return tuple(found)


def _check_range(
    tensor: onnx.TensorProto, entries: Mapping[str, str], size: int, where: str
) -> None:
    """The stretch of a data file that a tensor names must lie in it and suit the shape."""
    wanted = stored_bytes(tensor)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or wanted)
    except ValueError as error:
        raise InputError(f"{where}, at a place that is not a number; export it again") from error
    if tensor.data_type == tensor.STRING or offset < 0 or length != wanted:
        raise InputError(
            f"{where}, {length} bytes from {offset}; its shape wants {wanted}; export it again"
        )
    if offset + length > size:
        raise InputError(f"{where}, which is cut off; get both files again")


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that a tensor of this type and shape takes; text counts as nothing."""
    bits: int = math.prod(tensor.dims) * bits_per_element(tensor.data_type)
    return -(-bits // 8)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor: initializers and node attributes, also in subgraphs and functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse = [*attribute.sparse_tensors]
            if attribute.HasField("sparse_tensor"):
                sparse.append(attribute.sparse_tensor)
            for tensor in sparse:
                yield tensor.values
                yield tensor.indices
            for graph in [attribute.g, *attribute.graphs]:
                yield from _graph_tensors(graph)
