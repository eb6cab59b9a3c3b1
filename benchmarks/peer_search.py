"""Search of a peer's options: the strength that removes a share, and the best of what came out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from trained import Trained

T = TypeVar("T")

TOLERANCE = 0.01  # of the share of removed parameters
TRIALS = 10  # strengths that are tried
CHOSEN_BY = 2_000  # test images that choose between options


class RefusalError(Exception):
    """A peer can't prune this network, or not that far."""


@dataclass(frozen=True)
class Pruned:
    """What a peer made.

    Attributes:
        path: The ONNX file.
        removed: Share of the parameters that left.
        options: The options that were best.
    """

    path: Path
    removed: float
    options: str


@dataclass(frozen=True)
class Images:
    """Images of a network.

    Attributes:
        calibration: Without labels.
        test: Those that choose between options.
        labels: Of the test images.
    """

    calibration: NDArray[np.float32]
    test: NDArray[np.float32]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, net: Trained) -> Images:
        """Read them."""
        with np.load(net.calibration, allow_pickle=False) as calibration:
            seen = calibration["x"]
        with np.load(net.test, allow_pickle=False) as test:
            return cls(seen, test["x"][:CHOSEN_BY], test["labels"][:CHOSEN_BY])

    def accuracy(self, scores: NDArray[np.float32]) -> float:
        """Share of the test images that scores of shape ``(images, classes)`` have right."""
        return float(np.mean(scores.argmax(1) == self.labels))


def nearest(share: float, attempt: Callable[[float], tuple[T, float]]) -> tuple[T, float]:
    """Find the strength at which a share of the parameters leaves, by regula falsi and bisection.

    Args:
        share: What should leave.
        attempt: From a strength in (0, 1) to a result and the share that left.

    Returns:
        The result nearest to the share, and its own share.
    """
    low, high = (0.0, 0.0), (1.0, 1.0)  # strength and share
    strength = 1 - (1 - share) ** 0.5  # right for a chain of layers
    best: tuple[T, float] | None = None
    for trial in range(TRIALS):
        result, removed = attempt(strength)
        if best is None or abs(removed - share) < abs(best[1] - share):
            best = result, removed
        if abs(removed - share) <= TOLERANCE / 2:
            break
        low, high = ((strength, removed), high) if removed < share else (low, (strength, removed))
        slope = (share - low[1]) / max(high[1] - low[1], 1e-9)
        part = 0.5 if trial % 3 == 2 else min(max(slope, 0.05), 0.95)
        strength = low[0] + part * (high[0] - low[0])
    assert best is not None
    return best


@dataclass
class Contest(Generic[T]):
    """The best of several options.

    Attributes:
        share: Share of the parameters that should leave.
        score: Accuracy of the best on the images that choose.
        removed: Share that left in the best.
        options: The best options.
        best: What they gave.
        missed: Shares that options came to which did not come near enough.
        errors: What options stumbled over, an example of each.
    """

    share: float
    score: float = -1.0
    removed: float = 0.0
    options: str = ""
    best: T | None = None
    missed: list[float] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    def enter(
        self,
        options: str,
        attempt: Callable[[float], tuple[T, float]],
        score: Callable[[T], float],
    ) -> tuple[T, float] | None:
        """Let options take part; what they raise is kept as the reason of a refusal.

        Returns:
            Their result and its share, if it is near enough to the share.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result, removed = nearest(self.share, attempt)
                if abs(removed - self.share) > TOLERANCE:
                    self.missed.append(removed)
                    return None
                self.offer(options, result, removed, score(result))
        except Exception as error:  # whatever a peer stumbles over
            text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            self.errors.setdefault(re.sub(r"\d+", "#", text), text)  # sizes make no other error
            return None
        return result, removed

    def offer(self, options: str, result: T, removed: float, score: float) -> None:
        """Keep a result if it is the best so far."""
        if score > self.score:
            self.score, self.best, self.options, self.removed = score, result, options, removed

    def winner(self) -> T:
        """The best.

        Raises:
            RefusalError: No options came near the share; tells why.
        """
        if self.best is not None:
            return self.best
        reasons = list(self.errors.values())
        if self.missed:
            nearest_share = min(self.missed, key=lambda removed: abs(removed - self.share))
            reasons.insert(0, f"the nearest share that it reaches is {nearest_share:.1%}")
        raise RefusalError("; ".join(reasons) or "nothing was removed")
