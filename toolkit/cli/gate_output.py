"""How the gate's verdict leaves the command: text, JSON, files, GitHub's lines, the exit code."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from onnxtrim.bench.errors import InputError, OnnxtrimError, WorkerError
from onnxtrim.bench.files import write_text
from onnxtrim.bench.gate import Judgement
from onnxtrim.bench.gate.outputs import (
    SIGNS,
    append_summary,
    github_commands,
    junit,
    markdown,
    refused_command,
    refused_junit,
    refused_markdown,
)
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.text import one_line
from onnxtrim.toolkit.cli.common import check_output, out, print_json, say, table, with_options

F = TypeVar("F", bound=Callable[..., Any])
_WIDTH = 11  # characters of a bar


@dataclass(frozen=True)
class Outputs:
    """Where the verdict goes, beside the terminal."""

    junit: Path | None
    markdown: Path | None
    quiet: bool

    def check(self, *inputs: Path) -> None:
        """Refuse files that can't be written, before any work."""
        for path in (self.junit, self.markdown):
            check_output(path, *inputs)
        if self.junit is not None and self.junit == self.markdown:
            raise InputError(f"--junit and --markdown are both {self.junit}; give two files")

    def refuse(self, reason: str) -> None:
        """Leave no older report standing where nothing was judged."""
        if self.junit is not None:
            write_text(self.junit, refused_junit(reason))
        if self.markdown is not None:
            write_text(self.markdown, refused_markdown(reason))
        if os.environ.get("GITHUB_ACTIONS") == "true":
            say(refused_command(reason))


@contextlib.contextmanager
def refusals(outputs: Outputs) -> Iterator[None]:
    """Tell whoever reads the reports, too, why nothing was judged."""
    try:
        yield
    except OnnxtrimError as error:
        outputs.refuse(one_line(str(error)))
        raise


def with_outputs(function: F) -> F:
    """Add the options of :class:`Outputs`."""
    options = (
        click.option(
            "--junit",
            type=click.Path(path_type=Path),
            metavar="XML",
            help="Also write a JUnit report, one test case per rule.",
        ),
        click.option(
            "--markdown",
            type=click.Path(path_type=Path),
            metavar="MD",
            help="Also write a summary in Markdown; on GitHub the job's summary has it anyway.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Print the verdict's sentence only."),
    )
    return with_options(function, options)


@contextlib.contextmanager
def judged_anyway(
    judged: Callable[[Measurement], Judgement],
    write: Callable[[Measurement], None],
    outputs: Outputs,
    *,
    as_json: bool,
) -> Iterator[None]:
    """If a measuring process dies, judge and tell what was finished: a CI server reads it, too."""
    try:
        yield
    except WorkerError as error:
        if isinstance(error.finished, Measurement):
            say(f"error: {error}")
            write(error.finished)
            tell(judged(error.finished), outputs, as_json=as_json)
        raise


def tell(judgement: Judgement, outputs: Outputs, *, as_json: bool) -> NoReturn:
    """Print and write a judgement, and leave with its exit code."""
    if outputs.junit is not None:
        write_text(outputs.junit, junit(judgement))
    if outputs.markdown is not None:
        write_text(outputs.markdown, markdown(judgement))
    try:
        append_summary(judgement)
    except InputError as error:
        say(f"warning: no summary: {error}")  # the verdict stands
    if as_json:
        print_json(judgement.to_json())
    else:
        if os.environ.get("GITHUB_ACTIONS") == "true":
            for line in github_commands(judgement):
                out().print(line)
        print_judgement(judgement, table_too=not outputs.quiet)
        if not outputs.quiet:
            say(_next(judgement))
    raise click.exceptions.Exit(judgement.code)


def print_judgement(judgement: Judgement, *, table_too: bool = True) -> None:
    """The rules as a table, and the verdict's sentence."""
    rows = [
        [
            f"{SIGNS[rule.verdict]} {rule.verdict}",
            rule.metric + ("" if rule.level == "error" else f" ({rule.level})"),
            rule.figure,
            rule.limit,
            _bar(rule.low, rule.high, rule.bound),
            one_line(rule.why),
        ]
        for rule in judgement.rules
    ]
    if table_too:
        columns = ["verdict", "rule", "measured", "limit", "", "remark"]
        out().print(table(f"gate, target {judgement.target}", columns, rows))
    out().print(judgement.words)


def _bar(low: float | None, high: float | None, bound: float | None) -> str:
    """An interval beside its limit: ``──━━│───``; nothing where there is none."""
    if low is None or high is None or bound is None or not math.isfinite(low + high):
        return ""
    reach = max(abs(low - bound), abs(high - bound), 1e-12)
    middle = _WIDTH // 2

    def place(x: float) -> int:
        return middle + round((x - bound) / reach * middle)

    cells = ["━" if place(low) <= n <= place(high) else "─" for n in range(_WIDTH)]
    cells[middle] = "╋" if place(low) <= middle <= place(high) else "│"
    return "".join(cells)


def _next(judgement: Judgement) -> str:
    if judgement.verdict == "fail" and not judgement.of("fail"):
        return "next: measure what is missing; nothing else speaks against the candidate so far"
    if judgement.verdict == "pass" and not judgement.of("pass"):
        return "next: look at the waivers and warnings; no required rule was shown to hold"
    return {
        "pass": "next: release it; keep the JSON of --json or --junit as the record",
        "fail": "next: take a larger candidate ('onnxtrim choose' finds one), or change the policy",
        "inconclusive": "next: do what the remarks say, and measure again",
        "error": "next: find out why the measuring process died, and run the gate again",
    }[judgement.verdict]
