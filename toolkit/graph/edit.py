"""A graph under surgery: what stays on which axis, new constants and nodes with fresh names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.graph.values import add_initializer

Positions = dict[AxisRef, NDArray[np.bool_]]  # axis -> which positions stay


class Names:
    """Names that no value or node of a graph has."""

    def __init__(self, graph: ir.Graph) -> None:
        self._taken = {value.name for node in graph.all_nodes() for value in node.outputs}
        self._taken |= set(graph.initializers) | {value.name for value in graph.inputs}
        self._taken |= {node.name for node in graph.all_nodes()}

    def fresh(self, wanted: str) -> str:
        """``wanted``, with a number if it is taken; taken from now on."""
        name, count = wanted, 1
        while name in self._taken:
            name, count = f"{wanted}.{count}", count + 1
        self._taken.add(name)
        return name


class Edit:
    """What the functions that adjust stated sizes need.

    Args:
        graph: The graph to change.
        stays: For every axis that loses positions, which of them stay.
        shapes: Shape of every tensor before, at the analysis size.
    """

    def __init__(
        self, graph: ir.Graph, stays: Positions, shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.graph = graph
        self.stays = stays
        self.shapes = shapes
        self._names: Names | None = None

    @property
    def names(self) -> Names:
        """Made on first use: most removals need no new name."""
        if self._names is None:
            self._names = Names(self.graph)
        return self._names

    def kept(self, value: ir.Value | None, axis: int) -> NDArray[np.bool_] | None:
        """Which positions of an axis stay; ``None`` if all do."""
        return None if value is None else self.stays.get((value.name or "", axis))

    def changed(self, value: ir.Value | None) -> dict[int, tuple[int, int]]:
        """Size before and after of every axis that loses positions."""
        rank = 0 if value is None else len(self.shapes.get(value.name or "", ()))
        found = {axis: self.kept(value, axis) for axis in range(rank)}
        return {
            axis: (len(mask), int(mask.sum())) for axis, mask in found.items() if mask is not None
        }

    def constant(self, wanted: str, array: NDArray[Any]) -> ir.Value:
        """A new initializer."""
        return add_initializer(self.graph, self.names.fresh(wanted), array)

    def node(
        self, operator: str, inputs: list[ir.Value | None], output: str, **attributes: int
    ) -> ir.Node:
        """A new node, not yet in the graph."""
        node = ir.node(operator, inputs, attributes=attributes)
        node.outputs[0].name = self.names.fresh(output)
        node.name = self.names.fresh(f"{output}/node")
        return node
