"""Whether the measurements hold what they promise, live, beside another compute job.

``python benchmarks/measuring.py`` runs a job that computes on one core all the while, measures what
is known, prints a table and writes ``benchmarks/results/measuring_<run>.json`` (``--run 1``). It
takes about 30 minutes; ``--quick`` a tenth of the launches. Parts:

- *A/A*: 60 intervals of eight launches of a model against itself, those of the verdicts among
  them; at most 7 may exclude 1.
- *injected*: a busy loop adds 2% and 3%; of 20 intervals 18 cover the first, and 19 find the
  second (they exclude 1). These arms take turns with those of 20 of the A/A intervals.
- *half-width* of the interval of ten launches: at most 0.5%; and that of a model whose weights
  exceed the nearest caches, which neighbours can throw out.
- *verdicts* at a limit of 2%: seconds of each, on a copy (should pass) and on a model about 5%
  slower (should fail).
- *bare loop*: p50 of a model of 0.15 ms against a loop over ``run_with_iobinding`` in a fresh
  process, in turn; within 3%.
- *memory*: repeats within 1%, and a model with 50 MB more weights shows 50 MB within 5%.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
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

from onnxtrim.bench.arms import Arm, written_feeds
from onnxtrim.bench.files import write_json
from onnxtrim.bench.latency import Protocol, compare_latency, measure_arms
from onnxtrim.bench.latency_metrics import latency_verdict
from onnxtrim.bench.launches import COPY
from onnxtrim.bench.machine import fingerprint
from onnxtrim.bench.memory import measure_memory
from onnxtrim.bench.selfcheck import reference_model
from onnxtrim.bench.session import Feeds, RunOptions
from onnxtrim.bench.stats import yuen_interval

RESULTS = Path(__file__).parent / "results"
ONE = RunOptions(1)
LAUNCHES, INTERVALS, INJECTED, VERDICTS, TURNS = 8, 60, 20, 12, 96
SLOWER = (0.0, 0.0, 0.02, 0.03)
LIMIT = 1.02

JOB = (
    "import os\nimport numpy as np\na, p = np.random.rand(400, 400), os.getppid()\n"
    "while os.getppid() == p:\n    a @ a\n"
)

BARE = """
import sys, time
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
for line in sys.stdin:
    times = []
    for n in range(int(line)):
        start = time.perf_counter_ns()
        session.run_with_iobinding(bindings[n % len(bindings)])
        times.append(time.perf_counter_ns() - start)
    print(np.median(times) / 1e6, flush=True)
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


def arms(
    model: Path,
    large: Path,
    feeds: Sequence[Feeds],
    wide: Sequence[Feeds],
    intervals: int,
    copies: Sequence[Sequence[float]],
) -> Iterator[Row]:
    """A/A and injected slowdowns, in the same turns; ``copies`` are A/A values known already."""
    covered = found = 0
    injected = math.ceil(intervals * INJECTED / INTERVALS)
    alarms = sum(not _holds_one(logs) for logs in copies)
    ratios = [[math.exp(log)] for logs in copies for log in logs]
    wait = []
    for number in range(intervals - len(copies)):
        protocol = Protocol(launches=LAUNCHES, seed=number)
        slower = SLOWER if number < injected else SLOWER[:2]
        result = measure_arms([model] * len(slower), feeds, ONE, protocol, slower)
        logs = {arm: result.logs(0.5, arm) for arm in range(1, len(slower))}
        alarms += not _holds_one(logs[1])
        if len(logs) > 1:
            small, larger = yuen_interval(logs[2]), yuen_interval(logs[3])
            covered += small.low <= math.log1p(SLOWER[2]) <= small.high
            found += larger.low > 0
        ratios += [[math.exp(logs[arm][k]) for arm in logs] for k in range(LAUNCHES)]
        wait.append(result.wait_share() or 0.0)
        print(f"{number + 1 + len(copies)} of {intervals}: {alarms} alarms", file=sys.stderr)
    yield {
        "what": f"A/A alarms in {intervals} intervals at 5%",
        "value": alarms,
        "target": "≤ 7 of 60",
        "holds": alarms <= 7 * intervals / INTERVALS,
        "wait_share": statistics.median(wait),
        "ratios": [[round(value, 6) for value in row] for row in ratios],
    }
    yield {
        "what": f"3% slower found, of {injected}",
        "value": found,
        "target": "≥ 19 of 20",
        "holds": found >= 0.95 * injected,
    }
    yield {
        "what": f"interval covers the injected 2%, of {injected}",
        "value": covered,
        "target": "≥ 18 of 20",
        "holds": covered >= 0.9 * injected,
    }
    yield _width("half-width after 10 launches, %", [math.log(row[0]) for row in ratios])
    count = 10 * math.ceil(intervals / 20)
    result = measure_arms([large] * 2, wide, ONE, Protocol(launches=count))
    yield _width("the same of a model with 6 MB of weights, %", result.logs(0.5))


def _holds_one(logs: Sequence[float]) -> bool:
    interval = yuen_interval(logs)
    return interval.low <= 0 <= interval.high


def _width(what: str, logs: Sequence[float]) -> Row:
    groups = [logs[first : first + 10] for first in range(0, len(logs) - 9, 10)]
    intervals = map(yuen_interval, groups)
    widths = [math.expm1((interval.high - interval.low) / 2) for interval in intervals]
    width = statistics.median(widths)
    return {
        "what": what,
        "value": round(100 * width, 3),
        "target": "≤ 0.5",
        "holds": width <= 0.005,
        "widths": [round(100 * value, 3) for value in widths],
    }


def verdicts(
    model: Path, slow: Path, feeds: Sequence[Feeds], count: int, copies: list[list[float]]
) -> Iterator[Row]:
    """Seconds until a limit of 2% is decided, and how; ``copies`` gets the A/A values."""
    seconds, answers = [], []
    for number in range(count):
        candidate = (model, slow)[number % 2]
        start = time.perf_counter()
        protocol = Protocol(limit=LIMIT, copy=True, seed=number)
        result = compare_latency(model, candidate, feeds, ONE, protocol)
        seconds.append(time.perf_counter() - start)
        answers.append(latency_verdict(result, LIMIT).verdict)
        copies.append(result.logs(0.5, COPY)[:LAUNCHES])
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


def bare_loop(model: Path, feeds: Sequence[Feeds], folder: Path, launches: int) -> Iterator[Row]:
    """Our p50 against a bare loop in a fresh process, in turn."""
    path = folder / "bare.npz"
    arrays: dict[str, Any] = {f"a{n}": sample["x0"] for n, sample in enumerate(feeds)}
    np.savez(path, **arrays)
    command = [sys.executable, "-c", BARE, str(model), str(path)]
    ratios = []
    with written_feeds(feeds) as written:
        for number in range(launches):
            generator = random.Random(number)
            bare = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            with bare, Arm(model) as arm:
                arm.wait_ready()
                arm.ask("open", model=str(model), feeds=written, options=ONE.to_json())
                calls = math.ceil(4 / arm.ask("warm_up")["call_ms"])
                _bare_p50(bare, 1000)
                logs = []
                for turn in range(TURNS):
                    ours_first = generator.random() < 0.5
                    loop = 0.0 if ours_first else _bare_p50(bare, calls)
                    told = arm.ask("round", calls=calls, settle=3, first=turn)
                    loop = _bare_p50(bare, calls) if ours_first else loop
                    logs.append(math.log(float(np.median(told["calls_ns"])) / 1e6 / loop))
                ratios.append(math.exp(statistics.median(logs)))
                assert bare.stdin is not None
                bare.stdin.close()
    interval = yuen_interval([math.log(ratio) for ratio in ratios])
    yield {
        "what": f"our p50 over a bare loop's, {launches} launches",
        "value": round(math.exp(interval.value), 4),
        "target": "1 ± 0.03",
        "holds": abs(interval.value) <= 0.03,
        "interval": [round(math.exp(value), 4) for value in (interval.low, interval.high)],
        "ratios": [round(value, 4) for value in ratios],
    }


def _bare_p50(process: subprocess.Popen[bytes], calls: int) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{calls}\n".encode())
    process.stdin.flush()
    return float(process.stdout.readline())


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
    intervals, count = (6, 2) if options.quick else (INTERVALS, VERDICTS)
    rows: list[Row] = []
    copies: list[list[float]] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, job():
        folder = Path(name)
        model, slow = folder / "model.onnx", folder / "slow.onnx"
        feeds = reference_model(model)
        reference_model(slow, extra=8)  # about 5% slower
        large = folder / "wide.onnx"
        wide = reference_model(large, width=512, batch=8)
        for part in (
            memory(folder),
            bare_loop(model, feeds, folder, count),
            verdicts(model, slow, feeds, count, copies),
            arms(model, large, feeds, wide, intervals, copies),
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
