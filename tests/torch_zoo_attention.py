"""Torch nets with attention: encoders, ViT, Swin, and the ways to pack queries, keys, values."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.torch_zoo_base import Family

NETS = Family()


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Any:
        return self.fc2(self.act(self.fc1(x)))


class Heads(nn.Module):
    """Attention of 4 heads of 5; the weights of queries, keys and values in one layer."""

    def __init__(self, dim: int = 22, heads: int = 4, head_dim: int = 5) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * heads * head_dim)
        self.proj = nn.Linear(heads * head_dim, dim)


class ChunkedHeads(Heads):
    """chunk, then a reshape of each; scaled_dot_product_attention."""

    def forward(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        q, k, v = (
            t.reshape(b, n, self.heads, self.head_dim).transpose(1, 2)
            for t in self.qkv(x).chunk(3, dim=-1)
        )
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, self.heads * self.head_dim))


class ReshapedHeads(Heads):
    """timm: reshape to (b, n, 3, heads, dim), permute, index."""

    def forward(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(b, n, -1))


class UnboundHeads(Heads):
    """Newer timm: the same with unbind."""

    def forward(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(b, n, -1))


class SplitHeads(Heads):
    """nanoGPT: split at fixed sizes, causal mask from a buffer."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tril(torch.ones(9, 9)).view(1, 1, 9, 9))

    def forward(self, x: Tensor) -> Any:
        b, t, _ = x.shape
        width = self.heads * self.head_dim
        q, k, v = torch.split(self.qkv(x), width, dim=2)
        k = k.view(b, t, self.heads, self.head_dim).transpose(1, 2)
        q = q.view(b, t, self.heads, self.head_dim).transpose(1, 2)
        v = v.view(b, t, self.heads, self.head_dim).transpose(1, 2)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
        y = F.softmax(att, dim=-1) @ v
        return self.proj(y.transpose(1, 2).contiguous().view(b, t, width))


class BmmHeads(nn.Module):
    """fairseq: sequence first, batch and heads are one axis, torch.bmm."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim = 4, 5
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(22, 20) for _ in range(3))
        self.proj = nn.Linear(20, 22)

    def forward(self, x: Tensor) -> Any:
        x = x.transpose(0, 1)
        t, b, _ = x.shape
        q = self.q_proj(x) * self.head_dim**-0.5
        q = q.contiguous().view(t, b * self.heads, self.head_dim).transpose(0, 1)
        k = self.k_proj(x).contiguous().view(t, b * self.heads, self.head_dim).transpose(0, 1)
        v = self.v_proj(x).contiguous().view(t, b * self.heads, self.head_dim).transpose(0, 1)
        weights = F.softmax(torch.bmm(q, k.transpose(1, 2)), dim=-1)
        y = torch.bmm(weights, v).transpose(0, 1).contiguous()
        return self.proj(y.view(t, b, self.heads * self.head_dim)).transpose(0, 1)


class Encoder(nn.Module):
    """One block before whose attention and MLP the stream is normalised."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Linear(13, 22)
        self.norm1, self.norm2 = nn.LayerNorm(22), nn.LayerNorm(22)
        self.attn = attention
        self.mlp = Mlp(22, 46)
        self.head = nn.Linear(22, 7)

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x)
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x)


for _name, _heads in {
    "qkv_chunk": ChunkedHeads,
    "qkv_reshape": ReshapedHeads,
    "qkv_unbind": UnboundHeads,
    "qkv_split": SplitHeads,
    "attn_bmm": BmmHeads,
}.items():
    NETS.add(
        _name,
        lambda heads=_heads: Encoder(heads()),  # type: ignore[misc]
        (2, 9, 13),
        about=(_heads.__doc__ or "").strip(),
        standard=False,
    )


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 22, 4, 4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 22))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + 12, 22))
        self.norm1, self.norm2, self.norm = (nn.LayerNorm(22, eps=1e-6) for _ in range(3))
        self.mlp = Mlp(22, 48)
        self.head = nn.Linear(22, 10)

    def attend(self, x: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Any:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        x = x + self.attend(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm(x)[:, 0])


@NETS.net("vit_sdpa", (2, 3, 12, 16), standard=False)
class ViTSdpa(ViT):
    """ViT with its own queries, keys and values, a class token and position embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = ChunkedHeads()

    def attend(self, x: Tensor) -> Any:
        return self.attn(x)


@NETS.net("vit_mha", (2, 3, 12, 16), standard=False)
class ViTMha(ViT):
    """ViT with nn.MultiheadAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(22, 2, batch_first=True)

    def attend(self, x: Tensor) -> Any:
        return self.attn(x, x, x, need_weights=False)[0]


@NETS.net("txenc", (2, 9, 13), standard=False)
class TransformerEncoder(nn.Module):
    """nn.TransformerEncoderLayer, normalised after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(13, 24)
        self.encoder = nn.TransformerEncoderLayer(24, 4, 50, batch_first=True)
        self.head = nn.Linear(24, 7)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.encoder(self.embed(x)).mean(1))


class MixerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(20), nn.LayerNorm(20)
        self.tokens, self.channels = Mlp(12, 26), Mlp(20, 42)

    def forward(self, x: Tensor) -> Any:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


@NETS.net("mixer", (2, 3, 12, 16))
class Mixer(nn.Module):
    """MLP-Mixer: channels last, layers over the patches and over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 4, 4)
        self.blocks = nn.Sequential(MixerBlock(), MixerBlock())
        self.norm = nn.LayerNorm(20)
        self.head = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.blocks(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(dim=1))
