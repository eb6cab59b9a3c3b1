"""A sweep as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxtrim.bench.results import Metrics, metrics_to_json
from onnxtrim.bench.run_folder import Candidate, Run, choose, frontier
from onnxtrim.toolkit.cli.common import number, out, table
from onnxtrim.toolkit.sweep_folder import read_lines

_WIDE = 132  # columns of a terminal from which the table has intervals and sizes

# Name, metric, whether only a wide table has it.
_COLUMNS = (
    ("file", "model.file_bytes", True),
    ("memory", "memory.run_peak.ratio", True),
    ("latency", "latency.p50.ratio", False),
    ("accuracy", "accuracy.top1", False),
    ("difference", "accuracy.top1.delta", False),
)
_OF_ONE = {"memory.run_peak.ratio": "1", "latency.p50.ratio": "1"}  # the original itself


def print_run(run: Run, published: Mapping[str, str] | None = None) -> None:
    """Print the original and every candidate; say which one is chosen.

    Args:
        run: The sweep.
        published: For each candidate's id, what the rule without repair does to the accuracy.
    """
    console = out()
    wide = console.width >= _WIDE
    chosen = choose(run.candidates, run.spec.max_drop)
    best = set(frontier(run.candidates))
    columns = [(name, metric) for name, metric, only_wide in _COLUMNS if wide or not only_wide]
    only_rule = all("mean_below" in item.settings for item in run.candidates)
    first = "mean, std" if only_rule else "mean, std, or budget"
    names = [first, *["parameters"] * wide, "removed", *(name for name, _ in columns)]
    original = [_OF_ONE.get(metric) or _cell(run.original.metrics, metric) for _, metric in columns]
    rows = [["original", *[f"{run.original.parameters:,}"] * wide, "", *original]]
    marks = [""]
    for item in run.candidates:
        cells = [_cell(item.metrics, metric, interval=wide) for _, metric in columns]
        size = [f"{item.parameters.after:,}"] * wide
        rows.append([_name(item), *size, f"{item.removed:.1%}", *cells])
        marks.append(_mark(run, item, chosen, best))
    if published is not None:
        names.append("unrepaired")
        for row, name in zip(rows, ["original", *(c.id for c in run.candidates)], strict=True):
            row.append(published.get(name, ""))
    for row, mark in zip(rows, marks, strict=True):
        row.append(mark)
    console.print(
        table(
            f"Candidates of {run.spec.model['path']}"
            + (" by thresholds on mean and std" if only_rule else ""),
            [*names, ""],
            rows,
        )
    )
    console.print(_verdict(run, chosen))


def sweep_json(run: Run) -> dict[str, Any]:
    """A finished or unfinished sweep as one object, ``onnxtrim.sweep/1``."""
    lines = read_lines(run.folder / "results.jsonl")
    metrics = {item.id: metrics_to_json(item.metrics) for item in run.candidates}
    return {
        "schema": "onnxtrim.sweep/1",
        "folder": str(run.folder),
        "original": next(line for line in lines if line["kind"] == "original"),
        "candidates": [
            {**line, "metrics": metrics[line["id"]]}
            for line in lines
            if line["kind"] == "candidate"
        ],
        "frontier": frontier(run.candidates),
        "chosen": choose(run.candidates, run.spec.max_drop),
        "finished": run.finished,
    }


def _name(item: Candidate) -> str:
    mean, std = item.settings.get("mean_below"), item.settings.get("std_below")
    share = item.settings.get("remove")
    if share is not None:
        return f"remove {100 * share:g}%"
    return item.id if mean is None else f"{mean:g}, {std:g}"


def _cell(metrics: Metrics, name: str, *, interval: bool = True) -> str:
    """Accuracy and memory have no interval here: the paired difference says more."""
    shown = interval and name in ("latency.p50.ratio", "accuracy.top1.delta")
    return number(metrics.get(name), interval=shown)


def _mark(run: Run, item: Candidate, chosen: str | None, best: set[str]) -> str:
    if item.id == chosen:
        return "◀ smallest"
    if item.same_as is not None:
        return f"= {_name(run.candidate(item.same_as))}"
    return "frontier" if item.id in best else ""


def _verdict(run: Run, chosen: str | None) -> str:
    if "accuracy.top1" not in run.original.metrics:
        return "No accuracy was measured: give samples with labels by --eval."
    if chosen is None:
        return (
            f"No candidate is within {run.spec.max_drop:g} points; try smaller thresholds or"
            " budgets."
        )
    item = run.candidate(chosen)
    delta = item.metrics["accuracy.top1.delta"]
    ratio = item.metrics.get("latency.p50.ratio")
    latency = f", {number(ratio)} of the latency" if ratio is not None else ""
    return (
        f"◀ Smallest within {run.spec.max_drop:g} points: {run.model_path(item)}:"
        f" {item.removed:.1%} of the parameters removed, accuracy {number(delta)}{latency}"
    )
