"""From labels to groups: what can leave together, and what is frozen and why.

Where a node can be read in several ways (heads or head dimensions, groups of a convolution or
channels within them), a search keeps the reading that makes the most parameters prunable. The
other factor is the business of a second stage on the model that the first one leaves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxtrim.toolkit.graph.groups import Analysis, FrozenAxis, Group, Touch
from onnxtrim.toolkit.graph.labels import AxisRef, Classes, Index
from onnxtrim.toolkit.graph.normalise import Normalised
from onnxtrim.toolkit.graph.propagate import Site, Step, Walk, steps, walk

_ROUNDS = 3  # of the search; ends sooner when nothing improves


@dataclass(frozen=True)
class _Reading:
    """The groups' axes under one choice of alternatives."""

    choices: dict[str, int]
    found: Walk
    classes: Classes
    members: dict[tuple[AxisRef, ...], Index]
    prunable: int


def analyse(normalised: Normalised, choices: Mapping[str, int] | None = None) -> Analysis:
    """Find the groups of units that can be removed.

    Args:
        normalised: The model with its shapes at the smallest batch.
        choices: Which alternative each node takes, as in an earlier analysis; a search otherwise.

    Raises:
        SignatureError: A rule does not fit its operator: a bug of the rule table.
    """
    search = _Search(normalised)
    reading = search.best(inner=False) if choices is None else search.read(dict(choices))
    return _analysis(normalised, reading)


def inner_analysis(normalised: Normalised, outer: Analysis) -> Analysis:
    """The groups of a second stage: head dimensions after heads, channels after conv groups.

    Args:
        normalised: The model that the first stage left, or the original.
        outer: The analysis of the first stage.

    Returns:
        An analysis that holds only groups that the first one does not have.
    """
    if not outer.choices:
        return replace(outer, groups=())
    known = {frozenset(group.slices): group.units for group in outer.groups}
    inner = _analysis(normalised, _Search(normalised).best(inner=True))
    new = (group for group in inner.groups if known.get(frozenset(group.slices)) != group.units)
    return replace(inner, groups=tuple(replace(g, name=f"{g.name}/inner") for g in new))


class _Search:
    """Tries the alternatives of nodes, those of one kind together."""

    def __init__(self, normalised: Normalised) -> None:
        self.normalised = normalised
        self.path = steps(normalised)
        self.weights = _weights(normalised)

    def read(self, choices: dict[str, int]) -> _Reading:
        found = walk(self.normalised, self.path, choices)
        classes = found.labels.close()
        members = _members(classes, _unit_classes(classes, found.touches))
        axes = {name for refs in members for name, _ in refs}
        prunable = sum(size for name, size in self.weights.items() if name in axes)
        return _Reading(choices, found, classes, members, prunable)

    def best(self, *, inner: bool) -> _Reading:
        open_steps = [step for step in self.path if step.alternatives > 1]
        start = {_name(step): step.alternatives - 1 if inner else 0 for step in open_steps}
        best = self.read(start)
        for _ in range(_ROUNDS):
            before = best.prunable
            failing = _failing(best)
            if not failing:
                break
            kinds: dict[tuple[object, ...], list[Step]] = defaultdict(list)
            for site in failing:
                kinds[site.step.kind].append(site.step)
            clusters = [*kinds.values(), [site.step for site in failing], *_clusters(best, failing)]
            for members in clusters:
                best = self._flip(best, members)
            if best.prunable == before:
                break
        return best

    def _flip(self, best: _Reading, members: list[Step]) -> _Reading:
        for option in range(max(step.alternatives for step in members)):
            choices = best.choices | {
                _name(step): min(option, step.alternatives - 1) for step in members
            }
            if choices != best.choices:
                trial = self.read(choices)
                if trial.prunable > best.prunable:
                    best = trial
        return best


def _name(step: Step) -> str:
    return step.view.node.name or ""


def _failing(reading: _Reading) -> list[Site]:
    """Sites of which no label ended in a group."""
    prunable = np.zeros(len(reading.classes.cause), np.bool_)
    for units in reading.members.values():
        prunable[units] = True
    of_label = reading.classes.of_label
    return [site for site in reading.found.sites if not prunable[of_label[site.labels]].any()]


def _clusters(reading: _Reading, failing: list[Site]) -> list[list[Step]]:
    """Failing sites whose labels are joined."""
    of_class: dict[int, list[Step]] = defaultdict(list)
    for site in failing:
        for number in np.unique(reading.classes.of_label[site.labels]):
            of_class[int(number)].append(site.step)
    unique = {tuple(map(_name, members)): members for members in of_class.values()}
    return [members for members in unique.values() if len(members) > 1]


def _weights(normalised: Normalised) -> dict[str, int]:
    """Elements of every float initializer; copies of shared ones are not counted again."""
    return {
        name: int(np.prod(normalised.shapes[name], dtype=np.int64))
        for name, value in normalised.model.graph.initializers.items()
        if value.dtype is not None
        and value.dtype.is_floating_point()
        and name not in normalised.copies
    }


def _analysis(normalised: Normalised, reading: _Reading) -> Analysis:
    weights = _weights(normalised)
    groups = tuple(_groups(normalised, reading, weights))
    return Analysis(
        normalised,
        groups,
        tuple(_frozen(normalised, reading)),
        sum(weights.values()),
        reading.prunable,
        sum(reading.found.macs.values()),
        {site.node: reading.choices[site.node] for site in reading.found.sites},
        reading.found.macs,
        reading.classes,
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
    free = np.zeros(len(classes.cause), np.bool_)
    free[wanted] = True
    numbers, units = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    refs = classes.labels.axes()
    for number, ref in enumerate(refs):
        found = classes.of(ref)
        found = np.unique(found[free[found]])
        units.append(found)
        numbers.append(np.full(len(found), number))
    unit, number_of = np.concatenate(units), np.concatenate(numbers)
    order = np.argsort(unit, kind="stable")
    unit, number_of = unit[order], number_of[order]
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
    normalised: Normalised, reading: _Reading, weights: Mapping[str, int]
) -> Iterator[Group]:
    classes, taken = reading.classes, set[str]()
    by_axis: dict[AxisRef, list[int]] = defaultdict(list)
    for number, touch in enumerate(reading.found.touches):
        for ref in {touch.value, touch.weight} - {None}:
            by_axis[ref].append(number)  # type: ignore[index]
    number_of = np.full(len(classes.cause), -1, np.int64)
    for axes, units in reading.members.items():
        number_of[units] = np.arange(len(units))
        slices = {ref: number_of[classes.of(ref)] for ref in axes}
        number_of[units] = -1
        mine = sorted({number for ref in axes for number in by_axis.get(ref, ())})
        touches = tuple(reading.found.touches[number] for number in mine)
        name = _group_name(touches, taken)
        taken.add(name)
        parameters = _parameters(normalised, slices, weights)
        macs = _group_macs(reading.found.macs, touches, slices)
        yield Group(name, len(units), slices, touches, parameters, macs)


def _group_name(touches: tuple[Touch, ...], taken: set[str]) -> str:
    ordered = sorted(touches, key=lambda touch: touch.role != "producer")
    first = ordered[0]
    name = first.weight[0] if first.weight is not None else first.value[0]
    name = name.removesuffix(".weight")
    unique, count = name, 2
    while unique in taken:
        unique, count = f"{name}#{count}", count + 1
    return unique


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
        if units is not None:
            share[touch.node] = max(share.get(touch.node, 0.0), float((units >= 0).mean()))
    return round(sum(macs.get(node, 0) * part for node, part in share.items()))


def _frozen(normalised: Normalised, reading: _Reading) -> Iterator[FrozenAxis]:
    for cause in reading.found.unruled:
        yield FrozenAxis(cause.node, cause.operator, cause.reason, cause.node)
    shapes, seen = normalised.shapes, set[AxisRef]()
    for touch in reading.found.touches:
        ref = touch.weight
        if touch.role != "producer" or ref is None or ref in seen:
            continue
        if ref[0] not in normalised.model.graph.initializers:
            continue  # its initializer is told already
        seen.add(ref)
        why = reading.classes.why(ref)
        if why is not None and len(shapes[ref[0]]) > 1:
            yield FrozenAxis(ref[0], why.operator, why.reason, why.node)
