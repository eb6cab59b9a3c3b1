"""The measuring process's side of a profile: run with ONNX Runtime's profiler, sum up its events.

Profiling slows a model down, and small nodes most (https://github.com/microsoft/onnxruntime/issues/
20238), so that these times say how one run divides among its nodes, and nothing else.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxtrim.bench.session import Feeds, RunOptions, open_session, run

WARM = 5
"""First runs that do not count."""

_SECONDS = 20.0  # enough of a slow model, after a few runs
_FEWEST = 3
_SUFFIX = "_kernel_time"

Event = Mapping[str, Any]


def profile_nodes(
    model: str,
    feeds: Sequence[Feeds],
    options: RunOptions,
    folder: Path,
    runs: int,
    copy: str | None = None,
) -> dict[str, Any]:
    """Run a model with the profiler on.

    Args:
        model: Its path.
        feeds: Inputs, cycled.
        options: How to run it.
        folder: Where ONNX Runtime may write its profile; whoever made the folder removes it.
        runs: Runs that count.
        copy: What to run in place of the model, with the external data of the model.

    Returns:
        ``{"runs", "nodes"}``, see :func:`summarise`.
    """
    session = open_session(
        model if copy is None else Path(copy).read_bytes(),
        options,
        weights=None if copy is None else Path(model).absolute().parent,
        profile_to=folder / "profile",
    )
    begin = time.perf_counter()
    for index in range(WARM + runs):
        run(session, feeds[index % len(feeds)], model)
        if index >= WARM + _FEWEST - 1 and time.perf_counter() - begin > _SECONDS:
            break
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return summarise(events, WARM)


def summarise(events: Iterable[Event], warm: int) -> dict[str, Any]:
    """Kernel times of each node from the events of a profile.

    Args:
        events: As ONNX Runtime writes them, times in µs.
        warm: First runs that do not count.

    Returns:
        ``{"runs": how many counted, "nodes": [...]}``; each node has its ``name``, ``operator``,
        ``calls`` per run, ``median_us`` of a run (without the nodes of its bodies), ``inputs`` and
        ``output``, the shapes of its first call.
    """
    events = list(events)
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "model_run")
    spans = spans[warm:]
    kernels = [e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]
    kernels.sort(key=lambda event: (event["ts"], -event["dur"]))
    per_run: dict[tuple[str, str, str], list[float]] = {}
    calls: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    shapes: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    place = 0
    for event, own in zip(kernels, _own_times(kernels)):
        while place < len(spans) and event["ts"] > spans[place][1]:
            place += 1
        if place == len(spans) or event["ts"] < spans[place][0]:
            continue  # a warm-up run
        args = event["args"]
        key = (event["name"].removesuffix(_SUFFIX), args["op_name"], str(args.get("node_index")))
        per_run.setdefault(key, [0.0] * len(spans))[place] += own
        calls[key] += 1
        shapes.setdefault(key, args)
    nodes = [
        {
            "name": key[0],
            "operator": key[1],
            "calls": calls[key] / len(spans),
            "median_us": statistics.median(times),
            "inputs": _shapes(shapes[key].get("input_type_shape")),
            "output": next(iter(_shapes(shapes[key].get("output_type_shape"))), []),
        }
        for key, times in per_run.items()
    ]
    return {"runs": len(spans), "nodes": nodes}


def _own_times(kernels: Sequence[Event]) -> list[float]:
    """Durations of events sorted by their begin, less those that lie within (nodes of bodies)."""
    own: list[float] = []
    around: list[int] = []
    for index, event in enumerate(kernels):
        while around and kernels[around[-1]]["ts"] + kernels[around[-1]]["dur"] <= event["ts"]:
            around.pop()
        if around:
            own[around[-1]] = max(own[around[-1]] - event["dur"], 0)
        own.append(event["dur"])
        around.append(index)
    return own


def _shapes(described: Any) -> list[list[int]]:
    """``[{"float": [1, 8]}, ...]`` as ``[[1, 8], ...]``."""
    return [shape for item in described or [] for shape in item.values()]
