"""What must hold on every axis: at least one position stays, or a multiple of an alignment.

These are constraints per (tensor, axis), not per group: Concat and Slice put several groups on one
axis. Equal counts per group of a convolution need no constraint, since whole groups leave, or the
same channel of each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.labels import AxisRef, Index
from onnxtrim.toolkit.graph.surgery import Keep

_CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass
class _Axis:
    """An axis that loses positions."""

    size: int
    kept: int
    aligned: bool

    def lacks(self, align: int) -> bool:
        """Whether a position must come back."""
        off = self.aligned and self.kept % align != 0
        return self.kept == 0 or (off and self.kept < self.size)


def satisfy(
    analysis: Analysis,
    removals: Mapping[str, Index],
    align: int = 1,
    *,
    only_convolutions: bool = False,
) -> Keep:
    """The removals, less what the axes can't spare.

    Args:
        analysis: The groups.
        removals: For each group the units that should leave, the first to go at the front; those
            at the end come back first.
        align: Axes of weights keep a multiple of this many positions, or all.
        only_convolutions: Align the axes of convolutions' weights only.

    Returns:
        For every group that loses units, a mask of the units that stay.
    """
    groups = {group.name: group for group in analysis.groups if len(removals.get(group.name, ()))}
    left = {name: [int(unit) for unit in removals[name]] for name in groups}
    counts = {name: _per_unit(group) for name, group in groups.items()}
    axes, members = _axes(analysis, groups, left, counts, only_convolutions)
    waiting = dict.fromkeys(axes)
    while waiting:
        ref = next(iter(waiting))
        del waiting[ref]
        while axes[ref].lacks(align):
            # The group that loses the largest share of itself gives one back.
            name = max(members[ref], key=lambda name: len(left[name]) / groups[name].units)
            if not left[name]:
                break
            unit = left[name].pop()
            for other, per_unit in counts[name].items():
                axes[other].kept += int(per_unit[unit])
                waiting[other] = None
    masks: dict[str, NDArray[np.bool_]] = {}
    for name, units in left.items():
        if units:
            masks[name] = np.ones(groups[name].units, np.bool_)
            masks[name][units] = False
    return masks


def _per_unit(group: Group) -> dict[AxisRef, Index]:
    """On every axis, how many positions each unit has."""
    return {
        ref: np.bincount(units[units >= 0], minlength=group.units)
        for ref, units in group.slices.items()
    }


def _axes(
    analysis: Analysis,
    groups: Mapping[str, Group],
    left: Mapping[str, list[int]],
    counts: Mapping[str, Mapping[AxisRef, Index]],
    only_convolutions: bool,
) -> tuple[dict[AxisRef, _Axis], dict[AxisRef, list[str]]]:
    shapes, weights = analysis.normalised.shapes, analysis.model.graph.initializers
    axes: dict[AxisRef, _Axis] = {}
    members: dict[AxisRef, list[str]] = defaultdict(list)
    for name, group in groups.items():
        for ref in group.slices:
            size = shapes[ref[0]][ref[1]]
            wide = ref[0] in weights and len(shapes[ref[0]]) > 1
            if wide and only_convolutions:
                wide = any(use.node.op_type in _CONVOLUTIONS for use in weights[ref[0]].uses())
            axis = axes.setdefault(ref, _Axis(size, size, wide))
            axis.kept -= int(counts[name][ref][left[name]].sum())
            members[ref].append(name)
    return axes, members
