"""What every page is made of: one HTML file that asks the network for nothing.

The page holds one JSON object (``<script id="data">``), from which its scripts draw the plots; text
and tables are plain HTML. A content security policy forbids every request, and every script but the
embedded ones, so that a name in a model can't become code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from onnxtrim.bench.files import write_text

SCHEMA = "onnxtrim.report/1"
_HERE = Path(__file__).parent
_EVERYWHERE = ("vendor/plotly-basic.min.js", "plots.js")


def write_page(
    path: str | os.PathLike[str],
    template: str,
    texts: Mapping[str, str],
    data: Mapping[str, Any],
    scripts: Sequence[str],
) -> None:
    """Fill a page and write it, whole or not at all.

    Args:
        path: The HTML file.
        template: File of this folder with what stands first in ``<main>``.
        texts: Escaped HTML for the places of it and of ``page.html``.
        data: What the scripts draw from.
        scripts: Files of this folder that run after the plotting library.

    Raises:
        InputError: The file can't be written there.
    """
    codes = [_asset(name) for name in (*_EVERYWHERE, *scripts)]
    page = Template(_asset("page.html")).substitute(
        {
            **texts,
            "main": Template(_asset(template)).substitute(texts),
            "policy": _policy(codes),
            "css": _asset("report.css"),
            "data": embed(data),
            "scripts": "\n".join(f"<script>{code}</script>" for code in codes),
        }
    )
    # A lone surrogate in a name is legal JSON and can't be encoded.
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def embed(value: Any) -> str:
    """JSON that can stand inside ``<script>``: nothing in it can end the element or open one."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def short(value: float, figures: int = 6) -> float:
    """A number with so many figures, which takes less room."""
    return float(f"{value:.{figures}g}")


def _policy(scripts: Sequence[str]) -> str:
    """The content security policy; the plotting library writes style attributes."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    text = (_HERE / name).read_text(encoding="utf-8")
    return text.partition("\n//# sourceMappingURL=")[0]  # a file that is not shipped
