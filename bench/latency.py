"""Latency and load time: two models in two processes, in turns, with the launch as the unit.

A process keeps a bias of about half a percent for its whole life, which nothing inside it can
see. So each launch starts fresh processes, gives one value, and only the launches count as a
sample. Inside a launch the models take turns of some milliseconds in a random order and the same
backwards, so that drift and neighbours hit both alike. A third process runs the original once
more: if that differs from the original, nothing measured here can be trusted.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Union

from onnxtrim.bench import looks
from onnxtrim.bench.arms import Arm, patience, written_feeds
from onnxtrim.bench.conditions import between, snapshot
from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.files import sha256_file
from onnxtrim.bench.launches import ORIGINAL, LatencyResult, Launch, Round
from onnxtrim.bench.model_file import drop_cached
from onnxtrim.bench.pacing import (
    MIN_CALLS,
    REVIEW,
    calls_per_round,
    raised,
    rounds_per_launch,
)
from onnxtrim.bench.session import Feeds, RunOptions

Progress = Callable[[str, int, int], None]
Decided = Callable[[LatencyResult], bool]
PathLike = Union[str, "os.PathLike[str]"]

WARM_UP_CALLS = 10  # at the time of the first run: the length of a warm-up of a slow model
LOOPS = 0.01  # by which all arms are slower that are to differ: a loop changes the calls beside it
SLOW_MS = 4.0  # from here on one settle call is enough


@dataclass(frozen=True)
class Protocol:
    """How latency is measured.

    Attributes:
        launches: How often to start fresh processes: the sample size, at least 2.
        rounds: Rounds per model and launch, even. 0 stands for 80, fewer of slow models (24 from
            3 ms a call on), and more from the sixth launch on if that is worth its time, see
            :mod:`.pacing`.
        round_ms: Length of a round; it sets the number of calls, at least 5.
        seed: Of the orders and paddings.
        copy: Whether the original also runs against itself.
        limit: The largest ratio that is allowed: launches then end at the planned look that
            decides (see :mod:`.looks`), and ``launches`` is not used.
        rules: How many claims are judged together, see :func:`.looks.judge`.
        hertz: Calls per second (a camera, a request now and then); 0 for one after another.
        cold: Whether models are taken out of the page cache before they are loaded.
    """

    launches: int = 8
    rounds: int = 0
    round_ms: float = 4.0
    seed: int = 0
    copy: bool = False
    limit: float | None = None
    rules: int = 1
    hertz: float = 0.0
    cold: bool = False

    def __post_init__(self) -> None:
        if self.launches < 2:
            raise InputError(f"launches is {self.launches}; an interval needs at least 2")
        if self.rounds < 0 or self.rounds % 2:
            raise InputError(f"rounds is {self.rounds}; give an even number, or 0 for automatic")
        if not 0 < self.round_ms < math.inf:
            raise InputError(f"round_ms is {self.round_ms}; give a length above 0")
        if self.limit is not None and not 0 < self.limit < math.inf:
            raise InputError(f"limit is {self.limit}; give a ratio above 0, such as 0.8 or 1.02")
        if not 0 <= self.hertz < math.inf:
            raise InputError(f"{self.hertz} calls per second; give a number above 0")
        if self.cold and not hasattr(os, "posix_fadvise"):
            raise InputError("cold: this system can't take files out of its cache; leave it out")


def measure_latency(
    model: PathLike,
    feeds: Sequence[Feeds],
    options: RunOptions | None = None,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> LatencyResult:
    """Latency and load time of one model; arguments as of :func:`compare_latency`."""
    measuring = _Measuring([str(model)], protocol or Protocol())
    return measuring.run(feeds, options or RunOptions(), progress)


def compare_latency(
    original: PathLike,
    candidate: PathLike,
    feeds: Sequence[Feeds],
    options: RunOptions | None = None,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
    decided: Decided | None = None,
    until: float | None = None,
) -> LatencyResult:
    """Latency and load time of two models, taking turns.

    Args:
        original: Path of the first model.
        candidate: Path of the second.
        feeds: The inputs of some runs, cycled by both alike.
        options: How to run both.
        protocol: How to measure.
        progress: Called with ``("latency", done, total)`` after each launch.
        decided: Called at the planned looks, in place of judging ``protocol.limit``: launches end
            when it says that all is decided.
        until: Value of ``time.monotonic()`` from which on no launch is begun, after the second.

    Raises:
        InputError: ONNX Runtime refuses a model or the feeds.
        WorkerError: A process died, or the clock does not move; its ``finished`` is the
            :class:`.LatencyResult` of the launches before, if there are two or more.
    """
    protocol = protocol or Protocol()
    models = [str(original), str(candidate)]
    if protocol.copy:
        models.append(str(original))
    limit, rules = protocol.limit, protocol.rules

    def within(found: LatencyResult) -> bool:
        return limit is None or looks.judge(found.logs(0.5), limit, rules) is not None

    if decided is None and limit is not None:
        decided = within
    return _Measuring(models, protocol, decided=decided, until=until).run(
        feeds, options or RunOptions(), progress
    )


def measure_arms(
    models: Sequence[PathLike],
    feeds: Sequence[Feeds],
    options: RunOptions | None = None,
    protocol: Protocol | None = None,
    slower: Sequence[float] = (),
    ramp: float = 0.0,
    progress: Progress | None = None,
) -> LatencyResult:
    """Several arms in turns, some of them made slower: to check the harness itself.

    Args:
        models: Path of each arm's model; the ratios are to the first.
        feeds: As of :func:`compare_latency`, like the rest.
        options: How to run all.
        protocol: How to measure; a limit is not looked at.
        slower: Share by which a busy loop prolongs the calls of each arm.
        ramp: Share by which it prolongs those of all arms at the end, growing from nothing.
        progress: Called after each launch.
    """
    protocol = replace(protocol or Protocol(), limit=None)
    shares = tuple(slower) or ((0.0,) * len(models) if ramp else ())
    measuring = _Measuring([str(model) for model in models], protocol, shares, ramp)
    return measuring.run(feeds, options or RunOptions(), progress)


@dataclass
class _Measuring:
    """What to run; the number of calls per round is frozen after the first warm-up.

    ``start_s`` and ``rounds_s`` are the seconds that starts and rounds have taken.
    """

    models: list[str]
    protocol: Protocol
    slower: tuple[float, ...] = ()
    ramp: float = 0.0
    decided: Decided | None = None
    until: float | None = None
    calls: list[int] = field(default_factory=list)
    settle: list[int] = field(default_factory=list)
    rounds: int = 0
    start_s: float = 0.0
    rounds_s: float = 0.0
    floor_ms: float | None = None
    launch: int = 0

    def run(
        self, feeds: Sequence[Feeds], options: RunOptions, progress: Progress | None
    ) -> LatencyResult:
        """Make all launches."""
        for model in self.models:
            sha256_file(model)  # read once, so that each launch finds it in the page cache
        generator = random.Random(self.protocol.seed)
        planned = self.decided is not None
        most = looks.LOOKS[-1] if planned else self.protocol.launches
        done: list[Launch] = []
        before, start = snapshot(), time.monotonic()

        def result() -> LatencyResult:
            conditions = between(before, snapshot())
            return LatencyResult(
                tuple(done),
                tuple(self.calls),
                self.protocol.seed,
                conditions,
                self.floor_ms,
                planned and len(done) in looks.LOOKS,
            )

        with written_feeds(feeds) as path:
            command = {"feeds": path, "options": options.to_json()}
            try:
                while len(done) < most and not (
                    self.decided and len(done) in looks.LOOKS and self.decided(result())
                ):
                    if self.until is not None and len(done) > 1 and time.monotonic() > self.until:
                        break
                    if progress is not None:
                        progress("latency", len(done), most)
                    self.launch = len(done)
                    done.append(self._launch(command, generator, start))
                    self._review(done, most)
            except WorkerError as error:
                error.finished = result() if len(done) > 1 else None
                raise
        if progress is not None:
            progress("latency", most, most)
        return result()

    def _launch(self, command: dict[str, Any], generator: random.Random, start: float) -> Launch:
        order = generator.sample(range(len(self.models)), len(self.models))
        pads = tuple(generator.randrange(4096) for _ in self.models)
        opened: dict[int, dict[str, Any]] = {}
        warm: dict[int, dict[str, Any]] = {}
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            arms = {i: stack.enter_context(Arm(self.models[i], pads[i])) for i in order}
            for arm in arms.values():
                arm.wait_ready()
            for i in order:
                if self.protocol.cold:
                    drop_cached(self.models[i])
                opened[i] = arms[i].ask("open", model=self.models[i], **command)
                seconds = patience(WARM_UP_CALLS, opened[i]["first_run_ms"])
                warm[i] = arms[i].ask("warm_up", seconds=seconds)
            if not self.calls:
                self._calibrate([warm[i]["call_ms"] for i in range(len(arms))])
                asked = arms[ORIGINAL].ask("floor", options=command["options"])
                self.floor_ms = asked["floor_ms"]
            first = time.monotonic()
            rounds = [
                self._round(arms[i], i, turn, warm[i]["call_ms"], start)
                for turn, i in self._turns(generator)
            ]
            last = time.monotonic()
        self.rounds_s += last - first
        self.start_s += time.monotonic() - began - (last - first)
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
        for model, duration in zip(self.models, call_ms):
            if duration <= 0:
                raise WorkerError(f"{model}: the clock does not move between calls")
            paced = self.protocol.hertz
            self.calls.append(
                MIN_CALLS if paced else calls_per_round(duration, self.protocol.round_ms)
            )
            self.settle.append(1 if duration > SLOW_MS or self.protocol.hertz else 3)
        for index, model in enumerate(self.models):  # arms of one model are treated alike
            twin = self.models.index(model)
            self.calls[index], self.settle[index] = self.calls[twin], self.settle[twin]
        pause_ms = 1000 / self.protocol.hertz if self.protocol.hertz else 0.0
        slowest_ms = max(*call_ms, pause_ms)
        self.rounds = self.protocol.rounds or rounds_per_launch(slowest_ms, self.protocol.round_ms)

    def _review(self, done: Sequence[Launch], most: int) -> None:
        """More rounds from the sixth launch on, if nobody gave their number."""
        if len(done) == REVIEW < most and len(self.models) > 1 and not self.protocol.rounds:
            self.rounds = raised(done, self.start_s, self.rounds_s)

    def _turns(self, generator: random.Random) -> list[tuple[int, int]]:
        """``(turn, arm)`` of each round: in every turn all arms, every second turn backwards."""
        arms = len(self.models)
        turns = []
        for block in range(self.rounds // 2):
            order = generator.sample(range(arms), arms)
            turns += [(2 * block, arm) for arm in order]
            turns += [(2 * block + 1, arm) for arm in reversed(order)]
        return turns

    def _done(self, turn: int) -> float:
        """Share of the session that is over at a turn."""
        return (self.launch + turn / self.rounds) / self.protocol.launches

    def _round(self, arm: Arm, index: int, turn: int, call_ms: float, start: float) -> Round:
        calls, settle = self.calls[index], self.settle[index]
        pause = 1 / self.protocol.hertz if self.protocol.hertz else 0.0
        seconds = patience(calls + settle, max(call_ms, 1000 * pause))
        at = time.monotonic() - start
        rest = {"calls": calls, "settle": settle, "first": turn, "pause": pause}
        if self.slower:
            share = self.slower[index] + self.ramp * self._done(turn)
            rest["slower"] = (1 + LOOPS) * (1 + share) - 1
        answer = arm.ask("round", seconds=seconds, **rest)
        for key in ("calls_ns", "settle_ns"):
            answer[key] = tuple(answer[key])
        # Ratios are logarithms of quantiles, so a single zero would already be nonsense.
        if min(answer["calls_ns"]) <= 0 or answer["wall_ns"] <= 0:
            raise WorkerError(f"{arm.model}: the clock does not move between calls")
        return Round(arm=index, at=at, **answer)
