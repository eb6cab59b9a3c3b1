"""The report: one HTML file that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from onnxtrim.bench.files import write_text
from onnxtrim.bench.report import graph, histograms, sections, trade_off
from onnxtrim.bench.report.graph_file import Graph, load_graph
from onnxtrim.bench.run_folder import Run, choose

SCHEMA = "onnxtrim.report/1"
_HERE = Path(__file__).parent
_PICTURE = ("graph_layout.js", "graph_draw.js", "graph.js")


def write_report(run: Run, path: str | os.PathLike[str]) -> None:
    """Write the report of a sweep, finished or not, as one HTML file of less than 2 MB.

    The page holds one JSON object (``<script id="data">``), from which its script draws the
    plots; text and tables are plain HTML. A content security policy forbids every request, and
    every script but the embedded ones, so that a name in a model can't become code.

    Raises:
        InputError: The file can't be written there, or the sweep's ``graph.json`` is broken.
    """
    model = load_graph(run.folder)
    scripts = [_asset("vendor/plotly-basic.min.js"), _asset("report.js")]
    if graph.is_drawn(model):
        scripts += [_asset("vendor/dagre.min.js"), *map(_asset, _PICTURE)]
    page = Template(_asset("page.html")).substitute(
        sections.texts(run),
        policy=_policy(scripts),
        css=_asset("report.css"),
        graph=graph.graph_section(run, model),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
        data=embed(page_data(run, model)),
    )
    # A lone surrogate in a name is legal JSON and can't be encoded.
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def page_data(run: Run, model: Graph | None = None) -> dict[str, Any]:
    """What the plots are drawn from.

    ``plots``: per trade-off the axes, the budget and the points (``x`` and ``y`` as value, low,
    high). ``panels``: per statistic the bin edges, the layers' shares and the thresholds.
    ``candidates``: the hover text of each, as lines. ``graph``: the picture of the model.
    """
    chosen = choose(run.candidates, run.spec.max_drop)
    marked = run.candidate(chosen) if chosen else None
    return {
        "schema": SCHEMA,
        "chosen": chosen,
        "original": sections.original_lines(run),
        "candidates": trade_off.hover_lines(run),
        "plots": [_plot(plot) for plot in trade_off.trade_offs(run)],
        "layers": histograms.labels(run),
        "panels": [
            {
                "name": panel.name,
                "title": panel.title,
                "edges": [float(f"{edge:.6g}") for edge in panel.edges],
                "shares": [[round(float(x), 5) for x in share] for share in panel.shares],
                "thresholds": list(panel.thresholds),
            }
            for panel in histograms.panels(run, marked)
        ],
        "graph": graph.graph_data(run, model),
    }


def embed(value: Any) -> str:
    """JSON that can stand inside ``<script>``: nothing in it can end the element or open one."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _plot(plot: trade_off.Plot) -> dict[str, Any]:
    return {
        "name": plot.name,
        "x": {"title": plot.x.title, "counts": plot.x is trade_off.PARAMETERS},
        "y": {"title": plot.y.title},
        "budget": plot.budget,
        "series": [{"name": s.name, "x": s.x, "y": s.y} for s in plot.series],
        "points": [
            {
                "id": point.id,
                "role": point.role,
                "best": point.best,
                "x": [point.x.value, point.x.low, point.x.high],
                "y": [point.y.value, point.y.low, point.y.high],
            }
            for point in plot.points
        ],
    }


def _policy(scripts: Sequence[str]) -> str:
    """The content security policy; the plotting library writes style attributes."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    text = (_HERE / name).read_text(encoding="utf-8")
    return text.partition("\n//# sourceMappingURL=")[0]  # a file that is not shipped
