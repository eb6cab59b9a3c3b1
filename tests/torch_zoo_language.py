"""Torch nets over tokens: decoders with grouped queries, BERT, tied embeddings."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.torch_zoo_attention import Mlp
from tests.torch_zoo_base import Family

NETS = Family()


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x: Tensor) -> Any:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def repeat_kv(x: Tensor, repeats: int) -> Tensor:
    b, heads, t, dim = x.shape
    x = x[:, :, None, :, :].expand(b, heads, repeats, t, dim)
    return x.reshape(b, heads * repeats, t, dim)


def rotate_half(x: Tensor) -> Tensor:
    x1, x2 = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-x2, x1), dim=-1)


class GroupedQueries(nn.Module):
    """6 heads of queries on 2 heads of keys and values, with or without rotary positions."""

    cos: Tensor
    sin: Tensor

    def __init__(self, dim: int, rope: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.rope = 6, 2, 10, rope
        self.q_proj = nn.Linear(dim, 60, bias=False)
        self.k_proj = nn.Linear(dim, 20, bias=False)
        self.v_proj = nn.Linear(dim, 20, bias=False)
        self.o_proj = nn.Linear(60, dim, bias=False)
        if rope:
            angles = torch.outer(torch.arange(32.0), 100 ** (-torch.arange(0, 1, 0.2)))
            angles = torch.cat((angles, angles), dim=-1)
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Any:
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv_heads, self.head_dim).transpose(1, 2)
        if self.rope:
            cos, sin = self.cos[:t], self.sin[:t]
            q = q * cos + rotate_half(q) * sin
            k = k * cos + rotate_half(k) * sin
        k, v = repeat_kv(k, self.heads // self.kv_heads), repeat_kv(v, self.heads // self.kv_heads)
        scores = q @ k.transpose(2, 3) * self.head_dim**-0.5
        scores = scores + torch.full((t, t), -1e4).triu(1)
        y = scores.softmax(-1) @ v
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class SwiGlu(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Any:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Decoder(nn.Module):
    def __init__(self, rope: bool) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(50, 36)
        self.norm1, self.norm2, self.norm = RMSNorm(36), RMSNorm(36), RMSNorm(36)
        self.attn = GroupedQueries(36, rope)
        self.mlp = SwiGlu(36, 52)
        self.lm_head = nn.Linear(36, 50, bias=False)

    def forward(self, tokens: Tensor) -> Any:
        x = self.embed_tokens(tokens)
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.lm_head(self.norm(x))


for _name, _rope in {"gqa": False, "gqa_rope": True}.items():
    NETS.add(
        _name,
        lambda rope=_rope: Decoder(rope),  # type: ignore[misc]
        (2, 7),
        about="Decoder: grouped queries, causal mask, RMSNorm, SwiGLU"
        + (", rotary positions by halves." if _rope else "."),
        standard=False,
        vocabularies=(50,),
    )


class BertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(24, 24) for _ in range(3))
        self.dense = nn.Linear(24, 24)
        self.norm1, self.norm2 = nn.LayerNorm(24, eps=1e-12), nn.LayerNorm(24, eps=1e-12)
        self.mlp = Mlp(24, 52)
        self.dropout = nn.Dropout(0.1)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.view(*x.size()[:-1], 4, 6).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        q, k, v = (self.split_heads(f(x)) for f in (self.query, self.key, self.value))
        scores = torch.matmul(q, k.transpose(-1, -2)) / 6**0.5 + mask
        context = torch.matmul(self.dropout(scores.softmax(-1)), v).permute(0, 2, 1, 3)
        context = context.contiguous().view(*x.size()[:-1], 24)
        x = self.norm1(x + self.dropout(self.dense(context)))
        return self.norm2(x + self.dropout(self.mlp(x)))


@NETS.net("bert", (2, 9), (2, 9), (2, 9), standard=False, vocabularies=(60, 2, 2))
class Bert(nn.Module):
    """BERT: words, positions, token types and an attention mask; sequence and pooled outputs."""

    position_ids: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(60, 24, padding_idx=0)
        self.positions, self.types = nn.Embedding(16, 24), nn.Embedding(2, 24)
        self.norm = nn.LayerNorm(24, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(16).expand((1, -1)), persistent=False)
        self.layers = nn.ModuleList([BertLayer(), BertLayer()])
        self.pooler = nn.Linear(24, 28)
        self.classifier = nn.Linear(28, 3)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> Any:
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        positions = self.positions(self.position_ids[:, : input_ids.size(1)])
        x = self.norm(self.words(input_ids) + positions + self.types(token_type_ids))
        for layer in self.layers:
            x = layer(x, mask)
        return x, self.classifier(torch.tanh(self.pooler(x[:, 0])))


@NETS.net("tied", (2, 7), vocabularies=(40,))
class Tied(nn.Module):
    """The embedding is also the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Embedding(40, 24)
        self.fc1 = nn.Linear(24, 44)
        self.fc2 = nn.Linear(44, 24)
        self.bias = nn.Parameter(torch.randn(40))

    def forward(self, tokens: Tensor) -> Any:
        x = self.e(tokens)
        x = x + self.fc2(F.relu(self.fc1(x)))
        return F.linear(x, self.e.weight, self.bias)


@NETS.net("untied", (2, 7), vocabularies=(40,))
class Untied(nn.Module):
    """A decoder tied to its embedding beside one that began as a copy of it."""

    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Embedding(40, 24)
        self.mid = nn.Linear(24, 26)
        self.out = nn.Linear(26, 24)
        self.decoder = nn.Linear(24, 40, bias=False)
        self.decoder.weight = self.e.weight
        self.copy = nn.Linear(24, 40, bias=False)
        self.copy.weight = nn.Parameter(self.e.weight.detach().clone())

    def forward(self, tokens: Tensor) -> Any:
        x = self.out(torch.tanh(self.mid(self.e(tokens))))
        return self.decoder(x), self.copy(x)
