"""What the report needs to know of a judgement by a policy, whoever passed it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from onnxtrim.bench.results import Metric


class Rule(Protocol):
    """One rule of a policy and what came of it."""

    @property
    def metric(self) -> str:
        """Name of the metric that it is about."""

    @property
    def verdict(self) -> str:
        """``pass``, ``fail``, ``inconclusive``, ``missing``, ``waived`` or ``error``."""

    @property
    def level(self) -> str:
        """``error``, ``warn`` or ``info``."""

    @property
    def limit(self) -> str:
        """What is allowed, in words such as ``≤ 0.8``."""

    @property
    def value(self) -> float | None:
        """What was measured."""

    @property
    def low(self) -> float | None:
        """Lower end of its interval."""

    @property
    def high(self) -> float | None:
        """Upper end of its interval."""

    @property
    def unit(self) -> str:
        """Of these numbers, see :class:`onnxtrim.bench.results.Metric`."""

    @property
    def bound(self) -> float | None:
        """The limit as a number of this unit, to be drawn."""

    @property
    def why(self) -> str:
        """What hinders a clear answer, or what to do; the reason of a waiver; or empty."""


class Judgement(Protocol):
    """What a policy says of a result."""

    @property
    def verdict(self) -> str:
        """``pass``, ``fail`` or ``inconclusive``."""

    @property
    def words(self) -> str:
        """The verdict in a sentence."""

    @property
    def target(self) -> str:
        """What the policy was read for, such as a device; may be empty."""

    @property
    def policy(self) -> Mapping[str, str]:
        """``source`` and ``sha256`` of the policy."""

    @property
    def tried(self) -> int:
        """How many candidates the candidate was chosen from."""

    @property
    def rules(self) -> Sequence[Rule]:
        """What came of each rule."""


def measured(rule: Rule) -> Metric | None:
    """The number that a rule looked at, alone if an end of its interval is not known."""
    if rule.value is None:
        return None
    low, high = rule.low, rule.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Metric.exact(rule.value, rule.unit)
    return Metric(rule.value, low, high, rule.unit)
