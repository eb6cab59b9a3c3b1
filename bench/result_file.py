"""Result files: the JSON of a measurement, and every single call of it in an ``.npz`` beside.

A result file is bound to what was measured: the hashes of the models and of the data, the hash of
the raw rounds, and one of all that the file itself says. It is read back without measuring
anything; latency and memory are computed anew from what was recorded.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import atomic_path, check_target, sha256_file, write_json
from onnxtrim.bench.json_reader import JsonReader, parse_line
from onnxtrim.bench.latency_metrics import latency_warnings
from onnxtrim.bench.launches import LatencyResult
from onnxtrim.bench.measurement import INDEPENDENT, Measurement, memory_from_details
from onnxtrim.bench.results import Metric, Metrics
from onnxtrim.bench.throughput import ThroughputResult
from onnxtrim.bench.verdict import Verdict, non_inferior

MOST_BYTES = 2**30
"""Of the raw rounds; a call takes 8."""

_COMPUTED = ("latency", "load", "energy", "memory", "throughput")
"""Families of metrics that are computed anew from the evidence, and taken from nowhere else."""

SCHEMAS = ("onnxtrim.bench/1", "onnxtrim.compare/1")


def raw_path(path: str | os.PathLike[str]) -> Path:
    """Where the raw rounds of a result file lie."""
    return Path(str(path).removesuffix(".json") + ".npz")


def check_result_path(path: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Check that a result can be written there, before anything is measured.

    Raises:
        InputError: It can't, or it or its raw rounds would replace an input.
    """
    if Path(path).suffix == ".npz":
        raise InputError(f"{path}: a result is JSON, with an .npz beside it; call it .json")
    for target in (Path(path), raw_path(path)):
        check_target(target)
        for source in inputs:
            if os.path.realpath(target) == os.path.realpath(source):
                raise InputError(f"{path}: would replace {source}; choose another path")


def save_result(measurement: Measurement, path: str | os.PathLike[str]) -> None:
    """Write a measurement; the raw rounds first, so that a result never lacks them.

    Raises:
        InputError: A file can't be written there.
    """
    check_result_path(path)
    value = measurement.to_json()
    json.dumps(value, allow_nan=False)  # or nothing is written at all
    if measurement.latency is not None:
        raw = raw_path(path)
        with atomic_path(raw) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = measurement.latency.arrays()
            np.savez_compressed(file, **arrays)
        value["raw"] = {"file": raw.name, "sha256": sha256_file(raw)}
    write_json(path, {**value, "digest": digest(value)})


def digest(value: dict[str, Any]) -> str:
    """SHA-256 of a result's JSON without its digest: a change by accident or by hand shows."""
    rest = {key: part for key, part in value.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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
        if value.get("digest", str) != digest(value.value):
            raise InputError(f"{path}: was changed after it was measured; measure again")
        for role in ("candidate", "original") if pair else ("model",):
            about = JsonReader(value.get(role, dict), f"{path}: {role}")
            about.get("path", str), about.get("sha256", str)
        recorded = _metrics(value.get("metrics", dict))
        metrics = {k: v for k, v in recorded.items() if k.partition(".")[0] not in _COMPUTED}
        _require_evidence(options, details, metrics)
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
        if "latency" not in details and "raw" not in value.value:
            return found
        return _with_rounds(found, value.get("raw", dict), path)
    except InputError:
        raise
    except Exception as error:  # whatever a file that was edited holds
        raise InputError(
            f"{path}: is damaged ({type(error).__name__}: {error}); measure again"
        ) from error


def _require_evidence(
    options: dict[str, Any], details: dict[str, Any], metrics: Mapping[str, Any]
) -> None:
    """What was asked must have been measured, or a claim would vanish."""
    for name, evidence in (("limit", "latency"), ("max_drop", "accuracy")):
        broken = bool(details.get("not_finished"))  # which gives no verdict anyway
        if options[name] is not None and evidence not in details and not broken:
            raise ValueError(f"{name} was to be judged, but there is no {evidence}")
    if "accuracy" in details:
        counts = [details["accuracy"][name] for name in ("samples", "losses", "gains")]
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError("counts of samples that are no counts")
        units = details["accuracy"]["units"]
        if type(units) is not int or not 0 <= units <= counts[0]:
            raise ValueError("independent samples that are no count")
        if INDEPENDENT in metrics and units < counts[0]:
            raise ValueError("answers that are independent and are not")
        _check_intervals(details["accuracy"].get("intervals", {}))
        for part in details["accuracy"]["classes"]:
            some = [part[name] for name in ("losses", "gains", "samples", "class")]
            if any(type(count) is not int or count < 0 for count in some):
                raise ValueError("counts of a class that are no counts")
            if not some[0] + some[1] <= some[2] > 0:
                raise ValueError("more flips than samples of a class")
        if INDEPENDENT in metrics and not sum(counts[1:]) <= counts[0] > 0:
            raise ValueError("more flips than samples")
    if not isinstance(details.get("data", {}), dict):
        raise ValueError("data that are no table")
    for name in ("memory", "memory_other_arena"):
        for role, told in details.get(name, {}).items():
            for repeat in told["repeats"]:
                peaks = (repeat["load_peak"], repeat["run_peak"])
                steady = [size for size in repeat["steady_pss"] if size is not None]
                if any(type(size) is not int for size in (*peaks, *steady)) or min(peaks) < 0:
                    raise ValueError(f"memory of the {role} that is no number of bytes")


def _check_intervals(intervals: Mapping[str, Any]) -> None:
    """Of a metric, the more certain ones must hold the less certain ones."""
    for name, told in intervals.items():
        before = (0.0, math.inf, -math.inf)
        for confidence, low, high in sorted(told):
            if not (before[0] < confidence < 1 and low <= high):
                raise ValueError(f"intervals of {name} that are none")
            if not (low <= before[1] and high >= before[2]):
                raise ValueError(f"intervals of {name} that don't hold each other")
            before = (confidence, low, high)


def _with_rounds(
    found: Measurement, raw: dict[str, Any], path: str | os.PathLike[str]
) -> Measurement:
    file = Path(path).parent / Path(str(raw["file"])).name  # never out of the folder
    if sha256_file(file) != raw["sha256"]:
        raise InputError(f"{file}: is not what {path} was computed from (its hash differs)")
    try:
        with zipfile.ZipFile(file) as members:
            if sum(member.file_size for member in members.infolist()) > MOST_BYTES:
                raise InputError(f"{file}: is larger than any measurement")
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
    if options["max_drop"] is None:
        return None
    losses, gains, samples = (
        int(details["accuracy"][name]) for name in ("losses", "gains", "samples")
    )
    margin = float(options["max_drop"]) / 100
    return non_inferior(losses, gains, samples, margin, rules=int(options["rules"]))


def _metrics(value: dict[str, Any]) -> Metrics:
    metrics: Metrics = {}
    for name, about in value.items():
        numbers = [float(about[key]) for key in ("value", "low", "high")]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"{name} is no number")
        metrics[name] = Metric(numbers[0], numbers[1], numbers[2], str(about["unit"]))
    return metrics


def _parsed(path: str | os.PathLike[str]) -> Any:
    try:
        return parse_line(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
