"""The tables of the report, as escaped HTML."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from onnxtrim.bench.report import words
from onnxtrim.bench.run_folder import Candidate, Run, frontier

_COLUMNS: tuple[tuple[str, Callable[[Candidate], str]], ...] = (
    ("Parameters", lambda c: words.count(c.parameters.after)),
    ("Removed", lambda c: words.percent(c.removed)),
    ("File", lambda c: words.plain(c.measure("bytes"))),
    ("Latency ratio", lambda c: words.with_interval(c.measure("latency.p50.ratio"))),
    ("Run memory ratio", lambda c: words.plain(c.measure("memory.run_peak.ratio"))),
    ("Accuracy", lambda c: words.plain(c.measure("accuracy.top1"))),
    ("Change, points", lambda c: words.with_interval(c.measure("accuracy.top1.delta"))),
    ("Newly wrong (flips)", lambda c: words.plain(c.measure("accuracy.negative_flip_rate"))),
    ("Agreement", lambda c: words.plain(c.measure("accuracy.agreement"))),
)


def candidates_table(run: Run, chosen: str | None) -> str:
    """All candidates beside the original; columns that nothing was measured for are left out."""
    used = [
        (title, read)
        for title, read in _COLUMNS
        if any(read(candidate) != words.NONE for candidate in run.candidates)
    ]
    best = set(frontier(run.candidates))
    head = "".join(f'<th scope="col">{title}</th>' for title, _ in used)
    rows = [_original_row(run, [title for title, _ in used])]
    for c in run.candidates:
        state = "chosen" if c.id == chosen else "frontier" if c.id in best else "other"
        cells = "".join(f"<td>{_breakable(read(c))}</td>" for _, read in used)
        rows.append(f'<tr class="{state}">{_row_head(c, state)}{cells}</tr>')
    caption = "All candidates beside the original; 95% intervals in brackets."
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of candidates">'
        f"<table><caption>{caption}</caption>"
        f'<thead><tr><th scope="col">Candidate</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row_head(candidate: Candidate, state: str) -> str:
    note = words.settings(candidate.settings)
    if candidate.same_as:
        note = f"same as {candidate.same_as}"
    name = escape(candidate.id)
    tag = {"chosen": '<b class="tag">chosen</b>', "frontier": '<i class="tag">frontier</i>'}
    return (
        f'<th scope="row"><span class="id" title="{name}">{name}</span>'
        f"{tag.get(state, '')}<small>{escape(note)}</small></th>"
    )


def _original_row(run: Run, titles: list[str]) -> str:
    metrics = run.original.metrics
    known = {
        "Parameters": words.count(run.original.parameters),
        "Latency ratio": words.ratio(1),
        "Run memory ratio": words.ratio(1),
        "File": words.plain(metrics.get("model.file_bytes")),
        "Accuracy": words.plain(metrics.get("accuracy.top1")),
    }
    cells = "".join(f"<td>{escape(known.get(title, words.NONE))}</td>" for title in titles)
    return f'<tr class="original"><th scope="row">original</th>{cells}</tr>'


def _breakable(text: str) -> str:
    """A cell whose interval may go to a second line, but is not broken itself."""
    estimate, bracket, rest = escape(text).partition("[")
    return f"{estimate}<small>{bracket}{rest}</small>" if bracket else estimate


def widths_section(chosen: Candidate) -> str:
    """Widths before and after, per group of the chosen candidate."""
    if not chosen.groups:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(g.name)}</th><td>{words.count(g.before)}</td>'
        f"<td>{words.count(g.after)}</td><td>{words.percent(g.after / max(1, g.before))}</td>"
        f'<td class="bar"><div><span style="width:{100 * g.after / max(1, g.before):.1f}%"></span>'
        "</div></td></tr>"
        for g in chosen.groups
    )
    heads = "".join(f'<th scope="col">{t}</th>' for t in ("Group", "Before", "After", "Kept"))
    return (
        '<section aria-labelledby="widths"><h2 id="widths">Widths of the chosen candidate</h2>'
        f'<div class="scroll"><table class="widths"><caption>Units per group in '
        f"{escape(chosen.id)}.</caption><thead><tr>{heads}"
        f'<td class="bar"></td></tr></thead><tbody>{rows}</tbody></table></div></section>'
    )
