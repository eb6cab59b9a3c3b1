"""Torch nets for small devices and images: depthwise, squeeze-excite, shuffles, U-Net, YOLO."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.torch_zoo_base import Family

NETS = Family()


def conv_bn(inp: int, out: int, k: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inp, out, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


@NETS.net("mb2", (2, 3, 14, 12))
class MobileNetV2(nn.Module):
    """MobileNetV2: two inverted residuals, one with the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 14, 3, 2), nn.ReLU6(inplace=True))
        self.block = nn.Sequential(
            conv_bn(14, 40),
            nn.ReLU6(inplace=True),
            conv_bn(40, 40, 3, groups=40),
            nn.ReLU6(inplace=True),
            conv_bn(40, 14),
        )
        self.down = nn.Sequential(
            conv_bn(14, 36),
            nn.ReLU6(inplace=True),
            conv_bn(36, 36, 3, 2, groups=36),
            nn.ReLU6(inplace=True),
            conv_bn(36, 22),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(22, 10))

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        x = self.down(x + self.block(x))
        x = F.adaptive_avg_pool2d(x, (1, 1))
        return self.classifier(torch.flatten(x, 1))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int, gate: nn.Module) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Any:
        scale = self.fc2(F.relu(self.fc1(self.avgpool(x))))
        return self.gate(scale) * x


@NETS.net("se", (2, 3, 10, 9))
class Excited(nn.Module):
    """Squeeze and excitation by linear layers and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 20, 3, padding=1)
        self.squeeze = nn.Linear(20, 6)
        self.excite = nn.Linear(6, 20)
        self.conv2 = nn.Conv2d(20, 26, 3)
        self.fc = nn.Linear(26, 7)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv1(x))
        b, c = x.shape[:2]
        gate = F.adaptive_avg_pool2d(x, 1).view(b, c)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(gate)))).view(b, c, 1, 1)
        x = F.relu(self.conv2(x * gate.expand_as(x)))
        return self.fc(x.mean((2, 3)))


@NETS.net("mnv3", (2, 3, 16, 14))
class MobileNetV3(nn.Module):
    """MobileNetV3: hard swish, squeeze-excite by hard sigmoid, 5x5 depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 12, 3, 2), nn.Hardswish(inplace=True))
        self.block1 = nn.Sequential(
            conv_bn(12, 30),
            nn.ReLU(inplace=True),
            conv_bn(30, 30, 3, groups=30),
            nn.ReLU(inplace=True),
            SqueezeExcite(30, 8, nn.Hardsigmoid()),
            conv_bn(30, 12),
        )
        self.block2 = nn.Sequential(
            conv_bn(12, 34),
            nn.Hardswish(inplace=True),
            conv_bn(34, 34, 5, 2, groups=34),
            nn.Hardswish(inplace=True),
            SqueezeExcite(34, 9, nn.Hardsigmoid()),
            conv_bn(34, 18),
        )
        self.last = nn.Sequential(conv_bn(18, 44), nn.Hardswish())
        self.classifier = nn.Sequential(
            nn.Linear(44, 28), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(28, 10)
        )

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        x = self.last(self.block2(x + self.block1(x)))
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    x = x.view(b, groups, c // groups, h, w)
    return x.transpose(1, 2).contiguous().view(b, c, h, w)


@NETS.net("shv1", (2, 6, 10, 9), standard=False)
class ShuffleNetV1(nn.Module):
    """ShuffleNet v1: grouped 1x1, shuffle, depthwise, grouped 1x1, identity."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(6, 24, 3)
        self.reduce = conv_bn(24, 18, groups=3)
        self.dw = conv_bn(18, 18, 3, groups=18)
        self.expand = conv_bn(18, 24, groups=3)
        self.head = nn.Conv2d(24, 7, 1)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        y = channel_shuffle(F.relu(self.reduce(x)), 3)
        x = F.relu(x + self.expand(self.dw(y)))
        return self.head(x).mean((2, 3))


@NETS.net("shv2", (2, 3, 10, 9), standard=False)
class ShuffleNetV2(nn.Module):
    """ShuffleNet v2: half of the channels pass, concatenation, shuffle; twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 28, 3)
        self.branches = nn.ModuleList(
            nn.Sequential(
                conv_bn(14, mid),
                nn.ReLU(),
                conv_bn(mid, mid, 3, groups=mid),
                conv_bn(mid, 14),
                nn.ReLU(),
            )
            for mid in (18, 20)
        )
        self.head = nn.Conv2d(28, 32, 1)
        self.fc = nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        for branch in self.branches:
            x1, x2 = x.chunk(2, dim=1)
            x = channel_shuffle(torch.cat((x1, branch(x2)), dim=1), 2)
        return self.fc(F.relu(self.head(x)).mean((2, 3)))


class DoubleConv(nn.Module):
    def __init__(self, inp: int, mid: int, out: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_bn(inp, mid, 3), conv_bn(mid, out, 3)

    def forward(self, x: Tensor) -> Any:
        return F.relu(self.conv2(F.relu(self.conv1(x))))


@NETS.net("unet", (2, 3, 16, 12))
class UNet(nn.Module):
    """U-Net: pooled encoder, ConvTranspose and upsampling, skips by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1 = DoubleConv(3, 10, 14)
        self.enc2 = DoubleConv(14, 20, 22)
        self.mid = DoubleConv(22, 34, 32)
        self.up2 = nn.ConvTranspose2d(32, 18, 2, stride=2)
        self.dec2 = DoubleConv(18 + 22, 24, 26)
        self.up1 = nn.Upsample(scale_factor=2, mode="nearest")
        self.dec1 = DoubleConv(26 + 14, 16, 12)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Any:
        e1 = self.enc1(x)
        e2 = self.enc2(F.max_pool2d(e1, 2))
        x = self.mid(F.max_pool2d(e2, 2))
        x = self.dec2(torch.cat([e2, self.up2(x)], 1))
        x = self.dec1(torch.cat([self.up1(x), e1], 1))
        return self.head(x)
