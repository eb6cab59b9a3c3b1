"""Run commands on bad models in a child process that may crash, hang or fill the memory.

One child takes many jobs and tells what became of each; a job that takes it down is known by name,
and a new child goes on with the next one.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from onnxtrim.bench import trial
from tests import cli

MEMORY = 6 << 30  # bytes of address space of a child
HANG = 60.0  # seconds of one job
PRUNE = ("--mean-below", "0.3", "--std-below", "0.6")

Maker = Callable[[str, Path], tuple[Path, Path | None]]
"""Writes the model of a job, and data if there are any, into a folder."""


@dataclass(frozen=True)
class Outcome:
    """What one command did with one model.

    Attributes:
        job: Name of the model.
        command: ``inspect`` or ``prune``.
        code: Exit code; negative is the signal that killed the child, ``None`` a hang.
        line: What stood on stderr.
        seconds: How long it took.
        memory: Growth of the peak of the child's resident memory, bytes.
        left: Files that should not be there; ``["unloadable"]`` if the output does not load.
        noise: What was written past Python to stderr.
    """

    job: str
    command: str
    code: int | None
    line: str = ""
    seconds: float = 0.0
    memory: int = 0
    left: tuple[str, ...] = ()
    noise: str = ""

    def complaint(self) -> str:
        """What is wrong with it; empty if nothing."""
        if self.code is None:
            return "hangs"
        if self.code < 0:
            return f"killed by signal {-self.code}"
        lines = self.line.splitlines()
        for wrong, what in (
            (self.code not in (0, 1, 2), f"exit {self.code}"),
            (self.code and len(lines) != 1, f"{len(lines)} lines on stderr"),
            (self.code and not self.line.startswith("error: "), "no message"),
            ("Traceback" in self.line or "internal:" in self.line, "a traceback"),
            (len(self.line) > 700, "an endless line"),
            (self.left, f"left {', '.join(self.left)}"),
            (self.noise, "writes past the commands"),
            (self.memory > 5 << 30, f"takes {self.memory >> 20} MiB"),
        ):
            if wrong:
                return what
        return ""


def watch(
    jobs: Sequence[str],
    module: str,
    *,
    hang: float = HANG,
    memory: int = MEMORY,
    seconds: float | None = None,
) -> Iterator[Outcome]:
    """Run ``inspect`` and, if the job has data, ``prune`` on every job.

    Args:
        jobs: Their names.
        module: The module whose function ``make`` is a :data:`Maker`.
        hang: Most seconds for one job.
        memory: Most bytes of address space of the child.
        seconds: That a model has for its first runs, if not the usual ones.
    """
    left = list(jobs)
    while left:
        with tempfile.TemporaryDirectory() as folder:
            for outcome, finished in _child(tuple(left), module, folder, hang, memory, seconds):
                if outcome is not None:
                    yield outcome
                if finished:
                    left.pop(0)


def _child(
    jobs: Sequence[str],
    module: str,
    folder: str,
    hang: float,
    memory: int,
    seconds: float | None,
) -> Iterator[tuple[Outcome | None, bool]]:
    """Outcomes of one child, and whether the job is finished with it."""
    command = [sys.executable, "-m", "tests.watched", module, folder, str(memory)]
    command += [] if seconds is None else [str(seconds)]
    noise = Path(folder) / "noise"
    with noise.open("wb") as stderr:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=cli.environment(),
        )
    assert child.stdin is not None
    assert child.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_pass_on, args=(child.stdout, lines), daemon=True)
    reader.start()
    try:
        for job in jobs:
            child.stdin.write(job + "\n")
            child.stdin.flush()
            doing = "start"
            while True:
                try:
                    line = lines.get(timeout=hang + (30 if doing == "start" else 0))
                except queue.Empty:
                    yield Outcome(job, doing, None, seconds=hang), True
                    return
                if not line:
                    told = noise.read_text(errors="replace")[-2000:]
                    yield Outcome(job, doing, -abs(child.wait()), noise=told), True
                    return
                value = json.loads(line)
                if value == "done":
                    yield None, True
                    break
                if isinstance(value, str):
                    doing = value
                else:
                    yield Outcome(**{**value, "left": tuple(value["left"])}), False
    except BrokenPipeError:
        yield Outcome(job, "start", -abs(child.wait())), True
    finally:
        child.kill()
        child.wait()
        with contextlib.suppress(OSError):
            child.stdin.close()
        reader.join()
        child.stdout.close()


def _pass_on(source: TextIO, lines: queue.Queue[str]) -> None:
    for line in source:
        lines.put(line)
    lines.put("")


def _serve(module: str, folder: Path, memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    make: Maker = importlib.import_module(module).make
    answers = sys.stdout
    for number, line in enumerate(sys.stdin):
        job = line.rstrip("\n")
        place = folder / str(number)
        place.mkdir()
        model, data = make(job, place)
        commands: dict[str, tuple[object, ...]] = {"inspect": ("inspect", model, "--json")}
        if data is not None:
            output = ("-o", place / "out.onnx")
            commands["prune"] = ("prune", model, "--data", data, *PRUNE, *output, "--json")
        for name, arguments in commands.items():
            _answer(answers, name)
            _answer(answers, asdict(_try(job, name, arguments, place)))
        _answer(answers, "done")


def _answer(answers: TextIO, value: object) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _try(job: str, name: str, arguments: tuple[object, ...], place: Path) -> Outcome:
    before = set(cli.snapshot(place))
    told, peak = os.fstat(2).st_size, _peak()
    start = time.perf_counter()
    result = cli.run(*arguments)
    seconds = time.perf_counter() - start
    left = sorted(set(cli.snapshot(place)) - before)
    if result.code == 0 and name == "prune":
        left.remove("out.onnx")
        left += _unloadable(place / "out.onnx")
        (place / "out.onnx").unlink()
    noise = "" if os.fstat(2).st_size == told else "see the child's stderr"
    error = result.err if result.code else ""
    return Outcome(job, name, result.code, error, seconds, _peak() - peak, tuple(left), noise)


def _unloadable(path: Path) -> list[str]:
    import onnxruntime

    try:
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # of ONNX Runtime, without a common base
        return [f"an unloadable output ({error})"]
    return []


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if len(sys.argv) > 4:
        trial.SECONDS = float(sys.argv[4])
    _serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
