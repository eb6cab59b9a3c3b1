"""The report's plots as PNG files, for documents."""

from __future__ import annotations

import itertools
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxtrim.bench.errors import InputError, MissingExtraError
from onnxtrim.bench.files import atomic_path
from onnxtrim.bench.report import histograms, trade_off, words
from onnxtrim.bench.run_folder import Run, choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
MAX_LAYERS = 12
# The light colours of report.css.
COLORS = {
    "chosen": "#b84a00",
    "frontier": "#0072b2",
    "dominated": "#6b7480",
    "original": "#1b2129",
    "budget": "#a8357f",
    "text": "#1b2129",
    "grid": "#e6e9ed",
    "line": "#c9d0d8",
}
_ROLES: dict[str, tuple[str, dict[str, Any]]] = {
    "dominated": ("beaten", {"marker": "o", "ms": 6, "mfc": "none", "alpha": 0.6}),
    "frontier": ("frontier", {"marker": "o", "ms": 7}),
    "original": ("original", {"marker": "s", "ms": 7}),
    "chosen": ("chosen", {"marker": "*", "ms": 14}),
}


def write_plots(run: Run, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the trade-offs, such as ``accuracy-size.png``, and ``distributions.png``.

    The folder is made if missing. A plot for which nothing was measured is left out. Without
    accuracy, the plots show the agreement with the original or, failing that, latency.

    Returns:
        The files written.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The folder can't be made or written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("PNG plots", "plots") from error
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{root}: can't be made a folder ({error.strerror})") from error
    figures: dict[str, Figure] = {}
    for plot in trade_off.overview(run).plots:
        figures[plot.name] = Figure(figsize=(7.2, 4.6), layout="constrained")
        _draw_trade_off(figures[plot.name].subplots(), plot)
    if run.distributions:
        figures["distributions"] = _distributions(Figure(layout="constrained"), run)
    return [_save(figure, root / f"{name}.png") for name, figure in figures.items()]


def _save(figure: Figure, path: Path) -> Path:
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in another script
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")
    return path


def _style(axes: Axes, title: str = "") -> None:
    axes.grid(color=COLORS["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(COLORS["line"])
    axes.tick_params(color=COLORS["line"], labelcolor=COLORS["text"])
    if title:
        axes.set_title(_text(title), loc="left", fontweight="bold", fontsize=11, parse_math=False)


def _draw_trade_off(axes: Axes, plot: trade_off.Plot) -> None:
    _style(axes, plot.title)
    best = sorted((p.x.value, p.y.value) for p in plot.points if p.best)
    axes.plot(*zip(*best, strict=True), color=COLORS["frontier"], alpha=0.4, linewidth=1.2)
    if plot.dots:
        axes.plot(*zip(*plot.dots, strict=True), ".", color=COLORS["line"], ms=2, zorder=1)
    for series, dash in zip(plot.series, itertools.cycle(("-", "--", ":", "-."))):
        axes.plot(
            *(series.x, series.y),
            color=COLORS["dominated"],
            linestyle=dash,
            linewidth=1,
            label=series.name,
        )
    for role, (label, look) in _ROLES.items():
        points = [p for p in plot.points if p.role == role]
        if not points:
            continue
        axes.errorbar(
            [p.x.value for p in points],
            [p.y.value for p in points],
            xerr=_arms([p.x for p in points]),
            yerr=_arms([p.y for p in points]),
            color=COLORS[role],
            label=label,
            linestyle="none",
            capsize=2.5,
            elinewidth=1,
            zorder=3,
            **look,
        )
        if role == "chosen":
            _name(axes, points[0], max(p.x.value for p in plot.points))
    if plot.budget is not None:
        text = f"budget {words.budget(plot.budget)} points"
        axes.axhline(plot.budget, color=COLORS["budget"], linestyle="--", linewidth=1.2, label=text)
    if plot.x.measure in ("parameters", "macs"):
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.set_xlim(left=0)
    axes.set_xlabel(plot.x.title)
    axes.set_ylabel(plot.y.title)
    axes.legend(frameon=False, fontsize=9)


def _name(axes: Axes, point: trade_off.Point, width: float) -> None:
    left = point.x.value > 0.3 * width  # a frontier rises to the right: above and left is free
    axes.annotate(
        _text(point.id, 26),
        (point.x.value, point.y.value),
        xytext=(-8 if left else 8, 5),
        textcoords="offset points",
        ha="right" if left else "left",
        color=COLORS["chosen"],
        parse_math=False,
    )


def _arms(metrics: list[Any]) -> list[list[float]]:
    """Lengths of the error bars, (2, points)."""
    return [
        [max(0.0, m.value - m.low) for m in metrics],
        [max(0.0, m.high - m.value) for m in metrics],
    ]


def _distributions(figure: Figure, run: Run) -> Figure:
    """Small multiples: a row per layer, means left and standard deviations right."""
    chosen = choose(run.candidates, run.spec.max_drop)
    panels = histograms.panels(run, run.candidate(chosen) if chosen else None)
    names = histograms.labels(run)[:MAX_LAYERS]
    figure.set_size_inches(8.4, 0.8 + 1.5 * len(names))
    grid = figure.subplots(len(names), len(panels), sharex="col", squeeze=False)
    for row, name in enumerate(names):
        for column, panel in enumerate(panels):
            axes = grid[row][column]
            _style(axes, panel.title if row == 0 else "")
            axes.stairs(100 * panel.shares[row], panel.edges, fill=True, color="#0072b2", alpha=0.8)
            for limit in panel.thresholds:
                axes.axvline(limit, color=COLORS["budget"], linestyle="--", linewidth=1.2)
        grid[row][0].set_ylabel(f"{_text(name, 24)}\n% of units", parse_math=False)
    figure.align_ylabels()
    if chosen and any(panel.thresholds for panel in panels):
        note = f"Dashed: thresholds of {_text(chosen)}"
        figure.supxlabel(note, fontsize=9, color=COLORS["budget"], parse_math=False)
    return figure


def _text(name: str, limit: int = 60) -> str:
    """A name that can be drawn: one line, not too long."""
    line = " ".join(name.encode("utf-8", "replace").decode("utf-8").split())
    if len(line) <= limit:
        return line
    half = limit // 2  # the ends of a name tell more than its middle
    return f"{line[: half - 1]}\N{HORIZONTAL ELLIPSIS}{line[-half:]}"


def _short(value: float) -> str:
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{sign}"
    return f"{value:g}"
