"""Many candidates from one set of statistics, each measured against the original; resumable.

Everything lies in one folder. ``results.jsonl`` is append-only: a line is written whole when its
candidate is finished, so a sweep that is killed goes on where it was, and what it leaves behind is
the same as without the interruption, apart from timings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxtrim.bench.compare import bench_model, compare
from onnxtrim.bench.data import DataSource, open_data
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import write_json
from onnxtrim.bench.machine import fingerprint
from onnxtrim.bench.results import metrics_to_json
from onnxtrim.bench.run_folder import (
    DISTRIBUTIONS_SCHEMA,
    RESULT_SCHEMA,
    SPEC_SCHEMA,
    Run,
    load_run,
)
from onnxtrim.bench.settings import Settings
from onnxtrim.bench.size import model_size
from onnxtrim.toolkit.apply import apply_plan
from onnxtrim.toolkit.budget import Budget
from onnxtrim.toolkit.criteria import Threshold
from onnxtrim.toolkit.graph_json import graph_json
from onnxtrim.toolkit.grid import DEFAULT_GRID, Point
from onnxtrim.toolkit.orders import CRITERIA, DEFAULT
from onnxtrim.toolkit.plan import Plan, make_plan
from onnxtrim.toolkit.planner import Planner
from onnxtrim.toolkit.prepare import Calibration, Prepared, prepare
from onnxtrim.toolkit.repair import MeanFolding, Repair
from onnxtrim.toolkit.statistics import Progress, Statistics, gather
from onnxtrim.toolkit.sweep_folder import append_line, opened, read_lines
from onnxtrim.toolkit.trim import REPAIRS, require_other, require_removals


@dataclass(frozen=True)
class SweepOptions:
    """What to try.

    Attributes:
        grid: Pairs (mean_below, std_below), one candidate each.
        budgets: Shares of the parameters to remove, one candidate each.
        baselines: Criteria that are tried at every budget, too, without a repair.
        absolute: Compare the absolute value of the mean.
        repair: ``"mean"`` (and for budgets sequential), or ``"none"``.
        max_drop: Accuracy that the chosen candidate may lose, in percentage points.
        batch: Calibration samples per run.
        settings: What to measure, and how.
    """

    grid: Sequence[tuple[float, float]] = DEFAULT_GRID
    budgets: Sequence[float] = ()
    baselines: Sequence[str] = ()
    absolute: bool = False
    repair: str = "mean"
    max_drop: float = 0.5
    batch: int = 256
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if not self.points:
            raise InputError("the grid is empty; give at least one pair of thresholds, or budget")
        if len({point.id for point in self.points}) < len(self.points):
            raise InputError("the grid holds a pair of thresholds, a budget or a baseline twice")
        for name in self.baselines:
            if name not in CRITERIA:
                raise InputError(f"baseline {name!r}: must be one of {', '.join(CRITERIA)}")
        if self.baselines and not self.budgets:
            raise InputError("baselines are tried at budgets; give some, as 50%,74%")
        if self.repair not in REPAIRS:
            raise InputError(f"repair {self.repair!r}: must be one of {', '.join(REPAIRS)}")
        for pair in self.grid:
            Threshold(*pair)
        for share in self.budgets:
            Budget("remove", share)

    @property
    def points(self) -> list[Point]:
        """One for each candidate."""
        budgets = [Point((share,)) for share in self.budgets]
        baselines = [Point((share,), name) for name in self.baselines for share in self.budgets]
        return [*(Point(pair) for pair in self.grid), *budgets, *baselines]


def sweep(
    model: str | os.PathLike[str],
    calibration: Calibration,
    output: str | os.PathLike[str],
    *,
    evaluation: Calibration | None = None,
    options: SweepOptions | None = None,
    progress: Progress | None = None,
    on_candidate: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Build and measure every candidate of a grid, or go on with a sweep that was interrupted.

    Args:
        model: The ONNX file.
        calibration: Unlabelled inputs for the statistics.
        output: The folder of the sweep; made if missing.
        evaluation: Labelled samples for accuracy; without them only latency and size are told.
        options: What to try.
        progress: Called with a word, how much is done, and the total if known.
        on_candidate: Called with each line as it is finished.

    Raises:
        InputError: The input can't be used, or the folder holds another sweep or is in use.
        NothingToRemoveError: Every unit is frozen, or above all thresholds of the grid, or a
            budget can't be met.
    """
    options = options or SweepOptions()
    prepared, data = prepare(model, calibration)
    assert data is not None  # there are calibration data
    labelled = None
    if evaluation is not None:
        labelled = open_data(evaluation, prepared.inputs, need_labels=True)
        require_other(labelled, data.sha256)
    if labelled is None:  # random inputs then have the sizes of the calibration data
        options = replace(options, settings=_sized(options.settings, prepared))
    spec = _spec(prepared, data, labelled, options)
    folder = Path(output)
    with opened(folder, spec):
        statistics = _statistics(folder, prepared, data, options, progress)
        _Sweep(folder, prepared, data, labelled, options, statistics).run(progress, on_candidate)
    return load_run(folder)


def _sized(settings: Settings, prepared: Prepared) -> Settings:
    """The settings with the shape of every input; a free first axis is the batch."""
    shapes: dict[str, int | Sequence[int]] = {}
    for spec in prepared.inputs:
        shape = list(prepared.feeds[0][spec.name].shape)
        if shape and not isinstance(spec.shape[0], int):
            shape[0] = settings.batch
        shapes[spec.name] = shape
    return replace(settings, sizes={**shapes, **settings.sizes})


class _Sweep:
    """The candidates of one grid."""

    def __init__(
        self,
        folder: Path,
        prepared: Prepared,
        data: DataSource,
        labelled: DataSource | None,
        options: SweepOptions,
        statistics: Statistics,
    ) -> None:
        self.folder = folder
        self.prepared = prepared
        self.data = data
        self.labelled = labelled
        self.options = options
        self.statistics = statistics
        self._planners: dict[str, Planner] = {}

    def run(
        self,
        progress: Progress | None,
        on_candidate: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        results = self.folder / "results.jsonl"
        done = {line["id"]: line for line in read_lines(results)}
        self._require_removals(done)
        with results.open("ab") as file:
            if "original" not in done:
                append_line(file, self._original(progress))
            total = len(self.options.points)
            for number, point in enumerate(self.options.points):
                if progress is not None:
                    progress("candidates", number, total)
                if point.id not in done:
                    done[point.id] = self._candidate(point, done, progress)
                    append_line(file, done[point.id])
                if on_candidate is not None:
                    on_candidate(done[point.id])
            if progress is not None:
                progress("candidates", total, total)

    def _planner(self, point: Point) -> Planner:
        criterion = point.baseline or DEFAULT
        if criterion not in self._planners:
            others = next(iter(self._planners.values()), None)
            self._planners[criterion] = Planner(
                self.prepared,
                self.data,
                criterion=criterion,
                seen=None if others is None else others.seen,
            )
        return self._planners[criterion]

    def _plan(self, point: Point) -> Plan:
        if point.is_budget:
            repaired = self.options.repair != "none" and not point.baseline
            budget = Budget("remove", point.values[0])
            return self._planner(point).plan(budget, repaired=repaired)
        mean_below, std_below = point.values
        criterion = Threshold(mean_below, std_below, self.options.absolute)
        return make_plan(self.prepared.analysis, self.statistics, criterion)

    def _require_removals(self, done: Mapping[str, Any]) -> None:
        """Refuse what can't be built before anything is measured."""
        points = self.options.points
        for point in points:
            if point.is_budget and point.id not in done:
                self._plan(point)
        plans = [self._plan(point) for point in points if not point.is_budget]
        if plans and not any(plan.removals for plan in plans):
            require_removals(self.prepared, plans[0], self.statistics)

    def _original(self, progress: Progress | None) -> dict[str, Any]:
        measured = bench_model(
            self.prepared.path,
            data=self.labelled,
            settings=self.options.settings,
            progress=progress,
        )
        return {
            "schema": RESULT_SCHEMA,
            "kind": "original",
            "id": "original",
            "model": str(self.prepared.path),
            "parameters": self.prepared.analysis.parameters,
            "macs": self.prepared.analysis.macs,
            "metrics": metrics_to_json(measured.metrics),
        }

    def _candidate(
        self,
        point: Point,
        done: Mapping[str, dict[str, Any]],
        progress: Progress | None,
    ) -> dict[str, Any]:
        plan = self._plan(point)
        head = {
            "schema": RESULT_SCHEMA,
            "kind": "candidate",
            "id": point.id,
            "settings": point.settings,
            "plan": plan.kept_hash(),
        }
        twins = (
            line
            for line in done.values()
            if line.get("plan") == head["plan"]
            and line["settings"].keys() == point.settings.keys()  # or the repair is another
        )
        twin = next(twins, None)
        if twin is not None:
            same = {key: value for key, value in twin.items() if key not in head}
            same["warnings"] = list(plan.warnings)
            return {**head, **same, "same_as": twin["same_as"] or twin["id"], "metrics": {}}
        return {**head, "same_as": None, **self._build(point, plan, progress)}

    def _build(self, point: Point, plan: Plan, progress: Progress | None) -> dict[str, Any]:
        repair: Repair | None = None
        if self.options.repair != "none" and not point.baseline:
            solver = self._planner(point).solver if point.is_budget else None
            repair = solver or MeanFolding(self.statistics)
        result = apply_plan(self.prepared, plan, repair, self.data)
        model = self.folder / "models" / f"{point.id}.onnx"
        plan.save(model.with_suffix(".plan.json"))
        result.save(model)
        measured = compare(
            self.prepared.path,
            model,
            data=self.labelled,
            settings=self.options.settings,
            progress=progress,
        )
        return {
            "model": f"models/{point.id}.onnx",
            **result.to_json(),
            "metrics": metrics_to_json(measured.metrics),
        }


def _spec(
    prepared: Prepared, data: DataSource, labelled: DataSource | None, options: SweepOptions
) -> dict[str, Any]:
    size = model_size(prepared.path)
    return {
        "schema": SPEC_SCHEMA,
        "model": {
            "path": str(prepared.path),
            "sha256": prepared.sha256,
            "file_bytes": size.file_bytes,
            "initializer_bytes": size.initializer_bytes,
            "parameters": prepared.analysis.parameters,
            "macs": prepared.analysis.macs,
        },
        "data": _about(data),
        "eval": None if labelled is None else _about(labelled),
        "criterion": {"name": "threshold", "absolute": options.absolute},
        "repair": options.repair,
        "grid": [point.to_json() for point in options.points],
        "max_drop": options.max_drop,
        "bench": options.settings.to_json(),
        "machine": fingerprint(),
    }


def _about(data: DataSource) -> dict[str, Any]:
    return {"name": data.name, "sha256": data.sha256, "samples": data.samples}


def _statistics(
    folder: Path,
    prepared: Prepared,
    data: DataSource,
    options: SweepOptions,
    progress: Progress | None,
) -> Statistics:
    path = folder / "statistics.npz"
    if path.exists():
        statistics = Statistics.load(path)
        statistics.require(prepared.analysis, prepared.sha256, str(path))
    else:
        statistics = gather(
            prepared.analysis, data, prepared.sha256, batch=options.batch, progress=progress
        )
        statistics.save(path)
    write_json(folder / "distributions.json", distributions(prepared, statistics))
    write_json(folder / "graph.json", graph_json(prepared))
    return statistics


def distributions(prepared: Prepared, statistics: Statistics) -> dict[str, Any]:
    """Means and standard deviations of all units, for the report."""
    layers = []
    for group in prepared.analysis.groups:
        refs = [ref for ref in group.consumer_inputs() if ref in group.slices]
        for (tensor, _), moments in zip(refs, statistics.of(group), strict=True):
            layers.append(
                {
                    "name": group.name,
                    "tensor": tensor,
                    "units": group.units,
                    "mean": [round(float(value), 6) for value in moments.mean],
                    "std": [round(float(value), 6) for value in moments.std],
                }
            )
    return {"schema": DISTRIBUTIONS_SCHEMA, "layers": layers}
