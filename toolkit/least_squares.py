"""Channel least squares: what leaves, as a linear function of what stays.

With ``x ≈ A x_K``, ``A = G_·K (G_KK + λI)⁻¹``, a reader's weight becomes ``W' = W A``. A acts on
each element alone, so it commutes with convolution, padding and stride. Where no zeros are read
around the input, the fit is centred and its constant goes into the bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxtrim.toolkit.comoments import SecondMoments
from onnxtrim.toolkit.elimination import Matrix, Vector
from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.execute import Feeds
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.graph.surgery import Keep, positions
from onnxtrim.toolkit.readers import Reader, find_readers
from onnxtrim.toolkit.repair import Repaired, add_to_output
from onnxtrim.toolkit.sequential import repair_in_sequence
from onnxtrim.toolkit.statistics import Progress

RIDGE = 1e-3
"""Of the mean diagonal of the moments; the fit is drawn towards leaving the weights alone."""


@dataclass(frozen=True)
class LeastSquares:
    """Channel least squares; then, with inputs to look at, the sequential repair.

    Attributes:
        moments: Second moments at the readers' inputs.
        batches: Calibration inputs for the sequential repair; none to leave it out.
        progress: Called with a word, how many readers are done, and how many there are.
    """

    moments: Mapping[AxisRef, SecondMoments]
    batches: Sequence[Feeds] = ()
    progress: Progress | None = None

    def __call__(self, analysis: Analysis, keep: Keep, solved: Solved | None = None) -> Repaired:
        """See :class:`~onnxtrim.toolkit.repair.Repair`; ``solved`` gets the solutions."""
        remember = solved is not None
        repaired = repair_channels(analysis, keep, self.moments, solved, remember=remember)
        if not self.batches:
            return repaired
        return repair_in_sequence(analysis, keep, repaired, self.batches, self.progress)

    def cut(self, stays: Positions) -> None:
        """What follows has no repair: its inputs have changed."""


Solved = dict[tuple[str, bytes], Matrix]
"""Solutions by reader, block and what stays: they depend on nothing else."""


def repair_channels(
    analysis: Analysis,
    keep: Keep,
    moments: Mapping[AxisRef, SecondMoments],
    solved: Solved | None = None,
    *,
    remember: bool = False,
    start: Repaired | None = None,
) -> Repaired:
    """Solve every reader of removed units anew.

    Args:
        analysis: The groups.
        keep: For groups that lose units, a mask over their units.
        moments: Second moments at the readers' inputs.
        solved: Solutions that are known already.
        remember: Whether to add those that are found.
        start: A model that does without some of the units already; it stays as it is.
    """
    solved = {} if solved is None else solved
    start = start or Repaired(analysis.model)
    result = Repaired(start.model.clone(), dict(start.new_biases), list(start.skipped))
    nodes = {node.name: node for node in result.model.graph}
    stays = positions(analysis, keep)
    for reader in find_readers(analysis):
        mask = stays.get(reader.point)
        if mask is None or mask.all():
            continue
        shift = _repair(result, reader, mask, moments[reader.point], solved, remember)
        if shift is not None:
            dtype = reader.weight.dtype(result.model)
            add_to_output(result, analysis, nodes[reader.node], shift, dtype)
    return result


def _repair(
    result: Repaired,
    reader: Reader,
    mask: NDArray[np.bool_],
    moments: SecondMoments,
    solved: Solved,
    remember: bool,
) -> Vector | None:
    """Change the weight; returns what is to be added to the output."""
    gram = moments.covariance if reader.centred else moments.uncentred
    blocks, shifts = [], []
    for number, (at, weight) in enumerate(reader.blocks(result.model)):
        key = f"{reader.node}/{reader.weight.name}/{number}", mask.tobytes()
        stay, gone = np.flatnonzero(mask[at]), np.flatnonzero(~mask[at])
        if gram.ndim != 2:  # only the means are known
            follow = np.zeros((len(gone), len(stay)))
        elif key in solved:
            follow = solved[key]
        else:
            follow = regress(gram[np.ix_(at, at)], stay, gone)
        if remember:
            solved[key] = follow
        new = np.zeros_like(weight)
        new[stay] = weight[stay] + follow.T @ weight[gone]
        blocks.append((at, new))
        if reader.centred:
            mean = moments.mean[at]
            rest = (mean[gone] - follow @ mean[stay]) @ weight[gone]
            shifts.append(rest.reshape(reader.outputs // reader.groups, -1).sum(axis=1))
    reader.set_blocks(result.model, blocks)
    return np.concatenate(shifts) if reader.centred else None


def regress(gram: Matrix, stay: NDArray[np.int64], gone: NDArray[np.int64]) -> Matrix:
    """Coefficients of what leaves on what stays, (gone, stay)."""
    if not len(stay) or not len(gone):
        return np.zeros((len(gone), len(stay)))
    inner = gram[np.ix_(stay, stay)]
    scale = float(np.trace(inner)) / len(stay)
    if not scale > 0:
        return np.zeros((len(gone), len(stay)))
    ridge = RIDGE * scale * np.eye(len(stay))
    return np.asarray(np.linalg.solve(inner + ridge, gram[np.ix_(stay, gone)]).T, np.float64)
