"""Which positions of the original tensors are left when several stages have cut them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.labels import AxisRef, Index

Kept = Mapping[AxisRef, Index]
"""For every axis that lost positions, the original numbers of those that stay."""


def kept_after(kept: Kept, stage: Positions) -> dict[AxisRef, Index]:
    """What is left of the original positions when one more stage cuts.

    Args:
        kept: What the stages before left.
        stage: A mask over the positions of that model, for every axis that loses some.
    """
    result = dict(kept)
    for ref, mask in stage.items():
        before = kept.get(ref)
        result[ref] = np.flatnonzero(mask) if before is None else before[mask]
    return result
