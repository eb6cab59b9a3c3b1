"""What a result says in sentences: at the top of its page, and what it leaves open."""

from __future__ import annotations

from collections.abc import Iterable

from onnxtrim.bench.latency_metrics import copies_differ
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.report import words
from onnxtrim.bench.report.judgement import Judgement
from onnxtrim.bench.results import Metric

_KINDS = ("latency", "throughput", "energy", "memory", "accuracy")


def sentence(found: Measurement) -> str:
    """What was measured, in a sentence or two, where no policy judged it."""
    metrics = found.metrics
    if found.original is None:
        parts = [
            _of(metrics.get("latency.p50"), "takes {} a call"),
            _of(metrics.get("memory.run_peak"), "needs {} of memory in its first run"),
            _of(metrics.get("model.file_bytes"), "has a file of {}"),
            _of(metrics.get("accuracy.top1"), "answers {} of the samples right"),
        ]
        return f"The model {_joined(parts)}."
    parts = [
        _of(metrics.get("latency.p50.ratio"), "{} of the time"),
        _of(metrics.get("memory.run_peak.ratio"), "{} of the peak memory"),
        _of(metrics.get("model.file_bytes.ratio"), "{} of the file"),
    ]
    told = "The candidate was measured"
    if any(parts):
        told = f"The candidate takes, of the original's, {_joined(parts)}"
    delta = metrics.get("accuracy.top1.delta")
    told += _of(delta, "; its top-1 accuracy changes by {}", " points")
    if delta is not None and delta.low <= 0 <= delta.high:
        told += ", which may be chance"
    told += "."
    latency = metrics.get("latency.p50.ratio")
    if latency is not None and latency.high >= 1:
        told += " It is slower." if latency.low > 1 else " It was not shown to be faster."
    if is_untrustworthy(found):
        told += " The original differed from itself meanwhile, so its times can't be trusted."
    return told


def is_untrustworthy(found: Measurement) -> bool:
    """Whether two runs of the original differ."""
    return found.latency is not None and copies_differ(found.latency)


def _of(metric: Metric | None, text: str, unit: str = "") -> str:
    if metric is None:
        return ""
    value = words.number(metric.value, 3) if metric.unit == "ratio" else words.plain(metric)
    return text.format(f"{value}{unit} {words.interval(metric, 3)}".rstrip())


def _joined(parts: Iterable[str]) -> str:
    told = [part for part in parts if part]
    if not told:
        return "was measured"
    *first, last = told
    return f"{', '.join(first)} and {last}" if first else last


def where(found: Measurement) -> str:
    """When and on what it was measured."""
    machine, threads = found.machine, found.settings.get("threads")
    at = str(found.details.get("measured_at") or "")
    told = [at[:16].replace("T", " ") + " UTC"] if at else []
    told += [str(machine[key]) for key in ("cpu", "system") if machine.get(key)]
    if isinstance(threads, int):
        told.append(f"{threads} thread{'s' * (threads != 1)}")
    data = found.details.get("data", {})
    if data.get("samples"):
        told.append(f"{words.count(int(data['samples']))} samples of {data.get('name')}")
    return f"Measured: {', '.join(told)}." if told else ""


def next_step(found: Measurement, judgement: Judgement | None) -> str:
    """What to do with this page."""
    if found.original is None:
        return ""
    if judgement is None:
        return "Next: say what must hold, and let 'onnxtrim gate' judge it on data not used so far."
    required = [rule for rule in judgement.rules if rule.level == "error"]
    told = {rule.verdict for rule in required}
    if judgement.verdict == "fail" and "fail" not in told:
        return "Next: measure what is missing; nothing else speaks against the candidate so far."
    return {
        "pass": "Next: measure on the device where the model will run, for times are of this"
        " machine; 'onnxtrim bench --runner -o runner.pyz' writes what does that.",
        "fail": "Next: another candidate, or other limits if these are not what is needed.",
        "inconclusive": "Next: what the remarks on the rules say; an open rule is no fail.",
    }.get(judgement.verdict, "Next: measure again.")


def limits(found: Measurement) -> list[str]:
    """What the result does not show, from what was not measured and how the rest was."""
    settings, metrics = found.settings, found.metrics
    measured = {name.partition(".")[0] for name in metrics}
    timed = measured & {"latency", "throughput", "load", "energy"}
    items = []
    if missing := [kind for kind in _KINDS if kind not in measured]:
        items.append(f"Not measured: {', '.join(missing)}.")
    if timed or "memory" in measured:
        items.append(
            "Other machines: times and memory are of this machine, under the load of that time."
            " Measure again where the model will run."
        )
    if timed:
        items.append(_setting(found))
    if timed and not settings.get("hertz"):
        items.append(
            "Calls now and then: each call followed the one before at once, with warm caches;"
            " after a pause the first call takes longer (--paced measures that)."
        )
    if found.details.get("feeds") == "random":
        items.append(
            "Real inputs: they were random numbers, so anything that depends on the values, such"
            " as branches or sparse data, may behave differently."
        )
    if "latency" in measured and "latency.p99" not in metrics:
        items.append("The slowest calls: there were too few to tell the 99th percentile.")
    elif (
        "latency" in measured and found.original is not None and "latency.p99.ratio" not in metrics
    ):
        made = 0 if found.latency is None else len(found.latency.launches)
        items.append(f"The ratio of the slowest calls: it needs 12 launches, and {made} were made.")
    items += _accuracy(found)
    if "profile" in found.details:
        items.append(
            "Exact times of layers: the profiler itself costs time, so their shares and ratios are"
            " rough, and nothing was judged by them."
        )
    if found.original is not None:
        items.append(
            "All intervals at once: each holds the truth in 95% of cases, so about one in twenty"
            " misses it by chance."
        )
    return items


def _setting(found: Measurement) -> str:
    threads, batch = found.settings.get("threads"), found.settings.get("batch")
    told = f"{threads} thread{'s' * (threads != 1)}" if isinstance(threads, int) else "its threads"
    return (
        f"Other settings: one session with {told} and {batch} sample"
        f"{'s' * (batch != 1)} per call; several sessions at once were not measured."
    )


def _accuracy(found: Measurement) -> list[str]:
    if not any(name.startswith("accuracy.") for name in found.metrics):
        return ["Whether the answers are right: no labelled data was given."]
    items = []
    if "accuracy.top1" not in found.metrics and found.settings.get("max_drop") is None:
        labelled = [n for n in found.metrics if n.startswith("accuracy.") and n.endswith(".delta")]
        if not labelled:
            items.append("Whether the answers are right: no labelled data was given.")
    told = "Other data: accuracy is of these samples"
    if found.original is not None:
        told += ", and its intervals tell only what drawing them by chance does"
    if found.original is not None and found.details.get("used_before") is False:
        told += (
            ". By the candidate's own record they had no part in making it; that they had none in"
            " choosing it, no file can prove"
        )
    items.append(f"{told}.")
    items.append("Robustness, rare inputs, and how sure the model is of its answers.")
    return items
