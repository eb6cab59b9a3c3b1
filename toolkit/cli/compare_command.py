"""``onnxtrim compare``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.compare import compare
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.result_file import load_result
from onnxtrim.toolkit.cli.common import Points, progress_bar, say, with_json, with_shape
from onnxtrim.toolkit.cli.measuring import (
    finish,
    measured,
    refuse_other_options,
    settings,
    with_protocol,
)


@click.command("compare")
@click.argument("original", type=click.Path(path_type=Path), required=False)
@click.argument("candidate", type=click.Path(path_type=Path), required=False)
@click.option(
    "--eval",
    "evaluation",
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Samples with labels (array 'labels'), for accuracy. Real inputs for latency, too.",
)
@click.option(
    "--max-drop",
    type=Points(),
    metavar="POINTS",
    help="Judge whether top-1 accuracy falls by less: 0.5 or 0.5pp. Exit code 0 if it does, 1 if it"
    " falls by more, 3 if the samples can't tell.",
)
@with_shape
@with_protocol
@with_json
def command(
    original: Path | None,
    candidate: Path | None,
    evaluation: str | None,
    max_drop: float | None,
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
      onnxtrim compare model.onnx small.onnx --eval test.npz --max-drop 0.5
      onnxtrim compare model.onnx small.onnx --limit 0.8 -o result.json
    """
    schema = "onnxtrim.compare/1"
    if source is not None:
        refuse_other_options("--from", "source")
        found = load_result(source)
        finish(found, str(source), schema, as_json=as_json)
        return
    if original is None or candidate is None:
        raise InputError("give ORIGINAL and CANDIDATE, or --from a result")
    chosen = replace(settings(**measuring, shapes=shapes), max_drop=max_drop)
    for name, given in (("--metric", chosen.metrics), ("--max-drop", max_drop is not None)):
        if given and evaluation is None:
            raise click.UsageError(f"{name} needs --eval")
    with measured(output, original, candidate, data=evaluation) as write, progress_bar() as report:
        found = compare(original, candidate, data=evaluation, settings=chosen, progress=report)
        write(found)
    if not (as_json or chosen.metrics or "accuracy.top1" in found.metrics):
        say("no accuracy: give samples with labels by --eval")
    finish(found, f"{candidate} against {original}", schema, as_json=as_json)
