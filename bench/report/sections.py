"""The words of a sweep's report, as escaped HTML."""

from __future__ import annotations

from html import escape
from pathlib import PurePath

from onnxtrim.bench.report import histograms, parts, stayed, tables, trade_off, words
from onnxtrim.bench.report.trade_off import Overview
from onnxtrim.bench.report.verdict import verdict
from onnxtrim.bench.run_folder import Candidate, Run, choose

_PLOT_NOTES = {
    "accuracy-size": "Left is smaller, up is better.",
    "accuracy-latency": "Left is faster, up is better.",
    "accuracy-memory": "Left needs less memory, up is better.",
    "accuracy-macs": "Left is fewer multiply-accumulates, up is better.",
}
_WARNINGS = 100  # that are told; a sweep of ten thousand may have as many


def texts(run: Run, shown: Overview) -> dict[str, str]:
    """All places of ``page.html`` and ``run.html`` that are filled with words, by name."""
    chosen = run.candidate(shown.chosen) if shown.chosen else None
    panels = histograms.panels(run, chosen)
    name = PurePath(run.original.model).name or "model"
    return {
        "title": escape(f"{name}: onnxtrim report"),
        "kicker": "onnxtrim sweep report",
        "heading": escape(name),
        "verdict": f'<p class="verdict">{parts.sentence(verdict(run))}</p>{_done(run)}',
        "notices": _notices(run),
        "figures": _figures(chosen) if chosen else "",
        "trade_off_lead": _trade_off_lead(run, shown),
        "trade_off_plots": "".join(
            parts.figure(plot.name, plot.title, _size_note(plot)) for plot in shown.plots
        ),
        "table": tables.candidates_table(run, shown),
        "widths": tables.widths_section(chosen, stayed.reasons(run, chosen)) if chosen else "",
        "units_lead": _units_lead(chosen, panels),
        "units_plots": "".join(
            parts.figure(f"units-{panel.name}", panel.title, _beyond(panel)) for panel in panels
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
    if run.finished:
        return ""
    done, all_of_them = len(run.candidates), len(run.spec.grid)
    return parts.notices([f"Unfinished: {done} of {all_of_them} candidates are measured."])


def _done(run: Run) -> str:
    """What was done to get all this, and what to do with it."""
    spec, count = run.spec, len(run.candidates)
    samples, others = spec.data.get("samples"), (spec.eval or {}).get("samples")
    told = f"{words.count(count)} candidate{'s' * (count != 1)}"
    if isinstance(samples, int):
        told += f" with units removed by what they do on {words.count(samples)} calibration samples"
    if isinstance(others, int):
        told += f", compared with the original on {words.count(others)} evaluation samples"
    ends = [f"{told}."]
    if choose(run.candidates, spec.max_drop) is not None:
        ends.append(
            "Next: write your limits into a policy ('onnxtrim gate init' drafts one); 'onnxtrim"
            " choose RUN --policy gate.toml --data test.npz' takes the best that they let through,"
            " and confirms it on data not used here."
        )
    return "".join(f'<p class="lead">{escape(text)}</p>' for text in ends)


def _figures(chosen: Candidate) -> str:
    change = chosen.parameters
    arrow = f"{words.count(change.before)} \N{RIGHTWARDS ARROW} {words.count(change.after)}"
    cards = [
        ("Parameters, of the original's", words.ratio(change.after / max(change.before, 1)), arrow),
        *(
            (f"{title}, of the original's", words.plain(metric), words.interval(metric))
            for title, key in (
                ("Latency", "latency.p50.ratio"),
                ("Peak memory", "memory.run_peak.ratio"),
            )
            if (metric := chosen.measure(key))
        ),
    ]
    if delta := chosen.measure("accuracy.top1.delta"):
        cards.append(("Top-1 accuracy", f"{words.plain(delta)} points", words.interval(delta)))
    lead = f'<p class="lead">{escape(chosen.id)} against the original:</p>'
    return lead + parts.cards(cards, "The chosen candidate")


def _trade_off_lead(run: Run, shown: Overview) -> str:
    plots = shown.plots
    if not plots:
        return "Neither accuracy nor latency was measured, so there is nothing to draw."
    bars = any(len(plot.points) <= trade_off.CROWDED for plot in plots)
    told = [
        f"Each point is a candidate{'; its bars are 95% intervals' * bars}. Hover for its numbers"
        f"{'' if bars else ' and intervals'}; click it to mark it in every plot and in the table."
    ]
    if plots[0].budget is not None:
        told.append(
            f"The dashed line is the budget of {words.budget(run.spec.max_drop)} points. Filled "
            "points are the frontier; pale rings are beaten, another is better in both directions."
        )
    if not any(c.measure("accuracy.top1.delta") for c in run.candidates):
        told.append("No labelled data was given, so the change of accuracy is unknown.")
    every, named = len(run.candidates), len(shown.candidates)
    if named < every:
        told.append(
            f"Of {words.count(every)} candidates, {words.count(named)} have a name here and in the"
            " table; small dots show where others lie. All of them are in results.jsonl."
        )
    return escape(" ".join(told))


def _size_note(plot: trade_off.Plot) -> str:
    if plot.y is trade_off.LATENCY:
        return "Left is smaller, down is faster."
    return _PLOT_NOTES[plot.name]


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
    items = [f"{text} ({words.listed(ids)})" for text, ids in owners.items()]
    more = len(items) - _WARNINGS
    if more > 0:
        items[_WARNINGS:] = [f"and {words.count(more)} more, in results.jsonl"]
    return parts.section("warnings", "Warnings", parts.bullets(items))


def _measured(run: Run, chosen: Candidate | None) -> str:
    spec = run.spec
    check = dict(chosen.self_check) if chosen else {}
    return parts.facts(
        [
            ("Model", dict(spec.model)),
            ("Calibration data", dict(spec.data)),
            ("Evaluation data", dict(spec.eval) if spec.eval else {"name": "none"}),
            ("Pruning", {"criterion": spec.criterion, "repair": spec.repair}),
            ("Self-check of the chosen candidate", check),
            ("Measurement", dict(spec.bench)),
            ("Machine and versions", dict(spec.machine)),
        ]
    )


def _limits(run: Run) -> str:
    spec = run.spec
    threads = spec.bench.get("threads")
    items = [
        "Other machines: latency and memory are of this machine"
        + (f", with {threads} thread{'s' * (threads != 1)}" if threads else "")
        + ". Measure again where the model will run.",
        "The luck of the choice: the best of "
        f"{len(run.candidates)} looks a little better than it is.",
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
    return parts.bullets(items)
