"""Rules of operators that cut, join and select: which position becomes which."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rule_case import ints, live, one, scalar, weight
from tests.rule_judge import bundles, judge, ready

CONCAT = [
    one("Concat", "axis 1", {"w": live(2, 3, 4), "u": live(2, 5, 4)},
        "w0 u0 v0=2; w1 v1=3; u1 v1=5; w2 u2 v2=4", axis=1),
    one("Concat", "axis 0", {"w": live(3, 4), "u": live(2, 4)}, "w0 v0=3; u0 v0=2; w1 u1 v1=4",
        axis=0),
    one("Concat", "axis -1, three", {"w": live(2, 4), "k": weight(2, 3), "u": live(2, 5)},
        "w0 k0 u0 v0=2; w1 v1=4; k1 v1=3; u1 v1=5", axis=-1),
    one("Concat", "vectors", {"w": live(4), "u": live(3)}, "w0 v0=4; u0 v0=3", axis=0, opset=9),
    one("Concat", "one", {"w": live(2, 4)}, "w0 v0=2; w1 v1=4", axis=1),
]  # fmt: skip

W = {"w": live(2, 8, 3)}
REST = "w0 v0 va0=2; w2 v2 va2=3"
SPLIT = [
    one("Split", "sizes", {**W, "s": ints(3, 5)}, f"{REST}; w1 v1=3; w1 va1=5", axis=1,
        outputs=(0, 1)),
    one("Split", "sizes, negative axis", {**W, "s": ints(5, 3)}, f"{REST}; w1 v1=5; w1 va1=3",
        axis=-2, outputs=(0, 1), opset=13),
    one("Split", "equal parts", W, f"{REST}; w1 v1=4; w1 va1=4", axis=1, outputs=(0, 1), made=2,
        opset=13),
    one("Split", "num_outputs", W, f"{REST}; w1 v1=4; w1 va1=4", axis=1, outputs=(0, 1),
        num_outputs=2),
    one("Split", "num_outputs, uneven", W,
        "w0 v0 va0 vb0=2; w2 v2 va2 vb2=3; w1 v1=3; w1 va1=3; w1 vb1=2",
        axis=1, outputs=(0, 1, 2), num_outputs=3),
    one("Split", "attribute", W, f"{REST}; w1 v1=3; w1 va1=5", axis=1, outputs=(0, 1),
        split=[3, 5], opset=11),
    one("Split", "equal parts, opset 9", W, f"{REST}; w1 v1=4; w1 va1=4", axis=1, outputs=(0, 1),
        opset=9),
    one("Split", "default axis", {"w": live(8, 3), "s": ints(5, 3)},
        "w0 v0=5; w0 va0=3; w1 v1 va1=3",
        outputs=(0, 1)),
    one("Split", "a part that nobody reads", {**W, "s": ints(3, 2, 3)},
        f"{REST}; w1 v1=3; w1 va1=3",
        axis=1, outputs=(0, 2), made=3),
]  # fmt: skip

LONG = {"w": live(2, 9, 4)}
END = 2**31 - 1
SLICE = [
    *(one("Slice", title, {**LONG, **{name: ints(*values) for name, values in bounds.items()}},
          f"w0 v0=2; w2 v2=4; w1 v1={units}")
      for title, bounds, units in (
          ("a range", {"s": [2], "e": [7], "a": [1]}, 5),
          ("from the end", {"s": [-5], "e": [-2], "a": [-2]}, 3),
          ("to the end", {"s": [3], "e": [END], "a": [1]}, 6),
          ("whole", {"s": [0], "e": [2**63 - 1], "a": [1]}, 9),
          ("strided", {"s": [1], "e": [8], "a": [1], "t": [2]}, 4),
          ("strided to the end", {"s": [0], "e": [END], "a": [1], "t": [3]}, 3),
          ("reversed", {"s": [-1], "e": [-(2**63)], "a": [1], "t": [-1]}, 9),
          ("reversed in part", {"s": [7], "e": [1], "a": [1], "t": [-1]}, 6),
          ("reversed and strided", {"s": [8], "e": [-END], "a": [1], "t": [-3]}, 3))),
    one("Slice", "three axes", {**LONG, "s": ints(0, 2, 1), "e": ints(2, 7, 4)},
        "w0 v0=2; w1 v1=5; w2 v2=3"),
    one("Slice", "axes in another order",
        {**LONG, "s": ints(1, 8), "e": ints(4, 1), "a": ints(2, 1), "t": ints(1, -2)},
        "w0 v0=2; w1 v1=4; w2 v2=3", opset=10),
    one("Slice", "attributes", LONG, "w0 v0=2; w1 v1=5; w2 v2=4", starts=[2], ends=[7], axes=[1],
        opset=9),
    one("Slice", "attributes without axes", LONG, "w0 v0=2; w1 v1=5; w2 v2=4", starts=[0, 2],
        ends=[2, 7], opset=9),
    one("Slice", "computed bounds",
        {**LONG, "s": live(1, low=1.3, high=1.5, dtype="int64"), "e": ints(7), "a": ints(1)},
        "w0 v0=2; w2 v2=4", shapes=((2, 6, 4),)),
    one("Slice", "computed bounds of what others read",
        {**LONG, "s": live(1, low=1.3, high=1.5, dtype="int64"), "e": ints(7), "a": ints(1)},
        "w0 v0=2; w2 v2=4", shapes=((2, 6, 4),), shared=("w",)),
    one("Slice", "computed starts, one axis whole",
        {**LONG, "s": live(2, low=0.1, high=0.5, dtype="int64"), "e": ints(7, 7), "a": ints(1, 2)},
        "w0 v0=2; w2 v2=4", shapes=((2, 7, 4),)),
    one("Slice", "computed axes",
        {**LONG, "s": ints(0), "e": ints(1), "a": live(1, low=0.1, high=0.5, dtype="int64")},
        "", shapes=((1, 9, 4),)),
]  # fmt: skip

COMPUTED = live(3, low=0.1, high=0.5, dtype="int64")
GATHER = [
    one("Gather", "some", {**LONG, "i": ints(4, 1, 7)}, "w0 v0=2; w2 v2=4; w1 v1=3", axis=1),
    one("Gather", "repeated and negative", {**LONG, "i": ints(4, -2, 4, 0)},
        "w0 v0=2; w2 v2=4; w1 v1=3", axis=-2),
    one("Gather", "default axis", {"w": live(9, 4), "i": ints(8, 3, 0)}, "w0 v0=3; w1 v1=4",
        opset=9),
    one("Gather", "last axis", {"w": live(3, 9), "i": ints(8, 3, 0)}, "w0 v0=3; w1 v1=3", axis=1),
    one("Gather", "one", {**LONG, "i": scalar(4)}, "w0 v0=2; w2 v1=4", axis=1),
    one("Gather", "one and no axis before", {"w": live(9, 4), "i": scalar(-1)}, "w1 v0=4"),
    one("Gather", "a table of indices", {**LONG, "i": ints(4, 1, 7, 0, 2, 3).reshape(2, 3)},
        "w0 v0=2; w2 v3=4", axis=1),
    one("Gather", "computed indices", {**LONG, "i": COMPUTED}, "w0 v0=2; w2 v2=4; i0 v1=3",
        axis=1, blind=True),
    one("Gather", "one computed index",
        {**LONG, "i": live(low=0.1, high=0.5, dtype="int64")}, "w0 v0=2; w2 v1=4", axis=1),
    one("Gather", "computed indices into what others read", {**LONG, "i": COMPUTED},
        "w0 v0=2; w2 v2=4; i0 v1=3", axis=1, shared=("w",)),
    one("Gather", "one of what others read", {**LONG, "i": scalar(4)}, "w0 v0=2; w2 v1=4; w1=8",
        axis=1, shared=("w",)),
    one("GatherND", "rows", {"w": live(9, 4), "i": ints(4, 1, 7).reshape(3, 1)},
        "w0 v0=3; w1 v1=4"),
    one("GatherND", "rows, repeated", {"w": live(9, 3, 4), "i": ints(4, -2, 4, 0).reshape(4, 1)},
        "w0 v0=3; w1 v1=3; w2 v2=4"),
    one("GatherND", "points", {"w": live(9, 4), "i": ints(4, 1, 7, 0).reshape(2, 2)}, ""),
    one("GatherND", "computed",
        {"w": live(9, 4), "i": live(3, 1, low=0.1, high=0.5, dtype="int64")},
        ""),
    one("GatherND", "in batches", {"w": live(2, 9, 4), "i": ints(4, 1).reshape(2, 1)}, "",
        batch_dims=1),
    one("GatherND", "one row", {"w": live(9, 4), "i": ints(4)}, ""),
    one("GatherElements", "axis 1", {**LONG, "i": (np.arange(24) % 9).reshape(2, 3, 4)},
        "w0 i0 v0=2; w2 i2 v2=4", axis=1),
    one("GatherElements", "negative axis", {**LONG, "i": (np.arange(54) % 4).reshape(2, 9, 3)},
        "w0 i0 v0=2; w1 i1 v1=9", axis=-1),
    one("GatherElements", "fewer indices", {**LONG, "i": (np.arange(16) % 2).reshape(2, 4, 2)},
        "w0 i0 v0=2", axis=1),
    one("GatherElements", "computed, default axis",
        {"w": live(9, 4), "u": live(3, 4, low=0.1, high=0.5, dtype="int64")}, "w1 u1 v1=4"),
]  # fmt: skip

P = {"w": live(2, 3, 4)}
PAD = [
    one("Pad", "channels", {**P, "p": ints(0, 1, 0, 0, 2, 0)}, "w0 v0=2; w1 v1=3; v1=3; w2 v2=4"),
    one("Pad", "a constant", {**P, "p": ints(0, 1, 2, 0, 0, 1), "k": np.array(0.7, np.float32)},
        "w0 v0=2; w1 v1=3; w2 v2=4; v2=3"),
    one("Pad", "some axes", {**P, "p": ints(1, 0, 1, 2), "k": None, "a": ints(-1, 1)},
        "w0 v0=2; w1 v1=3; w2 v2=4; v2=2; v1=2"),
    one("Pad", "cut", {"w": live(2, 9, 4), "p": ints(0, -2, 0, 0, -1, 0)},
        "w0 v0=2; w1 v1=6; w2 v2=4"),
    one("Pad", "moved", {"w": live(2, 9, 4), "p": ints(0, -2, 0, 0, 2, 0)},
        "w0 v0=2; w1 v1=7; v1=2; w2 v2=4"),
    *(one("Pad", mode, {**P, "p": ints(0, 0, 1, 0, 0, 1)}, "w0 v0=2; w1 v1=3", mode=mode,
          opset=opset)
      for mode, opset in (("reflect", 22), ("edge", 13), ("wrap", 19))),
    one("Pad", "reflected channels", {**P, "p": ints(0, 1, 0, 0, 1, 0)}, "w0 v0=2; w2 v2=4",
        mode="reflect"),
    one("Pad", "reflected, and others read it", {**P, "p": ints(0, 1, 0, 0, 1, 0)},
        "w0 v0=2; w2 v2=4", mode="reflect", shared=("w",)),
    one("Pad", "computed, and others read it",
        {**P, "p": live(6, low=0.1, high=0.5, dtype="int64")},
        "w0 v0=2; w1 v1=3", shapes=((2, 3, 4),), shared=("w",)),
    one("Pad", "attribute", P, "w0 v0=2; w1 v1=3; v1=3; w2 v2=4", pads=[0, 1, 0, 0, 2, 0], opset=9),
    one("Pad", "attribute, reflected", P, "w0 v0=2; w1 v1=3", pads=[0, 0, 1, 0, 0, 1], opset=10,
        mode="reflect"),
    one("Pad", "computed", {**P, "p": live(6, low=0.1, high=0.5, dtype="int64")},
        "w0 v0=2; w1 v1=3", shapes=((2, 3, 4),)),
]  # fmt: skip

CASES = [*CONCAT, *SPLIT, *SLICE, *GATHER, *PAD]
BUNDLES = bundles(CASES)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_splices(bundle: str) -> None:
    judge(BUNDLES[bundle], ready(BUNDLES[bundle]))
