"""What a net of the torch zoo is, and how a family of nets is collected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
ModuleType = TypeVar("ModuleType", bound=type[nn.Module])

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class TorchNet:
    """A small torch net.

    Attributes:
        build: Makes the module, in evaluation mode; call ``torch.manual_seed`` before.
        inputs: Example shape of each input, axis 0 the samples.
        standard: Whether ``forward`` hard-codes no prunable size, so that pruned weights could be
            written back into the module.
        about: What it exercises, in a line.
        vocabularies: Empty: all inputs are float32. Otherwise one number per input: 0 for
            float32, n for int64 tokens below n.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[Shape, ...]
    standard: bool
    about: str
    vocabularies: tuple[int, ...] = ()

    def examples(self, seed: int = 0, batch: int | None = None) -> tuple[Tensor, ...]:
        """Random inputs: normal, or tokens; ``batch`` replaces the number of samples."""
        generator = torch.Generator().manual_seed(seed)
        made = []
        for index, shape in enumerate(self.inputs):
            size = shape if batch is None else (batch, *shape[1:])
            vocabulary = self.vocabularies[index] if self.vocabularies else 0
            if vocabulary:
                made.append(torch.randint(vocabulary, size, generator=generator))
            else:
                made.append(torch.randn(size, generator=generator))
        return tuple(made)


class Family(dict[str, TorchNet]):
    """Nets by name."""

    def add(
        self,
        name: str,
        build: Callable[[], nn.Module],
        *inputs: Shape,
        about: str,
        standard: bool = True,
        vocabularies: tuple[int, ...] = (),
    ) -> None:
        """Add what ``build`` makes, with trained-looking norms."""
        if name in self:
            raise ValueError(f"two nets are called {name}")
        self[name] = TorchNet(lambda: lived_in(build()), inputs, standard, about, vocabularies)

    def net(
        self,
        name: str,
        *inputs: Shape,
        standard: bool = True,
        vocabularies: tuple[int, ...] = (),
    ) -> Callable[[ModuleType], ModuleType]:
        """Add the decorated class; its docstring says what it exercises."""

        def register(module: ModuleType) -> ModuleType:
            about = (module.__doc__ or "").strip()
            self.add(
                name, module, *inputs, about=about, standard=standard, vocabularies=vocabularies
            )
            return module

        return register


def lived_in(module: nn.Module) -> nn.Module:
    """Move what starts at 0 or 1, as training would; otherwise mistakes there stay unseen.

    Larger weights and mostly positive biases keep the units alive behind a ReLU. Biases that a
    net sets to zero stay.
    """
    with torch.no_grad():
        for part in module.modules():
            own = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers())}
            if isinstance(part, _NORMS):
                _fill(own.get("weight"), 0.5, 1.5)
                _fill(own.get("bias"), -0.2, 0.8)
                _fill(own.get("running_mean"), -0.4, 0.4)
                _fill(own.get("running_var"), 0.5, 2.0)
            elif isinstance(part, nn.PReLU):
                _fill(own.get("weight"), 0.1, 0.4)
            elif isinstance(part, nn.MultiheadAttention):
                _fill(own.get("in_proj_bias"), -0.4, 0.4)
                _fill(part.out_proj.bias, -0.4, 0.4)
            elif isinstance(part, _LAYERS):
                part.weight.mul_(1.7)
                if part.bias is not None and part.bias.any():
                    _fill(part.bias, 0.0, 1.0)
    return module.eval()


def _fill(tensor: Tensor | None, low: float, high: float) -> None:
    if tensor is not None:
        tensor.uniform_(low, high)
