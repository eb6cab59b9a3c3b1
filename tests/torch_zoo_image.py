"""Torch nets that change an image's size or its channels' meaning: shuffles, resizing, gates."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.torch_zoo_base import Family

NETS = Family()


@NETS.net("pixsh", (2, 3, 7, 6))
class PixelShuffled(nn.Module):
    """Super resolution: a residual trunk, PixelShuffle by 2, then by 3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 18, 3, padding=1)
        self.conv1 = nn.Conv2d(18, 22, 3, padding=1)
        self.conv2 = nn.Conv2d(22, 18, 3, padding=1)
        self.up1 = nn.Conv2d(18, 16 * 4, 3, padding=1)
        self.shuffle1 = nn.PixelShuffle(2)
        self.up2 = nn.Conv2d(16, 3 * 9, 3, padding=1)
        self.shuffle2 = nn.PixelShuffle(3)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        x = x + self.conv2(F.relu(self.conv1(x)))
        x = F.relu(self.shuffle1(self.up1(x)))
        return self.shuffle2(self.up2(x))


@NETS.net("pixunsh", (2, 3, 12, 8))
class PixelUnshuffled(nn.Module):
    """PixelUnshuffle between convolutions: a channel becomes four."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3, padding=1)
        self.unshuffle = nn.PixelUnshuffle(2)
        self.conv2 = nn.Conv2d(40, 14, 3, padding=1)
        self.head = nn.Conv2d(14, 5, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.unshuffle(F.relu(self.conv1(x)))
        return self.head(F.relu(self.conv2(x)))


@NETS.net("gconvt", (2, 4, 7, 6))
class GroupedTranspose(nn.Module):
    """Grouped and depthwise ConvTranspose with GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 18, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(18, 24, 4, stride=2, padding=1, groups=3)
        self.norm = nn.GroupNorm(4, 24)
        self.up2 = nn.ConvTranspose2d(24, 24, 3, padding=1, groups=24)
        self.head = nn.ConvTranspose2d(24, 5, 2, stride=2)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        x = F.relu(self.norm(self.up1(x)))
        return self.head(F.relu(self.up2(x)))


@NETS.net("bilin_size", (2, 3, 13, 10))
class ResizedToSize(nn.Module):
    """FPN: bilinear interpolation to another tensor's size, and to the input's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 14, 3, padding=1)
        self.conv2 = nn.Conv2d(14, 20, 3, stride=2, padding=1)
        self.lateral1, self.lateral2 = nn.Conv2d(14, 18, 1), nn.Conv2d(20, 18, 1)
        self.head = nn.Conv2d(18, 5, 3, padding=1, stride=2)

    def forward(self, x: Tensor) -> Any:
        size = x.shape[-2:]
        x = F.relu(self.conv1(x))
        y = self.lateral2(F.relu(self.conv2(x)))
        y = F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        y = self.head(F.relu(self.lateral1(x) + y))
        return F.interpolate(y, size=size, mode="bilinear", align_corners=True)


@NETS.net("bilin_scale", (2, 3, 8, 10))
class ResizedByFactor(nn.Module):
    """Bilinear and bicubic interpolation by a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 14, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(14, 18, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2, mode="bicubic", align_corners=False)
        self.head = nn.Conv2d(18, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv1(x))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(self.up(F.relu(self.conv2(x))))


@NETS.net("inorm", (2, 3, 11, 14))
class StyleTransfer(nn.Module):
    """Style transfer: reflection padding, InstanceNorm with and without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.conv1 = nn.Conv2d(3, 14, 3)
        self.in1 = nn.InstanceNorm2d(14, affine=True)
        self.conv2 = nn.Conv2d(14, 18, 3)
        self.in2 = nn.InstanceNorm2d(18)
        self.conv3 = nn.Conv2d(18, 14, 3)
        self.in3 = nn.InstanceNorm2d(14, affine=True)
        self.head = nn.Conv2d(14, 5, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.in1(self.conv1(self.pad(x))))
        y = F.relu(self.in2(self.conv2(self.pad(x))))
        x = x + self.in3(self.conv3(self.pad(y)))
        return torch.tanh(self.head(x))


@NETS.net("prelu", (2, 3, 9, 8))
class PReLUs(nn.Module):
    """PReLU with one slope per channel, behind a convolution and behind a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(3, 14, 3), nn.PReLU(14)
        self.conv2, self.act2 = nn.Conv2d(14, 18, 3), nn.PReLU()
        self.fc1, self.act3 = nn.Linear(18, 22), nn.PReLU(22)
        self.fc2 = nn.Linear(22, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.fc2(self.act3(self.fc1(x.mean((2, 3)))))


@NETS.net("glu", (2, 3, 9, 8))
class Gated(nn.Module):
    """F.glu over the channels and over the features: unit i leaves with its gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, 3)
        self.conv2 = nn.Conv2d(14, 20, 3)
        self.fc1 = nn.Linear(20, 36)
        self.fc2 = nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Any:
        x = F.glu(self.conv1(x), dim=1)
        x = F.relu(self.conv2(x)).mean((2, 3))
        return self.fc2(F.glu(self.fc1(x)))


@NETS.net("avgdrop", (2, 3, 12, 16))
class PooledDropped(nn.Module):
    """AlexNet-like: adaptive pooling to 3 by 4, dropout, flatten, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 10, 3, padding=1),
            nn.ELU(),
            nn.AvgPool2d(2),
            nn.Dropout2d(0.2),
            nn.Conv2d(10, 14, 3, padding=1),
            nn.Softplus(),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((3, 4))
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(14 * 12, 30), nn.ReLU(inplace=True), nn.Linear(30, 10)
        )

    def forward(self, x: Tensor) -> Any:
        x = self.avgpool(self.features(x))
        return self.classifier(x.view(x.size(0), -1))


@NETS.net("c3d", (2, 2, 6, 10, 8))
class Conv3d(nn.Module):
    """Video: 3-D convolutions, pooling and norm, a transposed one, flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(2, 10, 3, padding=1)
        self.bn1 = nn.BatchNorm3d(10)
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.conv2 = nn.Conv3d(10, 14, (3, 1, 2), stride=2)
        self.up = nn.ConvTranspose3d(14, 9, 2)
        self.fc = nn.Linear(9 * 3 * 4 * 3, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = F.relu(self.up(F.relu(self.conv2(x))))
        return self.fc(x.flatten(1))
