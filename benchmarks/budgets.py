"""What budgets cost: accuracy of the pruned MLP and residual CNN of Fashion-MNIST.

``python benchmarks/budgets.py`` trains both networks on images of the repository (cached in
``benchmarks/cache/``; the CNN takes about ten minutes on two cores), removes shares of their
parameters with each repair, without labels and without training, compares the accuracy on the
10,000 test images, prints a table and writes ``benchmarks/results/budgets.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nets import ResidualCnn
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from onnxtrim.bench.accuracy import compare_accuracy
from onnxtrim.bench.data import open_data
from onnxtrim.bench.machine import fingerprint
from onnxtrim.export.from_torch import export_module
from onnxtrim.toolkit.apply import apply_plan
from onnxtrim.toolkit.budget import Budget
from onnxtrim.toolkit.demo import DATA, load_data, train_network
from onnxtrim.toolkit.planner import Planner
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.repair import Repair

CACHE = Path(__file__).parent / "cache"
RESULT = Path(__file__).parent / "results" / "budgets.json"
NETS = ("mlp", "residual_cnn")
EPOCHS, BATCH = 5, 128


def train_cnn(images: NDArray[np.float32], labels: NDArray[np.int64]) -> nn.Module:
    """Train the residual CNN; SGD with one cycle of the learning rate, images flipped at random."""
    torch.manual_seed(0)
    net = ResidualCnn()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimiser = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.15, EPOCHS * steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x))
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            flipped = (torch.rand(BATCH) < 0.5)[:, None, None, None]
            batch = torch.where(flipped, x[chosen].flip(3), x[chosen])
            loss = nn.functional.cross_entropy(net(batch), y[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        print(f"residual_cnn: epoch {epoch + 1} of {EPOCHS}", file=sys.stderr)
    return net.eval()


def made(name: str) -> tuple[Path, Path, Path]:
    """Model, calibration and test data of a network; made if missing."""
    folder = CACHE / name
    model, calibration, test = (folder / part for part in ("model.onnx", "calib.npz", "test.npz"))
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = load_data(DATA)
        shape = (-1, 784) if name == "mlp" else (-1, 1, 28, 28)
        images, rest = data.train[0].reshape(shape), data.calibration.reshape(shape)
        np.savez(calibration, x=rest)
        np.savez(test, x=data.test[0].reshape(shape), labels=data.test[1])
        train = train_network if name == "mlp" else train_cnn
        net = train(images, data.train[1])
        export_module(net, (torch.from_numpy(images[:2]),), model, input_names=["x"])
    return model, calibration, test


def rows(name: str, shares: list[float]) -> Iterator[dict[str, Any]]:
    """One row for each share and repair."""
    model, calibration, test = made(name)
    prepared, data = prepare(model, calibration)
    assert data is not None  # it was just made
    labelled = open_data(test, prepared.inputs, need_labels=True)
    start = time.perf_counter()
    planner = Planner(prepared, data)
    solver = planner.solver
    planned = time.perf_counter() - start
    for share in shares:
        plan = planner.plan(Budget("remove", share))
        repairs: dict[str, Repair | None] = {
            "none": None,
            "channel": replace(solver, batches=()),
            "sequential": solver,
        }
        for repair, mender in repairs.items():
            start = time.perf_counter()
            result = apply_plan(prepared, plan, mender, data)
            seconds = planned + time.perf_counter() - start
            small = model.with_name("small.onnx")
            result.save(small)
            metrics = compare_accuracy(model, small, labelled)[0]
            delta = metrics["accuracy.top1.delta"]
            yield {
                "net": name,
                "share": share,
                "repair": repair,
                "parameters": result.parameters.to_json(),
                "groups": {group: change.after for group, change in result.groups.items()},
                "accuracy": metrics["accuracy.top1.original"].value,
                "delta": [delta.value, delta.low, delta.high],
                "predicted_divergence": plan.criterion["predicted_divergence"],
                "divergence": result.divergence,
                "seconds": round(seconds, 1),
            }


def show(found: list[dict[str, Any]]) -> None:
    """The table."""
    table = Table(title="Difference of accuracy, points [95% interval]; no labels, no training")
    for column in ("net", "removed", "none", "channel", "sequential", "seconds"):
        table.add_column(column, justify="left" if column == "net" else "right")
    keys = dict.fromkeys((row["net"], row["share"]) for row in found)
    for net, share in keys:
        mine = {row["repair"]: row for row in found if (row["net"], row["share"]) == (net, share)}
        size = mine["sequential"]["parameters"]
        table.add_row(
            net,
            f"{1 - size['after'] / size['before']:.1%}",
            *(_points(mine[repair]["delta"]) for repair in ("none", "channel", "sequential")),
            f"{mine['sequential']['seconds']:.0f}",
        )
    Console(width=130).print(table)


def _points(delta: list[float]) -> str:
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*delta)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", choices=NETS, action="append", help="only these")
    parser.add_argument(
        "--shares", default="0.5,0.74,0.85,0.9,0.95", help="of the parameters, with commas"
    )
    options = parser.parse_args()
    shares = [float(share) for share in options.shares.split(",")]
    found = []
    for name in options.net or NETS:
        for row in rows(name, shares):
            found.append(row)
            print(json.dumps(row), file=sys.stderr)
    show(found)
    RESULT.write_text(json.dumps({"machine": fingerprint(), "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
