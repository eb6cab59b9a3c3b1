"""The words of the report, as escaped HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from pathlib import PurePath

from onnxtrim.bench.report import histograms, tables, trade_off, words
from onnxtrim.bench.report.verdict import verdict
from onnxtrim.bench.run_folder import Candidate, Run, choose

_INTERVAL = re.compile(r"\[(\S+), (\S+)\]")
_LONG = 20  # characters of a value that gets a line for itself
_PLOT_NOTES = {
    "accuracy-size": "Left is smaller, up is better.",
    "accuracy-latency": "Left is faster, up is better.",
}


def texts(run: Run) -> dict[str, str]:
    """All places of ``page.html`` that are filled with words, by name."""
    chosen_id = choose(run.candidates, run.spec.max_drop)
    chosen = run.candidate(chosen_id) if chosen_id else None
    plots = trade_off.trade_offs(run)
    panels = histograms.panels(run, chosen)
    name = PurePath(run.original.model).name or "model"
    return {
        "title": escape(f"{name}: onnxtrim report"),
        "heading": escape(name),
        "verdict": _INTERVAL.sub("[\\1,&nbsp;\\2]", escape(verdict(run))),
        "notices": _notices(run),
        "figures": _figures(chosen) if chosen else "",
        "trade_off_lead": _trade_off_lead(run, plots),
        "trade_off_plots": "".join(
            _figure(plot.name, plot.title, _size_note(plot)) for plot in plots
        ),
        "table": tables.candidates_table(run, chosen_id),
        "widths": tables.widths_section(chosen) if chosen else "",
        "units_lead": _units_lead(chosen, panels),
        "units_plots": "".join(
            _figure(f"units-{panel.name}", panel.title, _beyond(panel)) for panel in panels
        ),
        "warnings": _warnings(run),
        "measured": _measured(run, chosen),
        "limits": _limits(run),
    }


def original_lines(run: Run) -> list[str]:
    """The hover text of the original."""
    facts = [
        ("latency", words.with_interval(run.original.metrics.get("latency.p50"))),
        ("accuracy", words.plain(run.original.metrics.get("accuracy.top1"))),
    ]
    lines = ["original", f"parameters: {words.count(run.original.parameters)}"]
    return lines + [f"{name}: {text}" for name, text in facts if text != words.NONE]


def _notices(run: Run) -> str:
    notices = []
    if not run.finished:
        notices.append(
            f"Unfinished: {len(run.candidates)} of {len(run.spec.grid)} candidates are measured."
        )
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in notices)


def _figures(chosen: Candidate) -> str:
    cards = [
        ("Parameters", trade_off.removed(chosen), f"{words.count(chosen.parameters.after)} left"),
        *(
            (title, words.plain(metric), f"{words.interval(metric)} of the original".lstrip())
            for title, key in (
                ("Latency", "latency.p50.ratio"),
                ("Peak memory", "memory.run_peak.ratio"),
            )
            if (metric := chosen.measure(key))
        ),
    ]
    if delta := chosen.measure("accuracy.top1.delta"):
        unit = f"{words.plain(delta)} pt"
        cards.append(("Accuracy", unit, words.interval(delta)))
    items = "".join(
        f"<div><dt>{escape(title)}</dt><dd>{escape(big)}<small>{escape(small)}</small></dd></div>"
        for title, big, small in cards
    )
    return f'<dl class="figures" aria-label="The chosen candidate">{items}</dl>'


def _trade_off_lead(run: Run, plots: list[trade_off.Plot]) -> str:
    if not plots:
        return "Neither accuracy nor latency was measured, so there is nothing to draw."
    parts = ["Each point is a candidate; its bars are 95% intervals. Hover for its numbers."]
    if plots[0].budget is not None:
        parts.append(
            f"The dashed line is the budget of {words.budget(run.spec.max_drop)} points; "
            "dimmed points are beaten by another in both directions."
        )
    if not any(c.measure("accuracy.top1.delta") for c in run.candidates):
        parts.append("No labelled data was given, so the change of accuracy is unknown.")
    return escape(" ".join(parts))


def _size_note(plot: trade_off.Plot) -> str:
    if plot.y is trade_off.LATENCY:
        return "Left is smaller, down is faster."
    return _PLOT_NOTES[plot.name]


def _figure(name: str, title: str, note: str) -> str:
    return (
        f'<figure><figcaption id="{name}-title">{escape(title)}'
        f"<small>{escape(note)}</small></figcaption>"
        f'<div class="plot" id="{name}" role="group" aria-labelledby="{name}-title"></div></figure>'
    )


def _units_lead(chosen: Candidate | None, panels: list[histograms.Panel]) -> str:
    if not panels:
        return "The statistics of the units are not there yet."
    text = "Each line is a layer: the share of its units by their output's mean and standard "
    text += "deviation over the calibration data, after the activation."
    if chosen and any(panel.thresholds for panel in panels):
        text += f" The dashed lines are the thresholds of {chosen.id}: a unit that lies below both "
        text += "is removed."
    return escape(text + " Click a layer in the legend to hide or show it.")


def _beyond(panel: histograms.Panel) -> str:
    if not panel.beyond:
        return ""
    units = "unit lies" if panel.beyond == 1 else "units lie"
    return f"{words.count(panel.beyond)} {units} outside; they are counted at the edge."


def _warnings(run: Run) -> str:
    owners: dict[str, list[str]] = {}
    for candidate in run.candidates:
        for text in dict.fromkeys(candidate.warnings):
            owners.setdefault(text, []).append(candidate.id)
    if not owners:
        return ""
    items = _list(f"{text} ({', '.join(ids)})" for text, ids in owners.items())
    return f'<section aria-labelledby="warnings"><h2 id="warnings">Warnings</h2>{items}</section>'


def _measured(run: Run, chosen: Candidate | None) -> str:
    spec = run.spec
    check = dict(chosen.self_check) if chosen else {}
    parts = [
        ("Model", dict(spec.model)),
        ("Calibration data", dict(spec.data)),
        ("Evaluation data", dict(spec.eval) if spec.eval else {"name": "none"}),
        ("Pruning", {"criterion": spec.criterion, "repair": spec.repair}),
        ("Self-check of the chosen candidate", check),
        ("Measurement", dict(spec.bench)),
        ("Machine and versions", dict(spec.machine)),
    ]
    return "".join(
        f"<details open><summary>{title}</summary><dl>"
        + "".join(_term(key, value) for key, value in words.flatten(values))
        + "</dl></details>"
        for title, values in parts
        if values
    )


def _term(key: str, value: str) -> str:
    kind = ' class="long"' if len(value) > _LONG else ""
    name = escape(key.replace("_", " "))
    return f"<div{kind}><dt>{name}</dt><dd>{escape(value)}</dd></div>"


def _limits(run: Run) -> str:
    spec = run.spec
    threads = spec.bench.get("threads")
    items = [
        "Other machines: latency and memory are of the machine named above"
        + (f", with {threads} thread{'s' * (threads != 1)}" if threads else "")
        + ". Measure again where the model will run.",
        "Significance of the choice: the intervals are of one candidate each, and "
        f"{len(run.candidates)} were tried.",
        "Anything but the metrics of the table: robustness, single classes and rare inputs may "
        "have changed more.",
    ]
    if spec.eval:
        items.insert(
            0,
            "Accuracy on fresh data: the candidate was chosen on the same samples on which it is "
            "reported, so its figure is a little too good. Confirm it once on data not used here.",
        )
        if spec.eval.get("sha256") == spec.data.get("sha256"):
            items.insert(1, "Even the statistics were gathered on the evaluation data.")
    return _list(items)


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
