"""What statistics, ordering and pruning cost in time and memory.

``python benchmarks/costs.py`` prints a table and writes ``benchmarks/results/costs.json``. It uses
the networks of ``trained.py`` (seed 0). A pass with second moments is timed in turn with a plain
pass of ONNX Runtime over the same samples; the ratio is the median over the rounds. Let nothing
else run beside it. ``--part pruning`` measures that alone; the other rows of the file stay.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from trained import trained

from onnxtrim.bench.data import Batch, DataSource
from onnxtrim.bench.machine import fingerprint
from onnxtrim.bench.session import RunOptions, open_session
from onnxtrim.toolkit.elimination import Term, eliminate
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.second_moments import gather_halves, half_batch, read_points

RESULT = Path(__file__).parent / "results" / "costs.json"
NETS = ("mlp", "residual_cnn", "depthwise_cnn", "lstm", "vit")
SAMPLES, ROUNDS = 5_000, 5
FEW, MANY = 1_000, 100_000


class Repeated(DataSource):
    """Some samples over and over, so that many cost no memory."""

    def __init__(self, samples: dict[str, NDArray[Any]], inputs: Any, count: int) -> None:
        super().__init__("repeated", inputs, count)
        self._arrays = samples

    @property
    def sha256(self) -> str:
        """Of nothing."""
        return "0" * 64

    def _blocks(self, size: int) -> Iterator[Batch]:
        length = len(next(iter(self._arrays.values())))
        done = 0
        while done < (self.samples or 0):
            first = done % (length - size)
            yield Batch({n: a[first : first + size] for n, a in self._arrays.items()}, None)
            done += size


def seconds(action: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def moments(name: str) -> Iterator[dict[str, Any]]:
    """A pass with second moments against a plain one."""
    net = trained(name, 0)
    x = np.load(net.calibration, allow_pickle=False)["x"][:SAMPLES]
    prepared, data = prepare(net.model, {"x": x})
    assert data is not None  # it was just given
    points, batch = read_points(prepared.analysis), half_batch(data.samples)
    session = open_session(net.model, RunOptions())

    def plain() -> None:
        for item in data.batches(batch):
            session.run(None, item.feeds)

    ratios, plains = [], []
    for number in range(ROUNDS + 1):
        one = seconds(plain)
        other = seconds(lambda: gather_halves(prepared.analysis, points, data, batch))
        if number:  # the first warms up
            ratios.append(other / one)
            plains.append(one)
    yield {
        "what": f"second moments of {name}, over a plain pass",
        "value": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "unit": "x",
        "plain_seconds": statistics.median(plains),
        "samples": SAMPLES,
    }


def memory() -> Iterator[dict[str, Any]]:
    """Peak memory of a process that gathers second moments of the residual CNN."""
    for count in (FEW, MANY):
        command = [sys.executable, __file__, "--peak", str(count)]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        yield {
            "what": f"peak memory with {count:,} samples",
            "value": float(found.stdout),
            "unit": "MB",
        }


def peak(count: int) -> float:
    """Megabytes, of this process."""
    net = trained("residual_cnn", 0)
    x = np.load(net.calibration, allow_pickle=False)["x"][:1_000]
    prepared, _ = prepare(net.model, {"x": x})
    source = Repeated({"x": x}, prepared.inputs, count)
    gather_halves(prepared.analysis, read_points(prepared.analysis), source)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ordering() -> Iterator[dict[str, Any]]:
    """Order the units of one group with one reader."""
    for units in (1_024, 4_096):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2 * units, units)) @ rng.standard_normal((units, units))
        weight = rng.standard_normal((units, 256))
        term = Term(x.T @ x / len(x), weight @ weight.T, np.arange(units), 1.0)
        yield {
            "what": f"order {units:,} units",
            "value": seconds(lambda term=term, units=units: eliminate([term], units)),  # type: ignore[misc]
            "unit": "s",
        }


def pruning() -> Iterator[dict[str, Any]]:
    """The whole command on 5,000 images."""
    for name in ("mlp", "residual_cnn", "depthwise_cnn"):
        net = trained(name, 0)
        with tempfile.TemporaryDirectory() as folder:
            calibration, small = Path(folder) / "calib.npz", Path(folder) / "small.onnx"
            np.savez(calibration, x=np.load(net.calibration, allow_pickle=False)["x"][:5_000])
            command = [sys.executable, "-m", "onnxtrim", "prune", str(net.model)]
            command += ["--data", str(calibration), "--remove", "74%", "-o", str(small)]
            found = seconds(lambda c=command: subprocess.run(c, check=True, capture_output=True))  # type: ignore[misc]
        yield {"what": f"prune --remove 74% of {name}, 5,000 images", "value": found, "unit": "s"}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parts = {
        "moments": lambda: itertools.chain.from_iterable(map(moments, NETS)),
        "ordering": ordering,
        "pruning": pruning,
        "memory": memory,
    }
    parser.add_argument("--part", choices=parts, action="append", help="only these")
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak))
        return
    before = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.exists() else []
    found = {row["what"]: row for row in before}
    for name in options.part or parts:
        for row in parts[name]():
            print(json.dumps(row), file=sys.stderr)
            found[row["what"]] = row
    rows = list(found.values())
    table = Table(title="Costs")
    for column in ("what", "value", "range"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        spread = f"{row['low']:.2f} to {row['high']:.2f}" if "low" in row else ""
        table.add_row(row["what"], f"{row['value']:.2f} {row['unit']}", spread)
    Console(width=110).print(table)
    RESULT.write_text(json.dumps({"machine": fingerprint(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
