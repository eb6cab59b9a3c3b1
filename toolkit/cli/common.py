"""What the subcommands share: options, progress, tables, JSON on stdout."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import check_target
from onnxtrim.bench.model_file import check_model_file
from onnxtrim.bench.results import Metric
from onnxtrim.bench.text import one_line

F = TypeVar("F", bound=Callable[..., Any])
Report = Callable[[str, int, int | None], None]

MODEL = click.argument("model", type=click.Path(path_type=Path))


class Points(click.FloatRange):
    """Percentage points: ``0.5`` or ``0.5pp``; a percentage could be meant in another way."""

    name = "points"

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See click."""
        text = str(value).strip()
        if text.endswith("%"):
            self.fail(f"{text!r}: give percentage points, such as 0.5 or 0.5pp", param, ctx)
        number: Any = text.removesuffix("pp").strip()
        return float(super().convert(number, param, ctx))


def with_options(function: F, options: Sequence[Callable[[F], F]]) -> F:
    """Add options, which help then lists in this order."""
    for option in reversed(options):
        function = option(function)
    return function


def with_json(function: F) -> F:
    """Add ``--json``, and ``--debug`` to the help (``main`` takes it out of the arguments)."""
    function = click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object instead of tables."
    )(function)
    return click.option(
        "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."
    )(function)


def with_shape(function: F) -> F:
    """Add ``--shape``."""
    return click.option(
        "--shape",
        "shapes",
        multiple=True,
        metavar="NAME=1x3x224x224",
        help="Shape of an input whose dimensions are free, or size of such a dimension by its name;"
        " repeatable.",
    )(function)


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``["x=1x3x8x8"]`` as ``{"x": (1, 3, 8, 8)}``.

    Raises:
        InputError: Not of this form.
    """
    result = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split("x"))
        except ValueError:
            shape = ()
        if not name or not shape or min(shape) < 1:
            raise InputError(f"--shape {text!r}: must look like NAME=1x3x224x224")
        result[name] = shape
    return result


@contextlib.contextmanager
def progress_bar() -> Iterator[Report | None]:
    """Yield a callable that draws progress on stderr, or ``None`` where nobody looks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(word: str, done: int, total: int | None) -> None:
            if word not in tasks:
                tasks[word] = bar.add_task(word, total=total)
            bar.update(tasks[word], completed=done, total=total)
            if total is not None and done >= total:
                bar.remove_task(tasks.pop(word))

        yield report


def out() -> Console:
    """Where results go; lines are never folded when nobody looks at them."""
    console = _console()
    return console if console.is_terminal else _console(width=200)


def _console(**options: Any) -> Console:
    """A console that prints text as it is; file names may look like markup."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, **options)


def say(text: str) -> None:
    """A message for people, on stderr."""
    _console(stderr=True).print(text)


def warn(texts: Sequence[str]) -> None:
    """Warnings, one line each, on stderr."""
    for text in texts:
        say(f"warning: {one_line(text)}")


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table; columns of numbers are aligned to the right, the first is never folded."""
    result = Table(
        title=title,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for place, column in enumerate(columns):
        numbers = place > 0 and all(_NUMBER.match(row[place]) for row in rows)
        result.add_column(column, justify="right" if numbers else "left", no_wrap=place == 0)
    for row in rows:
        result.add_row(*row)
    return result


def check_output(path: Path | None, *inputs: Path | None) -> None:
    """Refuse an output that can't be written, before any work.

    Raises:
        InputError: It can't be written, is one of the inputs (also through a link, also the
            external data of a model), or would lie among the shards of a folder of data.
    """
    if path is None:
        return
    check_target(path)
    target = Path(os.path.realpath(path))
    sources = [source for source in inputs if source is not None]
    if path.exists():
        sources += [file for source in sources for file in _external_data(source)]
    for source in sources:
        if target == Path(os.path.realpath(source)) or _is_same(path, source):
            raise InputError(f"{path}: the output is the input; choose another path")
        if path.suffix == ".npz" and source.is_dir() and _is_same(target.parent, source):
            raise InputError(f"{path}: would lie among the data; choose another folder")


def _external_data(source: Path) -> tuple[Path, ...]:
    """The weights beside a model; nothing for what is no readable model."""
    if source.suffix == ".npz" or not source.is_file():
        return ()
    try:
        return check_model_file(source)
    except InputError:  # told when the model is read
        return ()


def _is_same(path: Path, source: Path) -> bool:
    """Whether both exist and are one file, also through hard links."""
    try:
        return path.samefile(source)
    except OSError:
        return False


def number(metric: Metric | None, *, interval: bool = True) -> str:
    """A metric for people: value, unit and, where it is not exact, the interval.

    The ends of the interval have the unit and the decimals of the value.
    """
    if metric is None:
        return ""
    if metric.unit == "bytes":
        power = min(3, int(math.log(max(abs(metric.value), 1), 1024)))
        scale, unit = 1024**power, (" B", " KiB", " MiB", " GiB")[power]
        show = _decimals(metric.value / scale) if power else "{:.0f}"
    else:
        scale, unit = 1, _UNITS.get(metric.unit, "")
        show = _SHOW.get(metric.unit) or _decimals(metric.value)
    text = show.format(metric.value / scale) + unit
    if metric.low == metric.high or not interval:
        return text
    low, high = (show.format(end / scale) for end in (metric.low, metric.high))
    return f"{text} [{low}, {high}]"


def _decimals(value: float) -> str:
    """A format with three significant digits of ``value``."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{{:.{max(digits, 0)}f}}"


_UNITS = {"ms": " ms", "points": " pp", "samples/s": " /s", "s/sample": " s", "J": " J"}
_SHOW = {"ratio": "{:.3f}", "share": "{:.2%}", "points": "{:+.2f}"}
_NUMBER = re.compile(r"$|[-+]?\d")
