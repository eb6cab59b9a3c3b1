"""One walk over the nodes: the rules tie and freeze labels, and say who reads what."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxtrim.toolkit.graph.groups import Touch
from onnxtrim.toolkit.graph.labels import AxisRef, Freeze, Index, Labels, Ties
from onnxtrim.toolkit.graph.node import Answer, Frozen, Move, NodeView, Piece, Rule, Spliced
from onnxtrim.toolkit.graph.normalise import Normalised
from onnxtrim.toolkit.graph.rules import answer
from onnxtrim.toolkit.graph.signature import Axis, Binding, bind, followed, parse
from onnxtrim.toolkit.graph.values import independent_values

Choices = Mapping[str, int]  # node -> which of its alternatives is taken

_INPUT = Freeze("", "graph input", "it is an input of the model")
_MERGED = "the axis is merged with one whose size depends on the inputs"
_OUTPUT = Freeze("", "graph output", "it is an output of the model")


@dataclass(frozen=True)
class Step:
    """A node with what the table says of it; the same for every choice of alternatives."""

    view: NodeView
    answer: Answer
    rule: Rule | None

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.view.node.name or ""

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
class Reading:
    """What one alternative of a node says.

    Attributes:
        step: The node.
        ties: What it ties and freezes.
        touches: Whom it makes producer, carrier and consumer.
        macs: Its multiply-accumulates.
        composite: Labels of what it follows within composite axes.
    """

    step: Step
    ties: Ties
    touches: tuple[Touch, ...] = ()
    macs: int = 0
    composite: Index = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def is_open(self) -> bool:
        """Whether another alternative could follow something else."""
        return self.step.alternatives > 1 and len(self.composite) > 0


def steps(normalised: Normalised) -> list[Step]:
    """Ask the rule table about every node.

    Raises:
        Exception: A rule raises on a node: a bug of the rule table.
    """
    shapes, model = normalised.shapes, normalised.model
    opset = model.opset_imports.get("", 1)

    def shape(value: ir.Value | None) -> tuple[int, ...] | None:
        return None if value is None else shapes.get(value.name or "")

    def varying(value: ir.Value | None) -> Mapping[int, int]:
        return {} if value is None else normalised.varying.get(value.name or "", {})

    result = []
    for node in model.graph:
        view = NodeView(
            node, tuple(map(shape, node.inputs)), tuple(map(shape, node.outputs)), opset,
            tuple(map(varying, node.outputs)), tuple(map(varying, node.inputs)),
        )  # fmt: skip
        result.append(Step(view, *answer(view)))
    return result


class Walker:
    """Reads nodes, each alternative once: a search asks for the same ones again and again."""

    def __init__(self, normalised: Normalised) -> None:
        self.shapes, self.varying = normalised.shapes, normalised.varying
        self.graph = normalised.model.graph
        self.steps = steps(normalised)
        self.labels = Labels(self.shapes)
        self._constants = independent_values(self.graph)[1]  # weights, also transposed ones
        self._read: dict[tuple[int, int], Reading] = {}
        self.borders = Ties("")
        for value in self.graph.inputs:
            self._freeze(self.borders, value, _INPUT)
        for value in self.graph.outputs:
            self._freeze(self.borders, value, _OUTPUT)

    def walk(self, choices: Choices) -> list[Reading]:
        """Read every node.

        Args:
            choices: Which alternative each node takes; the first where nothing is said.

        Raises:
            SignatureError: A rule does not fit its operator: a bug of the rule table.
        """
        found = []
        for number, step in enumerate(self.steps):
            # Of two heads one may be left: then there are fewer alternatives than in the plan.
            choice = max(0, min(choices.get(step.name, 0), step.alternatives - 1))
            reading = self._read.get((number, choice))
            if reading is None:
                reading = self._read[number, choice] = self._reading(step, choice)
            found.append(reading)
        return found

    def _reading(self, step: Step, choice: int) -> Reading:
        node, said = step.view.node, step.answer
        ties = Ties(step.name)
        if isinstance(said, Frozen):
            self._freeze_all(ties, node, Freeze(step.name, node.op_type, said.reason))
        elif isinstance(said, Spliced):
            for piece in said.pieces:
                self._splice(ties, node, piece, step.rule)
        else:
            return self._apply(step, ties, said[choice] if isinstance(said, tuple) else said)
        return Reading(step, ties)

    def _freeze(self, ties: Ties, value: ir.Value | None, cause: Freeze) -> None:
        if value is not None and value.name in self.shapes:
            for axis in range(len(self.shapes[value.name])):
                ties.freeze(self.labels.of((value.name, axis)), cause)

    def _freeze_all(self, ties: Ties, node: ir.Node, cause: Freeze) -> None:
        for value in (*node.inputs, *node.outputs):
            self._freeze(ties, value, cause)
        for attribute in node.attributes.values():
            for graph in _subgraphs(attribute):
                for inner in graph.all_nodes():
                    for value in inner.inputs:  # captured values of the outer graph
                        self._freeze(ties, value, cause)
                for value in graph.outputs:
                    self._freeze(ties, value, cause)

    def _splice(self, ties: Ties, node: ir.Node, piece: Piece, rule: Rule | None) -> None:
        value = node.inputs[piece.operand]
        source = value.name or "" if value is not None else ""
        target, name = node.outputs[piece.output].name or "", node.name or ""
        for a, b in piece.passes:
            ties.tie(self.labels.of((source, a)), self.labels.of((target, b)))
        for move in piece.moves:
            one, other = (source, move.source), (target, move.target)
            if self._is_cut(one, other, move):
                for ref in (one, other):
                    ties.freeze(self.labels.of(ref), Freeze(name, node.op_type, _MERGED))
                continue
            ties.tie(self.labels.of(one)[move.taken], self.labels.of(other)[move.put])
        cause = Freeze(name, node.op_type, rule.why if rule is not None else "")
        for axis, positions in piece.frozen_inputs:
            labels = self.labels.of((source, axis))
            ties.freeze(labels if positions is None else labels[positions], cause)
        for axis in piece.frozen_outputs:
            ties.freeze(self.labels.of((target, axis)), cause)

    def _size(self, ref: AxisRef) -> int | None:
        """Size of an axis at other inputs, ``None`` if it is the same."""
        return self.varying.get(ref[0], {}).get(ref[1])

    def _is_cut(self, one: AxisRef, other: AxisRef, move: Move) -> bool:
        """Whether some positions move of an axis that is longer or shorter at other inputs."""
        if self._size(one) is None and self._size(other) is None:
            return False
        size = self.shapes[one[0]][one[1]]
        everything = np.arange(size)
        return (
            self._size(one) != self._size(other)
            or not np.array_equal(move.taken, everything)
            or not np.array_equal(move.put, everything)
        )

    def _apply(self, step: Step, ties: Ties, text: str) -> Reading:
        view, rule = step.view, step.rule
        sizes = rule.sizes(view) if rule is not None else {}
        binding = bind(parse(text), view.inputs, view.outputs, sizes)
        occurrences: dict[str, list[tuple[str, int, AxisRef]]] = defaultdict(list)
        representative: dict[str, Index] = {}
        cause = Freeze(step.name, view.node.op_type, rule.why if rule is not None else "")
        composite = [np.empty(0, np.int64)]
        for side, index, tensor, axes in _operands(view, binding):
            for axis, letters in enumerate(axes):
                if self.shapes[tensor][axis] == 1:
                    continue
                letter = followed(letters)
                if letter is None or binding.sizes[letter] == 1:
                    ties.freeze(self.labels.of((tensor, axis)), cause)
                    continue
                ref = (tensor, axis)
                reads = side == "in" and (index, axis) in binding.reads
                occurrences[letter].append(("read" if reads else side, index, ref))
                self._tie(ties, representative, letter, letters, ref, binding)
                if len(letters) > 1:
                    composite.append(representative[letter])
        touches = [
            touch for found in occurrences.values() for touch in self._roles(view.node, found, ties)
        ]
        macs = rule.macs(binding) if rule is not None and rule.macs is not None else 0
        return Reading(step, ties, tuple(touches), macs, np.concatenate(composite))

    def _tie(
        self,
        ties: Ties,
        representative: dict[str, Index],
        letter: str,
        letters: Axis,
        ref: AxisRef,
        binding: Binding,
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
            ties.tie(labels, representative[letter][unit])
        elif letter in representative:
            ties.tie(labels, representative[letter])
        else:
            representative[letter] = labels

    def _roles(
        self, node: ir.Node, found: list[tuple[str, int, AxisRef]], ties: Ties
    ) -> Iterator[Touch]:
        """Which role the node plays for the slices of one letter."""
        name, operator = node.name or "", node.op_type
        inputs = [(index, ref) for side, index, ref in found if side == "in"]
        outputs = [ref for side, _, ref in found if side == "out"]
        weights = [(i, ref) for i, ref in inputs if ref[0] in self._constants]
        activations = [(i, ref) for i, ref in inputs if ref[0] not in self._constants]
        operand, weight = weights[0] if weights else (-1, None)
        if inputs and not outputs and not activations:
            cause = Freeze(name, operator, "it is contracted between constants")
            ties.freeze(self.labels.of(inputs[0][1]), cause)
        elif inputs and not outputs and any(self._size(ref) is not None for _, ref in activations):
            ties.freeze(self.labels.of(inputs[0][1]), Freeze(name, operator, _MERGED))
        elif inputs and not outputs:
            for index, ref in activations:
                yield Touch(name, operator, "consumer", ref, index, weight, operand)
        elif activations and outputs:
            for index, ref in activations:
                for operand, weight in weights:
                    yield Touch(name, operator, "carrier", ref, index, weight, operand)
        elif weights and outputs:
            yield Touch(name, operator, "producer", outputs[0], -1, weight, operand)
        for side, index, ref in found:
            if side == "read" and outputs:  # what is read is the node's own output
                yield Touch(name, operator, "consumer", outputs[0], -1, ref, index)


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
