"""``onnxtrim bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.compare import bench_model, compare
from onnxtrim.toolkit.cli.common import (
    MODEL,
    print_json,
    progress_bar,
    settings,
    warn,
    with_json,
    with_measuring,
    with_profile,
    with_shape,
)
from onnxtrim.toolkit.cli.layers import print_profile
from onnxtrim.toolkit.cli.metrics import print_metrics


@click.command("bench")
@MODEL
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="The original, measured in turns with MODEL.",
)
@click.option(
    "--data", metavar="NPZ|FOLDER|MODULE:FUNCTION", help="Real inputs; seeded random ones else."
)
@with_shape
@with_measuring
@with_profile
@with_json
def command(
    model: Path,
    against: Path | None,
    data: str | None,
    shapes: tuple[str, ...],
    as_json: bool,
    **measuring: Any,
) -> None:
    """Measure MODEL in ONNX Runtime: latency, load time, memory, size.

    Needs neither torch nor the original's training code. Each launch is a fresh process and one
    value of the interval; within a launch, two models take turns of about 20 ms.

    \b
    Example:
      onnxtrim bench small.onnx
      onnxtrim bench small.onnx --against model.onnx
    """
    chosen = settings(**measuring, shapes=shapes)
    with progress_bar() as report:
        if against is None:
            result = bench_model(model, data=data, settings=chosen, progress=report)
        else:
            result = compare(against, model, data=data, settings=chosen, progress=report)
    warn(result.warnings)
    if as_json:
        print_json({**result.to_json(), "schema": "onnxtrim.bench/1"})
    else:
        print_metrics(str(model), result.metrics, paired=against is not None)
        if chosen.profile:
            print_profile(result.details["profile"])
