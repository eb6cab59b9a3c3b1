"""Whether an exported model computes what the module computes, on given inputs."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError, MissingExtraError, WorkError
from onnxtrim.bench.session import RunOptions, open_session
from onnxtrim.export.modules import evaluating

if TYPE_CHECKING:
    import torch

_TIMES_NOISE = 16.0  # another order of summation rounds differently, not worse
_MOST = 0.01  # more is not rounding: the module is random, or its output is noise
_ROUNDINGS = 64.0  # assumed where the module can't run in float64


def parity(
    model: str | os.PathLike[str] | bytes,
    module: torch.nn.Module,
    inputs: Sequence[Any],
    *,
    least: float = 0.0,
) -> float:
    """Compare an ONNX model with the torch module it came from.

    1. y = module(inputs) as it is; scale = max |y| per output.
    2. noise = max |y - y64| / scale, with y64 the module's output in float64: what rounding
       does to the module itself on these inputs, at least one machine epsilon of the output.
    3. error = max |onnx - y| / scale, which may be 16 noises, but 0.01 at most. Integer and
       boolean outputs, and the places of NaN and infinity, must be equal.

    Args:
        model: The ONNX file or its content; inputs are matched by position.
        module: Runs in evaluation mode; it is not changed.
        inputs: Tensors, one per input.
        least: An error of floating-point outputs that is always allowed.

    Returns:
        The largest error of all outputs, relative to the output's scale.

    Raises:
        WorkError: Other outputs, other shapes, or an error above the tolerance.
        MissingExtraError: torch is not installed.
    """
    with evaluating(module):
        reference = module_outputs(module, inputs)
        exact = _float64_outputs(module, inputs)
    found = _onnx_outputs(model, inputs)
    if len(found) != len(reference):
        raise WorkError(
            f"the exported model has {len(found)} outputs, the module has {len(reference)}"
        )
    worst = 0.0
    for index, (have, want) in enumerate(zip(found, reference, strict=True)):
        error = _relative_error(have, want, f"output {index}")
        allowed = max(least, _tolerance(want, exact[index] if exact else None))
        if error > allowed:
            raise WorkError(
                f"output {index} of the exported model differs from the module by {error:.1e} of"
                f" its scale, rounding explains {allowed:.1e}; the export is wrong"
            )
        worst = max(worst, error)
    return worst


def module_outputs(module: torch.nn.Module, inputs: Sequence[Any]) -> list[torch.Tensor]:
    """The tensors that the module returns, in order of appearance, without gradients.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("comparing with a torch module", "torch") from error
    with torch.no_grad():
        return _flatten(module(*inputs))


def _flatten(value: Any) -> list[torch.Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        return [value.detach().cpu()]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in _flatten(part)]
    return []


def _float64_outputs(module: torch.nn.Module, inputs: Sequence[Any]) -> list[torch.Tensor] | None:
    """The outputs in float64; ``None`` if the module insists on its own type."""

    def widen(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    try:
        return module_outputs(copy.deepcopy(module).double(), [widen(x) for x in inputs])
    except Exception:  # foreign code: some modules can't be copied, some name their type
        return None


def _onnx_outputs(
    model: str | os.PathLike[str] | bytes, inputs: Sequence[Any]
) -> list[NDArray[Any]]:
    try:
        session = open_session(model, RunOptions(threads=1))
    except InputError as error:
        raise WorkError(str(error)) from error
    names = [node.name for node in session.get_inputs()]
    if len(names) != len(inputs):
        raise WorkError(f"the exported model has {len(names)} inputs, {len(inputs)} were given")
    arrays = [tensor.detach().cpu().numpy() for tensor in inputs]
    try:
        outputs: list[NDArray[Any]] = session.run(None, dict(zip(names, arrays, strict=True)))
    except Exception as error:  # the binding raises types of its own
        sizes = ", ".join("x".join(map(str, array.shape)) for array in arrays)
        raise WorkError(f"the exported model can't run on inputs of shape {sizes}") from error
    return outputs


def _relative_error(have: NDArray[Any], want: torch.Tensor, name: str) -> float:
    if have.shape != tuple(want.shape):
        raise WorkError(
            f"{name} of the exported model has shape {have.shape}, expected {tuple(want.shape)}"
        )
    if not want.is_floating_point():
        return 0.0 if np.array_equal(have, want.numpy()) else float("inf")
    first, second = have.astype(np.float64), want.double().numpy()
    finite = np.isfinite(second)
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True):
        return float("inf")
    difference = np.abs(first - second, where=finite, out=np.zeros_like(second))
    difference[finite & ~np.isfinite(first)] = np.inf
    return float(difference.max(initial=0.0) / _scale(second[finite]))


def _tolerance(want: torch.Tensor, exact: torch.Tensor | None) -> float:
    import torch

    if not want.is_floating_point():
        return 0.0
    epsilon = torch.finfo(want.dtype).eps
    if exact is None:
        return min(_TIMES_NOISE * _ROUNDINGS * epsilon, _MOST)
    second = want.double().numpy()
    finite = np.isfinite(second) & np.isfinite(exact.double().numpy())
    moved = np.abs(second[finite] - exact.double().numpy()[finite]).max(initial=0.0)
    noise = max(float(moved / _scale(second[finite])), epsilon)
    return min(_TIMES_NOISE * noise, _MOST)


def _scale(values: NDArray[np.float64]) -> float:
    return float(np.abs(values).max(initial=0.0)) or 1.0
