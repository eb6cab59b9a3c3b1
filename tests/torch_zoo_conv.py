"""Torch nets made of convolutions: chains, residuals, norms, dense and grouped blocks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.torch_zoo_base import Family

NETS = Family()


@NETS.net("c1", (2, 3, 12, 16))
class Flat(nn.Module):
    """Convolutions, flatten, linear: a channel is a block of features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc1 = nn.Linear(16 * 3 * 4, 24)
        self.fc2 = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


@NETS.net("c3", (2, 5, 30))
class Chain1d(nn.Module):
    """A chain of 1-D convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(5, 16, 7, padding=3),
            nn.ReLU(),
            nn.Conv1d(16, 24, 5, stride=2, dilation=2),
            nn.BatchNorm1d(24),
            nn.ReLU(),
        )
        self.fc = nn.Linear(24, 7)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.features(x).mean(-1))


@NETS.net("convnext", (2, 3, 24, 32))
class ConvNeXt(nn.Module):
    """ConvNeXt block: depthwise, channels last, LayerNorm, GELU, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 22, 4, 4)
        self.dw = nn.Conv2d(22, 22, 7, padding=3, groups=22)
        self.norm = nn.LayerNorm(22, eps=1e-6)
        self.up = nn.Linear(22, 88)
        self.down = nn.Linear(88, 22)
        self.gamma = nn.Parameter(torch.rand(22) + 0.1)
        self.fc = nn.Linear(22, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        x = x + y.permute(0, 3, 1, 2)
        return self.fc(x.mean((-2, -1)))


class DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 2 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * growth)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Any:
        x = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(F.relu(self.norm2(x)))


@NETS.net("dense", (2, 3, 10, 8))
class DenseNet(nn.Module):
    """DenseNet: every layer sees all before it; norms over concatenations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 14, 3, padding=1, bias=False)
        self.layers = nn.ModuleList([DenseLayer(14 + 10 * i, 10) for i in range(3)])
        self.norm = nn.BatchNorm2d(44)
        self.transition = nn.Conv2d(44, 22, 1, bias=False)
        self.last = DenseLayer(22, 9)
        self.fc = nn.Linear(31, 7)

    def forward(self, x: Tensor) -> Any:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(features))
        x = self.transition(F.relu(self.norm(torch.cat(features, 1))))
        x = F.avg_pool2d(x, 2)
        x = torch.cat([x, self.last([x])], 1)
        return self.fc(F.adaptive_avg_pool2d(F.relu(x), 1).flatten(1))


@NETS.net("gn21", (2, 3, 9, 8))
class GroupNormed(nn.Module):
    """GroupNorm with 4 groups of 5 channels, then 3 groups of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 20, 3, padding=1)
        self.norm1 = nn.GroupNorm(4, 20)
        self.conv2 = nn.Conv2d(20, 12, 3, padding=1)
        self.norm2 = nn.GroupNorm(3, 12)
        self.head = nn.Conv2d(12, 7, 1)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.head(x)


@NETS.net("grp", (2, 3, 9, 8))
class Grouped(nn.Module):
    """ResNeXt block, then grouped convolutions with unlike inputs and outputs per group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.reduce = nn.Conv2d(24, 20, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(20)
        self.grouped = nn.Conv2d(20, 20, 3, padding=1, groups=4, bias=False)
        self.bn2 = nn.BatchNorm2d(20)
        self.expand = nn.Conv2d(20, 24, 1)
        self.widen = nn.Conv2d(24, 36, 3, groups=3)
        self.multiply = nn.Conv2d(36, 72, 3, groups=36)
        self.head = nn.Conv2d(72, 7, 1)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        y = F.relu(self.bn1(self.reduce(x)))
        y = F.relu(self.bn2(self.grouped(y)))
        x = F.relu(x + self.expand(y))
        x = F.relu(self.multiply(F.relu(self.widen(x))))
        return self.head(x).mean((2, 3))


class BasicBlock(nn.Module):
    def __init__(self, inp: int, mid: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inp, mid, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inp != out:
            conv = nn.Conv2d(inp, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Any:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


@NETS.net("res", (2, 3, 20, 16))
class ResNet(nn.Module):
    """ResNet: two blocks on one stream, one block that changes stream."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 20, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(20)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(20, 16, 20), BasicBlock(20, 18, 20))
        self.layer2 = BasicBlock(20, 36, 40, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


@NETS.net("respadA", (2, 3, 12, 10), standard=False)
class ResNetA(nn.Module):
    """ResNet for CIFAR, option A: the shortcut is strided and padded with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 22, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(22, 24, 3, padding=1)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv1(x))
        y = self.conv3(F.relu(self.conv2(x)))
        x = F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 5)))
        return self.fc(x.mean((2, 3)))


@NETS.net("trap", (2, 6, 9, 8))
class Traps(nn.Module):
    """Scalar gate, one-channel gate, layer called twice, one zero bias for two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(6, 14, 3, padding=1)
        self.twice = nn.Conv2d(14, 14, 3, padding=1)
        self.gate = nn.Conv2d(14, 1, 7, padding=3)
        self.alpha = nn.Parameter(torch.tensor(0.7))
        self.left = nn.Conv2d(14, 10, 3, padding=1)
        self.right = nn.Conv2d(14, 10, 1)
        self.right.bias = self.left.bias
        nn.init.zeros_(self.right.bias)  # type: ignore[arg-type]
        self.mix1 = nn.Conv2d(10, 12, 1)
        self.mix2 = nn.Conv2d(10, 11, 1)
        self.head = nn.Conv2d(23, 7, 1)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        x = F.relu(self.twice(F.relu(self.twice(x))))
        x = x * torch.sigmoid(self.gate(x)) + torch.tanh(self.alpha) * x
        places = self.gate(x).flatten(2).softmax(-1).view(-1, 1, x.shape[2], x.shape[3])
        x = x + (x * places).sum((2, 3), keepdim=True)
        left, right = F.relu(self.left(x)), F.relu(self.right(x))
        return self.head(F.relu(torch.cat([self.mix1(left), self.mix2(right)], 1)))


@NETS.net("eq_zero_bias", (2, 9))
class EqualBias(nn.Module):
    """Unrelated layers with biases of equal values, which an exporter may make one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(9, 26)
        self.fc2 = nn.Linear(26, 26)
        self.fc3 = nn.Linear(26, 26)
        self.fc4 = nn.Linear(26, 5)
        for layer in (self.fc1, self.fc2, self.fc3):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc4(F.relu(self.fc3(x)))
