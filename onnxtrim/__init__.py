"""onnxtrim removes neurons and channels that do nothing useful, and proves what that changed.

The public names load on first use, so that ``import onnxtrim.bench`` on a device imports
neither the pruning toolkit nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnxtrim.bench.errors import InputError, NothingToRemoveError, OnnxtrimError, WorkError
    from onnxtrim.export.from_torch import export_module
    from onnxtrim.toolkit.sweep import sweep
    from onnxtrim.toolkit.torch_bridge import apply_plan
    from onnxtrim.toolkit.trim import trim

_LAZY = {
    "InputError": "onnxtrim.bench.errors",
    "NothingToRemoveError": "onnxtrim.bench.errors",
    "OnnxtrimError": "onnxtrim.bench.errors",
    "WorkError": "onnxtrim.bench.errors",
    "apply_plan": "onnxtrim.toolkit.torch_bridge",
    "export_module": "onnxtrim.export.from_torch",
    "sweep": "onnxtrim.toolkit.sweep",
    "trim": "onnxtrim.toolkit.trim",
}

__all__ = [
    "InputError",
    "NothingToRemoveError",
    "OnnxtrimError",
    "WorkError",
    "__version__",
    "apply_plan",
    "export_module",
    "sweep",
    "trim",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'onnxtrim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
