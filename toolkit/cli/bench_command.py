"""``onnxtrim bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.compare import bench_model, compare
from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.cli.common import progress_bar, with_json, with_shape
from onnxtrim.toolkit.cli.measuring import finish, measured, read_back, settings, with_protocol


@click.command("bench")
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="The original, measured in turns with MODEL.",
)
@click.option(
    "--data", metavar="NPZ|FOLDER|MODULE:FUNCTION", help="Real inputs; seeded random ones else."
)
@with_shape
@with_protocol
@with_json
def command(
    model: Path | None,
    against: Path | None,
    data: str | None,
    shapes: tuple[str, ...],
    output: Path | None,
    source: Path | None,
    as_json: bool,
    **measuring: Any,
) -> None:
    """Measure MODEL in ONNX Runtime: latency, load time, memory, size.

    Needs neither torch nor the original's training code. Each launch is a fresh process and one
    value of the interval; within a launch, two models take turns of about 20 ms.

    \b
    Example:
      onnxtrim bench small.onnx
      onnxtrim bench small.onnx --against model.onnx --limit 0.8 -o result.json
      onnxtrim bench --from result.json
    """
    schema = "onnxtrim.bench/1"
    if source is not None:
        found = read_back(source, (model, against, data, output))
        finish(found, str(source), schema, as_json=as_json)
        return
    if model is None:
        raise InputError("give the MODEL to measure, or --from a result")
    if measuring["limit"] is not None and against is None:
        raise InputError("--limit is of a ratio; give the original with --against")
    chosen = settings(**measuring, shapes=shapes)
    with measured(output, model, against) as write, progress_bar() as report:
        if against is None:
            found = bench_model(model, data=data, settings=chosen, progress=report)
        else:
            found = compare(against, model, data=data, settings=chosen, progress=report)
        write(found)
    finish(found, str(model), schema, as_json=as_json)
