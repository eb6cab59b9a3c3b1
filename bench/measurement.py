"""What was measured of a model or of two, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from onnxtrim.bench import looks
from onnxtrim.bench.latency_metrics import (
    latency_metrics,
    latency_verdict,
    latency_warnings,
    ratio_above_floor,
    smallest_effect,
)
from onnxtrim.bench.launches import CANDIDATE, LatencyResult
from onnxtrim.bench.memory import MemoryResult, memory_metrics
from onnxtrim.bench.results import Metrics, metrics_to_json
from onnxtrim.bench.verdict import Verdict

INDEPENDENT = "accuracy.mcnemar_p"
"""A metric that is there if the answers of top-1 accuracy are independent: no steps, no groups."""

ROLES = ("model", "original")
"""Of ``[model]``, or of ``[candidate, original]``."""


@dataclass(frozen=True)
class Measurement:
    """What was measured of a model (``original`` is ``None``) or of two.

    Attributes:
        metrics: By name; the plain names are the model's or the candidate's.
        model: ``{"path", "sha256"}`` of the model or the candidate.
        original: The same of the original.
        settings: How it was measured.
        machine: Where it was measured.
        details: Values behind the metrics: launches, memory repeats, accuracy counts with what
            came of every class and the verdict, the data, subnormal weights, the profile.
        warnings: What makes the figures less trustworthy, in words.
        latency: All rounds, if latency was measured.
        verdict: What is said about the accuracy that may be lost, if something was asked.
    """

    metrics: Metrics
    model: dict[str, str]
    original: dict[str, str] | None
    settings: dict[str, Any]
    machine: dict[str, Any]
    details: dict[str, Any]
    warnings: tuple[str, ...]
    latency: LatencyResult | None
    verdict: Verdict | None = None

    def with_latency(self, latency: LatencyResult, broken: str = "") -> Measurement:
        """The same with latency, its metrics, warnings and, for a limit, the verdict.

        Args:
            latency: What was measured.
            broken: Why no verdict may be passed on it, if so.
        """
        about = latency.to_json()
        limit = self.settings["limit"]
        if len(latency.calls) > CANDIDATE:
            about["ratio_above_floor"] = ratio_above_floor(latency)
            about["smallest_effect"] = smallest_effect(latency)
        if limit is not None and len(latency.calls) > CANDIDATE:
            verdict = latency_verdict(latency, limit, self.settings["rules"])
            if broken:
                verdict = looks.undecided(latency.logs(0.5), limit, broken, broken=True)
            about["verdict"] = verdict.to_json()
        return replace(
            self,
            metrics=self.metrics | latency_metrics(latency, self.settings["budget_ms"]),
            details={**self.details, "latency": about},
            warnings=(*self.warnings, *latency_warnings(latency)),
            latency=latency,
        )

    @property
    def latency_verdict(self) -> looks.Verdict | None:
        """What is said about the limit of latency, if there was one."""
        found = self.details.get("latency", {}).get("verdict")
        return None if found is None else looks.Verdict(**found)

    def to_json(self) -> dict[str, Any]:
        """``onnxtrim.bench/1``, or ``onnxtrim.compare/1`` with ``original`` and ``candidate``."""
        if self.original is None:
            head: dict[str, Any] = {"schema": "onnxtrim.bench/1", "model": self.model}
        else:
            head = {
                "schema": "onnxtrim.compare/1",
                "original": self.original,
                "candidate": self.model,
            }
        return {
            **head,
            "metrics": metrics_to_json(self.metrics),
            "options": self.settings,
            "machine": self.machine,
            "details": self.details,
            "warnings": list(self.warnings),
        }


def memory_from_details(details: Mapping[str, Any], *, arena: bool) -> Metrics:
    """Metrics of the memory that ``details`` tell of; ``arena`` is the setting in use."""
    metrics: Metrics = {}
    other = ".arena_off" if arena else ".arena_on"
    for name, setting in (("memory", ""), ("memory_other_arena", other)):
        told = details.get(name, {})
        results = [MemoryResult(tuple(told[role]["repeats"])) for role in ROLES if role in told]
        if results:
            original = results[1] if len(results) > 1 else None
            metrics |= memory_metrics(results[0], original, setting)
    return metrics
