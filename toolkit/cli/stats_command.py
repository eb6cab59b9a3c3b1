"""``onnxtrim stats``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

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
from onnxtrim.toolkit.statistics import Statistics, gather


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
@with_json
def command(model: Path, data: str, batch: int, output: Path, as_json: bool) -> None:
    """Gather statistics of MODEL's activations once, for many plans.

    One streaming pass in ONNX Runtime, accumulated in float64; memory does not grow with the
    number of samples. For every unit: mean, standard deviation, mean absolute value, share of
    zeros, smallest and largest value, after the activation, where a consumer reads it.

    \b
    Example:
      onnxtrim stats model.onnx --data calib.npz -o stats.npz
      onnxtrim prune model.onnx --stats stats.npz --mean-below 0.1 --std-below 0.4 -o small.onnx
    """
    check_output(output, model, Path(data))
    prepared, source = prepare(model, data)
    assert source is not None  # --data is required
    with progress_bar() as report:
        statistics = gather(
            prepared.analysis, source, prepared.sha256, batch=batch, progress=report
        )
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
        for (tensor, _), moments in zip(refs, statistics.of(group), strict=True):
            groups.append(
                {
                    "name": group.name,
                    "tensor": tensor,
                    "units": group.units,
                    "mean": _summary(moments.mean),
                    "std": _summary(moments.std),
                    "dead": int((moments.zeros == 1).sum()),
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
