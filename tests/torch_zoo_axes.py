"""Torch nets with one operator over the channel axis, and nets whose sizes are all equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.torch_zoo_base import Family

NETS = Family()


class OverChannels(nn.Module):
    """Convolutions of 12 and 16 channels, an operator over the 16, a convolution."""

    def __init__(self, operator: Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 16, 3, padding=1)
        self.operator = operator
        self.head = nn.Conv2d(channels, 5, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.conv2(F.relu(self.conv1(x)))
        return self.head(self.operator(x))


OPERATORS: dict[str, tuple[int, str, Callable[[Tensor], Tensor]]] = {
    "amax": (1, "maximum", lambda x: x.amax(1, keepdim=True)),
    "argmax": (1, "index of the largest", lambda x: x.argmax(1, keepdim=True).float()),
    "cumsum": (16, "running sum", lambda x: x.cumsum(1)),
    "flip": (16, "reversed order", lambda x: x.flip(1)),
    "l2": (16, "division by the Euclidean norm", lambda x: F.normalize(x, dim=1)),
    "lrn": (16, "local response norm", lambda x: F.local_response_norm(x, 5, alpha=2.0)),
    "mean": (1, "mean", lambda x: x.mean(1, keepdim=True)),
    "prod": (1, "product", lambda x: (1 + x / 4).prod(1, keepdim=True)),
    "roll": (16, "cyclic shift", lambda x: x.roll(3, 1)),
    "softmax": (16, "softmax", lambda x: x.softmax(1)),
    "sum": (1, "sum", lambda x: x.sum(1, keepdim=True)),
    "topk": (7, "the seven largest", lambda x: x.topk(7, dim=1).values),
}

for _name, (_channels, _about, _operator) in OPERATORS.items():
    NETS.add(
        f"ax_{_name}",
        lambda operator=_operator, channels=_channels: OverChannels(operator, channels),  # type: ignore[misc]
        (2, 3, 8, 9),
        about=f"Over the channels: {_about}.",
        standard=_name not in ("roll", "topk"),
    )


@NETS.net("ax_stride", (2, 3, 8, 9), standard=False)
class Stride(nn.Module):
    """Every second channel to one branch, the others to another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 16, 1)
        self.even = nn.Conv2d(8, 6, 3)
        self.odd = nn.Conv2d(8, 5, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return torch.cat([self.even(x[:, ::2]), self.odd(x[:, 1::2])], 1)


@NETS.net("ax_square", (2, 3, 6, 7))
class Gram(nn.Module):
    """Gram matrix of the channels, flattened: one axis is the square of the units."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 12, 1)
        self.fc = nn.Linear(12 * 12, 5)

    def forward(self, x: Tensor) -> Any:
        x = self.conv2(F.relu(self.conv1(x))).flatten(2)
        gram = x @ x.transpose(1, 2) / x.shape[2]
        return self.fc(gram.flatten(1))


@NETS.net("ax_square2", (2, 3, 6, 7))
class GramOfTwo(nn.Module):
    """Products of two branches' channels: one axis is averaged, the other goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1)
        self.left = nn.Conv2d(12, 16, 3, padding=1)
        self.right = nn.Conv2d(12, 20, 1)
        self.fc = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv1(x))
        a, b = self.left(x).flatten(2), self.right(x).flatten(2)
        return self.fc((a @ b.transpose(1, 2)).mean(1))


@NETS.net("bcast", (2, 3, 9, 7))
class Broadcast(nn.Module):
    """Operands of every rank along the channels and across them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(16, 1, 1) + 0.5)
        self.shift = nn.Parameter(torch.randn(1, 16, 1, 1))
        self.floor = nn.Parameter(torch.randn(16, 1, 1) - 1)
        self.place = nn.Parameter(torch.randn(9, 7))
        self.column = nn.Parameter(torch.randn(7))
        self.gain = nn.Parameter(torch.rand(16) + 0.5)
        self.fc1 = nn.Linear(16, 33)
        self.fc2 = nn.Linear(33, 11)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x) * self.scale + self.shift + self.place
        x = torch.maximum(x * x.mean((2, 3), keepdim=True).sigmoid(), self.floor)
        x = torch.where(x > self.column, x, 0.1 * x)
        x = x.flatten(2).transpose(1, 2) * self.gain
        return self.fc2(F.relu(self.fc1(x)))


@NETS.net("gather", (2, 3, 8, 9), standard=False)
class AdvancedIndex(nn.Module):
    """Channels picked by an index tensor in brackets."""

    picked: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.conv2 = nn.Conv2d(8, 12, 3)
        self.register_buffer("picked", torch.tensor([7, 2, 2, 10, 0, 11]))
        self.head = nn.Conv2d(6, 5, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.head(x[:, self.picked])


@NETS.net("gather2", (2, 3, 8, 9), standard=False)
class IndexSelect(nn.Module):
    """Channels picked by index_select, one of them twice."""

    picked: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3)
        self.conv2 = nn.Conv2d(8, 16, 3)
        self.register_buffer("picked", torch.tensor([9, 3, 15, 3, 0, 8, 1]))
        self.head = nn.Conv2d(7, 5, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.head(torch.index_select(x, 1, self.picked))


@NETS.net("einsum", (2, 7, 20))
class EinsumAttention(nn.Module):
    """Attention in einsum, the heads an axis of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.randn(20, 4, 6) / 4)
        self.k = nn.Parameter(torch.randn(20, 4, 6) / 4)
        self.v = nn.Parameter(torch.randn(20, 4, 5) / 4)
        self.o = nn.Parameter(torch.randn(4, 5, 20) / 4)

    def forward(self, x: Tensor) -> Any:
        q = torch.einsum("bsd,dhk->bhsk", x, self.q)
        k = torch.einsum("bsd,dhk->bhsk", x, self.k)
        v = torch.einsum("bsd,dhv->bshv", x, self.v)
        weights = torch.einsum("bhsk,bhtk->bhst", q, k).softmax(-1)
        return x + torch.einsum("bhst,bthv,hvd->bsd", weights, v, self.o)


@NETS.net("eq_conv", (2, 16, 16, 16))
class EqualConv(nn.Module):
    """Channels, height and width are 16, and the image is added to its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(16, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.fc1 = nn.Linear(16, 16)
        self.fc2 = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.bn(self.conv1(x)))
        x = x + x.transpose(2, 3)
        x = F.relu(self.conv2(x)).permute(0, 2, 3, 1)
        return self.fc2(F.relu(self.fc1(x)).mean(1))


@NETS.net("eq_mlp", (2, 16))
class EqualMlp(nn.Module):
    """Every layer has 16 inputs and 16 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(16, 16)
        self.fc2 = nn.Linear(16, 16)
        self.fc3 = nn.Linear(16, 16, bias=False)
        self.fc4 = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc4(F.relu(self.fc3(x)))


@NETS.net("eq_bcast", (2, 16, 16))
class EqualBroadcast(nn.Module):
    """Vectors of 16 along the features and along the equally long sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(16, 16)
        self.scale = nn.Parameter(torch.rand(16) + 0.5)
        self.place = nn.Parameter(torch.randn(16, 1))
        self.both = nn.Parameter(torch.randn(16, 16))
        self.fc2 = nn.Linear(16, 16)
        self.fc3 = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.fc1(x) * self.scale + self.place)
        return self.fc3(F.relu(self.fc2(x - self.both)))


@NETS.net("eq_xty", (2, 16, 16))
class EqualProduct(nn.Module):
    """A product x^T y of two hidden layers; all five axes have size 16."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(16, 16)
        self.b = nn.Linear(16, 16)
        self.c = nn.Linear(16, 16)
        self.d = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Any:
        a, b = F.relu(self.a(x)), torch.tanh(self.b(x))
        product = a.transpose(1, 2) @ b / x.shape[1]
        y = F.relu(self.c(product))
        return self.d(y.transpose(1, 2))
