"""A plan says what to remove: serialisable, exact, bound to a model by its hash."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import read_json, write_json
from onnxtrim.toolkit.criteria import Criterion
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.surgery import Keep
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


@dataclass(frozen=True)
class Plan:
    """An ordered list of removals; a later version may hold several stages.

    Attributes:
        model_sha256: Hash of the model file.
        data_sha256: Hash of the calibration data.
        criterion: The criterion with its settings.
        removals: What leaves, in the order of the graph.
        warnings: What the user should know.
    """

    model_sha256: str
    data_sha256: str
    criterion: dict[str, Any]
    removals: tuple[Removal, ...]
    warnings: tuple[str, ...] = ()

    def keep(self) -> Keep:
        """For every group that loses units, a mask of the units that stay."""
        masks: dict[str, NDArray[np.bool_]] = {}
        for removal in self.removals:
            mask = np.ones(removal.units, np.bool_)
            mask[list(removal.remove)] = False
            masks[removal.group] = mask
        return masks

    def kept_hash(self) -> str:
        """SHA-256 over what stays; equal for plans that give the same model."""
        content = [[removal.group, sorted(removal.remove)] for removal in self.removals]
        return hashlib.sha256(json.dumps([self.model_sha256, content]).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The form in which it is saved."""
        return {
            "schema": SCHEMA,
            "model": {"sha256": self.model_sha256},
            "data": {"sha256": self.data_sha256},
            "criterion": self.criterion,
            "stages": [
                {
                    "removals": [
                        {
                            "group": removal.group,
                            "tensor": removal.tensor,
                            "axis": removal.axis,
                            "units": removal.units,
                            "remove": list(removal.remove),
                        }
                        for removal in self.removals
                    ]
                }
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
            (stage,) = value["stages"]
            removals = tuple(
                Removal(
                    str(item["group"]),
                    str(item["tensor"]),
                    int(item["axis"]),
                    int(item["units"]),
                    tuple(int(unit) for unit in item["remove"]),
                )
                for item in stage["removals"]
            )
            return cls(
                value["model"]["sha256"],
                value["data"]["sha256"],
                value["criterion"],
                removals,
                tuple(value["warnings"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: is not a complete plan ({error!r})") from error

    def require(self, analysis: Analysis, model_sha256: str, path: str) -> None:
        """Check that the plan fits a model.

        Raises:
            InputError: It was made for another model, or is not possible on this one.
        """
        if self.model_sha256 != model_sha256:
            raise InputError(f"{path}: this plan was made for another model file")
        groups = {group.name: group for group in analysis.groups}
        for removal in self.removals:
            group = groups.get(removal.group)
            if group is None or (removal.tensor, removal.axis) not in group.slices:
                raise InputError(f"{path}: the model has no such group {removal.group!r}")
            units = set(removal.remove)
            in_range = all(0 <= unit < group.units for unit in units)
            if group.units != removal.units or not in_range or not 0 < len(units) < group.units:
                raise InputError(f"{path}: group {removal.group!r} can't lose these units")


def make_plan(analysis: Analysis, statistics: Statistics, criterion: Criterion) -> Plan:
    """Apply a criterion to every group."""
    removals, warnings = [], []
    for group in analysis.groups:
        choice = criterion.choose(group, statistics.of(group))
        if choice.emptied:
            warnings.append(
                f"group {group.name!r}: all {group.units} units are below the thresholds;"
                " the best one stays"
            )
        if len(choice.order):
            tensor, axis = next(iter(group.slices))
            order = tuple(int(unit) for unit in choice.order)
            removals.append(Removal(group.name, tensor, axis, group.units, order))
    return Plan(
        statistics.model_sha256,
        statistics.data_sha256,
        criterion.to_json(),
        tuple(removals),
        tuple(warnings),
    )
