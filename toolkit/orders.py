"""Criteria for budgets: in which order the units of every group leave.

``reconstruction`` is the default; the others are what it is to be compared with. A criterion of
the user's own is a function ``package.module:function`` of :class:`Sight` that returns one number
per unit, the smallest to leave first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.data import import_function
from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.comoments import SecondMoments
from onnxtrim.toolkit.elimination import Matrix, Term, eliminate
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.labels import AxisRef, Index
from onnxtrim.toolkit.graph.values import constant_array
from onnxtrim.toolkit.readers import Reader, find_readers
from onnxtrim.toolkit.statistics import Statistics

Orders = dict[str, Index]
Scores = NDArray[np.float64]

DEFAULT = "reconstruction"


@dataclass(frozen=True)
class Sight:
    """What a criterion sees of a group.

    Attributes:
        analysis: The model, in ``analysis.model``, and all groups.
        group: The group.
        moments: Second moments wherever units are read.
        readers: The readers of all groups.
        statistics: Gathers mean, share of zeros and range of every unit, by a pass over the data.
    """

    analysis: Analysis
    group: Group
    moments: Mapping[AxisRef, SecondMoments]
    readers: list[Reader]
    statistics: Callable[[], Statistics]


Criterion = Callable[[Sight], Scores]


def order_units(
    analysis: Analysis,
    moments: Mapping[AxisRef, SecondMoments],
    criterion: str = DEFAULT,
    statistics: Callable[[], Statistics] | None = None,
) -> Orders:
    """For every group its units, the one to remove first at the front.

    Args:
        analysis: The groups.
        moments: Second moments wherever units are read.
        criterion: A name of `CRITERIA`, ``"reconstruction"`` or ``"package.module:function"``.
        statistics: Gathers statistics of the units, for criteria that look at them.

    Raises:
        InputError: There is no such criterion, it needs statistics and there are none, or a user's
            own returns something else.
    """
    readers = find_readers(analysis)
    gather = functools.cache(statistics or _no_statistics)
    sights = [Sight(analysis, group, moments, readers, gather) for group in analysis.groups]
    if criterion == DEFAULT:
        return {
            sight.group.name: eliminate(_terms(sight), sight.group.units)[0] for sight in sights
        }
    function = find_criterion(criterion)
    return {sight.group.name: _sorted(function, sight, criterion) for sight in sights}


def find_criterion(name: str) -> Criterion:
    """The function of a name.

    Raises:
        InputError: There is none.
    """
    if name in CRITERIA:
        return CRITERIA[name]
    module, colon, function = name.partition(":")
    if not colon:
        known = ", ".join((DEFAULT, *CRITERIA))
        raise InputError(f"criterion {name!r}: must be one of {known}, or package.module:function")
    return import_function(module, function)


def _no_statistics() -> Statistics:
    raise InputError("this criterion needs statistics of the units, and so the calibration data")


def _sorted(function: Criterion, sight: Sight, name: str) -> Index:
    scores = np.asarray(function(sight), np.float64)
    if scores.shape != (sight.group.units,) or not np.isfinite(scores).all():
        raise InputError(
            f"criterion {name!r}: gave {scores.shape} for group {sight.group.name!r}, must give"
            f" {sight.group.units} finite numbers"
        )
    return np.argsort(scores, kind="stable")


def _variance(sight: Sight) -> Scores:
    """Variance where the units are read (variance-based pruning, arXiv 2507.12988)."""
    scores = np.zeros(sight.group.units)
    for ref in sight.group.consumer_inputs():
        if ref in sight.group.slices:
            scores += _pooled(sight.group.slices[ref], _variances(sight.moments[ref]), scores)
    return scores


def _output_error(sight: Sight) -> Scores:
    """Expected squared error of the next layers if a unit leaves alone and its mean is folded."""
    scores = np.zeros(sight.group.units)
    for term in _terms(sight):
        pair = (np.diag(m) if m.ndim == 2 else m for m in (term.moments, term.products))
        variance, products = pair
        scores += term.weight * _pooled(term.units, variance * products, scores)
    return scores


def _apoz(sight: Sight) -> Scores:
    """Share of activations that are not zero (average percentage of zeros, Hu et al. 2016)."""
    return sum((1 - found.zeros for found in sight.statistics().of(sight.group)), np.zeros(1))


def _magnitude(sight: Sight) -> Scores:
    """Norm of the weights that make a unit."""
    scores = np.zeros(sight.group.units)
    graph = sight.analysis.model.graph
    for ref in {touch.weight for touch in sight.group.touches if touch.role == "producer"}:
        array = constant_array(graph.initializers.get(ref[0])) if ref is not None else None
        if ref is None or array is None or ref not in sight.group.slices:
            continue
        rows = np.moveaxis(array.astype(np.float64), ref[1], 0)
        squares = (rows.reshape(len(rows), -1) ** 2).sum(axis=1)
        scores += _pooled(sight.group.slices[ref], squares, scores)
    return np.sqrt(scores)


def _random(sight: Sight) -> Scores:
    """By chance, the same at every run."""
    return np.random.default_rng(0).permutation(sight.group.units).astype(np.float64)


CRITERIA: dict[str, Criterion] = {
    "output-error": _output_error,
    "variance": _variance,
    "apoz": _apoz,
    "magnitude": _magnitude,
    "random": _random,
}


def _variances(moments: SecondMoments) -> Scores:
    covariance = moments.covariance
    return np.diag(covariance) if covariance.ndim == 2 else covariance


def _pooled(units: Index, values: Scores, like: Scores) -> Scores:
    """Sums over the positions of each unit."""
    own = units >= 0
    return np.asarray(np.bincount(units[own], values[own], len(like)), np.float64)


def _terms(sight: Sight) -> list[Term]:
    analysis, group, moments = sight.analysis, sight.group, sight.moments
    terms = []
    solvable = set()
    for reader in sight.readers:
        if reader.point not in group.slices:
            continue
        solvable.add(reader.point)
        found = moments[reader.point]
        gram = found.covariance if reader.centred else found.uncentred
        blocks = [
            (at, _part(gram, at), weight @ weight.T if gram.ndim == 2 else (weight**2).sum(1))
            for at, weight in reader.blocks(analysis.model)
        ]
        energy = sum(float((part * products).sum()) for _, part, products in blocks)
        for at, part, products in blocks:
            units = group.slices[reader.point][at]
            if (units >= 0).any():
                terms.append(Term(part, products, units, 1 / energy if energy > 0 else 0.0))
    for ref in group.consumer_inputs():
        if ref in group.slices and ref not in solvable:  # nothing makes up for what leaves here
            spread = moments[ref].uncentred
            spread = np.diag(spread) if spread.ndim == 2 else spread
            energy = float(spread.sum())
            weight = 1 / energy if energy > 0 else 0.0
            terms.append(Term(spread, np.ones(len(spread)), group.slices[ref], weight))
    return terms


def _part(gram: Matrix, at: Index) -> Matrix:
    return gram[np.ix_(at, at)] if gram.ndim == 2 else gram[at]
