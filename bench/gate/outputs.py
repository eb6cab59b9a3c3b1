"""The gate's verdict for people, for CI servers and for GitHub."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import PurePath

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate.judge import (
    ERROR,
    FAIL,
    INCONCLUSIVE,
    MISSING,
    PASS,
    WAIVED,
    Judgement,
    RuleVerdict,
)
from onnxtrim.bench.text import one_line

SIGNS = {PASS: "✓", FAIL: "✗", INCONCLUSIVE: "?", MISSING: "∅", WAIVED: "~", ERROR: "!"}
"""A sign for each verdict, so that none is told by colour alone."""

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # of XML 1.0


def junit(judgement: Judgement) -> str:
    """A JUnit report: one test case per rule.

    Fails and missing metrics of rules that decide are failures, inconclusive rules and broken
    measurements errors; waived rules, those that only warn, and open ones that the policy lets
    through (``on_inconclusive = "warn"``) are skipped where they don't pass.
    """
    name = f"onnxtrim.gate.{_clean(judgement.target)}"
    suite = ET.Element("testsuite", name=name)
    counts = {"failure": 0, "error": 0, "skipped": 0}
    for rule in judgement.rules:
        case = ET.SubElement(suite, "testcase", classname=name, name=_clean(_title(rule)))
        kind = _junit_kind(rule, judgement.code)
        if kind is not None:
            counts[kind] += 1
            told = _clean(f"{rule.verdict}: {rule.told}")
            ET.SubElement(case, kind, message=told)
        ET.SubElement(case, "system-out").text = _clean(f"{rule.level} {rule.verdict}: {rule.told}")
    suite.set("tests", str(len(judgement.rules)))
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(counts[kind]))
    ET.SubElement(suite, "system-out").text = _clean(judgement.words)
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, "unicode") + "\n"


def refused_junit(reason: str) -> str:
    """A JUnit report of a gate that judged nothing: one error, so that no older report stands."""
    suite = ET.Element("testsuite", name="onnxtrim.gate", tests="1", failures="0", errors="1")
    suite.set("skipped", "0")
    case = ET.SubElement(suite, "testcase", classname="onnxtrim.gate", name="gate")
    ET.SubElement(case, "error", message=_clean(reason))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, "unicode") + "\n"


def refused_markdown(reason: str) -> str:
    """The same in Markdown."""
    return f"### ERROR: nothing was judged\n\n{_cell(reason)}\n"


def refused_command(reason: str) -> str:
    """The same for GitHub's runner."""
    return _command("error", "onnxtrim gate", reason)


def markdown(judgement: Judgement) -> str:
    """A summary in Markdown: the verdict, and a table of rules."""
    lines = [
        f"### {_cell(judgement.words)}",
        "",
        f"{_code(PurePath(judgement.candidate).name)} against"
        f" {_code(PurePath(judgement.original).name)}, target {_code(judgement.target)}",
        "",
        "| | rule | measured | limit | |",
        "|---|---|---|---|---|",
    ]
    for rule in judgement.rules:
        level = "" if rule.level == "error" else f" ({rule.level})"
        cells = (
            f"{SIGNS[rule.verdict]} {rule.verdict}",
            f"{rule.metric}{level}",
            rule.figure,
            rule.limit,
            rule.why,
        )
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join([*lines, ""])


def github_commands(judgement: Judgement) -> list[str]:
    """Commands to GitHub's runner: one line for the verdict and for each rule that doesn't pass."""
    kinds = {"pass": "notice", "fail": "error", "inconclusive": "warning", "error": "error"}
    lines = [_command(kinds[judgement.verdict], "onnxtrim gate", judgement.words)]
    for rule in judgement.rules:
        if rule.verdict != PASS:
            decides = rule.level == "error" and rule.verdict in (FAIL, MISSING, ERROR)
            told = f"{rule.verdict}: {rule.told}"
            kind = "error" if decides else "notice" if rule.level == "info" else "warning"
            lines.append(_command(kind, rule.metric, told))
    return lines


def append_summary(judgement: Judgement, environment: Mapping[str, str] | None = None) -> bool:
    """Append the Markdown to the file that GitHub names in ``GITHUB_STEP_SUMMARY``, if it does.

    Raises:
        InputError: The file can't be written.
    """
    path = (os.environ if environment is None else environment).get("GITHUB_STEP_SUMMARY")
    if not path:
        return False
    try:
        with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123  (appends)
            file.write(markdown(judgement))
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from error
    return True


def _title(rule: RuleVerdict) -> str:
    return f"{rule.metric} {rule.limit}"


def _junit_kind(rule: RuleVerdict, code: int) -> str | None:
    if rule.verdict == PASS:
        return None
    let_through = rule.verdict == INCONCLUSIVE and code == 0
    if rule.level != "error" or rule.verdict == WAIVED or let_through:
        return "skipped"
    return "failure" if rule.verdict in (FAIL, MISSING) else "error"


def _clean(text: str) -> str:
    """Text without the characters that XML forbids."""
    return _FORBIDDEN.sub("?", text)


def _cell(text: str) -> str:
    """Text that means nothing in a Markdown table but itself."""
    return re.sub(r"([\\`*_{}\[\]<>|#~!&])", r"\\\1", one_line(text))


def _code(text: str) -> str:
    """A name as code; backticks and bars would end it."""
    safe = one_line(text).replace("`", "'").replace("|", "\\|")
    return f"`{safe}`"


def _command(kind: str, title: str, text: str) -> str:
    """See "Workflow commands for GitHub Actions": percent signs and line ends are escaped."""
    message = one_line(text).replace("%", "%25")
    head = one_line(title).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={head}::{message}"
