"""Random models out of all operators of the rule table, for property tests and long runs."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

import tests.random_images
import tests.random_pointwise
import tests.random_products
import tests.random_shapes  # noqa: F401  (all four register their snippets)
from onnxtrim.toolkit.graph.rules import RULES
from tests.random_base import (
    BATCH,
    MOST_ELEMENTS,
    SNIPPETS,
    TIME,
    Grower,
    Shape,
    Snippet,
    Tensor,
    elements,
    is_free,
)
from tests.random_products import convolution, gemm, matmul, width

# Upsample left ONNX with opset 10; the graphs begin with 13.
NOT_DRAWN = frozenset({"Upsample"})
OPSETS = [17, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 23, 23, 24, 26]
IMAGES = frozenset("LRN MeanVarianceNormalization MaxRoiPool RoiAlign GridSample".split()) | {
    "SpaceToDepth",
    "DepthToSpace",
    "GlobalLpPool",
}
WANTED = sorted(RULES.keys() - NOT_DRAWN)
SINCE = {
    "HardSwish": 14, "Trilu": 14, "CastLike": 15, "GridSample": 16, "LayerNormalization": 17,
    "BitwiseAnd": 18, "BitwiseNot": 18, "BitwiseOr": 18, "BitwiseXor": 18, "Mish": 18, "Gelu": 20,
    "GroupNormalization": 21, "Attention": 23, "RMSNormalization": 23, "RotaryEmbedding": 23,
    "Swish": 24, "CumProd": 26,
}  # fmt: skip
UNTIL = {"GlobalLpPool": 21, "MaxRoiPool": 21, "RoiAlign": 21, "Swish": 24}  # in the runtime
_IR_VERSION = 10
_TRIES = 12
_WEIGHTED: list[Snippet] = []


@dataclass(frozen=True)
class RandomModel:
    """A model with the operators that it has; shown node by node."""

    proto: onnx.ModelProto
    operators: frozenset[str]

    def __repr__(self) -> str:
        return str(onnx.printer.to_text(self.proto))


def random_model(rng: Random) -> RandomModel:
    """Grow a model; every choice is taken from ``rng``."""
    wanted = str(rng.choice(WANTED))
    first, last = SINCE.get(wanted, 13), UNTIL.get(wanted, 99)
    g = Grower(rng, int(rng.choice([k for k in OPSETS if first <= k <= last])), wanted)
    for _ in range(1 if g.chance(75) else 2):
        _add_input(g)
    for x in list(g.pool):
        _keep(g, _layer(g, x) or x)
    steps = g.between(1, 6)
    place = g.between(0, steps - 1)
    for step in range(steps):
        if step != place or not _grow_wanted(g):
            _grow(g)
        if g.chance(50):
            _keep(g, _layer(g, g.pool[-1]) or g.pool[-1])
    return RandomModel(_finish(g), frozenset(node.op_type for node in g.nodes))


def random_models(*, shrink: bool = False) -> st.SearchStrategy[RandomModel]:
    """The same as a strategy.

    Args:
        shrink: Hypothesis makes every choice, and makes what fails smaller, which takes minutes.
            Otherwise it chooses a seed, and the operators are spread evenly.
    """
    return st.randoms(use_true_random=not shrink).map(random_model)


def _add_input(g: Grower) -> None:
    batch = BATCH if g.chance(85) else g.between(1, 2)
    if g.inputs:
        batch = g.inputs[0].shape[0]
    rank = 4 if g.wanted in IMAGES else int(g.pick([4, 2, 3, 3, 5]))
    few, many = g.between(2, 4), g.between(3, 8)
    middle = [g.between(2, 4 if rank == 5 else 6) for _ in range(rank - 2)]
    shape = (batch, few, *middle) if g.chance(60) else (batch, *middle, many)
    if rank > 2 and g.wanted not in IMAGES and g.chance(20):
        shape = (batch, TIME, *shape[2:])
    x = Tensor(f"x{len(g.inputs)}", shape)
    g.inputs.append(x)
    g.pool.append(x)


def _layer(g: Grower, x: Tensor) -> Tensor | None:
    """Something with a weight, so that there are units."""
    layers: list[Snippet] = [gemm, convolution, matmul, convolution, matmul]
    for _ in range(_TRIES):
        found = g.pick(layers)(g, x)
        if isinstance(found, Tensor):
            return found
    return None


def _grow(g: Grower) -> None:
    if not _WEIGHTED:
        _WEIGHTED.extend(function for weight, function in SNIPPETS for _ in range(weight))
    inputs = {tensor.name for tensor in g.inputs}
    for _ in range(_TRIES):
        live = [tensor for tensor in g.pool if tensor.name not in inputs] or g.pool
        x = live[-1] if g.chance(60) else g.pick(live[-4:])
        found = g.pick(_WEIGHTED)(g, x)
        if found is not None:
            for tensor in [found] if isinstance(found, Tensor) else found:
                _keep(g, tensor)
            return


def _grow_wanted(g: Grower) -> bool:
    """Spread the operators evenly: each graph tries to have a certain one."""
    functions = [function for _, function in SNIPPETS]
    g.rng.shuffle(functions)
    for x in g.pool[:-4:-1]:
        for function in functions:
            found = g.attempt(function, x)
            if found is not None:
                for tensor in [found] if isinstance(found, Tensor) else found:
                    _keep(g, tensor)
                return True
    return False


def _keep(g: Grower, x: Tensor) -> None:
    if elements(x.shape) <= 2 * MOST_ELEMENTS and x.rank <= 5:
        g.pool.append(g.tame(x))


def _finish(g: Grower) -> onnx.ModelProto:
    """The last tensors become outputs, most of them after one more layer."""
    read = {name for node in g.nodes for name in node.input}
    inputs = {tensor.name for tensor in g.inputs}
    loose = [t for t in g.pool if t.name not in read and t.name not in inputs]
    ends = [(_layer(g, x) if g.chance(85) else None) or _head(g, x) for x in loose[-3:]]
    if g.chance(15):
        ends.append(g.pick(g.pool))
    unique = {tensor.name: tensor for tensor in ends if tensor.name not in inputs}
    outputs = list(unique.values()) or [g.op("Identity", g.inputs[:1])]
    graph = helper.make_graph(
        g.nodes,
        "random",
        [_info(tensor) for tensor in g.inputs],
        [_info(tensor) for tensor in outputs],
        g.weights,
    )
    opsets = [helper.make_opsetid("", g.opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _head(g: Grower, x: Tensor) -> Tensor:
    """A sum over an axis reads units without a weight."""
    if x.rank > 1 and g.chance(40):
        axis = x.rank - 1
        return g.op("ReduceSum", [x, g.ints(axis)], x.shape[:axis], x.size * 2, keepdims=0)
    return x


def _info(tensor: Tensor) -> onnx.ValueInfoProto:
    """Free sizes by name where they have one."""
    names = {BATCH: "batch", TIME: "time"}
    shape: list[int | str | None] = [
        names.get(size) if is_free(size) else size for size in tensor.shape
    ]
    return helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, shape)


__all__ = ["NOT_DRAWN", "RandomModel", "Shape", "random_model", "random_models", "width"]
