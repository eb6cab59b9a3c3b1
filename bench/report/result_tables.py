"""The tables of a result's report, as escaped HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.report import metric_names, parts, words
from onnxtrim.bench.report.judgement import Judgement, Rule, measured
from onnxtrim.bench.results import Metric, Metrics

LAYERS = 40
CLASSES = 60
_REASONS = {
    "not_pruned": "not pruned",
    "overhead_bound": "the call itself costs most",
    "alignment": "channels are no multiple of what a kernel takes at once",
    "memory_bound": "memory sets the pace",
    "unexplained": "unexplained",
}


_LEVELS = {"error": "required", "warn": "warns only", "info": "is told only"}


def rules(judgement: Judgement) -> str:
    """Every rule with its verdict, in the order of the policy."""
    remarks = any(rule.why for rule in judgement.rules)
    rows = []
    for rule in judgement.rules:
        told = _shown(rule)
        level = escape(_LEVELS.get(rule.level, rule.level))
        why = f'<td class="names">{escape(rule.why)}</td>' if remarks else ""
        rows.append(
            f'<tr><td class="word">{parts.mark(rule.verdict)}</td>{_name(rule.metric, whole=True)}'
            f"<td>{parts.breakable(told)}</td><td>{escape(rule.limit.replace('-', words.MINUS))}"
            f'</td><td class="word counts">{level}</td>{why}</tr>'
        )
    heads = ("Verdict.", "Rule.", "Measured", "Limit", "Counts-", *["Remark*"] * remarks)
    note = (
        "Below a value: the worst one that is still plausible, by the certainty that the policy"
        " asks for. A rule passes if that meets the limit. The 95% intervals elsewhere have two"
        " ends and are a little wider."
    )
    return _table("Rules of the policy", heads, rows, note, "rules")


def _shown(rule: Rule) -> str:
    """The value of a rule, and the bound that lets it pass, or else both."""
    number = measured(rule)
    told = words.with_interval(number, 3)
    if number is not None and number.low < number.high and rule.verdict == "pass":
        least = rule.limit.startswith("\N{GREATER-THAN OR EQUAL TO}")
        if " and " not in rule.limit:
            end = Metric.exact(number.low if least else number.high, number.unit)
            sign = "at least" if least else "at most"
            told = f"{words.plain(number, 3)} ({sign} {words.plain(end, 3)})"
    if number is not None and number.unit == "points":
        told = told.replace(" (", " points (") if "(" in told else _with_points(told)
    return told


def metrics(found: Measurement) -> str:
    """All metrics, family by family; in a comparison original, candidate and what changed."""
    names = list(dict.fromkeys(map(metric_names.base, metric_names.in_order(found.metrics))))
    pair = found.original is not None
    values = ("Original", "Candidate", "Ratio or difference") if pair else ("Value",)
    heads = ("Metric", *values)
    rows, before = [], ""
    for name in names:
        family = metric_names.family(name)
        if family != before:
            rows.append(
                f'<tr class="family"><th scope="rowgroup" colspan="{len(heads)}">{family}</th></tr>'
            )
            before = family
        cells = _cells(found.metrics, name, pair)
        told = "".join(f"<td>{parts.breakable(cell)}</td>" for cell in cells)
        rows.append(f"<tr>{_name(name)}{told}</tr>")
    note = (
        "In brackets 95% intervals; of memory the lowest and highest repeat. Numbers without them"
        " are exact (files), or all repeats agreed."
    )
    return _table("All metrics", heads, rows, note)


def _cells(found: Metrics, name: str, pair: bool) -> list[str]:
    value = _told(name, found.get(name))
    if not pair:
        return [value]
    if name.endswith("_p"):  # of the difference, not of a model
        return [words.NONE, words.NONE, value]
    change = found.get(f"{name}.ratio", found.get(f"{name}.delta"))
    told = words.with_interval(change, 3)
    if change is not None and change.unit == "points":
        told = _with_points(told)
    return [_told(name, found.get(f"{name}.original")), value, told]


def _with_points(told: str) -> str:
    return told.replace(" [", " points [") if "[" in told else f"{told} points"


def _told(name: str, metric: Metric | None) -> str:
    if metric is not None and name.endswith("_p"):  # a p-value is no percentage
        return words.significant(metric.value)
    return words.with_interval(metric, 3)


def layers(profile: Mapping[str, Any]) -> str:
    """Where the time goes; of two models the layers side by side."""
    known = profile["layers"][:LAYERS]
    pair = "block" in profile
    shares = [_shares(layer, pair) for layer in known]
    most = max((share for both in shares for share in both), default=0.0) or 1.0
    rows = [
        f"<tr>{_layer(layer)}{''.join(_bar(share, most) for share in both)}"
        f"{_work(layer) if pair else _channels(layer['channels'])}</tr>"
        for layer, both in zip(known, shares, strict=True)
    ]
    empty = "<td></td>" * (4 if pair else 1)
    for item in profile["others"]:
        both = [item["original"], item["candidate"]] if pair else [item["share"]]
        if max(both) >= 0.0005:
            bars = "".join(_bar(share, most) for share in both)
            rows.append(f'<tr class="other">{_layer(item)}{bars}{empty}</tr>')
    more = len(profile["layers"]) - len(known)
    note = "Shares of the time in kernels, most expensive in the original first."
    if more > 0:
        note += f" {words.count(more)} more layers are in the JSON."
    ratios = ("Original", "Candidate", "Time ratio", "MACs ratio")
    heads = (*ratios, "Channels", "Not faster because*") if pair else ("Share", "Channels")
    return _table("Time by layer", ("Layer", *heads), rows, note)


def _shares(layer: Mapping[str, Any], pair: bool) -> list[float]:
    if pair:
        return [float(layer[role]["share"]) for role in ("original", "candidate")]
    return [float(layer["share"])]


def _layer(layer: Mapping[str, Any]) -> str:
    operator = escape(str(layer["operator"]))
    if layer["name"] is None:
        return f'<th scope="row">{operator}<small>added by ONNX Runtime</small></th>'
    return f'<th scope="row">{escape(str(layer["name"]))}<small>{operator}</small></th>'


def _bar(share: float, most: float) -> str:
    width = max(0.0, min(100.0, 100 * share / most))
    return (
        f'<td class="share">{words.percent(share)}'
        f'<div class="line"><span style="width:{width:.1f}%"></span></div></td>'
    )


def _work(layer: Mapping[str, Any]) -> str:
    ratios = "".join(
        f"<td>{words.NONE if layer[key] is None else words.ratio(float(layer[key]))}</td>"
        for key in ("time_ratio", "macs_ratio")
    )
    reason = _REASONS.get(str(layer["reason"]), "") if layer["reason"] else ""
    return f'{ratios}{_channels(layer["channels"])}<td class="names">{escape(reason)}</td>'


def _channels(channels: Sequence[int] | None) -> str:
    if not channels:
        return "<td></td>"
    before, after = (words.count(int(number)) for number in channels)
    return f"<td>{before} \N{RIGHTWARDS ARROW} {after}</td>"


def classes(found: Sequence[Mapping[str, Any]]) -> str:
    """What became of each class, those that changed most first."""
    if not found:
        return ""
    known = sorted(found, key=lambda one: -abs(float(one["delta"]["value"])))
    most = abs(float(known[0]["delta"]["value"])) or 1.0
    rows = [
        f'<tr><th scope="row">{escape(str(one["class"]))}</th>'
        f"<td>{parts.breakable(_delta(one['delta']))}</td>{_diverging(one['delta'], most)}"
        f"<td>{words.count(int(one['samples']))}</td>"
        f"<td>{words.percent(float(one['original']))}</td>"
        f"<td>{words.percent(float(one['candidate']))}</td>"
        f"<td>{words.count(int(one['losses']))}</td><td>{words.count(int(one['gains']))}</td></tr>"
        for one in known[:CLASSES]
    ]
    heads = ("Samples", "Original", "Candidate", "Newly wrong", "Newly right")
    note = (
        "Information, not a judgement; those that changed most first. A bar is as long as its"
        f" change (the longest {words.number(most, 2)} points), and pale where chance may"
        " explain it."
    )
    if (more := len(known) - CLASSES) > 0:
        note += f" {words.count(more)} more classes, which changed less, are in the JSON."
    return _table("Accuracy by class", ("Class", "Change, points", "", *heads), rows, note)


def _delta(delta: Mapping[str, Any]) -> str:
    value = float(delta["value"])
    low, high = (float(delta.get(end, value)) for end in ("low", "high"))
    return words.with_interval(Metric(value, low, high, "points"))


def _diverging(delta: Mapping[str, Any], most: float) -> str:
    """A bar to the left for what was lost, to the right for what was won."""
    value = float(delta["value"])
    known = "low" in delta and "high" in delta
    by_chance = not known or float(delta["low"]) <= 0 <= float(delta["high"])
    width = min(50.0, 50 * abs(value) / most)
    left = 50 - width if value < 0 else 50
    kind = "chance" if by_chance else "down" if value < 0 else "up"
    return (
        f'<td class="bar both"><div><span class="{kind}" '
        f'style="margin-left:{left:.1f}%;width:{width:.1f}%"></span></div></td>'
    )


def _name(metric: str, *, whole: bool = False) -> str:
    """The heading of a row; ``whole``: with what tells a ratio or a difference."""
    told = metric_names.label(metric)
    kind = metric_names.kind(metric) if whole else ""
    small = f"<small>{escape(kind)}</small>" if kind else ""
    code = "" if told == metric else f'<small class="code">{escape(metric)}</small>'
    return f'<th scope="row">{escape(told)}{small}{code}</th>'


def _table(
    title: str, heads: Sequence[str], rows: Iterable[str], caption: str, kind: str = "facts"
) -> str:
    """A star at a heading marks a column of sentences, a dot one of single words.

    A dash marks one of words that a phone leaves out.
    """
    body = "".join(rows)
    if not body:
        return ""
    head = "".join(_head(text) if text else '<td class="bar"></td>' for text in heads)
    return parts.scroll(
        title,
        f'<table class="{kind}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>",
    )


def _head(text: str) -> str:
    kinds = {"*": "names", ".": "word", "-": "word counts"}
    kind = f' class="{kinds[text[-1]]}"' if text[-1] in kinds else ""
    return f'<th scope="col"{kind}>{text.rstrip("*.-")}</th>'
