"""Measure what a policy asks for, and no more."""

from __future__ import annotations

import time

from onnxtrim.bench.compare import Data, PathLike, Progress, compare
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate.evidence import OF_LAUNCHES
from onnxtrim.bench.gate.judge import is_decided
from onnxtrim.bench.gate.policy import Policy, Target
from onnxtrim.bench.gate.quantity import accuracy_name
from onnxtrim.bench.latency import Protocol
from onnxtrim.bench.launches import LatencyResult
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.metrics import TOP1
from onnxtrim.bench.session import RunOptions, Sizes
from onnxtrim.bench.settings import Settings

_OF_TOP1 = ("top1", "negative_flip_rate")


def measure_for(
    policy: Policy,
    original: PathLike,
    candidate: PathLike,
    *,
    target: str | None = None,
    data: Data | None = None,
    sizes: Sizes | None = None,
    seed: int = 0,
    attempts: int = 1,
    until: float | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure a candidate beside its original until all rules about launches are decided.

    Args:
        policy: What will be judged.
        original: Path of the original.
        candidate: Path of the candidate.
        target: Which target of the policy; the only one without.
        data: Samples, as of :func:`.compare`.
        sizes: Free dimensions of random inputs, as of :func:`.random_feeds`.
        seed: Of all randomness.
        attempts: How often it may be measured anew; each attempt gets its part of alpha.
        until: Value of ``time.monotonic()`` from which on no launch is begun, see :func:`deadline`.
        progress: As of :func:`.compare`.

    Raises:
        InputError: Unfit models or data, a rule on accuracy without data, or samples that the
            candidate was made with.
        WorkerError: As of :func:`.compare`.
    """
    chosen = policy.target(target)
    settings = settings_for(policy, chosen, sizes=sizes, seed=seed)
    if settings.accuracy and data is None:
        first = next(rule.metric for rule in chosen.rules if rule.family == "accuracy")
        raise InputError(f"{policy.source}: {first} needs samples; give them with --data")

    def decided(found: LatencyResult) -> bool:
        so_far = Measurement({}, {}, {}, settings.to_json(), {}, {}, (), found)
        return is_decided(so_far, policy, chosen, policy.alpha / attempts)

    found = compare(
        original,
        candidate,
        data=data,
        settings=settings,
        progress=progress,
        decided=decided,
        until=until,
    )
    found.details["attempts"] = attempts
    found.details["policy_sha256"] = policy.sha256
    found.details["out_of_time"] = until is not None and time.monotonic() > until
    return found


def deadline(policy: Policy) -> float | None:
    """When the time ends that a policy gives all attempts from now on; ``None`` for no end."""
    return None if policy.max_seconds is None else time.monotonic() + policy.max_seconds


def settings_for(
    policy: Policy, target: Target, *, sizes: Sizes | None = None, seed: int = 0
) -> Settings:
    """What must be measured for a target."""
    families = {rule.family for rule in target.rules}
    names = {accuracy_name(rule.metric) for rule in target.rules if rule.family == "accuracy"}
    metrics = sorted({TOP1 if name in _OF_TOP1 else name for name in names - {"agreement"}})
    budgets = [rule.budget_ms for rule in target.rules if rule.budget_ms is not None]
    throughput = [
        int(rule.metric.split(".")[1].partition("x")[2])
        for rule in target.rules
        if rule.family == "throughput"
    ]
    return Settings(
        options=RunOptions(threads=target.threads, provider=target.provider, arena=target.arena),
        protocol=Protocol(seed=seed, hertz=target.hertz, copy=policy.require_aa),
        batch=target.batch,
        sizes=sizes or {},
        budget_ms=budgets[0] if budgets else None,
        latency=bool(families & set(OF_LAUNCHES)),
        memory="memory" in families,
        both_arenas=any(".arena_" in rule.metric for rule in target.rules),
        throughput=max(throughput, default=0),
        accuracy="accuracy" in families,
        metrics=tuple(metrics),
        fresh_data="accuracy" in families,
    )
