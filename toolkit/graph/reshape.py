"""Signatures of Reshape, Flatten, Squeeze and Unsqueeze, made from the shapes.

Axes before and after are matched by their cumulative products and refined to common factors:
``(2, 3, 16, 16) -> (2, 768)`` becomes ``"b c1 C2 C3 -> b (c1 C2 C3)"``, or with another factor
followed. Where the products share no factors, as in ``(6, 4) -> (4, 6)``, the axes stay.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

Shape = tuple[int, ...]
MOST_ALTERNATIVES = 12


def reshape_signatures(
    source: Shape, target: Shape, other: tuple[Shape, Shape] | None = None
) -> list[tuple[str, str]]:
    """Input and output operand of a reshape, in every way in which factors can be followed.

    An axis can follow one factor. The first alternative follows the outermost ones: channels
    before Flatten, heads before head dimensions.

    Args:
        source: Shape before.
        target: Shape after; the same number of elements.
        other: Both at other sizes of the model's inputs. A factor that then lies elsewhere, such
            as channels merged with a free size within them, can't be followed.
    """
    if math.prod(source) == 0 or math.prod(source) != math.prod(target):
        return [(_operand(source, {}, "S"), _operand(target, {}, "T"))]
    sizes: list[int] = []
    left: dict[int, list[int]] = {}
    right: dict[int, list[int]] = {}
    for mine, theirs in _stretches(source, target):
        factors = _common_factors([source[k] for k in mine], [target[k] for k in theirs])
        if factors is not None:
            left |= _assign(source, mine, factors, len(sizes))
            right |= _assign(target, theirs, factors, len(sizes))
            sizes += factors
    steady = set(range(len(sizes)))
    if other is not None:
        before, after = _strides(other[0], left, sizes), _strides(other[1], right, sizes)
        steady = {k for k in steady if before[k] is not None and before[k] == after[k]}
    return [
        (_operand(source, left, "S", followed), _operand(target, right, "T", followed))
        for followed in itertools.islice(_choices(steady, left, right), MOST_ALTERNATIVES)
    ]


def _strides(
    shape: Shape, axes: Mapping[int, list[int]], sizes: list[int]
) -> dict[int, int | None]:
    """How many elements lie between two slices of each factor; ``None`` if it does not fit.

    An axis that is longer here than where the factors were found repeats them: heads that are
    merged with the batch.
    """
    result: dict[int, int | None] = {}
    for axis, factors in axes.items():
        inner = 1
        for factor in reversed(factors):
            fits = shape[axis] % (inner * sizes[factor]) == 0
            result[factor] = math.prod(shape[axis + 1 :]) * inner if fits else None
            inner *= sizes[factor]
    return result


def _stretches(source: Shape, target: Shape) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest runs of axes that hold the same elements on both sides, outermost first."""
    i = j = 0
    while i < len(source) and j < len(target):
        mine, theirs = [i], [j]
        a, b = source[i], target[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                a, i = a * source[i], i + 1
                mine.append(i - 1)
            else:
                b, j = b * target[j], j + 1
                theirs.append(j - 1)
        yield mine, theirs


def _common_factors(source: Sequence[int], target: Sequence[int]) -> list[int] | None:
    """Sizes of the factors of which both runs are made, outermost first; ``None`` without."""
    bounds = {1}
    for run in (source, target):
        bounds |= set(itertools.accumulate(run, lambda a, b: a * b))
    factors = []
    for inner, outer in itertools.pairwise(sorted(bounds)):
        if outer % inner:
            return None
        factors.append(outer // inner)
    return factors


def _assign(shape: Shape, axes: list[int], factors: list[int], first: int) -> dict[int, list[int]]:
    """For each axis the numbers of its factors."""
    result: dict[int, list[int]] = {}
    position = 0
    for axis in axes:
        size, result[axis] = shape[axis], []
        while size > 1:
            result[axis].append(first + position)
            size //= factors[position]
            position += 1
    return result


def _choices(
    steady: set[int], left: Mapping[int, list[int]], right: Mapping[int, list[int]]
) -> Iterator[frozenset[int]]:
    """Maximal sets of factors of which no axis has two, the outermost first."""
    rivals: dict[int, set[int]] = {factor: set() for factor in steady}
    for axis in (*left.values(), *right.values()):
        for factor in steady & set(axis):
            rivals[factor] |= (set(axis) & steady) - {factor}

    def extend(chosen: frozenset[int], rest: list[int]) -> Iterator[frozenset[int]]:
        if not rest:
            yield chosen
            return
        first, *others = rest
        yield from extend(chosen | {first}, [k for k in others if k not in rivals[first]])
        later = rivals[first] & set(others)
        for found in extend(chosen, others) if later else ():
            if found & later:  # else it would not be maximal
                yield found

    yield from extend(frozenset(), sorted(rivals))


def _operand(
    shape: Shape,
    axes: Mapping[int, list[int]],
    unit: str,
    followed: frozenset[int] = frozenset(),
) -> str:
    words = []
    for axis in range(len(shape)):
        letters = [
            f"f{factor}" if factor in followed else f"F{factor}" for factor in axes.get(axis, ())
        ]
        if not letters:
            words.append(f"{unit}{axis}")  # size 1, or no common factors
        elif len(letters) == 1:
            words.append(letters[0])
        else:
            words.append(f"({' '.join(letters)})")
    return " ".join(words)
