"""``onnxtrim prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxtrim.bench.data import open_data
from onnxtrim.toolkit.apply import apply_plan
from onnxtrim.toolkit.cli.common import (
    MODEL,
    Points,
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
from onnxtrim.toolkit.cli.prune_choice import (
    budget_of,
    mender_of,
    statistics_of,
    thresholds_of,
)
from onnxtrim.toolkit.limits import Limits
from onnxtrim.toolkit.orders import CRITERIA, DEFAULT
from onnxtrim.toolkit.plan import Plan, make_plan
from onnxtrim.toolkit.planner import Planner
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.repair import MeanFolding, Repair
from onnxtrim.toolkit.statistics import Statistics
from onnxtrim.toolkit.trim import (
    BUDGET_REPAIRS,
    REPAIRS,
    budget_repair,
    plan_to,
    require_other,
    require_removals,
    require_repair,
)


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
    help="Statistics that 'onnxtrim stats' gathered: instead of --data for thresholds, beside it"
    " for a budget, which then runs only the beginning of the data.",
)
@click.option("--remove", metavar="SHARE", help="Remove this share of the parameters, as 70%.")
@click.option("--macs", metavar="SHARE", help="Keep this share of the multiply-accumulates.")
@click.option("--size", metavar="BYTES", help="Let the weights have this size, as 2MB.")
@click.option(
    "--criterion",
    default=DEFAULT,
    show_default=True,
    metavar="NAME",
    help=f"In which order units leave for a budget: {DEFAULT}, {', '.join(CRITERIA)}, or"
    " package.module:function.",
)
@click.option(
    "--max-drop",
    type=Points(),
    metavar="POINTS",
    help="Remove as much as costs at most so many percentage points of accuracy on --eval.",
)
@click.option(
    "--eval",
    "evaluation",
    metavar="NPZ|FOLDER|MODULE:FUNCTION",
    help="Validation samples with labels, for --max-drop; not the data that you report on.",
)
@click.option(
    "--max-divergence",
    type=click.FloatRange(min=0),
    metavar="NUMBER",
    help="Remove as much as moves the outputs at most so far: squared difference over variance.",
)
@click.option("--mean-below", type=float, help="Threshold on a unit's mean.")
@click.option("--std-below", type=float, help="Threshold on a unit's standard deviation.")
@click.option("--absolute", is_flag=True, help="Compare |mean| (for activations that go negative).")
@click.option(
    "--repair",
    type=click.Choice(["sequential", "channel", "mean", "none"]),
    help="What makes up for the units that leave: the next layers fitted to the original's outputs"
    " (for a budget), solved anew by least squares, the mean folded into the next bias (for"
    " thresholds), or nothing.",
)
@click.option("--no-repair", is_flag=True, help="The same as --repair none: the published rule.")
@click.option(
    "--include",
    multiple=True,
    metavar="GLOB",
    help="Prune only groups that are called so, or whose producing nodes or parameters are.",
)
@click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Leave groups that are called so whole."
)
@click.option(
    "--align",
    default="1",
    show_default=True,
    metavar="NUMBER|auto",
    help="Keep a multiple of this many positions on every axis of a weight; auto: of convolutions,"
    " 16 where the CPU has AVX-512 and 8 elsewhere.",
)
@click.option(
    "--min-units",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Leave at least so many units in every group.",
)
@click.option("--plan", type=click.Path(path_type=Path), help="Also write the plan here (JSON).")
@click.option("--plan-only", is_flag=True, help="Write the plan to --output, and no model.")
@click.option(
    "--apply",
    "applied",
    type=click.Path(path_type=Path),
    metavar="PLAN",
    help="Remove what this plan says; --data or --stats are then only for the repair.",
)
@click.option(
    "--check",
    type=click.Choice(["deep", "outputs"]),
    default="deep",
    show_default=True,
    help="What the self-check compares: every inner tensor, or the outputs (for huge models).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Model to write, or plan with --plan-only.",
)
@with_shape
@with_json
def command(
    model: Path,
    data: str | None,
    stats: Path | None,
    remove: str | None,
    macs: str | None,
    size: str | None,
    criterion: str,
    max_drop: float | None,
    max_divergence: float | None,
    evaluation: str | None,
    mean_below: float | None,
    std_below: float | None,
    absolute: bool,
    repair: str | None,
    no_repair: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    align: str,
    min_units: int,
    plan: Path | None,
    plan_only: bool,
    applied: Path | None,
    check: str,
    output: Path,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Remove units of MODEL, to meet a budget or below two thresholds.

    A budget (--remove, --macs, --size, --max-drop, --max-divergence) takes the units that the next
    layers can make up for, as many from each group as the model's outputs bear, and repairs what
    reads them.
    Thresholds remove the units whose mean and standard deviation after the activation are below.

    The result has smaller tensors, not masks, and is written only after it was shown to compute
    the same as the original with those units masked, on every inner tensor, and loads in ONNX
    Runtime.

    \b
    Example:
      onnxtrim prune model.onnx --data calib.npz --remove 70% -o small.onnx
      onnxtrim prune model.onnx --data calib.npz --max-drop 0.5 --eval val.npz -o small.onnx
      onnxtrim prune model.onnx --data calib.npz --mean-below 0.1 --std-below 0.4 -o small.onnx
      onnxtrim compare model.onnx small.onnx --eval test.npz

    \b
    A plan first, to look at or to apply on another machine:
      onnxtrim prune model.onnx --stats s.npz --mean-below 0.1 --std-below 0.4 \\
        --plan-only -o plan.json
      onnxtrim prune model.onnx --apply plan.json -o small.onnx
    """
    if no_repair:
        if repair is not None:
            raise click.UsageError("give --repair or --no-repair, not both")
        repair = "none"
    budget = budget_of(remove, macs, size, max_drop, max_divergence)
    if (max_drop is None) != (evaluation is None):
        raise click.UsageError("--max-drop and --eval go together")
    thresholds = mean_below, std_below
    limits = Limits.make(include, exclude, align, min_units)
    wanted = None
    if applied is not None:
        if budget is not None or thresholds != (None, None) or limits != Limits() or plan_only:
            raise click.UsageError(
                "--apply takes everything from the plan: leave the criterion out"
            )
        if data is not None and stats is not None:
            raise click.UsageError("give --data or --stats, not both")
    elif budget is None and criterion != DEFAULT:
        raise click.UsageError("--criterion goes with a budget")
    elif budget is not None:
        if thresholds != (None, None) or data is None:
            raise click.UsageError("a budget goes with --data, and without thresholds")
        require_repair(repair, BUDGET_REPAIRS)
    else:
        wanted = thresholds_of(data, stats, *thresholds, absolute)
        require_repair(repair, REPAIRS)
    files = (Path(name) for name in (data, evaluation) if name is not None)
    inputs = (model, stats, applied, *files)
    check_output(output, *inputs)
    check_output(plan, *inputs, output)
    loaded = None if stats is None else Statistics.load(stats)
    given = None if applied is None else Plan.load(applied)
    known = given or loaded
    sizes = {**(known.inputs if known is not None else {}), **parse_shapes(shapes)}
    prepared, source = prepare(model, data, sizes=sizes)
    mender: Repair | None
    if budget is not None:
        assert source is not None  # it was asked for
        labelled = None
        if evaluation is not None:
            labelled = open_data(evaluation, prepared.inputs, need_labels=True)
            require_other(labelled, source.sha256)
        with progress_bar() as report:
            if loaded is not None:
                loaded.require(prepared.analysis, prepared.sha256, str(stats))
            planner = Planner(prepared, source, limits, criterion, report, loaded)
            mender = budget_repair(repair, planner.solver)
            chosen = plan_to(planner, prepared, budget, labelled, mender)
    elif given is not None:
        chosen = given
        chosen.require(prepared.analysis, prepared.sha256, str(applied))
        mender = mender_of(chosen, prepared, source, loaded, stats, repair)
        if mender is None and repair != "none":
            say("note: nothing is repaired; give --data or --stats for that")
    else:
        assert wanted is not None  # no budget, no plan
        statistics = statistics_of(prepared, source, loaded, stats)
        assert statistics is not None  # there are data or statistics
        chosen = make_plan(prepared.analysis, statistics, wanted, limits)
        require_removals(prepared, chosen, statistics)
        mender = None if repair == "none" else MeanFolding(statistics)
    if plan_only:
        chosen.save(output)
        _report_plan(chosen, model, output, as_json)
        return
    result = apply_plan(prepared, chosen, mender, source, deep=check == "deep")
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


def _report_plan(plan: Plan, model: Path, output: Path, as_json: bool) -> None:
    warn(plan.warnings)
    if as_json:
        print_json({**plan.to_json(), "output": str(output)})
    else:
        rows = [
            [removal.group, f"{removal.units:,}", f"{removal.units - len(removal.remove):,}"]
            for removal in plan.removals
        ]
        out().print(table("Plan", ["group", "units", "stay"], rows))
    say(f"written: {output}; next: onnxtrim prune {model} --apply {output} -o small.onnx")


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
    if check["effect"] == 0:
        console.print(
            "the removal moved no output that the self-check saw, so it proves little;"
            " give real inputs with --data"
        )
    if value["divergence"] is not None:
        console.print(f"divergence of the outputs on calibration data: {value['divergence']:.3g}")


def _share(change: dict[str, int]) -> str:
    return f"{1 - change['after'] / change['before']:.1%}" if change["before"] else ""
