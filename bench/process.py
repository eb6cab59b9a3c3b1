"""What the running process takes: memory, waiting, switches. Linux tells most, others less.

Where a system lacks a figure there is none; only the standard library is imported.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

HWM, MAX_RSS, WORKING_SET = "hwm", "maxrss", "working_set"
"""Where peaks come from: a mark that is set anew (Linux), or the highest of the whole process
(macOS and others; Windows)."""

_SIZE = ctypes.c_size_t


class _Counters(ctypes.Structure):
    """``PROCESS_MEMORY_COUNTERS`` of Windows."""

    _fields_ = (
        ("cb", ctypes.c_uint32),
        ("PageFaultCount", ctypes.c_uint32),
        ("PeakWorkingSetSize", _SIZE),
        ("WorkingSetSize", _SIZE),
        ("QuotaPeakPagedPoolUsage", _SIZE),
        ("QuotaPagedPoolUsage", _SIZE),
        ("QuotaPeakNonPagedPoolUsage", _SIZE),
        ("QuotaNonPagedPoolUsage", _SIZE),
        ("PagefileUsage", _SIZE),
        ("PeakPagefileUsage", _SIZE),
    )


class ProcessMemory:
    """Memory of this process, in bytes.

    Attributes:
        method: How peaks are read; known after the first :meth:`reset`.
    """

    def __init__(self) -> None:
        self.method = WORKING_SET if sys.platform == "win32" else MAX_RSS

    def reset(self) -> None:
        """Start the highest resident size anew, where the kernel allows it."""
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return
        self.method = HWM

    def resident(self) -> int:
        """Resident size now, or the highest so far where only that is told."""
        return _status("VmRSS") or _working_set()[0] or _max_rss()

    def peak(self) -> int:
        """Highest resident size since the last reset, or of the whole process."""
        marked = _status("VmHWM") if self.method == HWM else None
        return marked or _working_set()[1] or _max_rss()


def proportional() -> int | None:
    """Proportional set size (Linux): shared pages count in parts."""
    return _kilobytes("/proc/self/smaps_rollup", "Pss")


def anonymous_and_file() -> list[int | None]:
    """Proportional size of anonymous and of file pages (Linux 5.4 and later)."""
    return [_kilobytes("/proc/self/smaps_rollup", key) for key in ("Pss_Anon", "Pss_File")]


def run_queue_wait() -> int | None:
    """Nanoseconds that this thread has been runnable without a CPU (Linux)."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None


def involuntary_switches() -> int:
    """How often this process lost its CPU; 0 on Windows, which does not tell."""
    usage = _usage()
    return 0 if usage is None else int(usage.ru_nivcsw)


def _usage() -> Any:
    """Of a module that Windows lacks; ``None`` there."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF)


def _max_rss() -> int:
    usage = _usage()
    if usage is None:
        return 0
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _working_set() -> tuple[int, int]:
    """Working set now and at its highest (Windows); zeros elsewhere."""
    if sys.platform != "win32":
        return 0, 0
    kernel = ctypes.WinDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
    counters = _Counters()
    counters.cb = ctypes.sizeof(counters)
    handle = kernel.GetCurrentProcess()
    if not kernel.K32GetProcessMemoryInfo(handle, ctypes.addressof(counters), counters.cb):
        raise OSError("Windows does not tell the memory of this process")
    return counters.WorkingSetSize, counters.PeakWorkingSetSize


def _status(key: str) -> int | None:
    return _kilobytes("/proc/self/status", key)


def _kilobytes(path: str, key: str) -> int | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None
