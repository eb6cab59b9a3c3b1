"""Whether the measurements hold what they promise, live, beside another compute job.

``python benchmarks/measuring.py`` runs a job that computes on one core all the while, measures what
is known, prints a table and writes ``benchmarks/results/measuring_<run>.json`` (``--run 1``). It
takes about 45 minutes; ``--quick`` a tenth of the launches. Parts:

- *A/A*: 60 intervals of eight launches of a model against itself; at most 7 may exclude 1.
- *injected*: a busy loop adds 2% and 3%; the interval of the first covers it in 18 of 20, the
  second is found (the interval excludes 1) in 19 of 20. All arms take turns with those of A/A.
- *half-width* of the interval of ten launches: at most 0.5%.
- *verdicts* at a limit of 2%: seconds of each, on a copy (should pass) and on a model 3% slower.
- *bare loop*: p50 of a model of 0.15 ms against a loop over ``run_with_iobinding`` in a process of
  its own, measured in turn; within 3%.
- *memory*: repeats within 1%, and a model with 50 MB more weights shows 50 MB within 5%.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model
from rich.console import Console
from rich.table import Table

from onnxtrim.bench.files import write_json
from onnxtrim.bench.latency import Protocol, compare_latency, measure_arms, measure_latency
from onnxtrim.bench.latency_metrics import latency_metrics, latency_verdict
from onnxtrim.bench.machine import fingerprint
from onnxtrim.bench.memory import measure_memory
from onnxtrim.bench.selfcheck import reference_model
from onnxtrim.bench.session import Feeds, RunOptions
from onnxtrim.bench.stats import yuen_interval

RESULTS = Path(__file__).parent / "results"
ONE = RunOptions(1)
LAUNCHES, INTERVALS, INJECTED = 8, 60, 20
SLOWER = (0.0, 0.0, 0.02, 0.03)
LIMIT = 1.02

JOB = (
    "import os\nimport numpy as np\na, p = np.random.rand(400, 400), os.getppid()\n"
    "while os.getppid() == p:\n    a @ a\n"
)

BARE = """
import json, sys, time
import numpy as np, onnxruntime as ort
model, feeds = sys.argv[1:]
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
bindings = []
with np.load(feeds) as archive:
    arrays = [archive[name] for name in archive.files]
for array in arrays:
    binding = session.io_binding()
    binding.bind_cpu_input("x0", array)
    binding.bind_output(session.get_outputs()[0].name)
    bindings.append(binding)
times = []
end = time.perf_counter() + 1.5
while time.perf_counter() < end:
    binding = bindings[len(times) % len(bindings)]
    start = time.perf_counter_ns()
    session.run_with_iobinding(binding)
    times.append(time.perf_counter_ns() - start)
print(json.dumps(float(np.median(times[len(times) // 4 :]) / 1e6)))
"""

Row = dict[str, Any]


@contextlib.contextmanager
def job() -> Iterator[None]:
    """Another process that computes on one core all the while."""
    process = subprocess.Popen(
        [sys.executable, "-c", JOB], env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def arms(model: Path, feeds: Sequence[Feeds], intervals: int) -> Iterator[Row]:
    """A/A and injected slowdowns, all in the same turns."""
    alarms = covered = found = 0
    ratios: list[list[float]] = []
    widths = []
    wait = []
    for number in range(intervals):
        protocol = Protocol(launches=LAUNCHES, seed=number)
        result = measure_arms([model] * len(SLOWER), feeds, ONE, protocol, SLOWER)
        logs = {arm: result.logs(0.5, arm) for arm in range(1, len(SLOWER))}
        copy, small, large = (yuen_interval(logs[arm]) for arm in (1, 2, 3))
        alarms += not copy.low <= 0 <= copy.high
        covered += small.low <= math.log1p(SLOWER[2]) <= small.high
        found += large.low > 0
        ratios += [[math.exp(logs[arm][k]) for arm in logs] for k in range(LAUNCHES)]
        wait.append(result.wait_share() or 0.0)
        print(f"{number + 1} of {intervals}: {alarms} alarms", file=sys.stderr)
    for first in range(0, len(ratios) - 9, 10):
        interval = yuen_interval([math.log(row[0]) for row in ratios[first : first + 10]])
        widths.append(math.expm1((interval.high - interval.low) / 2))
    yield {
        "what": f"A/A alarms in {intervals} intervals at 5%",
        "value": alarms,
        "target": "≤ 7 of 60",
        "holds": alarms <= 7 * intervals / INTERVALS,
        "wait_share": statistics.median(wait),
        "ratios": [[round(value, 6) for value in row] for row in ratios],
    }
    yield {
        "what": f"3% slower found, of {intervals}",
        "value": found,
        "target": "≥ 19 of 20",
        "holds": found >= 0.95 * intervals,
    }
    yield {
        "what": f"interval covers the injected 2%, of {intervals}",
        "value": covered,
        "target": "≥ 18 of 20",
        "holds": covered >= 0.9 * intervals,
    }
    width = statistics.median(widths)
    yield {
        "what": "half-width after 10 launches, %",
        "value": round(100 * width, 3),
        "target": "≤ 0.5",
        "holds": width <= 0.005,
    }


def verdicts(model: Path, slow: Path, feeds: Sequence[Feeds], count: int) -> Iterator[Row]:
    """Seconds until a limit of 2% is decided, and how."""
    seconds, answers = [], []
    for number in range(count):
        candidate = (model, slow)[number % 2]
        start = time.perf_counter()
        protocol = Protocol(limit=LIMIT, copy=True, seed=number)
        result = compare_latency(model, candidate, feeds, ONE, protocol)
        seconds.append(time.perf_counter() - start)
        answers.append(latency_verdict(result, LIMIT).verdict)
    typical, worst = statistics.median(seconds), max(seconds)
    yield {
        "what": f"seconds to a verdict at 2%, median of {count} (worst)",
        "value": f"{typical:.0f} ({worst:.0f})",
        "target": "≤ 30 (≤ 90)",
        "holds": typical <= 30 and worst <= 90,
        "seconds": [round(value, 1) for value in seconds],
    }
    wrong = [answer for n, answer in enumerate(answers) if answer == ("fail", "pass")[n % 2]]
    yield {
        "what": f"wrong verdicts of {count}: copies that fail, larger models that pass",
        "value": len(wrong),
        "target": "0",
        "holds": not wrong,
        "answers": answers,
    }


def bare_loop(model: Path, feeds: Sequence[Feeds], folder: Path, turns: int) -> Iterator[Row]:
    """Our p50 against a bare loop in a fresh process, in turn."""
    path = folder / "bare.npz"
    arrays: dict[str, Any] = {f"a{n}": sample["x0"] for n, sample in enumerate(feeds)}
    np.savez(path, **arrays)
    ratios = []
    for number in range(turns):
        command = [sys.executable, "-c", BARE, str(model), str(path)]
        bare = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        found = measure_latency(model, feeds, ONE, Protocol(launches=2, seed=number))
        ratios.append(latency_metrics(found)["latency.p50"].value / bare)
    ratio = statistics.median(ratios)
    yield {
        "what": f"our p50 over a bare loop's, median of {turns}",
        "value": round(ratio, 4),
        "target": "1 ± 0.03",
        "holds": abs(ratio - 1) <= 0.03,
        "ratios": [round(value, 4) for value in ratios],
    }


def memory(folder: Path) -> Iterator[Row]:
    """Repeats of one model, and 50 MB more."""
    paths, feeds = [], [{"x": np.ones((1, 1000), np.float32)}]
    for name, units in (("small", 6_000), ("large", 6_000 + 12_500)):
        weight = np.random.default_rng(0).random((1000, units), np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "w"], ["h"]),
                helper.make_node("ReduceSum", ["h"], ["y"], keepdims=0),
            ],
            "weights",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1000])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
            [numpy_helper.from_array(weight, "w")],
        )
        paths.append(folder / f"{name}.onnx")
        opsets = [helper.make_opsetid("", 13)]
        save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(paths[-1]))
    small, large = measure_memory(paths, feeds, ONE, repeats=5)
    peaks = small.values("run_peak")
    spread = (max(peaks) - min(peaks)) / max(peaks)
    yield {
        "what": "memory repeats differ by, %",
        "value": round(100 * spread, 2),
        "target": "≤ 1",
        "holds": spread <= 0.01,
    }
    steady = [statistics.median(result.values("steady")) for result in (small, large)]
    more = (steady[1] - steady[0]) / 50e6
    yield {
        "what": "50 MB more weights show as, MB in the steady state",
        "value": round(50 * more, 2),
        "target": "50 ± 5%",
        "holds": abs(more - 1) <= 0.05,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", default="1", help="number of the run, in the file's name")
    parser.add_argument("--quick", action="store_true", help="a tenth of the launches")
    options = parser.parse_args()
    intervals, count = (6, 2) if options.quick else (INTERVALS, INJECTED)
    rows: list[Row] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, job():
        folder = Path(name)
        model, slow = folder / "model.onnx", folder / "slow.onnx"
        feeds = reference_model(model)
        reference_model(slow, extra=32)  # some per cent slower
        for part in (
            memory(folder),
            bare_loop(model, feeds, folder, count // 2),
            verdicts(model, slow, feeds, count),
            arms(model, feeds, intervals),
        ):
            rows += part
    table = Table(title="Measurements beside another compute job")
    for column in ("what", "value", "target", "holds"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        told = "yes" if row["holds"] else "NO"
        table.add_row(row["what"], str(row["value"]), row["target"], told)
    Console(width=110).print(table)
    content = {
        "machine": fingerprint(),
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "quick": options.quick,
        "rows": rows,
    }
    write_json(RESULTS / f"measuring_{options.run}.json", content)


if __name__ == "__main__":
    main()
