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


class SqueezeExcite(nn.Module):
    """Weights of the channels from their means (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, h, w) → the same shape."""
        y = torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * nn.functional.hardsigmoid(self.expand(y))


class InvertedBlock(nn.Module):
    """Expansion, depthwise convolution, squeeze-excite, projection (Howard et al. 2019)."""

    def __init__(self, inputs: int, wide: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inputs, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.excite = SqueezeExcite(wide)
        self.project = nn.Conv2d(wide, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs, h, w) → (n, outputs, h / stride, w / stride)."""
        y = nn.functional.hardswish(self.bn1(self.expand(x)))
        y = self.excite(nn.functional.hardswish(self.bn2(self.depthwise(y))))
        y = self.bn3(self.project(y))
        result: torch.Tensor = x + y if self.skips else y
        return result


class DepthwiseCnn(nn.Module):
    """Six inverted blocks with squeeze-excite for images of 28x28 pixels; 187,554 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish()
        )
        self.blocks = nn.Sequential(
            InvertedBlock(16, 64, 24, 1),
            InvertedBlock(24, 96, 24, 1),
            InvertedBlock(24, 96, 40, 2),
            InvertedBlock(40, 192, 40, 1),
            InvertedBlock(40, 192, 40, 1),
            InvertedBlock(40, 224, 64, 1),
        )
        self.last = nn.Sequential(
            nn.Conv2d(64, 448, 1, bias=False), nn.BatchNorm2d(448), nn.Hardswish()
        )
        self.head = nn.Linear(448, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 28, 28) → (n, 10)."""
        return self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))  # type: ignore[no-any-return]


class EncoderBlock(nn.Module):
    """Self-attention and a feed-forward network, each after a layer normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, tokens, width) → the same shape."""
        y = self.norm1(x)
        query, key, value = (
            part(y).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        y = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.output(y.transpose(1, 2).flatten(2))
        result: torch.Tensor = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return result


class VisionTransformer(nn.Module):
    """Patches of 4x4 pixels, four blocks of width 64 (Dosovitskiy et al. 2021), mean of tokens."""

    def __init__(self, width: int = 64, blocks: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(1, 49, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 28, 28) → (n, 10)."""
        y = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(y)).mean(1))  # type: ignore[no-any-return]


class Crnn(nn.Module):
    """Two convolutions, then the columns as a sequence through two LSTMs (Shi et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, (2, 1), 1), nn.ReLU()
        )
        self.both = nn.LSTM(48 * 7, 96, batch_first=True, bidirectional=True)
        self.last = nn.LSTM(2 * 96, 96, batch_first=True)
        self.head = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 28, 28) → (n, 10)."""
        columns = self.features(x).permute(0, 3, 1, 2).flatten(2)
        y = self.last(self.both(columns)[0])[0]
        return self.head(y.mean(1))  # type: ignore[no-any-return]


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
