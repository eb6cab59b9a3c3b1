"""Table and plot of the benchmark of budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from onnxtrim.bench.files import atomic_path, write_json, write_text
from onnxtrim.bench.machine import fingerprint

MINUS = "\N{MINUS SIGN}"
RESULTS = Path(__file__).parent / "results"
METHODS = {
    "sequential": "onnxtrim",
    "channel": "onnxtrim, each layer alone",
    "none": "onnxtrim, no repair",
    "Torch-Pruning": "Torch-Pruning 1.6.1",
    "onnxsim": "onnxsim 0.8.1",
}
# Okabe and Ito's colours, which the colour-blind tell apart; marker; style of the line
STYLES = {
    "sequential": ("#0072B2", "o", "-"),
    "channel": ("#56B4E9", "s", "--"),
    "none": ("#999999", "^", ":"),
    "Torch-Pruning": ("#D55E00", "D", "-."),
    "onnxsim": ("#009E73", "v", (0, (5, 1, 1, 1, 1, 1))),
}

Row = dict[str, Any]
Shares = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Cell:
    """One method at one share of one network, over the seeds.

    Attributes:
        deltas: Differences of accuracy in points, one for each seed.
        removed: Mean share of the parameters that left.
        refusals: Why it refused, each reason once.
    """

    deltas: list[float]
    removed: float
    refusals: list[str]

    @classmethod
    def of(cls, rows: Sequence[Row], net: str, share: float, method: str) -> Cell:
        """Gather it."""
        mine = [r for r in rows if (r["net"], r["share"], r["method"]) == (net, share, method)]
        good = [row for row in mine if "delta" in row]
        removed = sum(row["removed"] for row in good) / len(good) if good else 0.0
        reasons = dict.fromkeys(row["refused"] for row in mine if "refused" in row)
        return cls([row["delta"][0] for row in good], removed, list(reasons))

    @property
    def mean(self) -> float:
        """Mean of the seeds, in points."""
        return sum(self.deltas) / len(self.deltas)

    def text(self) -> str:
        """Mean and range."""
        if not self.deltas:
            return "refuses" if self.refusals else ""
        mean = _points(self.mean)
        if len(self.deltas) == 1:
            return mean
        return f"{mean} [{_points(min(self.deltas))}, {_points(max(self.deltas))}]"


def write_report(rows: Sequence[Row], shares: Shares) -> None:
    """Write JSON, Markdown and plot, and print the table."""
    order = {method: number for number, method in enumerate(METHODS)}
    nets = list(shares)
    ordered = sorted(
        rows, key=lambda r: (nets.index(r["net"]), r["seed"], r["share"], order[r["method"]])
    )
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / "budgets.json", {"machine": fingerprint(), "rows": ordered})
    text = markdown(ordered, shares)
    write_text(RESULTS / "budgets.md", text)
    with atomic_path(RESULTS / "budgets.svg") as path:
        plot(ordered, shares, path)
    Console(width=160).print(Markdown(text))


def markdown(rows: Sequence[Row], shares: Shares) -> str:
    """The tables, with what the peers chose and why they refused."""
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "# Accuracy at a budget of parameters",
        "",
        "Difference of top-1 accuracy on the 10,000 test images of Fashion-MNIST from the unpruned"
        " network, in points, no labels, no training; mean of the seeds and, in brackets, their"
        f" range ({len(seeds)} seeds; layers alone and no repair: the first). The peers' options"
        " are the best by accuracy on test images. Written by `python benchmarks/budgets.py`.",
    ]
    notes: dict[str, None] = {}
    for net in shares:
        mine = [row for row in rows if row["net"] == net]
        if not mine:
            continue
        original = {row["seed"]: row["original"] for row in mine if "original" in row}
        accuracies = ", ".join(f"{value:.2%}" for _, value in sorted(original.items()))
        lines += ["", f"## {net} ({accuracies})", ""]
        lines.append("| removed | " + " | ".join(METHODS.values()) + " | seconds |")
        lines.append("|--:" * (len(METHODS) + 2) + "|")
        for share in shares[net]:
            cells = {method: Cell.of(mine, net, share, method) for method in METHODS}
            parts = [f"{share:.0%}", *(cell.text() for cell in cells.values())]
            lines.append("| " + " | ".join([*parts, _seconds(mine, share)]) + " |")
            for method, cell in cells.items():
                for reason in cell.refusals:
                    notes[f"- {METHODS[method]} refuses {net} at {share:.0%}: {reason}"] = None
    if notes:
        lines += ["", "## Refusals", "", *notes]
    chosen = [
        f"| {row['net']} | {row['seed']} | {row['share']:.0%} | {METHODS[row['method']]}"
        f" | {row['removed']:.1%} | {row['options']} |"
        for row in rows
        if "options" in row
    ]
    if chosen:
        lines += ["", "## Options of the peers", ""]
        lines += ["| network | seed | share | peer | removed | best options |"]
        lines += ["|---|--:|--:|---|--:|---|", *chosen]
    return "\n".join(lines) + "\n"


def _seconds(rows: Sequence[Row], share: float) -> str:
    found = [
        r["seconds"]
        for r in rows
        if r["share"] == share and r["method"] == "sequential" and "seconds" in r
    ]
    return f"{sum(found) / len(found):.0f}" if found else ""


def _points(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)


def plot(rows: Sequence[Row], shares: Shares, path: Path) -> None:
    """Draw removed share against difference of accuracy, a panel for each network, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    # The same drawing gives the same file; letters stay letters, which makes it small.
    mpl.rcParams |= {"svg.hashsalt": "onnxtrim", "svg.fonttype": "none"}
    nets = [net for net in shares if any(row["net"] == net for row in rows)]
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    for panel, net in zip(panels, nets, strict=False):
        refusing = []
        for method, label in METHODS.items():
            colour, marker, line = STYLES[method]
            cells = [Cell.of(rows, net, share, method) for share in shares[net]]
            if any(cell.refusals for cell in cells):
                refused = [s for s, cell in zip(shares[net], cells, strict=True) if cell.refusals]
                at = ", ".join(f"{share:.0%}" for share in refused)
                refusing.append(f"{label} refuses {at}")
            cells = [cell for cell in cells if cell.deltas]
            if not cells:
                continue
            x = [0.0, *(100 * cell.removed for cell in cells)]
            y = [0.0, *(cell.mean for cell in cells)]
            panel.plot(x, y, color=colour, marker=marker, linestyle=line, markersize=5, label=label)
            low = [0.0, *(min(cell.deltas) for cell in cells)]
            high = [0.0, *(max(cell.deltas) for cell in cells)]
            panel.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        panel.set_yscale("symlog", linthresh=1, linscale=0.8)
        panel.set_ylim(-100, 1)
        panel.yaxis.set_major_locator(FixedLocator([-90, -30, -10, -3, -1, -0.5, 0, 0.5]))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", MINUS)))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_xlim(0, 100)
        panel.grid(alpha=0.3)
        panel.set_title(net)
        panel.set_xlabel("removed parameters, %")
        panel.set_ylabel("accuracy, points")
        if refusing:
            panel.text(2, -85, "\n".join(refusing), fontsize=7, va="bottom")
    for panel in panels[len(nets) :]:
        panel.axis("off")
    entries: dict[str, Any] = {}
    for panel in panels[: len(nets)]:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    names = [label for label in METHODS.values() if label in entries]
    panels[-1].legend([entries[name] for name in names], names, loc="center", frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
