"""The first runs of a model that nobody knows: bounded in time and in memory.

A file of a few hundred bytes can ask for terabytes (``ConstantOfShape``) or for a loop without an
end. ONNX Runtime is given an arena that refuses to grow beyond a limit, so that nothing is
allocated that does not fit, and runs in a thread of its own that is told to stop when time is over.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.session import RunOptions, open_session, run

MEMORY = 4 << 30
"""Most bytes of a run beside twice the weights."""

SECONDS = 40.0
"""Most seconds of all guarded runs of one model, beside one for every `WEIGHTS_PER_SECOND`."""

WEIGHTS_PER_SECOND = 50_000_000
"""Bytes of weights that even a slow machine reads and uses in a second."""

_NO_LIMIT = 0
_GRACE = 5.0  # seconds until ONNX Runtime heeds; it looks between nodes
_FULL = re.compile(r"Available memory of|Failed to allocate memory|bad_alloc")
_NODE = re.compile(r"while running (\w+) node\. Name:'([^']*)'")


class LimitError(InputError):
    """A model takes too long or too much memory."""


class Trial:
    """A session for first runs. Leaving the context closes it and frees its memory.

    The limited arena is one of the whole process, but only this session uses it. Trials in several
    threads at once would change each other's limits.

    Args:
        path: The model; checked as in ``check_model_file``.
        weights: Bytes of its weights, or of its files.

    Attributes:
        session: The session, without optimisation; ``run`` of this class is the bounded one.
        memory: Most bytes of the weights and of a run.
        seconds: Most seconds of all runs.
    """

    session: ort.InferenceSession

    def __init__(self, path: str | os.PathLike[str], weights: int) -> None:
        self.path = path
        self.memory = MEMORY + 2 * weights
        self.seconds = SECONDS + weights / WEIGHTS_PER_SECOND
        self._left = self.seconds

    def __enter__(self) -> Trial:
        _set_arena(self.memory)
        try:
            self.session = open_session(self.path, RunOptions(), optimise=False, shared_arena=True)
        except InputError as error:
            _set_arena(_NO_LIMIT)
            raise self._told(error) from error.__cause__
        return self

    def __exit__(self, *_: object) -> None:
        del self.session
        _set_arena(_NO_LIMIT)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Run all outputs and forget them.

        Raises:
            LimitError: It took too long or too much memory.
            InputError: ONNX Runtime refuses to run it on these inputs.
        """
        options, session = ort.RunOptions(), self.session
        errors: list[Exception] = []

        def work() -> None:
            try:
                run(session, dict(feeds), str(self.path), options)
            except Exception as error:  # told in the thread that waits
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        start = time.monotonic()
        thread.start()
        try:
            thread.join(self._left)
        finally:  # also when the user interrupts
            late, options.terminate = thread.is_alive(), True
        if late:
            thread.join(_GRACE)
            raise LimitError(
                f"{self.path}: one sample is not finished after {self.seconds:.0f} s (a loop"
                " without an end, or absurd sizes?); give smaller sizes with --shape or --data"
            )
        self._left -= time.monotonic() - start
        if errors:
            raise self._told(errors[0])

    def _told(self, error: Exception) -> Exception:
        cause = str(error.__cause__ or error)
        if not _FULL.search(cause):
            return error
        found = _NODE.search(cause)
        where = f" at node {found[2]!r} ({found[1]})" if found else ""
        limit = f"{self.memory / 2**30:.1f} GiB"
        return LimitError(
            f"{self.path}: one sample needs more than {limit} of memory{where}; give smaller sizes"
            " with --shape or --data, or mend that node"
        )


def _set_arena(most: int) -> None:
    """Replace the arena of the process; the old one goes with its last session."""
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
    extend_as_requested = 1
    settings = {"max_mem": most, "arena_extend_strategy": extend_as_requested}
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(settings))
