"""The words of a result's report, as escaped HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import PurePath
from typing import Any

from onnxtrim.bench.launches import CANDIDATE, COPY
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.report import metric_names, parts, result_tables, result_words, words
from onnxtrim.bench.report.forest import Row
from onnxtrim.bench.report.judgement import Judgement
from onnxtrim.bench.results import Metrics

FOREST, LAUNCHES = "ratios-plot", "launches-plot"
_HEAD = ("seed", "calls_per_round", "planned", "floor_ms", "wait_share", "involuntary_switches")


def verdict(found: Measurement, judgement: Judgement | None) -> str:
    """The sentence at the top, as plain text."""
    return result_words.sentence(found) if judgement is None else judgement.words


def texts(found: Measurement, judgement: Judgement | None, rows: Sequence[Row]) -> dict[str, str]:
    """All places of ``page.html`` and ``result.html`` that are filled with words, by name."""
    heading = _heading(found)
    profile = found.details.get("profile")
    return {
        "title": escape(f"{heading}: onnxtrim report"),
        "kicker": "onnxtrim result report",
        "heading": escape(heading),
        "verdict": _verdict(found, judgement),
        "notices": _claims(found),
        "figures": parts.cards(_cards(found), "The main figures"),
        "rules": _rules(judgement),
        "warnings": parts.section(
            "warnings", "Warnings", parts.bullets(found.warnings) if found.warnings else ""
        ),
        "ratios": _ratios(rows),
        "metrics": parts.section("metrics", "All metrics", result_tables.metrics(found)),
        "launches": _launches(found),
        "accuracy": _accuracy(found),
        "layers": ""
        if profile is None
        else parts.section("layers", "Where the time goes", result_tables.layers(profile)),
        "measured": _measured(found, judgement),
        "limits": parts.bullets(result_words.limits(found)),
    }


def _heading(found: Measurement) -> str:
    names = [PurePath(found.model["path"]).name or "model"]
    if found.original is not None:
        names.append(PurePath(found.original["path"]).name or "original")
    return " against ".join(names)


def _verdict(found: Measurement, judgement: Judgement | None) -> str:
    told = parts.sentence(result_words.sentence(found))
    if judgement is None:
        told = f'<p class="verdict">{told}</p>'
    else:
        told = (
            f'<p class="stamp">{parts.mark(judgement.verdict)}</p>'
            f'<p class="verdict">{escape(judgement.words)}</p><p class="claim">{told}</p>'
        )
    ends = (result_words.where(found), result_words.next_step(found, judgement))
    return told + "".join(f'<p class="lead">{escape(text)}</p>' for text in ends if text)


def _claims(found: Measurement) -> str:
    """What the measurement itself was asked to decide."""
    claims = []
    if (latency := found.latency_verdict) is not None:
        claims.append((latency.verdict, latency.words()))
    if found.verdict is not None:
        claims.append((found.verdict.answer, found.verdict.words()))
    return "".join(
        f'<p class="claim">Asked of the measurement: {parts.mark(answer)}'
        f"{escape(said.removeprefix(answer))}</p>"
        for answer, said in claims
    )


def _cards(found: Measurement) -> list[tuple[str, str, str]]:
    metrics = found.metrics
    keys = (
        ("Latency", "latency.p50"),
        ("Peak memory", "memory.run_peak"),
        ("File", "model.file_bytes"),
    )
    items = []
    for title, key in keys:
        ratio = metrics.get(f"{key}.ratio")
        if ratio is not None:
            small = f"{_change(metrics, key)} {words.interval(ratio, 3)}".strip()
            items.append((f"{title}, of the original's", words.plain(ratio, 3), small))
        elif key in metrics and found.original is None:
            items.append((title, words.plain(metrics[key]), words.interval(metrics[key])))
    if delta := metrics.get("accuracy.top1.delta"):
        small = f"{_change(metrics, 'accuracy.top1')} {words.interval(delta)}".strip()
        items.append(("Top-1 accuracy", f"{words.plain(delta)} points", small))
    elif top1 := metrics.get("accuracy.top1"):
        items.append(("Accuracy", words.plain(top1), words.interval(top1)))
    return items


def _change(metrics: Metrics, key: str) -> str:
    """The value before and after."""
    before, after = metrics.get(f"{key}.original"), metrics.get(key)
    if before is None or after is None:
        return ""
    return f"{words.plain(before)} \N{RIGHTWARDS ARROW} {words.plain(after)}"


def _rules(judgement: Judgement | None) -> str:
    if judgement is None:
        return ""
    source = PurePath(str(judgement.policy.get("source") or "")).name
    lead = f"Policy {source}" if source else "The policy"
    lead += f", target {judgement.target}." if judgement.target else "."
    if judgement.tried > 1:
        lead += (
            f" The candidate was chosen from {words.count(judgement.tried)}, on other data, and"
            " judged once."
        )
    return parts.section("rules", "Rules", result_tables.rules(judgement), lead)


def _ratios(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lead = (
        "Left of 1 is less than the original's, which is better"
        f"{'; of samples per second right is' if any(map(_is_rate, rows)) else ''}. Bars are 95%"
        " intervals (of memory, all repeats); a mark is filled where a difference was shown."
    )
    if any(row.limits for row in rows):
        lead += " Purple bars are limits."
    if any(row.role == "copy" for row in rows):
        lead += (
            " The diamond is a check: the original against itself, with the interval (99%) of what"
            " this machine can't tell apart."
        )
    plot = parts.figure(FOREST, "Ratios to the original", "", "plot forest")
    return parts.section("ratios", "Candidate beside original", plot, lead)


def _is_rate(row: Row) -> bool:
    return metric_names.is_larger_better(row.name)


def _launches(found: Measurement) -> str:
    latency = found.latency
    if latency is None:
        return ""
    pair = len(latency.calls) > CANDIDATE
    lead = (
        "Each dot is one restart of all processes. The interval is computed from these values: two"
        " restarts differ more than two calls within one."
    )
    title = "Median time, candidate ÷ original" if pair else "Median time of a call, ms"
    note = "The band is the 95% interval."
    if len(latency.calls) > COPY:
        note += " Open diamonds are the original against itself."
    plot = parts.figure(LAUNCHES, title, note)
    return parts.section("launches", "Launch by launch", plot, lead)


def _accuracy(found: Measurement) -> str:
    about = found.details.get("accuracy")
    if about is None:
        return ""
    told = []
    if delta := found.metrics.get("accuracy.top1.delta"):
        change = f"{words.plain(delta)} points {words.interval(delta)}".rstrip()
        told.append(f"Top-1 accuracy changed by {change}.")
    if "accuracy.top1" in found.metrics:
        losses, gains = (words.count(int(about[key])) for key in ("losses", "gains"))
        told.append(f"{losses} answers are newly wrong, {gains} newly right (flips).")
    if agreement := found.metrics.get("accuracy.agreement"):
        told.append(f"{words.with_interval(agreement)} of the samples get the same class.")
    if (error := about.get("relative_error")) is not None:
        told.append(f"The raw outputs differ by {words.percent(float(error))} (norms).")
    groups = about.get("groups")
    within = f" in {words.count(int(groups))} groups" if groups else ""
    told.append(f"Over {words.count(int(about['samples']))} samples{within}.")
    table = result_tables.classes(about.get("classes", []))
    lead = " ".join(told)
    if not table:
        return parts.section("classes", "Accuracy", f'<p class="lead">{escape(lead)}</p>')
    return parts.section("classes", "Accuracy by class", table, lead)


def _measured(found: Measurement, judgement: Judgement | None) -> str:
    latency: Mapping[str, Any] = found.details.get("latency", {})
    launches: dict[str, Any] = {}
    if found.latency is not None:
        launches = {"launches": len(found.latency.launches)}
        launches |= {key: latency.get(key) for key in _HEAD}
        launches |= {"conditions": found.latency.conditions}
    return parts.facts(
        [
            ("Model" if found.original is None else "Candidate", found.model),
            ("Original", found.original or {}),
            ("Data", found.details.get("data", {"name": "none; inputs were random"})),
            ("Policy", {**judgement.policy, "target": judgement.target} if judgement else {}),
            ("Latency", launches),
            ("Settings", found.settings),
            ("Machine and versions", found.machine),
        ]
    )
