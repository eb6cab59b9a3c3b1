"""A sweep that is killed, or interrupted, loses at most the candidate in flight."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from onnxtrim.bench.run_folder import load_run
from tests import cli
from tests.cli import QUICK, snapshot

ROOT = Path(__file__).parents[1]
GRID = "0.3 0.5\n0.4 0.6\n0.400001 0.600001\n0.5 0.8\n"
MEASURED = ("latency.", "load.", "memory.")
PATIENCE = 120.0


@contextlib.contextmanager
def sweeping(here: Path, output: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own; killed at the end of the block."""
    command = ["sweep", "model.onnx", "--data", "calib.npz", "--eval", "test.npz"]
    command += ["--grid", "grid.txt", "-o", output]
    # A runner in the background ignores Ctrl-C, which its children would inherit.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "onnxtrim", *command, "--no-memory", *QUICK, *more],
            cwd=here,
            env={**cli.environment(), "TMPDIR": str(here)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    with process:
        try:
            yield process
        finally:
            process.kill()


def whole_lines(here: Path, output: str) -> list[bytes]:
    path = here / output / "results.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def wait_for(process: subprocess.Popen[str], here: Path, output: str, count: int) -> None:
    """Wait until so many results are there."""
    deadline = time.monotonic() + PATIENCE
    while len(whole_lines(here, output)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def apart_from_timings(lines: list[bytes]) -> list[dict[str, Any]]:
    results = [json.loads(line) for line in lines]
    for result in results:
        result["metrics"] = {
            name: metric
            for name, metric in result["metrics"].items()
            if not name.startswith(MEASURED)
        }
    return results


@pytest.mark.slow
def test_killed_five_times_it_gives_the_same_results(here: Path) -> None:
    (here / "grid.txt").write_text(GRID)
    with sweeping(here, "whole", "--no-latency") as process:
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    chance = random.Random(20)
    for wanted in (0, 0, 1, 1, 2):  # so that every kill finds some more work done
        before = whole_lines(here, "run")
        with sweeping(here, "run") as process:
            wait_for(process, here, "run", wanted)
            time.sleep(chance.uniform(0, 1.5 if wanted == 0 else 0.6))
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was to be killed before its end"
        assert whole_lines(here, "run")[: len(before)] == before, "finished results never change"
        check_models(here)
    with sweeping(here, "run") as process:
        out, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert "0.5, 0.8" in out
    whole, resumed = whole_lines(here, "whole"), whole_lines(here, "run")
    assert apart_from_timings(resumed) == apart_from_timings(whole)
    assert "latency.p50.ratio" in json.loads(resumed[-1])["metrics"]
    assert len(resumed) == 1 + len(GRID.splitlines())
    assert snapshot(here / "run" / "models") == snapshot(here / "whole" / "models")
    assert snapshot(here / "run").keys() == snapshot(here / "whole").keys()


def check_models(here: Path) -> None:
    """What lies there under a final name is whole."""
    for path in (here / "run").glob("models/[!.]*.onnx"):
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for path in (here / "run").glob("[!.]*.json"):
        json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(here: Path) -> None:
    (here / "grid.txt").write_text(GRID)
    with sweeping(here, "run") as process:
        wait_for(process, here, "run", 2)
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert told == "interrupted; finished results are kept\n"
    assert out == ""
    run = load_run(here / "run")
    assert not run.finished
    assert run.candidates[0].metrics["latency.p50.ratio"].low > 0
    assert not list(here.glob("onnxtrim-*")), "temporary files are cleaned up"
