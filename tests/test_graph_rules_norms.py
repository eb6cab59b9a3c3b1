"""Rules of normalisations, reductions, and of what computes over an axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxtrim.toolkit.graph.rules import _REDUCTIONS
from tests.rule_case import Case, ints, live, one, positive, scalar, weight
from tests.rule_judge import bundles, judge, ready

X = live(2, 5, 3, 4)
VARIANCE = weight(5, low=0.5, high=1.5)
BATCH = {"s": weight(5), "b": weight(5), "m": weight(5), "u": VARIANCE}
COMPUTED = live(low=0.1, high=0.5, dtype="int64")  # zero, but only at run time

NORMS = [
    one("BatchNormalization", "four axes", {"w": X, **BATCH},
        "w0 v0=2; w1 s0 b0 m0 u0 v1=5; w2 v2=3; w3 v3=4"),
    one("BatchNormalization", "two axes", {"w": live(2, 5), **BATCH},
        "w0 v0=2; w1 s0 b0 m0 u0 v1=5", epsilon=0.1),
    one("BatchNormalization", "opset 9", {"w": live(2, 5, 3), **BATCH},
        "w0 v0=2; w1 s0 b0 m0 u0 v1=5; w2 v2=3", opset=9),
    one("InstanceNormalization", "four axes", {"w": X, "s": weight(5), "b": weight(5)},
        "w0 v0=2; w1 s0 b0 v1=5"),
    one("InstanceNormalization", "three axes", {"w": live(2, 5, 7), "s": weight(5), "b": weight(5)},
        "w0 v0=2; w1 s0 b0 v1=5"),
    one("GroupNormalization", "per channel",
        {"w": live(2, 6, 4, 5), "s": weight(6), "b": weight(6)},
        "w0 v0=2; w1 s0 b0 v1=3", num_groups=3, shapes=((2, 6, 4, 5),)),
    one("GroupNormalization", "per group", {"w": live(2, 6, 4, 5), "s": weight(3), "b": weight(3)},
        "w0 v0=2; w1 s0 b0 v1=3", num_groups=3, opset=18, shapes=((2, 6, 4, 5),)),
    one("GroupNormalization", "as many as channels",
        {"w": live(2, 6, 4, 5), "s": weight(6), "b": weight(6)},
        "w0 v0=2; w1 s0 b0 v1=6", num_groups=6, opset=18, shapes=((2, 6, 4, 5),)),
    one("GroupNormalization", "one group", {"w": live(2, 6, 4), "s": weight(6), "b": weight(6)},
        "w0 v0=2", num_groups=1, shapes=((2, 6, 4),)),
    *(one("LayerNormalization", f"axis {axis}, {title}", {"w": live(2, 3, 4), **operands},
          groups, axis=axis)
      for axis, groups, shape in ((-1, "w0 v0=2; w1 v1=3", (4,)), (2, "w0 v0=2; w1 v1=3", (4,)),
                                  (1, "w0 v0=2", (3, 4)), (-2, "w0 v0=2", (3, 4)))
      for title, operands in (("no shift", {"s": weight(*shape)}),
                              ("shift", {"s": weight(*shape), "b": weight(*shape)}))),
    one("LayerNormalization", "its statistics",
        {"w": live(2, 3, 4), "s": weight(4), "b": weight(4)},
        "w0 v0 va0 vb0=2; w1 v1 va1 vb1=3", outputs=(0, 1, 2)),
    one("LayerNormalization", "its statistics, no shift", {"w": live(2, 3, 4), "s": weight(4)},
        "w0 v0 va0 vb0=2; w1 v1 va1 vb1=3", outputs=(0, 1, 2)),
    one("LayerNormalization", "its statistics, computed scale",
        {"w": live(2, 3, 4), "u": live(4), "z": live(4)},
        "w0 v0 va0 vb0=2; w1 v1 va1 vb1=3", outputs=(0, 1, 2), shared=("u", "z")),
    one("LayerNormalization", "statistics, computed scale, no shift",
        {"w": live(2, 3, 4), "u": live(4)}, "w0 v0 va0 vb0=2; w1 v1 va1 vb1=3",
        outputs=(0, 1, 2), shared=("u",)),
    *(one("LayerNormalization", f"axis {axis}, computed scale, {title}",
          {"w": live(2, 3, 4), **{name: live(*shape) for name in names}},
          groups, axis=axis, shared=tuple(names))
      for axis, groups, shape in ((2, "w0 v0=2; w1 v1=3", (4,)), (1, "w0 v0=2", (3, 4)))
      for title, names in (("no shift", "u"), ("shift", "uz"))),
    one("LayerNormalization", "one of its statistics", {"w": live(2, 3, 4), "s": weight(4)},
        "w0 v0 va0=2; w1 v1 va1=3", outputs=(0, 2), opset=17),
    one("RMSNormalization", "default axis", {"w": live(2, 3, 4), "s": weight(4)},
        "w0 v0=2; w1 v1=3", opset=23),
    one("RMSNormalization", "axis 1", {"w": live(2, 3, 4), "s": weight(3, 4)},
        "w0 v0=2", opset=23, axis=1),
    one("LRN", "four axes", {"w": X}, "w0 v0=2; w2 v2=3; w3 v3=4", size=3),
    one("LpNormalization", "default axis", {"w": live(2, 3, 4)}, "w0 v0=2; w1 v1=3"),
    one("LpNormalization", "axis 1", {"w": live(2, 3, 4)}, "w0 v0=2; w2 v2=4", axis=1, p=1),
    one("LpNormalization", "axis -3", {"w": live(2, 3, 4)}, "w1 v1=3; w2 v2=4", axis=-3),
    one("MeanVarianceNormalization", "default axes", {"w": X}, "w1 v1=5", shapes=((2, 5, 3, 4),)),
    one("MeanVarianceNormalization", "negative axes", {"w": X}, "w0 v0=2; w2 v2=3", axes=[1, -1],
        shapes=((2, 5, 3, 4),)),
    *(one(operator, f"axis {axis}, opset {opset}", {"w": live(2, 3, 4)}, groups,
          blind=operator == "Hardmax", opset=opset, **({} if axis is None else {"axis": axis}))
      for operator in ("Softmax", "LogSoftmax", "Hardmax")
      for opset, axis, groups in (
          (22, None, "w0 v0=2; w1 v1=3"), (22, 1, "w0 v0=2; w2 v2=4"),
          (13, -3, "w1 v1=3; w2 v2=4"), (11, None, "w0 v0=2"), (11, 2, "w0 v0=2; w1 v1=3"),
          (11, -2, "w0 v0=2"), (11, 0, ""))),
]  # fmt: skip

SOME = {"w": live(2, 3, 4)}
OVER = [
    *(one(operator, title, SOME, groups, blind=True, opset=opset, **more)
      for operator in ("ArgMax", "ArgMin")
      for title, groups, opset, more in (
          ("default", "w1 v1=3; w2 v2=4", 22, {}),
          ("axis 1", "w0 v0=2; w2 v2=4", 13, {"axis": 1}),
          ("axis 1, dropped", "w0 v0=2; w2 v1=4", 22, {"axis": 1, "keepdims": 0}),
          ("axis -1, dropped", "w0 v0=2; w1 v1=3", 11, {"axis": -1, "keepdims": 0}))),
    *(one("CumSum", title, {**SOME, "a": axis}, groups, **more)
      for title, axis, groups, more in (
          ("axis 1", scalar(1), "w0 v0=2; w2 v2=4", {}),
          ("axis -1", ints(-1), "w0 v0=2; w1 v1=3", {"exclusive": 1}),
          ("backwards", np.array(0, np.int32), "w1 v1=3; w2 v2=4", {"reverse": 1, "opset": 11}),
          ("computed", COMPUTED, "", {}))),
    one("CumProd", "axis 1", {**SOME, "a": scalar(1)}, "w0 v0=2; w2 v2=4", opset=26),
    one("CumProd", "axis -1", {**SOME, "a": scalar(-1)}, "w0 v0=2; w1 v1=3", opset=26),
    *(one("TopK", title, {"w": live(3, 5, 4), **operands}, groups, blind=True, outputs=(0, 1),
          **more)
      for title, operands, groups, more in (
          ("default", {"k": ints(2)}, "w0 v0 va0=3; w1 v1 va1=5", {}),
          ("axis 1", {"k": ints(4)}, "w0 v0 va0=3; w2 v2 va2=4", {"axis": 1, "largest": 0}),
          ("axis -3", {"k": ints(2)}, "w1 v1 va1=5; w2 v2 va2=4", {"axis": -3, "opset": 11}),
          ("all of them", {"k": ints(5)}, "w0 v0 va0=3; w2 v2 va2=4", {"axis": 1, "opset": 10}),
          ("attribute", {}, "w0 v0 va0=3; w2 v2 va2=4", {"axis": 1, "k": 2, "opset": 9}))),
    one("TopK", "values alone", {"w": live(3, 5, 4), "k": ints(2)}, "w0 v0=3; w2 v2=4", axis=1,
        made=2),
    one("TopK", "indices alone", {"w": live(3, 5, 4), "k": ints(2)}, "w0 v0=3; w2 v2=4", axis=1,
        outputs=(1,), made=2, blind=True),
    one("Trilu", "upper", {"w": live(2, 3, 4)}, "w0 v0=2"),
    one("Trilu", "lower, moved", {"w": live(5, 2, 3, 4), "k": scalar(1)}, "w0 v0=5; w1 v1=2",
        upper=0),
    one("Trilu", "a matrix", {"w": live(3, 4)}, ""),
]  # fmt: skip


def reduction(operator: str) -> list[Case]:
    """A sum reads what it sums; all others keep it."""
    old = 11 if operator == "ReduceSum" else 13  # axes were an attribute
    one_1 = "; w1=3" if operator == "ReduceSum" else ""
    rest = "; w0=2; w2=4" if operator == "ReduceSum" else ""
    both: dict[str, Any] = {"w": positive(2, 3, 4)}
    rows: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
        ("axis 1", {**both, "a": ints(1)}, f"w0 v0=2; w2 v2=4{one_1}", {}),
        ("axis 1, dropped", {**both, "a": ints(-2)}, f"w0 v0=2; w2 v1=4{one_1}", {"keepdims": 0}),
        ("two axes", {**both, "a": ints(0, -1)}, f"w1 v1=3{rest}", {}),
        ("two axes, dropped", {**both, "a": ints(-1, 0)}, f"w1 v0=3{rest}", {"keepdims": 0}),
        ("all", both, f"{rest}{one_1}", {"keepdims": 0}),
        ("none", both, "w0 v0=2; w1 v1=3; w2 v2=4", {"noop_with_empty_axes": 1}),
        ("computed axes", {**both, "a": live(1, low=0.1, high=0.5, dtype="int64")}, "",
         {"shapes": ((1, 3, 4),)}),
        ("attribute", both, f"w0 v0=2; w2 v2=4{one_1}", {"axes": [1], "opset": old}),
        ("attribute, dropped", both, f"w1 v0=3{rest}",
         {"axes": [-1, 0], "keepdims": 0, "opset": old}),
        ("no attribute", both, f"{rest}{one_1}", {"opset": 9}),
    ]  # fmt: skip
    return [one(operator, *row[:3], **({"opset": 20} | row[3])) for row in rows]


REDUCTIONS = [case for name in _REDUCTIONS.split() for case in reduction(name)]
CASES = [*NORMS, *OVER, *REDUCTIONS]
BUNDLES = bundles([*NORMS, *OVER]) | bundles(REDUCTIONS, "reductions")


@pytest.mark.parametrize("bundle", BUNDLES)
def test_norms(bundle: str) -> None:
    judge(BUNDLES[bundle], ready(BUNDLES[bundle]))
