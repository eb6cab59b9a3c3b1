"""Everything about one model, or about a candidate beside its original, in one object."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from onnxtrim.bench.accuracy import compare_accuracy, measure_accuracy
from onnxtrim.bench.data import DataSource, InputSpec, open_data
from onnxtrim.bench.denormals import count_denormals, denormal_warning, denormals_to_json
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.latency import compare_latency, measure_latency
from onnxtrim.bench.launches import LatencyResult
from onnxtrim.bench.machine import default_threads, fingerprint
from onnxtrim.bench.memory import RUNS, MemoryResult, measure_memory, memory_metrics
from onnxtrim.bench.model_file import model_sha256
from onnxtrim.bench.profile import channel_block, describe, describe_pair, profile_models
from onnxtrim.bench.results import Metric, Metrics, metrics_to_json
from onnxtrim.bench.session import Feeds, RunOptions, Sizes, open_session, random_feeds
from onnxtrim.bench.signature import check_models
from onnxtrim.bench.size import model_size, size_metrics

Progress = Callable[[str, int, int], None]
PathLike = str | os.PathLike[str]
Data = DataSource | PathLike | Mapping[str, NDArray[Any]]

FEEDS = 8  # different inputs that the measured calls cycle through
_ROLES = ("model", "original")
_PURPOSES = ("calibration", "validation", "distillation")
_BUSY = 0.02  # share of a round spent waiting for a CPU from which we say so


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
        options: How ONNX Runtime runs the models.
        launches: Fresh starts for latency, at least 2.
        rounds: Rounds per launch and model, even.
        seed: Of orders, paddings and random inputs.
        batch: Samples per call in latency and memory, where the model leaves that free.
        eval_batch: Samples per call in accuracy, likewise.
        sizes: Free dimensions of random inputs, see ``random_feeds``.
        latency: Whether to measure latency and load time.
        memory: Whether to measure memory.
        accuracy: Whether to measure accuracy, if there is data.
        profile: Whether to tell where the time goes, layer by layer; slow and apart.
    """

    options: RunOptions = field(default_factory=RunOptions)
    launches: int = 8
    rounds: int = 24
    seed: int = 0
    batch: int = 1
    eval_batch: int = 256
    sizes: Sizes = field(default_factory=dict)
    latency: bool = True
    memory: bool = True
    accuracy: bool = True
    profile: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("eval_batch", 1), ("launches", 2), ("rounds", 2)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; give {least} or more")
        if self.rounds % 2:
            raise InputError(f"rounds is {self.rounds}; give an even number")

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values, threads written out."""
        names = ("launches", "rounds", "seed", "batch", "eval_batch", "latency", "memory")
        return {**self.options.to_json(), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class Measurement:
    """What was measured of a model (``original`` is ``None``) or of two.

    Attributes:
        metrics: By name; the plain names are the model's or the candidate's.
        model: ``{"path", "sha256"}`` of the model or the candidate.
        original: The same of the original.
        settings: How it was measured.
        machine: Where it was measured.
        details: Values behind the metrics: launches, memory repeats, accuracy counts, the data,
            subnormal weights, the profile.
        warnings: What makes the figures less trustworthy, in words.
        latency: All rounds, if latency was measured.
    """

    metrics: Metrics
    model: dict[str, str]
    original: dict[str, str] | None
    settings: dict[str, Any]
    machine: dict[str, Any]
    details: dict[str, Any]
    warnings: tuple[str, ...]
    latency: LatencyResult | None

    def to_json(self) -> dict[str, Any]:
        """``onnxtrim.bench/1``, or ``onnxtrim.compare/1`` with ``original`` and ``candidate``."""
        if self.original is None:
            head: dict[str, Any] = {"schema": "onnxtrim.bench/1", "model": self.model}
        else:
            head = {
                "schema": "onnxtrim.compare/1",
                "original": self.original,
                "candidate": self.model,
            }
        return {
            **head,
            "metrics": metrics_to_json(self.metrics),
            "options": self.settings,
            "machine": self.machine,
            "details": self.details,
            "warnings": list(self.warnings),
        }


def compare(
    original: PathLike,
    candidate: PathLike,
    *,
    data: Data | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure a candidate beside its original: size, accuracy, memory, load time and latency.

    Args:
        original: Path of the original.
        candidate: Path of the candidate; its inputs and outputs must be the original's.
        data: Real samples, with labels if accuracy is wanted. Without them the inputs are random.
        settings: What to measure, and how.
        progress: Called with what is being done, how much is done, and the total.

    Raises:
        InputError: Unfit files, models, data or settings.
        WorkerError: A measuring process died, or the clock does not move.
    """
    return _measure([candidate, original], data, settings or Settings(), progress)


def bench_model(
    model: PathLike,
    *,
    data: Data | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure one model; arguments and errors as of :func:`compare`."""
    return _measure([model], data, settings or Settings(), progress)


def _measure(
    models: list[PathLike], data: Data | None, settings: Settings, progress: Progress | None
) -> Measurement:
    """Measure ``[model]`` or ``[candidate, original]``; what is quick and may fail comes first."""
    inputs = check_models(models, settings.options)
    source = None
    if data is not None:
        source = data if isinstance(data, DataSource) else open_data(data, inputs)
    feeds, labelled = _feeds(inputs, source, settings)
    machine = fingerprint()
    sizes = [model_size(model) for model in models]
    metrics = size_metrics(sizes[0], sizes[1] if len(models) == 2 else None)
    denormals = [count_denormals(model) for model in models]
    details: dict[str, Any] = {
        "parameters": sizes[0].parameters,
        "denormals": dict(zip(_ROLES, map(denormals_to_json, denormals), strict=False)),
        "feeds": "random" if source is None else "data",
    }
    if source is not None and settings.accuracy:
        metrics |= _accuracy(models, source, labelled, settings, progress, details)
    memory: list[MemoryResult] = []
    if settings.memory:
        memory = measure_memory(models, feeds, settings.options, progress=progress)
        metrics |= memory_metrics(*memory)
        details["memory"] = {k: v.to_json() for k, v in zip(_ROLES, memory, strict=False)}
    latency = None
    if settings.latency:
        latency = _latency(models, feeds, settings, progress)
        metrics |= latency.metrics()
        details["latency"] = latency.to_json()
    if settings.profile:
        ratio = metrics.get("latency.p50.ratio")
        details["profile"] = _profile(models, feeds, settings, progress, ratio)
    if source is not None:
        details["data"] = _about(source)
    used = [*filter(None, map(denormal_warning, models, denormals))]
    if source is not None and labelled and settings.accuracy:
        used += _used_before(models[0], source, settings)
    return Measurement(
        metrics=metrics,
        model=_identity(models[0]),
        original=_identity(models[1]) if len(models) == 2 else None,
        settings=settings.to_json(),
        machine=machine,
        details=details,
        warnings=(*used, *_warnings(settings, latency, memory)),
        latency=latency,
    )


def _feeds(
    inputs: list[InputSpec], source: DataSource | None, settings: Settings
) -> tuple[list[Feeds], bool]:
    """Inputs for latency and memory, and whether the data has labels."""
    if source is None:
        free = {spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], str)}
        sizes = {**{name: settings.batch for name in free if name}, **settings.sizes}
        return random_feeds(inputs, sizes, seed=settings.seed, count=FEEDS), False
    with contextlib.closing(source.batches(settings.batch)) as stream:
        batches = list(itertools.islice(stream, FEEDS))
    full = [batch for batch in batches if len(batch) == len(batches[0])]
    return [batch.feeds for batch in full], batches[0].labels is not None


def _accuracy(
    models: list[PathLike],
    source: DataSource,
    labelled: bool,
    settings: Settings,
    progress: Progress | None,
    details: dict[str, Any],
) -> Metrics:
    rest = (source, settings.options, settings.eval_batch, progress)
    if len(models) == 1:
        return measure_accuracy(models[0], *rest) if labelled else {}
    metrics, counts = compare_accuracy(models[1], models[0], *rest)
    details["accuracy"] = {
        "samples": counts.samples,
        "losses": counts.losses,
        "gains": counts.gains,
        "relative_error": counts.relative_error(),
    }
    return metrics


def _latency(
    models: list[PathLike], feeds: list[Feeds], settings: Settings, progress: Progress | None
) -> LatencyResult:
    numbers: dict[str, Any] = {
        "launches": settings.launches,
        "rounds": settings.rounds,
        "seed": settings.seed,
        "progress": progress,
    }
    if len(models) == 1:
        return measure_latency(models[0], feeds, settings.options, **numbers)
    return compare_latency(models[1], models[0], feeds, settings.options, **numbers)


def _profile(
    models: list[PathLike],
    feeds: list[Feeds],
    settings: Settings,
    progress: Progress | None,
    p50_ratio: Metric | None,
) -> dict[str, Any]:
    profiles = profile_models(models, feeds, settings.options, progress=progress)
    if len(models) == 1:
        return describe(profiles[0])
    block = channel_block(fingerprint()["cpu_flags"])
    value = None if p50_ratio is None else p50_ratio.value
    return describe_pair(profiles[1], profiles[0], block, value)


def _identity(model: PathLike) -> dict[str, str]:
    return {"path": str(model), "sha256": model_sha256(model)}


def _about(source: DataSource) -> dict[str, Any]:
    digest = source.sha256  # may make a pass that also counts the samples
    return {"name": source.name, "sha256": digest, "samples": source.samples}


def _used_before(model: PathLike, source: DataSource, settings: Settings) -> list[str]:
    """Say if the model was made with the data that it is judged on."""
    made = open_session(model, settings.options).get_modelmeta().custom_metadata_map
    return [
        f"these samples were used before, as {purpose} data of {model}: its accuracy on them is"
        " too good; give others"
        for purpose in _PURPOSES
        if source.sha256 in made.get(f"onnxtrim.{purpose}_sha256", "").split("+")
    ]


def _warnings(
    settings: Settings, latency: LatencyResult | None, memory: list[MemoryResult]
) -> list[str]:
    found = []
    threads, useful = settings.options.resolved().threads, default_threads()
    if threads > useful:
        found.append(f"{threads} threads on {useful} usable CPUs: latency is not representative")
    wait = latency.wait_share() if latency else None
    if wait is not None and wait > _BUSY:
        found.append(
            f"the machine was busy: {wait:.0%} of the time went to waiting for a CPU; ratios hold"
            " for this load, absolute times are too high"
        )
    for role, result in zip(_ROLES, memory, strict=False):
        if result.growing:
            found.append(f"memory of the {role} still grows after {RUNS} runs")
    return found
