"""Random growth by what works on images: pooling, resizing, regions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.random_base import MOST_ELEMENTS, Grower, Tensor, elements, is_free, snippet


@snippet(10)
def pooling(g: Grower, x: Tensor) -> Tensor | None:
    if not 3 <= x.rank <= 5 or any(map(is_free, x.shape[1:])):
        return None
    kinds = ["MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"]
    kind = g.operator([*kinds, *["GlobalLpPool"] * (g.opset < 22)])
    if kind.startswith("Global"):
        return g.op(kind, [x], (*x.shape[:2], *[1] * (x.rank - 2)))
    kernel = [g.between(1, min(3, size)) for size in x.shape[2:]]
    strides = [g.between(1, 2) for _ in kernel]
    pads = [g.between(0, (k - 1) // 2) for k in kernel]
    out = [
        (size + 2 * pad - k) // step + 1
        for size, k, step, pad in zip(x.shape[2:], kernel, strides, pads, strict=True)
    ]
    more: dict[str, Any] = {"count_include_pad": 1} if kind == "AveragePool" else {}
    shape = (*x.shape[:2], *out)
    more |= {"kernel_shape": kernel, "strides": strides, "pads": pads * 2}
    if kind == "MaxPool" and g.chance(10):
        values, _ = g.node("MaxPool", [x.name], 2, **more)  # its indices are not read
        return Tensor(values, shape, x.size)
    return g.op(kind, [x], shape, **more)


@snippet(11)
def depth_and_space(g: Grower, x: Tensor) -> Tensor | None:
    if x.rank != 4 or any(map(is_free, x.shape[1:])):
        return None
    batch, channels, height, width = x.shape
    blocks = [2] if g.chance(80) else [2, 3]
    down = [b for b in blocks if channels % (b * b) == 0]
    up = [b for b in blocks if height % b == 0 and width % b == 0]
    if down and (not up or g.chance(60)):
        b = int(g.pick(down))
        shape = (batch, channels // (b * b), height * b, width * b)
        return g.op("DepthToSpace", [x], shape, blocksize=b, mode=g.pick(["DCR", "CRD"]))
    if up:
        b = int(g.pick(up))
        shape = (batch, channels * b * b, height // b, width // b)
        return g.op("SpaceToDepth", [x], shape, blocksize=b)
    if channels * height * width * 4 > MOST_ELEMENTS:
        return None
    w = g.weight(8, channels, 1, 1, fan_in=channels)
    wide = g.op("Conv", [x, w], (batch, 8, height, width))
    shape = (batch, 2, height * 2, width * 2)
    return g.op("DepthToSpace", [wide], shape, blocksize=2, mode=g.pick(["DCR", "CRD"]))


@snippet(8)
def resize(g: Grower, x: Tensor) -> Tensor | None:
    """By scales or by sizes, also computed ones; of space, rarely of another axis."""
    if not 3 <= x.rank <= 5 or any(map(is_free, x.shape[2:])):
        return None
    axes = list(range(2, x.rank))
    if g.chance(10) and not is_free(x.shape[1]):
        axes = [1]
    factors = [1.0] * x.rank
    for axis in axes:
        factors[axis] = float(g.pick([2.0, 1.0, 0.5 if x.shape[axis] > 1 else 2.0, 1.5]))
    shape = tuple(
        size if k not in axes else math.floor(size * factors[k]) for k, size in enumerate(x.shape)
    )
    if elements(shape) > MOST_ELEMENTS:
        return None
    more: dict[str, Any] = {"mode": "nearest" if x.rank == 5 or axes == [1] else
                            g.pick(["nearest", "linear"])}  # fmt: skip
    if g.chance(40):
        more["coordinate_transformation_mode"] = g.pick(["asymmetric", "align_corners"])
    if g.opset >= 18 and g.chance(30):
        more["axes"] = axes
        if g.chance(50):
            sizes = g.ints(*(shape[k] for k in axes))
            return g.op("Resize", [x, "", "", sizes], shape, **more)
        scales = g.constant(np.array([factors[k] for k in axes], np.float32))
        return g.op("Resize", [x, "", scales], shape, **more)
    if g.chance(50):
        told = g.shape_of(x)
        if axes == [1]:
            parts = [g.live_size(told, 0), g.ints(*shape[1:])]
            if is_free(math.prod(shape[1:])):
                return None
        else:
            head = g.node("Slice", [told, g.ints(0), g.ints(2)])[0]
            parts = [head, g.ints(*shape[2:])]
        return g.op("Resize", [x, "", "", g.node("Concat", parts, axis=0)[0]], shape, **more)
    return g.op("Resize", [x, "", g.constant(np.array(factors, np.float32))], shape, **more)


@snippet(14)
def regions(g: Grower, x: Tensor) -> Tensor | None:
    if x.rank != 4 or any(map(is_free, x.shape[1:])) or min(x.shape[2:]) < 2:
        return None
    count = g.between(1, 3)
    kind = g.operator(["GridSample", *["MaxRoiPool", "RoiAlign"] * (g.opset < 22)])
    shape = (count, x.shape[1], 2, 2)
    corners = np.tile(np.array([0.2, 0.1, 1.3, 1.4], np.float32), (count, 1))
    if kind == "MaxRoiPool":
        rois = g.constant(np.hstack([np.zeros((count, 1), np.float32), np.round(corners)]))
        return g.op(kind, [x, rois], shape, pooled_shape=[2, 2])
    if kind == "RoiAlign":
        places = [g.constant(corners), g.constant(np.zeros(count, np.int64))]
        return g.op(kind, [x, *places], shape, output_height=2, output_width=2)
    if g.opset < 16:
        return None
    grids = g.partner(lambda y: y.rank == 4 and y.shape[0] == x.shape[0]) or x
    if is_free(grids.shape[3]) or elements((*grids.shape[:3], x.shape[1])) > MOST_ELEMENTS:
        return None
    w = g.weight(grids.shape[3], 2, fan_in=grids.shape[3])
    grid = g.op("MatMul", [grids, w], (*grids.shape[:3], 2))
    places_ = (*x.shape[:2], *grids.shape[1:3])
    return g.op(kind, [x, g.op("Tanh", [grid])], places_, x.size, align_corners=g.between(0, 1))


@snippet(6)
def quantised(g: Grower, x: Tensor) -> Tensor | None:
    """Quantised and back, with one scale or one per slice."""
    fixed = x.fixed()
    if g.chance(50) and fixed:
        axis = int(g.pick(fixed))
        scale = g.numbers.uniform(0.02, 0.04, x.shape[axis]).astype(np.float32)
    else:
        axis, scale = 1, np.array(0.031, np.float32)
    kind = np.int8 if g.chance(50) else np.uint8
    zero = np.full(scale.shape, 0 if kind is np.int8 else 128, kind)
    parts = [g.constant(scale), g.constant(zero)]
    more = {"axis": g.axis(axis, x.rank)} if scale.ndim else {}
    (low,) = g.node("QuantizeLinear", [g.uneven(x).name, *parts], **more)
    back = g.op("DequantizeLinear", [low, *parts], x.shape, min(x.size, 2.0), **more)
    # Without anything between, the runtime's own fusions fail with some of the readers.
    return g.scaled(back, 0.9)
