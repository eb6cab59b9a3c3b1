"""What the machine did: pressure, stolen time, drift, energy, from made-up files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxtrim.bench.conditions import EnergyCounter, between, contention, drift, snapshot


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def system(root: Path, *, seconds: float, stolen: int, stalled: int) -> None:
    ticks = round(200 * seconds)
    write(root, "proc/uptime", f"{seconds} 0\n")
    write(root, "proc/stat", f"cpu {ticks - stolen} 0 0 0 0 0 0 {stolen} 0 0\ncpu0 1 1\n")
    write(root, "proc/pressure/cpu", f"some avg10=0.00 avg60=0.00 total={stalled}\nfull total=9\n")


def test_shares_of_the_time_between(tmp_path: Path) -> None:
    system(tmp_path, seconds=100.0, stolen=10, stalled=5_000_000)
    before = snapshot(tmp_path)
    system(tmp_path, seconds=110.0, stolen=110, stalled=8_000_000)
    found = between(before, snapshot(tmp_path))
    assert found["steal"] == pytest.approx(100 / 2000)
    assert found["pressure"] == pytest.approx(0.3)
    assert "hypervisor" in str(contention(0.0, found))


def test_nothing_is_readable(tmp_path: Path) -> None:
    found = between(snapshot(tmp_path), snapshot(tmp_path))
    assert set(found.values()) == {None}
    assert contention(None, found) is None


@pytest.mark.parametrize(
    ("wait", "steal", "pressure", "words"),
    [
        (0.03, 0.0, 0.0, "waiting for a CPU"),
        (0.0, 0.02, 0.0, "hypervisor"),
        (0.0, 0.0, 0.25, "some process waited"),
        (0.02, 0.01, 0.20, None),
        (None, None, None, None),
    ],
)
def test_what_counts_as_busy(
    wait: float | None, steal: float | None, pressure: float | None, words: str | None
) -> None:
    told = contention(wait, {"steal": steal, "pressure": pressure})
    assert told is None if words is None else words in str(told)


def test_drift_is_found_and_chance_is_not() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 120, 200))
    noise = rng.normal(0, 0.01, 200)
    assert drift(times.tolist(), (0.05 * times / 60 + noise).tolist()) == pytest.approx(
        0.05, rel=0.15
    )
    assert drift(times.tolist(), noise.tolist()) is None
    assert drift([1.0, 2.0], [0.0, 1.0]) is None, "too few to tell"
    assert drift(times.tolist(), [1.0] * 200) is None


def test_drift_seldom_cries_wolf() -> None:
    rng = np.random.default_rng(1)
    times = list(range(100))
    cries = sum(drift(times, rng.normal(0, 1, 100).tolist()) is not None for _ in range(1000))
    assert cries <= 6


def test_energy_counters_that_wrap(tmp_path: Path) -> None:
    zones = tmp_path / "sys/class/powercap"
    for name, kind, value in (
        ("intel-rapl:0", "package-0", 900),
        ("intel-rapl:1", "package-1", 10),
        ("intel-rapl:0:0", "core", 5),
        ("intel-rapl-mmio:0", "package-0", 900),
    ):
        write(zones, f"{name}/energy_uj", f"{value}\n")
        write(zones, f"{name}/name", f"{kind}\n")
        write(zones, f"{name}/max_energy_range_uj", "1000\n")
    counter = EnergyCounter(tmp_path)
    before = counter.read()
    assert before is not None
    assert len(before) == 2, "neither parts of a package nor a second counter of it"
    write(zones, "intel-rapl:0/energy_uj", "100\n")
    write(zones, "intel-rapl:1/energy_uj", "60\n")
    assert counter.since(before) == pytest.approx((200 + 50) / 1e6)


def test_no_energy_counter(tmp_path: Path) -> None:
    counter = EnergyCounter(tmp_path)
    assert counter.read() is None
    assert counter.since(None) is None
