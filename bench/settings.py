"""What to measure, and how."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.latency import Protocol
from onnxtrim.bench.metrics import TOP1
from onnxtrim.bench.session import RunOptions, Sizes


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
        options: How ONNX Runtime runs the models.
        protocol: How latency is measured; its seed is that of random inputs, too.
        batch: Samples per call in latency and memory, where the model leaves that free.
        eval_batch: Samples per call in accuracy, likewise.
        sizes: Free dimensions of random inputs, see ``random_feeds``.
        generated: Whether latency and memory run on random inputs although there is data.
        budget_ms: Time that a call may take, for the share of calls over it.
        latency: Whether to measure latency and load time.
        memory: Whether to measure memory.
        throughput: Samples per call, beside ``batch``, with which throughput is measured; 0 for no
            throughput.
        both_arenas: Whether also with the other setting of the memory arena.
        accuracy: Whether to measure accuracy, if there is data.
        metrics: What accuracy is: names of :mod:`onnxtrim.bench.metrics`, or ``"top1"``; none for
            top-1 if there are labels.
        max_drop: Percentage points of top-1 accuracy that a candidate may lose; judged in a
            comparison, see :func:`onnxtrim.bench.verdict.non_inferior`.
        fresh_data: Whether to refuse samples that the candidate was made with, as ``max_drop``
            does.
        profile: Whether to tell where the time goes, layer by layer; slow and apart.
    """

    options: RunOptions = field(default_factory=RunOptions)
    protocol: Protocol = field(default_factory=Protocol)
    batch: int = 1
    eval_batch: int = 256
    sizes: Sizes = field(default_factory=dict)
    generated: bool = False
    budget_ms: float | None = None
    latency: bool = True
    memory: bool = True
    throughput: int = 0
    both_arenas: bool = False
    accuracy: bool = True
    metrics: tuple[str, ...] = ()
    max_drop: float | None = None
    fresh_data: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("eval_batch", 1), ("throughput", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; give {least} or more")
        if self.budget_ms is not None and not 0 < self.budget_ms < math.inf:
            raise InputError(f"budget_ms is {self.budget_ms}; give a time above 0")
        if self.protocol.limit is not None and not self.latency:
            raise InputError("limit judges latency, which is not measured")
        if self.max_drop is None:
            return
        if not 0 <= self.max_drop < 100:
            raise InputError(f"max_drop is {self.max_drop}; give percentage points below 100")
        if not self.accuracy or (self.metrics and TOP1 not in self.metrics):
            raise InputError("max_drop judges top-1 accuracy, which is not measured; add top1")

    @property
    def claims(self) -> int:
        """How many claims are judged together."""
        return sum(asked is not None for asked in (self.protocol.limit, self.max_drop))

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values, threads written out."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        sizes = {
            name: size if isinstance(size, int) else list(size) for name, size in self.sizes.items()
        }
        own |= {"metrics": list(self.metrics), "sizes": sizes}
        del own["options"], own["protocol"]
        return {**self.options.to_json(), **asdict(self.protocol), **own}
