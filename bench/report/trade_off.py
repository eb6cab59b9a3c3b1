"""What the trade-off plots show; the page and the pictures both draw from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from onnxtrim.bench.report import words
from onnxtrim.bench.results import Metric
from onnxtrim.bench.run_folder import Candidate, Run, choose, frontier

T = TypeVar("T")

MOST = 400
"""Candidates that plots and table name; the page of ten thousand would be too large to open."""

CROWDED = 60
"""Points of a plot from which their intervals would hide them."""

_DOTS = 1000  # of the others in a plot, no two of them on one another


@dataclass(frozen=True)
class Axis:
    """A number that candidates are compared by.

    Attributes:
        measure: Its name, see :meth:`Candidate.measure`.
        title: What stands at the axis.
        larger: Whether more is better.
        scale: Factor from the stored unit to the shown one.
        origin: Its value in the original, in the stored unit.
    """

    measure: str
    title: str
    larger: bool
    scale: float
    origin: Callable[[Run], float]

    def read(self, candidate: Candidate) -> Metric | None:
        """The candidate's number in the shown unit."""
        metric = candidate.measure(self.measure)
        if metric is None:
            return None
        low, high = sorted((metric.low * self.scale, metric.high * self.scale))
        return Metric(metric.value * self.scale, low, high, metric.unit)


PARAMETERS = Axis("parameters", "Parameters", False, 1.0, lambda run: run.original.parameters)
MACS = Axis("macs", "Multiply-accumulates", False, 1.0, lambda run: _macs(run))
LATENCY = Axis("latency.p50.ratio", "Latency, candidate ÷ original", False, 1.0, lambda _: 1.0)
MEMORY = Axis(
    "memory.run_peak.ratio", "Peak memory, candidate ÷ original", False, 1.0, lambda _: 1.0
)
DELTA = Axis("accuracy.top1.delta", "Accuracy change, points", True, 1.0, lambda _: 0.0)
AGREEMENT = Axis("accuracy.agreement", "Same answer as the original, %", True, 100.0, lambda _: 1.0)

# (file and element name, title, x, y); of the plots of one name the first with data is drawn.
PLOTS = (
    ("accuracy-size", "Accuracy against size", PARAMETERS, DELTA),
    ("accuracy-size", "Agreement against size", PARAMETERS, AGREEMENT),
    ("accuracy-size", "Latency against size", PARAMETERS, LATENCY),
    ("accuracy-latency", "Accuracy against latency", LATENCY, DELTA),
    ("accuracy-latency", "Agreement against latency", LATENCY, AGREEMENT),
    ("accuracy-memory", "Accuracy against memory", MEMORY, DELTA),
    ("accuracy-memory", "Agreement against memory", MEMORY, AGREEMENT),
    ("accuracy-macs", "Accuracy against MACs", MACS, DELTA),
    ("accuracy-macs", "Agreement against MACs", MACS, AGREEMENT),
)


@dataclass(frozen=True)
class Point:
    """A candidate in a plot.

    Attributes:
        id: The candidate, or ``"original"``.
        role: ``"chosen"``, ``"frontier"``, ``"dominated"`` or ``"original"``: how it is drawn.
        best: Whether no other candidate dominates it in this plot.
        x: Where it stands, with interval, in the shown unit.
        y: The same.
    """

    id: str
    role: str
    best: bool
    x: Metric
    y: Metric


@dataclass(frozen=True)
class Series:
    """Candidates that were made in one way, as points of a line from left to right."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Plot:
    """One trade-off.

    Attributes:
        name: Of its element and file.
        title: For people.
        x: What lies along.
        y: What stands up.
        points: The original and the named candidates.
        series: Lines through those that were made in one way.
        budget: The lowest allowed y, where there is one.
        dots: Where some of the other candidates lie.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    points: tuple[Point, ...]
    series: tuple[Series, ...]
    budget: float | None
    dots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Overview:
    """What the page shows of a sweep.

    Attributes:
        plots: Those that the measurements allow, in reading order.
        candidates: Those with a name in plots and table: all, or `MOST` of them.
        chosen: Id of the one to take.
    """

    plots: tuple[Plot, ...]
    candidates: tuple[Candidate, ...]
    chosen: str | None


def overview(run: Run) -> Overview:
    """Draw up the plots; of very many candidates, choose those that get a name.

    Named are the chosen one, then those that no other beats in some plot, then others, both
    evenly over the sweep.
    """
    chosen = choose(run.candidates, run.spec.max_drop)
    drawn: dict[str, tuple[str, Axis, Axis, tuple[Point, ...]]] = {}
    for name, title, x, y in PLOTS:
        if name not in drawn and (points := _points(run, x, y, chosen)):
            drawn[name] = (title, x, y, points)
    best = {point.id for *_, points in drawn.values() for point in points if point.best}
    named = _named(run.candidates, best, chosen)
    plots = []
    for name, (title, x, y, points) in drawn.items():
        kept = tuple(p for p in points if p.id in named or p.role == "original")
        others = (p for p in points if p.id not in named and p.role != "original")
        dots = _apart((p.x.value, p.y.value) for p in others)
        budget = -run.spec.max_drop if y is DELTA else None
        plots.append(Plot(name, title, x, y, kept, _series(run, kept), budget, dots))
    return Overview(tuple(plots), tuple(c for c in run.candidates if c.id in named), chosen)


def _named(candidates: Sequence[Candidate], best: set[str], chosen: str | None) -> set[str]:
    ids = [candidate.id for candidate in candidates]
    if len(ids) <= MOST:
        return set(ids)
    named = {chosen} if chosen is not None else set()
    for group in (best, set(ids) - best):
        rest = [name for name in ids if name in group and name not in named]
        named.update(_spread(rest, MOST - len(named)))
    return named


def _spread(items: Sequence[T], most: int) -> Sequence[T]:
    if len(items) <= most:
        return items
    return [items[number * len(items) // most] for number in range(most)]


def _apart(dots: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """One dot of every cell of a grid, which is as fine as the number of dots allows."""
    places = list(dots)
    if not places:
        return ()
    (left, right), (low, high) = ((min(line), max(line)) for line in zip(*places, strict=True))
    width, height = right - left or 1.0, high - low or 1.0
    cells, steps = dict(enumerate(places)), 256
    while len(cells) > _DOTS:
        numbers = (
            1000 * int((x - left) / width * steps) + int((y - low) / height * steps)
            for x, y in places
        )
        cells, steps = dict(zip(numbers, places, strict=True)), 3 * steps // 4
    return tuple(cells.values())


def _series(run: Run, points: tuple[Point, ...]) -> tuple[Series, ...]:
    """Ways in which candidates were made, if there are several with two candidates or more."""
    made: dict[str, list[Point]] = {}
    ways = {candidate.id: _way(candidate) for candidate in run.candidates}
    for point in points:
        if point.id in ways:
            made.setdefault(ways[point.id], []).append(point)
    lines = []
    for name, members in made.items():
        at = sorted((point.x.value, point.y.value) for point in members)
        if len(at) > 1:
            lines.append(Series(name, tuple(x for x, _ in at), tuple(y for _, y in at)))
    return tuple(lines) if len(lines) > 1 else ()


def _way(candidate: Candidate) -> str:
    baseline = candidate.settings.get("baseline")
    if baseline:
        return f"{baseline}, no repair"
    return "budgets" if "remove" in candidate.settings else "thresholds"


def _macs(run: Run) -> float:
    """Of the original, also where only the candidates tell."""
    known = [run.original.macs, *(c.macs.before for c in run.candidates if c.macs)]
    return float(next((macs for macs in known if macs is not None), 0))


def _points(run: Run, x: Axis, y: Axis, chosen: str | None) -> tuple[Point, ...]:
    axes = (x, y)
    best = set(
        frontier(
            run.candidates,
            smaller=[axis.measure for axis in axes if not axis.larger],
            larger=[axis.measure for axis in axes if axis.larger],
        )
    )
    ids = {candidate.id for candidate in run.candidates}
    points = []
    for candidate in run.candidates:
        at_x, at_y = x.read(candidate), y.read(candidate)
        if at_x is None or at_y is None or candidate.same_as in ids:
            continue  # a repetition would lie exactly on its first
        role = "frontier" if candidate.id in best else "dominated"
        role = "chosen" if candidate.id == chosen else role
        points.append(Point(candidate.id, role, candidate.id in best, at_x, at_y))
    if not points:
        return ()
    start = [Metric.exact(axis.origin(run) * axis.scale, "") for axis in axes]
    return (Point("original", "original", False, *start), *points)


def hover_lines(run: Run, named: Iterable[Candidate]) -> dict[str, list[str]]:
    """What a reader learns about each candidate in a plot: id, settings, figures."""
    twins: dict[str, list[str]] = {}
    for candidate in run.candidates:
        if candidate.same_as:
            twins.setdefault(candidate.same_as, []).append(candidate.id)
    return {c.id: _hover(c, twins.get(c.id, [])) for c in named}


def _hover(candidate: Candidate, twins: list[str]) -> list[str]:
    facts = [
        ("parameters", f"{words.count(candidate.parameters.after)} ({removed(candidate)})"),
        ("MACs", words.plain(candidate.measure("macs"))),
        ("latency", words.with_interval(candidate.measure("latency.p50.ratio"))),
        ("run memory", words.plain(candidate.measure("memory.run_peak.ratio"))),
        ("accuracy", words.plain(candidate.measure("accuracy.top1"))),
        ("change", words.with_interval(candidate.measure("accuracy.top1.delta"))),
        ("agreement", words.plain(candidate.measure("accuracy.agreement"))),
    ]
    lines = [candidate.id, words.settings(candidate.settings)]
    lines += [f"{name}: {text}" for name, text in facts if text != words.NONE]
    return lines + ([f"identical: {words.listed(twins)}"] if twins else [])


def removed(candidate: Candidate) -> str:
    """The change of the parameter count in percent, such as "−62.0%"."""
    return words.number(-100 * candidate.removed, 1, sign=True) + "%"
