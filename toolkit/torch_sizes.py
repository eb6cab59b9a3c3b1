"""The sizes that torch modules note beside their tensors, after a pruning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.graph.labels import Index
from onnxtrim.toolkit.torch_values import Values, count_groups

if TYPE_CHECKING:
    import torch

Part = Any  # a module whose class was looked at; torch's own types don't have all attributes

_SIZES = frozenset(
    "head heads nhead nheads group groups channel channels chs dim dims features hidden size width"
    " planes units embed inner c d h".split()
)
_OTHERS = frozenset("kernel window patch image img pool vocab seq block batch grid".split())


@dataclass
class Choice:
    """A number that a module of the user notes and that may be a size, with what it may be now.

    Attributes:
        attribute: Its name.
        sizes: The likeliest first.
        parts: The modules; those of one class that note the same have the same choice.
    """

    attribute: str
    sizes: tuple[int, ...]
    parts: list[torch.nn.Module]

    def take(self, size: int) -> None:
        """Note one of the sizes."""
        for part in self.parts:
            setattr(part, self.attribute, size)


def update_sizes(module: torch.nn.Module, values: Values) -> list[Choice]:
    """Set the attributes of standard modules.

    Args:
        module: Has its new tensors already.
        values: What the original lost.

    Returns:
        What may be sizes in other modules.

    Raises:
        InputError: A standard module can't have the new sizes.
    """
    choices: dict[tuple[Any, ...], Choice] = {}
    for name, part in module.named_modules():
        for kind, update in _rules():
            if isinstance(part, kind):
                update(part, name, values)
                break
        else:
            if not type(part).__module__.startswith("torch.nn."):
                for attribute, sizes in _guess(part, name, values):
                    key = (type(part), attribute, sizes)
                    choices.setdefault(key, Choice(attribute, sizes, [])).parts.append(part)
    return list(choices.values())


def _rules() -> list[tuple[Any, Callable[[Part, str, Values], None]]]:
    from torch import nn

    return [
        (nn.MultiheadAttention, _attention),
        (nn.RNNBase, _recurrent),
        (nn.modules.rnn.RNNCellBase, _cell),
        (nn.modules.conv._ConvTransposeNd, _transposed),
        (nn.modules.conv._ConvNd, _convolution),
        (nn.GroupNorm, _group_norm),
        (nn.modules.batchnorm._NormBase, _norm),
        ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
        ((nn.Linear, nn.Bilinear, nn.PReLU), _features),
        ((nn.Embedding, nn.EmbeddingBag), _embedding),
        (nn.Unflatten, _unflatten),
    ]


def _places(values: Values, name: str, own: str, axis: int) -> Index | None:
    return values.kept.get(f"{name}.{own}" if name else own, {}).get(axis)


def _features(part: Part, name: str, values: Values) -> None:
    from torch import nn

    shape = part.weight.shape
    if isinstance(part, nn.PReLU):
        part.num_parameters = shape[0]
    elif isinstance(part, nn.Bilinear):
        part.out_features, part.in1_features, part.in2_features = shape
    else:
        part.out_features, part.in_features = shape


def _convolution(part: Part, name: str, values: Values) -> None:
    stays = _places(values, name, "weight", 0)
    part.groups = count_groups(stays, part.out_channels, part.groups)
    part.out_channels, part.in_channels = part.weight.shape[0], part.weight.shape[1] * part.groups


def _transposed(part: Part, name: str, values: Values) -> None:
    stays = _places(values, name, "weight", 0)
    part.groups = count_groups(stays, part.in_channels, part.groups)
    part.in_channels, part.out_channels = part.weight.shape[0], part.weight.shape[1] * part.groups


def _norm(part: Part, name: str, values: Values) -> None:
    noted = part.weight if part.weight is not None else part.running_mean
    if noted is not None:
        part.num_features = len(noted)
    else:
        stays = values.activations(name)[1].get(1)
        part.num_features = part.num_features if stays is None else len(stays)


def _group_norm(part: Part, name: str, values: Values) -> None:
    stays = _places(values, name, "weight", 0)
    if part.weight is None:
        stays = values.activations(name)[1].get(1)
    if stays is not None:
        part.num_groups = count_groups(stays, part.num_channels, part.num_groups)
        part.num_channels = len(stays)


def _layer_norm(part: Part, name: str, values: Values) -> None:
    if part.weight is not None:
        part.normalized_shape = tuple(part.weight.shape)


def _embedding(part: Part, name: str, values: Values) -> None:
    stays = _places(values, name, "weight", 0)
    part.num_embeddings, part.embedding_dim = part.weight.shape
    if stays is not None and part.padding_idx is not None:
        found = np.flatnonzero(stays == part.padding_idx)
        part.padding_idx = int(found[0]) if len(found) else None


def _unflatten(part: Part, name: str, values: Values) -> None:
    rank, stays = values.leaving(name)
    sizes = list(part.unflattened_size)
    if isinstance(part.dim, str):
        return  # named axes can't be exported
    first = part.dim if part.dim >= 0 else part.dim + rank - len(sizes) + 1
    for index, size in enumerate(sizes):
        if first + index in stays and size > 0:
            sizes[index] = len(stays[first + index])
    part.unflattened_size = tuple(sizes)


def _recurrent(part: Part, name: str, values: Values) -> None:
    directions = 2 if part.bidirectional else 1
    suffixes = ["", "_reverse"][:directions]
    noted = "hr" if part.proj_size else "hh"
    hidden, inputs = set(), set()
    for layer in range(part.num_layers):
        for suffix in suffixes:
            hidden.add(getattr(part, f"weight_{noted}_l{layer}{suffix}").shape[noted == "hh"])
            if layer:
                inputs.add(getattr(part, f"weight_ih_l{layer}{suffix}").shape[1])
    size = hidden.pop()
    if hidden or inputs - {size * directions}:
        raise InputError(
            f"{name or 'the module'} ({type(part).__name__}) has {part.num_layers} layers that now"
            f" differ in size ({', '.join(map(str, sorted({size, *hidden})))} hidden units), which"
            " one such module can't be; build it of one module per layer, or remove as many units"
            " of each"
        )
    part.input_size = part.weight_ih_l0.shape[1]
    if part.proj_size:
        part.proj_size, part.hidden_size = size, part.weight_hr_l0.shape[1]
    else:
        part.hidden_size = size
    part._flat_weights = [getattr(part, own) for own in part._flat_weights_names]
    part.flatten_parameters()


def _cell(part: Part, name: str, values: Values) -> None:
    part.input_size, part.hidden_size = part.weight_ih.shape[1], part.weight_hh.shape[1]


def _attention(part: Part, name: str, values: Values) -> None:
    if values.axes_of(name):
        raise InputError(
            f"{name or 'the module'} (MultiheadAttention) lost heads or features, but this class"
            " insists on embed_dim = heads * head_dim; exclude it, or write the attention with"
            " Linear layers; the ONNX model is right and stays usable"
        )


def _guess(
    part: torch.nn.Module, name: str, values: Values
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Sizes that a module of the user notes, such as its number of heads.

    A number n is taken for a size if it is the length of an axis that lost positions, or a factor
    of it along which whole slices left. What all such axes agree on comes first.
    """
    noted = {
        attribute: value
        for attribute, value in vars(part).items()
        if type(value) is int and value > 1 and _is_size(attribute)
    }
    axes = [
        (values.tensors[tensor].shape[axis], stays)
        for tensor, places in (values.axes_of(name) if noted else {}).items()
        for axis, stays in places.items()
    ]
    for attribute, value in noted.items():
        found = [new for size, stays in axes if (new := _new_sizes(value, size, stays))]
        if not found:
            continue
        agreed = set.intersection(*found)
        likely = agreed or set.union(*found)
        sizes = sorted(likely, key=lambda size: (size == value, size))
        yield attribute, tuple(sizes if agreed else dict.fromkeys((*sizes, value)))


def _is_size(attribute: str) -> bool:
    words = re.findall("[a-z]+", attribute.lower())
    return bool(words) and words[-1] in _SIZES and not _OTHERS & set(words)


def _new_sizes(value: int, size: int, stays: Index) -> set[int]:
    """What may be left of a factor ``value`` of an axis of ``size`` positions."""
    mask = np.zeros(size, np.bool_)
    mask[stays] = True
    found = set()
    for inner in range(1, size // value + 1):
        if size % (value * inner):
            continue
        grid = mask.reshape(-1, value, inner)
        factor = np.any(grid, axis=(0, 2)).reshape(1, -1, 1)
        if np.array_equal(grid, grid.any(axis=1, keepdims=True) & factor):
            found.add(int(factor.sum()))
    return found
