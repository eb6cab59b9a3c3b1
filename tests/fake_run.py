"""A made-up sweep folder, with the shapes and sizes of a real one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

WIDTHS = {"fc1": 1024, "fc2": 512, "fc3": 256}
BEFORE = 1_462_538
GRID = [(0.1, 0.4), (0.2, 0.5), (0.3, 0.6), (0.3, 0.8), (0.5, 1.0), (0.7, 1.2)]
KEPT = [0.92, 0.74, 0.55, 0.42, 0.20, 0.07]
DELTA = [0.02, -0.05, -0.18, -0.31, -1.12, -6.4]
RATIO = [0.97, 0.80, 0.61, 0.44, 0.31, 0.33]  # the last is slower than the one before: dominated


def metric(value: float, half: float, unit: str) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "unit": unit}


def candidate(index: int, **changes: Any) -> dict[str, Any]:
    """The line of one candidate; ``changes`` replace its keys."""
    mean_below, std_below = GRID[index]
    kept, size = KEPT[index], 4 * BEFORE + 5_000
    drop = DELTA[index]
    metrics = {
        "latency.p50.ratio": metric(RATIO[index], 0.015, "ratio"),
        "latency.p50": metric(0.21 * RATIO[index], 0.002, "ms"),
        "latency.p50.original": metric(0.21, 0.002, "ms"),
        "memory.run_peak": metric(9e6 * kept + 2e6, 0, "bytes"),
        "memory.run_peak.original": metric(11e6, 0, "bytes"),
        "memory.run_peak.ratio": metric((9 * kept + 2) / 11, 0, "ratio"),
        "model.file_bytes": metric(size * kept, 0, "bytes"),
        "accuracy.top1": metric(0.884 + drop / 100, 0.006, "share"),
        "accuracy.top1.original": metric(0.884, 0.006, "share"),
        "accuracy.top1.delta": metric(drop, 0.15 + abs(drop) / 12, "points"),
        "accuracy.negative_flip_rate": metric(0.002 + abs(drop) / 80, 0.001, "share"),
        "accuracy.agreement": metric(0.99 + drop / 90, 0.002, "share"),
        "accuracy.mcnemar_p": metric(0.2, 0, "share"),
    }
    line: dict[str, Any] = {
        "schema": "onnxtrim.result/1",
        "kind": "candidate",
        "id": f"m{mean_below}-s{std_below}",
        "settings": {"mean_below": mean_below, "std_below": std_below},
        "same_as": None,
        "model": f"models/m{mean_below}-s{std_below}.onnx",
        "plan": f"{index:064x}",
        "parameters": {"before": BEFORE, "after": round(BEFORE * kept)},
        "bytes": {"before": size, "after": round(size * kept)},
        "macs": {"before": BEFORE - 1802, "after": round(BEFORE * kept) - 900},
        "removed": 1 - kept,
        "groups": [
            {"name": name, "before": width, "after": max(1, round(width * kept**0.6))}
            for name, width in WIDTHS.items()
        ],
        "self_check": {"max_error": 1.2e-7, "effect": 0.1},
        "warnings": ["fc3: one unit was kept, the thresholds would empty it"] * (index == 5),
        "metrics": metrics,
    }
    return line | changes


def distributions() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    layers = []
    for number, (name, units) in enumerate(WIDTHS.items(), start=1):
        mean = rng.gamma(1.2, 0.16 * number, units)
        std = mean * rng.uniform(1.0, 1.8, units) + rng.gamma(2.0, 0.1, units)
        layers.append(
            {
                "name": name,
                "tensor": f"relu_{number}",
                "units": units,
                "mean": mean.tolist(),
                "std": std.tolist(),
            }
        )
    return {"schema": "onnxtrim.distributions/1", "layers": layers}


def spec(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "schema": "onnxtrim.sweep-spec/1",
        "model": {
            "path": "demo-output/mlp.onnx",
            "sha256": "3f" * 32,
            "file_bytes": 4 * BEFORE + 5_000,
            "initializer_bytes": 4 * BEFORE,
            "parameters": BEFORE,
            "macs": BEFORE - 1802,
        },
        "data": {"name": "calibration.npz", "sha256": "a1" * 32, "samples": 5000},
        "eval": {"name": "test.npz", "sha256": "b2" * 32, "samples": 10000},
        "criterion": {"name": "threshold", "absolute": False},
        "repair": "mean",
        "grid": [list(pair) for pair in GRID],
        "max_drop": 0.5,
        "bench": {"launches": 8, "threads": 1, "rounds": 24, "round_seconds": 0.02},
        "machine": {
            "cpu": "AMD EPYC 7B13",
            "cores": 2,
            "os": "Linux 6.1.0 x86_64",
            "python": "3.11.7",
            "onnxruntime": "1.32.0",
            "flags": ["avx2", "fma"],
            "load": {"before": 0.3, "after": 0.5},
        },
    }
    return value | changes


def original() -> dict[str, Any]:
    return {
        "schema": "onnxtrim.result/1",
        "kind": "original",
        "id": "original",
        "model": "demo-output/mlp.onnx",
        "parameters": BEFORE,
        "macs": BEFORE - 1802,
        "metrics": {
            "accuracy.top1": metric(0.884, 0.006, "share"),
            "latency.p50": metric(0.21, 0.002, "ms"),
            "model.file_bytes": metric(4 * BEFORE + 5_000, 0, "bytes"),
            "memory.run_peak": metric(11e6, 0, "bytes"),
        },
    }


def write_run(
    folder: Path,
    lines: list[dict[str, Any]] | None = None,
    *,
    layers: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write the folder: the given candidates (all by default), ``changes`` to ``sweep.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [candidate(i) for i in range(len(GRID))] if lines is None else lines
    (folder / "sweep.json").write_text(json.dumps(spec(**changes)), encoding="utf-8")
    (folder / "distributions.json").write_text(
        json.dumps(layers or distributions()), encoding="utf-8"
    )
    text = "".join(json.dumps(line) + "\n" for line in [original(), *lines])
    (folder / "results.jsonl").write_text(text, encoding="utf-8")
    return folder


def many(count: int) -> list[dict[str, Any]]:
    """Lines of so many candidates, scattered below a curve."""
    rng = np.random.default_rng(5)
    lines = []
    for number, (kept, luck) in enumerate(rng.random((count, 2)).tolist()):
        line = candidate(0, id=f"b{number}", settings={"remove": 1 - kept}, removed=1 - kept)
        drop = -3 * (1 - kept) ** 3 - 2 * luck**2
        line["parameters"] = {"before": BEFORE, "after": round(BEFORE * kept)}
        line["macs"] = {"before": BEFORE, "after": round(BEFORE * kept * (1 + luck / 9))}
        line["metrics"] |= {
            "latency.p50.ratio": metric(0.1 + 0.9 * kept + 0.05 * luck, 0.015, "ratio"),
            "memory.run_peak.ratio": metric(0.2 + 0.8 * kept + 0.02 * luck, 0, "ratio"),
            "accuracy.top1.delta": metric(drop, 0.2, "points"),
        }
        lines.append(line)
    return lines


def graph(more: int = 0) -> dict[str, Any]:
    """The ``graph.json`` of the same network; ``more`` makes it longer by so many blocks."""
    names = [*WIDTHS, "fc4", *(f"/model/layers.{number}/fc" for number in range(more))]
    groups = [*WIDTHS.items(), *((name, 64) for name in names[4:])]
    number_of = {name: number for number, (name, _) in enumerate(groups)}
    nodes = [_node("image", "input")]
    for before, name in zip(["", *names], names, strict=False):
        roles = [[number_of[before], "consumer"]] if before in number_of else []
        if name in number_of:
            roles.insert(0, [number_of[name], "producer"])
        operators = ["Gemm", "Relu"] if roles[:1] != [[2, "consumer"]] else ["Gemm"]
        nodes.append(_node(f"node_{name}", "operator", operators, roles, f"{name}.weight"))
    reason = {"operator": "graph output", "reason": "it is an output of the model", "by": ""}
    nodes[4]["frozen"] = [{"name": "fc4.weight", **reason}]
    nodes.append(_node("output", "output"))
    return {
        "schema": "onnxtrim.graph/1",
        "model": {"sha256": "3f" * 32},
        "groups": [
            {"name": name, "units": units, "parameters": 9 * units, "macs": 9 * units, "stage": 1}
            for name, units in groups
        ],
        "nodes": nodes,
        "edges": [
            {
                "from": number,
                "to": number + 1,
                "tensor": f"/model/tensor_{number}",
                "shape": [1, 64],
                "groups": [g for g, role in node["groups"] if role == "producer"],
            }
            for number, node in enumerate(nodes[:-1])
        ],
    }


def _node(
    name: str,
    kind: str,
    operators: Sequence[str] = (),
    groups: Sequence[Any] = (),
    weight: str = "",
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "parts": [{"name": f"{name}.{op}", "operator": op} for op in operators],
        "weights": [{"name": weight, "shape": [64, 64]}] if weight else [],
        "macs": 4096 if operators else 0,
        "groups": list(groups),
        "frozen": [],
    }
