"""Run models that differ from another in their later nodes only from where they begin to differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxtrim.toolkit.graph.execute import Feeds, Prober

KEPT_BYTES = 2**28
"""Of inner tensors to begin with; where there are more, models run from their inputs."""


class Beginning:
    """A model whose inner tensors are where others like it begin.

    Args:
        model: The model, with other weights and sizes than the others; it is not changed.
        batches: Inputs.
    """

    def __init__(self, model: ir.Model, batches: Sequence[Feeds]) -> None:
        self._batches = batches
        self._nodes = {node.name: _told(node) for node in model.graph}
        self._weights = {
            name: value.const_value for name, value in model.graph.initializers.items()
        }
        self._prober = Prober(model)
        self._names: list[str] = []
        self._kept: list[Feeds] = [{} for _ in batches]

    def run(self, model: ir.Model, wanted: Sequence[str]) -> Iterator[Feeds]:
        """Tensors of another model, for one batch after another.

        Args:
            model: It is not changed.
            wanted: Names of the tensors.

        Raises:
            InputError: ONNX Runtime refuses the model.
        """
        self._keep(self._border(model))
        known = self._kept[0] if self._kept else {}
        given = {name: array.dtype for name, array in known.items()}
        names = [name for name in wanted if name not in given]
        probe = Prober(model).probe(names, optimise=True, given=given)
        for feeds, kept in zip(self._batches, self._kept, strict=True):
            found = {**kept, **probe.run({**feeds, **kept})}
            yield {name: found[name] for name in wanted}

    def _border(self, model: ir.Model) -> list[str]:
        """Tensors that are the same in both models and read by nodes that give others."""
        weights = model.graph.initializers
        other = {name for name, value in weights.items() if self._differs(name, value)}
        border: dict[str, None] = {}
        for node in model.graph:
            read = [value.name or "" for value in _read(node)]
            if self._nodes.get(node.name) != _told(node) or other.intersection(read):
                other.update(value.name or "" for value in node.outputs)
                border.update(dict.fromkeys(read))
        made = {value.name for node in model.graph for value in node.outputs}
        return [name for name in border if name in made - other]

    def _differs(self, name: str, value: ir.Value) -> bool:
        before, now = self._weights.get(name), value.const_value
        if before is None or now is None or before is now:
            return before is not now
        if before.shape != now.shape:
            return True
        return not np.array_equal(before.numpy(), now.numpy())

    def _keep(self, names: list[str]) -> None:
        """Have the model's tensors ready, if they fit into memory."""
        if names == self._names:
            return
        self._names, self._kept = names, [{} for _ in self._batches]
        probe = self._prober.probe(names, optimise=True)
        kept: list[Feeds] = []
        size = 0
        for feeds in self._batches:
            found = probe.run(feeds)
            size += sum(array.nbytes for array in found.values())
            if size > KEPT_BYTES:
                return
            kept.append(found)
        self._kept = kept


def _told(node: ir.Node) -> tuple[Any, ...]:
    """What makes a node; those with bodies are never the same."""
    read = [None if value is None else value.name for value in node.inputs]
    return node.op_identifier(), read, [value.name for value in node.outputs], node.attributes


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """Values that a node reads, also within its bodies."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = list(attribute.as_graphs())
        else:
            continue
        for graph in graphs:
            for inner in graph:
                yield from _read(inner)
            yield from (value for value in graph.outputs if value is not None)
