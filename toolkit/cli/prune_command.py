"""``onnxtrim prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.data import DataSource
from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.cli.common import (
    MODEL,
    Report,
    check_output,
    out,
    parse_shapes,
    print_json,
    progress_bar,
    say,
    table,
    warn,
    with_json,
    with_shape,
)
from onnxtrim.toolkit.criteria import Threshold
from onnxtrim.toolkit.plan import make_plan
from onnxtrim.toolkit.prepare import Prepared, prepare
from onnxtrim.toolkit.statistics import Statistics, gather
from onnxtrim.toolkit.trim import apply_plan, require_removals


@click.command("prune")
@MODEL
@click.option(
    "--data",
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Calibration data: arrays named as the model's inputs; labels are not used.",
)
@click.option(
    "--stats",
    type=click.Path(path_type=Path),
    help="Statistics that 'onnxtrim stats' gathered, instead of --data.",
)
@click.option("--mean-below", type=float, required=True, help="Threshold on a unit's mean.")
@click.option(
    "--std-below", type=float, required=True, help="Threshold on a unit's standard deviation."
)
@click.option("--absolute", is_flag=True, help="Compare |mean| (for activations that go negative).")
@click.option(
    "--repair/--no-repair",
    default=True,
    show_default=True,
    help="Fold the mean of what leaves into the next bias; --no-repair is the published rule.",
)
@click.option("--plan", type=click.Path(path_type=Path), help="Also write the plan here (JSON).")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Model to write."
)
@with_shape
@with_json
def command(
    model: Path,
    data: str | None,
    stats: Path | None,
    mean_below: float,
    std_below: float,
    absolute: bool,
    repair: bool,
    plan: Path | None,
    output: Path,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Remove units of MODEL whose mean and standard deviation are below two thresholds.

    The statistics are taken after the activation. The result has smaller tensors, not masks, and
    is written only after it was shown to compute the same as the original with those units
    masked, on every inner tensor, and loads in ONNX Runtime.

    \b
    Example:
      onnxtrim prune model.onnx --data calib.npz --mean-below 0.1 --std-below 0.4 -o small.onnx
      onnxtrim compare model.onnx small.onnx --eval test.npz
    """
    if (data is None) == (stats is None):
        raise click.UsageError("give either --data or --stats")
    criterion = Threshold(mean_below, std_below, absolute)
    check_output(output, model, stats, None if data is None else Path(data))
    check_output(plan, model, stats, output)
    prepared, source = prepare(model, data, sizes=parse_shapes(shapes))
    with progress_bar() as report:
        statistics = _statistics(prepared, source, stats, report)
    chosen = make_plan(prepared.analysis, statistics, criterion)
    require_removals(prepared, chosen, statistics)
    result = apply_plan(prepared, chosen, statistics if repair else None, source)
    result.save(output)
    if plan is not None:
        chosen.save(plan)
    value = {"schema": "onnxtrim.prune/1", **result.to_json(), "output": str(output)}
    warn(result.warnings)
    if as_json:
        print_json(value)
    else:
        _print(value)
    say(f"written: {output}; next: onnxtrim compare {model} {output} --eval test.npz")


def _statistics(
    prepared: Prepared, source: DataSource | None, stats: Path | None, report: Report | None
) -> Statistics:
    if source is not None:
        return gather(prepared.analysis, source, prepared.sha256, progress=report)
    if stats is None:
        raise InputError("no statistics")
    statistics = Statistics.load(stats)
    statistics.require(prepared.analysis, prepared.sha256, str(stats))
    return statistics


def _print(value: dict[str, Any]) -> None:
    rows = [
        [name, f"{value[name]['before']:,}", f"{value[name]['after']:,}", _share(value[name])]
        for name in ("parameters", "bytes", "macs")
    ]
    rows += [
        [f"units of {group['name']}", f"{group['before']:,}", f"{group['after']:,}", _share(group)]
        for group in value["groups"]
    ]
    console = out()
    console.print(table("Removed", ["", "before", "after", "removed"], rows))
    check = value["self_check"]
    console.print(
        f"self-check passed: {check['tensors']} tensors equal the masked original within"
        f" {check['max_error']:.1e}; the removal moves the output by {check['effect']:.1%}"
    )
    if value["divergence"] is not None:
        console.print(f"divergence of the outputs on calibration data: {value['divergence']:.3g}")


def _share(change: dict[str, int]) -> str:
    return f"{1 - change['after'] / change['before']:.1%}" if change["before"] else ""
