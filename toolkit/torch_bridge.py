"""From a pruned ONNX model back to the torch module it came from, to fine-tune it.

1. The module is copied. Its tensors get the values that the initializers of the same name have in
   the pruned model, with what the repair changed; what was tied stays tied.
2. The sizes that modules note beside their tensors follow.
3. The copy and the pruned model must give the same outputs at two batch sizes.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError, MissingExtraError, WorkError
from onnxtrim.export.from_torch import export_module
from onnxtrim.export.model_io import first_line, model_bytes
from onnxtrim.export.modules import evaluating
from onnxtrim.export.parity import module_outputs, parity
from onnxtrim.toolkit.apply import TrimResult
from onnxtrim.toolkit.apply import apply_plan as apply_to_model
from onnxtrim.toolkit.plan import Plan
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.repair import MeanFolding
from onnxtrim.toolkit.statistics import Statistics
from onnxtrim.toolkit.torch_blame import blame, first_difference
from onnxtrim.toolkit.torch_sizes import update_sizes
from onnxtrim.toolkit.torch_values import NO_REPAIR, Values, split

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4
"""Difference from the pruned ONNX model that is allowed, relative to the output's scale."""

COMBINATIONS = 32
"""Of sizes that the user's modules may note; most modules leave one."""

_USABLE = "the ONNX model is right and stays usable"


def apply_plan(
    module: torch.nn.Module,
    plan: Plan,
    example_inputs: Sequence[torch.Tensor],
    *,
    statistics: Statistics | None = None,
) -> torch.nn.Module:
    """Prune a torch module as a plan says.

    Args:
        module: What the plan's model was exported from, with the same weights; it stays as it is.
        plan: What leaves.
        example_inputs: The inputs with which it was exported.
        statistics: For the mean folding; ``None`` leaves the consumers as they are.

    Returns:
        A smaller copy that computes the same as the ONNX file to which the plan is applied.

    Raises:
        InputError: The plan was made for another model, or the module can't be that small.
        MissingExtraError: torch is not installed.
    """
    _require_torch()
    examples = tuple(example_inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.onnx"
        export_module(module, examples, path)
        prepared, _ = prepare(path)
        plan.require(prepared.analysis, prepared.sha256, "the plan")
        repair = None if statistics is None else MeanFolding(statistics)
        return write_back(apply_to_model(prepared, plan, repair), module, examples)


def write_back(
    result: TrimResult,
    module: torch.nn.Module,
    example_inputs: Sequence[torch.Tensor] | None = None,
) -> torch.nn.Module:
    """A copy of ``module`` without what was removed from the model exported from it.

    Args:
        result: The pruned model; all weights of the copy come from it.
        module: What was exported; it stays as it is.
        example_inputs: Inputs on which both are compared; the self-check's otherwise.

    Returns:
        The smaller module, its parts in the mode (training or evaluation) that they had.

    Raises:
        InputError: The module can't be that small, or its own code hard-codes sizes; then
            nothing is returned.
        MissingExtraError: torch is not installed.
    """
    _require_torch()
    values = Values(result, module)
    try:
        small = copy.deepcopy(module)
    except Exception as error:  # foreign code
        raise InputError(f"the module can't be copied ({first_line(error)})") from error
    _set_tensors(small, values)
    _set_added_biases(small, values)
    choices = update_sizes(small, values)
    first: InputError | None = None
    for sizes in itertools.islice(itertools.product(*(c.sizes for c in choices)), COMBINATIONS):
        for choice, size in zip(choices, sizes, strict=True):
            choice.take(size)
        try:
            _require_parity(result, small, values, example_inputs, explain=first is None)
        except InputError as error:
            first = first or error
        else:
            return small
    assert first is not None  # there is at least one combination
    raise first


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("writing back to torch", "torch") from error


def _set_tensors(small: torch.nn.Module, values: Values) -> None:
    """New values by name; names of one tensor keep sharing one if the values are still equal."""
    made: dict[int, list[tuple[NDArray[Any], torch.Tensor]]] = {}
    for name, old in values.tensors.items():
        array = values.new(name)
        if array is None:
            array = _beside_weight(values, name)
        if array is None:
            continue
        shared = made.setdefault(id(old), [])
        same = [tensor for known, tensor in shared if np.array_equal(known, array, equal_nan=True)]
        tensor = same[0] if same else _like(old, array)
        if not same:
            shared.append((array, tensor))
        owner, own = split(name)
        part = small.get_submodule(owner)
        if own in part._parameters:
            part._parameters[own] = cast("torch.nn.Parameter", tensor)
        else:
            part._buffers[own] = tensor


def _beside_weight(values: Values, name: str) -> NDArray[Any] | None:
    """A bias or the like that the model holds under another name: cut as the weight's rows."""
    if name not in values.missing:
        return None
    owner, own = split(name)
    weight = f"{owner}." if owner else ""
    weight += own.replace("bias", "weight") if own.startswith("bias_") else "weight"
    stays = values.kept.get(weight, {}).get(0)
    array: NDArray[Any] = values.tensors[name].detach().cpu().numpy()
    fits = stays is not None and array.shape == values.tensors[weight].shape[:1]
    return array[stays] if fits else None


def _like(old: torch.Tensor, array: NDArray[Any]) -> torch.Tensor:
    import torch

    data = torch.from_numpy(np.array(array)).to(device=old.device, dtype=old.dtype)
    if isinstance(old, torch.nn.Parameter):
        return torch.nn.Parameter(data, requires_grad=old.requires_grad)
    return data


def _set_added_biases(small: torch.nn.Module, values: Values) -> None:
    import torch

    done: set[str] = set()
    for owner, array in values.added_biases():
        part = small.get_submodule(owner)
        if not isinstance(part, torch.nn.Linear | torch.nn.modules.conv._ConvNd):
            raise InputError(
                f"the repair added a bias for which {owner or type(part).__name__} has no place;"
                f" {NO_REPAIR}"
            )
        if owner in done:
            raise InputError(
                f"{owner} is called more than once, and each call now needs another bias;"
                f" {NO_REPAIR}"
            )
        done.add(owner)
        bias = _like(part.weight, array)
        part.bias = cast("torch.nn.Parameter", bias)


def _require_parity(
    result: TrimResult,
    small: torch.nn.Module,
    values: Values,
    examples: Sequence[torch.Tensor] | None,
    *,
    explain: bool,
) -> None:
    """Compare with the pruned model, at two batch sizes if the batch is free.

    Raises:
        InputError: The module fails, or gives something else.
    """
    content = model_bytes(result.model)
    for inputs in _batches(result, small, examples):
        try:
            with evaluating(small):
                module_outputs(small, inputs)
        except Exception as error:  # foreign code
            raise InputError(f"{blame(error, small)}; {_USABLE}{_hint(values)}") from error
        try:
            parity(content, small, inputs, least=TOLERANCE)
        except WorkError as error:
            where = type(small).__name__
            if explain:
                where = first_difference(result.model, small, inputs)
            raise InputError(
                f"{where} computes something else than the pruned model, perhaps from a size that"
                f" is noted in its code or read from a shape; {_USABLE}{_hint(values)}"
            ) from error


def _batches(
    result: TrimResult, small: torch.nn.Module, examples: Sequence[torch.Tensor] | None
) -> list[tuple[torch.Tensor, ...]]:
    import torch

    inputs = result.prepared.inputs
    if examples is None:
        batches = [
            tuple(torch.from_numpy(np.array(feeds[spec.name])) for spec in inputs)
            for feeds in result.prepared.feeds
        ]
    else:
        batches = [tuple(examples)]
        if len(examples) != len(inputs) or not all(isinstance(x, torch.Tensor) for x in examples):
            raise InputError(f"example_inputs must be {len(inputs)} tensors, one per input")
        if all(spec.shape and not isinstance(spec.shape[0], int) for spec in inputs):
            batches.append(tuple(torch.cat([tensor, tensor[:1]]) for tensor in examples))
    first = next(iter(small.parameters()), None)
    device = "cpu" if first is None else first.device
    return [tuple(tensor.to(device) for tensor in batch) for batch in batches]


def _hint(values: Values) -> str:
    if not values.missing_weights:
        return ""
    return (
        f" (the model has no {values.missing_weights[0]!r}: it was not made by"
        " onnxtrim.export_module, or the weight is computed, as with weight_norm, which can be"
        " taken off first)"
    )
