"""What distillation wins back: the MLP at −97% of its parameters, the residual CNN at −90%.

``python benchmarks/distillation.py`` takes the networks of ``benchmarks/trained.py``, removes a
share of their parameters for a budget (pruned and repaired with the 10,000 calibration images),
trains the result for at most two passes over images without labels, exports it, and compares the
accuracy on the 10,000 test images in ONNX Runtime. It prints a table and writes
``benchmarks/results/distillation.json``; rows of networks and seeds that were not asked for stay
there. ``--images 10000`` are the calibration images, which the
networks never saw; ``60000`` are those and the images on which they were trained, without labels.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_fashion_mnist import DEFAULT_FOLDER, read_idx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from trained import MEAN, SEEN, STD, Trained, trained

from onnxtrim.bench.accuracy import compare_accuracy
from onnxtrim.bench.data import open_data
from onnxtrim.bench.files import write_json
from onnxtrim.bench.machine import fingerprint
from onnxtrim.toolkit.distill import Options
from onnxtrim.toolkit.trim import trim

RESULT = Path(__file__).parent / "results" / "distillation.json"
SHARES = {"mlp": 0.97, "residual_cnn": 0.9}
IMAGES = (10_000, 60_000)


def unlabelled(source: Trained, count: int) -> dict[str, NDArray[np.float32]]:
    """The calibration images, with those of the training behind them if ``count`` asks for it."""
    calibration = np.load(source.calibration)["x"]
    if count == len(calibration):
        return {"x": calibration}
    pixels = read_idx(DEFAULT_FOLDER / "train-images-idx3-ubyte.gz")[:SEEN].astype(np.float32)
    images = (pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return {"x": np.concatenate([calibration, images.reshape(-1, *calibration.shape[1:])])}


def rows(name: str, seed: int, counts: list[int], options: Options) -> Iterator[dict[str, Any]]:
    """One row for each number of images."""
    source = trained(name, seed)
    start = time.perf_counter()
    result = trim(source.model, source.calibration, remove=SHARES[name])
    pruning = time.perf_counter() - start
    labelled = open_data(source.test, result.prepared.inputs, need_labels=True)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.onnx"

        def delta() -> list[float]:
            found = compare_accuracy(source.model, small, labelled)[0]["accuracy.top1.delta"]
            return [found.value, found.low, found.high]

        result.save(small)
        before = delta()
        for count in counts:
            distilled = result.distill(source.module(), unlabelled(source, count), options=options)
            distilled.export(small)
            yield {
                "net": name,
                "seed": seed,
                "parameters": result.parameters.to_json(),
                "groups": {group: change.after for group, change in result.groups.items()},
                "images": count,
                "before": before,
                "after": delta(),
                "pruning_seconds": round(pruning, 1),
                **distilled.to_json(),
            }


def show(found: list[dict[str, Any]]) -> None:
    """The table: the mean of the seeds, or one seed with its interval."""
    table = Table(title="Difference of accuracy from the original, points; no labels")
    for column in ("net", "removed", "images", "passes", "before", "after", "seconds", "seeds"):
        table.add_column(column, justify="left" if column == "net" else "right")
    for net, images in dict.fromkeys((row["net"], row["images"]) for row in found):
        mine = [row for row in found if (row["net"], row["images"]) == (net, images)]
        sizes = [1 - row["parameters"]["after"] / row["parameters"]["before"] for row in mine]
        table.add_row(
            net,
            f"{np.mean(sizes):.1%}",
            f"{images:,}",
            str(max(len(row["history"]) - 1 for row in mine)),
            _points([row["before"] for row in mine]),
            _points([row["after"] for row in mine]),
            f"{np.mean([row['seconds'] for row in mine]):.0f}",
            str(len(mine)),
        )
    Console(width=130).print(table)


def _points(deltas: list[list[float]]) -> str:
    if len(deltas) == 1:
        return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*deltas[0])
    return f"{np.mean([delta[0] for delta in deltas]):+.2f}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--net", choices=SHARES, action="append", help="only these")
    parser.add_argument("--seed", type=int, action="append", help="instead of 0, 1 and 2")
    parser.add_argument("--images", type=int, choices=IMAGES, action="append", help="only so many")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=Options.batch)
    parser.add_argument("--learning-rate", type=float, default=Options.learning_rate)
    options = parser.parse_args()
    how = Options(options.epochs, options.batch, options.learning_rate)
    torch.set_num_threads(1)  # small layers: a second thread costs more than it brings
    nets, seeds = options.net or list(SHARES), options.seed or [0, 1, 2]
    about = {"epochs": how.epochs, "batch": how.batch, "learning_rate": how.learning_rate}
    kept: list[dict[str, Any]] = []
    if RESULT.exists():
        before = json.loads(RESULT.read_text(encoding="utf-8"))
        kept = before["rows"] if before["options"] == about else []
    found = [row for row in kept if row["net"] not in nets or row["seed"] not in seeds]
    for name in nets:
        for seed in seeds:
            for row in rows(name, seed, options.images or list(IMAGES), how):
                found.append(row)
                print(json.dumps(row), file=sys.stderr)
    found.sort(key=lambda row: (row["net"], row["images"], row["seed"]))
    show(found)
    content = {"machine": fingerprint(), "options": about, "rows": found}
    write_json(RESULT, content)


if __name__ == "__main__":
    main()
