"""The rule table: what every operator does to axes, and which sizes it states.

A rule gives the signature of a node (see :mod:`onnxtrim.toolkit.graph.signature`), several if it
has alternatives, or a :class:`Frozen` with the reason for which the engine must leave its axes
alone. An operator that is not in the table freezes what it touches. To add one: a line in the
table; a function only if attributes or ranks decide; a ``resize`` function only if the node states
a size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from onnxtrim.toolkit.graph import resize, splice
from onnxtrim.toolkit.graph.node import (
    Answer,
    Frozen,
    NodeView,
    NotConstantError,
    Rule,
)
from onnxtrim.toolkit.graph.reshape import reshape_signatures
from onnxtrim.toolkit.graph.signature import Binding
from onnxtrim.toolkit.graph.values import constant_array


def _letters(count: int, frozen: Iterable[int] = ()) -> list[str]:
    """One letter per axis; the frozen ones upper case."""
    frozen = set(frozen)
    return [f"F{axis}" if axis in frozen else f"a{axis}" for axis in range(count)]


def _both(view: NodeView, letters: list[str]) -> str:
    """The first input and every output have these axes; other inputs are not looked at."""
    text = " ".join(letters)
    outputs = ", ".join([text] * max(len(view.outputs), 1))
    return f"{text}{', _' * (len(view.inputs) - 1)} -> {outputs}"


def _freeze(view: NodeView, axes: Iterable[int]) -> str:
    """Everything passes but some axes."""
    rank = view.rank()
    return _both(view, _letters(rank, (axis % max(rank, 1) for axis in axes)))


def _elementwise(view: NodeView) -> Answer:
    return ", ".join(["x*"] * len(view.inputs)) + " -> x*"


def _first(view: NodeView) -> Answer:
    return f"x*{', _' * (len(view.inputs) - 1)} -> {', '.join(['x*'] * max(len(view.outputs), 1))}"


def _conv(view: NodeView) -> Answer:
    if view.attribute("group", 1) == 1:
        return "n c X*, o c K*, o -> n o Q*"
    outer = "n (g J) X*, (g P) J K*, (g P) -> n (g P) Q*"  # whole groups
    inner = "n (G j) X*, (G p) j K*, (G p) -> n (G p) Q*"  # the same channel of every group
    return outer, inner


def _conv_transpose(view: NodeView) -> Answer:
    if view.attribute("group", 1) == 1:
        return "n c X*, c o K*, o -> n o Q*"
    outer = "n (g J) X*, (g J) P K*, (g P) -> n (g P) Q*"
    inner = "n (G j) X*, (G j) p K*, (G p) -> n (G p) Q*"
    return outer, inner


def _conv_sizes(view: NodeView) -> Mapping[str, int]:
    groups = view.attribute("group", 1)
    return {"g": groups, "G": groups} if groups > 1 else {}


def _gemm(view: NodeView) -> Answer:
    a = "k m" if view.attribute("transA", 0) else "m k"
    b = "n k" if view.attribute("transB", 0) else "k n"
    c = ("", "n", "m n")[view.rank(2)] if view.has(2) else "_"
    return f"{a}, {b}, {c} -> m n"


def _matmul(view: NodeView) -> Answer:
    a = "k" if view.rank(0) == 1 else "b* m k"
    b = "k" if view.rank(1) == 1 else "b* k n"
    out = [letter for letter, rank in (("m", view.rank(0)), ("n", view.rank(1))) if rank > 1]
    batch = ["b*"] if out else []
    return f"{a}, {b} -> {' '.join(batch + out)}"


def _einsum(view: NodeView) -> Answer:
    equation = view.text("equation", "").replace(" ", "")
    if any(letter.isupper() for letter in equation):
        return Frozen("its equation has upper-case letters")
    left, arrow, right = equation.partition("->")
    if not arrow:  # implicit: letters that occur once, in alphabetic order
        once = sorted(c for c in set(left) - set(",.") if left.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    operands = left.split(",")
    if any(len(set(word) - {"."}) < len(word.replace(".", "")) for word in (*operands, right)):
        return Frozen("it takes a diagonal")

    def axes(word: str) -> str:
        return " ".join(word.replace("...", "?")).replace("?", "z9*")

    return f"{', '.join(axes(word) for word in operands)} -> {axes(right)}"


def _batch_norm(view: NodeView) -> Answer:
    outputs = ["n c d*", *["c"] * 4][: max(len(view.outputs), 1)]
    return f"n c d*, c, c, c, c -> {', '.join(outputs)}"


def _group_norm(view: NodeView) -> Answer:
    per_channel = view.opset >= 21 or view.inputs[1] == (view.inputs[0] or (0, 0))[1:2]
    scale = "(g J)" if per_channel else "g"
    return f"n (g J) X*, {scale}, {scale} -> n (g J) X*"


def _norm(view: NodeView) -> Answer:
    rank = view.rank()
    axis = view.attribute("axis", -1) % rank
    letters = _letters(rank, range(axis, rank))
    scale = " ".join(letters[axis:])
    outputs = ", ".join([" ".join(letters)] * max(len(view.outputs), 1))
    scales = f", {scale}" * (len(view.inputs) - 1)
    return f"{' '.join(letters)}{scales} -> {outputs}"  # of the statistics, frozen axes are 1


def _mean_variance(view: NodeView) -> Answer:
    return _freeze(view, view.integers("axes") or [0, 2, 3])


def _pool(view: NodeView) -> Answer:
    if len([shape for shape in view.outputs if shape is not None]) > 1:
        return Frozen("its indices count across channels")
    return "n c X* -> n c Y*"


def _softmax(view: NodeView) -> Answer:
    axis = view.attribute("axis", -1 if view.opset >= 13 else 1) % max(view.rank(), 1)
    return _freeze(view, [axis] if view.opset >= 13 else range(axis, view.rank()))


def _axis(default: int) -> Callable[[NodeView], Answer]:
    """One axis stays."""
    return lambda view: _freeze(view, [view.attribute("axis", default)])


def _cumsum(view: NodeView) -> Answer:
    axis = view.constant(1, "axis")
    return _freeze(view, [] if axis is None else [int(axis.item())])


def _top_k(view: NodeView) -> Answer:
    rank = view.rank()
    letters = _letters(rank, [view.attribute("axis", -1) % rank])
    out = " ".join(letter.replace("F", "K") for letter in letters)
    return f"{' '.join(letters)}{', _' * (len(view.inputs) - 1)} -> {out}, {out}"


def _reduced(view: NodeView, axes: Iterable[int], *, consumer: bool = False) -> str:
    """A reduction; a consumer's axes may shrink."""
    rank, reduced = view.rank(), set(axes)
    letters = _letters(rank, () if consumer else reduced)
    keep = view.attribute("keepdims", 1)
    out = [
        f"Z{axis}" if axis in reduced else letters[axis]
        for axis in range(rank)
        if keep or axis not in reduced
    ]
    return f"{' '.join(letters)}{', _' * (len(view.inputs) - 1)} -> {' '.join(out)}"


def _reduce(view: NodeView) -> Answer:
    axes = view.integers("axes", 1)
    if not axes:
        if view.attribute("noop_with_empty_axes", 0):
            return _first(view)
        axes = list(range(view.rank()))
    # A sum is a consumer. Others would change their meaning, even where zero is neutral.
    reduced = {axis % view.rank() for axis in axes} if view.rank() else set()
    return _reduced(view, reduced, consumer=view.node.op_type == "ReduceSum")


def _arg(view: NodeView) -> Answer:
    return _reduced(view, [view.attribute("axis", 0) % view.rank()])


def _transpose(view: NodeView) -> Answer:
    rank = view.rank()
    order = view.integers("perm") or list(reversed(range(rank)))
    letters = _letters(rank)
    return f"{' '.join(letters)} -> {' '.join(letters[axis] for axis in order)}"


def _view(view: NodeView) -> Answer:
    source, target = view.inputs[0], view.outputs[0]
    if source is None or target is None:
        return Frozen("its shape is not known")
    rest = ", _" * (len(view.inputs) - 1)
    found = reshape_signatures(source, target, view.at_other_inputs())
    return tuple(f"{left}{rest} -> {right}" for left, right in found)


def _made(view: NodeView, axis: int) -> str:
    """The letter of an axis that the node makes; it stays if the inputs decide its size."""
    varying = bool(view.varying) and axis in view.varying[0]
    return f"V{axis}" if varying else f"v{axis}"


def _expand(view: NodeView) -> Answer:
    source, target = view.inputs[0], view.outputs[0]
    if source is None or target is None:
        return Frozen("its shape is not known")
    shift = len(target) - len(source)
    left = [f"a{axis + shift}" for axis in range(len(source))]
    right = [
        _made(view, axis) if axis < shift or source[axis - shift] == 1 else f"a{axis}"
        for axis in range(len(target))
    ]
    return f"{' '.join(left)}, _ -> {' '.join(right)}"


def _constant_of_shape(view: NodeView) -> Answer:
    target = view.outputs[0]
    if target is None:
        return Frozen("its shape is not known")
    return f"_ -> {' '.join(_made(view, axis) for axis in range(len(target)))}"


def _tile(view: NodeView) -> Answer:
    source, target = view.inputs[0], view.outputs[0]
    if source is None or target is None:
        return Frozen("its shape is not known")
    left = [f"a{axis}" for axis in range(len(source))]
    right = [
        f"a{axis}" if a == b else f"V{axis}" if a == 1 else f"(R{axis} a{axis})"
        for axis, (a, b) in enumerate(zip(source, target, strict=True))
    ]
    return f"{' '.join(left)}{', _' * (len(view.inputs) - 1)} -> {' '.join(right)}"


def _resize(view: NodeView) -> Answer:
    source, target = view.inputs[0], view.outputs[0]
    if source is None or target is None:
        return Frozen("its shape is not known")
    changed = [axis for axis, size in enumerate(source) if size != target[axis]]
    limited = view.integers("axes") or []
    stated = limited if view.has(3) and constant_array(view.node.inputs[3]) is None else []
    left = _letters(len(source), {*changed, *_cropped(view), *(k % len(source) for k in stated)})
    right = [letter.replace("F", "Q") for letter in left]
    return f"{' '.join(left)}{', _' * (len(view.inputs) - 1)} -> {' '.join(right)}"


def _cropped(view: NodeView) -> list[int]:
    """Axes of which Resize takes a part, even if it makes it as large as the whole."""
    if view.text("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return []
    axes = view.integers("axes") or list(range(view.rank()))
    roi = view.constant(1, "regions")
    bounds = zip(axes, [] if roi is None else roi.reshape(2, -1).T.tolist(), strict=False)
    return [axis % view.rank() for axis, part in bounds if part != [0.0, 1.0]]


def _depth_to_space(view: NodeView) -> Answer:
    if view.text("mode", "DCR") == "CRD":
        return "n (c P Q) H W -> n c U V"
    return "n (P Q c) H W -> n c U V"


def _block_sizes(view: NodeView) -> Mapping[str, int]:
    size = view.attribute("blocksize", 1)
    return {"P": size, "Q": size}


def _gather_elements(view: NodeView) -> Answer:
    data, indices = view.inputs[0] or (), view.inputs[1] or ()
    axis = view.attribute("axis", 0) % max(len(data), 1)
    other = [k for k in range(len(data)) if k == axis or data[k] != indices[k]]
    left = _letters(len(data), other)
    right = [letter.replace("F", "I") for letter in left]
    return f"{' '.join(left)}, {' '.join(right)} -> {' '.join(right)}"


def _one_hot(view: NodeView) -> Answer:
    rank = view.rank()
    letters = _letters(rank)
    out = list(letters)
    out.insert(view.attribute("axis", -1) % (rank + 1), "D")
    return f"{' '.join(letters)}, _, _ -> {' '.join(out)}"


def _quantize(view: NodeView) -> Answer:
    """Quantisation per tensor, per axis, or in blocks."""
    rank, scale = view.rank(0), view.rank(1)
    if scale == 1 and (view.inputs[1] or (1,))[0] > 1:
        letters = _letters(rank)
        tied = letters[view.attribute("axis", 1) % rank]
    elif scale > 1:
        shape = (view.inputs[0] or (), view.inputs[1] or ())
        letters = _letters(rank, [k for k in range(rank) if shape[0][k] != shape[1][k]])
        tied = " ".join(letter.replace("F", "B") for letter in letters)
    else:
        letters, tied = _letters(rank), "_"
    rest = f", {tied}" * (len(view.inputs) - 1)
    return f"{' '.join(letters)}{rest} -> {' '.join(letters)}"


def _recurrent(view: NodeView) -> Answer:
    """Gates are blocks of h in W, R and B; R's last axis is h again, and read.

    Every step needs the one before, so time stays.
    """
    sequence, state = ("b T i", "b D h") if view.attribute("layout", 0) else ("T b i", "D b h")
    output = "b T D h" if view.attribute("layout", 0) else "T D b h"
    operands = [sequence, "D (A h) i", "D (A h) h'", "D (E h)", "b", state, state, "D (L h)"]
    count = len(view.inputs)
    outputs = [output, state, state][: max(len(view.outputs), 1)]
    return f"{', '.join(operands[:count])} -> {', '.join(outputs)}"


def _recurrent_macs(binding: Binding) -> int:
    sizes = [binding.sizes.get(letter, 1) for letter in "TbDAh"]
    return math.prod(sizes) * (binding.sizes["i"] + binding.sizes["h"])


def _attention(view: NodeView) -> Answer:
    """Opset 23, in four axes or with heads and head dimensions packed into the last one.

    With grouped queries, the query heads of one key head lie side by side.
    """
    masks = {2: "S M", 3: "(h G) S M", 4: "n (h G) S M"}
    past = ["n h T d", "n h T e"] if view.has(4) else ["_", "_"]
    more = [masks.get(view.rank(3), "_"), *past, "n"][: len(view.inputs) - 3]
    rest = "".join(f", {operand}" for operand in more)
    told = ["n h U d", "n h U e", "n (h G) S U"][: len(view.outputs) - 1]
    if view.rank() == 4:
        query = (
            "n (h G) S d'" if told else "n (h G) S d"
        )  # the product reads what passes to a cache
        out = ["n (h G) S e", *told]
        return f"{query}, n h K d, n h K e{rest} -> {', '.join(out)}"
    heads = "n S (h G D), n K (h D), n K (h E)"
    if view.has(4) or told:
        sides = f"{rest} -> {', '.join(['n S (h G E)', *told])}"
        return heads + sides.replace(" d", " D").replace(" e", " E")
    inner = f"n S (H G d), n K (H d), n K (H e){rest.replace('h', 'H')} -> n S (H G e)"
    return f"{heads}{rest} -> n S (h G E)", inner


def _attention_sizes(view: NodeView) -> Mapping[str, int]:
    query, key = view.inputs[0] or (), view.inputs[1] or ()
    if view.rank() == 4:
        return {"G": query[1] // key[1]}
    heads = view.attribute("q_num_heads", 1), view.attribute("kv_num_heads", 1)
    return {"h": heads[1], "H": heads[1], "G": heads[0] // heads[1]}


def _attention_macs(binding: Binding) -> int:
    size = binding.sizes
    heads = max(size.get("h", 1), size.get("H", 1)) * size.get("G", 1)
    widths = sum(max(size.get(a, 1), size.get(a.upper(), 1)) for a in "de")
    return size.get("n", 1) * heads * size.get("S", 1) * size.get("K", 1) * widths


def _rotary(view: NodeView) -> Answer:
    letters = "n h S D" if view.rank() == 4 else "n S (h D)"
    cache = "n S R" if view.rank(1) == 3 else "P R"
    operands = [letters, cache, cache, "n S"][: len(view.inputs)]
    return f"{', '.join(operands)} -> {letters}"


def _rotary_sizes(view: NodeView) -> Mapping[str, int]:
    return {} if view.rank() == 4 else {"h": view.attribute("num_heads", 1)}


def _all_letters(binding: Binding) -> int:
    """Every combination of the weight's and the output's axes is one multiply-accumulate."""
    axes = [axis for laid in (*binding.inputs[1:2], *binding.outputs) for axis in laid or ()]
    return math.prod(binding.sizes[letter] for letter in {x for axis in axes for x in axis})


def _of_inputs(binding: Binding) -> int:
    """The same for operators that go over the input's positions (ConvTranspose, Einsum)."""
    axes = [axis for laid in binding.inputs[:2] for axis in laid or ()]
    return math.prod(binding.sizes[letter] for letter in {x for axis in axes for x in axis})


_UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Cos Cosh Elu Erf Exp
Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu
Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"""
_BINARY = """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less
LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor"""
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"
_REDUCTIONS = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare"""

_SPATIAL = "it is a spatial axis or kernel"
_MERGES = "it merges or splits with another axis"
_NORMALISES = "it normalises over this axis"
_MAKES = "it makes this axis"

RULES: dict[str, Rule] = {
    # Pointwise.
    **{name: Rule(_elementwise) for name in (_UNARY + " " + _BINARY).split()},
    **{name: Rule(_first) for name in ("CastLike", "Clip", "Dropout")},
    **{name: Rule(_quantize) for name in ("QuantizeLinear", "DequantizeLinear")},
    # Products.
    "Conv": Rule(_conv, _conv_sizes, resize.resize_groups, _all_letters, _SPATIAL),
    "ConvTranspose": Rule(_conv_transpose, _conv_sizes, resize.resize_groups, _of_inputs, _SPATIAL),
    "Einsum": Rule(_einsum, macs=_of_inputs),
    "Gemm": Rule(_gemm, macs=_all_letters),
    "MatMul": Rule(_matmul, macs=_all_letters),
    # Recurrent nets and attention.
    **{
        name: Rule(_recurrent, resize=resize.resize_hidden, macs=_recurrent_macs)
        for name in ("GRU", "LSTM", "RNN")
    },
    "Attention": Rule(_attention, _attention_sizes, resize.resize_heads, _attention_macs),
    "RotaryEmbedding": Rule(_rotary, _rotary_sizes, resize.resize_rotary),
    # Normalisation.
    "BatchNormalization": Rule(_batch_norm),
    "GroupNormalization": Rule(
        _group_norm,
        lambda view: {"g": view.attribute("num_groups", 1)},
        resize.resize_norm_groups,
        why=_NORMALISES,
    ),
    "InstanceNormalization": Rule(lambda view: "n c X*, c, c -> n c X*", why=_NORMALISES),
    **{name: Rule(_norm, why=_NORMALISES) for name in ("LayerNormalization", "RMSNormalization")},
    "LRN": Rule(lambda view: _freeze(view, [1]), why=_NORMALISES),
    "LpNormalization": Rule(_axis(-1), why=_NORMALISES),
    "MeanVarianceNormalization": Rule(_mean_variance, why=_NORMALISES),
    **{name: Rule(_softmax, why=_NORMALISES) for name in ("Softmax", "LogSoftmax", "Hardmax")},
    # Over an axis.
    **{name: Rule(_arg) for name in ("ArgMax", "ArgMin")},
    "CumSum": Rule(_cumsum),
    "CumProd": Rule(_cumsum),
    "TopK": Rule(_top_k),
    "Trilu": Rule(lambda view: _freeze(view, [-1, -2])),
    **{name: Rule(_reduce) for name in _REDUCTIONS.split()},
    # Images.
    **{name: Rule(_pool, why=_SPATIAL) for name in _POOLS.split()},
    "DepthToSpace": Rule(_depth_to_space, _block_sizes, why=_SPATIAL),
    "GridSample": Rule(lambda view: "n c X*, n Y* T -> n c Y*", why=_SPATIAL),
    "MaxRoiPool": Rule(lambda view: "N c X*, R B -> R c Y*", why=_SPATIAL),
    "Resize": Rule(_resize, resize=resize.resize_sizes, why=_SPATIAL),
    "RoiAlign": Rule(lambda view: "N c X*, R B, R -> R c Y*", why=_SPATIAL),
    "SpaceToDepth": Rule(
        lambda view: "n c H W -> n (P Q c) U V",
        _block_sizes,
        why=_SPATIAL,
    ),
    "Upsample": Rule(_resize, why=_SPATIAL),
    # Shapes.
    "ConstantOfShape": Rule(_constant_of_shape, resize=resize.resize_target(0), why=_MAKES),
    "Expand": Rule(_expand, resize=resize.resize_target(1), why=_MAKES),
    "Flatten": Rule(_view, why=_MERGES),
    "Reshape": Rule(_view, resize=resize.resize_reshape, why=_MERGES),
    "Shape": Rule(lambda view: "_ -> S", resize=resize.resize_shape),
    "Size": Rule(lambda view: "X* ->", why="its size is computed with"),
    "Squeeze": Rule(_view, resize=resize.state_axes, why=_MERGES),
    "Tile": Rule(_tile, why=_MAKES),
    "Transpose": Rule(_transpose),
    "Unsqueeze": Rule(_view, why=_MERGES),
    # Cut, join, select.
    "Concat": Rule(splice.concat),
    "Gather": Rule(splice.gather, resize=splice.cut_gather, why="its indices look into this axis"),
    "GatherElements": Rule(_gather_elements, why="its indices look into this axis"),
    "GatherND": Rule(splice.gather_nd, resize=splice.cut_gather),
    "OneHot": Rule(_one_hot, why=_MAKES),
    "Pad": Rule(splice.pad, resize=splice.cut_pad, why="it is padded with copies of itself"),
    "Slice": Rule(splice.slice_, resize=splice.cut_slice, why="its bounds are computed"),
    "Split": Rule(splice.split, resize=splice.cut_split),
    # Numbers without units.
    "Range": Rule(lambda view: "_, _, _ -> N", why=_MAKES),
}

_INTEGER = """ConvInteger MatMulInteger QLinearConv QLinearMatMul DynamicQuantizeLinear QLinearAdd
QLinearMul QGemm QAttention DynamicQuantizeMatMul MatMulIntegerToFloat QLinearGlobalAveragePool
QLinearConcat QLinearSigmoid QLinearLeakyRelu QLinearAveragePool DynamicQuantizeLSTM QMoE
MatMulNBits""".split()
_BODIES = ("If", "Loop", "Scan", "SequenceMap")


def answer(view: NodeView) -> tuple[Answer, Rule | None]:
    """What the table says of a node; :class:`Frozen` if it says nothing."""
    operator, domain = view.node.op_type, view.node.domain
    rule = RULES.get(operator) if domain in ("", "ai.onnx") else None
    if rule is None:
        return Frozen(_unknown(operator, domain)), None
    try:
        return rule.answer(view), rule
    except NotConstantError as reason:
        return Frozen(str(reason)), rule


def _unknown(operator: str, domain: str) -> str:
    name = operator if domain in ("", "ai.onnx") else f"{domain}.{operator}"
    if operator in _INTEGER:
        return f"no rule for {name}; prune the float model, then quantise it"
    if operator in _BODIES:
        return f"{operator} has a body, and what the body reads stays"
    if domain == "com.microsoft":
        return f"no rule for {name}; prune the model before it is optimised for ONNX Runtime"
    return f"no rule for {name}"
