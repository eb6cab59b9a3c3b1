"""Random growth by views, and by what cuts, joins and selects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.random_base import (
    MOST_ELEMENTS,
    Grower,
    Shape,
    Tensor,
    elements,
    is_free,
    resized,
    snippet,
)


@snippet(12)
def transpose(g: Grower, x: Tensor) -> Tensor | None:
    if x.rank < 2:
        return None
    order = list(range(x.rank))
    if g.chance(15):
        return g.op("Transpose", [x], x.shape[::-1])
    g.rng.shuffle(order)
    return g.op("Transpose", [x], [x.shape[k] for k in order], perm=order)


@snippet(20)
def reshape(g: Grower, x: Tensor) -> Tensor | None:
    """Merge and split axes, with 0, -1, and with arithmetic on the live shape."""
    shape = list(x.shape)
    for _ in range(g.between(1, 2)):
        k = g.between(0, max(len(shape) - 1, 0))
        if g.chance(50) and k + 1 < len(shape):
            shape[k : k + 2] = [shape[k] * shape[k + 1]]
        elif shape and len(shape) < 5:
            shape[k : k + 1] = _factors(g, shape[k])
    if g.chance(8) and shape:  # axes that share no factors
        places = [k for k, size in enumerate(shape) if not is_free(size)]
        values = [shape[k] for k in places]
        g.rng.shuffle(values)
        for place, value in zip(places, values, strict=True):
            shape[place] = value
    return _reshaped(g, x, tuple(shape))


def _factors(g: Grower, size: int) -> list[int]:
    """Two factors of a size, in some order; a free one keeps all its primes."""
    small = size
    while is_free(small) and small % 1009 == 0:
        small //= 1009
    while is_free(small) and small % 1013 == 0:
        small //= 1013
    one = g.divisor(small)
    pair = [size // one, one]
    return pair if g.chance(50) else pair[::-1]


def _reshaped(g: Grower, x: Tensor, shape: Shape) -> Tensor | None:
    target = g.target(x, shape)
    return None if target is None else g.op("Reshape", [x, target], shape)


@snippet(6)
def there_and_back(g: Grower, x: Tensor) -> Tensor | None:
    """Merged with a neighbour, something pointwise, apart again by the live shape of before."""
    if x.rank < 2:
        return None
    k = g.between(0, x.rank - 2)
    flat = _reshaped(g, x, (*x.shape[:k], x.shape[k] * x.shape[k + 1], *x.shape[k + 2 :]))
    if flat is None:
        return None
    return g.op("Reshape", [g.op("Tanh", [flat]), g.shape_of(x)], x.shape, 0.6)


@snippet(8)
def views(g: Grower, x: Tensor) -> Tensor | None:
    kind = g.operator(["Flatten", "Squeeze", "Unsqueeze", "Unsqueeze"])
    ones = [k for k, size in enumerate(x.shape) if size == 1]
    if kind == "Squeeze" and ones:
        axes = ones if g.chance(30) else g.some(ones)
        shape = [size for k, size in enumerate(x.shape) if k not in axes]
        operand = [] if axes == ones and not g.chance(70) and not _may_be_one(x) else [
            g.ints(*(g.axis(k, x.rank) for k in axes))
        ]  # fmt: skip
        return g.op("Squeeze", [x, *operand], shape)
    if kind == "Flatten" or x.rank > 4:
        axis = g.between(0, x.rank)
        shape = [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])]
        near = axis - x.rank if axis < x.rank and g.chance(30) else axis
        return g.op("Flatten", [x], shape, axis=near)
    axis = g.between(0, x.rank)
    shape = [*x.shape[:axis], 1, *x.shape[axis:]]
    return g.op("Unsqueeze", [x, g.ints(g.axis(axis, x.rank + 1))], shape)


def _may_be_one(x: Tensor) -> bool:
    return any(map(is_free, x.shape))


@snippet(6)
def repeated(g: Grower, x: Tensor) -> Tensor | None:
    """Tile, or Expand of axes of size 1, also to a live shape and to more axes."""
    if g.chance(40) and x.rank:
        times = [1] * x.rank
        times[g.between(0, x.rank - 1)] = g.between(1, 3)
        shape = [size * count for size, count in zip(x.shape, times, strict=True)]
        if elements(shape) > MOST_ELEMENTS:
            return None
        return g.op("Tile", [x, g.ints(*times)], shape)
    shape = [g.between(2, 4) if size == 1 and g.chance(70) else size for size in x.shape]
    if g.chance(30) and len(shape) < 5:
        shape = [g.between(1, 3), *shape]
    if elements(shape) > MOST_ELEMENTS:
        return None
    extra = len(shape) - x.rank
    told = g.shape_of(x) if any(map(is_free, shape)) and g.chance(60) else ""
    parts = [
        g.live_size(told, k - extra)
        if told and is_free(size)
        else g.ints(1 if is_free(size) else size)
        for k, size in enumerate(shape)
    ]
    if not parts:
        return None
    return g.op("Expand", [x, g.node("Concat", parts, axis=0)[0]], shape)


@snippet(6)
def expanded_like(g: Grower, x: Tensor) -> Tensor | None:
    """To the live shape of another tensor, of which an axis was averaged away."""
    axes = [k for k, size in enumerate(x.shape) if size > 1]
    if not axes:
        return None
    axis = int(g.pick(axes))
    operand, more = g.axes_operand([axis], 18)
    mean = g.op("ReduceMean", [x, *operand], resized(x, axis, 1), keepdims=1, **more)
    return g.op("Expand", [mean, g.shape_of(x)], x.shape)


@snippet(5)
def made(g: Grower, x: Tensor) -> Tensor | None:
    """Tensors that come from the shape alone: constants, ranges, sizes."""
    kind = g.operator(["ConstantOfShape", "Range", "Size"])
    if kind == "ConstantOfShape":
        value = np.array([0.4], np.float32)
        more: dict[str, Any] = {} if g.chance(30) else {"value": _proto(value)}
        (ones,) = g.node(kind, [g.shape_of(x)], **more)
        return g.op(str(g.pick(["Add", "Sub", "Max"])), [x, ones], size=x.size + 0.4)
    if kind == "Size":
        count = g.to_float(g.node("Size", [x.name])[0], (), 1.0)
        return g.op("Mul", [x, g.op("Reciprocal", [count])], x.shape, 0.01)
    if x.rank == 0:
        return None
    axis = g.between(0, x.rank - 1)
    length = g.node("Squeeze", [g.live_size(g.shape_of(x), axis)])[0]
    limits = [g.constant(np.array(0)), length, g.constant(np.array(1))]
    steps = g.to_float(g.node("Range", limits)[0], (x.shape[axis],), 3.0)
    target = g.ints(-1, *[1] * (x.rank - 1 - axis))
    shape = (x.shape[axis], *[1] * (x.rank - 1 - axis))
    column = g.op("Reshape", [g.scaled(steps, 0.2), target], shape)
    return g.op("Add", [x, column], x.shape, x.size + 0.6)


def _proto(array: np.ndarray[Any, Any]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(array)


@snippet(16)
def concat(g: Grower, x: Tensor) -> Tensor | None:
    """On any axis; also the same tensor twice, and constants."""
    if x.rank == 0:
        return None
    axis = g.between(0, x.rank - 1)

    def fits(y: Tensor) -> bool:
        return (
            y.rank == x.rank
            and resized(y, axis, 1) == resized(x, axis, 1)
            and (is_free(y.shape[axis]) == is_free(x.shape[axis]))
            and (not is_free(x.shape[axis]) or y.shape[axis] == x.shape[axis])
        )

    parts = [x, *(g.partner(fits) or x for _ in range(g.between(1, 2)))]
    if g.chance(20) and not any(map(is_free, x.shape)):
        parts.append(Tensor(g.constant(g.values(*x.shape)), x.shape))
    g.rng.shuffle(parts)
    shape = resized(x, axis, sum(part.shape[axis] for part in parts))
    if elements(shape) > MOST_ELEMENTS:
        return None
    return g.op("Concat", parts, shape, max(p.size for p in parts), axis=g.axis(axis, x.rank))


@snippet(12)
def split(g: Grower, x: Tensor) -> Tensor | list[Tensor] | None:
    """Even or uneven; the parts go on by themselves or meet in a product."""
    axes = x.fixed(least=2)
    if not axes:
        return None
    axis = int(g.pick(axes))
    size, count = x.shape[axis], g.between(2, min(3, x.shape[axis]))
    sizes = [size // count] * count
    if size % count or g.chance(40):
        cuts = sorted(g.rng.sample(range(1, size), count - 1))
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    operands, more = [x.name], {}
    if len(set(sizes)) == 1 and g.chance(60):
        more = {"num_outputs": count} if g.opset >= 18 else {}
    else:
        operands.append(g.ints(*sizes))
    names = g.node("Split", operands, count, axis=g.axis(axis, x.rank), **more)
    parts = [Tensor(n, resized(x, axis, k), x.size) for n, k in zip(names, sizes, strict=True)]
    if len(set(sizes)) == 1 and g.chance(50):  # a gate
        return g.op("Mul", [g.op("Sigmoid", parts[:1], size=0.6), parts[1]], size=x.size * 0.6)
    return parts


@snippet(14)
def sliced(g: Grower, x: Tensor) -> Tensor | None:
    """Forward, strided, reversed; bounds from either end, and far beyond it."""
    if x.rank == 0:
        return None
    axes = g.some(range(x.rank)) if g.chance(25) else [g.between(0, x.rank - 1)]
    shape, bounds = list(x.shape), []
    for axis in axes:
        size = x.shape[axis]
        if is_free(size):
            bounds.append(g.pick([(0, 2**62, 1), (-1, -(2**62), -1)]))
            continue
        start, stop, step = _range(g, size)
        bounds.append((start, stop, step))
        python_stop = None if step < 0 and stop < -size else stop
        shape[axis] = len(range(size)[start:python_stop:step])
    if 0 in shape:
        return None
    starts, ends, steps = zip(*bounds, strict=True)
    operands = [x, g.ints(*starts), g.ints(*ends), g.ints(*(g.axis(k, x.rank) for k in axes))]
    if set(steps) != {1} or g.chance(30):
        operands.append(g.ints(*steps))
    elif axes == list(range(len(axes))) and g.chance(40):
        operands.pop()  # the axes are the first ones
    return g.op("Slice", operands, shape)


def _range(g: Grower, size: int) -> tuple[int, int, int]:
    """Start, end and step that take something."""
    low = g.between(0, size - 1)
    high = g.between(low + 1, size)
    step = int(g.pick([1, 1, 1, 2, 3, -1, -1, -2]))
    start, stop = (low, high) if step > 0 else (high - 1, low - 1)
    if stop == size and g.chance(50):
        stop = 2**62
    elif step < 0 and stop < 0:
        stop = int(g.pick([-(2**62), -size - 1]))
    elif 0 <= stop < size and g.chance(30):
        stop -= size
    return (start - size if g.chance(30) else start), stop, step


@snippet(14)
def gather(g: Grower, x: Tensor) -> Tensor | None:
    """With a constant scalar, vector (also with repeats) or matrix, or with live indices."""
    if x.rank == 0:
        return None
    axis = g.between(0, x.rank - 1)
    size = 1 if is_free(x.shape[axis]) else x.shape[axis]
    dims: list[int] = g.pick([[], [g.between(1, 6)], [g.between(1, 6)], [size], [2, 2]])
    shape = (*x.shape[:axis], *dims, *x.shape[axis + 1 :])
    if len(shape) > 5 or elements(shape) > MOST_ELEMENTS or (is_free(x.shape[axis]) and not dims):
        return None
    if dims == [size] and size > 1 and g.chance(70):
        index = g.numbers.permutation(size)
    else:
        index = g.numbers.integers(-size, size, dims)
    operand = g.constant(np.asarray(index, np.int64))
    return g.op("Gather", [x, operand], shape, axis=g.axis(axis, x.rank))


@snippet(9)
def gathered(g: Grower, x: Tensor) -> Tensor | None:
    """GatherND and GatherElements, and Gather by indices that are computed."""
    if x.rank == 0 or any(map(is_free, x.shape[1:])):
        return None
    kind = g.operator(["GatherND", "GatherElements", "Gather"])
    if kind == "GatherND":
        depth = 1 if is_free(x.shape[0]) else g.between(1, min(2, x.rank))
        sizes = [1 if is_free(size) else size for size in x.shape[:depth]]
        count = g.between(1, 5)
        index = np.stack([g.numbers.integers(-size, size, count) for size in sizes], axis=1)
        return g.op(kind, [x, g.constant(index.astype(np.int64))], (count, *x.shape[depth:]))
    if kind == "GatherElements":
        axis = g.between(0, x.rank - 1)
        (index_,) = g.node("ArgMax", [g.uneven(x).name], axis=axis, keepdims=1)
        if is_free(x.shape[axis]):
            return None
        return g.op(kind, [x, index_], resized(x, axis, 1), axis=axis)
    size = x.shape[-1]
    (index_,) = g.node("ArgMax", [g.uneven(x).name], axis=x.rank - 1, keepdims=0)
    table = g.weight(size, g.between(2, 6))
    columns = next(s[-1] for s, names in g.shared() if table in names)
    found, shape = g.node("Gather", [table, index_], axis=0)[0], (*x.shape[:-1], columns)
    return Tensor(found, shape) if elements(shape) < MOST_ELEMENTS else None


@snippet(10)
def pad(g: Grower, x: Tensor) -> Tensor | None:
    """Constant on any axis, also negative; reflected or repeated on the last axes."""
    axes = x.fixed(least=2)
    if not axes:
        return None
    pads = [[0] * x.rank, [0] * x.rank]
    mode = str(g.pick(["constant", "constant", "constant", "reflect", "edge"]))
    if mode == "reflect":
        axes = [k for k in axes if k > 1]
        if not axes:
            return None
    for axis in g.some(axes):
        for side in pads:
            low = -((x.shape[axis] - 1) // 2) if mode == "constant" and g.chance(25) else 0
            side[axis] = g.between(low, 2 if mode == "constant" else 1)
    shape = [size + a + b for size, a, b in zip(x.shape, *pads, strict=True)]
    if elements(shape) > MOST_ELEMENTS:
        return None
    stated = [k for k in range(x.rank) if pads[0][k] or pads[1][k]] or axes[:1]
    if g.opset >= 18 and g.chance(40):
        flat = g.ints(*(side[k] for side in pads for k in stated))
        operands = [x, flat, "", g.ints(*(g.axis(k, x.rank) for k in stated))]
        return g.op("Pad", operands, shape, mode=mode)
    operands = [x, g.ints(*pads[0], *pads[1])]
    if mode == "constant" and g.chance(40):
        operands.append(g.scalar(0.7))
    return g.op("Pad", operands, shape, mode=mode)
