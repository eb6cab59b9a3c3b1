"""Swin: attention inside windows that are shifted, and patch merging."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.torch_zoo_attention import Mlp
from tests.torch_zoo_base import Family

NETS = Family()


def window_partition(x: Tensor) -> Tensor:
    b, h, w, c = x.shape
    x = x.view(b, h // 4, 4, w // 4, 4, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, 16, c)


def window_reverse(windows: Tensor, h: int, w: int) -> Tensor:
    x = windows.view(-1, h // 4, w // 4, 4, 4, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, h, w, windows.shape[-1])


def shift_mask(h: int, w: int) -> Tensor:
    """(windows, 16, 16): what does not touch in the image must not attend; shift 2."""
    regions = torch.zeros(1, h, w, 1)
    parts = (slice(0, -4), slice(-4, -2), slice(-2, None))
    for count, (rows, columns) in enumerate((a, b) for a in parts for b in parts):
        regions[:, rows, columns] = count
    flat = window_partition(regions).squeeze(-1)
    return (flat.unsqueeze(1) != flat.unsqueeze(2)).float() * -100.0


class WindowAttention(nn.Module):
    """Attention inside windows of 4 by 4, with a table of relative positions."""

    relative: Tensor

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.randn(7 * 7, heads))
        places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
        places = places.flatten(1)
        relative = places[:, :, None] - places[:, None, :] + 3
        self.register_buffer("relative", (relative[0] * 7 + relative[1]).view(-1))

    def forward(self, x: Tensor, mask: Tensor | None) -> Any:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1)
        attn = attn + self.table[self.relative].view(n, n, -1).permute(2, 0, 1).unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            attn = attn.view(-1, windows, self.heads, n, n) + mask[None, :, None]
            attn = attn.view(-1, self.heads, n, n)
        return self.proj((attn.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class SwinBlock(nn.Module):
    mask: Tensor | None

    def __init__(self, dim: int, heads: int, hidden: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads)
        self.mlp = Mlp(dim, hidden)
        self.register_buffer("mask", shift_mask(8, 12) if shift else None)

    def forward(self, x: Tensor) -> Any:
        _, h, w, _ = x.shape
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, shifts=(-self.shift, -self.shift), dims=(1, 2))
        y = window_reverse(self.attn(window_partition(y), self.mask), h, w)
        if self.shift:
            y = torch.roll(y, shifts=(self.shift, self.shift), dims=(1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, out, bias=False)

    def forward(self, x: Tensor) -> Any:
        x0, x1 = x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :]
        x2, x3 = x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]
        return self.reduction(self.norm(torch.cat([x0, x1, x2, x3], -1)))


@NETS.net("swin", (2, 3, 16, 24), standard=False)
class Swin(nn.Module):
    """Swin: windows, windows shifted by torch.roll with a mask, patch merging."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 18, 2, 2)
        self.norm0 = nn.LayerNorm(18)
        self.blocks = nn.Sequential(SwinBlock(18, 3, 40, 0), SwinBlock(18, 3, 44, 2))
        self.merge = PatchMerging(18, 34)
        self.norm = nn.LayerNorm(34)
        self.head = nn.Linear(34, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.norm0(self.patch_embed(x).permute(0, 2, 3, 1))
        x = self.merge(self.blocks(x))
        return self.head(self.norm(x).mean((1, 2)))
