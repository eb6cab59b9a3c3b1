"""Result files: the JSON of a measurement, and every single call of it in an ``.npz`` beside.

A result file is bound to what was measured: the hashes of the models and of the data, and the
hash of the raw rounds. It is read back without measuring anything; latency and memory are
computed anew from what was recorded.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import atomic_path, check_target, sha256_file, write_json
from onnxtrim.bench.json_reader import JsonReader, parse_line
from onnxtrim.bench.latency_metrics import latency_warnings
from onnxtrim.bench.launches import LatencyResult
from onnxtrim.bench.measurement import Measurement, memory_from_details
from onnxtrim.bench.results import Metric, Metrics
from onnxtrim.bench.throughput import ThroughputResult
from onnxtrim.bench.verdict import Verdict, non_inferior

SCHEMAS = ("onnxtrim.bench/1", "onnxtrim.compare/1")


def raw_path(path: str | os.PathLike[str]) -> Path:
    """Where the raw rounds of a result file lie."""
    return Path(path).with_suffix(".npz")


def save_result(measurement: Measurement, path: str | os.PathLike[str]) -> None:
    """Write a measurement; the raw rounds first, so that a result never lacks them.

    Raises:
        InputError: A file can't be written there.
    """
    check_target(path)
    value = measurement.to_json()
    if measurement.latency is not None:
        raw = raw_path(path)
        with atomic_path(raw) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = measurement.latency.arrays()
            np.savez_compressed(file, **arrays)
        value["raw"] = {"file": raw.name, "sha256": sha256_file(raw)}
    write_json(path, value)


def load_result(path: str | os.PathLike[str]) -> Measurement:
    """Read a result file; metrics of latency and memory are computed anew.

    Raises:
        InputError: It can't be read, is no result, or its raw rounds are not those it names.
    """
    value = JsonReader(_parsed(path), str(path))
    schema = value.get("schema", str)
    if schema not in SCHEMAS:
        value.fail(f"has schema {schema!r}, which is none of {', '.join(SCHEMAS)}")
    pair = "candidate" in value.value
    details, options = value.get("details", dict), value.get("options", dict)
    try:
        metrics = _metrics(value.get("metrics", dict))
        again = memory_from_details(details, arena=bool(options["arena"]))
        if "throughput" in details:
            again |= ThroughputResult.from_json(details["throughput"]).metrics()
        found = Measurement(
            metrics=metrics | again,
            model=value.get("candidate" if pair else "model", dict),
            original=value.get("original", dict) if pair else None,
            settings=options,
            machine=value.get("machine", dict),
            details=details,
            warnings=tuple(str(text) for text in value.get("warnings", list)),
            latency=None,
            verdict=_accuracy_verdict(options, details),
        )
        raw = value.get("raw", dict, None)
        return found if raw is None else _with_rounds(found, raw, path)
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
        raise InputError(
            f"{path}: is damaged ({type(error).__name__}: {error}); measure again"
        ) from error


def _with_rounds(
    found: Measurement, raw: dict[str, Any], path: str | os.PathLike[str]
) -> Measurement:
    file = Path(path).parent / Path(str(raw["file"])).name  # never out of the folder
    if sha256_file(file) != raw["sha256"]:
        raise InputError(f"{file}: is not what {path} was computed from (its hash differs)")
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: can't be read ({error})") from error
    latency = LatencyResult.from_parts(found.details["latency"], arrays)
    before = found.details["latency"].get("verdict") or {}
    told = set(latency_warnings(latency))
    rest = replace(found, warnings=tuple(text for text in found.warnings if text not in told))
    return rest.with_latency(latency, broken=str(before["why"]) if before.get("broken") else "")


def _accuracy_verdict(options: dict[str, Any], details: dict[str, Any]) -> Verdict | None:
    if options["max_drop"] is None or "accuracy" not in details:
        return None
    losses, gains, samples = (
        int(details["accuracy"][name]) for name in ("losses", "gains", "samples")
    )
    return non_inferior(losses, gains, samples, float(options["max_drop"]) / 100)


def _metrics(value: dict[str, Any]) -> Metrics:
    return {
        name: Metric(
            float(about["value"]), float(about["low"]), float(about["high"]), str(about["unit"])
        )
        for name, about in value.items()
    }


def _parsed(path: str | os.PathLike[str]) -> Any:
    try:
        return parse_line(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
