"""The picture of the model: what its script draws, and the words and tables beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from onnxtrim.bench.report import words
from onnxtrim.bench.report.graph_file import ROLES, Edge, Graph, Node
from onnxtrim.bench.run_folder import Candidate, Run, choose

MAX_NODES = 1500  # a larger picture shows nothing and takes long to draw
COLORS, PATTERNS = 6, 4  # see report.css and `_patterns`
_LISTED = 8  # names in a cell, parts in a title
_SHORT = {
    "BatchNormalization": "BN",
    "LayerNormalization": "LayerNorm",
    "InstanceNormalization": "InstanceNorm",
    "GroupNormalization": "GroupNorm",
    "DequantizeLinear": "Dequantize",
    "QuantizeLinear": "Quantize",
}
_ARROW = "\N{RIGHTWARDS ARROW}"


def shown_candidate(run: Run) -> Candidate:
    """The one whose widths the picture tells: the chosen one, failing that the smallest."""
    chosen = choose(run.candidates, run.spec.max_drop)
    if chosen is not None:
        return run.candidate(chosen)
    return min(run.candidates, key=lambda candidate: candidate.parameters.after)


def is_drawn(graph: Graph | None) -> bool:
    """Whether there is a picture."""
    return graph is not None and 0 < len(graph.nodes) <= MAX_NODES


def graph_data(run: Run, graph: Graph | None) -> dict[str, Any] | None:
    """What the picture is drawn from, or ``None`` if there is no picture.

    ``groups``: names and widths. ``nodes``: title, second line, kind, whether frozen, pairs of
    group and role, and for the hover text the name, the operators where the title shortens them,
    and the other lines. ``edges``: two nodes, groups, tensor.
    """
    if graph is None or not is_drawn(graph):
        return None
    widths = _widths(run, graph)
    return {
        "groups": [[g.name, width] for g, width in zip(graph.groups, widths, strict=True)],
        "looks": COLORS * PATTERNS,
        "nodes": [_drawn(node, widths) for node in graph.nodes],
        "edges": [[e.source, e.target, list(e.groups), _told(e)] for e in graph.edges],
    }


def _drawn(node: Node, widths: Sequence[str]) -> dict[str, Any]:
    operators = [operator for _, operator in node.parts]
    told = title(node)
    return {
        "name": node.name or "(without a name)",
        "title": told,
        "operators": "" if " + ".join(operators) in ("", told) else _list(operators),
        "note": _note(node, widths),
        "kind": node.kind,
        "frozen": is_frozen(node),
        "groups": [list(pair) for pair in node.groups],
        "facts": _facts(node),
    }


def title(node: Node) -> str:
    """Such as "Conv + BN + Relu"."""
    if node.kind != "operator":
        return node.kind
    names = [_SHORT.get(operator, operator) for _, operator in node.parts]
    if len(names) <= 4:
        return " + ".join(names)
    return f"{' + '.join(names[:3])} + {len(names) - 3} more"


def is_frozen(node: Node) -> bool:
    """Whether something of it stays, and nothing that it makes or passes on can leave."""
    return bool(node.frozen) and not (node.numbers("producer") or node.numbers("carrier"))


def _widths(run: Run, graph: Graph) -> list[str]:
    """Units of each group, before and after where that is known."""
    known = {width.name: width for width in shown_candidate(run).groups}
    told = []
    for group in graph.groups:
        width = known.get(group.name)
        if width is None:
            told.append(words.count(group.units))
        else:
            told.append(f"{words.count(width.before)} {_ARROW} {words.count(width.after)}")
    return told


def _note(node: Node, widths: Sequence[str]) -> str:
    """The second line in the box: which groups, by their numbers."""
    made, passed, read = (node.numbers(role) for role in ROLES)
    if len(made) == 1:
        return f"{made[0] + 1}: {widths[made[0]]}"
    if made or passed:
        return _few(made or passed)
    if node.frozen:
        return "frozen"
    return f"reads {_few(read)}" if read else ""


def _few(numbers: Sequence[int]) -> str:
    text = ", ".join(str(number + 1) for number in numbers[:3])
    return text + (f" +{len(numbers) - 3}" if len(numbers) > 3 else "")


def _facts(node: Node) -> list[str]:
    """Why it is frozen, its weights, its work."""
    facts = []
    for name, operator, reason, by in node.frozen:
        where = f" ({' '.join(dict.fromkeys(filter(None, (operator, by))))})"
        facts.append(f"frozen: {'' if name == node.name else name + ': '}{reason}{where}")
    if node.weights:
        shapes = (f"{name} {_shape(shape)}" for name, shape in node.weights)
        facts.append(f"weights: {_list(shapes)}")
    if node.macs:
        facts.append(f"{words.count(node.macs)} MACs")
    return facts


def _shape(shape: Sequence[int]) -> str:
    return "\N{MULTIPLICATION SIGN}".join(str(size) for size in shape) or "scalar"


def _told(edge: Edge) -> str:
    return f"{edge.tensor} {_shape(edge.shape)}"


def _list(texts: Iterable[str]) -> str:
    items = list(texts)
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")


# --- the section --------------------------------------------------------------------------------


def graph_section(run: Run, graph: Graph | None) -> str:
    """Heading, place of the picture, legend and tables; nothing without a graph."""
    if graph is None or not graph.nodes:
        return ""
    widths = _widths(run, graph)
    drawn = is_drawn(graph)
    lead = _lead(run) if drawn else _too_large(graph)
    return (
        '<section aria-labelledby="graph-title"><h2 id="graph-title">Graph</h2>'
        f'<p class="lead" id="graph-lead">{escape(lead)}</p>'
        + (_picture() if drawn else "")
        + _group_table(graph, widths, is_open=not drawn)
        + _frozen_table(graph, is_open=not drawn)
        + (
            '<details id="graph-nodes" class="wide"><summary>All boxes of the picture</summary>'
            '<div class="scroll" tabindex="0" role="region" aria-label="All boxes of the picture">'
            "</div></details>"
            if drawn
            else ""
        )
        + "</section>"
    )


def _lead(run: Run) -> str:
    return (
        "Data flow from top to bottom. The stripes at the top of a box are the groups of units "
        "that it reads, those at the bottom the groups that it makes or passes on; a grey, dashed "
        f"box is frozen. Widths are those before {_ARROW} after in {shown_candidate(run).id}. "
        "Click a group to see everything that has a part in it."
    )


def _too_large(graph: Graph) -> str:
    return (
        f"The model has {words.count(len(graph.nodes))} boxes of operators, more than the "
        f"{words.count(MAX_NODES)} that a picture can show. The tables tell its groups."
    )


def _picture() -> str:
    buttons = "".join(
        f'<button type="button" data-view="{view}" title="{label}" aria-label="{label}">'
        f"{sign}</button>"
        for view, label, sign in (
            ("in", "Zoom in", "+"),
            ("out", "Zoom out", words.MINUS),
            ("width", "Width of the picture fitted", "Width"),
            ("all", "All of the graph", "All"),
        )
    )
    return (
        f'<figure class="graph">{_patterns()}<div class="tools">{buttons}'
        '<small id="graph-help"><span class="keys">'
        "Click the picture, then the wheel zooms; arrow keys go from box to box, + and "
        f"{words.MINUS} zoom, Escape lets go.</span>"
        '<span class="fingers">Two fingers zoom; after a tap one finger moves it in every '
        "direction.</span></small></div>"
        '<div id="graph" aria-busy="true"></div>'
        '<ul id="graph-groups" aria-label="Groups"></ul>'
        '<p id="graph-picked" role="status"></p></figure>'
    )


def _patterns() -> str:
    """Six colours, first plain, then with three kinds of marks."""
    marks = (
        "",
        '<path d="M-2 2 2-2M0 8 8 0M6 10 10 6"/>',
        '<path d="M2 0V8M6 0V8"/>',
        '<path d="M0 8 8 0M0 0 8 8"/>',
    )
    looks = "".join(
        f'<pattern id="look{number}" class="c{number % COLORS}" width="8" height="8" '
        'patternUnits="userSpaceOnUse"><rect width="8" height="8"/>'
        f"{marks[number // COLORS]}</pattern>"
        for number in range(COLORS * PATTERNS)
    )
    return f'<svg class="looks" width="0" height="0" aria-hidden="true"><defs>{looks}</defs></svg>'


def _group_table(graph: Graph, widths: Sequence[str], *, is_open: bool) -> str:
    if not graph.groups:
        return ""
    users: list[dict[str, list[str]]] = [{role: [] for role in ROLES} for _ in graph.groups]
    for node in graph.nodes:
        for number, role in node.groups:
            users[number][role].append(node.name)
    staged = any(group.stage > 1 for group in graph.groups)
    heads = ("Group", "Units", "Parameters", "MACs", "Made by", "Passed on by", "Read by")
    rows = []
    for number, group in enumerate(graph.groups):
        stage = "<small>second stage</small>" if staged and group.stage > 1 else ""
        counts = (widths[number], words.count(group.parameters), words.count(group.macs))
        cells = "".join(f"<td>{count}</td>" for count in counts)
        for role in ROLES:
            names = escape(_list(users[number][role])) or words.NONE
            cells += f'<td class="names">{names}</td>'
        rows.append(
            f'<tr data-group="{number}"><th scope="row">{number + 1} {escape(group.name)}{stage}'
            f"</th>{cells}</tr>"
        )
    return _details("Groups and the operators that they tie", heads, rows, is_open)


def _frozen_table(graph: Graph, *, is_open: bool) -> str:
    found = dict.fromkeys(reason for node in graph.nodes for reason in node.frozen)
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td class="names">{escape(reason)}</td>'
        f'<td class="names">{escape(" ".join(filter(None, (operator, by))))}</td></tr>'
        for name, operator, reason, by in found
    ]
    return _details("What is frozen, and why", ("Name", "Reason", "By"), rows, is_open)


def _details(title: str, heads: Sequence[str], rows: Sequence[str], is_open: bool) -> str:
    if not rows:
        return ""
    left = ("Reason", "By", "Made by", "Passed on by", "Read by")
    head = "".join(
        f'<th scope="col"{" class=names" if text in left else ""}>{text}</th>' for text in heads
    )
    return (
        f'<details class="wide"{" open" if is_open else ""}><summary>{title}</summary>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        "</details>"
    )
