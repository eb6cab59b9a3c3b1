"""``onnxtrim sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxtrim.toolkit.budget import Budget
from onnxtrim.toolkit.cli.candidates import print_run, sweep_json
from onnxtrim.toolkit.cli.common import (
    MODEL,
    Points,
    print_json,
    progress_bar,
    say,
    warn,
    with_json,
)
from onnxtrim.toolkit.cli.measuring import settings, with_measuring
from onnxtrim.toolkit.grid import DEFAULT_GRID, read_grid
from onnxtrim.toolkit.orders import CRITERIA
from onnxtrim.toolkit.sweep import SweepOptions, sweep


@click.command("sweep")
@MODEL
@click.option(
    "--data",
    required=True,
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Calibration data: arrays named as the model's inputs; labels are not used.",
)
@click.option(
    "--eval",
    "evaluation",
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Samples with labels (array 'labels'), for accuracy.",
)
@click.option(
    "--grid",
    type=click.Path(path_type=Path),
    help="File with pairs of thresholds, 'mean std' on each line, or a JSON list of pairs.",
)
@click.option(
    "--pair",
    "pairs",
    type=(float, float),
    multiple=True,
    metavar="MEAN STD",
    help="A pair of thresholds; repeatable.",
)
@click.option(
    "--budgets",
    metavar="SHARES",
    help="Shares of the parameters to remove, as 50%,74%,90%: candidates beside the thresholds'.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(tuple(CRITERIA)),
    help="Also remove the shares by this criterion, without a repair; repeatable.",
)
@click.option("--absolute", is_flag=True, help="Compare |mean|.")
@click.option(
    "--repair/--no-repair",
    default=True,
    show_default=True,
    help="Fold means into biases; fit the next layers for budgets.",
)
@click.option(
    "--max-drop",
    type=Points(),
    default=0.5,
    show_default=True,
    help="Accuracy that the marked candidate may lose, in percentage points.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the sweep."
)
@with_measuring
@with_json
def command(
    model: Path,
    data: str,
    evaluation: str | None,
    grid: Path | None,
    pairs: tuple[tuple[float, float], ...],
    budgets: str | None,
    baselines: tuple[str, ...],
    absolute: bool,
    repair: bool,
    max_drop: float,
    output: Path,
    as_json: bool,
    **measuring: Any,
) -> None:
    """Build and measure a grid of candidates of MODEL against the original.

    Statistics are gathered once. Candidates with identical kept units are built once. Results are
    appended as they are finished: the same command goes on after an interruption.

    \b
    Example:
      onnxtrim sweep model.onnx --data calib.npz --eval val.npz -o runs/first
      onnxtrim sweep model.onnx --data calib.npz --eval val.npz --budgets 50%,74%,90% -o runs/two
      onnxtrim report runs/first -o report.html
    """
    if baselines and not budgets:
        raise click.UsageError("--baseline goes with --budgets")
    if grid is not None and pairs:
        raise click.UsageError("give either --grid or --pair")
    shares = [Budget.parse("remove", text).value for text in budgets.split(",")] if budgets else []
    chosen: Any = pairs or (() if shares else DEFAULT_GRID)
    options = SweepOptions(
        grid=chosen if grid is None else read_grid(grid),
        budgets=shares,
        baselines=baselines,
        absolute=absolute,
        repair="mean" if repair else "none",
        max_drop=max_drop,
        settings=settings(**measuring),
    )
    with progress_bar() as report:
        run = sweep(model, data, output, evaluation=evaluation, options=options, progress=report)
    warn([f"{item.id}: {text}" for item in run.candidates for text in item.warnings])
    if as_json:
        print_json(sweep_json(run))
    else:
        print_run(run)
    say(f"models and results: {output}; next: onnxtrim report {output} -o report.html")
