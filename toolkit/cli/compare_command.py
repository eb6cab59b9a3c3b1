"""``onnxtrim compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.compare import compare
from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.cli.common import progress_bar, say, with_json, with_shape
from onnxtrim.toolkit.cli.measuring import finish, measured, read_back, settings, with_protocol


@click.command("compare")
@click.argument("original", type=click.Path(path_type=Path), required=False)
@click.argument("candidate", type=click.Path(path_type=Path), required=False)
@click.option(
    "--eval",
    "evaluation",
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Samples with labels (array 'labels'), for accuracy. Real inputs for latency, too.",
)
@with_shape
@with_protocol
@with_json
def command(
    original: Path | None,
    candidate: Path | None,
    evaluation: str | None,
    shapes: tuple[str, ...],
    output: Path | None,
    source: Path | None,
    as_json: bool,
    **measuring: Any,
) -> None:
    """Measure CANDIDATE against ORIGINAL, paired, with 95% intervals.

    Size, accuracy on the same samples, peak memory in fresh processes, load time, and latency of
    the two models in turns, in two worker processes, with the launch as the unit. A third process
    runs the original once more: if that differs, nothing measured here can be trusted.

    \b
    Example:
      onnxtrim compare model.onnx small.onnx --eval test.npz
      onnxtrim compare model.onnx small.onnx --limit 0.8 -o result.json
    """
    schema = "onnxtrim.compare/1"
    if source is not None:
        found = read_back(source, (original, candidate, evaluation, output))
        finish(found, str(source), schema, as_json=as_json)
        return
    if original is None or candidate is None:
        raise InputError("give ORIGINAL and CANDIDATE, or --from a result")
    chosen = settings(**measuring, shapes=shapes)
    with measured(output, original, candidate) as write, progress_bar() as report:
        found = compare(original, candidate, data=evaluation, settings=chosen, progress=report)
        write(found)
    if "accuracy.top1" not in found.metrics and not as_json:
        say("no accuracy: give samples with labels by --eval")
    finish(found, f"{candidate} against {original}", schema, as_json=as_json)
