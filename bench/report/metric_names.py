"""What metrics are called in the report, and which of two values is the better one."""

from __future__ import annotations

import re
from collections.abc import Iterable

SUFFIXES = (".original", ".ratio", ".delta")

_NAMES = {
    "latency.p50": "Time of a call, median",
    "latency.p10": "Time of a call, 10th percentile",
    "latency.p99": "Time of a call, 99th percentile",
    "latency.over_budget_rate": "Calls over the time budget",
    "latency.copy": "Original against itself (99%)",
    "load.session_create": "Creating the session",
    "load.first_run": "First run",
    "load.to_first_run": "Loading, first run included",
    "memory.load_peak": "Peak memory of loading",
    "memory.run_peak": "Peak memory of the first run",
    "memory.steady": "Memory after many runs",
    "energy.per_call": "Energy of a call",
    "model.file_bytes": "File",
    "model.initializer_bytes": "Weights",
    "accuracy.top1": "Top-1 accuracy",
    "accuracy.top5": "Top-5 accuracy",
    "accuracy.f1": "F1",
    "accuracy.auc": "Area under the ROC curve",
    "accuracy.mae": "Mean absolute error",
    "accuracy.rmse": "Root mean squared error",
    "accuracy.cosine": "Cosine similarity to the original",
    "accuracy.kl": "Divergence from the original (KL)",
    "accuracy.agreement": "Same class as the original",
    "accuracy.negative_flip_rate": "Newly wrong (negative flips)",
    "accuracy.mcnemar_p": "McNemar's p-value",
}
_FAMILIES = {
    "latency": "Latency",
    "throughput": "Throughput",
    "energy": "Energy",
    "load": "Loading",
    "memory": "Memory",
    "model": "Size",
    "accuracy": "Accuracy",
}
_CLASS = re.compile(r"\[(\d+)\]$")
_ARENA = re.compile(r"\.arena_(on|off)$")
_THROUGHPUT = re.compile(r"throughput\.(\d+)x(\d+)(\.cpu)?$")


def base(name: str) -> str:
    """The metric without what tells the original's value, ratio or difference."""
    name = _CLASS.sub("", name)
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def label(name: str) -> str:
    """For people; a metric that is not known keeps its name."""
    if found := _CLASS.search(name):
        return f"{label(base(name))}, class {found[1]}"
    plain = base(name)
    arena = _ARENA.search(plain)
    if arena:
        plain = plain[: arena.start()]
    if found := _THROUGHPUT.match(plain):
        threads, batch, cpu = found.groups()
        what = "CPU time per sample" if cpu else "Samples per second"
        told = f"{what}, {threads} thread{'s' * (threads != '1')}, {batch} per call"
    else:
        told = _NAMES.get(plain, plain)
    return f"{told}, arena {arena[1]}" if arena else told


def kind(name: str) -> str:
    """What a ratio or a difference is; else empty."""
    name = _CLASS.sub("", name)
    ends = {".ratio": "ratio to the original", ".delta": "difference to the original"}
    return ends.get(name[name.rfind(".") :], "")


def family(name: str) -> str:
    """The heading under which a metric stands."""
    return _FAMILIES.get(name.partition(".")[0], "Others")


def in_order(names: Iterable[str]) -> list[str]:
    """Names as they are read: family by family, known metrics first."""
    families, known = [*_FAMILIES.values(), "Others"], list(_NAMES)

    def place(name: str) -> tuple[int, bool, int, str]:
        plain = _ARENA.sub("", base(name))
        number = known.index(plain) if plain in known else len(known)
        return families.index(family(name)), bool(_ARENA.search(base(name))), number, name

    return sorted(names, key=place)


def is_larger_better(name: str) -> bool:
    """Of a ratio: samples per second are the only one that should grow."""
    return name.startswith("throughput.") and not base(name).endswith(".cpu")
