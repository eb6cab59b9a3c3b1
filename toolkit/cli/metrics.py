"""Tables of metrics."""

from __future__ import annotations

from onnxtrim.bench.results import Metrics
from onnxtrim.toolkit.cli.common import number, out, table

_SUFFIXES = (".original", ".ratio", ".delta")


def print_metrics(title: str, metrics: Metrics, *, paired: bool) -> None:
    """One row per metric; in a comparison beside the original, with ratio or difference."""
    names = dict.fromkeys(_base(name) for name in metrics)
    if not paired:
        rows = [[name, _text(metrics, name)] for name in names]
        out().print(table(title, ["metric", "value [95% interval]"], rows))
        return
    rows = []
    for name in names:
        change = metrics.get(f"{name}.ratio", metrics.get(f"{name}.delta"))
        original = _text(metrics, f"{name}.original")
        rows.append([name, original, _text(metrics, name), number(change)])
    out().print(table(title, ["metric", "original", "candidate", "ratio or difference"], rows))


def _text(metrics: Metrics, name: str) -> str:
    metric = metrics.get(name)
    if metric is not None and name.endswith("_p"):  # a p-value is no percentage
        return f"{metric.value:.3g}"
    return number(metric)


def _base(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name
