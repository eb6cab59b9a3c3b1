"""One walk over the nodes: the rules tie and freeze labels, and say who reads what."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxtrim.toolkit.graph.groups import Touch
from onnxtrim.toolkit.graph.labels import AxisRef, Freeze, Index, Labels
from onnxtrim.toolkit.graph.node import Answer, Frozen, NodeView, Piece, Rule, Spliced
from onnxtrim.toolkit.graph.normalise import Normalised
from onnxtrim.toolkit.graph.rules import answer
from onnxtrim.toolkit.graph.signature import Axis, Binding, bind, followed, parse
from onnxtrim.toolkit.graph.values import independent_values

Choices = Mapping[str, int]  # node -> which of its alternatives is taken


@dataclass(frozen=True)
class Step:
    """A node with what the table says of it; the same for every choice of alternatives."""

    view: NodeView
    answer: Answer
    rule: Rule | None

    @property
    def alternatives(self) -> int:
        """In how many ways the node can be read."""
        return len(self.answer) if isinstance(self.answer, tuple) else 1

    @property
    def kind(self) -> tuple[object, ...]:
        """Nodes of one kind are read in the same way: as deep as the net is, the search is not."""
        node = self.view.node
        return (node.domain, node.op_type, self.view.inputs[:1], self.view.outputs[:1], self.answer)


@dataclass(frozen=True)
class Site:
    """A node with alternatives, and the labels of what it follows in composite axes."""

    step: Step
    labels: Index

    @property
    def node(self) -> str:
        """Its name."""
        return self.step.view.node.name or ""


@dataclass
class Walk:
    """What a walk found.

    Attributes:
        labels: Ties and freezes.
        touches: Who produces, carries and consumes.
        macs: Multiply-accumulates by node.
        unruled: Nodes without a rule.
        sites: Nodes that could be read in other ways.
    """

    labels: Labels
    touches: list[Touch] = field(default_factory=list)
    macs: dict[str, int] = field(default_factory=dict)
    unruled: list[Freeze] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)


def steps(normalised: Normalised) -> list[Step]:
    """Ask the rule table about every node.

    Raises:
        Exception: A rule raises on a node: a bug of the rule table.
    """
    shapes, model = normalised.shapes, normalised.model
    opset = model.opset_imports.get("", 1)

    def shape(value: ir.Value | None) -> tuple[int, ...] | None:
        return None if value is None else shapes.get(value.name or "")

    result = []
    for node in model.graph:
        varying = (normalised.varying.get(value.name or "", frozenset()) for value in node.outputs)
        view = NodeView(
            node, tuple(map(shape, node.inputs)), tuple(map(shape, node.outputs)), opset,
            tuple(varying),
        )  # fmt: skip
        result.append(Step(view, *answer(view)))
    return result


def walk(normalised: Normalised, path: list[Step], choices: Choices) -> Walk:
    """Tie and freeze the labels of a model.

    Args:
        normalised: The model.
        path: What :func:`steps` returned for it.
        choices: Which alternative each node takes; the first where nothing is said.

    Raises:
        SignatureError: A rule does not fit its operator: a bug of the rule table.
    """
    return _Walker(normalised).run(path, choices)


class _Walker:
    def __init__(self, normalised: Normalised) -> None:
        self.shapes = normalised.shapes
        self.graph = normalised.model.graph
        self.constants = independent_values(self.graph)[1]  # weights, also transposed ones
        self.labels = Labels(self.shapes)
        self.found = Walk(self.labels)

    def run(self, path: list[Step], choices: Choices) -> Walk:
        for value in self.graph.inputs:
            self._freeze(value, Freeze("", "graph input", "it is an input of the model"))
        for step in path:
            self._step(step, choices.get(step.view.node.name or "", 0))
        for value in self.graph.outputs:
            self._freeze(value, Freeze("", "graph output", "it is an output of the model"))
        return self.found

    def _step(self, step: Step, choice: int) -> None:
        node, said = step.view.node, step.answer
        if isinstance(said, Frozen):
            cause = Freeze(node.name or "", node.op_type, said.reason)
            self._freeze_all(node, cause)
            if step.rule is None:
                self.found.unruled.append(cause)
        elif isinstance(said, Spliced):
            for piece in said.pieces:
                self._splice(node, piece, step.rule)
        else:
            self._apply(step, said[choice] if isinstance(said, tuple) else said)

    def _freeze(self, value: ir.Value | None, cause: Freeze) -> None:
        if value is not None and value.name in self.shapes:
            for axis in range(len(self.shapes[value.name])):
                self.labels.freeze(self.labels.of((value.name, axis)), cause)

    def _freeze_all(self, node: ir.Node, cause: Freeze) -> None:
        for value in (*node.inputs, *node.outputs):
            self._freeze(value, cause)
        for attribute in node.attributes.values():
            for graph in _subgraphs(attribute):
                for inner in graph.all_nodes():
                    for value in inner.inputs:  # captured values of the outer graph
                        self._freeze(value, cause)
                for value in graph.outputs:
                    self._freeze(value, cause)

    def _splice(self, node: ir.Node, piece: Piece, rule: Rule | None) -> None:
        value = node.inputs[piece.operand]
        source = value.name or "" if value is not None else ""
        target, name = node.outputs[piece.output].name or "", node.name or ""
        for a, b in piece.passes:
            self.labels.tie(self.labels.of((source, a)), self.labels.of((target, b)), name)
        for move in piece.moves:
            taken = self.labels.of((source, move.source))[move.taken]
            self.labels.tie(taken, self.labels.of((target, move.target))[move.put], name)
        cause = Freeze(name, node.op_type, rule.why if rule is not None else "")
        for axis, positions in piece.frozen_inputs:
            labels = self.labels.of((source, axis))
            self.labels.freeze(labels if positions is None else labels[positions], cause)
        for axis in piece.frozen_outputs:
            self.labels.freeze(self.labels.of((target, axis)), cause)

    def _apply(self, step: Step, text: str) -> None:
        view, rule = step.view, step.rule
        name = view.node.name or ""
        sizes = rule.sizes(view) if rule is not None else {}
        binding = bind(parse(text), view.inputs, view.outputs, sizes)
        occurrences: dict[str, list[tuple[str, int, AxisRef]]] = defaultdict(list)
        representative: dict[str, Index] = {}
        cause = Freeze(name, view.node.op_type, rule.why if rule is not None else "")
        composite: list[Index] = []
        for side, index, tensor, axes in _operands(view, binding):
            for axis, letters in enumerate(axes):
                if self.shapes[tensor][axis] == 1:
                    continue
                letter = followed(letters)
                if letter is None or binding.sizes[letter] == 1:
                    self.labels.freeze(self.labels.of((tensor, axis)), cause)
                    continue
                ref = (tensor, axis)
                reads = side == "in" and (index, axis) in binding.reads
                occurrences[letter].append(("read" if reads else side, index, ref))
                self._tie(representative, letter, letters, ref, binding, name)
                if len(letters) > 1:
                    composite.append(representative[letter])
        for found in occurrences.values():
            self._record(view.node, found)
        if rule is not None and rule.macs is not None:
            self.found.macs[name] = rule.macs(binding)
        if step.alternatives > 1 and composite:
            self.found.sites.append(Site(step, np.concatenate(composite)))

    def _tie(
        self,
        representative: dict[str, Index],
        letter: str,
        letters: Axis,
        ref: AxisRef,
        binding: Binding,
        node: str,
    ) -> None:
        size = binding.sizes[letter]
        labels = self.labels.of(ref)
        if len(letters) > 1:
            if letter not in representative:
                representative[letter] = self.labels.fresh(size)
            inner = math.prod(
                binding.sizes[other] for other in letters[letters.index(letter) + 1 :]
            )
            unit = np.arange(len(labels)) // inner % size
            self.labels.tie(labels, representative[letter][unit], node)
        elif letter in representative:
            self.labels.tie(labels, representative[letter], node)
        else:
            representative[letter] = labels

    def _record(self, node: ir.Node, found: list[tuple[str, int, AxisRef]]) -> None:
        """Say which role the node plays for the slices of one letter."""
        inputs = [(index, ref) for side, index, ref in found if side == "in"]
        outputs = [ref for side, _, ref in found if side == "out"]
        weights = [(i, ref) for i, ref in inputs if self._is_weight(ref[0])]
        activations = [(i, ref) for i, ref in inputs if not self._is_weight(ref[0])]
        operand, weight = weights[0] if weights else (-1, None)
        if inputs and not outputs and not activations:
            cause = Freeze(node.name or "", node.op_type, "it is contracted between constants")
            self.labels.freeze(self.labels.of(inputs[0][1]), cause)
        elif inputs and not outputs:
            for index, ref in activations:
                self._touch(node, "consumer", ref, index, weight, operand)
        elif activations and outputs:
            for index, ref in activations:
                for operand, weight in weights:
                    self._touch(node, "carrier", ref, index, weight, operand)
        elif weights and outputs:
            self._touch(node, "producer", outputs[0], -1, weight, operand)
        for side, index, ref in found:
            if side == "read" and outputs:  # what is read is the node's own output
                self._touch(node, "consumer", outputs[0], -1, ref, index)

    def _is_weight(self, name: str) -> bool:
        return name in self.constants

    def _touch(
        self,
        node: ir.Node,
        role: str,
        value: AxisRef,
        operand: int,
        weight: AxisRef | None,
        weight_operand: int,
    ) -> None:
        self.found.touches.append(
            Touch(node.name or "", node.op_type, role, value, operand, weight, weight_operand)
        )


def _operands(view: NodeView, binding: Binding) -> Iterator[tuple[str, int, str, tuple[Axis, ...]]]:
    sides = (("in", view.node.inputs, binding.inputs), ("out", view.node.outputs, binding.outputs))
    for side, values, laid in sides:
        for index, (value, axes) in enumerate(zip(values, laid, strict=False)):
            if value is not None and axes is not None:
                yield side, index, value.name or "", axes


def _subgraphs(attribute: ir.Attr) -> list[ir.Graph]:
    if attribute.type is ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return list(attribute.as_graphs()) if attribute.type is ir.AttributeType.GRAPHS else []
