"""Speed and memory of the dependency engine: analysis, surgery and the whole prune.

``python benchmarks/engine.py`` prints a table and writes ``benchmarks/results/engine.json``. Every
model runs in a fresh process, so that the peak memory is its own; a second fresh process opens the
model in ONNX Runtime and runs it once, for comparison. The models are the light ones of the onnx
package (their weights are made by ConstantOfShape) and a language model with random weights that
this script makes; ``--huge`` adds one of more than 2 GB with external data.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from onnxtrim.bench.machine import fingerprint
from onnxtrim.bench.session import RunOptions, model_inputs, open_session, random_feeds, run
from onnxtrim.toolkit.apply import apply_plan
from onnxtrim.toolkit.graph.analyse import analyse
from onnxtrim.toolkit.graph.surgery import positions, remove_units
from onnxtrim.toolkit.limits import Limits
from onnxtrim.toolkit.plan import Plan, Removal, Stage
from onnxtrim.toolkit.prepare import prepare

RESULTS = Path(__file__).parent / "results"
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SHARE = 0.4  # of the units of every group
TOKENS = "tokens=1x64"
JOBS = ("time", "memory", "plain")


def language_model(path: Path, layers: int, width: int, vocabulary: int) -> None:
    """A decoder with layer norm, attention by heads of 64, GELU and tied embeddings."""
    rng = np.random.default_rng(0)
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def weight(name: str, *shape: int, scale: float = 0.02) -> str:
        array = rng.standard_normal(shape, np.float32) * np.float32(scale)
        weights.append(numpy_helper.from_array(array, name))
        return name

    def constant(name: str, array: NDArray[Any]) -> str:
        weights.append(numpy_helper.from_array(array, name))
        return name

    def op(kind: str, *inputs: str, out: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [out], name=f"{out}/node", **attributes))
        return out

    def linear(x: str, name: str, a: int, b: int) -> str:
        product = op("MatMul", x, weight(f"{name}.weight", a, b), out=f"{name}.product")
        return op("Add", product, weight(f"{name}.bias", b), out=f"{name}.out")

    def norm(x: str, name: str) -> str:
        scale = constant(f"{name}.scale", np.ones(width, np.float32))
        return op("LayerNormalization", x, scale, weight(f"{name}.shift", width), out=name)

    split = constant("heads", np.array([0, 0, width // 64, 64], np.int64))
    merge = constant("merged", np.array([0, 0, width], np.int64))
    scale = constant("scale", np.array(0.125, np.float32))
    h = op("Gather", weight("embedding", vocabulary, width), "tokens", out="embedded")
    for number in range(layers):
        x = norm(h, f"l{number}.ln1")
        parts = {}
        for part, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            y = linear(x, f"l{number}.{part}", width, width)
            y = op("Reshape", y, split, out=f"l{number}.{part}.split")
            parts[part] = op("Transpose", y, out=f"l{number}.{part}.heads", perm=order)
        s = op("MatMul", parts["q"], parts["k"], out=f"l{number}.scores")
        s = op("Mul", s, scale, out=f"l{number}.scaled")
        s = op("Softmax", s, out=f"l{number}.attention", axis=-1)
        y = op("MatMul", s, parts["v"], out=f"l{number}.mixed")
        y = op("Transpose", y, out=f"l{number}.back", perm=[0, 2, 1, 3])
        y = op("Reshape", y, merge, out=f"l{number}.joined")
        h = op("Add", h, linear(y, f"l{number}.o", width, width), out=f"l{number}.res1")
        y = linear(norm(h, f"l{number}.ln2"), f"l{number}.up", width, 4 * width)
        y = op("Gelu", y, out=f"l{number}.gelu")
        h = op("Add", h, linear(y, f"l{number}.down", 4 * width, width), out=f"l{number}.res2")
    flipped = op("Transpose", "embedding", out="head", perm=[1, 0])
    op("MatMul", norm(h, "final"), flipped, out="logits")
    graph = helper.make_graph(
        nodes,
        "lm",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "time"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "time", vocabulary])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")


class Peak(threading.Thread):
    """Samples the proportional memory (PSS) of this process, in MB (Linux).

    Not the resident memory: it counts a page of a mapped weight file once per mapping. Looking
    costs time, so that nothing is timed in the same process.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mb = 0.0
        self.start()

    def run(self) -> None:
        """Look every 10 ms."""
        while True:
            for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    self.mb = max(self.mb, int(line.split()[1]) / 1000)
            time.sleep(0.01)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and the result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def child(path: str, deep: bool, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Prune a random 40% of every group, in this process, timed step by step."""
    preparing, (prepared, _) = timed(lambda: prepare(path, sizes=shapes))
    analysis = prepared.analysis
    analysing = timed(lambda: analyse(analysis.normalised))[0]
    rng = np.random.default_rng(0)
    orders = {
        group.name: rng.permutation(group.units)[: max(1, round(SHARE * group.units))]
        for group in analysis.groups
    }
    keep = Limits().keep(analysis, orders)
    cutting = timed(lambda: remove_units(analysis.model, analysis, keep))[0]
    removals = []
    for group in analysis.groups:
        if group.name in keep:
            tensor, axis = next(iter(group.slices))
            gone = tuple(int(unit) for unit in np.flatnonzero(~keep[group.name]))
            removals.append(Removal(group.name, tensor, axis, group.units, gone))
    stage = Stage(dict(analysis.choices), tuple(removals))
    plan = Plan(prepared.sha256, "", {"name": "random"}, (stage,))
    applying, result = timed(lambda: apply_plan(prepared, plan, deep=deep))
    target = Path(path).with_name(f"{Path(path).stem}.small.onnx")
    saving = timed(lambda: result.save(target))[0]
    return {
        "nodes": len(analysis.model.graph),
        "labels": int(analysis.classes.labels.size),
        "positions": len(positions(analysis, keep)),
        "parameters": analysis.parameters,
        "removed": result.parameters.removed,
        "groups": len(analysis.groups),
        "max_error": result.self_check.max_error,
        "seconds": {
            "prepare": preparing,
            "analysis": analysing,
            "surgery": cutting,
            "prune": preparing + applying + saving,
        },
        "model_mb": 4 * analysis.parameters / 1e6,
    }


def plain(path: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """Open the model in ONNX Runtime and run it once."""
    session = open_session(path, RunOptions(), optimise=False)
    feeds = random_feeds(model_inputs(session), shapes, count=1)[0]
    run(session, feeds, path)


def measure(path: Path, *, deep: bool, shape: str = "") -> dict[str, Any]:
    """Time the prune, then take the memory of it and of ONNX Runtime alone; fresh processes."""
    found: dict[str, Any] = {}
    for job in JOBS:
        command = [sys.executable, __file__, "--job", job, "--model", str(path), "--shape", shape]
        output = subprocess.run(
            [*command, *(["--deep"] if deep else [])], capture_output=True, text=True, check=False
        )
        if output.returncode:
            raise SystemExit(f"{path.name}: {output.stderr}")
        found |= json.loads(output.stdout.splitlines()[-1])
    beside = found["peak_mb"] - found["plain_mb"]
    return {"model": path.name, "deep": deep, **found, "beside_model": beside / found["model_mb"]}


def do(job: str, model: str, deep: bool, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """One job, in this process."""
    if job == "time":
        return child(model, deep, shapes)
    peak = Peak()
    if job == "memory":
        child(model, deep, shapes)
        return {"peak_mb": peak.mb}
    plain(model, shapes)
    return {"plain_mb": peak.mb}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--huge", action="store_true", help="also a model of more than 2 GB")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--shape", default="", help=argparse.SUPPRESS)
    parser.add_argument("--deep", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        name, _, sizes = options.shape.partition("=")
        shapes = {name: tuple(map(int, sizes.split("x")))} if name else {}
        print(json.dumps(do(options.job, options.model, options.deep, shapes)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in cases(Path(folder), options.huge, options.only):
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
    show(rows)
    RESULTS.mkdir(exist_ok=True)
    value = {"machine": fingerprint(), "python": platform.python_version(), "models": rows}
    (RESULTS / "engine.json").write_text(json.dumps(value, indent=1) + "\n")


def cases(folder: Path, huge: bool, only: str) -> Any:
    """Each model in turn."""
    for source in sorted(LIGHT.glob("*.onnx")):
        if only in source.name:
            path = folder / source.name
            path.write_bytes(source.read_bytes())
            yield measure(path, deep=True)
    sizes = {"lm-125m": (12, 768, 52000), **({"lm-2gb": (18, 1536, 40000)} if huge else {})}
    for name, (layers, width, vocabulary) in sizes.items():
        if only in name:
            path = folder / f"{name}.onnx"
            language_model(path, layers, width, vocabulary)
            yield measure(path, deep=False, shape=TOKENS)
            for left in folder.glob(f"{name}*"):
                left.unlink()


def show(rows: list[dict[str, Any]]) -> None:
    """The table."""
    table = Table(title=f"ONNX Runtime {ort.__version__}, {SHARE:.0%} of every group removed")
    for column in (
        "model", "nodes", "MB", "groups", "analysis", "surgery", "prune", "check", "peak MB",
        "of which ORT", "rest / model",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        seconds = row["seconds"]
        table.add_row(
            row["model"],
            str(row["nodes"]),
            f"{row['model_mb']:.0f}",
            str(row["groups"]),
            f"{seconds['analysis']:.2f} s",
            f"{seconds['surgery']:.2f} s",
            f"{seconds['prune']:.1f} s",
            "deep" if row["deep"] else "outputs",
            f"{row['peak_mb']:.0f}",
            f"{row['plain_mb']:.0f}",
            f"{row['beside_model']:.1f}",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
