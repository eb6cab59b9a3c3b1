"""What the figures were measured on. Nothing here raises where ``/proc`` lacks something."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

# Instruction sets that decide which kernels ONNX Runtime picks.
_FLAGS = ("avx", "avx2", "avx512", "vnni", "amx", "f16c", "fma", "asimd", "sve", "i8mm", "bf16")


def release_memory() -> None:
    """Give freed memory back to the system, where the allocator would keep it (glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def fingerprint() -> dict[str, Any]:
    """The machine and the versions, as JSON values; ``None`` where something can't be read."""
    from onnxtrim import __version__

    cpu = _cpu_info()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": cpu["model"],
        "cpu_flags": cpu["flags"],
        "cpus": affinity_count(),
        "cpu_quota": cpu_quota(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "load_average": _load_average(),
        "memory_bytes": _memory_bytes(),
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "onnxruntime": _version("onnxruntime"),
        "onnxtrim": __version__,
    }


def default_threads() -> int:
    """Threads that may really run: CPUs of the affinity mask, cut by the cgroup's quota.

    ONNX Runtime itself counts the host's CPUs, which in a container is too many.
    """
    quota = cpu_quota()
    count = affinity_count()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def affinity_count() -> int:
    """Number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: str | os.PathLike[str] = "/") -> float | None:
    """CPUs' worth of time that the control group allows, or ``None`` without a limit.

    Reads ``cpu.max`` (cgroup v2) of the group and its ancestors, or ``cpu.cfs_quota_us`` (v1).
    """
    base = Path(root)
    quotas = []
    for line in (_read(base / "proc/self/cgroup") or "").splitlines():
        number, controllers, group = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            mount = base / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            mount = base / "sys/fs/cgroup/cpu"
        else:
            continue
        folder = mount / group.lstrip("/")
        while folder.is_relative_to(mount):
            quotas.append(_quota_of(folder))
            folder = folder.parent
    limits = [quota for quota in quotas if quota is not None]
    return min(limits) if limits else None


def _quota_of(folder: Path) -> float | None:
    both = _read(folder / "cpu.max")
    if both is None:
        both = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
    try:
        quota, period = (int(word) for word in both.split())
    except ValueError:  # "max", or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _cpu_info() -> dict[str, Any]:
    model: str | None = None
    flags: list[str] = []
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model") and model is None:
            model = value.strip()
        if key.strip() in ("flags", "Features") and not flags:
            flags = sorted(f for f in value.split() if any(part in f for part in _FLAGS))
    return {"model": model or platform.processor() or None, "flags": flags}


def _load_average() -> list[float] | None:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (OSError, AttributeError):
        return None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: str | os.PathLike[str]) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
