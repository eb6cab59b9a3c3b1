"""Random plans for nets of the torch zoo: a share of every group leaves, in both stages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxtrim.toolkit.graph.analyse import analyse
from onnxtrim.toolkit.graph.constraints import satisfy
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.normalise import remeasure
from onnxtrim.toolkit.graph.surgery import remove_units
from onnxtrim.toolkit.plan import Plan, Removal, Stage
from onnxtrim.toolkit.prepare import Prepared


def random_plan(prepared: Prepared, share: float = 0.4, seed: int = 0, stages: int = 2) -> Plan:
    """Remove a share of the units of every group, then of the groups of the second stage."""
    rng = np.random.default_rng(seed)
    analysis = prepared.analysis
    first, keep = _stage(analysis, analysis.groups, share, rng)
    found = [first] if first.removals else []
    inner = analysis.inner
    if inner is not None and stages > 1:
        if not first.removals:
            second, _ = _stage(inner, inner.groups, share, rng)
        else:
            pruned = remove_units(analysis.model, analysis, keep)
            again = analyse(remeasure(analysis.normalised, pruned), inner.choices)
            groups = tuple(g for g in again.groups if _same(g, inner.groups))
            second, _ = _stage(replace(again, groups=groups), groups, share, rng)
        found += [second] if second.removals else []
    return Plan(prepared.sha256, "", {"name": "random", "share": share}, tuple(found))


def _same(group: Group, others: tuple[Group, ...]) -> bool:
    return any(set(group.slices) == set(other.slices) for other in others)


def _stage(
    analysis: Analysis, groups: tuple[Group, ...], share: float, rng: np.random.Generator
) -> tuple[Stage, dict[str, np.ndarray]]:
    orders = {}
    for group in groups:
        count = min(round(share * group.units), group.units - 1)
        orders[group.name] = rng.permutation(group.units)[:count]
    keep = dict(satisfy(analysis, orders))
    removals = []
    for group in groups:
        mask = keep.get(group.name)
        if mask is not None:
            tensor, axis = next(iter(group.slices))
            gone = tuple(int(unit) for unit in np.flatnonzero(~mask))
            removals.append(Removal(group.name, tensor, axis, group.units, gone))
    return Stage(dict(analysis.choices), tuple(removals)), keep
