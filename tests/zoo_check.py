"""Remove units of a net of either zoo and see that all that must hold holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx

from onnxtrim.bench.session import RunOptions, open_session
from onnxtrim.export.model_io import model_bytes
from onnxtrim.toolkit.graph.constraints import satisfy
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.selfcheck import self_check
from onnxtrim.toolkit.graph.surgery import count_parameters, parameters_after, remove_units
from onnxtrim.toolkit.prepare import Prepared

SHARES = (0.05, 0.3, 0.7, 0.95)
ALIGNMENTS = (1, 4)


def stages(net: Prepared) -> Iterator[tuple[Analysis, Sequence[Group]]]:
    """Both stages, each on the original."""
    yield net.analysis, net.analysis.groups
    if net.analysis.inner is not None:
        yield net.analysis.inner, net.analysis.inner.groups


def check_removal(
    net: Prepared,
    analysis: Analysis,
    groups: Sequence[Group],
    share: float,
    seed: int = 0,
    align: int = 1,
    *,
    whole: bool = False,
) -> int:
    """Remove a share of the units of some groups.

    Args:
        net: The net.
        analysis: One of its stages.
        groups: Groups of that stage.
        share: Share of the units; at least one unit.
        seed: Which units.
        align: Alignment of what stays.
        whole: Also ask onnx.checker and load the model with all optimisations.

    Returns:
        Number of units that left; alignment can bring all back.
    """
    rng = np.random.default_rng(seed)
    orders = {g.name: rng.permutation(g.units)[: max(1, round(share * g.units))] for g in groups}
    keep = satisfy(analysis, orders, align)
    if not keep:
        return 0
    small = remove_units(analysis.model, analysis, keep)
    assert count_parameters(small) == parameters_after(analysis, keep)
    for name, value in small.graph.initializers.items():
        before = net.analysis.normalised.shapes.get(name)
        if before is None or len(before) < 2 or value.const_value is None:
            continue
        for old, new in zip(before, value.const_value.shape, strict=True):
            assert new == old or int(str(new)) % align == 0, (name, old, new)
    self_check(analysis.model, small, analysis, keep, net.feeds)
    if whole:
        content = model_bytes(small)
        onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
        open_session(content, RunOptions(threads=1))
    return sum(int((~mask).sum()) for mask in keep.values())
