"""``onnxtrim compare``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.compare import compare
from onnxtrim.bench.verdict import EXIT_CODES
from onnxtrim.toolkit.cli.common import (
    Points,
    out,
    print_json,
    progress_bar,
    say,
    settings,
    warn,
    with_json,
    with_measuring,
    with_shape,
)
from onnxtrim.toolkit.cli.metrics import print_metrics


@click.command("compare")
@click.argument("original", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option(
    "--eval",
    "evaluation",
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Samples with labels (array 'labels'), for accuracy. Real inputs for latency, too.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME|MODULE:FUNCTION",
    help="Of accuracy: top1 (default), top5, f1, auc, mae, rmse, cosine, kl, or a function of yours"
    " (outputs, labels) that gives a number per sample; repeatable.",
)
@click.option(
    "--max-drop",
    type=Points(),
    metavar="POINTS",
    help="Judge whether top-1 accuracy falls by less: 0.5 or 0.5pp. Exit code 0 if it does, 1 if it"
    " falls by more, 3 if the samples can't tell.",
)
@with_shape
@with_measuring
@with_json
def command(
    original: Path,
    candidate: Path,
    evaluation: str | None,
    metrics: tuple[str, ...],
    max_drop: float | None,
    shapes: tuple[str, ...],
    as_json: bool,
    **measuring: Any,
) -> None:
    """Measure CANDIDATE against ORIGINAL, paired, with 95% intervals.

    Size, accuracy on the same samples, peak memory in fresh processes, load time, and latency of
    the two models in turns, in two worker processes, with the launch as the unit.

    \b
    Example:
      onnxtrim compare model.onnx small.onnx --eval test.npz --max-drop 0.5
    """
    for name, given in (("--metric", metrics), ("--max-drop", max_drop is not None)):
        if given and evaluation is None:
            raise click.UsageError(f"{name} needs --eval")
    chosen = replace(settings(**measuring, shapes=shapes), metrics=metrics, max_drop=max_drop)
    with progress_bar() as report:
        result = compare(original, candidate, data=evaluation, settings=chosen, progress=report)
    warn(result.warnings)
    if as_json:
        print_json(result.to_json())
    else:
        print_metrics(f"{candidate} against {original}", result.metrics, paired=True)
        if not metrics and "accuracy.top1" not in result.metrics:
            say("no accuracy: give samples with labels by --eval")
    if result.verdict is None:
        return
    if not as_json:
        out().print(result.verdict.words())
    raise click.exceptions.Exit(EXIT_CODES[result.verdict.answer])
