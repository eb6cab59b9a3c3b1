"""Random growth by pointwise operators, norms and what goes over an axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from tests.random_base import Grower, Tensor, elements, is_free, resized, snippet

PLAIN = """Abs Asinh Atan Celu Cos Elu Erf HardSigmoid HardSwish Identity LeakyRelu Neg Relu Selu
Shrink Sigmoid Sin Softplus Softsign Tanh ThresholdedRelu""".split()
SINCE = {"HardSwish": 14, "Mish": 18, "Gelu": 20, "Swish": 24}
POSITIVE = ["Log", "Sqrt", "Reciprocal"]
INSIDE = ["Acos", "Asin", "Atanh", "Exp", "Sinh", "Cosh", "Tan"]
JUMPS = ["Ceil", "Floor", "Round", "Sign"]
TESTS = ["IsInf", "IsNaN"]
COMPARE = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
LOGIC = ["And", "Or", "Xor"]
VARIADIC = ["Max", "Mean", "Min", "Sum"]


@snippet(16)
def activation(g: Grower, x: Tensor) -> Tensor:
    operator = str(g.pick(["Relu", "Tanh", "Sigmoid", "Gelu"]))
    return g.op(operator if g.opset >= SINCE.get(operator, 0) else "Relu", [x], size=0.6)


@snippet(44)
def unary(g: Grower, x: Tensor) -> Tensor:
    names = [*PLAIN, *SINCE, *POSITIVE, *INSIDE, *JUMPS, *TESTS, "Acosh", "Not", "BitwiseNot"]
    names += ["Swish"] * 15 * (g.opset == 24)  # later, the runtime can't resolve it
    operator = g.operator(names)
    if g.opset < SINCE.get(operator, 0) or (operator == "Swish" and g.opset > 24):
        operator = "Elu"
    if operator in POSITIVE:
        return g.op(operator, [g.positive(x)], size=1.0)
    if operator == "Acosh":
        return g.op(operator, [g.positive(x, 1.2)], size=1.0)
    if operator in INSIDE:
        return g.op(operator, [g.inside(x)], size=1.0)
    if operator in JUMPS:
        return g.op(operator, [g.uneven(x)])
    if operator in TESTS:
        return g.to_float(g.node(operator, [x.name])[0], x.shape, 1.0)
    if operator == "Not":
        return g.to_float(g.node("Not", [condition(g, x)])[0], x.shape, 0.5)
    if operator == "BitwiseNot":
        if g.opset < 18:
            return g.op("Relu", [x])
        (whole,) = g.node("Cast", [g.uneven(x).name], to=TensorProto.INT32)
        return g.to_float(g.node(operator, [whole])[0], x.shape, x.size + 1)
    return g.op(operator, [x], size=min(x.size, 1.0) + 0.1)


@snippet(6)
def typed(g: Grower, x: Tensor) -> Tensor:
    """Operators that look at more than one input but pass only the first."""
    kind = g.operator(["Clip", "CastLike", "Dropout", "Cast", "CastInt"])
    if kind == "Clip":
        low, high = g.scalar(-0.8), g.scalar(1.3)
        return g.op("Clip", [x, *g.pick([[low], [low, high], ["", high]])])
    if kind == "CastLike" and g.opset >= 15:
        like = g.pick([g.pick(g.pool).name, g.constant(np.array(0, np.float64))])
        (cast,) = g.node("CastLike", [x.name, like])
        return g.to_float(cast, x.shape, x.size)
    if kind == "Cast":
        return g.to_float(g.node("Cast", [x.name], to=TensorProto.DOUBLE)[0], x.shape, x.size)
    if kind == "CastInt":
        return g.to_float(g.node("Cast", [g.uneven(x).name], to=7)[0], x.shape, x.size)
    return g.op("Dropout", [x])


def spread(g: Grower, x: Tensor) -> list[int]:
    """A shape of which a constant can be combined with ``x``."""
    shape = [1 if is_free(size) or g.chance(40) else size for size in x.shape]
    if g.chance(15) and elements(x.shape) < 200:
        shape = [
            3 if own == 1 and g.chance(30) else size
            for own, size in zip(x.shape, shape, strict=True)
        ]
    return shape[g.between(0, len(shape)) :] if g.chance(40) else shape


def joint(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of two tensors together."""
    rank = max(len(one), len(other))
    pairs = zip((1,) * (rank - len(one)) + one, (1,) * (rank - len(other)) + other, strict=True)
    shape = []
    for a, b in pairs:
        if a != b and 1 not in (a, b):
            return None
        shape.append(max(a, b) if 1 in (a, b) else a)
    return tuple(shape) if elements(shape) < 1000 else None


def second(g: Grower, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """A constant or a live tensor that broadcasts with ``x``, and the shape of both."""
    other = None
    if not g.chance(50):
        other = g.partner(lambda y: joint(x.shape, y.shape) is not None)
    if other is None:
        shape = spread(g, x)
        return _second(g, x, g.values(*shape, near=0.6), shape)
    return other, joint(x.shape, other.shape) or x.shape


def _second(g: Grower, x: Tensor, array: Any, shape: list[int]) -> tuple[Tensor, tuple[int, ...]]:
    return Tensor(g.constant(array), tuple(shape), 1.0), joint(x.shape, tuple(shape)) or x.shape


def condition(g: Grower, x: Tensor) -> str:
    """A boolean tensor of the shape of ``x``."""
    return g.node(g.operator(COMPARE[1:]), [g.uneven(x).name, g.scalar(0.05)])[0]


@snippet(14)
def residual(g: Grower, x: Tensor) -> Tensor | None:
    other = g.partner(lambda y: y.shape == x.shape and y.name != x.name)
    if other is None:
        return None
    return g.op(str(g.pick(["Add", "Add", "Sub", "Mul"])), [x, other], size=x.size + other.size)


@snippet(24)
def binary(g: Grower, x: Tensor) -> Tensor:
    names = ["Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu", *COMPARE, *LOGIC, *VARIADIC]
    operator = g.operator([*names, "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor"])
    other, shape = second(g, x)
    if operator == "PRelu":
        slope = [1 if is_free(size) or g.chance(40) else size for size in x.shape]
        return g.op("PRelu", [x, g.constant(g.values(*slope))])
    pair = [x, other] if operator in ("Div", "Pow", "Mod") or not g.chance(40) else [other, x]
    size = max(x.size, other.size)
    if operator in COMPARE:
        one = g.uneven(pair[0])
        return g.to_float(g.node(operator, [one.name, pair[1].name])[0], shape, 0.5)
    if operator in LOGIC:
        (result,) = g.node(operator, [condition(g, item) for item in pair])
        return g.to_float(result, shape, 0.5)
    if operator.startswith("Bit"):
        return bits(g, operator, pair, shape)
    if operator in ("Div", "Mod"):
        other = g.positive(other)
        more = {"fmod": 1} if operator == "Mod" else {}
        return g.op(operator, [g.uneven(x), other], shape, x.size, **more)
    if operator == "Pow":
        exponent = g.op("Sigmoid", [other], size=0.5)
        return g.op("Pow", [g.positive(x), exponent], shape, x.size + 0.5)
    if operator in VARIADIC:
        pair = pair[: g.between(1, 2)] + [x] * g.chance(30)
        shape = shape if len({item.name for item in pair}) > 1 else pair[0].shape
        return g.op(operator, pair, shape, size * (2 if operator == "Sum" else 1))
    return g.op(operator, pair, shape, size * (1 if operator == "Mul" else 1.4))


def bits(g: Grower, operator: str, pair: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    if operator != "BitShift" and g.opset < 18:
        operator = "BitShift"
    small = [g.op("Add", [g.inside(g.uneven(item)), g.scalar(1.03)]) for item in pair]
    whole = [g.node("Cast", [g.scaled(item, 2.9).name], to=TensorProto.UINT32)[0] for item in small]
    more = {"direction": g.pick(["LEFT", "RIGHT"])} if operator == "BitShift" else {}
    return g.to_float(g.node(operator, whole, **more)[0], shape, 6.0)


@snippet(6)
def where(g: Grower, x: Tensor) -> Tensor:
    one, shape = second(g, x)
    other, _ = second(g, x)
    both = joint(shape, other.shape)
    if both is None or g.chance(30):
        other, both = x, shape
    pair = [one, other] if g.chance(50) else [other, one]
    return g.op("Where", [condition(g, x), *pair], both, max(one.size, other.size))


@snippet(10)
def normalised(g: Grower, x: Tensor) -> Tensor | None:
    """Normalisation with the channels on axis 1."""
    if x.rank < 2 or is_free(x.shape[1]):
        return None
    channels = x.shape[1]
    kinds = ["BatchNormalization"]
    if x.rank >= 3:
        kinds += ["InstanceNormalization", "GroupNormalization", "GroupNormalization"]
    if x.rank == 4:
        kinds += ["LRN", "MeanVarianceNormalization"] * 2
    kind = g.operator(kinds)
    if kind == "LRN":
        return Tensor(g.node("LRN", [x.name], size=g.pick([1, 3]))[0], x.shape, x.size)
    if kind == "MeanVarianceNormalization":
        return variance(g, x)
    if kind == "InstanceNormalization":
        scale, shift = g.weight(channels, near=1.0), g.weight(channels)
        return g.op(kind, [x, scale, shift], size=1.0, epsilon=0.05)
    if kind == "GroupNormalization" and g.opset >= 21:  # the first version is withdrawn
        groups = g.divisor(channels)
        scale, shift = g.weight(channels, near=1.0), g.weight(channels)
        return g.op(kind, [x, scale, shift], size=1.0, num_groups=groups, epsilon=0.05)
    parts = [g.weight(channels, near=1.0), g.weight(channels), g.weight(channels)]
    parts.append(g.constant(g.numbers.uniform(0.5, 2.0, channels).astype(np.float32)))
    return g.op("BatchNormalization", [x, *parts], size=1.3)


def variance(g: Grower, x: Tensor) -> Tensor | None:
    """It knows no epsilon, so no region may be constant."""
    fixed = x.fixed(least=2)
    if not fixed:
        return None
    noise = g.constant(g.values(*(1 if is_free(size) else size for size in x.shape)))
    mixed = g.op("Add", [x, noise])
    return g.op("MeanVarianceNormalization", [mixed], size=1.0, axes=g.some(fixed))


@snippet(8)
def normalised_last(g: Grower, x: Tensor) -> Tensor | None:
    """Normalisation over the last axes, or over any one."""
    kinds = ["LpNormalization", "LayerNormalization", "LayerNormalization"]
    kind = g.operator([*kinds, *["RMSNormalization"] * 2 * (g.opset >= 23)])
    if kind == "LpNormalization":
        axis = g.between(0, max(x.rank - 1, 0))
        if not x.rank or is_free(x.shape[axis]):
            return None
        return g.op(kind, [g.positive(x)], size=0.5, axis=axis, p=g.between(1, 2))
    start = max([k + 1 for k, size in enumerate(x.shape) if is_free(size)], default=0)
    if start >= x.rank or g.opset < 17:
        return None
    axis = g.between(start, x.rank - 1)
    over = x.shape[axis:]
    operands = [x, g.weight(*over, near=1.0)]
    if kind == "LayerNormalization" and g.chance(70):
        operands.append(g.weight(*over))
    return g.op(kind, operands, size=1.0, axis=g.axis(axis, x.rank), epsilon=0.05)


@snippet(8)
def over_axis(g: Grower, x: Tensor) -> Tensor | None:
    if x.rank == 0:
        return None
    axis = g.between(0, x.rank - 1)
    kinds = ["Softmax", "LogSoftmax", "Hardmax", "CumSum", "ArgMax", "ArgMin", "OneHot"]
    kinds += ["CumProd"] * 7 * (g.opset >= 26)
    kinds += ["Trilu"] * (x.rank > 1 and g.opset >= 14)
    kind = g.operator(kinds)
    near = g.axis(axis, x.rank)
    if kind.endswith("max"):
        return g.op(kind, [g.uneven(x)], size=0.5, axis=near)
    if kind == "Trilu":
        diagonal = [g.constant(np.array(g.between(-1, 1)))] if g.chance(50) else []
        return g.op("Trilu", [x, *diagonal], upper=g.between(0, 1))
    if kind in ("CumSum", "CumProd"):
        where_ = g.constant(np.array(near, np.int64))
        more_: dict[str, Any] = {"exclusive": g.between(0, 1), "reverse": g.between(0, 1)}
        return g.op(kind, [g.inside(x), where_], size=1.0, **more_)
    if x.rank == 1 and kind == "OneHot":
        return None
    keep = 0 if kind == "OneHot" else g.between(0, 1)
    kind_ = "ArgMax" if kind == "OneHot" else kind
    (index,) = g.node(kind_, [g.uneven(x).name], axis=near, keepdims=keep)
    shape = resized(x, axis, 1) if keep else (*x.shape[:axis], *x.shape[axis + 1 :])
    if kind != "OneHot":
        return g.scaled(g.to_float(index, shape, 2.0), 0.37)
    depth = g.between(2, 5)
    new = g.between(0, len(shape))
    values = g.constant(np.array([0.2, 1.1], np.float32))
    shape = (*shape[:new], depth, *shape[new:])
    (hot,) = g.node("OneHot", [index, g.constant(np.array(depth)), values], axis=new)
    return Tensor(hot, shape, 0.6)


@snippet(5)
def top_k(g: Grower, x: Tensor) -> Tensor | list[Tensor] | None:
    axes = x.fixed(least=2)
    if not axes:
        return None
    axis = int(g.pick(axes))
    count = g.between(1, x.shape[axis])
    more = {"largest": g.between(0, 1), "sorted": 1}
    values, index = g.node(
        "TopK", [g.uneven(x).name, g.ints(count)], 2, axis=g.axis(axis, x.rank), **more
    )
    shape = resized(x, axis, count)
    found = Tensor(values, shape, x.size)
    return [found, g.scaled(g.to_float(index, shape, 2.0), 0.29)] if g.chance(30) else found


REDUCTIONS = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare""".split()


@snippet(14)
def reduction(g: Grower, x: Tensor) -> Tensor | None:
    if x.rank == 0:
        return None
    operator = g.operator([*REDUCTIONS, *["ReduceSum", "ReduceMean"] * 3])
    axes = g.some(range(x.rank)) if g.chance(30) else [g.between(0, x.rank - 1)]
    keep = g.between(0, 1)
    free = [is_free(size) for size in x.shape]
    kept = [k for k in range(x.rank) if k not in axes]
    if not keep and (any(free) and not any(free[k] for k in kept) and not g.chance(10)):
        keep = 1
    if operator in ("ReduceProd", "ReduceLogSum"):
        x = g.positive(g.inside(x), 0.4)
    since = 13 if operator == "ReduceSum" else 18
    operand, more = g.axes_operand([g.axis(k, x.rank) for k in axes], since)
    if len(axes) == x.rank and g.chance(30):
        operand, more = [], {}
    shape = [1 if k in axes else size for k, size in enumerate(x.shape) if keep or k not in axes]
    count = elements(x.shape[k] for k in axes)
    size = x.size * (count**0.6 if operator in ("ReduceSum", "ReduceL1", "ReduceL2") else 1)
    return g.op(operator, [x, *operand], shape, size, keepdims=keep, **more)
