"""Everything about one model, or about a candidate beside its original, in one object."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Union

from numpy.typing import NDArray

from onnxtrim.bench.accuracy import compare_accuracy, measure_accuracy
from onnxtrim.bench.bootstrap import LEAST_SAMPLES
from onnxtrim.bench.data import DataSource, InputSpec, open_data
from onnxtrim.bench.denormals import count_denormals, denormal_warning, denormals_to_json
from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.latency import Decided, compare_latency, measure_latency
from onnxtrim.bench.launches import LatencyResult
from onnxtrim.bench.machine import default_threads, fingerprint
from onnxtrim.bench.measurement import ROLES, Measurement, memory_from_details
from onnxtrim.bench.memory import RUNS, MemoryResult, measure_memory
from onnxtrim.bench.model_file import check_model_file, files_sha256, has_onnx
from onnxtrim.bench.profile import channel_block, describe, describe_pair, profile_models
from onnxtrim.bench.results import Metrics
from onnxtrim.bench.session import Feeds, open_session, random_feeds
from onnxtrim.bench.settings import Settings
from onnxtrim.bench.signature import check_models
from onnxtrim.bench.size import file_metrics, model_size, size_metrics
from onnxtrim.bench.throughput import measure_throughput
from onnxtrim.bench.verdict import Verdict, non_inferior

Progress = Callable[[str, int, int], None]
PathLike = Union[str, "os.PathLike[str]"]
Data = Union[DataSource, PathLike, Mapping[str, NDArray[Any]]]  # noqa: UP007  (Python 3.9)

FEEDS = 8  # different inputs that the measured calls cycle through
_PURPOSES = ("calibration", "validation", "distillation")
_CHANGES = ("cpu", "cpus", "cpu_quota", "governor", "onnxruntime")  # must not, while measuring


def compare(
    original: PathLike,
    candidate: PathLike,
    *,
    data: Data | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    decided: Decided | None = None,
    until: float | None = None,
) -> Measurement:
    """Measure a candidate beside its original: size, accuracy, memory, load time and latency.

    Args:
        original: Path of the original.
        candidate: Path of the candidate; its inputs and outputs must be the original's.
        data: Real samples, with labels if accuracy is wanted; classes of shape ``(samples,)``, or
            numbers of shape ``(samples, ...)`` as the metrics need them. Without samples the inputs
            are random.
        settings: What to measure, and how.
        progress: Called with what is being done, how much is done, and the total.
        decided: As of :func:`.compare_latency`.
        until: Likewise.

    Raises:
        InputError: Unfit files, models, data or settings.
        WorkerError: A measuring process died, or the clock does not move; its ``finished`` is the
            :class:`Measurement` of what was done before.
    """
    chosen = settings or Settings()
    if chosen.claims:
        chosen = replace(chosen, protocol=replace(chosen.protocol, rules=chosen.claims))
    return _measure([candidate, original], data, chosen, progress, decided, until)


def bench_model(
    model: PathLike,
    *,
    data: Data | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure one model; arguments and errors as of :func:`compare`."""
    chosen = settings or Settings()
    if chosen.protocol.limit is not None:
        raise InputError("limit is of the ratio of two models, and there is one")
    return _measure([model], data, chosen, progress)


def _measure(
    models: list[PathLike],
    data: Data | None,
    settings: Settings,
    progress: Progress | None,
    decided: Decided | None = None,
    until: float | None = None,
) -> Measurement:
    """Measure ``[model]`` or ``[candidate, original]``; what is quick and may fail comes first."""
    inputs = check_models(models, settings.options)
    source = None
    if data is not None:
        free = len(models) == 2 or bool(settings.metrics)
        source = data if isinstance(data, DataSource) else open_data(data, inputs, any_labels=free)
    if settings.max_drop is not None and source is None:
        raise InputError("max_drop needs samples with labels to judge accuracy")
    feeds, labelled = _feeds(inputs, source, settings)
    machine = fingerprint()
    files = [(Path(model), *check_model_file(model)) for model in models]
    identities = [
        {"path": str(model), "sha256": files_sha256(parts)} for model, parts in zip(models, files)
    ]
    details: dict[str, Any] = {
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "feeds": "random" if source is None or settings.generated else "data",
    }
    used: list[str] = []
    judged = labelled or settings.fresh_data
    if source is not None and judged and settings.accuracy:
        used = _used_before(models[0], source, settings)
        if used and (settings.fresh_data or settings.max_drop is not None):
            raise InputError(used[0])
        details["used_before"] = bool(used)
    if has_onnx():
        sizes = [model_size(model) for model in models]
        metrics = size_metrics(sizes[0], sizes[1] if len(models) == 2 else None)
        details["parameters"] = sizes[0].parameters
        denormals = [count_denormals(model) for model in models]
        details["denormals"] = dict(zip(ROLES, map(denormals_to_json, denormals)))
        used += filter(None, map(denormal_warning, models, denormals))
    else:
        metrics = file_metrics(models)
    verdict = None
    if source is not None and settings.accuracy and len(models) == 2:
        found, verdict = _compare_accuracy(models, source, settings, progress, details)
        metrics |= found
        counts = details["accuracy"]
        if counts["groups"] and counts["units"] < LEAST_SAMPLES:
            used.append(
                f"accuracy is of {counts['groups']} groups, in effect {counts['units']} of like"
                " size: its intervals are rough"
            )
    elif source is not None and settings.accuracy and (labelled or settings.metrics):
        rest = (source, settings.options, settings.eval_batch, progress)
        metrics |= measure_accuracy(
            models[0], *rest, metrics=settings.metrics, seed=settings.protocol.seed
        )
    if source is not None:
        details["data"] = _about(source)
    whole = Measurement(
        metrics=metrics,
        model=identities[0],
        original=identities[1] if len(models) == 2 else None,
        settings=settings.to_json(),
        machine=machine,
        details=details,
        warnings=tuple(used),
        latency=None,
        verdict=verdict,
    )
    memory: list[MemoryResult] = []
    try:
        if settings.memory:
            memory = _memory(models, feeds, settings, progress, metrics, details)
        if settings.throughput:
            batches = {settings.batch, settings.throughput}
            some = {n: _feeds(inputs, source, replace(settings, batch=n))[0] for n in batches}
            metrics |= _throughput(models, some, settings, progress, details, until)
        warnings = (*used, *_warnings(settings, memory))
        whole = replace(whole, metrics=metrics, warnings=warnings)
        if settings.latency:
            latency = _latency(models, feeds, settings, progress, decided, until)
            now = fingerprint()
            changed = [name for name in _CHANGES if now[name] != machine[name]]
            broken = f"{', '.join(changed)} of the machine changed meanwhile" if changed else ""
            details["changed"] = broken
            whole = whole.with_latency(latency, broken=broken)
        whole = _with_profile(whole, models, feeds, settings, progress)
    except WorkerError as error:
        whole = replace(whole, warnings=(*whole.warnings, f"not finished: {error}"))
        whole.details["not_finished"] = str(error)
        if isinstance(error.finished, LatencyResult):
            whole = whole.with_latency(error.finished, broken=str(error))
        error.finished = whole
        raise
    for parts, identity in zip(files, identities):
        if files_sha256(parts) != identity["sha256"]:
            raise InputError(f"{parts[0]}: was changed while it was measured; measure again")
    return whole


def _feeds(
    inputs: list[InputSpec], source: DataSource | None, settings: Settings
) -> tuple[list[Feeds], bool]:
    """Inputs for latency and memory, and whether the data has labels."""
    batches = []
    if source is not None:
        with contextlib.closing(source.batches(settings.batch)) as stream:
            batches = list(itertools.islice(stream, FEEDS))
    labelled = bool(batches) and batches[0].labels is not None
    if source is None or settings.generated:
        free = {spec.shape[0] for spec in inputs if spec.shape and isinstance(spec.shape[0], str)}
        sizes = {**{name: settings.batch for name in free if name}, **settings.sizes}
        found = random_feeds(inputs, sizes, seed=settings.protocol.seed, count=FEEDS)
        return found, labelled
    full = [batch for batch in batches if len(batch) == len(batches[0])]
    return [batch.feeds for batch in full], labelled


def _compare_accuracy(
    models: list[PathLike],
    source: DataSource,
    settings: Settings,
    progress: Progress | None,
    details: dict[str, Any],
) -> tuple[Metrics, Verdict | None]:
    metrics, counts = compare_accuracy(
        models[1],
        models[0],
        source,
        settings.options,
        settings.eval_batch,
        progress,
        metrics=settings.metrics,
        seed=settings.protocol.seed,
    )
    details["accuracy"] = counts.to_json()
    if settings.max_drop is None:
        return metrics, None
    if not counts.labelled:
        raise InputError(f"{source.name}: has no labels, so max_drop can't be judged")
    if counts.dependent:
        raise InputError(
            f"{source.name}: steps, and samples in groups, are not independent, so max_drop can't"
            " be judged; put a rule of a gate on accuracy.top1.delta"
        )
    verdict = non_inferior(
        counts.losses,
        counts.gains,
        counts.samples,
        settings.max_drop / 100,
        rules=settings.protocol.rules,
    )
    details["accuracy"]["verdict"] = verdict.to_json()
    return metrics, verdict


def _memory(
    models: list[PathLike],
    feeds: list[Feeds],
    settings: Settings,
    progress: Progress | None,
    metrics: Metrics,
    details: dict[str, Any],
) -> list[MemoryResult]:
    """Measure with the arena as it is asked for, and perhaps the other way round, too."""
    found = measure_memory(models, feeds, settings.options, progress=progress)
    details["memory"] = _by_role(found)
    if settings.both_arenas:
        other = replace(settings.options, arena=not settings.options.arena)
        others = measure_memory(models, feeds, other, progress=progress)
        details["memory_other_arena"] = _by_role(others)
    metrics |= memory_from_details(details, arena=settings.options.arena)
    return found


def _by_role(found: list[MemoryResult]) -> dict[str, Any]:
    return {role: result.to_json() for role, result in zip(ROLES, found)}


def _throughput(
    models: list[PathLike],
    feeds: Mapping[int, list[Feeds]],
    settings: Settings,
    progress: Progress | None,
    details: dict[str, Any],
    until: float | None,
) -> Metrics:
    """With one thread and with as many as latency has."""
    real = {}
    for some in feeds.values():
        lengths = [len(array) for array in some[0].values() if array.ndim]
        if not lengths:
            raise InputError("no input has samples, so that there is no throughput")
        real[lengths[0]] = some  # may be fixed
    found = measure_throughput(
        models,
        dict(sorted(real.items())),
        sorted({1, settings.options.resolved().threads}),
        settings.options,
        launches=settings.protocol.launches,
        seed=settings.protocol.seed,
        progress=progress,
        until=until,
    )
    details["throughput"] = found.to_json()
    return found.metrics()


def _latency(
    models: list[PathLike],
    feeds: list[Feeds],
    settings: Settings,
    progress: Progress | None,
    decided: Decided | None,
    until: float | None,
) -> LatencyResult:
    rest = (feeds, settings.options, settings.protocol, progress)
    if len(models) == 1:
        return measure_latency(models[0], *rest)
    return compare_latency(models[1], models[0], *rest, decided=decided, until=until)


def _with_profile(
    whole: Measurement,
    models: list[PathLike],
    feeds: list[Feeds],
    settings: Settings,
    progress: Progress | None,
) -> Measurement:
    if not settings.profile:
        return whole
    profiles = profile_models(models, feeds, settings.options, progress=progress)
    if len(models) == 1:
        found = describe(profiles[0])
    else:
        ratio = whole.metrics.get("latency.p50.ratio")
        block = channel_block(whole.machine["cpu_flags"])
        value = None if ratio is None else ratio.value
        found = describe_pair(profiles[1], profiles[0], block, value)
    return replace(whole, details={**whole.details, "profile": found})


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


def _warnings(settings: Settings, memory: list[MemoryResult]) -> list[str]:
    found = []
    if settings.protocol.cold and settings.latency:
        found.append("load times are from a cold page cache, as far as the system dropped it")
    threads, useful = settings.options.resolved().threads, default_threads()
    if threads > useful:
        found.append(f"{threads} threads on {useful} usable CPUs: latency is not representative")
    for role, result in zip(ROLES, memory):
        if result.growing:
            found.append(f"memory of the {role} still grows after {RUNS} runs")
        if result.unsteady:
            found.append(
                f"memory of the {role}: {', '.join(result.unsteady)} differs between repeats by"
                " more than 2%; measure again"
            )
    return found
