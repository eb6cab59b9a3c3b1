"""The one-call API: a model and calibration data in, a smaller model out."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxtrim.bench.accuracy import compare_accuracy
from onnxtrim.bench.data import DataSource, open_data
from onnxtrim.bench.errors import InputError, NothingToRemoveError
from onnxtrim.export.model_io import save_model
from onnxtrim.toolkit.apply import TrimResult, apply_plan
from onnxtrim.toolkit.budget import Budget
from onnxtrim.toolkit.criteria import Threshold
from onnxtrim.toolkit.least_squares import LeastSquares
from onnxtrim.toolkit.limits import Limits
from onnxtrim.toolkit.orders import DEFAULT
from onnxtrim.toolkit.plan import Plan, make_plan
from onnxtrim.toolkit.planner import Planner
from onnxtrim.toolkit.prepare import Calibration, Prepared, prepare
from onnxtrim.toolkit.repair import MeanFolding, Repair
from onnxtrim.toolkit.statistics import Progress, Statistics, gather

if TYPE_CHECKING:
    import torch

REPAIRS = ("mean", "none")
BUDGET_REPAIRS = ("sequential", "channel", "none")


def trim(
    model: str | os.PathLike[str] | torch.nn.Module,
    calibration: Calibration,
    *,
    mean_below: float | None = None,
    std_below: float | None = None,
    remove: float | None = None,
    macs: float | None = None,
    size: float | None = None,
    max_drop: float | None = None,
    max_divergence: float | None = None,
    evaluation: Calibration | None = None,
    criterion: str = DEFAULT,
    absolute: bool = False,
    repair: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    align: int | str = 1,
    min_units: int = 1,
    example_inputs: tuple[Any, ...] | None = None,
    batch: int = 256,
    progress: Progress | None = None,
) -> TrimResult:
    """Remove units, to meet a budget or below two thresholds.

    Give one of ``remove``, ``macs``, ``size``, ``max_drop`` and ``max_divergence``, or both
    thresholds. A budget takes
    the units that the next layers can make up for, as many from each group as the outputs bear;
    see :mod:`.planner`.

    Args:
        model: An ONNX file, or a torch module (then ``example_inputs`` are needed).
        calibration: Unlabelled inputs: arrays by input name, an ``.npz`` file, a folder of such
            files, or ``"package.module:function"``.
        mean_below: Threshold on a unit's mean, after the activation.
        std_below: Threshold on its standard deviation.
        remove: Share of the parameters that leaves, between 0 and 1.
        macs: Share of the multiply-accumulates that stays.
        size: Bytes that the weights may have.
        max_drop: Percentage points of accuracy that may be lost on ``evaluation``.
        max_divergence: Squared difference of the outputs, over the variance of the original's,
            that is allowed on calibration samples that were held back.
        evaluation: Validation samples with ``labels``, for ``max_drop``.
        criterion: In which order units leave for a budget: ``"reconstruction"``,
            ``"output-error"``, ``"variance"``, ``"apoz"``, ``"magnitude"``, ``"random"`` or
            ``"package.module:function"``, see :mod:`.orders`.
        absolute: Compare the absolute value of the mean.
        repair: ``"mean"`` folds the means of what leaves into the next bias, ``"channel"`` solves
            the next layers anew by least squares, ``"sequential"`` also fits them one after
            another to the original's outputs, ``"none"`` leaves them. Without it, sequential for
            a budget and mean for thresholds (those take only mean and none).
        include: Globs; only groups that are called so, or whose producing nodes or parameters
            are, lose units.
        exclude: Globs; groups that are called so stay whole.
        align: Every axis of a weight keeps a multiple of this many positions, or all; ``"auto"``
            aligns convolutions, to 16 where the CPU has AVX-512 and to 8 elsewhere.
        min_units: At least so many units of every group stay.
        example_inputs: Inputs with which a torch module is exported.
        batch: Calibration samples per run, for the thresholds.
        progress: Called with a word, the samples done and their number if known.

    Raises:
        InputError: The model, the data or an option can't be used.
        NothingToRemoveError: No unit is below the thresholds, the budget can't be met, or
            everything is frozen.
        SelfCheckError: The pruned model is not the masked original (a bug).
    """
    budget_of = {
        "remove": remove,
        "macs": macs,
        "size": size,
        "max-drop": max_drop,
        "max-divergence": max_divergence,
    }
    budgets = [Budget(kind, float(value)) for kind, value in budget_of.items() if value is not None]
    limits = Limits.make(include, exclude, align, min_units)
    if mean_below is None and std_below is None and len(budgets) == 1:
        require_repair(repair, BUDGET_REPAIRS)
        if max_drop is not None and evaluation is None:
            raise InputError("max_drop needs evaluation: validation samples with labels")
        with _as_file(model, example_inputs) as path:
            prepared, data = prepare(path, calibration)
            assert data is not None  # there are calibration data
            labelled = None
            if evaluation is not None:
                labelled = open_data(evaluation, prepared.inputs, need_labels=True)
                require_other(labelled, data.sha256)
            planner = Planner(prepared, data, limits, criterion, progress)
            mender = budget_repair(repair, planner.solver)
            plan = plan_to(planner, prepared, budgets[0], labelled, mender)
            return apply_plan(prepared, plan, mender, data)
    if mean_below is None or std_below is None or budgets:
        raise InputError(
            "give both mean_below and std_below, or one of remove, macs, size, max_drop and"
            " max_divergence"
        )
    require_repair(repair, REPAIRS)
    rule = Threshold(mean_below, std_below, absolute)
    with _as_file(model, example_inputs) as path:
        prepared, data = prepare(path, calibration)
        assert data is not None  # there are calibration data
        statistics = gather(
            prepared.analysis, data, prepared.sha256, batch=batch, progress=progress
        )
        plan = make_plan(prepared.analysis, statistics, rule, limits)
        require_removals(prepared, plan, statistics)
        folding = None if repair == "none" else MeanFolding(statistics)
        return apply_plan(prepared, plan, folding, data)


def plan_to(
    planner: Planner,
    prepared: Prepared,
    budget: Budget,
    labelled: DataSource | None,
    repair: Repair | None,
) -> Plan:
    """The plan that meets a budget; ``labelled`` is for one of accuracy.

    Raises:
        NothingToRemoveError: It can't be met, or is met already.
    """
    if budget.kind == "max-divergence":
        divergence = planner.divergence
        return planner.largest(
            lambda model: divergence.of(model) <= budget.value, repair, budget.to_json()
        )
    if budget.kind != "max-drop":
        return planner.plan(budget, repaired=repair is not None)
    assert labelled is not None  # the caller asked for it
    return plan_within_drop(planner, prepared, labelled, budget.value, repair)


def plan_within_drop(
    planner: Planner,
    prepared: Prepared,
    labelled: DataSource,
    points: float,
    repair: Repair | None,
) -> Plan:
    """The plan that removes most and costs at most some accuracy on validation data.

    Args:
        planner: The global order, of which the longest prefix is searched.
        prepared: The analysed model.
        labelled: Validation samples with labels; not those that are reported on later.
        points: Percentage points of accuracy that may be lost.
        repair: The repair that the model will get.

    Raises:
        InputError: The validation samples are the calibration data.
        NothingToRemoveError: No unit can leave.
    """
    require_other(labelled, planner.data_sha256)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.onnx"

        def accepts(model: ir.Model) -> bool:
            save_model(model, small, check=False)
            metrics, _ = compare_accuracy(prepared.path, small, labelled)
            return bool(metrics["accuracy.top1.delta"].value >= -points)

        about = {"kind": "max-drop", "value": points, "validation_sha256": labelled.sha256}
        return planner.largest(accepts, repair, about)


def require_other(labelled: DataSource, calibration_sha256: str) -> None:
    """Check that validation data are not the calibration data, by their hashes.

    Raises:
        InputError: They are.
    """
    if labelled.sha256 in calibration_sha256.split("+"):
        raise InputError(
            f"{labelled.name}: these samples are the calibration data; give others to judge on"
        )


def require_repair(repair: str | None, known: Sequence[str]) -> None:
    """Check the name of a repair.

    Raises:
        InputError: It is not one of those known.
    """
    if repair is not None and repair not in known:
        raise InputError(f"repair {repair!r}: must be one of {', '.join(known)}")


def budget_repair(repair: str | None, solver: LeastSquares) -> Repair | None:
    """The repair of that name that goes with a plan for a budget."""
    if repair == "none":
        return None
    return replace(solver, batches=()) if repair == "channel" else solver


@contextlib.contextmanager
def _as_file(
    model: str | os.PathLike[str] | torch.nn.Module, example_inputs: tuple[Any, ...] | None
) -> Iterator[str | os.PathLike[str]]:
    """A file as it is; a torch module is exported to a temporary one."""
    if isinstance(model, str | os.PathLike):
        yield model
        return
    from onnxtrim.export.from_torch import export_module

    if example_inputs is None:
        raise InputError("a torch module needs example_inputs=(tensor, ...) for its export")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.onnx"
        export_module(model, example_inputs, path)
        yield path


def require_removals(prepared: Prepared, plan: Plan, statistics: Statistics) -> None:
    """Say why nothing would be removed, if so.

    Raises:
        NothingToRemoveError: The plan is empty.
    """
    if plan.removals:
        return
    groups = prepared.analysis.groups
    if not groups:
        reasons = dict.fromkeys(f"{axis.name}: {axis.reason}" for axis in prepared.analysis.frozen)
        shown = "; ".join(list(reasons)[:5]) or "the model has no weights"
        raise NothingToRemoveError(f"{prepared.path}: nothing can be removed ({shown})")
    absolute = bool(plan.criterion.get("absolute"))
    means, stds = [], []
    for group in prepared.analysis.all_groups():
        if plan.limits.allows(prepared.analysis, group):
            for item in statistics.of(group):
                means.append(float((np.abs(item.mean) if absolute else item.mean).min()))
                stds.append(float(item.std.min()))
    if not means:
        raise NothingToRemoveError(f"{prepared.path}: --include and --exclude leave no group")
    aligned = ", or lower --align" if plan.limits.align > 1 else ""
    raise NothingToRemoveError(
        f"{prepared.path}: no unit is below both thresholds"
        f" (smallest mean {min(means):.3g}, smallest standard deviation {min(stds):.3g});"
        f" raise --mean-below or --std-below{aligned}"
    )
