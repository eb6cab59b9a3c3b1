"""The order in which the units of every group leave, by the reconstruction criterion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxtrim.toolkit.elimination import Matrix, Term, eliminate
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.labels import AxisRef, Index
from onnxtrim.toolkit.readers import Reader, find_readers
from onnxtrim.toolkit.second_moments import SecondMoments

Orders = dict[str, Index]


def order_units(analysis: Analysis, moments: Mapping[AxisRef, SecondMoments]) -> Orders:
    """For every group its units, the one to remove first at the front.

    Args:
        analysis: The groups.
        moments: Second moments wherever units are read.
    """
    readers = find_readers(analysis)
    return {
        group.name: eliminate(_terms(analysis, group, readers, moments), group.units)[0]
        for group in analysis.groups
    }


def _terms(
    analysis: Analysis,
    group: Group,
    readers: list[Reader],
    moments: Mapping[AxisRef, SecondMoments],
) -> list[Term]:
    terms = []
    solvable = set()
    for reader in readers:
        if reader.point not in group.slices:
            continue
        solvable.add(reader.point)
        found = moments[reader.point]
        gram = found.uncentred if reader.padded else found.covariance
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
            spread = moments[ref].covariance
            spread = np.diag(spread) if spread.ndim == 2 else spread
            energy = float(spread.sum())
            weight = 1 / energy if energy > 0 else 0.0
            terms.append(Term(spread, np.ones(len(spread)), group.slices[ref], weight))
    return terms


def _part(gram: Matrix, at: Index) -> Matrix:
    return gram[np.ix_(at, at)] if gram.ndim == 2 else gram[at]
