"""Latency and load time: two models in two processes, in turns, with the launch as the unit.

A process keeps a bias of about half a percent for its whole life, which nothing inside it can
see. So each launch starts fresh processes, gives one value, and only the launches count as a
sample. Inside a launch the models take turns of about 20 ms in the orders ABBA or BAAB, so that
drift and neighbours hit both alike.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxtrim.bench.arms import Arm, patience, written_feeds
from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.files import sha256_file
from onnxtrim.bench.launches import LatencyResult, Launch, Round
from onnxtrim.bench.session import Feeds, RunOptions

Progress = Callable[[str, int, int], None]
PathLike = str | os.PathLike[str]

MIN_CALLS = 5  # per round, however slow the model
WARM_UP_CALLS = 10  # at the time of the first run: the length of a warm-up of a slow model
SLOW_MS = 4.0  # from here on one settle call is enough


def measure_latency(
    model: PathLike,
    feeds: Sequence[Feeds],
    options: RunOptions | None = None,
    *,
    launches: int = 8,
    rounds: int = 24,
    round_ms: float = 20.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> LatencyResult:
    """Latency and load time of one model; arguments as of :func:`compare_latency`."""
    plan = _Plan([str(model)], launches, rounds, round_ms, seed)
    return plan.run(feeds, options or RunOptions(), progress)


def compare_latency(
    original: PathLike,
    candidate: PathLike,
    feeds: Sequence[Feeds],
    options: RunOptions | None = None,
    *,
    launches: int = 8,
    rounds: int = 24,
    round_ms: float = 20.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> LatencyResult:
    """Latency and load time of two models, taking turns.

    Args:
        original: Path of the first model.
        candidate: Path of the second.
        feeds: The inputs of some runs, cycled by both alike.
        options: How to run both.
        launches: How often to start fresh processes: the sample size, at least 2.
        rounds: Rounds per model and launch, even.
        round_ms: Length of a round; it sets the number of calls, at least 5.
        seed: Of the orders and paddings.
        progress: Called with ``("latency", done, total)`` after each launch.

    Raises:
        InputError: Bad numbers, or ONNX Runtime refuses a model or the feeds.
        WorkerError: A process died, or the clock does not move.
    """
    plan = _Plan([str(original), str(candidate)], launches, rounds, round_ms, seed)
    return plan.run(feeds, options or RunOptions(), progress)


@dataclass
class _Plan:
    """What to run; the number of calls per round is frozen after the first warm-up."""

    models: list[str]
    launches: int
    rounds: int
    round_ms: float
    seed: int
    calls: list[int] = field(default_factory=list)
    settle: list[int] = field(default_factory=list)

    def run(
        self, feeds: Sequence[Feeds], options: RunOptions, progress: Progress | None
    ) -> LatencyResult:
        """Make all launches."""
        if self.launches < 2:
            raise InputError(f"launches is {self.launches}; an interval needs at least 2")
        if self.rounds < 2 or self.rounds % 2 or self.round_ms <= 0:
            raise InputError(
                f"rounds is {self.rounds} and round_ms {self.round_ms}; give an even number of"
                " rounds from 2 on and a positive length"
            )
        for model in self.models:
            sha256_file(model)  # read once, so that each launch finds it in the page cache
        generator = random.Random(self.seed)
        done = []
        with written_feeds(feeds) as path:
            command = {"feeds": path, "options": options.to_json()}
            for index in range(self.launches):
                if progress is not None:
                    progress("latency", index, self.launches)
                done.append(self._launch(command, generator))
        if progress is not None:
            progress("latency", self.launches, self.launches)
        return LatencyResult(tuple(done), tuple(self.calls), self.seed)

    def _launch(self, command: dict[str, Any], generator: random.Random) -> Launch:
        order = generator.sample(range(len(self.models)), len(self.models))
        pads = tuple(generator.randrange(4096) for _ in self.models)
        opened: dict[int, dict[str, Any]] = {}
        warm: dict[int, dict[str, Any]] = {}
        with contextlib.ExitStack() as stack:
            arms = {i: stack.enter_context(Arm(self.models[i], pads[i])) for i in order}
            for arm in arms.values():
                arm.wait_ready()
            for i in order:
                opened[i] = arms[i].ask("open", model=self.models[i], **command)
                seconds = patience(WARM_UP_CALLS, opened[i]["first_run_ms"])
                warm[i] = arms[i].ask("warm_up", seconds=seconds)
            if not self.calls:
                self._calibrate([warm[i]["call_ms"] for i in range(len(arms))])
            turns = self._turns(generator)
            rounds = [self._round(arms[i], i, pair, warm[i]["call_ms"]) for pair, i in turns]
        arms_in_order = range(len(self.models))
        return Launch(
            order=tuple(order),
            pads=pads,
            create_ms=tuple(opened[i]["create_ms"] for i in arms_in_order),
            first_run_ms=tuple(opened[i]["first_run_ms"] for i in arms_in_order),
            warm_up=tuple(warm[i] for i in arms_in_order),
            rounds=tuple(rounds),
        )

    def _calibrate(self, call_ms: list[float]) -> None:
        for model, duration in zip(self.models, call_ms, strict=True):
            if duration <= 0:
                raise WorkerError(f"{model}: the clock does not move between calls")
            length = max(self.round_ms, MIN_CALLS * duration)
            self.calls.append(math.ceil(length / duration))
            self.settle.append(1 if duration > SLOW_MS else 3)

    def _turns(self, generator: random.Random) -> list[tuple[int, int]]:
        """``(pair, arm)`` of each turn: blocks ABBA or BAAB, or one arm again and again."""
        if len(self.models) == 1:
            return [(index, 0) for index in range(self.rounds)]
        turns = []
        for block in range(self.rounds // 2):
            first = generator.randrange(2)
            pairs = ((2 * block, first), (2 * block + 1, 1 - first))
            turns += [(pair, arm) for pair, lead in pairs for arm in (lead, 1 - lead)]
        return turns

    def _round(self, arm: Arm, index: int, pair: int, call_ms: float) -> Round:
        calls, settle = self.calls[index], self.settle[index]
        seconds = patience(calls + settle, call_ms)
        answer = arm.ask("round", seconds=seconds, calls=calls, settle=settle, first=pair)
        for key in ("calls_ns", "settle_ns"):
            answer[key] = tuple(answer[key])
        # Ratios are logarithms of quantiles, so a single zero would already be nonsense.
        if min(answer["calls_ns"]) <= 0 or answer["wall_ns"] <= 0:
            raise WorkerError(f"{arm.model}: the clock does not move between calls")
        return Round(arm=index, **answer)
