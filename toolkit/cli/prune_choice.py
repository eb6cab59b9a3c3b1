"""What ``onnxtrim prune`` was asked for: a budget, thresholds, or a plan that was made before."""

from __future__ import annotations

from pathlib import Path

import click

from onnxtrim.bench.data import DataSource
from onnxtrim.toolkit.budget import Budget
from onnxtrim.toolkit.cli.common import progress_bar
from onnxtrim.toolkit.criteria import Threshold
from onnxtrim.toolkit.plan import Plan
from onnxtrim.toolkit.planner import look
from onnxtrim.toolkit.prepare import Prepared
from onnxtrim.toolkit.repair import MeanFolding, Repair
from onnxtrim.toolkit.statistics import Statistics, gather
from onnxtrim.toolkit.trim import BUDGET_REPAIRS, REPAIRS, budget_repair, require_repair


def budget_of(
    remove: str | None,
    macs: str | None,
    size: str | None,
    max_drop: float | None,
    max_divergence: float | None = None,
) -> Budget | None:
    """The budget that was asked for.

    Raises:
        InputError: It can't be read.
    """
    texts = {"remove": remove, "macs": macs, "size": size}
    numbers = {"max-drop": max_drop, "max-divergence": max_divergence}
    found = [Budget.parse(kind, text) for kind, text in texts.items() if text is not None]
    found += [Budget(kind, value) for kind, value in numbers.items() if value is not None]
    if len(found) > 1:
        raise click.UsageError(
            "give one of --remove, --macs, --size, --max-drop and --max-divergence"
        )
    return next(iter(found), None)


def mender_of(
    plan: Plan,
    prepared: Prepared,
    source: DataSource | None,
    loaded: Statistics | None,
    path: Path | None,
    repair: str | None,
) -> Repair | None:
    """The repair that fits a plan that was given, as far as there are data for it."""
    if repair == "none":
        return None
    if "budget" in plan.criterion:
        require_repair(repair, BUDGET_REPAIRS)
        if loaded is not None:
            raise click.UsageError("this plan was made for a budget: its repair needs --data")
        if source is None:
            return None
        with progress_bar() as report:
            return budget_repair(repair, look(prepared, source, report).solver)
    require_repair(repair, REPAIRS)
    statistics = statistics_of(prepared, source, loaded, path)
    return None if statistics is None else MeanFolding(statistics)


def thresholds_of(
    data: str | None,
    stats: Path | None,
    mean_below: float | None,
    std_below: float | None,
    absolute: bool,
) -> Threshold:
    """The thresholds that were asked for."""
    if (data is None) == (stats is None):
        raise click.UsageError("give either --data or --stats")
    if mean_below is None or std_below is None:
        raise click.UsageError(
            "give a budget (--remove, --macs, --size, --max-drop, --max-divergence), or"
            " --mean-below and --std-below, or a plan with --apply"
        )
    return Threshold(mean_below, std_below, absolute)


def statistics_of(
    prepared: Prepared, source: DataSource | None, loaded: Statistics | None, path: Path | None
) -> Statistics | None:
    """Statistics from the data, or those that were loaded."""
    if source is not None:
        with progress_bar() as report:
            return gather(prepared.analysis, source, prepared.sha256, progress=report)
    if loaded is not None:
        loaded.require(prepared.analysis, prepared.sha256, str(path))
    return loaded
