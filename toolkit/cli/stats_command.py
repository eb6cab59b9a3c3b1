"""``onnxtrim stats``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.cli.common import (
    MODEL,
    check_output,
    out,
    print_json,
    progress_bar,
    say,
    table,
    with_json,
)
from onnxtrim.toolkit.prepare import Prepared, prepare
from onnxtrim.toolkit.second_moments import gather_halves, read_points
from onnxtrim.toolkit.statistics import Statistics, gather, merge


@click.command("stats")
@MODEL
@click.option(
    "--data",
    required=True,
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Calibration data: arrays named as the model's inputs; labels are not used.",
)
@click.option("--batch", type=click.IntRange(min=1), default=256, show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write (.npz)."
)
@click.option(
    "--update",
    is_flag=True,
    help="Add these data to the statistics that --output holds already.",
)
@click.option(
    "--no-pairs",
    is_flag=True,
    help="Leave the second moments out: half the time, a small file, thresholds only.",
)
@with_json
def command(
    model: Path,
    data: str,
    batch: int,
    output: Path,
    update: bool,
    no_pairs: bool,
    as_json: bool,
) -> None:
    """Gather statistics of MODEL's activations once, for many plans.

    Streamed through ONNX Runtime, accumulated in float64; memory does not grow with the number of
    samples. For every unit: mean, standard deviation, mean absolute value, share of zeros, smallest
    and largest value, after the activation, where a consumer reads it. For every pair of units
    that are read together: their second moment, which budgets need.

    \b
    Example:
      onnxtrim stats model.onnx --data calib.npz -o stats.npz
      onnxtrim stats model.onnx --data more.npz --update -o stats.npz
      onnxtrim prune model.onnx --stats stats.npz --mean-below 0.1 --std-below 0.4 -o small.onnx
      onnxtrim prune model.onnx --stats stats.npz --data calib.npz --remove 70% -o small.onnx
    """
    check_output(output, model, Path(data))
    if update and not output.exists():
        raise InputError(f"{output}: no such file to add to; leave --update out")
    before = Statistics.load(output) if update else None
    if before is not None and bool(before.halves[0]) == no_pairs:
        raise InputError(
            f"{output}: {'holds' if no_pairs else 'holds no'} second moments; give"
            f" {'no' if no_pairs else 'also'} --no-pairs"
        )
    prepared, source = prepare(model, data)
    assert source is not None  # --data is required
    analysis = prepared.analysis
    if before is not None:
        before.require(analysis, prepared.sha256, str(output))
        if source.sha256 in before.data_sha256:
            raise InputError(f"{data}: these data are in {output} already; give others")
    with progress_bar() as report:
        statistics = gather(analysis, source, prepared.sha256, batch=batch, progress=report)
        if not no_pairs:
            halves = gather_halves(analysis, read_points(analysis), source, progress=report)
            statistics = replace(statistics, halves=halves)
    if before is not None:
        statistics = merge(before, statistics)
    statistics.save(output)
    value = _to_json(prepared, statistics, output)
    if as_json:
        print_json(value)
    else:
        _print(value, data)
    say(f"written: {output}; next: onnxtrim prune {model} --stats {output} --mean-below … -o …")


def _print(value: dict[str, Any], data: str) -> None:
    rows = [
        [
            group["name"],
            group["tensor"],
            f"{group['units']:,}",
            _spread(group["mean"]),
            _spread(group["std"]),
            f"{group['dead']:,}",
        ]
        for group in value["groups"]
    ]
    columns = ["group", "read at", "units", "mean min/median/max", "std min/median/max", "dead"]
    out().print(table(f"{value['samples']:,} samples of {data}", columns, rows))


def _spread(numbers: dict[str, float]) -> str:
    return f"{numbers['min']:.3g} / {numbers['median']:.3g} / {numbers['max']:.3g}"


def _to_json(prepared: Prepared, statistics: Statistics, output: Path) -> dict[str, Any]:
    groups = []
    for group in prepared.analysis.groups:
        refs = [ref for ref in group.consumer_inputs() if ref in group.slices]
        for (tensor, axis), moments in zip(refs, statistics.of(group), strict=True):
            groups.append(
                {
                    "name": group.name,
                    "tensor": tensor,
                    "units": group.units,
                    "mean": _summary(moments.mean),
                    "std": _summary(moments.std),
                    "dead": int((moments.zeros == 1).sum()),
                    "rows": moments.count,
                    "pair_rows": sum(
                        half[tensor, axis].count
                        for half in statistics.halves
                        if (tensor, axis) in half
                    ),
                }
            )
    return {
        "schema": "onnxtrim.stats/1",
        "output": str(output),
        "samples": statistics.samples,
        "data": {"name": statistics.data_name, "sha256": statistics.data_sha256},
        "groups": groups,
    }


def _summary(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }
