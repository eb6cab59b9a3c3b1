"""``onnxtrim compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.compare import compare
from onnxtrim.toolkit.cli.common import (
    print_json,
    progress_bar,
    say,
    settings,
    warn,
    with_json,
    with_measuring,
    with_profile,
    with_shape,
)
from onnxtrim.toolkit.cli.layers import print_profile
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
@with_shape
@with_measuring
@with_profile
@with_json
def command(
    original: Path,
    candidate: Path,
    evaluation: str | None,
    shapes: tuple[str, ...],
    as_json: bool,
    **measuring: Any,
) -> None:
    """Measure CANDIDATE against ORIGINAL, paired, with 95% intervals.

    Size, accuracy on the same samples, peak memory in fresh processes, load time, and latency of
    the two models in turns, in two worker processes, with the launch as the unit.

    \b
    Example:
      onnxtrim compare model.onnx small.onnx --eval test.npz
    """
    chosen = settings(**measuring, shapes=shapes)
    with progress_bar() as report:
        result = compare(original, candidate, data=evaluation, settings=chosen, progress=report)
    warn(result.warnings)
    if as_json:
        print_json(result.to_json())
        return
    print_metrics(f"{candidate} against {original}", result.metrics, paired=True)
    if chosen.profile:
        print_profile(result.details["profile"])
    if "accuracy.top1" not in result.metrics:
        say("no accuracy: give samples with labels by --eval")
