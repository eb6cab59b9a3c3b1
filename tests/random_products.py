"""Random growth by products: convolutions, matrices, recurrent nets, attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.random_base import (
    BATCH,
    MOST_ELEMENTS,
    Grower,
    Tensor,
    elements,
    is_free,
    resized,
    snippet,
)


def width(g: Grower) -> int:
    return int(g.pick([4, 6, 8, 5, 3, 7, 9, 2]))


def _bias(g: Grower, size: int) -> list[str]:
    return [g.weight(size, near=0.3)] if g.chance(60) else []


@snippet(26)
def convolution(g: Grower, x: Tensor) -> Tensor | None:
    """In one to three dimensions; groups, depthwise, strides, dilations, every kind of padding."""
    if x.rank < 3 or x.rank > 5 or is_free(x.shape[1]):
        return None
    inputs = x.shape[1]
    group = int(g.pick([1, 1, inputs, g.divisor(inputs)]))
    outputs = group * g.between(1, max(1, 9 // group)) if group > 1 else width(g)
    kernel, pads, out, more = _window(g, x, strided=True)
    if out is None or elements((*x.shape[:1], outputs, *out)) > MOST_ELEMENTS:
        return None
    fan_in = inputs // group * math.prod(kernel)
    operands = [x, g.weight(outputs, inputs // group, *kernel, fan_in=fan_in), *_bias(g, outputs)]
    more |= {"group": group} if group > 1 or g.chance(50) else {}
    return g.op("Conv", operands, (x.shape[0], outputs, *out), x.size, **more, **pads)


def _window(
    g: Grower, x: Tensor, *, strided: bool
) -> tuple[list[int], dict[str, Any], list[int] | None, dict[str, Any]]:
    """Kernel, padding, spatial sizes afterwards and other attributes."""
    out: list[int] = []
    columns: list[list[int]] = [[], [], [], [], []]
    kernel, begin, end, strides, dilations = columns
    plain = g.chance(50)
    for size in x.shape[2:]:
        k = int(g.pick([1, 3]) if is_free(size) else g.between(1, min(3, size)))
        step = 1 if is_free(size) or plain or not strided else g.between(1, 2)
        apart = g.between(1, 2) if k > 1 and not plain else 1
        reach = (k - 1) * apart
        if is_free(size):
            before, after = reach // 2, reach - reach // 2
        else:
            before, after = g.between(0, min(reach, k - 1)), g.between(0, min(reach, k - 1))
            short = reach + 1 - size - before - after
            if short > 0:
                return kernel, {}, None, {}
        out.append(size if is_free(size) else (size + before + after - reach - 1) // step + 1)
        for column, value in zip(columns, (k, before, after, step, apart), strict=True):
            column.append(value)
    if set(strides) == {1} and set(dilations) == {1} and g.chance(15):
        return kernel, {"auto_pad": g.pick(["SAME_UPPER", "SAME_LOWER"])}, list(x.shape[2:]), {}
    more = {"strides": strides} if max(strides) > 1 else {}
    more |= {"dilations": dilations} if max(dilations) > 1 else {}
    return kernel, {"pads": begin + end}, out, more


@snippet(8)
def transposed_convolution(g: Grower, x: Tensor) -> Tensor | None:
    if x.rank < 3 or x.rank > 5 or is_free(x.shape[1]) or any(map(is_free, x.shape[2:])):
        return None
    inputs = x.shape[1]
    group = int(g.pick([1, 1, inputs, g.divisor(inputs)]))
    each = g.between(1, max(1, 8 // group))
    columns: list[list[int]] = [[], [], [], [], []]
    kernel, strides, pads, extra, out = columns
    for size in x.shape[2:]:
        k, step = g.between(1, 3), g.between(1, 2)
        pad = g.between(0, (k - 1) // 2)
        more = g.between(0, step - 1)
        after = (size - 1) * step + k - 2 * pad + more
        for column, value in zip(columns, (k, step, pad, more, after), strict=True):
            column.append(value)
    if min(out) < 1 or elements((*x.shape[:1], each * group, *out)) > MOST_ELEMENTS:
        return None
    fan_in = inputs // group * math.prod(kernel)
    operands = [x, g.weight(inputs, each, *kernel, fan_in=fan_in), *_bias(g, each * group)]
    return g.op(
        "ConvTranspose", operands, (x.shape[0], each * group, *out), x.size, group=group,
        strides=strides, pads=pads * 2, output_padding=extra,
    )  # fmt: skip


@snippet(14)
def gemm(g: Grower, x: Tensor) -> Tensor | None:
    """All orientations, the weight on either side, every form of bias."""
    if x.rank != 2:
        return None
    turned, flipped, outputs = g.between(0, 1), g.between(0, 1), width(g)
    left = g.chance(25)
    contracted = (1 - turned if not left else turned) % 2
    inner, other = x.shape[contracted], x.shape[1 - contracted]
    if is_free(inner):
        return None
    weight = (inner, outputs) if bool(flipped) == left else (outputs, inner)
    w = g.weight(*weight, fan_in=inner)
    shape = (outputs, other) if left else (other, outputs)
    operands: list[Tensor | str] = [w, x] if left else [x, w]
    kinds = [(shape[1],), (1, shape[1]), (), (1,), (shape[0], 1), shape]
    bias = g.pick(kinds)
    same = g.partner(lambda y: y.shape == shape)
    if same is not None and g.chance(20):
        operands.append(same)
    elif not any(map(is_free, bias)) and g.chance(70):
        operands.append(g.weight(*bias, near=0.3) if bias else g.scalar(0.4))
    more: dict[str, Any] = {"alpha": 0.8, "beta": 1.3} if g.chance(20) else {}
    more |= {"transA": flipped, "transB": turned} if left else {"transA": turned, "transB": flipped}
    return g.op("Gemm", operands, shape, x.size, **more)


@snippet(22)
def matmul(g: Grower, x: Tensor) -> Tensor | None:
    """With a weight on either side, also one per batch or a vector; a bias may follow."""
    if x.rank < 2:
        return None
    outputs, inner = width(g), x.shape[-1]
    if not is_free(x.shape[-2]) and g.chance(20):
        w = g.weight(outputs, x.shape[-2], fan_in=x.shape[-2])
        return g.op("MatMul", [w, x], resized(x, x.rank - 2, outputs))
    if is_free(inner) or elements(x.shape) // inner * outputs > MOST_ELEMENTS:
        return None
    if g.chance(6) and x.rank > 2:
        return g.op("MatMul", [x, g.weight(inner, fan_in=inner)], x.shape[:-1])
    batch = x.shape[:-2]
    lead = () if any(map(is_free, batch[-1:])) or not batch or g.chance(80) else batch[-1:]
    y = g.op(
        "MatMul", [x, g.weight(*lead, inner, outputs, fan_in=inner)],
        resized(x, x.rank - 1, outputs),
    )  # fmt: skip
    bias = _bias(g, outputs)
    pair: list[Tensor | str] = [y, *bias] if g.chance(50) else [*bias, y]
    return g.op("Add", pair, y.shape, y.size) if bias else y


@snippet(9)
def between_activations(g: Grower, x: Tensor) -> Tensor | None:
    """Like attention: ``softmax(x yᵀ) z``, or its first half."""
    if x.rank < 2 or elements(x.shape) > 400:
        return None
    y = g.partner(lambda y: y.shape == x.shape) or x
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    fan = x.size * y.size * elements(x.shape[-1:]) ** 0.5
    turned = g.op("Transpose", [y], (*x.shape[:-2], x.shape[-1], x.shape[-2]), perm=order)
    scores = g.op("MatMul", [x, turned], (*x.shape[:-1], x.shape[-2]), fan)
    if g.chance(40):
        return scores
    if g.chance(80):
        scores = g.op("Softmax", [g.tame(scores)], size=0.4, axis=-1)
    z = g.partner(lambda y: y.shape == x.shape) or x
    return g.op("MatMul", [scores, z], x.shape, scores.size * z.size)


@snippet(9)
def einsum(g: Grower, x: Tensor) -> Tensor | None:
    if not 1 <= x.rank <= 4:
        return None
    word = "".join(g.rng.sample("bcdghij", x.rank))
    fixed = x.fixed()
    kind = g.pick(["contract", "contract", "scale", "self", "outer", "dots", "both"])
    sizes = dict(zip(word, x.shape, strict=True))
    if kind in ("self", "outer", "both") or not fixed:
        return _einsum_of_activations(g, x, word, sizes, kind)
    if kind == "dots":
        if is_free(x.shape[-1]):
            return None
        w = g.weight(x.shape[-1], width(g), fan_in=x.shape[-1])
        outputs = _columns(g, w)
        return g.op("Einsum", [x, w], (*x.shape[:-1], outputs), equation="...j,jk->...k")
    axes = g.some(fixed) if g.chance(40) else [int(g.pick(fixed))]
    letters = [word[k] for k in axes]
    if kind == "scale":
        w = g.weight(*(sizes[c] for c in letters), near=0.5)
        return g.op("Einsum", [x, w], equation=f"{word},{''.join(letters)}->{word}")
    out = [c for c in word if c not in letters]
    new = width(g)
    if elements(sizes[c] for c in out) * new > MOST_ELEMENTS:
        return None
    fan_in = math.prod(sizes[c] for c in letters)
    place = g.between(0, len(letters))
    operand = [*letters[:place], "k", *letters[place:]]
    sizes["k"] = new
    w = g.weight(*(sizes[c] for c in operand), fan_in=fan_in)
    out.insert(g.between(0, len(out)), "k")
    if g.chance(15):  # implicit: the letters that are left, in alphabetic order
        out = sorted(out)
        equation = f"{word},{''.join(operand)}"
    else:
        equation = f"{word}, {''.join(operand)} -> {''.join(out)}"
    return g.op("Einsum", [x, w], [sizes[c] for c in out], x.size, equation=equation)


def _columns(g: Grower, name: str) -> int:
    """Columns of a weight, which may be an earlier one."""
    for shape, names in g.shared():
        if name in names:
            return shape[-1]
    raise AssertionError(name)


def _einsum_of_activations(
    g: Grower, x: Tensor, word: str, sizes: dict[str, int], kind: str
) -> Tensor | None:
    if kind == "both":  # of two live tensors of one shape, some axes are summed
        y = g.partner(lambda y: y.shape == x.shape) or x
        out = [word[k] for k in g.some(range(x.rank))]
        fan = x.size * y.size * (elements(x.shape) / elements(sizes[c] for c in out)) ** 0.5
        return g.op(
            "Einsum",
            [x, y],
            [sizes[c] for c in out],
            fan,
            equation=f"{word},{word}->{''.join(out)}",
        )
    if kind == "outer":
        if elements(x.shape) > 60 or x.rank > 2:
            return None
        y = g.partner(lambda y: y.shape == x.shape) or x
        other = "".join("k" if c == word[-1] else c for c in word)
        shape = (*x.shape, x.shape[-1])
        return g.op("Einsum", [x, y], shape, equation=f"{word},{other}->{word}k")
    out = [word[k] for k in g.some(range(x.rank))]
    g.rng.shuffle(out)
    size = x.size * (elements(x.shape) / elements(sizes[c] for c in out)) ** 0.5
    return g.op("Einsum", [x], [sizes[c] for c in out], size, equation=f"{word}->{''.join(out)}")


@snippet(10)
def recurrent(g: Grower, x: Tensor) -> Tensor | None:
    """Both directions, with and without bias and initial states; reads Y, Y_h or Y_c."""
    if x.rank != 3 or is_free(x.shape[2]) or elements(x.shape[:1]) > 12:
        return None
    operator = g.operator(["LSTM", "GRU", "RNN"])
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    time, batch, inputs = x.shape
    way = g.pick(["forward", "bidirectional", "reverse"])
    count, hidden = 1 + (way == "bidirectional"), g.between(2, 6)
    operands = [
        x.name,
        g.weight(count, gates * hidden, inputs, fan_in=inputs),
        g.weight(count, gates * hidden, hidden, fan_in=hidden),
        g.weight(count, 2 * gates * hidden) if g.chance(60) else "",
        "",
    ]
    for _ in range(2 if operator == "LSTM" else 1):
        operands.append(_state(g, x, (count, batch, hidden)) if g.chance(50) else "")
    if operator == "LSTM" and g.chance(20):
        operands.append(g.weight(count, 3 * hidden))
    while not operands[-1]:
        operands.pop()
    more: dict[str, Any] = {"hidden_size": hidden, "direction": way}
    more |= {"linear_before_reset": 1} if operator == "GRU" and g.chance(50) else {}
    outputs = g.node(operator, operands, 3 if operator == "LSTM" else 2, **more)
    found = [Tensor(outputs[0], (time, count, batch, hidden), 0.4)]
    found += [Tensor(name, (count, batch, hidden), 0.4) for name in outputs[1:]]
    chosen = found[0] if g.chance(50) else g.pick(found)
    if chosen.rank == 4 and g.chance(60):  # as exporters do: directions beside each other
        turned = g.op("Transpose", [chosen], (time, batch, count, hidden), perm=[0, 2, 1, 3])
        return g.op("Reshape", [turned, g.ints(0, 0, -1)], (time, batch, count * hidden))
    return chosen


def _state(g: Grower, x: Tensor, shape: tuple[int, ...]) -> str:
    live = g.partner(lambda y: y.shape == shape)
    if live is not None:
        return live.name
    if not is_free(shape[1]):
        return g.weight(*shape)
    told = g.shape_of(x)
    batch = g.live_size(told, 1)
    (target,) = g.node("Concat", [g.ints(shape[0]), batch, g.ints(shape[2])], axis=0)
    if g.chance(30):
        return g.node("ConstantOfShape", [target])[0]
    return g.node("Expand", [g.weight(shape[0], 1, shape[2]), target])[0]


def heads(g: Grower, x: Tensor, count: int, each: int) -> Tensor:
    """(batch, length, count * each) from (batch, length, …)."""
    w = g.weight(x.shape[-1], count * each, fan_in=x.shape[-1])
    return g.op("MatMul", [x, w], (*x.shape[:-1], count * each))


def split_heads(g: Grower, x: Tensor, count: int) -> Tensor:
    """(batch, count, length, each)."""
    batch, length, both = x.shape
    target = g.ints(0, 0, count, both // count)
    cut = g.op("Reshape", [x, target], (batch, length, count, both // count))
    return g.op("Transpose", [cut], (batch, count, length, both // count), perm=[0, 2, 1, 3])


@snippet(14)
def multi_head(g: Grower, x: Tensor) -> Tensor | None:
    """Attention out of matrices: heads on an axis of their own, or merged with the batch."""
    if x.rank != 3 or is_free(x.shape[2]) or elements(x.shape[1:2]) > 8:
        return None
    count, each = g.between(2, 4), g.between(2, 4)
    batch, length, _ = x.shape
    y = g.partner(lambda y: y.shape == x.shape) or x
    parts = [split_heads(g, heads(g, t, count, each), count) for t in (x, y, y)]
    if g.chance(30) and not is_free(length):
        flat = g.ints(-1, length, each)
        parts = [g.op("Reshape", [t, flat], (batch * count, length, each)) for t in parts]
    q, k, v = parts
    order = [*range(k.rank - 2), k.rank - 1, k.rank - 2]
    turned = g.op("Transpose", [k], [k.shape[axis] for axis in order], perm=order)
    scores = g.scaled(g.op("MatMul", [q, turned], (*q.shape[:-1], k.shape[-2])), 0.6)
    if g.chance(85):
        scores = g.op("Softmax", [scores], size=0.4, axis=-1)
    z = g.op("MatMul", [scores, v], q.shape, 0.6)
    shape = (batch, count, length, each)
    if z.rank == 3:
        z = g.op("Reshape", [z, g.ints(-1, count, length, each)], shape)
    z = g.op("Transpose", [z], (batch, length, count, each), perm=[0, 2, 1, 3])
    return g.op("Reshape", [z, g.ints(0, 0, -1)], (batch, length, count * each))


@snippet(9)
def attention(g: Grower, x: Tensor) -> Tensor | None:
    """Opset 23: three or four axes, grouped queries, masks, caches."""
    if g.opset < 23 or x.rank != 3 or is_free(x.shape[2]) or elements(x.shape[1:2]) > 12:
        return None
    keys, groups, each = g.between(1, 3), g.between(1, 3), g.pick([2, 3, 4])
    own = g.between(1, 4)
    y = g.partner(lambda y: y.rank == 3 and y.shape == x.shape) or x
    q, k = heads(g, x, keys * groups, each), heads(g, y, keys, each)
    v = heads(g, y, keys, own)
    more: dict[str, Any] = {"is_causal": 1} if g.chance(20) else {}
    more |= {"scale": 0.4} if g.chance(40) else {}
    packed = g.chance(50)
    if packed:
        more |= {"q_num_heads": keys * groups, "kv_num_heads": keys}
    else:
        q = split_heads(g, q, keys * groups)
        k, v = split_heads(g, k, keys), split_heads(g, v, keys)
    operands, length = [q, k, v], x.shape[1]
    outputs = 1
    if not packed and g.chance(20) and not is_free(length):
        cached = [split_heads(g, heads(g, x, keys, size), keys) for size in (each, own)]
        result = g.node("Attention", [*(t.name for t in operands), "", *(t.name for t in cached)],
                        3, **more)  # fmt: skip
        shape = (x.shape[0], keys * groups, length, own)
        past = Tensor(result[2], (x.shape[0], keys, 2 * length, own))
        return past if g.chance(20) else Tensor(result[0], shape)
    names = [tensor.name for tensor in operands]
    if not is_free(length) and g.chance(30):
        names.append(g.constant(g.values(length, length)))
    (name,) = g.node("Attention", names, outputs, **more)
    if packed:
        return Tensor(name, (*x.shape[:2], keys * groups * own))
    return Tensor(name, (x.shape[0], keys * groups, length, own))


@snippet(4)
def rotary(g: Grower, x: Tensor) -> Tensor | None:
    if g.opset < 23 or x.rank != 3 or is_free(x.shape[2]) or x.shape[0] % BATCH:
        return None
    count, each = g.between(1, 4), g.pick([2, 4])
    y = heads(g, x, count, each)
    angles = np.outer(np.arange(12), 1.0 / (1 + np.arange(each // 2))).astype(np.float32)
    caches = [g.constant(np.asarray(f(angles), np.float32)) for f in (np.cos, np.sin)]
    told = g.shape_of(x)
    length = g.node("Squeeze", [g.live_size(told, 1)])[0]
    (steps,) = g.node("Range", [g.constant(np.array(0)), length, g.constant(np.array(1))])
    (target,) = g.node("Slice", [told, g.ints(0), g.ints(2)])
    (places,) = g.node("Expand", [steps, target])
    if g.chance(50):
        return g.op("RotaryEmbedding", [y, *caches, places], num_heads=count)
    return g.op("RotaryEmbedding", [split_heads(g, y, count), *caches, places])
