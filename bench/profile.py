"""Where a model spends its time, and why a layer of a pruned model is not faster.

Each model is profiled in a process of its own, apart from the timed runs. What comes of it are
shares and rough ratios for people to read; they are no metrics, and nothing is decided by them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onnxtrim.bench.arms import Arm, written_feeds
from onnxtrim.bench.files import sha256_file
from onnxtrim.bench.layers import Layer, Profile, layers_of, named_copy
from onnxtrim.bench.model_file import read_model_proto
from onnxtrim.bench.session import Feeds, RunOptions

Progress = Callable[[str, int, int], None]

RUNS = 30
_FEWEST = 3
_EVENTS = 100_000  # the profile of that many is 70 MB of JSON

FEW_US = 10.0
"""A call that takes no longer than this is mostly the cost of calling, and of the profiler."""

LOW_INTENSITY = 8.0
"""Multiply-accumulates per number read or written below which memory sets the pace: a core does
some ten in the time in which four bytes come from memory."""

KEPT = 0.5
"""Part of the saved work that must come back as saved time."""

MEMORY_BOUND = frozenset(
    "Abs Add And AveragePool BatchNormalization Cast Ceil Clip Concat CumSum DepthToSpace"
    " DequantizeLinear Div Dropout Elu Equal Erf Exp Expand FastGelu Flatten Floor Gather"
    " GatherElements GatherND Gelu GlobalAveragePool GlobalMaxPool Greater GroupNormalization"
    " HardSigmoid HardSwish Identity InstanceNormalization LRN LayerNormalization LeakyRelu Less"
    " Log LogSoftmax LpNormalization Max MaxPool Mean MeanVarianceNormalization Min Mish Mul Neg"
    " Not Or PRelu Pad Pow QuantizeLinear QuickGelu RMSNormalization Reciprocal ReduceMax"
    " ReduceMean ReduceMin ReduceSum Relu Reshape Resize Round ScatterElements ScatterND Selu"
    " Shape Sigmoid SimplifiedLayerNormalization Slice Softmax Softplus SpaceToDepth Split Sqrt"
    " Squeeze Sub Sum Swish Tanh Tile Transpose Unsqueeze Upsample Where".split()
)
"""Operators that do next to nothing with each number that they move."""


def profile_models(
    models: Sequence[str | os.PathLike[str]],
    feeds: Sequence[Feeds],
    options: RunOptions | None = None,
    *,
    progress: Progress | None = None,
) -> list[Profile]:
    """Profile some models, each in a fresh process.

    Args:
        models: Their paths.
        feeds: The inputs of some runs, cycled.
        options: How to run them.
        progress: Called with ``("profile", done, total)``.

    Raises:
        InputError: ONNX Runtime refuses a model or the feeds.
        WorkerError: A process died.
    """
    settings = (options or RunOptions()).to_json()
    found = []
    for done, model in enumerate(map(str, models)):
        if progress is not None:
            progress("profile", done, len(models))
        sha256_file(model)  # into the page cache
        nodes = len(read_model_proto(model).graph.node)
        runs = min(RUNS, max(_FEWEST, _EVENTS // max(nodes, 1)))
        with (
            written_feeds(feeds) as path,
            tempfile.TemporaryDirectory(prefix="onnxtrim-") as folder,
            Arm(model) as arm,
        ):
            arm.wait_ready()
            copy = Path(folder) / "named.onnx"
            told = arm.ask(
                "profile",
                model=model,
                feeds=path,
                options=settings,
                folder=folder,
                runs=runs,
                copy=str(copy) if named_copy(model, copy) else None,
            )
        found.append(layers_of(model, told))
    if progress is not None:
        progress("profile", len(models), len(models))
    return found


def describe(profile: Profile) -> dict[str, Any]:
    """The profile of one model as JSON values."""
    return {
        "runs": profile.runs,
        "layers": [_head(layer) | layer.to_json() for layer in profile.layers],
        "others": [
            {"name": None, "operator": operator, "share": share}
            for operator, share in _by_share(profile.others)
        ],
    }


def describe_pair(
    original: Profile, candidate: Profile, block: int, p50_ratio: float | None
) -> dict[str, Any]:
    """The profiles of two models, layer beside layer, as JSON values.

    Args:
        original: The profile of the original.
        candidate: That of the candidate.
        block: Channels that a convolution kernel takes at once, see :func:`channel_block`.
        p50_ratio: The measured ratio of the latencies. Ratios of layers are rescaled to it:
            ``share in the candidate / share in the original * p50_ratio``. ``None`` takes the
            ratio of the kernel times in place of it.

    Returns:
        ``layers``, those in both models, most expensive in the original first; each with a
        ``reason`` if its time did not fall with its work, see :func:`reason`. ``others``, what is
        in one model only or was put in by ONNX Runtime, with its shares.
    """
    scale = candidate.total_us / original.total_us if p50_ratio is None else p50_ratio
    named = {layer.name: layer for layer in candidate.layers}
    outputs = {layer.output: layer for layer in candidate.layers}
    layers, alone, met = [], [], set()
    for layer in original.layers:
        twin = named.get(layer.name) or outputs.get(layer.output)
        if twin is None or twin.operator != layer.operator or twin.name in met:
            alone.append({**_head(layer), "original": layer.share, "candidate": 0.0})
            continue
        met.add(twin.name)
        ratio = scale * twin.share / layer.share if layer.share else None
        layers.append(
            {
                **_head(layer),
                "original": layer.to_json(),
                "candidate": twin.to_json(),
                "channels": _channels(layer, twin),
                "macs_ratio": twin.macs / layer.macs if twin.macs and layer.macs else None,
                "time_ratio": ratio,
                "reason": None if ratio is None else reason(layer, twin, ratio, block),
            }
        )
    alone += [
        {**_head(layer), "original": 0.0, "candidate": layer.share}
        for layer in candidate.layers
        if layer.name not in met
    ]
    for operator in dict.fromkeys((*original.others, *candidate.others)):
        shares = [profile.others.get(operator, 0.0) for profile in (original, candidate)]
        alone.append(
            {
                "name": None,
                "operator": operator,
                "original": shares[0],
                "candidate": shares[1],
            }
        )
    return {
        "runs": {"original": original.runs, "candidate": candidate.runs},
        "block": block,
        "scaled_by": "profile" if p50_ratio is None else "latency.p50.ratio",
        "layers": layers,
        "others": sorted(alone, key=lambda item: -max(item["original"], item["candidate"])),
    }


def reason(original: Layer, candidate: Layer, ratio: float, block: int) -> str | None:
    """Why the time of a layer did not fall with its work; ``None`` if it did.

    The work is the multiply-accumulates where they are known, else the numbers read and written.
    The first that applies:

    1. ``not_pruned``: the shapes are what they were.
    2. ``None``: half of the saving in work, or more, is a saving in time.
    3. ``overhead_bound``: a call takes no more than :data:`FEW_US`.
    4. ``alignment``: a convolution whose input or output channels changed to no multiple of
       ``block``; ONNX Runtime rounds them up, or takes a slower kernel
       (https://github.com/microsoft/onnxruntime/issues/14392).
    5. ``memory_bound``: an operator of :data:`MEMORY_BOUND`, or one with fewer
       multiply-accumulates per number than :data:`LOW_INTENSITY`.
    6. ``unexplained``.

    Args:
        original: The layer before.
        candidate: The same layer after.
        ratio: Its time after / before.
        block: Channels that a convolution kernel takes at once.
    """
    if _same_shapes(original, candidate):
        return "not_pruned"
    if 1 - ratio >= KEPT * (1 - _work_ratio(original, candidate)):
        return None
    if candidate.median_us <= FEW_US * candidate.calls:
        return "overhead_bound"
    if "Conv" in candidate.operator and candidate.channels and original.channels:
        pairs = zip(original.channels, candidate.channels)
        if any(before != after and after % block for before, after in pairs):
            return "alignment"
    if candidate.operator in MEMORY_BOUND or (
        candidate.macs is not None and candidate.macs < LOW_INTENSITY * candidate.elements
    ):
        return "memory_bound"
    return "unexplained"


def channel_block(cpu_flags: Sequence[str]) -> int:
    """Channels that ONNX Runtime's convolutions take at once: 16 with AVX-512, else 8."""
    return 16 if "avx512f" in cpu_flags else 8


def _same_shapes(original: Layer, candidate: Layer) -> bool:
    same = original.shape == candidate.shape and original.channels == candidate.channels
    if same and original.channels is not None:
        return original.macs == candidate.macs  # layouts differ in the numbers that they move
    return same and original.elements == candidate.elements


def _work_ratio(original: Layer, candidate: Layer) -> float:
    if original.macs and candidate.macs is not None:
        return candidate.macs / original.macs
    return candidate.elements / max(original.elements, 1)


def _head(layer: Layer) -> dict[str, Any]:
    return {"name": layer.name, "operator": layer.operator}


def _channels(original: Layer, candidate: Layer) -> list[int] | None:
    """Output channels before and after: along the axis that changed, if there is just one."""
    before, after = original.shape, candidate.shape
    if original.channels and candidate.channels:
        return [original.channels[1], candidate.channels[1]]
    if not before or len(before) != len(after):
        return None
    changed = [axis for axis, size in enumerate(before) if size != after[axis]]
    if len(changed) > 1:
        return None
    axis = changed[0] if changed else (1 if len(before) > 3 else len(before) - 1)
    return [before[axis], after[axis]]


def _by_share(shares: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: -item[1])
