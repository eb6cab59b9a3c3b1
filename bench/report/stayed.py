"""Why groups of a candidate are as wide as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxtrim.bench.report import words
from onnxtrim.bench.run_folder import Candidate, Distribution, GroupWidth, Run


def reasons(run: Run, candidate: Candidate) -> list[str]:
    """For each group of the candidate a reason, empty for those that lost units.

    1. By thresholds: how many of its units lie below both, wherever they are read.
    2. By a budget, or by another criterion: units of other groups went first.
    """
    layers: dict[str, list[Distribution]] = {}
    for layer in run.distributions:
        layers.setdefault(layer.name, []).append(layer)
    absolute = bool(run.spec.criterion.get("absolute"))
    return [
        _reason(group, layers.get(group.name, []), candidate.settings, absolute)
        if group.after >= group.before
        else ""
        for group in candidate.groups
    ]


def _reason(
    group: GroupWidth, layers: Sequence[Distribution], settings: Mapping[str, Any], absolute: bool
) -> str:
    if group.before == 1:
        return "it has one unit, which stays"
    most_mean, most_std = (settings.get(key) for key in ("mean_below", "std_below"))
    if not (isinstance(most_mean, (int, float)) and isinstance(most_std, (int, float))):
        if "baseline" in settings:
            return f"{settings['baseline']} ranks units of other groups lower"
        return "units of other groups cost the outputs less" if "remove" in settings else ""
    fitting = [layer for layer in layers if layer.mean.size == group.before]
    if not fitting or len(fitting) != len(layers):
        return "nothing of it was planned to leave"
    below = np.ones(group.before, np.bool_)
    for layer in fitting:
        mean = np.abs(layer.mean) if absolute else layer.mean
        below &= (mean < most_mean) & (layer.std < most_std)
    count = int(below.sum())
    if count:
        units = "unit is" if count == 1 else "units are"
        return f"{words.count(count)} {units} below both thresholds, but can't leave alone"
    if len(fitting) > 1:
        return f"no unit is below both thresholds at all {len(fitting)} places where it is read"
    means = np.abs(fitting[0].mean) if absolute else fitting[0].mean
    lowest = (words.significant(float(line.min())) for line in (means, fitting[0].std))
    return "no unit is below both thresholds; the lowest mean is {}, the lowest std {}".format(
        *lowest
    )
