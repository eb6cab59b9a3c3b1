"""Histograms of the units' statistics, one per layer over common bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.run_folder import Candidate, Distribution, Run

BINS = 48
# The view ends here times the 99th percentile: a few wild units must not squeeze all others.
REACH = 1.6


@dataclass(frozen=True)
class Panel:
    """All layers' histograms of one statistic.

    Attributes:
        name: ``"mean"`` or ``"std"``.
        title: For people.
        edges: (BINS + 1,) common bin edges.
        shares: Per layer (BINS,) shares of its units.
        beyond: Units outside the edges, counted in the first or last bin.
        thresholds: Where the chosen candidate's limits stand.
    """

    name: str
    title: str
    edges: NDArray[np.float64]
    shares: tuple[NDArray[np.float64], ...]
    beyond: int
    thresholds: tuple[float, ...]


def panels(run: Run, marked: Candidate | None) -> list[Panel]:
    """Means and standard deviations; none when there are no distributions."""
    layers = [layer for layer in run.distributions if layer.mean.size]
    if not layers:
        return []
    limits: Mapping[str, Any] = marked.settings if marked else {}
    absolute = bool(run.spec.criterion.get("absolute"))
    return [
        _panel("mean", "Mean of each unit", layers, _limits(limits, "mean_below", absolute)),
        _panel("std", "Standard deviation of each unit", layers, _limits(limits, "std_below")),
    ]


def labels(run: Run) -> list[str]:
    """A name for each layer: the group's, with the tensor where one group feeds several."""
    layers = [layer for layer in run.distributions if layer.mean.size]
    names = [layer.name for layer in layers]
    return [
        f"{layer.name} · {layer.tensor}" if names.count(layer.name) > 1 else layer.name
        for layer in layers
    ]


def _limits(settings: Mapping[str, Any], key: str, both: bool = False) -> tuple[float, ...]:
    value = settings.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ()
    return (-float(value), float(value)) if both else (float(value),)


def _panel(
    name: str, title: str, layers: Sequence[Distribution], thresholds: tuple[float, ...]
) -> Panel:
    values = [getattr(layer, name) for layer in layers]
    pooled = np.concatenate(values)
    low, high = _range(pooled, thresholds)
    edges = np.linspace(low, high, BINS + 1)
    shares = tuple(np.histogram(np.clip(v, low, high), edges)[0] / v.size for v in values)
    beyond = int(np.sum((pooled < low) | (pooled > high)))
    return Panel(name, title, edges, shares, beyond, thresholds)


def _range(values: NDArray[np.float64], thresholds: tuple[float, ...]) -> tuple[float, float]:
    first, last = np.quantile(values, [0.01, 0.99])
    low = max(values.min(), min(first * REACH, 0.0))
    high = min(values.max(), max(last * REACH, 0.0))
    low, high = min([low, 0.0, *thresholds]), max([high, *(1.1 * t for t in thresholds)])
    return float(low), float(high) if high > low else float(low) + 1.0
