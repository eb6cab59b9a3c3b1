"""Sessions of ONNX Runtime: options that are always explicit, and errors in one line."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Union

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from onnxtrim.bench.data_checks import InputSpec
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.machine import default_threads
from onnxtrim.bench.model_file import check_model_file

__all__ = [
    "RunOptions",
    "check_model_file",
    "default_threads",
    "model_inputs",
    "open_session",
    "random_feeds",
    "run",
]

Feeds = dict[str, NDArray[Any]]
Sizes = Mapping[str, Union[int, Sequence[int]]]  # noqa: UP007  (Python 3.9)

MOST_ELEMENTS = 2**27
"""Most elements of an input that is made up."""

_SOURCE = re.compile(r"/onnxruntime_src/\S+:\d+ ")

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class RunOptions:
    """How ONNX Runtime runs a model; the same for all models of a comparison.

    Attributes:
        threads: Intra-op threads; 0 stands for :func:`default_threads`.
        provider: Execution provider; ``"cpu"`` stands for ``"CPUExecutionProvider"``.
        arena: Whether the CPU memory arena is on.
        memory_pattern: Whether memory is planned ahead for shapes seen before.
        denormal_as_zero: Whether numbers near the smallest count as zero.
        spinning: Whether waiting threads spin. They take the CPU of whoever is being measured.
        plain: Whether to call ``run`` in place of ``run_with_iobinding``.
        config: Further entries of the session's configuration, ``(key, value)``.
    """

    threads: int = 0
    provider: str = "CPUExecutionProvider"
    arena: bool = True
    memory_pattern: bool = True
    denormal_as_zero: bool = False
    spinning: bool = False
    plain: bool = False
    config: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise InputError(f"threads is {self.threads}; give 1 or more, or 0 for all CPUs")

    def resolved(self) -> RunOptions:
        """The same with the number of threads and the provider's name written out."""
        names = {name.removesuffix("ExecutionProvider").lower(): name for name in _providers()}
        provider = names.get(self.provider.lower(), self.provider)
        return replace(self, threads=self.threads or default_threads(), provider=provider)

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values, threads written out."""
        found = asdict(self.resolved())
        return {**found, "config": [list(entry) for entry in self.config]}


def open_session(
    model: str | os.PathLike[str] | bytes,
    options: RunOptions,
    *,
    optimise: bool = True,
    weights: Path | None = None,
    shared_arena: bool = False,
    profile_to: Path | None = None,
) -> ort.InferenceSession:
    """Open a session.

    Args:
        model: Path, or the bytes of a model.
        options: How to run it.
        optimise: Whether ONNX Runtime may rewrite the graph.
        weights: Folder of the external data of a model that is given as bytes.
        shared_arena: Whether to take memory from the arena of the process, which may be limited.
        profile_to: Begin of the name of a file for ONNX Runtime's profile; none without it.

    Raises:
        InputError: ONNX Runtime refuses the model, or lacks the provider.
    """
    options = options.resolved()
    name = "the model" if isinstance(model, bytes) else str(model)
    if options.provider not in _providers():
        raise InputError(
            f"provider {options.provider!r} is not in this ONNX Runtime; it has"
            f" {', '.join(_providers())}"
        )
    try:
        session = ort.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            _session_options(options, optimise, weights, shared_arena, profile_to),
            providers=[options.provider],
        )
    except Exception as error:  # ORT's exceptions have no common base
        raise InputError(f"{name}: ONNX Runtime can't load it: {_reason(error)}") from error
    if options.provider not in session.get_providers():
        raise InputError(f"{name}: provider {options.provider!r} could not be started here")
    return session


def run(
    session: ort.InferenceSession, feeds: Feeds, name: str, options: ort.RunOptions | None = None
) -> list[NDArray[Any]]:
    """Run all outputs; ``name`` says which model it is, ``options`` can stop the run.

    Raises:
        InputError: ONNX Runtime refuses to run it on these inputs.
    """
    try:
        return session.run(None, feeds, options)  # type: ignore[no-any-return]
    except Exception as error:
        raise InputError(f"{name}: can't run on these inputs: {_reason(error)}") from error


def model_inputs(session: ort.InferenceSession) -> list[InputSpec]:
    """What the model expects, in order.

    Raises:
        InputError: An input is not a tensor of numbers.
    """
    return [InputSpec(node.name, _dtype(node), _shape(node)) for node in session.get_inputs()]


def model_outputs(session: ort.InferenceSession) -> list[tuple[str, str, tuple[Any, ...]]]:
    """``(name, type, shape)`` of each output; free dimensions as in :class:`InputSpec`."""
    return [(node.name, node.type, _shape(node)) for node in session.get_outputs()]


def random_feeds(
    inputs: Sequence[InputSpec],
    sizes: Sizes | None = None,
    *,
    seed: int = 0,
    count: int = 8,
) -> list[Feeds]:
    """Seeded stand-ins for real samples: N(0, 1) for floats, 1 to 3 for integers, never zeros.

    Args:
        inputs: What the model expects.
        sizes: Size of a free dimension by its name, or the whole shape of an input by its name.
            A free first dimension is 1 if nothing else is said.
        seed: Of the generator.
        count: How many different feeds.

    Raises:
        InputError: A free dimension without a size, or a shape that is absurd or does not fit.
    """
    shapes = [_feed_shape(spec, sizes or {}) for spec in inputs]
    for spec, shape in zip(inputs, shapes):
        if math.prod(shape) > MOST_ELEMENTS:
            raise InputError(
                f"input {spec.name!r}: shape {'x'.join(map(str, shape))} has more than"
                f" {MOST_ELEMENTS} elements; give a smaller one with --shape"
            )
    rng = np.random.default_rng(seed)
    return [
        {spec.name: _random(rng, spec, shape) for spec, shape in zip(inputs, shapes)}
        for _ in range(count)
    ]


def _providers() -> list[str]:
    return ort.get_available_providers()  # type: ignore[no-any-return]


def _session_options(
    options: RunOptions,
    optimise: bool,
    weights: Path | None,
    shared_arena: bool,
    profile_to: Path | None,
) -> ort.SessionOptions:
    ort.set_default_logger_severity(4)  # it has no logger of the session where it allocates
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # errors come as exceptions; printing them too is noise
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = options.arena
    settings.enable_mem_pattern = options.memory_pattern
    spinning = "1" if options.spinning else "0"
    settings.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    if options.denormal_as_zero:
        settings.add_session_config_entry("session.set_denormal_as_zero", "1")
    for key, value in options.config:
        settings.add_session_config_entry(key, value)
    if shared_arena:
        settings.add_session_config_entry("session.use_env_allocators", "1")
    if not optimise:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Shape right after what it looks at, which can then be freed.
        settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        # Packing copies weights that are mapped from a file.
        settings.add_session_config_entry("session.disable_prepacking", "1")
    if profile_to is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(profile_to)
    if weights is not None:
        key = "session.model_external_initializers_file_folder_path"
        settings.add_session_config_entry(key, str(weights))
    return settings


def _reason(error: Exception) -> str:
    """ORT's message without its code and source positions, in one line."""
    text = " ".join(str(error).split())
    text = text.removeprefix("[ONNXRuntimeError] : ")
    parts = text.split(" : ", 2)
    text = parts[-1] if len(parts) == 3 and parts[0].isdigit() else text
    while (place := _SOURCE.search(text)) is not None:
        text = text[: place.start()] + text[_signature_end(text, place.end()) :].lstrip()
    return text if len(text) <= 300 else text[:297] + "..."


def _signature_end(text: str, start: int) -> int:
    """Where the C++ signature that begins at ``start`` ends; ``start`` if there is none."""
    depth = 0
    for place, letter in enumerate(text[start:], start):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and depth <= 0:
            return place + 1
    return start


def _dtype(node: Any) -> np.dtype[Any]:
    if node.type not in _DTYPES:
        raise InputError(f"input {node.name!r} has type {node.type}, which is not supported")
    return np.dtype(_DTYPES[node.type])


def _shape(node: Any) -> tuple[int | str | None, ...]:
    return tuple(n if isinstance(n, int) and n >= 0 else _free(n) for n in node.shape or ())


def _free(dimension: Any) -> str | None:
    return dimension if isinstance(dimension, str) and dimension else None


def _feed_shape(spec: InputSpec, sizes: Sizes) -> tuple[int, ...]:
    given = sizes.get(spec.name)
    if given is not None and not isinstance(given, int):
        return _whole_shape(spec, tuple(given))
    shape = []
    for axis, need in enumerate(spec.shape):
        size = sizes.get(need) if isinstance(need, str) else need
        if isinstance(size, Sequence) and len(size) == 1:  # --shape height=480
            (size,) = size
        if size is None and axis == 0:
            size = 1
        if not isinstance(size, int):
            example = "x".join(str(n) if isinstance(n, int) else "N" for n in spec.shape)
            raise InputError(
                f"input {spec.name!r}: dimension {need or axis!r} has no fixed size; give it with"
                f" --shape {spec.name}={example}, or real samples with --data"
            )
        shape.append(size)
    return tuple(shape)


def _whole_shape(spec: InputSpec, given: tuple[int, ...]) -> tuple[int, ...]:
    fits = len(given) == len(spec.shape) and all(
        have > 0 and (have == need or not isinstance(need, int))
        for have, need in zip(given, spec.shape)
    )
    if not fits:
        wanted = "x".join("?" if n is None else str(n) for n in spec.shape)
        raise InputError(
            f"input {spec.name!r}: shape {'x'.join(map(str, given))} does not fit {wanted}"
        )
    return given


def _random(rng: np.random.Generator, spec: InputSpec, shape: tuple[int, ...]) -> NDArray[Any]:
    if spec.dtype.kind == "f":
        return rng.standard_normal(shape).astype(spec.dtype)
    return np.asarray(rng.integers(1, 4, shape)).astype(spec.dtype)
