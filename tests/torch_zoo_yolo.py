"""Torch nets made of the parts of YOLO detectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.torch_zoo_base import Family

NETS = Family()


class Conv(nn.Module):
    def __init__(self, inp: int, out: int, k: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inp, out, k, stride, k // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Any:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, mid: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, mid, 3)
        self.cv2 = Conv(mid, channels, 3)
        self.add = shortcut

    def forward(self, x: Tensor) -> Any:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C2f(nn.Module):
    def __init__(self, inp: int, out: int, c: int, mids: tuple[int, ...], shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(inp, 2 * c)
        self.m = nn.ModuleList(Bottleneck(c, mid, shortcut) for mid in mids)
        self.cv2 = Conv((2 + len(mids)) * c, out)

    def forward(self, x: Tensor) -> Any:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class SPPF(nn.Module):
    def __init__(self, inp: int, mid: int, out: int) -> None:
        super().__init__()
        self.cv1 = Conv(inp, mid)
        self.cv2 = Conv(mid * 4, out)
        self.m = nn.MaxPool2d(kernel_size=5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Any:
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class DFL(nn.Module):
    def __init__(self, bins: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(bins, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data[:] = torch.arange(bins, dtype=torch.float).view(1, bins, 1, 1)
        self.bins = bins

    def forward(self, x: Tensor) -> Any:
        b, _, a = x.shape
        x = x.view(b, 4, self.bins, a).transpose(2, 1).softmax(1)
        return self.conv(x).view(b, 4, a)


class Detect(nn.Module):
    """Boxes by DFL and class scores, per place."""

    def __init__(self, channels: int, box: int, cls: int, classes: int) -> None:
        super().__init__()
        self.cv2 = nn.Sequential(Conv(channels, box, 3), nn.Conv2d(box, 64, 1))
        self.cv3 = nn.Sequential(Conv(channels, cls, 3), nn.Conv2d(cls, classes, 1))
        self.no = classes + 64
        self.dfl = DFL()

    def forward(self, x: Tensor) -> Any:
        x = torch.cat((self.cv2(x), self.cv3(x)), 1)
        x = x.view(x.shape[0], self.no, -1)
        box, cls = torch.split(x, [64, self.no - 64], 1)
        return torch.cat((self.dfl(box), cls.sigmoid()), 1)


@NETS.net("c2f", (2, 3, 12, 10), standard=False)
class C2fNet(nn.Module):
    """C2f: the second half of the channels feeds bottlenecks, all parts are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            Conv(3, 14, 3), C2f(14, 24, 10, (8, 9), True), C2f(24, 18, 7, (6,), False)
        )
        self.head = nn.Conv2d(18, 5, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.model(x))


@NETS.net("sppf", (2, 3, 12, 10))
class SppfNet(nn.Module):
    """SPPF: four times the same channels in one concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(Conv(3, 14, 3), SPPF(14, 10, 22))
        self.head = nn.Conv2d(22, 5, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.model(x))


@NETS.net("dfl", (2, 3, 6, 7))
class DflNet(nn.Module):
    """Detection head: softmax over 16 bins, then a convolution; class scores beside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 14, 3)
        self.detect = Detect(14, 18, 10, 5)

    def forward(self, x: Tensor) -> Any:
        return self.detect(self.stem(x))


@NETS.net("yolo", (2, 3, 24, 20), standard=False)
class Yolo(nn.Module):
    """A detector: C2f, SPPF, upsampling with a skip, head with DFL."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 12, 3, 2)
        self.stage1 = C2f(12, 20, 9, (8,), True)
        self.down = Conv(20, 26, 3, 2)
        self.stage2 = nn.Sequential(C2f(26, 28, 11, (10,), True), SPPF(28, 13, 30))
        self.up = nn.Upsample(scale_factor=2)
        self.stage3 = C2f(30 + 20, 22, 10, (9,), False)
        self.detect = Detect(22, 18, 16, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.stage1(self.stem(x))
        y = self.up(self.stage2(self.down(x)))
        return self.detect(self.stage3(torch.cat([y, x], 1)))
