"""Rules of pointwise operators, in every way in which two shapes can broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from onnxtrim.toolkit.graph.rules import _BINARY, _UNARY
from tests.rule_case import Case, Live, Operand, floats, live, one, weight
from tests.rule_judge import bundles, judge, ready

ALL = "w0 v0=2; w1 v1=3; w2 v2=4"
RANGES = dict.fromkeys(("Log", "Sqrt", "Reciprocal"), (0.5, 1.5))
RANGES |= {"Acosh": (1.3, 3.0)} | dict.fromkeys(("Acos", "Asin", "Atanh"), (-0.7, 0.7))
LOGICAL = {"And", "Or", "Xor"}
WHOLE = {"BitShift": "uint32", "BitwiseAnd": "int32", "BitwiseOr": "int32", "BitwiseXor": "int32"}
COMPARED = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
VARIADIC = {"Max", "Mean", "Min", "Sum"}


def unary(operator: str) -> Case:
    low, high = RANGES.get(operator, (-1.5, 1.5))
    dtype = {"Not": "bool", "BitwiseNot": "int32"}.get(operator, "float")
    more: dict[str, Any] = {"to": TensorProto.DOUBLE} if operator == "Cast" else {}
    blind = dtype != "float" or operator.startswith("Is")
    wide = 9.0 if dtype == "int32" else 1.0
    operand = live(2, 3, 4, low=low * wide, high=high * wide, dtype=dtype)
    opset = 24 if operator == "Swish" else 22
    return one(operator, "alone", {"w": operand}, ALL, blind=blind, opset=opset, **more)


def binary(operator: str) -> list[Case]:
    dtype = "bool" if operator in LOGICAL else WHOLE.get(operator, "float")
    low, high = {"bool": (-1.0, 1.0), "float": (0.5, 1.5)}.get(dtype, (1.0, 9.0))
    own: dict[str, dict[str, Any]] = {"BitShift": {"direction": "LEFT"}, "Mod": {"fmod": 1}}
    more = own.get(operator, {})
    more["blind"] = dtype != "float" or operator in COMPARED

    def computed(*shape: int) -> Live:
        return live(*shape, low=low, high=high, dtype=dtype)

    def stored(*shape: int) -> Operand:
        values = np.random.default_rng(1).uniform(0.0, 2.0, shape)
        return weight(*shape, low=0.5, high=1.5) if dtype == "float" else values.astype(dtype)

    rows: list[tuple[str, dict[str, Operand], str]] = [
        ("both whole", {"w": computed(2, 3, 4), "u": computed(2, 3, 4)},
         "w0 u0 v0=2; w1 u1 v1=3; w2 u2 v2=4"),
        ("an axis", {"w": computed(2, 3, 4), "k": stored(3, 1)}, "w0 v0=2; w1 k0 v1=3; w2 v2=4"),
        ("first axis", {"w": computed(2, 3, 4), "k": stored(2, 1, 1)},
         "w0 k0 v0=2; w1 v1=3; w2 v2=4"),
        ("a scalar", {"w": computed(2, 3, 4), "k": stored()}, ALL),
        ("a vector of one", {"w": computed(2, 3, 4), "k": stored(1)}, ALL),
        ("last axis", {"w": computed(2, 3, 4), "k": stored(4)}, "w0 v0=2; w1 v1=3; w2 k0 v2=4"),
    ]  # fmt: skip
    if operator != "PRelu":  # its slope can't widen
        rows += [
            ("left", {"k": stored(3, 1), "w": computed(2, 3, 4)}, "w0 v0=2; w1 k0 v1=3; w2 v2=4"),
            ("both widen", {"w": computed(2, 1, 4), "u": computed(3, 1)},
             "w0 v0=2; u0 v1=3; w2 v2=4"),
            ("more axes", {"w": computed(3, 4), "k": stored(5, 2, 1, 4)},
             "k0 v0=5; k1 v1=2; w0 v2=3; w1 k3 v3=4"),
        ]  # fmt: skip
    if operator in VARIADIC:
        rows += [
            ("one", {"w": computed(2, 3, 4)}, ALL),
            ("three", {"w": computed(2, 1, 4), "u": computed(3, 1), "k": stored(1, 3, 4)},
             "w0 v0=2; u0 k1 v1=3; w2 k2 v2=4"),
        ]  # fmt: skip
    return [one(operator, title, operands, groups, **more) for title, operands, groups in rows]


CONDITION = live(2, 3, 4, dtype="bool")
OTHERS = [
    one("Where", "all whole", {"c": CONDITION, "w": live(2, 3, 4), "u": live(2, 3, 4)},
        "c0 w0 u0 v0=2; c1 w1 u1 v1=3; c2 w2 u2 v2=4", blind=True),
    one("Where", "all widen", {"c": live(2, 1, 1, dtype="bool"), "w": live(3, 1), "k": weight(4)},
        "c0 v0=2; w0 v1=3; k0 v2=4", blind=True),
    one("Clip", "both bounds", {"w": live(2, 3, 4), "a": weight(high=-0.5), "b": weight(low=0.2)},
        ALL),
    one("Clip", "upper bound", {"w": live(2, 3, 4), "a": None, "b": weight(low=0.2)}, ALL),
    one("Clip", "attributes", {"w": live(2, 3, 4)}, ALL, opset=9, min=-0.5, max=0.5),
    one("Cast", "to whole numbers", {"w": live(2, 3, 4, high=9)}, ALL, to=TensorProto.INT32),
    one("CastLike", "a scalar", {"w": live(2, 3, 4, high=9), "k": np.array(1, np.int32)}, ALL),
    one("CastLike", "a tensor", {"w": live(2, 3, 4), "u": live(5, 2, 7)}, ALL),
    one("Dropout", "alone", {"w": live(2, 3, 4)}, ALL),
    one("Dropout", "with its mask", {"w": live(2, 3, 4), "r": floats(0.5).reshape(())},
        "w0 v0 va0=2; w1 v1 va1=3; w2 v2 va2=4", outputs=(0, 1)),
    one("Dropout", "attribute", {"w": live(2, 3, 4)}, ALL, opset=9, ratio=0.3),
    one("Mod", "whole numbers",
        {"w": live(2, 3, 4, low=10, high=99, dtype="int32"), "k": np.array([[3], [4], [5]], "i4")},
        "w0 v0=2; w1 k0 v1=3; w2 v2=4", blind=True),
]  # fmt: skip

STEPS: Operand = weight(3, low=0.01, high=0.02)
ZEROS = np.array([3, 50, 99], np.uint8)
BYTES = live(2, 3, 4, low=10, high=150, dtype="uint8")
BLOCKS: Operand = weight(2, 3, 4, low=0.01, high=0.02)
PER_AXIS = "w0 v0=2; w1 s0 z0 v1=3; w2 v2=4"
QUANTISED = [
    *(one("QuantizeLinear", title, {"w": live(2, 3, 4), **operands}, groups, blind=True, **more)
      for title, operands, groups, more in (
          ("per tensor", {"s": weight(low=0.01, high=0.02), "z": np.array(9, np.uint8)}, ALL, {}),
          ("no zero point", {"s": weight(low=0.01, high=0.02)}, ALL, {}),
          ("per axis", {"s": STEPS, "z": ZEROS}, PER_AXIS, {}),
          ("per negative axis", {"s": STEPS, "z": ZEROS}, PER_AXIS, {"axis": -2}),
          ("per axis, opset 13", {"s": STEPS}, "w0 v0=2; w1 s0 v1=3; w2 v2=4", {"opset": 13}),
          ("per last axis", {"s": weight(4, low=0.01, high=0.02)}, "w0 v0=2; w1 v1=3; w2 s0 v2=4",
           {"axis": 2}),
      )),
    one("QuantizeLinear", "blocks",
        {"w": live(2, 6, 4), "s": BLOCKS, "z": np.full((2, 3, 4), 9, np.uint8)},
        "w0 s0 z0 v0=2; w2 s2 z2 v2=4", blind=True, axis=1, block_size=2),
    one("QuantizeLinear", "computed blocks",
        {"w": live(2, 6, 4), "u": live(2, 3, 4, low=0.01, high=0.02)},
        "w0 u0 v0=2; w2 u2 v2=4", blind=True, axis=1, block_size=2),
    one("QuantizeLinear", "computed blocks and zeros",
        {"w": live(2, 6, 4), "u": live(2, 3, 4, low=0.01, high=0.02),
         "z": np.full((2, 3, 4), 9, np.uint8)},
        "w0 u0 z0 v0=2; w2 u2 z2 v2=4", blind=True, axis=1, block_size=2),
    one("DequantizeLinear", "computed blocks",
        {"w": live(2, 6, 4, low=10, high=150, dtype="uint8"),
         "u": live(2, 3, 4, low=0.01, high=0.02)},
        "w0 u0 v0=2; w2 u2 v2=4", axis=1, block_size=2),
    *(one("DequantizeLinear", title, {"w": BYTES, **operands}, groups, **more)
      for title, operands, groups, more in (
          ("per tensor", {"s": weight(low=0.01, high=0.02), "z": np.array(9, np.uint8)}, ALL, {}),
          ("per tensor, opset 10", {"s": weight(low=0.01, high=0.02)}, ALL, {"opset": 10}),
          ("per axis", {"s": STEPS, "z": ZEROS}, PER_AXIS, {}),
          ("per negative axis", {"s": STEPS, "z": ZEROS}, PER_AXIS, {"axis": -2}),
      )),
    one("DequantizeLinear", "blocks",
        {"w": live(2, 6, 4, low=10, high=150, dtype="uint8"), "s": BLOCKS},
        "w0 s0 v0=2; w2 s2 v2=4", axis=1, block_size=2),
]  # fmt: skip

UNARY = [unary(name) for name in _UNARY.split()]
BINARY = [case for name in _BINARY.split() if name != "Where" for case in binary(name)]
CASES = [*UNARY, *BINARY, *OTHERS, *QUANTISED]
BUNDLES = bundles(UNARY, "unary") | bundles([*BINARY, *OTHERS, *QUANTISED])


@pytest.mark.parametrize("bundle", BUNDLES)
def test_pointwise(bundle: str) -> None:
    judge(BUNDLES[bundle], ready(BUNDLES[bundle]))
