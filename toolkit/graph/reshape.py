"""Signatures of Reshape, Flatten, Squeeze and Unsqueeze, made from the shapes.

Axes before and after are matched by their cumulative products and refined to common factors:
``(2, 3, 16, 16) -> (2, 768)`` becomes ``"b c1 C2 C3 -> b (c1 C2 C3)"``. Where the products share
no factors, as in ``(6, 4) -> (4, 6)``, the axes in between are frozen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Shape = tuple[int, ...]


def reshape_signature(source: Shape, target: Shape) -> tuple[str, str]:
    """Input and output operand of a reshape.

    In every axis the outermost factor is followed that is not excluded by another axis: channels
    before Flatten, heads before head dimensions.

    Args:
        source: Shape before.
        target: Shape after; the same number of elements.
    """
    if math.prod(source) == 0 or math.prod(source) != math.prod(target):
        return _frozen(source, "S"), _frozen(target, "T")
    factors = _common_factors(source, target)
    if factors is None:
        return _frozen(source, "S"), _frozen(target, "T")
    left, right = _assign(source, factors), _assign(target, factors)
    followed: set[int] = set()
    for factor in range(len(factors)):
        axes = [axis for axis in itertools.chain(left, right) if factor in axis]
        if factors[factor] > 1 and not any(followed & set(axis) for axis in axes):
            followed.add(factor)
    return _operand(source, left, followed, "S"), _operand(target, right, followed, "T")


def _frozen(shape: Shape, letter: str) -> str:
    return " ".join(f"{letter}{axis}" for axis in range(len(shape)))


def _bounds(shape: Sequence[int]) -> set[int]:
    return set(itertools.accumulate(shape, lambda a, b: a * b))


def _common_factors(source: Shape, target: Shape) -> list[int] | None:
    """Sizes of the factors of which both shapes are made, outermost first."""
    bounds = sorted(_bounds(source) | _bounds(target) | {1})
    factors = []
    for inner, outer in itertools.pairwise(bounds):
        if outer % inner:
            return None
        factors.append(outer // inner)
    return factors


def _assign(shape: Shape, factors: list[int]) -> list[list[int]]:
    """For each axis the indices of its factors."""
    result, position = [], 0
    for size in shape:
        mine: list[int] = []
        while size > 1:
            mine.append(position)
            size //= factors[position]
            position += 1
        result.append(mine)
    return result


def _operand(shape: Shape, axes: list[list[int]], followed: set[int], unit: str) -> str:
    words = []
    for axis, mine in enumerate(axes):
        letters = [f"f{factor}" if factor in followed else f"F{factor}" for factor in mine]
        if not letters:
            words.append(f"{unit}{axis}")  # size 1: carries nothing
        elif len(letters) == 1:
            words.append(letters[0])
        else:
            words.append(f"({' '.join(letters)})")
    return " ".join(words)
