"""The whole way of a net of the torch zoo: prune, write back, fine-tune, export, prune again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from onnxtrim.bench.errors import InputError
from onnxtrim.export.from_torch import export_module
from onnxtrim.export.model_io import model_bytes
from onnxtrim.export.parity import module_outputs, parity
from onnxtrim.toolkit.apply import TrimResult, apply_plan
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.torch_bridge import TOLERANCE
from tests.torch_plans import random_plan
from tests.torch_zoo import TORCH_ZOO, TorchNet


@dataclass(frozen=True)
class Trip:
    """What happened to a net.

    Attributes:
        net: Its name.
        standard: Whether its code hard-codes no size.
        before: Parameters of the module.
        after: Of the smaller one; ``None`` if it was refused.
        refusal: The error.
        parity: Largest relative difference from the pruned ONNX model, at two batch sizes.
        tuned: Whether one step of SGD changed parameters with a finite loss.
        again: Parameters after exporting, pruning and writing back once more; ``None`` untried.
        first_stage: Where two stages (heads, then head dimensions) were refused, the parameters
            that the first alone leaves; ``None`` if that was refused, too.
    """

    net: str
    standard: bool
    before: int
    after: int | None = None
    refusal: str | None = None
    parity: float | None = None
    tuned: bool | None = None
    again: int | None = None
    first_stage: int | None = None


def round_trip(name: str, folder: Path, *, again: bool) -> Trip:
    """Remove two fifths of every group, in one stage or two, and write it back.

    Args:
        name: A net of the zoo.
        folder: Where its export is kept.
        again: Whether to export, prune and write back the fine-tuned module, too.
    """
    net = TORCH_ZOO[name]
    torch.manual_seed(0)
    module = net.build()
    path = folder / f"{name}.onnx"
    if not path.exists():
        export_module(module, net.examples(), path)
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    trip = Trip(name, net.standard, _count(module))
    result = pruned(path, 0.4, 0)
    try:
        small = result.to_torch(module, net.examples())
    except InputError as error:
        two = again and len(result.plan.stages) > 1
        left = _first_stage(path, module, net) if two else None
        return replace(trip, refusal=str(error), first_stage=left)
    finally:
        assert all(torch.equal(tensor, state[key]) for key, tensor in module.state_dict().items())
    trip = replace(
        trip,
        after=_count(small),
        parity=largest_error(result, small, net),
        tuned=fine_tune(small, net),
    )
    if not again:
        return trip
    path = folder / f"{name}-again.onnx"
    export_module(small.eval(), net.examples(), path)
    smallest = pruned(path, 0.3, 1).to_torch(small, net.examples())
    return replace(trip, again=_count(smallest))


def _first_stage(path: Path, module: nn.Module, net: TorchNet) -> int | None:
    try:
        return _count(pruned(path, 0.4, 0, stages=1).to_torch(module, net.examples()))
    except InputError:
        return None


def pruned(path: Path, share: float, seed: int, stages: int = 2) -> TrimResult:
    """Remove a share of the units of every group of a file."""
    prepared, _ = prepare(path)
    return apply_plan(prepared, random_plan(prepared, share, seed, stages), deep=False)


def largest_error(result: TrimResult, small: nn.Module, net: TorchNet) -> float:
    """Difference of a module from the pruned model at the net's batch size and at another."""
    content = model_bytes(result.model)
    return max(
        parity(content, small, net.examples(3, batch), least=TOLERANCE) for batch in (None, 5)
    )


def fine_tune(small: nn.Module, net: TorchNet) -> bool:
    """One step of SGD on random targets, in training mode."""
    small.train()
    before = [parameter.detach().clone() for parameter in small.parameters()]
    optimiser = torch.optim.SGD([p for p in small.parameters() if p.requires_grad], lr=1e-3)
    outputs = _floats(small(*net.examples(4)))
    loss = torch.stack([(o - torch.randn_like(o)).square().mean() for o in outputs]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    small.eval()
    changed = any(
        not torch.equal(one, other.detach())
        for one, other in zip(before, small.parameters(), strict=True)
    )
    finite = all(bool(o.isfinite().all()) for o in module_outputs(small, net.examples()))
    return bool(loss.isfinite()) and changed and finite


def _floats(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.requires_grad else []
    parts = value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in _floats(part)]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
