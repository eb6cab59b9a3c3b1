"""Prune random graphs out of all operators and check every one; prints a table of what happened.

``python benchmarks/random_graphs.py`` grows 10,000 models (``tests/random_graphs.py``), removes
units at random and checks each result as the tests do. Counts are written into
``benchmarks/results/random_graphs.json`` as it goes on, so that a run that was stopped continues
where it was; ``--start`` begins elsewhere. The model of a failure goes into ``--failures``, and
``--count 1 --start N`` runs graph N again, without a result file.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnxtrim.bench.files import read_json, write_json
from onnxtrim.toolkit.graph.rules import RULES
from tests.random_check import check_model
from tests.random_graphs import NOT_DRAWN, RandomModel, random_model

SCHEMA = "onnxtrim.random-graphs/1"
RESULTS = Path(__file__).parent / "results" / "random_graphs.json"
EVERY = 100  # graphs between two writes
COUNTS = """graphs; with groups; with inner groups; with an effect on the outputs; groups;
units; units removed""".replace("\n", " ").split("; ")


class Record:
    """What a run has seen; continues what a file says.

    Args:
        seed: Of the run.
        start: Number of the first graph.
        path: Where the counts are written; ``None`` for nowhere.
    """

    def __init__(self, seed: int, start: int, path: Path | None) -> None:
        self.seed, self.first, self.next, self.path = seed, start, start, path
        self.counts = Counter(dict.fromkeys(COUNTS, 0))
        self.operators: Counter[str] = Counter()
        self.failures: dict[str, list[int]] = {}
        self.seconds = 0.0
        if path is not None and path.exists():
            value = read_json(path, SCHEMA)
            if (value["seed"], value["start"]) == (seed, start):
                self._continue(value)

    def _continue(self, value: dict[str, Any]) -> None:
        self.next, self.seconds = int(value["next"]), float(value["seconds"])
        self.counts.update(value["counts"])
        self.operators.update(value["operators"])
        self.failures = {kind: list(found) for kind, found in value["failures"].items()}

    def write(self) -> None:
        """Save the counts so far."""
        if self.path is None:
            return
        versions = {"onnx": onnx.__version__, "onnxruntime": ort.__version__}
        versions |= {"numpy": np.__version__, "python": platform.python_version()}
        self.path.parent.mkdir(exist_ok=True)
        write_json(
            self.path,
            {
                "schema": SCHEMA,
                "seed": self.seed,
                "start": self.first,
                "next": self.next,
                "seconds": round(self.seconds, 1),
                "versions": versions,
                "counts": dict(self.counts),
                "failures": self.failures,
                "operators": dict(sorted(self.operators.items())),
            },
        )

    def table(self) -> Table:
        """What was seen, for people."""
        table = Table("what", "how many", title=f"random graphs, seed {self.seed}")
        for name, count in self.counts.items():
            table.add_row(name, f"{count:,}")
        covered = sum(name in self.operators for name in RULES)
        table.add_row("operators of the rule table", f"{covered} of {len(RULES)}")
        table.add_row("CPU seconds", f"{self.seconds:,.0f}")
        for kind, found in sorted(self.failures.items()):
            table.add_row(f"failed: {kind}", f"{len(found)} ({', '.join(map(str, found[:5]))})")
        return table


def grow(seed: int, number: int) -> tuple[RandomModel, Random]:
    """A graph of a run, and the generator for what leaves it."""
    rng = Random(f"{seed}/{number}")
    return random_model(rng), rng


def try_graph(record: Record, number: int, folder: Path, failures: Path) -> None:
    """Grow a graph, prune and check it, and count."""
    model, rng = grow(record.seed, number)
    record.counts["graphs"] += 1
    record.operators.update(model.operators & RULES.keys())
    try:
        outcome = check_model(model, rng, folder)
    except Exception as error:
        failures.mkdir(parents=True, exist_ok=True)
        path = failures / f"{record.seed}-{number}.onnx"
        onnx.save(model.proto, path)
        operator = re.search(r"\(node '[^']*', (\w+)", str(error))
        kind = f"{type(error).__name__}{f' at {operator[1]}' if operator else ''}"
        record.failures.setdefault(kind, []).append(number)
        text = f"--seed {record.seed} --start {number} --count 1: {kind}: {str(error)[:300]}"
        print(f"{path}: {text}", file=sys.stderr, flush=True)
        return
    record.counts["groups"] += outcome.groups + outcome.inner
    record.counts["with groups"] += outcome.groups > 0
    record.counts["with inner groups"] += outcome.inner > 0
    record.counts["with an effect on the outputs"] += outcome.effect > 0
    record.counts["units"] += outcome.units
    record.counts["units removed"] += outcome.removed


def main() -> int:
    """Run; 1 if a graph failed or an operator never occurred."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="how many graphs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first graph")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--failures", type=Path, default=Path("random-failures"))
    chosen = parser.parse_args()
    record = Record(chosen.seed, chosen.start, chosen.output if chosen.count > 1 else None)
    with tempfile.TemporaryDirectory() as folder:
        while record.next < chosen.start + chosen.count:
            before = time.process_time()
            try_graph(record, record.next, Path(folder), chosen.failures)
            record.seconds += time.process_time() - before
            record.next += 1
            if record.next % EVERY == 0:
                record.write()
    record.write()
    Console().print(record.table())
    missing = RULES.keys() - record.operators.keys() - NOT_DRAWN
    if missing and chosen.count > 1:
        print(f"never occurred: {', '.join(sorted(missing))}", file=sys.stderr)
    return int(bool(record.failures) or (bool(missing) and chosen.count > 1))


if __name__ == "__main__":
    sys.exit(main())
