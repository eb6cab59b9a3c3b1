"""Networks for benchmarks, tests and the README; untrained, without arguments for the command."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a residual connection (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs, h, w) → (n, outputs, h / stride, w / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + self.shortcut(x)
        return torch.relu(y)


class ResidualCnn(nn.Module):
    """Three stages of two basic blocks for images of 28x28 pixels; 696,042 parameters.

    Args:
        channels: Channels of each stage.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels[0], 3, 1, 1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        inputs = channels[0]
        for stage, outputs in enumerate(channels):
            blocks.append(BasicBlock(inputs, outputs, 1 if stage == 0 else 2))
            blocks.append(BasicBlock(outputs, outputs, 1))
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 28, 28) → (n, 10)."""
        y = self.blocks(self.stem(x))
        return self.head(y.mean((2, 3)))  # type: ignore[no-any-return]


def residual_cnn() -> nn.Module:
    """An untrained :class:`ResidualCnn`."""
    torch.manual_seed(0)
    return ResidualCnn()


def mlp() -> nn.Module:
    """An untrained MLP 784-1024-512-256-10, the network of the demo."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 1024),
        nn.ReLU(),
        nn.Linear(1024, 512),
        nn.ReLU(),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )
