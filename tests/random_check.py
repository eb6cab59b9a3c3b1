"""What must hold for every random model: any removal leaves the masked original."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import onnx
import onnxruntime as ort

from onnxtrim.export.model_io import model_bytes
from onnxtrim.toolkit.graph.constraints import satisfy
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.labels import Index
from onnxtrim.toolkit.graph.selfcheck import self_check
from onnxtrim.toolkit.graph.surgery import count_parameters, parameters_after, remove_units
from onnxtrim.toolkit.prepare import Prepared, prepare
from tests.random_base import SIZES
from tests.random_graphs import RandomModel

_LATE = {"batch": 2, "time": 3}  # sizes that no check of the engine has seen


@dataclass(frozen=True)
class Outcome:
    """What one model gave.

    Attributes:
        groups: Groups of the first stage, and
        inner: of the second.
        units: Units of all groups.
        removed: Units that left, in both stages.
        effect: Largest effect of a removal on the outputs.
    """

    groups: int
    inner: int
    units: int
    removed: int
    effect: float


def check_model(model: RandomModel, rng: Random, folder: Path) -> Outcome:
    """Prepare, remove units at random, check; for the outer and for the inner groups.

    Raises:
        Exception: What the engine, the checker or ONNX Runtime raises: a failure.
    """
    path = folder / "random.onnx"
    onnx.save(model.proto, path)
    net = prepare(path, sizes=SIZES)[0]
    removed, effect = 0, 0.0
    for analysis in filter(None, (net.analysis, net.analysis.inner)):
        if analysis.groups:
            count, seen = _remove(net, analysis, rng)
            removed, effect = removed + count, max(effect, seen)
    outer, both = len(net.analysis.groups), net.analysis.all_groups()
    units = sum(group.units for group in both)
    return Outcome(outer, len(both) - outer, units, removed, effect)


def _removals(analysis: Analysis, rng: Random) -> Iterator[tuple[str, Index]]:
    """From all groups or some, from one unit to almost all."""
    numbers = np.random.default_rng(rng.getrandbits(32))
    everywhere = rng.randrange(2) == 0
    share = rng.choice([0.4, 0.4, 0.05, 0.2, 0.7, 0.95])
    for group in analysis.groups:
        if everywhere or rng.randrange(2) == 0:
            count = max(1, round(share * group.units))
            yield group.name, numbers.permutation(group.units)[:count]


def _remove(net: Prepared, analysis: Analysis, rng: Random) -> tuple[int, float]:
    keep = satisfy(analysis, dict(_removals(analysis, rng)), rng.choice([1, 1, 1, 2, 4]))
    if not keep:
        return 0, 0.0
    small = remove_units(analysis.model, analysis, keep)
    count, wanted = count_parameters(small), parameters_after(analysis, keep)
    if count != wanted:
        raise AssertionError(f"{wanted} parameters were predicted, {count} are left")
    data = model_bytes(small)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    _run_optimised(data, net)
    check = self_check(analysis.model, small, analysis, keep, net.feeds)
    return sum(int((~mask).sum()) for mask in keep.values()), check.effect


def _run_optimised(data: bytes, net: Prepared) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(data, options, ["CPUExecutionProvider"])
    numbers = np.random.default_rng(5)
    feeds = {
        spec.name: numbers.standard_normal(
            [size if isinstance(size, int) else _LATE[str(size)] for size in spec.shape]
        ).astype(np.float32)
        for spec in net.inputs
    }
    for array in session.run(None, feeds):
        assert isinstance(array, np.ndarray)
