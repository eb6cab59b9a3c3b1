"""Propagate the rules over a normalised model and collect the groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxtrim.toolkit.graph.groups import Analysis, FrozenAxis, Group, Touch
from onnxtrim.toolkit.graph.labels import AxisRef, Classes, Freeze, Index, Labels
from onnxtrim.toolkit.graph.normalise import Normalised, independent_values
from onnxtrim.toolkit.graph.rules import Frozen, Joined, NodeView, Rule, answer
from onnxtrim.toolkit.graph.signature import Axis, Binding, bind, followed, parse


class _Propagation:
    """One walk over the nodes; collects labels, touches and MACs."""

    def __init__(self, normalised: Normalised) -> None:
        self.shapes = normalised.shapes
        self.graph = normalised.model.graph
        self.constants = independent_values(self.graph)[1]  # weights, also transposed ones
        self.opset = normalised.model.opset_imports.get("", 1)
        self.copies = normalised.copies.keys()
        self.labels = Labels(self.shapes)
        self.touches: list[Touch] = []
        self.macs: dict[str, int] = {}
        self.unruled: list[Freeze] = []

    def run(self) -> None:
        for value in self.graph.inputs:
            self._freeze(value, Freeze("", "graph input", "it is an input of the model"))
        for node in self.graph:
            self._node(node)
        for value in self.graph.outputs:
            self._freeze(value, Freeze("", "graph output", "it is an output of the model"))

    def _node(self, node: ir.Node) -> None:
        view = NodeView(
            node,
            tuple(self._shape(value) for value in node.inputs),
            tuple(self._shape(value) for value in node.outputs),
            self.opset,
        )
        result, rule = answer(view)
        cause = Freeze(node.name or "", node.op_type, "")
        if isinstance(result, Frozen):
            self._freeze_all(node, Freeze(cause.node, cause.operator, result.reason))
            if rule is None:
                self.unruled.append(Freeze(cause.node, cause.operator, result.reason))
        elif isinstance(result, Joined):
            self._join(node, result.axis)
        else:
            self._apply(view, result, rule)

    def _shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        return None if value is None else self.shapes.get(value.name or "")

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

    def _join(self, node: ir.Node, joined: int) -> None:
        output = node.outputs[0].name or ""
        start = 0
        for value in node.inputs:
            name = value.name or "" if value is not None else ""
            for axis, size in enumerate(self.shapes[name]):
                target = self.labels.of((output, axis))
                if axis == joined:
                    target = target[start : start + size]
                self.labels.tie(self.labels.of((name, axis)), target)
            start += self.shapes[name][joined]

    def _apply(self, view: NodeView, text: str, rule: Rule | None) -> None:
        sizes = rule.sizes(view) if rule is not None else {}
        binding = bind(parse(text), view.inputs, view.outputs, sizes)
        operands = list(_operands(view, binding))
        occurrences: dict[str, list[tuple[str, int, AxisRef]]] = defaultdict(list)
        representative: dict[str, Index] = {}
        for side, index, name, axes in operands:
            for axis, letters in enumerate(axes):
                if self.shapes[name][axis] == 1:
                    continue
                letter = followed(letters)
                if letter is None or binding.sizes[letter] == 1:
                    cause = Freeze(view.node.name or "", view.node.op_type, _reason(view.node))
                    self.labels.freeze(self.labels.of((name, axis)), cause)
                    continue
                occurrences[letter].append((side, index, (name, axis)))
                self._tie(representative, letter, letters, (name, axis), binding)
        for found in occurrences.values():
            self._record(view.node, found)
        if rule is not None and rule.macs:
            self.macs[view.node.name or ""] = _macs(binding)

    def _tie(
        self,
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
            self.labels.tie(labels, representative[letter][np.arange(len(labels)) // inner % size])
        elif letter in representative:
            self.labels.tie(labels, representative[letter])
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
        self.touches.append(
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


def _reason(node: ir.Node) -> str:
    if node.op_type == "Conv":
        return "it is a spatial axis or kernel"
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return "it merges or splits with another axis"
    return "it computes over this axis"


def _macs(binding: Binding) -> int:
    letters = {
        letter
        for axes in (*binding.inputs[1:2], *binding.outputs)
        for axis in axes or ()
        for letter in axis
    }
    return math.prod(binding.sizes[letter] for letter in letters)


def analyse(normalised: Normalised) -> Analysis:
    """Find the groups of units that can be removed.

    Args:
        normalised: The model with its shapes at the smallest batch.

    Raises:
        SignatureError: A rule does not fit its operator: a bug of the rule table.
    """
    walk = _Propagation(normalised)
    walk.run()
    classes = walk.labels.close()
    unit_classes = _unit_classes(classes, walk.touches)
    members = _members(classes, unit_classes)
    groups = tuple(_groups(walk, classes, members))
    weights = {
        name: int(np.prod(walk.shapes[name], dtype=np.int64))
        for name, value in walk.graph.initializers.items()
        if value.dtype is not None and value.dtype.is_floating_point() and name not in walk.copies
    }
    prunable = sum(
        size
        for name, size in weights.items()
        if any((name, axis) in group.slices for group in groups for axis in range(9))
    )
    return Analysis(
        normalised,
        groups,
        tuple(_frozen(walk, classes)),
        sum(weights.values()),
        prunable,
        sum(walk.macs.values()),
        classes,
    )


def _unit_classes(classes: Classes, touches: list[Touch]) -> Index:
    """Classes that are free and read by a consumer."""
    consumed = np.zeros(len(classes.cause), np.bool_)
    for touch in touches:
        if touch.role == "consumer":
            consumed[classes.of(touch.value)] = True
            if touch.weight is not None:
                consumed[classes.of(touch.weight)] = True
    return np.flatnonzero(consumed & ~classes.frozen())


def _members(classes: Classes, wanted: Index) -> dict[tuple[AxisRef, ...], Index]:
    """Group the classes by the set of axes that they lie on."""
    refs = classes.labels.axes()
    free = np.zeros(len(classes.cause), np.bool_)
    free[wanted] = True
    axes_of: dict[int, list[int]] = {}
    for number, ref in enumerate(refs):
        found = classes.of(ref)
        for unit in np.unique(found[free[found]]):
            axes_of.setdefault(int(unit), []).append(number)
    groups: dict[tuple[AxisRef, ...], list[int]] = defaultdict(list)
    for unit, numbers in axes_of.items():
        groups[tuple(refs[number] for number in numbers)].append(unit)
    return {axes: np.asarray(units, np.int64) for axes, units in groups.items() if len(units) > 1}


def _groups(
    walk: _Propagation, classes: Classes, members: dict[tuple[AxisRef, ...], Index]
) -> Iterator[Group]:
    names: set[str] = set()
    number_of = np.full(len(classes.cause), -1, np.int64)
    for axes, units in members.items():
        number_of[units] = np.arange(len(units))
        slices = {ref: number_of[classes.of(ref)] for ref in axes}
        number_of[units] = -1
        touches = tuple(
            touch
            for touch in walk.touches
            if touch.value in slices or (touch.weight is not None and touch.weight in slices)
        )
        name = _group_name(touches, names)
        names.add(name)
        yield Group(
            name,
            len(units),
            slices,
            touches,
            _parameters(walk, slices),
            _group_macs(walk, touches, slices),
        )


def _group_name(touches: tuple[Touch, ...], taken: set[str]) -> str:
    ordered = sorted(touches, key=lambda touch: touch.role != "producer")
    first = ordered[0]
    name = first.weight[0] if first.weight is not None else first.value[0]
    name = name.removesuffix(".weight")
    unique, count = name, 2
    while unique in taken:
        unique, count = f"{name}#{count}", count + 1
    return unique


def _parameters(walk: _Propagation, slices: dict[AxisRef, Index]) -> int:
    """Elements that vanish with all units; an element on two axes of the group counts once."""
    total = 0
    names = {name for name, _ in slices if name in walk.graph.initializers}
    for name in names - walk.copies:
        dtype = walk.graph.initializers[name].dtype
        if dtype is None or not dtype.is_floating_point():
            continue
        size = rest = 1
        for axis, length in enumerate(walk.shapes[name]):
            size *= length
            units = slices.get((name, axis))
            rest *= length if units is None else int((units < 0).sum())
        total += size - rest
    return total


def _group_macs(
    walk: _Propagation, touches: tuple[Touch, ...], slices: dict[AxisRef, Index]
) -> int:
    share: dict[str, float] = {}
    for touch in touches:
        units = slices.get(touch.value)
        if units is not None:
            share[touch.node] = max(share.get(touch.node, 0.0), float((units >= 0).mean()))
    return round(sum(walk.macs.get(node, 0) * part for node, part in share.items()))


def _frozen(walk: _Propagation, classes: Classes) -> Iterator[FrozenAxis]:
    for cause in walk.unruled:
        yield FrozenAxis(cause.node, cause.operator, cause.reason, cause.node)
    seen: set[AxisRef] = set()
    for touch in walk.touches:
        ref = touch.weight
        if touch.role != "producer" or ref is None or ref in seen:
            continue
        if ref[0] not in walk.graph.initializers:
            continue  # its initializer is told already
        seen.add(ref)
        why = classes.why(ref)
        if why is not None and len(walk.shapes[ref[0]]) > 1:
            yield FrozenAxis(ref[0], why.operator, why.reason, why.node)
