"""What a latency run measured: launches, their rounds, their calls.

The launch is the unit: each gives one value, and intervals are over launches. What was measured
never changes; every figure is a function of it (:mod:`.latency_metrics`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

ORIGINAL, CANDIDATE, COPY = 0, 1, 2
"""The arms of a comparison; the copy is the original once more, in a process of its own."""


@dataclass(frozen=True)
class Round:
    """One turn of one process.

    Attributes:
        arm: 0 for the original (or only) model, 1 for the candidate, 2 for the original's copy.
        at: Seconds since the measurement began.
        calls_ns: Duration of each call that counts.
        settle_ns: Calls before them, which refill the caches; in no statistic.
        wall_ns: From the first counted call to the last.
        cpu_ns: CPU time of the process meanwhile.
        wait_ns: Time that it was runnable without a CPU; ``None`` where the system can't tell.
        switches: Involuntary context switches.
        joules: Of all packages meanwhile; ``None`` where there is no counter.
    """

    arm: int
    at: float
    calls_ns: tuple[int, ...]
    settle_ns: tuple[int, ...]
    wall_ns: int
    cpu_ns: int
    wait_ns: int | None
    switches: int
    joules: float | None = None

    @functools.cached_property
    def _ordered(self) -> list[int]:
        return sorted(self.calls_ns)

    def log_quantile(self, share: float) -> float:
        """Logarithm of a quantile of the calls, in ms; between two calls in proportion."""
        place = share * (len(self.calls_ns) - 1)
        first = min(int(place), len(self.calls_ns) - 2) if len(self.calls_ns) > 1 else 0
        low, high = self._ordered[first], self._ordered[min(first + 1, len(self.calls_ns) - 1)]
        return math.log((low + (place - first) * (high - low)) / 1e6)


@dataclass(frozen=True)
class Launch:
    """One start of the processes and all their rounds.

    Attributes:
        order: In which order the arms were started.
        pads: Bytes by which each arm's environment was padded.
        create_ms: Time to create the session, per arm.
        first_run_ms: Time of the first run, per arm.
        warm_up: Length of the warm-up and time per call, per arm.
        rounds: In the order in which they ran: a random order of the arms, and the same backwards
            (of two arms, ABBA or BAAB), again and again.
    """

    order: tuple[int, ...]
    pads: tuple[int, ...]
    create_ms: tuple[float, ...]
    first_run_ms: tuple[float, ...]
    warm_up: tuple[dict[str, Any], ...]
    rounds: tuple[Round, ...]

    def of(self, arm: int) -> list[Round]:
        """The rounds of one arm."""
        return [part for part in self.rounds if part.arm == arm]

    def median_log(self, arm: int, share: float) -> float:
        """Median over an arm's rounds of the logarithm of a quantile of the calls, in ms."""
        return float(np.median([part.log_quantile(share) for part in self.of(arm)]))

    def log_ratios(self, share: float, arm: int = CANDIDATE) -> NDArray[np.float64]:
        """ln(arm / original) of a quantile of the calls, for each turn of all arms."""
        arms = len(self.order)
        found = []
        for start in range(0, len(self.rounds), arms):
            turn = {part.arm: part for part in self.rounds[start : start + arms]}
            found.append(turn[arm].log_quantile(share) - turn[ORIGINAL].log_quantile(share))
        return np.asarray(found)

    def log_ratio(self, share: float, arm: int = CANDIDATE) -> float:
        """Median, over the turns of all arms, of ln(arm / original)."""
        return float(np.median(self.log_ratios(share, arm)))

    def calls(self, arm: int) -> NDArray[np.int64]:
        """All counted calls of an arm, in ns."""
        return np.concatenate([np.asarray(part.calls_ns, np.int64) for part in self.of(arm)])


@dataclass(frozen=True)
class LatencyResult:
    """What was measured; everything else is computed from the launches.

    Attributes:
        launches: The sample.
        calls: Calls per round and arm, fixed after the first warm-up.
        seed: Of the orders and paddings.
        conditions: What the machine did meanwhile, see :func:`.conditions.between`.
        floor_ms: Time of a call of a model that does nothing; ``None`` if it was not measured.
        planned: Whether the launches ended at a planned look.
    """

    launches: tuple[Launch, ...]
    calls: tuple[int, ...]
    seed: int
    conditions: Mapping[str, float | None] = field(default_factory=dict)
    floor_ms: float | None = None
    planned: bool = False

    def wait_share(self) -> float | None:
        """Share of the rounds' time spent waiting for a CPU, median of the launches.

        ``None`` where it can't be read. Most rounds are too short to be interrupted at all, so
        that a median of rounds would not show a neighbour.
        """
        shares = []
        for launch in self.launches:
            rounds = [part for part in launch.rounds if part.wait_ns is not None]
            wall = sum(part.wall_ns for part in rounds)
            if wall:
                shares.append(sum(part.wait_ns or 0 for part in rounds) / wall)
        return float(np.median(shares)) if shares else None

    def logs(self, share: float, arm: int = CANDIDATE) -> list[float]:
        """ln(arm / original) of a quantile of the calls, for each launch."""
        return [launch.log_ratio(share, arm) for launch in self.launches]

    def to_json(self) -> dict[str, Any]:
        """Launch values and conditions; the single calls are in :meth:`arrays`."""
        arms = range(len(self.calls))
        value: dict[str, Any] = {
            "seed": self.seed,
            "calls_per_round": list(self.calls),
            "planned": self.planned,
            "floor_ms": self.floor_ms,
            "conditions": dict(self.conditions),
            "rounds": [len(launch.rounds) // len(arms) for launch in self.launches],
            "start_order": [list(launch.order) for launch in self.launches],
            "pads": [list(launch.pads) for launch in self.launches],
            "create_ms": [list(launch.create_ms) for launch in self.launches],
            "first_run_ms": [list(launch.first_run_ms) for launch in self.launches],
            "warm_up": [list(launch.warm_up) for launch in self.launches],
            "p50_ms": [[math.exp(k.median_log(a, 0.5)) for a in arms] for k in self.launches],
            "wait_share": self.wait_share(),
            "involuntary_switches": sum(part.switches for part in self._rounds()),
        }
        if len(arms) > 1:
            value["p50_ratio"] = [math.exp(log) for log in self.logs(0.5)]
            value["p10_ratio"] = [math.exp(log) for log in self.logs(0.1)]
        if len(arms) > COPY:
            value["copy_ratio"] = [math.exp(log) for log in self.logs(0.5, COPY)]
        return value

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All rounds, one number or one stretch of ``calls_ns`` and ``settle_ns`` for each."""
        rounds = list(self._rounds())
        none = -1  # for what could not be read

        def column(name: str, dtype: Any) -> NDArray[Any]:
            values = [getattr(part, name) for part in rounds]
            return np.asarray([none if value is None else value for value in values], dtype)

        found = {name: column(name, np.int64) for name in _COUNTS}
        found |= {name: column(name, np.float64) for name in ("at", "joules")}
        for name in ("calls_ns", "settle_ns"):
            parts = [np.asarray(getattr(part, name), np.int64) for part in rounds]
            found[name] = np.concatenate(parts)
            found[f"{name}_count"] = np.asarray([len(part) for part in parts], np.int64)
        return found

    @classmethod
    def from_parts(cls, value: Mapping[str, Any], arrays: Mapping[str, Any]) -> LatencyResult:
        """What :meth:`to_json` and :meth:`arrays` wrote.

        Raises:
            ValueError: They don't belong together.
            KeyError: Something is missing.
        """
        rounds = list(_read_rounds(arrays))
        arms = len(value["calls_per_round"])
        launches, start = [], 0
        for index, count in enumerate(value["rounds"]):
            part = rounds[start : start + count * arms]
            start += count * arms
            launches.append(
                Launch(
                    order=tuple(value["start_order"][index]),
                    pads=tuple(value["pads"][index]),
                    create_ms=tuple(value["create_ms"][index]),
                    first_run_ms=tuple(value["first_run_ms"][index]),
                    warm_up=tuple(value["warm_up"][index]),
                    rounds=tuple(part),
                )
            )
        if start != len(rounds):
            raise ValueError(f"{len(rounds)} rounds, but the launches have {start}")
        for one in rounds:
            if len(one.calls_ns) != value["calls_per_round"][one.arm] or min(one.calls_ns) <= 0:
                raise ValueError("rounds with other calls than were asked for")
        return cls(
            tuple(launches),
            tuple(value["calls_per_round"]),
            value["seed"],
            value["conditions"],
            value["floor_ms"],
            value["planned"],
        )

    def _rounds(self) -> Iterator[Round]:
        return (part for launch in self.launches for part in launch.rounds)


_COUNTS = ("arm", "wall_ns", "cpu_ns", "wait_ns", "switches")


def _read_rounds(arrays: Mapping[str, Any]) -> Iterator[Round]:
    places = {
        name: np.cumsum([0, *arrays[f"{name}_count"].tolist()]).tolist()
        for name in ("calls_ns", "settle_ns")
    }

    def stretch(name: str, index: int) -> tuple[int, ...]:
        first, last = places[name][index : index + 2]
        return tuple(arrays[name][first:last].tolist())

    columns: dict[str, Sequence[Any]] = {name: arrays[name].tolist() for name in _COUNTS}
    columns |= {name: arrays[name].tolist() for name in ("at", "joules")}
    for index in range(len(columns["arm"])):
        numbers = {name: column[index] for name, column in columns.items()}
        for name in ("wait_ns", "joules"):
            if numbers[name] < 0:
                numbers[name] = None
        yield Round(
            calls_ns=stretch("calls_ns", index), settle_ns=stretch("settle_ns", index), **numbers
        )
