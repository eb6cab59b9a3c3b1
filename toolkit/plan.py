"""A plan says what to remove: serialisable, exact, bound to a model by its hash."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import read_json, write_json
from onnxtrim.toolkit.criteria import Criterion
from onnxtrim.toolkit.graph.analyse import analyse
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.normalise import remeasure
from onnxtrim.toolkit.graph.surgery import Keep, positions, remove_units
from onnxtrim.toolkit.limits import Limits
from onnxtrim.toolkit.statistics import Statistics

SCHEMA = "onnxtrim.plan/1"


@dataclass(frozen=True)
class Removal:
    """Units that leave one group.

    Attributes:
        group: Name of the group.
        tensor: A tensor that the group lies on, and
        axis: the axis, by which another version of the engine can recognise the group.
        units: Number of units of the group.
        remove: Numbers of the units that leave, the first to go at the front.
    """

    group: str
    tensor: str
    axis: int
    units: int
    remove: tuple[int, ...]

    def mask(self) -> NDArray[np.bool_]:
        """Which units stay."""
        mask = np.ones(self.units, np.bool_)
        mask[list(self.remove)] = False
        return mask

    def find(self, analysis: Analysis) -> Group | None:
        """The group that is meant; in a second stage it may have another name."""
        fitting = [
            group
            for group in analysis.groups
            if (self.tensor, self.axis) in group.slices and group.units == self.units
        ]
        named = (group for group in fitting if group.name == self.group)
        return next(named, fitting[0] if fitting else None)


@dataclass(frozen=True)
class Stage:
    """Removals that one analysis allows at the same time.

    Attributes:
        choices: Which alternative each node with several takes (heads or head dimensions).
        removals: What leaves, in the order of the graph.
    """

    choices: Mapping[str, int]
    removals: tuple[Removal, ...]

    def keep(self, analysis: Analysis, source: str) -> Keep:
        """For every group that loses units, a mask of the units that stay.

        Raises:
            InputError: The removals are not possible on this model.
        """
        masks: dict[str, NDArray[np.bool_]] = {}
        for removal in self.removals:
            group = removal.find(analysis)
            if group is None or group.name in masks:
                raise InputError(f"{source}: the model has no such group {removal.group!r}")
            units = set(removal.remove)
            in_range = all(0 <= unit < removal.units for unit in units)
            if not in_range or len(units) < len(removal.remove) or not units:
                raise InputError(f"{source}: group {removal.group!r} can't lose these units")
            masks[group.name] = removal.mask()
        try:
            positions(analysis, masks)
        except ValueError as error:
            raise InputError(f"{source}: {error}") from error
        return masks


@dataclass(frozen=True)
class Plan:
    """An ordered list of stages, each on the model that the one before leaves.

    Attributes:
        model_sha256: Hash of the model file.
        data_sha256: Hash of the calibration data.
        criterion: The criterion with its settings.
        stages: What leaves, stage by stage.
        limits: What was protected.
        warnings: What the user should know.
        inputs: Shape of every input at the smallest batch.
    """

    model_sha256: str
    data_sha256: str
    criterion: dict[str, Any]
    stages: tuple[Stage, ...]
    limits: Limits = field(default_factory=Limits)
    warnings: tuple[str, ...] = ()
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def removals(self) -> tuple[Removal, ...]:
        """What leaves, over all stages."""
        return tuple(removal for stage in self.stages for removal in stage.removals)

    def kept_hash(self) -> str:
        """SHA-256 over what stays; equal for plans that give the same model."""
        content = [
            [[removal.group, sorted(removal.remove)] for removal in stage.removals]
            for stage in self.stages
        ]
        return hashlib.sha256(json.dumps([self.model_sha256, content]).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The form in which it is saved."""
        return {
            "schema": SCHEMA,
            "model": {"sha256": self.model_sha256},
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "data": {"sha256": self.data_sha256},
            "criterion": self.criterion,
            "limits": self.limits.to_json(),
            "stages": [
                {
                    "choices": dict(stage.choices),
                    "removals": [
                        {
                            "group": removal.group,
                            "tensor": removal.tensor,
                            "axis": removal.axis,
                            "units": removal.units,
                            "remove": list(removal.remove),
                        }
                        for removal in stage.removals
                    ],
                }
                for stage in self.stages
            ],
            "warnings": list(self.warnings),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: Missing, not a plan, or malformed.
        """
        value = read_json(path, SCHEMA)
        try:
            return cls(
                str(value["model"]["sha256"]),
                str(value["data"]["sha256"]),
                dict(value["criterion"]),
                tuple(_stage(stage) for stage in value["stages"]),
                Limits.from_json(value["limits"]),
                tuple(map(str, value["warnings"])),
                {str(name): tuple(map(int, shape)) for name, shape in value["inputs"].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: is not a complete plan ({error!r})") from error

    def require(self, analysis: Analysis, model_sha256: str, path: str) -> None:
        """Check that the plan fits a model.

        Raises:
            InputError: It was made for another model, or is not possible on this one.
        """
        if self.model_sha256 != model_sha256:
            raise InputError(f"{path}: this plan was made for another model file")
        if self.stages:
            first = self.stages[0]
            first.keep(first_analysis(analysis, first), path)


def _stage(value: Mapping[str, Any]) -> Stage:
    return Stage(
        {str(node): int(choice) for node, choice in value["choices"].items()},
        tuple(
            Removal(
                str(item["group"]),
                str(item["tensor"]),
                int(item["axis"]),
                int(item["units"]),
                tuple(int(unit) for unit in item["remove"]),
            )
            for item in value["removals"]
        ),
    )


def first_analysis(analysis: Analysis, stage: Stage) -> Analysis:
    """The analysis that a plan's first stage was made for."""
    if dict(stage.choices) == dict(analysis.choices):
        return analysis
    return analyse(analysis.normalised, stage.choices)


def make_plan(
    analysis: Analysis,
    statistics: Statistics,
    criterion: Criterion,
    limits: Limits | None = None,
) -> Plan:
    """Apply a criterion to every group, the second stage on what the first one leaves.

    Raises:
        InputError: A glob of the limits matches nothing.
    """
    limits = limits or Limits()
    limits.check(analysis)
    first, warnings = _plan_stage(analysis, analysis.groups, statistics, criterion, limits)
    stages = [first] if first.removals else []
    if analysis.inner is not None:
        second, more = _second_stage(analysis, first, statistics, criterion, limits)
        stages += [second] if second.removals else []
        warnings += more
    return Plan(
        statistics.model_sha256,
        statistics.data_sha256,
        criterion.to_json(),
        tuple(stages),
        limits,
        tuple(warnings),
        {name: array.shape for name, array in analysis.normalised.feeds.items()},
    )


def _second_stage(
    analysis: Analysis,
    first: Stage,
    statistics: Statistics,
    criterion: Criterion,
    limits: Limits,
) -> tuple[Stage, list[str]]:
    inner = analysis.inner
    assert inner is not None  # the caller looked
    if not first.removals:
        return _plan_stage(inner, inner.groups, statistics, criterion, limits)
    keep = first.keep(analysis, "the plan")
    pruned = remove_units(analysis.model, analysis, keep)
    found = analyse(remeasure(analysis.normalised, pruned), inner.choices)
    named = []
    for group in inner.groups:  # the same groups, with fewer heads
        tensor, axis = next(iter(group.slices))
        same = Removal(group.name, tensor, axis, group.units, ()).find(found)
        if same is not None:
            named.append(replace(same, name=group.name))
    left = statistics.cut(positions(analysis, keep))
    return _plan_stage(replace(found, groups=tuple(named)), tuple(named), left, criterion, limits)


def _plan_stage(
    analysis: Analysis,
    groups: tuple[Group, ...],
    statistics: Statistics,
    criterion: Criterion,
    limits: Limits,
) -> tuple[Stage, list[str]]:
    orders, warnings = {}, []
    for group in groups:
        if not limits.allows(analysis, group):
            continue
        choice = criterion.choose(group, statistics.of(group))
        if choice.emptied:
            warnings.append(
                f"group {group.name!r}: all {group.units} units are below the thresholds;"
                " the best one stays"
            )
        if len(choice.order):
            orders[group.name] = choice.order
    keep = limits.keep(analysis, orders)
    removals = []
    for group in groups:
        mask = keep.get(group.name)
        if mask is not None:
            tensor, axis = next(iter(group.slices))
            order = tuple(int(unit) for unit in orders[group.name] if not mask[unit])
            removals.append(Removal(group.name, tensor, axis, group.units, order))
    return Stage(dict(analysis.choices), tuple(removals)), warnings
