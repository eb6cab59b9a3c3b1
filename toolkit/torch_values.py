"""The tensors of a pruned torch module, taken from the pruned ONNX model by name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.graph.labels import Index
from onnxtrim.toolkit.graph.values import constant_array

if TYPE_CHECKING:
    import torch

    from onnxtrim.toolkit.apply import TrimResult

_SCOPES = "pkg.torch.onnx.name_scopes"
_BIASED = ("Conv", "Gemm")
NO_REPAIR = "prune with repair='none' to write it back"


def scopes(node: ir.Node) -> list[str]:
    """Names of the modules in which torch ran what the node does, the outermost first."""
    try:
        found = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (SyntaxError, ValueError):
        return []
    return [str(name) for name in found[:-1]] if isinstance(found, list) else []


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers, also those that have a second name."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def split(name: str) -> tuple[str, str]:
    """The module's name and the tensor's own."""
    owner, _, own = name.rpartition(".")
    return owner, own


@dataclass(frozen=True)
class _Use:
    """An operand of a node that reads a parameter: the value it has after the pruning."""

    scopes: list[str]
    array: NDArray[Any] | None


class Values:
    """The tensors of the original module and what became of them.

    Args:
        result: The pruned model.
        module: The module that was exported.

    Attributes:
        kept: For every tensor that lost positions, which are left on which axis.
        missing: Tensors that the model does not know by name.

    Raises:
        InputError: The module is not the one that was exported.
    """

    def __init__(self, result: TrimResult, module: torch.nn.Module) -> None:
        self.module, self.tensors = module, state(module)
        original = result.prepared.analysis.normalised
        self._before, self._after = original.model.graph, result.model.graph
        self._copies, self._shapes = original.copies, original.shapes
        self._stored = self._initializer_of_each()
        self._uses = self._uses_of_each()
        kept: dict[str, dict[int, Index]] = defaultdict(dict)
        for (name, axis), places in result.kept.items():
            kept[name][axis] = places
        self._kept = dict(kept)
        self.kept = {name: self._places(name) for name in self.tensors}
        self.kept = {name: places for name, places in self.kept.items() if places}
        self.missing = [name for name in self.tensors if name not in self._stored]

    @property
    def missing_weights(self) -> list[str]:
        """Weights of common layers that the model does not know by name."""
        from torch import nn
        from torch.nn.utils.parametrize import ParametrizationList

        kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, ParametrizationList)
        owners = {name: split(name) for name in self.missing}
        return [
            name
            for name, (owner, own) in owners.items()
            if isinstance(self.module.get_submodule(owner), kinds) and "bias" not in own
        ]

    def _initializer_of_each(self) -> dict[str, str]:
        """For every tensor the initializer of its name, or of the name it is tied to."""
        names: dict[int, list[str]] = defaultdict(list)
        for name, tensor in self.tensors.items():
            names[id(tensor)].append(name)
        stored = {}
        for same in names.values():
            found = [name for name in same if name in self._before.initializers]
            for name in same if found else ():
                stored[name] = name if name in found else found[0]
        if self.tensors and not stored:
            raise InputError(
                "no parameter of the module is in the model by name; export it with"
                " onnxtrim.export_module, which keeps the names"
            )
        for name, initializer in stored.items():
            array = constant_array(self._before.initializers[initializer])
            shape = tuple(self.tensors[name].shape)
            if array is not None and array.shape != shape:
                raise InputError(
                    f"this is not the module that was exported: {name} has shape {shape},"
                    f" in the model {array.shape}"
                )
        return stored

    def _uses_of_each(self) -> dict[str, list[tuple[str, _Use]]]:
        """By initializer, the name (it, or a copy) and the operand's value after the pruning."""
        wanted = set(self._stored.values())
        after = {node.name: node for node in self._after}
        uses: dict[str, list[tuple[str, _Use]]] = defaultdict(list)
        for node in self._before:
            for index, value in enumerate(node.inputs):
                name = "" if value is None else value.name or ""
                base = self._copies.get(name, name)
                if base in wanted:
                    same = after.get(node.name)
                    here = None if same is None or index >= len(same.inputs) else same.inputs[index]
                    uses[base].append((name, _Use(scopes(node), constant_array(here))))
        return uses

    def _mine(self, name: str) -> list[tuple[str, _Use]]:
        """The uses by the module that owns a name, all if none is in it."""
        uses = self._uses.get(self._stored.get(name, ""), [])
        owner = split(name)[0]
        return [use for use in uses if owner in use[1].scopes] or uses

    def _places(self, name: str) -> dict[int, Index]:
        uses = self._mine(name)
        return self._kept.get(uses[0][0] if uses else self._stored.get(name, ""), {})

    def new(self, name: str) -> NDArray[Any] | None:
        """The value of a tensor after the pruning; ``None`` if it stays as it is.

        Raises:
            InputError: Several layers share it, and the repair changed it differently for each.
        """
        arrays = [use.array for _, use in self._mine(name) if use.array is not None]
        if any(not np.array_equal(arrays[0], other) for other in arrays[1:]):
            raise InputError(
                f"{name} is used {len(arrays)} times, and each use now needs other values;"
                f" {NO_REPAIR}, or make it two parameters"
            )
        if arrays:
            return arrays[0]
        left = constant_array(self._after.initializers.get(self._stored.get(name, "")))
        if left is not None:
            return left
        if name not in self.kept:
            return None
        array = self.tensors[name].detach().cpu().numpy()
        for axis, places in self.kept[name].items():
            array = np.take(array, places, axis=axis)
        return array

    def added_biases(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Name of the module and value of every bias that the repair added."""
        known = {node.name: node for node in self._before}
        for node in self._after:
            bias = node.inputs[-1] if node.inputs else None
            array = constant_array(bias)
            product: ir.Node | None = node
            if bias is None or bias.name in self._before.initializers or array is None:
                continue
            before = known.get(node.name)
            if node.op_type in _BIASED and len(node.inputs) == 3:
                if before is None or (len(before.inputs) == 3 and before.inputs[2] is not None):
                    continue
            elif node.op_type == "Add" and before is None and node.inputs[0] is not None:
                product = node.inputs[0].producer()
                if product is None or product.op_type != "MatMul":
                    continue
            else:
                continue
            if product is not None:
                yield (scopes(product) or [_weight_owner(product)])[-1], array

    def axes_of(self, owner: str) -> dict[str, dict[int, Index]]:
        """The tensors of a module and its children that lost positions."""
        start = f"{owner}." if owner else ""
        return {name: places for name, places in self.kept.items() if name.startswith(start)}

    def activations(self, owner: str) -> tuple[str, dict[int, Index]]:
        """The tensor that enters a module, and what is left on its axes."""
        made: set[str] = set()
        for node in self._before:
            if owner in scopes(node):
                for value in node.inputs:
                    name = "" if value is None else value.name or ""
                    if value is not None and value.producer() is not None and name not in made:
                        return name, self._kept.get(name, {})
                made |= {value.name or "" for value in node.outputs}
        return "", {}

    def leaving(self, owner: str) -> tuple[int, dict[int, Index]]:
        """The rank of the tensor that leaves a module, and what is left on its axes."""
        names = [node.outputs[0].name or "" for node in self._before if owner in scopes(node)]
        return (len(self._shapes[names[-1]]), self._kept.get(names[-1], {})) if names else (0, {})


def _weight_owner(node: ir.Node) -> str:
    """The module whose weight the node multiplies with, as its name says."""
    value = node.inputs[1]
    while value is not None and (producer := value.producer()) is not None:
        value = producer.inputs[0] if producer.inputs else None
    return "" if value is None else split(value.name or "")[0]


def count_groups(places: Index | None, size: int, groups: int) -> int:
    """How many of the equal groups of an axis still have positions."""
    return groups if places is None else len(np.unique(places // (size // groups)))
