"""Models from files and into files: loaded safely, saved whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnxtrim.bench.errors import InputError, WorkError
from onnxtrim.bench.files import atomic_path
from onnxtrim.bench.machine import release_memory
from onnxtrim.bench.model_checks import graphs
from onnxtrim.bench.model_file import external_files, read_model_proto
from onnxtrim.bench.session import RunOptions, open_session

PROTOBUF_LIMIT = 2**31 - 1
"""Most bytes that one protobuf message can have."""

INLINE_LIMIT = PROTOBUF_LIMIT - 2**26
"""Most bytes of weights kept inside the ``.onnx`` file; the margin is for nodes and names."""

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number

_EXTERNAL_FROM = 1024  # bytes; smaller tensors stay readable in the .onnx file


def load_model(path: str | os.PathLike[str]) -> ir.Model:
    """Read an ONNX file; weights beside it (external data) are mapped, not copied.

    Args:
        path: The ``.onnx`` file. Its external data must lie in the same folder or below.

    Raises:
        InputError: Missing, empty or a folder; not an ONNX model; external data that is
            missing, too short, or outside the model's folder.
    """
    proto = read_model_proto(path)
    external_files(path, proto)
    if any(graph.sparse_initializer for graph in graphs(proto.graph)):
        raise InputError(f"{path}: has sparse weights, which are not supported; make them dense")
    folder = Path(path).absolute().parent  # mapped weights must survive a change of folder
    try:
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, folder)
        _load_attributes(model, folder, path)
        for value, tensor in _external_values(model):
            _check_length(tensor, str(value.name), path)
    except InputError:
        raise
    except Exception as error:  # a parser of foreign bytes may raise anything
        raise InputError(f"{path}: can't be read as an ONNX model ({first_line(error)})") from error
    return model


def save_model(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    check: bool = True,
    verify: Callable[[Path], object] | None = None,
    inline_limit: int = INLINE_LIMIT,
) -> None:
    """Write a model, whole or not at all; the model in memory stays as it is.

    1. Refuse a target that would destroy what the model was made from.
    2. Write to a temporary place in the target's folder; weights of more than
       ``inline_limit`` bytes go into one file ``<name>.data`` beside the model.
    3. Check what was written: `check_model`, then ``verify``.
    4. Move it into place.

    Args:
        model: What to write.
        path: The ``.onnx`` file to make or replace.
        source: The file that the model came from; it is never overwritten.
        check: Whether to call `check_model`.
        verify: Called with the temporary file; what it raises leaves the target as it was.
        inline_limit: Most bytes of weights inside the ``.onnx`` file.

    Raises:
        InputError: The output is the input (also through a link), is not a regular file, or
            can't be written.
        WorkError: The written model is not valid, or the disk is full.
    """
    target = Path(path)
    external = tensor_bytes(model) > inline_limit
    _check_target(model, target, source, external)

    def accept(temporary: Path) -> None:
        if check:
            check_model(temporary, shown=target, source=source)
        if verify is not None:
            verify(temporary)

    try:
        if external:
            _save_with_data(model, target, accept)
        else:
            with atomic_path(target) as temporary:
                with temporary.open("wb") as file:
                    file.writelines(_parts(model))
                release_memory()  # before the checks load it again
                accept(temporary)
    except OSError as error:
        raise WorkError(f"{target}: can't be written ({error.strerror or error})") from error


def model_bytes(model: ir.Model) -> bytes:
    """The model as the content of an ``.onnx`` file, with all weights inside.

    Raises:
        WorkError: It can't be one protobuf message (2 GiB or more), or can't be serialised.
    """
    if (size := tensor_bytes(model)) > PROTOBUF_LIMIT:
        raise WorkError(f"the model's weights have {size} bytes; one message holds 2 GiB at most")
    return b"".join(_parts(model))


def _parts(model: ir.Model) -> Iterator[bytes]:
    """The same in parts, so that only one of the weights is in memory twice."""
    try:
        with _weights_in_memory(model):
            frame = model.clone()
            tensors = []
            for value in frame.graph.initializers.values():
                if value.const_value is not None:
                    tensors.append((str(value.name), value.const_value))
                    value.const_value = ir.Tensor(np.empty(0, np.uint8))
            proto = ir.to_proto(frame)
            del proto.graph.initializer[:]
            graph = proto.graph.SerializeToString()
            proto.ClearField("graph")
            yield proto.SerializeToString()
            sizes = [_tensor_proto(*tensor).ByteSize() for tensor in tensors]
            heads = [_head(_INITIALIZER, size) for size in sizes]
            yield _head(_GRAPH, len(graph) + sum(sizes) + sum(map(len, heads)))
            yield graph
            for head, tensor in zip(heads, tensors, strict=True):
                yield head
                yield _tensor_proto(*tensor).SerializeToString()
    except (ValueError, RuntimeError) as error:
        raise WorkError(f"the model can't be serialised ({first_line(error)})") from error


def _tensor_proto(name: str, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    proto = ir.serde.serialize_tensor(tensor)
    proto.name = name
    return proto


def _head(number: int, size: int) -> bytes:
    """What stands before a field of ``size`` bytes (protobuf's length-delimited wire type)."""
    head = bytearray([number << 3 | 2])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head)


def check_model(
    path: str | os.PathLike[str],
    *,
    shown: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
) -> None:
    """Check a written model: ``onnx.checker`` with shape inference, then a load in ONNX Runtime.

    Args:
        path: The file.
        shown: The name to use for it in messages.
        source: The model that it was made from. If ``onnx.checker`` refuses that too, as it does
            with some that run, only the load counts.

    Raises:
        WorkError: One of them refuses the file.
    """
    name = str(path if shown is None else shown)
    error = _checker_error(path)
    if error is not None and (source is None or _checker_error(source) is None):
        reason = first_line(error).replace(str(path), name)
        raise WorkError(
            f"{name}: onnx.checker refuses the model that was made ({reason})"
        ) from error
    try:
        open_session(os.fspath(path), RunOptions(threads=1))
    except InputError as error:
        raise WorkError(str(error).replace(str(path), name)) from error


def _checker_error(path: str | os.PathLike[str]) -> Exception | None:
    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
    except Exception as error:  # the binding raises types of its own
        return error
    finally:
        release_memory()  # it holds the model several times
    return None


def tensor_bytes(model: ir.Model) -> int:
    """Bytes of all constant tensors: initializers (also of subgraphs) and attributes."""
    initializers = sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    return initializers + sum(tensor.nbytes for _, _, tensor in _attribute_tensors(model))


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something, else its type."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)


def same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether both exist and are one file, also through links."""
    try:
        return Path(first).samefile(second)
    except OSError:
        return False


def _attribute_tensors(model: ir.Model) -> Iterator[tuple[ir.Node, str, ir.TensorProtocol]]:
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in ir.traversal.RecursiveGraphIterator(graph):
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield node, attribute.name, attribute.as_tensor()


def _load_attributes(model: ir.Model, folder: Path, path: str | os.PathLike[str]) -> None:
    """Copy external tensors of attributes into memory: nothing else would when saving."""
    for node, name, tensor in list(_attribute_tensors(model)):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = folder
            _check_length(tensor, f"{name} of {node.name}", path)
            copy = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
            node.attributes[name] = ir.AttrTensor(name, copy)


def _check_length(tensor: ir.ExternalTensor, name: str, path: str | os.PathLike[str]) -> None:
    length = tensor.nbytes if tensor.length is None else tensor.length
    end = (tensor.offset or 0) + length
    if length < tensor.nbytes or end > Path(tensor.path).stat().st_size:
        raise InputError(
            f"{path}: the data of tensor {name!r} in {str(tensor.location)!r} is cut off; get both"
            " files again"
        )


def _external_values(model: ir.Model) -> list[tuple[ir.Value, ir.ExternalTensor]]:
    return [
        (value, value.const_value)
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    ]


@contextlib.contextmanager
def _weights_in_memory(model: ir.Model) -> Iterator[None]:
    mapped = _external_values(model)
    try:
        for value, tensor in mapped:  # views of the mapped file, not copies
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
        yield
    finally:
        for value, tensor in mapped:
            value.const_value = tensor


def _check_target(
    model: ir.Model, target: Path, source: str | os.PathLike[str] | None, external: bool
) -> None:
    if source is not None and same_file(target, source):
        raise InputError(f"{target}: output and input are the same file; give another output")
    outputs = [target, _data_path(target)] if external else [target]
    weights = {tensor.path for _, tensor in _external_values(model)}
    for output in outputs:
        if output.exists() and not output.is_file():
            kind = "a folder" if output.is_dir() else "not a regular file"
            raise InputError(f"{output}: is {kind}; give the path of a file")
        if any(same_file(output, weight) for weight in weights):
            raise InputError(f"{output}: holds the input's weights; give another output")


def _data_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.data")


def _save_with_data(model: ir.Model, target: Path, accept: Callable[[Path], None]) -> None:
    """Write model and weights under their final names in a folder beside, then move both.

    The names must be final because the model names its data file. An old model that has such a
    file goes first: between the two moves there is then no model, never one with foreign weights.
    """
    data = _data_path(target)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target}: can't write there ({error.strerror})") from error
    try:
        staged = folder / target.name
        ir.save(
            model,
            staged,
            format="protobuf",
            external_data=data.name,
            size_threshold_bytes=_EXTERNAL_FROM,
        )
        accept(staged)
        for file in (staged, folder / data.name):
            _flush(file)
        if data.exists():
            target.unlink(missing_ok=True)
        (folder / data.name).replace(data)
        staged.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
