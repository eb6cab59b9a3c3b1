"""The parent's side of the measuring processes: start them, ask them, end them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import onnxtrim
from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.session import Feeds

PATIENCE = 1800.0
"""Seconds to wait for an answer whose time nobody knows: loading, first runs, memory."""

# An empty entry is the work folder, whose modules must not be imported (-P does that from 3.11 on).
_START_WORKER = (
    "import sys; sys.path[:] = filter(None, sys.path);"
    " from onnxtrim.bench.worker import main; main()"
)
WAITS_FOR_PIPES = sys.platform != "win32"
"""Whether a pipe can be waited for with a time limit."""

_BLOCK = 1 << 16
_START = 300.0  # seconds until the process has imported what it needs
_SLACK = 60.0  # seconds beyond what the calls should take, and
_TIMES_SLOWER = 20.0  # how much slower they may get


def patience(calls: int, call_ms: float) -> float:
    """Seconds to wait for a number of calls of known time before the process counts as hung."""
    return _SLACK + _TIMES_SLOWER * calls * call_ms / 1000


class Arm:
    """One model in its own process.

    A context manager: at the end of the block the process is gone, whatever happened.

    Args:
        model: Path of the model.
        pad: Bytes by which the environment grows. Its size shifts the stack and biases timings,
            so each launch draws another one (Mytkowicz et al., ASPLOS 2009,
            https://doi.org/10.1145/1508244.1508275).
    """

    def __init__(self, model: str | os.PathLike[str], pad: int = 0) -> None:
        self.model = str(model)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START_WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(pad),
        )
        assert self._process.stdout is not None
        self._channel = self._process.stdout.fileno()
        self._received = b""  # what has come after the last whole line
        self._blocks: queue.Queue[bytes] | None = None if WAITS_FOR_PIPES else queue.Queue()
        self._reader = threading.Thread(target=self._read_on, daemon=True)
        if self._blocks is not None:
            self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def __enter__(self) -> Arm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()  # all is answered, and nothing in it needs an orderly end
        self._process.wait()
        if self._blocks is not None:
            self._reader.join()  # it ends with the process
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._stderr.close()

    def wait_ready(self) -> None:
        """Wait until the process has imported what it needs."""
        if self._receive(_START) != {"ready": True}:
            raise WorkerError(f"{self.model}: the measuring process did not start as it should")

    def ask(self, do: str, *, seconds: float = PATIENCE, **values: Any) -> dict[str, Any]:
        """Send one command and wait for its answer, for so many seconds at most.

        Raises:
            InputError: The model or its feeds are to blame.
            WorkerError: The process died, failed or hangs.
        """
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"do": do, **values}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None
        answer = self._receive(seconds)
        if "error" in answer:
            kind = InputError if answer.get("input") else WorkerError
            raise kind(str(answer["error"]))
        return answer

    def _receive(self, seconds: float) -> dict[str, Any]:
        try:
            answer = json.loads(self._line(seconds))
        except ValueError as error:
            raise WorkerError(f"{self.model}: the measuring process answered nonsense") from error
        if not isinstance(answer, dict):
            raise WorkerError(f"{self.model}: the measuring process answered nonsense")
        return answer

    def _line(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._received:
            block = self._block(max(0.0, deadline - time.monotonic()))
            if block is None:
                self._process.kill()
                raise WorkerError(
                    f"{self.model}: the measuring process gave no answer for {seconds:.0f} s"
                    " and was ended; is the machine overloaded?"
                )
            if not block:
                raise self._death()
            self._received += block
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _block(self, seconds: float) -> bytes | None:
        """What the process wrote, nothing at its end; ``None`` if nothing comes for so long."""
        if self._blocks is not None:
            try:
                return self._blocks.get(timeout=seconds)
            except queue.Empty:
                return None
        channel = self._channel
        with selectors.DefaultSelector() as selector:
            selector.register(channel, selectors.EVENT_READ)
            return os.read(channel, _BLOCK) if selector.select(seconds) else None

    def _read_on(self) -> None:
        """Where pipes can't be waited for: read in a thread."""
        assert self._blocks is not None
        block = b"more"
        while block:
            block = os.read(self._channel, _BLOCK)
            self._blocks.put(block)

    def _death(self) -> WorkerError:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        last = f": {lines[-1][:200]}" if lines else ""
        return WorkerError(f"{self.model}: the measuring process died ({how}){last}")


@contextlib.contextmanager
def written_feeds(feeds: Sequence[Feeds]) -> Iterator[str]:
    """Feeds in a temporary file, as arrays ``<sample>:<name>``; yields its path."""
    with tempfile.TemporaryDirectory(prefix="onnxtrim-") as folder:
        path = Path(folder) / "feeds.npz"
        arrays: dict[str, Any] = {
            f"{index}:{name}": np.ascontiguousarray(array)
            for index, sample in enumerate(feeds)
            for name, array in sample.items()
        }
        np.savez(path, **arrays)
        yield str(path)


def _environment(pad: int) -> dict[str, str]:
    """The child's environment: it finds this very package and no module of the work folder."""
    environment = dict(os.environ)
    environment["ONNXTRIM_PAD"] = "x" * pad
    environment["OPENBLAS_NUM_THREADS"] = "1"  # numpy's pool is not used there
    root = Path(onnxtrim.__file__).resolve().parent.parent
    if root.name not in ("site-packages", "dist-packages"):
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(root), *([before] if before else [])])
    return environment
