"""Which part of a module, and which line of its code, does not go along with a pruning."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.export.model_io import first_line
from onnxtrim.export.modules import evaluating
from onnxtrim.toolkit.graph.execute import Prober, tensor_values
from onnxtrim.toolkit.torch_values import scopes

if TYPE_CHECKING:
    import torch

_OURS = {"torch", "onnxtrim"} | sys.stdlib_module_names
_DIFFERENT = 1e-3  # of the scale; a wrong size does more


def blame(error: BaseException, module: torch.nn.Module) -> str:
    """The innermost line of the user's code that an error came through, in words.

    ::

        ShuffleNetV1.forward (nets.py:139) works with fixed sizes: shape '[2, 3, 6]' is invalid
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    users = [(frame, line) for frame, line in frames if _is_users(frame)]
    part = _innermost_part([frame for frame, _ in frames], module)
    if users:
        frame, line = users[-1]
        code = frame.f_code
        owner = frame.f_locals.get("self")
        name = code.co_name if owner is None else f"{type(owner).__name__}.{code.co_name}"
        where = f"{name} ({Path(code.co_filename).name}:{line})"
        part = _innermost_part([frame for frame, _ in users], module)
        where += f", in {part!r}," if part else ""
    else:
        where = _described(module, part)
    return f"{where} works with fixed sizes: {first_line(error)}"


def _is_users(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package not in _OURS or package == "__main__"


def _innermost_part(frames: Sequence[FrameType], module: torch.nn.Module) -> str:
    names = {id(part): name for name, part in module.named_modules()}
    found = [names.get(id(frame.f_locals.get("self"))) for frame in frames]
    return next((name for name in reversed(found) if name is not None), "")


def _described(module: torch.nn.Module, name: str) -> str:
    kind = type(module.get_submodule(name)).__name__
    return f"{kind} {name!r}" if name else kind


def first_difference(
    model: ir.Model, module: torch.nn.Module, inputs: Sequence[torch.Tensor]
) -> str:
    """The first part of a module whose output is not the one that the model has there.

    The model's nodes say in which part of the module torch ran them; without that it is the
    whole module.
    """
    last: dict[str, str] = {}
    known = {value.name for value in tensor_values(model)}
    for node in model.graph:
        name = node.outputs[0].name or ""
        if name in known:
            last.update({scope: name for scope in scopes(node) if scope})
    feeds = {
        value.name or "": tensor.detach().cpu().numpy()
        for value, tensor in zip(model.graph.inputs, inputs, strict=True)
    }
    found = Prober(model).probe(list(dict.fromkeys(last.values()))).run(feeds)
    for name, output in _outputs(module, inputs):
        if name in last and _differ(found[last[name]], output):
            return _in_code_of_the_user(module, name)
    return _described(module, "")


def _in_code_of_the_user(module: torch.nn.Module, name: str) -> str:
    """Torch's own modules compute what they are told: who calls them is meant."""
    parts = dict(module.named_modules())
    caller = name
    while caller and type(parts[caller]).__module__.startswith("torch.nn."):
        caller = caller.rpartition(".")[0]
    place = "" if caller == name else f", up to {name!r},"
    return f"{type(parts[caller]).__name__}.forward{place}"


def _outputs(
    module: torch.nn.Module, inputs: Sequence[torch.Tensor]
) -> list[tuple[str, NDArray[Any]]]:
    """What the parts return that are called once, in the order in which they finish."""
    import torch

    calls: list[tuple[str, NDArray[Any]]] = []

    def remember(name: str) -> Any:
        def hook(_: object, __: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                calls.append((name, output.detach().cpu().numpy().copy()))

        return hook

    hooks = [part.register_forward_hook(remember(name)) for name, part in module.named_modules()]
    try:
        with evaluating(module), torch.no_grad():
            module(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
    names = [name for name, _ in calls]
    return [(name, output) for name, output in calls if names.count(name) == 1]


def _differ(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape:
        return True
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
    scale = float(np.abs(one.astype(np.float64)).max(initial=0.0)) or 1.0
    return not bool(difference.max(initial=0.0) <= _DIFFERENT * scale)
