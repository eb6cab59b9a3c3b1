"""Read the folder of a sweep: what was asked, what was measured so far, and what to choose."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import read_json
from onnxtrim.bench.json_reader import JsonReader, parse_line
from onnxtrim.bench.results import Metric, Metrics

SPEC_SCHEMA = "onnxtrim.sweep-spec/1"
RESULT_SCHEMA = "onnxtrim.result/1"
DISTRIBUTIONS_SCHEMA = "onnxtrim.distributions/1"


@dataclass(frozen=True)
class Change:
    """A count in the original and in the candidate."""

    before: int
    after: int


@dataclass(frozen=True)
class GroupWidth:
    """How many units a group had and has."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Spec:
    """What the sweep was asked to do (``sweep.json``).

    Attributes:
        model: ``path``, ``sha256``, ``file_bytes``, ``parameters`` and more of the original.
        data: ``name``, ``sha256`` and ``samples`` of the calibration set.
        eval: The same of the labelled set, or None.
        criterion: ``name`` and its options.
        repair: ``"mean"`` or ``"none"``.
        grid: One pair (mean_below, std_below), or one share to remove, per candidate; with the
            name of the criterion for a baseline.
        max_drop: Accuracy that may be lost, in percentage points.
        bench: Options of the measurement.
        machine: Fingerprint of the machine and versions.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    eval: Mapping[str, Any] | None
    criterion: Mapping[str, Any]
    repair: str
    grid: tuple[tuple[float | str, ...], ...]
    max_drop: float
    bench: Mapping[str, Any]
    machine: Mapping[str, Any]


@dataclass(frozen=True)
class Original:
    """The model that was trimmed, measured alone."""

    model: str
    parameters: int
    macs: int | None
    metrics: Metrics


@dataclass(frozen=True)
class Candidate:
    """A pruned model with its measurements; the fields are the keys of its line."""

    id: str
    settings: Mapping[str, Any]
    same_as: str | None
    model: str
    plan: str
    parameters: Change
    bytes: Change | None
    macs: Change | None
    removed: float
    groups: tuple[GroupWidth, ...]
    self_check: Mapping[str, Any]
    warnings: tuple[str, ...]
    metrics: Metrics

    def measure(self, name: str) -> Metric | None:
        """A number by its name: ``"parameters"``, ``"bytes"``, ``"macs"`` or a metric's name."""
        counts = {"parameters": self.parameters, "bytes": self.bytes, "macs": self.macs}
        if name in counts:
            change = counts[name]
            return None if change is None else Metric.exact(change.after, name)
        return self.metrics.get(name)


@dataclass(frozen=True)
class Distribution:
    """Statistics of one layer's units, after the activation; ``mean`` and ``std`` are (units,)."""

    name: str
    tensor: str
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A sweep as far as it got."""

    folder: Path
    spec: Spec
    original: Original
    candidates: tuple[Candidate, ...]
    distributions: tuple[Distribution, ...]

    @property
    def finished(self) -> bool:
        """Whether every point of the grid is measured."""
        return len(self.candidates) >= len(self.spec.grid)

    def candidate(self, candidate_id: str) -> Candidate:
        """The candidate of that id.

        Raises:
            InputError: There is none.
        """
        for candidate in self.candidates:
            if candidate.id == candidate_id:
                return candidate
        raise InputError(f"{self.folder}: has no candidate {candidate_id!r}")

    def model_path(self, candidate: Candidate) -> Path:
        """Where the candidate's file lies."""
        return self.folder / candidate.model


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Read a sweep's folder, finished or not.

    A torn last line of ``results.jsonl`` (the sweep was killed while writing) is ignored.
    A candidate that repeats an earlier one and carries no metrics gets that one's.

    Raises:
        InputError: No such folder, no sweep in it, a broken file, or nothing measured yet.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder that 'onnxtrim sweep -o' wrote")
    if not (root / "sweep.json").is_file():
        raise InputError(f"{root}: has no sweep.json; give the folder that 'onnxtrim sweep' wrote")
    spec = _spec(root / "sweep.json")
    original, candidates = _results(root / "results.jsonl")
    if original is None or not candidates:
        raise InputError(f"{root}: nothing measured yet; run 'onnxtrim sweep' to go on with it")
    return Run(root, spec, original, candidates, _distributions(root / "distributions.json"))


def frontier(
    candidates: Sequence[Candidate],
    smaller: Sequence[str] = ("parameters",),
    larger: Sequence[str] = ("accuracy.top1",),
) -> list[str]:
    """Ids of the candidates that no other candidate dominates, in their order.

    A candidate dominates another when it is at least as good on every number and better on one.
    Repetitions of an earlier candidate, and candidates that lack a number, are left out.

    Args:
        candidates: What to compare.
        smaller: Names (see :meth:`Candidate.measure`) of which less is better.
        larger: Names of which more is better.
    """
    ids: list[str] = []
    rows: list[tuple[float, ...]] = []
    for candidate in _firsts(candidates):
        costs = [candidate.measure(name) for name in smaller]
        gains = [candidate.measure(name) for name in larger]
        if None not in costs and None not in gains:
            ids.append(candidate.id)
            rows.append((*(m.value for m in costs if m), *(-m.value for m in gains if m)))
    table = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(smaller) + len(larger))
    best = np.zeros(len(rows), dtype=bool)
    front, count = np.empty_like(table), 0
    for place in np.lexsort(table.T[::-1]):  # only an earlier row can dominate a later one
        row, known = table[place], front[:count]
        # Equal rows lie side by side.
        if not (known <= row).all(axis=1).any() or (known[-1] == row).all():
            front[count], best[place] = row, True
            count += 1
    return [name for name, kept in zip(ids, best) if kept]


def choose(candidates: Sequence[Candidate], max_drop_points: float) -> str | None:
    """The smallest candidate that loses at most so many percentage points of accuracy.

    The estimate decides, not its interval. A repetition counts as the candidate it repeats.
    Of equally small candidates the more accurate one is taken, then the earlier.

    Returns:
        Its id, or None when no candidate is within the budget (or accuracy was not measured).
    """
    best: tuple[int, float] | None = None
    chosen = None
    for candidate in _firsts(candidates):
        delta = candidate.metrics.get("accuracy.top1.delta")
        if delta is None or delta.value < -max_drop_points:
            continue
        key = (candidate.parameters.after, -delta.value)
        if best is None or key < best:
            best, chosen = key, candidate.id
    return chosen


def _firsts(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates without those that repeat another one of the list."""
    ids = {candidate.id for candidate in candidates}
    return [candidate for candidate in candidates if candidate.same_as not in ids]


# --- reading, with the place in every message ---------------------------------------------------


def _spec(path: Path) -> Spec:
    read = JsonReader(read_json(path, SPEC_SCHEMA), str(path))
    try:
        grid = tuple(
            tuple(x if isinstance(x, str) else float(x) for x in point)
            for point in read.get("grid", list)
        )
    except (TypeError, ValueError):
        read.fail("has a 'grid' that is not a list of lists of numbers")
    return Spec(
        model=read.get("model", dict),
        data=read.get("data", dict),
        eval=read.get("eval", dict, None),
        criterion=read.get("criterion", dict, {}),
        repair=str(read.get("repair", str, "none")),
        grid=grid,
        max_drop=float(read.get("max_drop", float)),
        bench=read.get("bench", dict, {}),
        machine=read.get("machine", dict, {}),
    )


def _results(path: Path) -> tuple[Original | None, tuple[Candidate, ...]]:
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    original: Original | None = None
    candidates: dict[str, Candidate] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{path}: line {number}"
        try:
            record = parse_line(line) if line.strip() else None
        except ValueError as error:
            if number == len(lines):  # no newline after it: torn while being written
                break
            raise InputError(f"{where} is broken ({error}); remove it and resume") from error
        if record is None:
            continue
        read = JsonReader(record, where)
        if read.get("schema", str) != RESULT_SCHEMA:
            raise InputError(f"{where} has another schema than {RESULT_SCHEMA!r}")
        if read.get("kind", str) == "original":
            original = _original(read)
            continue
        candidate = _candidate(read, candidates)
        if candidate.id in candidates:
            raise InputError(f"{where} repeats the id {candidate.id!r}; remove one of them")
        candidates[candidate.id] = candidate
    return original, tuple(candidates.values())


def _original(read: JsonReader) -> Original:
    return Original(
        model=read.get("model", str),
        parameters=int(read.get("parameters", int)),
        macs=read.get("macs", int, None),
        metrics=_metrics(read),
    )


def _candidate(read: JsonReader, earlier: Mapping[str, Candidate]) -> Candidate:
    same_as = read.get("same_as", str, None)
    metrics = _metrics(read)
    if not metrics and same_as in earlier:
        metrics = earlier[same_as].metrics
    groups = [JsonReader(group, f"{read.where}: groups") for group in read.get("groups", list, [])]
    parameters = _change(read, "parameters")
    if parameters is None:
        read.fail("has no 'parameters'")
    return Candidate(
        id=read.get("id", str),
        settings=read.get("settings", dict, {}),
        same_as=same_as,
        model=read.get("model", str, ""),
        plan=read.get("plan", str, ""),
        parameters=parameters,
        bytes=_change(read, "bytes"),
        macs=_change(read, "macs"),
        removed=float(read.get("removed", float)),
        groups=tuple(
            GroupWidth(g.get("name", str), int(g.get("before", int)), int(g.get("after", int)))
            for g in groups
        ),
        self_check=read.get("self_check", dict, {}) or {},
        warnings=tuple(str(text) for text in read.get("warnings", list, [])),
        metrics=metrics,
    )


def _change(read: JsonReader, key: str) -> Change | None:
    value = read.get(key, dict, None)
    if value is None:
        return None
    inner = JsonReader(value, f"{read.where}: {key}")
    return Change(int(inner.get("before", int)), int(inner.get("after", int)))


def _metrics(read: JsonReader) -> Metrics:
    metrics: Metrics = {}
    for name, value in read.get("metrics", dict, {}).items():
        inner = JsonReader(value, f"{read.where}: metric {name!r}")
        value, low, high = (float(inner.get(key, float)) for key in ("value", "low", "high"))
        metrics[name] = Metric(value, low, high, inner.get("unit", str))
    return metrics


def _distributions(path: Path) -> tuple[Distribution, ...]:
    """The layers of ``distributions.json``; none when the file is not there yet."""
    if not path.exists():
        return ()
    layers = []
    for record in JsonReader(read_json(path, DISTRIBUTIONS_SCHEMA), str(path)).get("layers", list):
        read = JsonReader(record, f"{path}: layers")
        try:
            mean, std = (np.asarray(read.get(k, list), np.float64) for k in ("mean", "std"))
        except (TypeError, ValueError):
            read.fail("has a 'mean' or 'std' that is not a list of numbers")
        if mean.ndim != 1 or mean.shape != std.shape or not np.all(np.isfinite([mean, std])):
            read.fail("has a 'mean' and 'std' that are not finite or not of one length")
        layers.append(Distribution(read.get("name", str), read.get("tensor", str, ""), mean, std))
    return tuple(layers)
