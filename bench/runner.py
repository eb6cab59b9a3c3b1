"""Measure on a device: one file that needs Python 3.9 or later, numpy and ONNX Runtime.

``onnxtrim bench --runner -o runner.pyz`` packs this package's measuring part. On the device,
``python runner.pyz model.onnx small.onnx -o result.json`` measures with the same protocol and
writes the same result file, which ``onnxtrim compare --from result.json`` reads.
"""

from __future__ import annotations

import argparse
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import onnxtrim
from onnxtrim.bench.compare import bench_model, compare
from onnxtrim.bench.errors import OnnxtrimError, WorkerError
from onnxtrim.bench.files import atomic_path
from onnxtrim.bench.latency import Protocol
from onnxtrim.bench.looks import CODES
from onnxtrim.bench.result_file import check_result_path, save_result
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings

_MAIN = "import sys\n\nfrom onnxtrim.bench.runner import main\n\nsys.exit(main())\n"


def write_runner(path: str | os.PathLike[str]) -> None:
    """Pack the measuring part of the package into one file that Python runs.

    Raises:
        InputError: A file can't be written there.
    """
    package = Path(onnxtrim.__file__).parent
    files = [package / "__init__.py", *sorted((package / "bench").glob("*.py"))]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            archive.writestr("__main__.py", _MAIN)
            for source in files:
                archive.write(source, f"onnxtrim/{source.relative_to(package)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one model, or two in turns; the exit code is that of ``onnxtrim compare``."""
    given = _parser().parse_args(arguments)
    try:
        return _measure(given)
    except OnnxtrimError as error:
        _say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _measure(given: argparse.Namespace) -> int:
    settings = Settings(
        options=RunOptions(given.threads, provider=given.provider, arena=not given.no_arena),
        protocol=Protocol(
            launches=given.launches,
            rounds=given.rounds,
            seed=given.seed,
            copy=given.candidate is not None and not given.no_copy,
            limit=given.limit,
            hertz=given.paced,
            cold=given.cold,
        ),
        batch=given.batch,
        memory=not given.no_memory,
        both_arenas=True,
        accuracy=False,
    )
    inputs = (given.original, given.candidate, given.data)
    check_result_path(given.output, *(path for path in inputs if path is not None))
    try:
        if given.candidate is None:
            found = bench_model(given.original, data=given.data, settings=settings)
        else:
            pair = (given.original, given.candidate)
            found = compare(*pair, data=given.data, settings=settings)
    except WorkerError as error:
        if error.finished is not None:
            save_result(error.finished, given.output)  # type: ignore[arg-type]
            _say(f"what was finished is in {given.output}")
        raise
    save_result(found, given.output)
    for text in found.warnings:
        _say(f"warning: {text}")
    name = "latency.p50.ratio" if given.candidate else "latency.p50"
    metric = found.metrics[name]
    interval = f"{metric.value:.4g} [{metric.low:.4g}, {metric.high:.4g}]"
    sys.stdout.write(f"{name} {interval} {metric.unit}\n")
    if found.latency_verdict is None:
        return 0
    sys.stdout.write(found.latency_verdict.words() + "\n")
    return CODES[found.latency_verdict.verdict]


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runner.pyz", description="Measure models in ONNX Runtime on this device."
    )
    parser.add_argument("original", help="the only model, or the one to compare with")
    parser.add_argument("candidate", nargs="?", help="the model that is compared")
    parser.add_argument("-o", "--output", required=True, help="result file (JSON)")
    parser.add_argument("--data", help="real inputs (.npz); seeded random ones else")
    parser.add_argument("--limit", type=float, help="largest latency ratio that passes")
    parser.add_argument("--launches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--paced", type=float, default=0.0, metavar="HZ")
    parser.add_argument("--cold", action="store_true", help="load from the disk")
    parser.add_argument("-x", "--threads", type=int, default=0)
    parser.add_argument("-e", "--provider", default="cpu")
    parser.add_argument("-A", "--no-arena", action="store_true")
    parser.add_argument("--no-copy", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    return parser
