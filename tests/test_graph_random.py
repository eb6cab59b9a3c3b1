"""Random graphs out of all operators: whatever leaves, the rest computes the masked original."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from onnxtrim.toolkit.graph.reshape import reshape_signatures
from onnxtrim.toolkit.graph.rules import RULES
from tests.nets import Net
from tests.random_check import Outcome, check_model
from tests.random_graphs import NOT_DRAWN, RandomModel, random_models

EXAMPLES = 500


@pytest.mark.slow
def test_any_removal_from_any_graph(tmp_path_factory: pytest.TempPathFactory) -> None:
    """``Phase.shrink`` and ``random_models(shrink=True)`` make a failing graph smaller."""
    folder: Path = tmp_path_factory.mktemp("random")
    counts: Counter[str] = Counter()
    operators: set[str] = set()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(model=random_models(), seed=st.integers(0, 2**32 - 1))
    def check(model: RandomModel, seed: int) -> None:
        note(repr(model))
        outcome = check_model(model, Random(seed), folder)
        operators.update(model.operators)
        counts["graphs"] += 1
        counts["with groups"] += outcome.groups > 0
        counts["with inner groups"] += outcome.inner > 0
        counts["removed"] += outcome.removed
        counts["seen"] += outcome.effect > 0

    check()
    # The strategy is not vacuous.
    assert counts["graphs"] >= EXAMPLES
    assert counts["with groups"] > 0.6 * counts["graphs"]
    assert counts["with inner groups"] > 0.02 * counts["graphs"]
    assert counts["removed"] > 1.5 * counts["graphs"]
    assert counts["seen"] > 0.4 * counts["graphs"]
    assert RULES.keys() - operators == NOT_DRAWN


def outcome(proto: onnx.ModelProto, folder: Path) -> Outcome:
    """Remove at random, several times."""
    model = RandomModel(proto, frozenset())
    return [check_model(model, Random(seed), folder) for seed in range(6)][-1]


# What failed before.


def test_the_axes_of_computed_indices_go_on_in_the_output(tmp_path: Path) -> None:
    """The units of ``a`` are rows of the indices, and of what Gather makes of them."""
    n = Net()
    h = n.op("Transpose", n.matmul("a", "x", 6, 7), perm=[0, 2, 1])  # batch 7 5
    rows = n.op("Gather", n.weight("table", 5, 3), n.op("ArgMax", h, axis=2, keepdims=0))
    y = n.op("MatMul", n.weight("b", 4, 7), rows)
    assert outcome(n.build(y, ["batch", 5, 6]), tmp_path).units == 7


def merged(n: Net) -> str:
    """Six units after four samples after one: the size is six at one sample."""
    return n.op("Reshape", n.relu(n.gemm("a", "x", 4, 6)), n.ints("flat", -1))


def test_units_merged_with_the_batch_come_apart_again(tmp_path: Path) -> None:
    n = Net()
    apart = n.op("Reshape", n.op("Tanh", merged(n)), n.ints("apart", -1, 6))
    assert outcome(n.build(n.gemm("b", apart, 6, 3), ["batch", 4]), tmp_path).units == 6


def test_units_merged_with_the_batch_and_cut_elsewhere_stay(tmp_path: Path) -> None:
    """With one sample the axes look alike, with three they are others."""
    n = Net()
    apart = n.op("Reshape", n.op("Tanh", merged(n)), n.ints("apart", 1, 6, -1))
    y = n.op("MatMul", n.weight("b", 3, 6), apart)
    assert outcome(n.build(y, ["batch", 4]), tmp_path).units == 0


@pytest.mark.parametrize("cut", ["Slice", "Concat", "ReduceSum", "Gather", "Pad"])
def test_units_merged_with_the_batch_and_cut_or_read_stay(cut: str, tmp_path: Path) -> None:
    n = Net()
    h = merged(n)
    operands = {
        "Slice": ["from", "to"],
        "Concat": [h],
        "ReduceSum": ["from"],
        "Gather": ["places"],
        "Pad": ["pads"],
    }
    n.ints("from", 0)
    n.ints("to", 4)
    n.ints("places", 2, 0, 3)
    n.ints("pads", 1, 0)
    axis: dict[str, Any] = {"axis": 0} if cut in ("Concat", "Gather") else {}
    y = n.op(cut, h, *operands[cut], **axis)
    y = n.op("ReduceSum", y, n.ints("all", 0), keepdims=1)
    assert outcome(n.build(y, ["batch", 4]), tmp_path).units == 0


def test_a_free_size_within_the_units_stops_them(tmp_path: Path) -> None:
    n = Net()
    h = n.op("Transpose", n.matmul("a", "x", 4, 6), perm=[0, 2, 1])  # batch 6 time
    flat = n.op("Tanh", n.op("Reshape", h, n.ints("flat", 0, -1)))
    h = n.op("Reshape", flat, n.ints("apart", 0, 6, -1))
    y = n.op("MatMul", n.weight("b", 3, 6), h)
    assert outcome(n.build(y, ["batch", "time", 4]), tmp_path).units == 0


@pytest.mark.parametrize(("target", "units"), [((4, 0, 1), 4), ((0, 4, 0), 4)], ids=str)
def test_zero_in_a_reshape_may_copy_another_axis(
    target: tuple[int, ...], units: int, tmp_path: Path
) -> None:
    """Of equal size before, but only one of both loses units."""
    n = Net()
    h = n.matmul("a", "x", 6, 4)  # 1 4 4, the units last
    if target[0] == 0:  # 4 4 1 -> 4 4 1, nothing moves
        h = n.op("Reshape", h, n.ints("column", 4, 4, 1))
    h = n.op("Reshape", h, n.ints("target", *target))
    y = n.op("MatMul", n.weight("b", 3, 4), h)
    assert outcome(n.build(y, [1, 4, 6]), tmp_path).units == units


def test_units_within_a_free_size_repeat_as_often_as_it_says(tmp_path: Path) -> None:
    """At the other inputs the time is shorter."""
    n = Net()
    flat = n.op("Tanh", n.op("Reshape", n.matmul("a", "x", 4, 6), n.ints("flat", 0, -1)))
    h = n.op("Reshape", flat, n.ints("apart", 0, -1, 6))
    y = n.matmul("b", h, 6, 3)
    assert outcome(n.build(y, ["batch", "time", 4]), tmp_path).units == 6


def test_only_factors_that_lie_alike_at_all_sizes_are_followed() -> None:
    first = reshape_signatures((1, 6, 4), (6, 4), ((3, 6, 4), (18, 4)))
    assert first == reshape_signatures((1, 6, 4), (6, 4))
    assert reshape_signatures((6,), (1, 6, 1), ((18,), (1, 6, 3))) == [("F0", "T0 F0 T2")]
    assert reshape_signatures((1, 6, 4), (1, 24), ((1, 6, 2), (1, 12)))[0][0] == "S0 F0 F1"
