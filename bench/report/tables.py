"""The tables of the report, as escaped HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from onnxtrim.bench.report import parts, words
from onnxtrim.bench.report.trade_off import Overview, removed
from onnxtrim.bench.report.verdict import safe_choice, within_budget
from onnxtrim.bench.run_folder import Candidate, Run, frontier

_CHANGE = "Accuracy change, points"
_COLUMNS: tuple[tuple[str, Callable[[Candidate], str]], ...] = (
    (_CHANGE, lambda c: words.with_interval(c.measure("accuracy.top1.delta"))),
    ("Latency ratio", lambda c: words.with_interval(c.measure("latency.p50.ratio"))),
    ("Peak memory ratio", lambda c: words.plain(c.measure("memory.run_peak.ratio"))),
    ("File", lambda c: words.plain(c.measure("bytes"))),
    ("Parameters", lambda c: f"{words.count(c.parameters.after)} ({removed(c)})"),
    ("MACs", lambda c: words.plain(c.measure("macs"))),
    ("Accuracy", lambda c: words.plain(c.measure("accuracy.top1"))),
    ("Newly wrong (flips)", lambda c: words.plain(c.measure("accuracy.negative_flip_rate"))),
    ("Same answers", lambda c: words.plain(c.measure("accuracy.agreement"))),
)


def candidates_table(run: Run, shown: Overview) -> str:
    """Named candidates beside the original; columns that nothing was measured for are left out."""
    used = [
        (title, read)
        for title, read in _COLUMNS
        if any(read(candidate) != words.NONE for candidate in shown.candidates)
    ]
    best = set(frontier(run.candidates))
    safe = safe_choice(run)
    if any(title == _CHANGE for title, _ in used):
        title = f"Within {words.budget(run.spec.max_drop)} points"
        used.insert(1, (title, lambda c: within_budget(c, run.spec.max_drop) or words.NONE))
    head = "".join(f'<th scope="col">{title}</th>' for title, _ in used)
    rows = [_original_row(run, [title for title, _ in used])]
    for c in shown.candidates:
        state = "chosen" if c.id == shown.chosen else "frontier" if c.id in best else "other"
        cells = "".join(f"<td>{parts.breakable(read(c))}</td>" for _, read in used)
        rows.append(f'<tr class="{state}">{_row_head(c, state, is_safe=c is safe)}{cells}</tr>')
    table = (
        f"<table><caption>{_caption(run, shown)}</caption>"
        f'<thead><tr><th scope="col">Candidate</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return parts.scroll("candidates", table)


def _caption(run: Run, shown: Overview) -> str:
    left_out = len(run.candidates) - len(shown.candidates)
    which = "All candidates"
    if left_out:
        which = (
            f"{words.count(len(shown.candidates))} of {words.count(len(run.candidates))} candidates"
            " (the chosen one, those that no other beats, and some of the rest)"
        )
    told = (
        "95% intervals in brackets; within the budget (yes) is one all of whose interval is."
        " Press a candidate's name to mark it in the plots."
    )
    return f"{which} beside the original; {told}"


def _row_head(candidate: Candidate, state: str, *, is_safe: bool) -> str:
    note = words.settings(candidate.settings)
    if candidate.same_as:
        note = f"same as {candidate.same_as}"
    tag = {
        "chosen": '<b class="tag">chosen</b>',
        "frontier": f'<i class="tag">{"safe choice" if is_safe else "frontier"}</i>',
    }
    # A repetition has no point of its own.
    button = _button(candidate.id, candidate.same_as or candidate.id)
    return f'<th scope="row">{button}{tag.get(state, "")}<small>{escape(note)}</small></th>'


def _button(name: str, picks: str) -> str:
    return (
        f'<button type="button" class="id" data-pick="{escape(picks)}" aria-pressed="false"'
        f' title="{escape(name)}">{escape(name)}</button>'
    )


def _original_row(run: Run, titles: list[str]) -> str:
    metrics = run.original.metrics
    known = {
        "Parameters": words.count(run.original.parameters),
        "MACs": words.NONE if run.original.macs is None else words.count(run.original.macs),
        "Latency ratio": words.ratio(1),
        "Peak memory ratio": words.ratio(1),
        "File": words.plain(metrics.get("model.file_bytes")),
        "Accuracy": words.plain(metrics.get("accuracy.top1")),
    }
    cells = "".join(f"<td>{escape(known.get(title, words.NONE))}</td>" for title in titles)
    return (
        f'<tr class="original"><th scope="row">{_button("original", "original")}</th>{cells}</tr>'
    )


def widths_section(chosen: Candidate, stayed: Sequence[str]) -> str:
    """Widths before and after, per group of the chosen candidate; ``stayed`` tells why."""
    if not chosen.groups:
        return ""
    told = any(stayed)
    rows = "".join(
        f'<tr><th scope="row">{escape(g.name)}</th><td>{words.count(g.before)}</td>'
        f"<td>{words.count(g.after)}</td><td>{words.percent(g.after / max(1, g.before))}</td>"
        f'<td class="bar"><div><span style="width:{100 * g.after / max(1, g.before):.1f}%"></span>'
        "</div></td>" + (f'<td class="names">{escape(why)}</td>' if told else "") + "</tr>"
        for g, why in zip(chosen.groups, stayed, strict=True)
    )
    heads = "".join(f'<th scope="col">{t}</th>' for t in ("Group", "Before", "After", "Kept"))
    why = '<th scope="col" class="names">Why it stayed as it was</th>' if told else ""
    table = (
        f'<table class="widths{" told" * told}"><caption>Units per group in '
        f"{escape(chosen.id)}.</caption>"
        f'<thead><tr>{heads}<td class="bar"></td>{why}</tr></thead><tbody>{rows}</tbody></table>'
    )
    title = "Widths of the chosen candidate"
    return parts.section("widths", title, parts.scroll(title, table))
