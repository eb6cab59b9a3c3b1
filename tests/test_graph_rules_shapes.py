"""Rules of operators that view, move, repeat and make axes, and that tell or state sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from tests.nets import Net
from tests.rule_case import AnyCase, Whole, floats, ints, live, one
from tests.rule_judge import bundles, judge, ready

SMALL = {"w": live(2, 3, 4)}
ALL = "w0 v0=2; w1 v1=3; w2 v2=4"
VIEWS = [
    one("Flatten", "default", SMALL, "w0 v0=2; w1 v1=3", inner="w2 v1=4"),
    one("Flatten", "axis 0", SMALL, "w0 v1=2", inner="w2 v1=4", axis=0, middle=("w1 v1=3",)),
    one("Flatten", "axis 2", SMALL, "w0 v0=2; w2 v1=4", inner="w1 v0=3", axis=2),
    one("Flatten", "axis -2", SMALL, "w0 v0=2; w1 v1=3", inner="w2 v1=4", axis=-2),
    one("Flatten", "axis 3", SMALL, "w0 v0=2", inner="w2 v0=4", axis=3, opset=9,
        middle=("w1 v0=3",)),
    *(one("Reshape", title, {"w": live(*shape), "s": ints(*target)}, groups, inner=inner, **more)
      for title, shape, target, groups, inner, more in (
          ("flat", (2, 3, 4), (2, 12), "w0 v0=2; w1 v1=3", "w2 v1=4", {}),
          ("flat, free", (2, 3, 4), (0, -1), "w0 v0=2; w1 v1=3", "w2 v1=4", {}),
          ("flat, the first free", (2, 3, 4), (-1, 12), "w0 v0=2; w1 v1=3", "w2 v1=4", {}),
          ("apart", (2, 12), (2, 3, 4), "w0 v0=2; w1 v1=3", "w1 v2=4", {}),
          ("apart, the first free", (2, 12), (0, -1, 4), "w0 v0=2; w1 v1=3", "w1 v2=4", {}),
          ("apart, the last free", (2, 12), (2, 3, -1), "w0 v0=2; w1 v1=3", "w1 v2=4", {}),
          ("ones", (2, 3, 4), (2, 1, 3, 1, 4), "w0 v0=2; w1 v2=3; w2 v4=4", "", {}),
          ("into another form", (2, 6, 10), (2, 3, 4, 5), "w0 v0=2; w1 v1=3; w2 v2=2",
           "w1 v2=2; w2 v3=5", {"middle": ("w0 v0=2; w1 v1=3; w2 v3=5",)}),
          ("without common factors", (5, 6, 4), (5, 4, 6), "w0 v0=5", "", {}),
          ("to a vector", (3, 5), (-1,), "w0 v0=3", "w1 v0=5", {}),
          ("one axis less", (1, 3, 4), (3, 4), "w1 v0=3; w2 v1=4", "", {}),
          ("one axis more", (3, 4), (1, 3, 4), "w0 v1=3; w1 v2=4", "", {}),
          ("the same", (2, 3, 4), (2, 3, 4), ALL, "", {"allowzero": 1, "opset": 14}),
          ("opset 9", (2, 3, 4), (6, 4), "w0 v0=2; w2 v1=4", "w1 v0=3", {"opset": 9}))),
    *(one("Squeeze", title, {"w": live(1, 3, 1, 4), **operands}, groups, **more)
      for title, operands, groups, more in (
          ("all", {}, "w1 v0=3; w3 v1=4", {}),
          ("one axis", {"a": ints(2)}, "w1 v1=3; w3 v2=4", {}),
          ("negative axes", {"a": ints(-2, 0)}, "w1 v0=3; w3 v1=4", {"opset": 13}),
          ("attribute", {}, "w1 v0=3; w3 v2=4", {"axes": [0], "opset": 11}))),
    *(one("Unsqueeze", title, {"w": live(3, 4), **operands}, groups, **more)
      for title, operands, groups, more in (
          ("first", {"a": ints(0)}, "w0 v1=3; w1 v2=4", {}),
          ("last and between", {"a": ints(-1, 1)}, "w0 v0=3; w1 v2=4", {"opset": 13}),
          ("attribute", {}, "w0 v0=3; w1 v2=4", {"axes": [1], "opset": 11}))),
]  # fmt: skip

MOVES = [
    *(one("Transpose", str(order), SMALL,
          "; ".join(f"w{axis} v{place}={2 + axis}" for place, axis in enumerate(order)),
          perm=list(order))
      for order in itertools.permutations(range(3))),
    one("Transpose", "turned round", SMALL, "w0 v2=2; w1 v1=3; w2 v0=4", opset=9),
    one("Transpose", "four axes", {"w": live(2, 3, 4, 5)}, "w0 v1=2; w1 v3=3; w2 v2=4; w3 v0=5",
        perm=[3, 0, 2, 1]),
    *(one("Expand", title, {"w": live(*shape), "s": ints(*target)}, groups, **more)
      for title, shape, target, groups, more in (
          ("more axes", (3, 4), (2, 3, 4), "v0=2; w0 v1=3; w1 v2=4", {}),
          ("ones that grow", (3, 1), (2, 3, 4), "v0=2; w0 v1=3; v2=4", {}),
          ("ones stated", (2, 3, 4), (3, 1), ALL, {"opset": 9}),
          ("one of each", (2, 1, 4), (5, 1), "w0 v0=2; v1=5; w2 v2=4", {}))),
    *(one("Tile", title, {"w": live(*shape), "r": ints(*repeats)}, groups)
      for title, shape, repeats, groups in (
          ("once", (2, 3, 4), (1, 1, 1), ALL),
          ("channels", (2, 3, 4), (1, 3, 1), ALL),
          ("two axes", (2, 3, 4), (3, 1, 2), ALL),
          ("an axis of one", (2, 1, 4), (1, 3, 2), "w0 v0=2; w2 v2=4"))),
    *(one("OneHot", title, {"w": live(2, 3, high=3.0, low=0.0, dtype="int64"), "d": ints(4),
                            "z": floats(0.2, 1.0)}, groups, blind=True, **more)
      for title, groups, more in (
          ("last", "w0 v0=2; w1 v1=3", {}),
          ("first", "w0 v1=2; w1 v2=3", {"axis": 0}),
          ("between", "w0 v0=2; w1 v2=3", {"axis": -2}))),
]  # fmt: skip

FREE = [{"x": np.linspace(0.5, 1.5, n * t, dtype=np.float32).reshape(n, 1, t)}
        for n, t in ((1, 4), (3, 8))]  # fmt: skip
IMAGES = [{"x": np.linspace(0.5, 1.5, n * a * b, dtype=np.float32).reshape(n, 1, a, b)}
          for n, a, b in ((1, 4, 3), (2, 6, 5))]  # fmt: skip


def whole(
    operator: str, title: str, groups: str, body: Callable[[Net, str], str], opset: int = 20
) -> Whole:
    """Five channels ``w`` over free batch and time; what comes out is weighted by ``v``."""

    def build() -> onnx.ModelProto:
        n = Net(3)
        h = n.op("Mul", "x", n.constant("w", n.rng.uniform(0.5, 1.5, (5, 1)).astype(np.float32)))
        h = n.op("Mul", body(n, h), n.constant("v", np.arange(1, 6, dtype="f4").reshape(5, 1)))
        return n.build(n.op("ReduceSum", h, n.ints("sums", 1, 2)), ["n", 1, "t"], opset=opset,
                       ir_version=9)  # fmt: skip

    return Whole(operator, title, build, FREE, groups)


def images(operator: str, title: str, groups: str, body: Callable[[Net, str], str]) -> Whole:
    def build() -> onnx.ModelProto:
        n = Net(3)
        h = body(n, n.conv("c", "x", 1, 5))
        return n.build(n.conv("d", h, 5, 2), ["n", 1, "a", "b"], opset=20, ir_version=9)

    return Whole(operator, title, build, IMAGES, groups)


def from_shape(n: Net, h: str) -> str:
    return n.op("Mul", h, n.op("Expand", n.constant("k", floats(0.5)), n.op("Shape", h)))


def column(n: Net, h: str) -> str:
    k = n.constant("k", np.arange(2, 7, dtype=np.float32).reshape(5, 1))
    return n.op("Mul", h, n.op("Expand", k, n.op("Shape", h)))


def constant(n: Net, h: str) -> str:
    return n.op("Add", h, n.op("ConstantOfShape", n.op("Shape", h)))


def part_of_shape(n: Net, h: str) -> str:
    told = n.op("Shape", h, start=-2)
    target = n.op("Concat", n.ints("first", 1), told, axis=0)
    return n.op("Add", h, n.op("ConstantOfShape", target))


def end_of_shape(n: Net, h: str) -> str:
    flipped = n.op("Transpose", h, perm=[2, 1, 0])
    told = n.op("Shape", flipped, end=2)
    target = n.op("Concat", told, n.ints("last", 1), axis=0)
    made = n.op("ConstantOfShape", target)
    return n.op("Transpose", n.op("Add", flipped, made), perm=[2, 1, 0])


def made_twice(n: Net, h: str) -> str:
    """Its axis is as long as the time: it stays."""
    long = n.op("Expand", n.constant("k", np.ones((5, 1), np.float32)),
                n.op("Concat", n.ints("five", 5), n.op("Shape", h, start=2), axis=0))  # fmt: skip
    return n.op("Add", h, n.op("ReduceSum", long, n.ints("last", -1)))


def by_size(n: Net, h: str) -> str:
    return n.op("Div", h, n.op("Cast", n.op("Size", h), to=1))


def counted(n: Net, h: str) -> str:
    length = n.op("Squeeze", n.op("Shape", h, start=2))
    zero, one_ = (
        n.constant("zero", np.array(0, np.int64)),
        n.constant("step", np.array(1, np.int64)),
    )
    numbers = n.op("Cast", n.op("Range", zero, length, one_), to=1)
    return n.op("Add", h, n.op("ReduceSum", numbers, n.ints("all", 0)))


def doubled(n: Net, h: str) -> str:
    told = n.op("Shape", h)
    two = n.op("Mul", told, n.ints("twice", 1, 1, 2, 2))
    return n.op("Resize", h, "", "", two, mode="nearest")


def doubled_in_part(n: Net, h: str) -> str:
    two = n.op("Mul", n.op("Shape", h, start=1), n.ints("twice", 1, 2, 2))
    return n.op("Resize", h, "", "", two, mode="nearest", axes=[1, 2, 3])


def pooled(n: Net, h: str) -> str:
    return n.op("Mul", h, n.op("Expand", n.op("GlobalAveragePool", h), n.op("Shape", h)))


def only_pooled(n: Net, h: str) -> str:
    return n.op("Expand", n.op("GlobalAveragePool", h), n.op("Shape", h))


def merged(n: Net, h: str) -> str:
    flat = n.op("Concat", n.ints("rows", -1), n.op("Shape", h, start=2), axis=0)
    return n.op("Reshape", n.op("Tanh", n.op("Reshape", h, flat)), n.op("Shape", h))


def tiled(n: Net, h: str) -> str:
    repeats = n.op("Concat", n.ints("ones", 1, 1), n.op("Shape", h, start=2), axis=0)
    return n.op("Tile", n.op("ReduceMean", h, n.ints("last", -1)), repeats)


def tiled_twice(n: Net, h: str) -> str:
    repeats = n.op("Concat", n.ints("ones", 1, 1), n.op("Shape", h, start=2), axis=0)
    h = n.op("Tile", n.op("ReduceMean", h, n.ints("last", -1)), repeats)
    return n.op("ReduceSum", n.op("Tile", h, repeats), n.ints("end", -1))


def bias(n: Net) -> str:
    return n.constant("k", np.arange(2, 7, dtype=np.float32).reshape(1, 5, 1))


def only_expand(n: Net, h: str) -> str:
    return n.op("Expand", bias(n), n.op("Shape", h))


def only_number(n: Net, h: str) -> str:
    return n.op("Add", bias(n), n.op("Expand", n.constant("one", floats(0.5)), n.op("Shape", h)))


def only_constant(n: Net, h: str) -> str:
    return n.op("Add", bias(n), n.op("ConstantOfShape", n.op("Shape", h)))


def only_range(n: Net, h: str) -> str:
    length = n.op("Squeeze", n.op("Shape", h, start=2))
    numbers = (n.constant(name, np.array(k, np.int64)) for name, k in (("a", 0), ("b", 1)))
    first, step = numbers
    return n.op("Add", bias(n), n.op("Cast", n.op("Range", first, length, step), to=1))


def by_shape(n: Net, h: str) -> str:
    total = n.op("ReduceSum", n.op("Shape", h), n.ints("zero", 0))
    return n.op("Div", h, n.op("Cast", total, to=1))


LIVE = [
    whole("Expand", "a number to a live shape", "w0 v0=5", from_shape),
    whole("Expand", "a column to a live shape", "w0 k0 v0=5", column),
    whole("Expand", "an axis as long as the input", "w0 k0 v0=5", made_twice),
    whole("ConstantOfShape", "a live shape", "w0 v0=5", constant),
    whole("Shape", "from an axis on", "w0 v0=5", part_of_shape),
    whole("Shape", "up to an axis", "w0 v0=5", end_of_shape),
    whole("Size", "divides", "", by_size),
    whole("Range", "as long as the input", "w0 v0=5", counted),
    whole("Reshape", "merged with the batch and back", "w0 v0=5", merged),
    whole("Tile", "as long as the input", "w0 v0=5", tiled),
    whole("Tile", "as long as the input, twice", "w0 v0=5", tiled_twice),
    whole("Expand", "nothing else", "k1 v0=5", only_expand),
    whole("Expand", "a number and nothing else", "k1 v0=5", only_number),
    whole("ConstantOfShape", "nothing else", "k1 v0=5", only_constant),
    whole("Range", "nothing else", "k1 v0=5", only_range),
    whole("Shape", "its numbers are added", "w0 v0=5", by_shape),
    images("Resize", "computed sizes", "c.weight0 c.bias0 d.weight1=5", doubled),
    images("Resize", "computed sizes of the channels too", "", doubled_in_part),
    images("Expand", "pooled and nothing else", "c.weight0 c.bias0 d.weight1=5", only_pooled),
    images("Expand", "pooled", "c.weight0 c.bias0 d.weight1=5", pooled),
]  # fmt: skip

CASES: list[AnyCase] = [*VIEWS, *MOVES, *LIVE]
BUNDLES = bundles(CASES)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_shapes(bundle: str) -> None:
    judge(BUNDLES[bundle], ready(BUNDLES[bundle]))
