"""From labels to groups: what can leave together, and what is frozen and why.

Where a node can be read in several ways (heads or head dimensions, groups of a convolution or
channels within them), a search keeps the reading that makes the most parameters prunable. The
other factor is the business of a second stage on the model that the first one leaves.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxtrim.toolkit.graph.groups import Analysis, FrozenAxis, Group, Touch
from onnxtrim.toolkit.graph.labels import AxisRef, Classes, Index, close
from onnxtrim.toolkit.graph.normalise import Normalised
from onnxtrim.toolkit.graph.propagate import Reading, Step, Walker
from onnxtrim.toolkit.graph.values import independent_values, is_parameter

_ROUNDS = 3  # of the search; ends sooner when nothing improves
_COMBINATIONS = 64  # of alternatives that are tried together
_TOGETHER = "its slices can only leave all at once, or nothing reads them"


@dataclass(frozen=True)
class _Trial:
    """The classes under one choice of alternatives."""

    choices: dict[str, int]
    readings: list[Reading]
    classes: Classes
    units: Index
    score: tuple[int, int]


def analyse(normalised: Normalised, choices: Mapping[str, int] | None = None) -> Analysis:
    """Find the groups of units that can be removed.

    Args:
        normalised: The model with its shapes at the smallest batch.
        choices: Which alternative each node takes, as in an earlier analysis; then there is no
            search, and no second stage.

    Raises:
        SignatureError: A rule does not fit its operator: a bug of the rule table.
    """
    search = _Search(normalised)
    if choices is not None:
        return _analysis(normalised, search.read(dict(choices)))
    outer = _analysis(normalised, search.best(inner=False))
    if not outer.choices:
        return outer
    inner = _analysis(normalised, search.best(inner=True))
    known = {frozenset(group.slices): group.units for group in outer.groups}
    new = [group for group in inner.groups if known.get(frozenset(group.slices)) != group.units]
    if not new:
        return outer
    named = tuple(replace(group, name=f"{group.name}/inner") for group in new)
    return replace(outer, inner=replace(inner, groups=named))


class _Search:
    """Tries the alternatives of nodes, those of one kind together."""

    def __init__(self, normalised: Normalised) -> None:
        self.walker = Walker(normalised)
        self.weights = _weights(normalised)

    def read(self, choices: dict[str, int]) -> _Trial:
        readings = self.walker.walk(choices)
        classes = close(self.walker.labels, [self.walker.borders, *(r.ties for r in readings)])
        units = _unit_classes(classes, [touch for r in readings for touch in r.touches])
        return _Trial(choices, readings, classes, units, self._score(classes, units))

    def _score(self, classes: Classes, units: Index) -> tuple[int, int]:
        """Elements of the weights that can shrink, and the same counted once per such axis."""
        free = np.zeros(len(classes.cause), np.bool_)
        free[units] = True
        prunable = axes = 0
        for name, size in self.weights.items():
            found = (classes.of((name, axis)) for axis in range(len(self.walker.shapes[name])))
            # An axis of one class can't shrink.
            count = sum(len(c) > 1 and bool((free[c] & (c != c[0])).any()) for c in found)
            prunable += size * (count > 0)
            axes += size * count
        return prunable, axes

    def best(self, *, inner: bool) -> _Trial:
        steps = [step for step in self.walker.steps if step.alternatives > 1]
        best = self.read({s.name: s.alternatives - 1 if inner else 0 for s in steps})
        for _ in range(_ROUNDS):
            before = best.score
            failing = _failing(best)
            kinds: dict[tuple[object, ...], list[Step]] = defaultdict(list)
            for reading in failing:
                kinds[reading.step.kind].append(reading.step)
            for members in kinds.values():
                best = self._flip(best, [members])
            if failing:
                best = self._flip(best, list(kinds.values()))
            for cluster in _clusters(best, failing):
                best = self._flip(best, cluster)
            if best.score == before:
                break
        return best

    def _flip(self, best: _Trial, kinds: list[list[Step]]) -> _Trial:
        """Try every combination of alternatives, or, if these are too many, equal ones."""
        counts = [max(step.alternatives for step in members) for members in kinds]
        options: Iterable[tuple[int, ...]] = itertools.product(*map(range, counts))
        if math.prod(counts) > _COMBINATIONS:
            options = ((option,) * len(kinds) for option in range(max(counts)))
        for option in options:
            choices = best.choices | {
                step.name: min(chosen, step.alternatives - 1)
                for chosen, members in zip(option, kinds, strict=True)
                for step in members
            }
            if choices != best.choices:
                trial = self.read(choices)
                if trial.score > best.score:
                    best = trial
        return best


def _failing(trial: _Trial) -> list[Reading]:
    """Nodes with alternatives of which nothing that they follow can leave."""
    free = np.zeros(len(trial.classes.cause), np.bool_)
    free[trial.units] = True
    of_label = trial.classes.of_label

    def fails(reading: Reading) -> bool:
        found = of_label[reading.composite]
        return not free[found].any() or bool((found == found[0]).all())  # one unit is none

    return [reading for reading in trial.readings if reading.is_open and fails(reading)]


def _clusters(trial: _Trial, failing: list[Reading]) -> list[list[list[Step]]]:
    """Failing nodes whose labels are joined, by kind."""
    of_class: dict[int, dict[tuple[object, ...], list[Step]]] = defaultdict(dict)
    for reading in failing:
        for number in np.unique(trial.classes.of_label[reading.composite]):
            of_class[int(number)].setdefault(reading.step.kind, []).append(reading.step)
    unique = {
        tuple(sorted(step.name for members in kinds.values() for step in members)): kinds
        for kinds in of_class.values()
        if len(kinds) > 1
    }
    return [list(kinds.values()) for kinds in unique.values()]


def _weights(normalised: Normalised) -> dict[str, int]:
    """Elements of every parameter; copies of shared ones are not counted again."""
    return {
        name: int(np.prod(normalised.shapes[name], dtype=np.int64))
        for name, value in normalised.model.graph.initializers.items()
        if is_parameter(value) and name not in normalised.copies
    }


def _analysis(normalised: Normalised, trial: _Trial) -> Analysis:
    weights = _weights(normalised)
    macs = {reading.step.name: reading.macs for reading in trial.readings if reading.macs}
    groups = tuple(_groups(normalised, trial, weights, macs))
    on_groups = {tensor for group in groups for tensor, _ in group.slices}
    return Analysis(
        normalised,
        groups,
        tuple(_frozen(normalised, trial, on_groups)),
        sum(weights.values()),
        sum(size for name, size in weights.items() if name in on_groups),
        sum(macs.values()),
        {r.step.name: trial.choices.get(r.step.name, 0) for r in trial.readings if r.is_open},
        macs,
        trial.classes,
    )


def _unit_classes(classes: Classes, touches: Sequence[Touch]) -> Index:
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
    free = np.zeros(len(classes.cause), np.bool_)
    free[wanted] = True
    refs, number_of = classes.labels.axes(), classes.labels.axis_numbers()
    unit = classes.of_label[: len(number_of)]
    pairs = np.sort((unit * len(refs) + number_of)[free[unit]])  # np.unique hashes, slowly
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    unit, number_of = np.divmod(pairs, max(len(refs), 1))
    borders = np.flatnonzero(np.diff(unit)) + 1
    groups: dict[bytes, list[int]] = defaultdict(list)
    axes_of: dict[bytes, Index] = {}
    for start, part in zip((0, *borders), np.split(number_of, borders), strict=True):
        if len(part):
            groups[part.tobytes()].append(int(unit[start]))
            axes_of[part.tobytes()] = part
    members = {
        tuple(refs[number] for number in axes_of[key]): np.asarray(found, np.int64)
        for key, found in groups.items()
        if len(found) > 1
    }
    return dict(sorted(members.items(), key=lambda item: item[1][0]))


def _groups(
    normalised: Normalised, trial: _Trial, weights: Mapping[str, int], macs: Mapping[str, int]
) -> Iterator[Group]:
    classes, namer = trial.classes, _Namer(normalised.model.graph)
    all_touches = [touch for reading in trial.readings for touch in reading.touches]
    by_axis: dict[AxisRef | None, list[int]] = defaultdict(list)
    for number, touch in enumerate(all_touches):
        for ref in {touch.value, touch.weight}:
            by_axis[ref].append(number)
    number_of = np.full(len(classes.cause), -1, np.int64)
    for axes, units in _members(classes, trial.units).items():
        number_of[units] = np.arange(len(units))
        slices = {ref: number_of[classes.of(ref)] for ref in axes}
        number_of[units] = -1
        mine = sorted({number for ref in axes for number in by_axis.get(ref, ())})
        touches = tuple(all_touches[number] for number in mine)
        name = namer.name(slices, touches)
        parameters = _parameters(normalised, slices, weights)
        yield Group(
            name, len(units), slices, touches, parameters, _group_macs(macs, touches, slices)
        )


class _Namer:
    """Names groups after the weight of their first producer."""

    def __init__(self, graph: ir.Graph) -> None:
        self._made = {value.name: node for node in graph for value in node.outputs}
        self._constants = independent_values(graph)[1]
        self._taken: set[str] = set()

    def name(self, slices: Mapping[AxisRef, Index], touches: tuple[Touch, ...]) -> str:
        """A name that no other group has."""
        touch = min(touches, key=self._rank)
        tensors = {tensor for tensor, _ in slices}
        name = touch.value[0] if touch.weight is None else self._origin(touch.weight[0], tensors)
        for ending in (".weight", ".weight_quantized"):
            name = name.removesuffix(ending)
        unique, count = name, 2
        while unique in self._taken:
            unique, count = f"{name}#{count}", count + 1
        self._taken.add(unique)
        return unique

    def _rank(self, touch: Touch) -> tuple[bool, bool]:
        """Producers first, and of these the ones that do more than move a weight."""
        return touch.role != "producer", touch.value[0] in self._constants

    def _origin(self, name: str, tensors: set[str]) -> str:
        """The initializer that a transposed, joined or cut weight comes from."""
        while name in self._made:
            sources = [value.name or "" for value in self._made[name].inputs if value is not None]
            if not sources:
                break
            name = next((source for source in sources if source in tensors), sources[0])
        return name


def _parameters(
    normalised: Normalised, slices: Mapping[AxisRef, Index], weights: Mapping[str, int]
) -> int:
    """Elements that vanish with all units; an element on two axes of the group counts once."""
    total = 0
    for name in {name for name, _ in slices} & weights.keys():
        rest = 1
        for axis, length in enumerate(normalised.shapes[name]):
            units = slices.get((name, axis))
            rest *= length if units is None else int((units < 0).sum())
        total += weights[name] - rest
    return total


def _group_macs(
    macs: Mapping[str, int], touches: tuple[Touch, ...], slices: Mapping[AxisRef, Index]
) -> int:
    share: dict[str, float] = {}
    for touch in touches:
        units = slices.get(touch.value)
        if units is not None and touch.node in macs:
            share[touch.node] = max(share.get(touch.node, 0.0), float((units >= 0).mean()))
    return round(sum(macs[node] * part for node, part in share.items()))


def _frozen(normalised: Normalised, trial: _Trial, on_groups: set[str]) -> Iterator[FrozenAxis]:
    for reading in trial.readings:
        if reading.step.rule is None and reading.ties.frozen:
            cause = reading.ties.frozen[0][1]
            yield FrozenAxis(cause.node, cause.operator, cause.reason, cause.node)
    shapes, seen = normalised.shapes, set[AxisRef]()
    for touch in (touch for reading in trial.readings for touch in reading.touches):
        ref = touch.weight
        if touch.role != "producer" or ref is None or ref in seen:
            continue
        if ref[0] not in normalised.model.graph.initializers:
            continue  # its initializer is told already
        seen.add(ref)
        why = trial.classes.why(ref)
        if why is not None and len(shapes[ref[0]]) > 1:
            yield FrozenAxis(ref[0], why.operator, why.reason, why.node)
        elif why is None and ref[0] not in on_groups and shapes[ref[0]][ref[1]] > 1:
            yield FrozenAxis(ref[0], touch.operator, _TOGETHER, touch.node)
