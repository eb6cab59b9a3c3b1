"""What the weights cost while units leave: parameters, or multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.values import independent_values, is_parameter

PARAMETERS, MACS = "parameters", "macs"


@dataclass(frozen=True)
class Sizes:
    """The sizes of all weights while units leave.

    Attributes:
        axes: For every weight the length of each axis.
        groups: For every group, on which axes of weights it lies and with how many positions per
            unit.
        prices: For every weight the cost of one of its elements.
    """

    axes: dict[str, list[float]]
    groups: Mapping[str, Sequence[tuple[str, int, float]]]
    prices: Mapping[str, float]

    def saved(self, group: str, count: float) -> float:
        """Cost that leaves if so many units of a group do."""
        lost: dict[str, dict[int, float]] = {}
        for tensor, axis, per_unit in self.groups[group]:
            lost.setdefault(tensor, {})[axis] = per_unit * count
        total = 0.0
        for tensor, cut in lost.items():
            before = after = self.prices[tensor]
            for axis, length in enumerate(self.axes[tensor]):
                before *= length
                after *= length - cut.get(axis, 0.0)
            total += before - after
        return total

    def total(self) -> float:
        """Cost of what is left."""
        costs = (self.prices[name] * np.prod(lengths) for name, lengths in self.axes.items())
        return float(sum(costs))

    def remove(self, group: str, count: float) -> None:
        """Let units leave."""
        for tensor, axis, per_unit in self.groups[group]:
            self.axes[tensor][axis] -= per_unit * count


def cost_sizes(analysis: Analysis, cost: str) -> Sizes:
    """The sizes of the original's weights, each element at its price.

    Args:
        analysis: The groups.
        cost: ``"parameters"``, or ``"macs"``: those of nodes that multiply by weights. (What two
            activations are multiplied for, as in attention, has no price.)
    """
    axes = {
        name: [float(size) for size in analysis.normalised.shapes[name]]
        for name, value in analysis.model.graph.initializers.items()
        if is_parameter(value)
    }
    prices = dict.fromkeys(axes, 1.0) if cost == PARAMETERS else _macs(analysis, axes)
    return Sizes(axes, {group.name: _places(group, axes) for group in analysis.groups}, prices)


def _places(group: Group, axes: Mapping[str, Sequence[float]]) -> list[tuple[str, int, float]]:
    return [
        (tensor, axis, float((units >= 0).sum()) / group.units)
        for (tensor, axis), units in group.slices.items()
        if tensor in axes
    ]


def _macs(analysis: Analysis, axes: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Multiply-accumulates per element, by all nodes that a matrix or kernel takes part in."""
    constants = independent_values(analysis.model.graph)[1]
    sources: dict[str, frozenset[str]] = {
        name: frozenset({name}) for name, lengths in axes.items() if len(lengths) > 1
    }
    prices = dict.fromkeys(axes, 0.0)
    for node in analysis.model.graph:
        read = [value.name or "" for value in node.inputs if value is not None]
        found = [sources.get(name, frozenset()) for name in read if name in constants]
        weights = frozenset[str]().union(*found)
        sources |= {value.name or "": weights for value in node.outputs if value.name in constants}
        elements = sum(float(np.prod(axes[name])) for name in weights)
        for name in weights:
            prices[name] += analysis.macs_by_node.get(node.name or "", 0) / max(elements, 1.0)
    return prices
