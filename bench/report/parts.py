"""Pieces of HTML that the pages share; every text is escaped here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from onnxtrim.bench.gate.outputs import SIGNS
from onnxtrim.bench.report import words

_INTERVAL = re.compile(r"\[[^\[\]]*\]")
_ASIDE = re.compile(r"[\[(].*$")
_LONG = 20  # characters of a value that gets a line for itself


def sentence(text: str) -> str:
    """A sentence whose intervals are not broken at the end of a line."""
    return _INTERVAL.sub(lambda found: f'<span class="whole">{found[0]}</span>', escape(text))


def section(name: str, title: str, content: str, lead: str = "") -> str:
    """A section with its heading; nothing without content."""
    if not content:
        return ""
    told = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>'
        f"{told}{content}</section>"
    )


def bullets(items: Iterable[str]) -> str:
    """A list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def figure(name: str, title: str, note: str, kind: str = "plot") -> str:
    """The place of a plot, which a script fills."""
    return (
        f'<figure><figcaption id="{name}-title">{escape(title)}'
        f"<small>{escape(note)}</small></figcaption>"
        f'<div class="{kind}" id="{name}" role="group" aria-labelledby="{name}-title"></div>'
        "</figure>"
    )


def cards(items: Sequence[tuple[str, str, str]], label: str) -> str:
    """Big figures, each with a title above and small print below."""
    if not items:
        return ""
    texts = "".join(
        f"<div><dt>{escape(title)}</dt><dd>{escape(big)}<small>{sentence(small)}</small></dd></div>"
        for title, big, small in items
    )
    return f'<dl class="figures" aria-label="{escape(label)}">{texts}</dl>'


def notices(texts: Iterable[str]) -> str:
    """What must be seen before anything else."""
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in texts)


def scroll(label: str, table: str) -> str:
    """A table that is moved within its frame where it is too wide, by keys, too."""
    told = escape(f"Table: {label}")
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{told}">{table}</div>'


def mark(verdict: str) -> str:
    """A verdict as a word with a sign before it; the colour only helps."""
    sign = SIGNS.get(verdict, "\N{EN DASH}")
    kind = verdict if verdict in ("pass", "fail", "inconclusive") else "other"
    return f'<b class="mark {kind}"><span aria-hidden="true">{sign}</span> {escape(verdict)}</b>'


def facts(parts: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Nested settings as lists of terms, those without any left out."""
    return "".join(
        f'<details class="facts"><summary>{escape(title)}</summary><dl>'
        + "".join(_term(key, value) for key, value in words.flatten(values))
        + "</dl></details>"
        for title, values in parts
        if values
    )


def breakable(text: str) -> str:
    """A cell whose interval, or aside, may go to a second line, but is not broken itself."""
    found = _ASIDE.search(escape(text))
    if found is None:
        return escape(text)
    return f"{escape(text)[: found.start()]}<small>{found[0]}</small>"


def _term(key: str, value: str) -> str:
    kind = ' class="long"' if len(value) > _LONG else ""
    name = escape(key.replace("_", " "))
    return f"<div{kind}><dt>{name}</dt><dd>{escape(value)}</dd></div>"
