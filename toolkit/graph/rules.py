"""The rule table: what every operator does to axes, and which sizes it states.

A rule gives the signature of a node (see :mod:`onnxtrim.toolkit.graph.signature`) or a
:class:`Frozen` with the reason for which the engine must leave its axes alone. An operator that is
not in the table freezes what it touches. To add one: a line in the table; a function only if
attributes or ranks decide; a ``resize`` function only if the node states a size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxtrim.toolkit.graph.normalise import constant_array
from onnxtrim.toolkit.graph.reshape import reshape_signature
from onnxtrim.toolkit.graph.resize import Resize, resize_groups, resize_shape, resize_target
from onnxtrim.toolkit.graph.signature import Shape


@dataclass(frozen=True)
class NodeView:
    """A node with the shapes of its operands at the analysis size."""

    node: ir.Node
    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape | None, ...]
    opset: int

    def attribute(self, name: str, default: int) -> int:
        """An integer attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def integers(self, name: str, operand: int | None = None) -> list[int] | None:
        """Integers that are an attribute or, in newer opsets, a constant operand.

        Returns:
            ``None`` if absent.

        Raises:
            NotConstantError: The operand is computed at run time.
        """
        attribute = self.node.attributes.get(name)
        if attribute is not None:
            return list(attribute.as_ints())
        if operand is None or operand >= len(self.node.inputs):
            return None
        value = self.node.inputs[operand]
        if value is None:
            return None
        array = constant_array(value)
        if array is None:
            raise NotConstantError(f"its {name} are computed at run time")
        return [int(item) for item in array.ravel()]

    def rank(self, operand: int = 0) -> int:
        """Number of axes of an input."""
        shape = self.inputs[operand]
        return 0 if shape is None else len(shape)


class NotConstantError(Exception):
    """An operand that decides the rule is not a constant; the node freezes what it touches."""


@dataclass(frozen=True)
class Frozen:
    """The node freezes all that it touches, for this reason."""

    reason: str


@dataclass(frozen=True)
class Joined:
    """The inputs lie one after another on one axis of the output; other axes pass."""

    axis: int


Answer = str | Frozen | Joined


@dataclass(frozen=True)
class Rule:
    """What the engine knows of an operator.

    Attributes:
        answer: Gives the signature of a node.
        sizes: Sizes of letters that occur only in composites.
        resize: Adjusts sizes that the node states, after its tensors were sliced.
        macs: Whether the operator multiplies and accumulates over all its letters.
    """

    answer: Callable[[NodeView], Answer]
    sizes: Callable[[NodeView], Mapping[str, int]] = field(default=lambda view: {})
    resize: Resize | None = None
    macs: bool = False


def _letters(count: int, frozen: Mapping[int, str] | None = None) -> list[str]:
    """One letter per axis; the frozen ones upper case."""
    return [f"F{axis}" if frozen and axis in frozen else f"a{axis}" for axis in range(count)]


def _elementwise(view: NodeView) -> Answer:
    return ", ".join(["x*"] * len(view.inputs)) + " -> x*"


def _conv(view: NodeView) -> Answer:
    if view.attribute("group", 1) == 1:
        return "n c X*, o c K*, o -> n o Q*"
    return "n (g J) X*, (g P) J K*, (g P) -> n (g P) Q*"


def _conv_sizes(view: NodeView) -> Mapping[str, int]:
    groups = view.attribute("group", 1)
    return {"g": groups} if groups > 1 else {}


def _gemm(view: NodeView) -> Answer:
    a = "k m" if view.attribute("transA", 0) else "m k"
    b = "n k" if view.attribute("transB", 0) else "k n"
    c = ("", "n", "m n")[view.rank(2)] if len(view.inputs) > 2 else "_"
    return f"{a}, {b}, {c} -> m n"


def _matmul(view: NodeView) -> Answer:
    a = "k" if view.rank(0) == 1 else "b* m k"
    b = "k" if view.rank(1) == 1 else "b* k n"
    out = [letter for letter, rank in (("m", view.rank(0)), ("n", view.rank(1))) if rank > 1]
    batch = ["b*"] if out else []
    return f"{a}, {b} -> {' '.join(batch + out)}"


def _batch_norm(view: NodeView) -> Answer:
    return "n c d*, c, c, c, c -> n c d*, c, c, c, c"


def _pool(view: NodeView) -> Answer:
    if len([shape for shape in view.outputs if shape is not None]) > 1:
        return Frozen("its indices count across channels")
    return "n c X* -> n c Y*"


def _softmax(view: NodeView) -> Answer:
    rank = view.rank()
    axis = view.attribute("axis", -1 if view.opset >= 13 else 1) % max(rank, 1)
    axes = [axis] if view.opset >= 13 else range(axis, rank)  # older ones flatten the rest
    letters = " ".join(_letters(rank, dict.fromkeys(axes, "")))
    return f"{letters} -> {letters}"


def _layer_norm(view: NodeView) -> Answer:
    rank = view.rank()
    axis = view.attribute("axis", -1) % rank
    letters = _letters(rank, dict.fromkeys(range(axis, rank), ""))
    scale = " ".join(letters[axis:])
    out = " ".join(letters)
    return f"{out}, {scale}, {scale} -> {out}, {out}, {out}"  # of the statistics, frozen axes are 1


def _reduce(view: NodeView) -> Answer:
    rank = view.rank()
    axes = view.integers("axes", 1)
    if not axes:
        if view.attribute("noop_with_empty_axes", 0):
            return "x*, _ -> x*"
        axes = list(range(rank))
    reduced = {axis % rank for axis in axes}
    # A sum is a consumer: its axis may shrink. Any other reduction would change its meaning.
    frozen = {} if view.node.op_type == "ReduceSum" else dict.fromkeys(reduced, "")
    letters = _letters(rank, frozen)
    keep = view.attribute("keepdims", 1)
    out = [
        f"Z{axis}" if axis in reduced else letters[axis]
        for axis in range(rank)
        if keep or axis not in reduced
    ]
    return f"{' '.join(letters)}, _ -> {' '.join(out)}"


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
    left, right = reshape_signature(source, target)
    return f"{left}{rest} -> {right}"


def _concat(view: NodeView) -> Answer:
    return Joined(view.attribute("axis", 0) % view.rank())


_UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Cos Cosh Elu Erf Exp
Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu
Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"""
_BINARY = """Add And BitShift Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod
Mul Or PRelu Pow Sub Sum Where Xor"""
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"
_REDUCTIONS = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare"""

RULES: dict[str, Rule] = {
    **{name: Rule(_elementwise) for name in (_UNARY + " " + _BINARY).split()},
    "CastLike": Rule(lambda view: "x*, _ -> x*"),
    "Clip": Rule(lambda view: "x*, _, _ -> x*"),
    "Dropout": Rule(lambda view: "x*, _, _ -> x*, x*"),
    "Conv": Rule(_conv, sizes=_conv_sizes, resize=resize_groups, macs=True),
    "Gemm": Rule(_gemm, macs=True),
    "MatMul": Rule(_matmul, macs=True),
    "BatchNormalization": Rule(_batch_norm),
    "LayerNormalization": Rule(_layer_norm),
    **{name: Rule(_softmax) for name in ("Softmax", "LogSoftmax", "Hardmax")},
    **{name: Rule(_pool) for name in _POOLS.split()},
    **{name: Rule(_reduce) for name in _REDUCTIONS.split()},
    "Transpose": Rule(_transpose),
    "Reshape": Rule(_view, resize=resize_target),
    **{name: Rule(_view) for name in ("Flatten", "Squeeze", "Unsqueeze")},
    "Concat": Rule(_concat),
    "Shape": Rule(lambda view: "_ -> S", resize=resize_shape),
}


def answer(view: NodeView) -> tuple[Answer, Rule | None]:
    """What the table says of a node; :class:`Frozen` if it says nothing."""
    rule = RULES.get(view.node.op_type) if view.node.domain in ("", "ai.onnx") else None
    if rule is None:
        domain = f"{view.node.domain}." if view.node.domain not in ("", "ai.onnx") else ""
        return Frozen(f"no rule for {domain}{view.node.op_type}"), None
    try:
        return rule.answer(view), rule
    except NotConstantError as reason:
        return Frozen(str(reason)), rule
