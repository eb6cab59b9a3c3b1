"""The report of a sweep: one HTML file that asks the network for nothing."""

from __future__ import annotations

import os
from typing import Any

from onnxtrim.bench.report import graph, histograms, sections, shell, trade_off
from onnxtrim.bench.report.graph_file import Graph, load_graph
from onnxtrim.bench.report.trade_off import Overview, overview
from onnxtrim.bench.report.verdict import verdict
from onnxtrim.bench.run_folder import Run

_PICTURE = ("vendor/dagre.min.js", "graph_layout.js", "graph_draw.js", "graph.js")


def write_report(run: Run, path: str | os.PathLike[str]) -> None:
    """Write the report of a sweep, finished or not, as one HTML file of less than 2 MB.

    Raises:
        InputError: The file can't be written there, or the sweep's ``graph.json`` is broken.
    """
    model, shown = load_graph(run.folder), overview(run)
    texts = {**sections.texts(run, shown), "graph": graph.graph_section(run, model)}
    scripts = ["report.js", *(_PICTURE if graph.is_drawn(model) else ())]
    shell.write_page(path, "run.html", texts, page_data(run, shown, model), scripts)


def page_data(run: Run, shown: Overview, model: Graph | None = None) -> dict[str, Any]:
    """What the plots are drawn from.

    ``verdict``: the sentence at the top. ``plots``: per trade-off the axes, the budget, whether
    intervals are drawn, the points (``x`` and ``y`` as value, low, high) and dots without a name.
    ``panels``: per statistic the bin edges, the layers' shares and the thresholds. ``candidates``:
    the hover text of each, as lines. ``graph``: the picture of the model.
    """
    marked = run.candidate(shown.chosen) if shown.chosen else None
    return {
        "schema": shell.SCHEMA,
        "verdict": verdict(run),
        "chosen": shown.chosen,
        "original": sections.original_lines(run),
        "candidates": trade_off.hover_lines(run, shown.candidates),
        "plots": [_plot(plot) for plot in shown.plots],
        "layers": histograms.labels(run),
        "panels": [
            {
                "name": panel.name,
                "title": panel.title,
                "edges": [shell.short(edge) for edge in panel.edges],
                "shares": [[round(float(x), 5) for x in share] for share in panel.shares],
                "thresholds": list(panel.thresholds),
            }
            for panel in histograms.panels(run, marked)
        ],
        "graph": graph.graph_data(run, model),
    }


def _plot(plot: trade_off.Plot) -> dict[str, Any]:
    return {
        "name": plot.name,
        "x": {"title": plot.x.title, "counts": plot.x.measure in ("parameters", "macs")},
        "y": {"title": plot.y.title},
        "budget": plot.budget,
        "bars": len(plot.points) <= trade_off.CROWDED,
        "series": [{"name": s.name, "x": s.x, "y": s.y} for s in plot.series],
        "points": [
            {
                "id": point.id,
                "role": point.role,
                "best": point.best,
                "x": [shell.short(x, 8) for x in (point.x.value, point.x.low, point.x.high)],
                "y": [shell.short(y, 8) for y in (point.y.value, point.y.low, point.y.high)],
            }
            for point in plot.points
        ],
        "dots": [[shell.short(place, 4) for place in line] for line in zip(*plot.dots)],
    }
