"""What the machine did while something was measured: pressure, stolen time, energy.

Nothing here raises where ``/proc`` or ``/sys`` lacks something; what can't be read is ``None``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxtrim.bench.student import t_quantile

BUSY_WAIT, BUSY_STEAL, BUSY_PRESSURE = 0.02, 0.01, 0.20
"""Shares of the time from which a machine counts as busy: waiting for a CPU, stolen by the
hypervisor, and with some process waiting (pressure stall information)."""

DRIFT = 0.01
"""Relative change per minute from which a drift is told, if it is no chance."""

_CHANCE = 1e-3  # of a rank correlation as large, two-sided
_FEWEST = 8  # values from which a drift is told
_STEAL = 7  # place of the stolen time among the numbers of /proc/stat


def snapshot(root: str | os.PathLike[str] = "/") -> dict[str, Any]:
    """Counters to be compared with later ones, see :func:`between`."""
    base = Path(root)
    ticks = _numbers(_first_line(base / "proc/stat"))
    pressure = _first_line(base / "proc/pressure/cpu")
    uptime = _numbers(_first_line(base / "proc/uptime"))
    return {
        "uptime": uptime[0] if uptime else None,
        "ticks": sum(ticks[:8]) if ticks else None,
        "stolen": ticks[_STEAL] if len(ticks) > _STEAL else None,
        "pressure": _pressure(pressure),
        "frequency": _number(base / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"),
        "temperature": _number(base / "sys/class/thermal/thermal_zone0/temp"),
    }


def between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float | None]:
    """``steal`` and ``pressure`` as shares of the time between two snapshots, and the clock.

    ``frequency`` (kHz) and ``temperature`` (thousandths of a degree) are the later ones.
    """
    seconds = _difference(before, after, "uptime")
    stalled = _difference(before, after, "pressure")  # microseconds
    ticks = _difference(before, after, "ticks")
    stolen = _difference(before, after, "stolen")
    return {
        "steal": stolen / ticks if stolen is not None and ticks else None,
        "pressure": stalled / 1e6 / seconds if stalled is not None and seconds else None,
        "frequency": after["frequency"],
        "temperature": after["temperature"],
    }


def contention(wait: float | None, found: Mapping[str, float | None]) -> str | None:
    """Why the machine counts as busy, in words; ``None`` if it does not.

    Args:
        wait: Share of a round that was spent waiting for a CPU.
        found: ``steal`` and ``pressure``, from :func:`between`.
    """
    for share, least, words in (
        (wait, BUSY_WAIT, "of the measured time went to waiting for a CPU"),
        (found.get("steal"), BUSY_STEAL, "of the time was taken by the hypervisor"),
        (found.get("pressure"), BUSY_PRESSURE, "of the time some process waited for a CPU"),
    ):
        if share is not None and share > least:
            return f"{share:.0%} {words}"
    return None


def drift(seconds: Sequence[float], logs: Sequence[float]) -> float | None:
    """Relative change per minute of a time, if it follows the clock by more than chance.

    The rank correlation with the time (Spearman, with Student's t) must be beyond what chance
    gives in one of a thousand cases; the slope is that from the median of the first third to that
    of the last.

    Args:
        seconds: When each value was taken; values must not hang together, as rounds of a launch do.
        logs: Logarithm of the time per call.
    """
    count = len(logs)
    times, values = np.asarray(seconds), np.asarray(logs)
    if count < _FEWEST or not np.ptp(values):
        return None
    rank = float(np.corrcoef(_ranks(times), _ranks(values))[0, 1])
    far = abs(rank) * math.sqrt((count - 2) / max(1 - rank * rank, 1e-12))
    if far < t_quantile(1 - _CHANCE / 2, count - 2):
        return None
    third = count // 3
    order = np.argsort(times, kind="stable")
    early, late = order[:third], order[-third:]
    change = np.median(values[late]) - np.median(values[early])
    minutes = (np.median(times[late]) - np.median(times[early])) / 60
    return float(change / minutes) if minutes > 0 else None


class EnergyCounter:
    """Joules of the processor's packages, where the system tells them (Linux, powercap)."""

    def __init__(self, root: str | os.PathLike[str] = "/") -> None:
        base = Path(root) / "sys/class/powercap"
        try:
            zones = list(base.iterdir())
        except OSError:
            zones = []
        # Parts of a package, and second counters of the same one, would be counted twice.
        packages = {_first_line(zone / "name"): zone for zone in sorted(zones)}
        self._zones = [
            zone
            for name, zone in sorted(packages.items())
            if name.startswith("package") and _number(zone / "energy_uj") is not None
        ]

    def read(self) -> list[float] | None:
        """Microjoules of each package; ``None`` where there is no counter."""
        if not self._zones:
            return None
        return [_number(zone / "energy_uj") or 0.0 for zone in self._zones]

    def since(self, before: list[float] | None) -> float | None:
        """Joules since a reading; counters that wrapped meanwhile are put right."""
        now = self.read()
        if before is None or now is None:
            return None
        total = 0.0
        for zone, first, last in zip(self._zones, before, now):
            wrapped = _number(zone / "max_energy_range_uj") or 0.0
            total += last - first if last >= first else last - first + wrapped
        return total / 1e6


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def _difference(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> float | None:
    first, last = before[key], after[key]
    return None if first is None or last is None else float(last - first)


def _pressure(line: str) -> float | None:
    """``some avg10=… total=<microseconds>``."""
    kind, _, total = line.rpartition("total=")
    return float(total) if kind.startswith("some") and total.isdigit() else None


def _number(path: Path) -> float | None:
    found = _numbers(_first_line(path))
    return found[0] if found else None


def _numbers(line: str) -> list[float]:
    found = []
    for word in line.split():
        try:
            found.append(float(word))
        except ValueError:
            continue
    return found


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return ""
