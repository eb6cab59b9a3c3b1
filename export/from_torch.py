"""A torch module as an ONNX file that is checked before it is put in place."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxtrim.bench.errors import InputError, MissingExtraError, WorkError
from onnxtrim.export.model_io import first_line, save_model
from onnxtrim.export.modules import (
    evaluating,
    load_callable,
    load_weights,
    parse_shape,
    random_inputs,
)
from onnxtrim.export.names import name_apart
from onnxtrim.export.parity import module_outputs, parity

if TYPE_CHECKING:
    import torch

__all__ = [
    "ExportReport",
    "export_module",
    "load_callable",
    "load_weights",
    "parse_shape",
    "random_inputs",
]

BATCH = "batch"
_STACK_TRACE = "pkg.torch.onnx.stack_trace"
_FIXED_BATCH = "if it works at one batch size only, fix it (dynamic_batch=False)"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        path: The file.
        inputs: Name and shape of each input; the free batch size is called ``"batch"``.
        outputs: The same of each output.
        parameters: Numbers in the module's parameters, each tensor counted once.
        opset: Version of ONNX's operator set.
        max_error: Largest difference from the module, relative to the output's scale.
        batches: The batch sizes at which it was compared.
    """

    path: Path
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    parameters: int
    opset: int
    max_error: float
    batches: tuple[int, ...]


def export_module(
    module: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    path: str | os.PathLike[str],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = True,
    opset: int | None = None,
) -> ExportReport:
    """Export a module in evaluation mode; nothing is printed, nothing of the module changes.

    1. Run the module on the examples.
    2. ``torch.onnx.export`` without its optimiser: parameters keep their names.
    3. Check the file (``onnx.checker``, ONNX Runtime) and compare its outputs with the module's
       on the examples, with a free batch size also on one sample more.
    4. Put the file in place.

    Args:
        module: What to export.
        example_inputs: One tensor per positional argument of ``forward``, axis 0 the samples.
        path: The ``.onnx`` file to make or replace.
        input_names: Default: the names of ``forward``'s arguments.
        output_names: Default: ``output``, or ``output_0``, ``output_1`` and so on.
        dynamic_batch: Whether axis 0 of every input is free.
        opset: Version of ONNX's operator set; default: torch's choice.

    Raises:
        InputError: The examples or names don't fit the module, or the output can't be written.
        MissingExtraError: torch or onnxscript is not installed.
        WorkError: torch can't export it, or the file does not compute the same.
    """
    require_torch()
    inputs = _checked_inputs(example_inputs, dynamic_batch)
    with evaluating(module):
        with _quiet():
            outputs = _first_run(module, inputs)
        names = _output_names(output_names, len(outputs))
        if input_names is not None and len(input_names) != len(inputs):
            raise InputError(f"{len(input_names)} input names for {len(inputs)} inputs")
        more = _one_more(inputs) if dynamic_batch else None
        # A traced batch of 1 is often taken for a broadcast axis, which is then no longer free.
        traced = inputs if more is None or len(inputs[0]) > 1 else more
        model = _export(module, traced, input_names, names, dynamic_batch, opset)
        errors: list[float] = []
        save_model(
            model, path, verify=lambda file: errors.extend(_compare(file, module, inputs, more))
        )
    return ExportReport(
        path=Path(path),
        inputs=_shapes(model.graph.inputs),
        outputs=_shapes(model.graph.outputs),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        opset=model.opset_imports[""],
        max_error=max(errors),
        batches=tuple(
            batch[0].shape[0] if batch[0].ndim else 1 for batch in (inputs, more) if batch
        ),
    )


def require_torch() -> None:
    """Raise the error that names the extra if torch or onnxscript is not installed.

    Raises:
        MissingExtraError: One of them is missing.
    """
    try:
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("exporting a torch module", "torch") from error


def _checked_inputs(examples: Sequence[Any], dynamic: bool) -> tuple[torch.Tensor, ...]:
    import torch

    inputs = tuple(examples)
    if not inputs or not all(isinstance(value, torch.Tensor) for value in inputs):
        raise InputError("example_inputs must be a tuple of one or more tensors")
    if dynamic:
        sizes = {tuple(tensor.shape[:1]) for tensor in inputs}
        if len(sizes) > 1 or () in sizes or (0,) in sizes:
            shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in inputs)
            raise InputError(
                f"inputs of shape {shapes} don't share a batch size of 1 or more in axis 0; make"
                " them, or fix the batch size (dynamic_batch=False)"
            )
    # The exporter takes one tensor that is given twice for one input.
    return tuple(tensor.clone() for tensor in inputs)


def _first_run(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in inputs)
    try:
        outputs = module_outputs(module, inputs)
    except Exception as error:  # the module is foreign code
        raise InputError(
            f"the module can't run on inputs of shape {shapes} ({first_line(error)})"
        ) from error
    if not outputs:
        raise InputError("the module returns no tensor; there is nothing to export")
    return outputs


def _output_names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    if len(names) != count:
        raise InputError(f"{len(names)} output names for {count} outputs")
    return list(names)


def _export(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    input_names: Sequence[str] | None,
    output_names: Sequence[str],
    dynamic: bool,
    opset: int | None,
) -> ir.Model:
    import torch

    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                inputs,
                input_names=input_names,
                output_names=output_names,
                opset_version=opset,
                dynamic_shapes=_dynamic_shapes(module, len(inputs)) if dynamic else None,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # torch raises types of its own
        advice = f"; {_FIXED_BATCH}" if dynamic else ""
        raise WorkError(f"the module can't be exported ({_root_cause(error)}){advice}") from error
    if program is None:
        raise WorkError("the module can't be exported (torch.onnx.export returned nothing)")
    model: ir.Model = program.model
    _check_asked(model, dynamic, opset)
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.pop(_STACK_TRACE, None)  # paths of this machine
    name_apart(model.graph)
    return model


def _compare(
    file: Path,
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    more: tuple[torch.Tensor, ...] | None,
) -> list[float]:
    with _quiet():
        errors = [parity(file, module, inputs)]
        if more is not None:
            try:
                errors.append(parity(file, module, more))
            except WorkError as error:
                raise WorkError(f"{error}; {_FIXED_BATCH}") from error
    return errors


def _dynamic_shapes(module: torch.nn.Module, count: int) -> tuple[Any, ...]:
    """One ``{0: "batch"}`` per input, nested as ``forward`` takes them."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    positional = [kind for kind in kinds if kind is not inspect.Parameter.VAR_POSITIONAL]
    plain = sum(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in positional)
    shapes = [{0: BATCH} for _ in range(count)]
    if inspect.Parameter.VAR_POSITIONAL in kinds and count > plain:
        return (*shapes[:plain], tuple(shapes[plain:]))
    return tuple(shapes)


def _check_asked(model: ir.Model, dynamic: bool, opset: int | None) -> None:
    """The exporter may fix a size or leave the version without saying so."""
    made = model.opset_imports[""]
    if opset is not None and made != opset:
        raise WorkError(f"torch made opset {made} instead of {opset}; leave the opset out")
    if not dynamic:
        return
    for name, shape in _shapes(model.graph.inputs).items():
        if not shape or isinstance(shape[0], int):
            raise InputError(
                f"the module fixes the batch size of input {name!r} to {shape[0]}; {_FIXED_BATCH}"
            )


def _shapes(values: Sequence[ir.Value]) -> dict[str, Shape]:
    return {
        str(value.name): tuple(n if isinstance(n, int) else str(n.value) for n in value.shape or ())
        for value in values
    }


def _one_more(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    import torch

    return tuple(torch.cat([tensor, tensor[:1]]) for tensor in inputs)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip(" -") for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    if lines and lines[0].endswith(":"):  # a heading says nothing alone
        return " ".join(lines[:2])
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No output, warnings or log lines; torch's exporter writes all three."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
