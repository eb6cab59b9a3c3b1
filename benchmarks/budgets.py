"""What budgets cost: accuracy of pruned networks, other pruners beside, three seeds.

``python benchmarks/budgets.py`` removes shares of the parameters of every network of
``trained.py`` (trained first where it is missing), without labels and without training, and
compares the accuracy on the 10,000 test images of Fashion-MNIST in ONNX Runtime. Torch-Pruning and
onnxsim run beside if they are there (``pip install torch-pruning==1.6.1 onnxsim==0.8.1``), see
``peers.py``. It writes ``benchmarks/results/budgets.json``, ``.md`` and ``.svg``.

Cells are kept in ``benchmarks/cache/budgets.jsonl`` as they come, so an interrupted run goes on,
and runs of different networks (``--net``) may go on at the same time. A cell that failed is tried
again by the next run; ``--again METHOD`` measures those of a method anew (not beside another run).
Parameters are counted a little differently: by onnxtrim with the running statistics of batch
normalisation, by Torch-Pruning without, by onnxsim folded; shares are of what each counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from budgets_report import METHODS, write_report
from peer_search import RefusalError
from peers import Prune, peers
from trained import CACHE, RECIPES, SEEDS, Trained, trained

from onnxtrim.bench.accuracy import compare_accuracy
from onnxtrim.bench.data import DataSource, open_data
from onnxtrim.bench.errors import NothingToRemoveError
from onnxtrim.bench.files import sha256_file, write_text
from onnxtrim.toolkit.apply import apply_plan, calibration_divergence
from onnxtrim.toolkit.budget import Budget
from onnxtrim.toolkit.planner import Planner
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.repair import Repair

ROWS = CACHE / "budgets.jsonl"
SHARES = {
    "mlp": (0.5, 0.74, 0.85, 0.9),
    "residual_cnn": (0.5, 0.74, 0.85, 0.9),
    "depthwise_cnn": (0.5, 0.74, 0.85),
    "vit": (0.3, 0.5, 0.74),
    "lstm": (0.3, 0.5, 0.74),
}
ABLATIONS = ("channel", "none")  # repairs that only the first seed shows

Row = dict[str, Any]
Key = tuple[str, int, float, str]


class Original:
    """A trained network, what was found out about it, and how its prunings are measured."""

    def __init__(self, net: Trained) -> None:
        self.net = net
        self.prepared, data = prepare(net.model, net.calibration)
        assert data is not None  # it was given
        self.data: DataSource = data
        self.test = open_data(net.test, self.prepared.inputs, need_labels=True)

    @cached_property
    def planned(self) -> tuple[Planner, float]:
        """The planner, and the seconds that it took."""
        start = time.perf_counter()
        return Planner(self.prepared, self.data), time.perf_counter() - start

    def measure(self, method: str, prune: Prune | None, share: float) -> Row:
        """Prune and compare; what can't be pruned gives a row with ``refused``."""
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / "small.onnx"
            try:
                row = (
                    self._trim(method, share, small)
                    if prune is None
                    else self._beside(prune, share, small)
                )
            except (RefusalError, NothingToRemoveError) as error:
                return {"refused": str(error)}
            metrics = compare_accuracy(self.net.model, small, self.test)[0]
        delta = metrics["accuracy.top1.delta"]
        return row | {
            "original": metrics["accuracy.top1.original"].value,
            "accuracy": metrics["accuracy.top1"].value,
            "delta": [delta.value, delta.low, delta.high],
        }

    def _trim(self, method: str, share: float, small: Path) -> Row:
        planner, planned = self.planned
        start = time.perf_counter()
        plan = planner.plan(Budget("remove", share))
        repairs: dict[str, Repair | None] = {
            "none": None,
            "channel": replace(planner.solver, batches=()),
            "sequential": planner.solver,
        }
        result = apply_plan(self.prepared, plan, repairs[method], self.data)
        result.save(small)
        return {
            "removed": result.parameters.removed,
            "seconds": round(planned + time.perf_counter() - start, 1),
            "predicted_divergence": plan.criterion["predicted_divergence"],
            "divergence": result.divergence,
            "groups": {name: change.after for name, change in result.groups.items()},
        }

    def _beside(self, prune: Prune, share: float, small: Path) -> Row:
        start = time.perf_counter()
        pruned = prune(self.net, share, small)
        return {
            "removed": pruned.removed,
            "seconds": round(time.perf_counter() - start, 1),  # of the search of options too
            "divergence": calibration_divergence(self.prepared, ir.load(small), self.data),
            "options": pruned.options,
        }


def finished() -> dict[Key, Row]:
    """The cells that are measured, but not those of networks that were trained anew since."""
    if not ROWS.exists():
        return {}
    found = {}
    hashes: dict[Path, str] = {}
    for line in ROWS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        model = CACHE / f"{row['net']}_{row['seed']}" / "model.onnx"
        if model.exists() and model not in hashes:
            hashes[model] = sha256_file(model)
        if row["model"] == hashes.get(model) and "failed" not in row:
            found[row["net"], row["seed"], row["share"], row["method"]] = row
    return found


def cells(nets: list[str], seeds: list[int], methods: list[str]) -> Iterator[Key]:
    """What is to be measured, network by network."""
    for net in nets:
        for seed in seeds:
            for share in SHARES[net]:
                for method in methods:
                    if seed == SEEDS[0] or method not in ABLATIONS:
                        yield net, seed, share, method


def fill(keys: Iterator[Key], done: dict[Key, Row], cached_only: bool) -> None:
    """Measure the cells that are missing; one that fails is told and left out."""
    beside = peers()
    originals: dict[tuple[str, int], Original] = {}
    for key in keys:
        net, seed, share, method = key
        prune = beside.get(method)
        model = CACHE / f"{net}_{seed}" / "model.onnx"
        if key in done or (cached_only and not model.exists()):
            continue
        if method in beside and prune is None:
            continue
        row: Row = {"net": net, "seed": seed, "share": share, "method": method}
        try:
            if (net, seed) not in originals:
                originals = {(net, seed): Original(trained(net, seed))}
            row |= originals[net, seed].measure(method, prune, share)
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        row["model"] = sha256_file(model) if model.exists() else None
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps({k: v for k, v in row.items() if k != "groups"}), file=sys.stderr)
        if "failed" not in row:
            done[key] = row


def forget(keys: set[Key]) -> None:
    """Drop rows from the file of cells."""
    if ROWS.exists():
        lines = ROWS.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [(json.loads(line), line) for line in lines]
        write_text(ROWS, "".join(text for row, text in rows if _key(row) not in keys))


def _key(row: Row) -> Key:
    return row["net"], row["seed"], row["share"], row["method"]


def main() -> None:
    """Measure what is missing, write all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--net", choices=RECIPES, action="append", help="only these")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append", help="only these")
    parser.add_argument("--method", choices=METHODS, action="append", help="only these")
    parser.add_argument("--again", choices=METHODS, action="append", help="measure these anew")
    parser.add_argument("--cached-only", action="store_true", help="train nothing")
    parser.add_argument("--report-only", action="store_true", help="measure nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the small convolutions of pruned networks gain nothing by more
    for name, prune in peers().items():
        if prune is None:
            print(f"{name} is not installed and left out; see peers.py", file=sys.stderr)
    nets = options.net or list(RECIPES)
    seeds = options.seed or list(SEEDS)
    if options.again:
        forget(set(cells(nets, seeds, options.again)))
    done = finished()
    if not options.report_only:
        fill(cells(nets, seeds, options.method or list(METHODS)), done, options.cached_only)
    write_report(list(finished().values()), SHARES)


if __name__ == "__main__":
    main()
