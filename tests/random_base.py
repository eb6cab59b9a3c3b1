"""What grows random graphs: a pool of tensors of known shapes, and nodes added one by one.

Free sizes are written as primes that no fixed size reaches, so that arithmetic on shapes is
ordinary arithmetic: ``BATCH * 4`` is four times the batch, whatever that will be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]

BATCH, TIME = 1009, 1013
SIZES = {"batch": 1, "time": 4}  # at which the model is analysed
MOST_ELEMENTS = 1200  # of a tensor at that size


@dataclass(frozen=True)
class Tensor:
    """A live float tensor.

    Attributes:
        name: Its name.
        shape: Its shape; free sizes are multiples of ``BATCH`` and ``TIME``.
        size: Roughly the size of its elements.
    """

    name: str
    shape: Shape
    size: float = 1.0

    @property
    def rank(self) -> int:
        return len(self.shape)

    def fixed(self, *, least: int = 1) -> list[int]:
        """Axes of a fixed size."""
        return [k for k, size in enumerate(self.shape) if not is_free(size) and size >= least]


def is_free(size: int) -> bool:
    return size >= BATCH


def at(size: int, batch: int = SIZES["batch"], time: int = SIZES["time"]) -> int:
    """A size when the model runs."""
    for prime, value in ((BATCH, batch), (TIME, time)):
        while size % prime == 0 and size:
            size = size // prime * value
    return size


def elements(shape: Iterable[int]) -> int:
    return math.prod(at(size) for size in shape)


class Grower:
    """A graph that grows.

    Args:
        rng: Decides about the structure.
        opset: Version of the operator set.
        wanted: An operator that is preferred where it can be chosen.
    """

    def __init__(self, rng: Random, opset: int, wanted: str = "") -> None:
        self.rng, self.opset, self.wanted = rng, opset, wanted
        self.numbers = np.random.default_rng(rng.getrandbits(32))
        self.lift = rng.choice([0, 50, 100])  # share of constants that are nodes
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[Tensor] = []
        self.pool: list[Tensor] = []
        self._shared: dict[Shape, list[str]] = {}

    # Choices; 0 and "no" are the simplest, to which Hypothesis shrinks.

    def chance(self, percent: int) -> bool:
        return self.rng.randrange(100) >= 100 - percent

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.rng.randrange(len(items))]

    def operator(self, names: Sequence[str]) -> str:
        return self.wanted if self.wanted in names else str(self.pick(names))

    def between(self, low: int, high: int) -> int:
        return self.rng.randint(low, high)

    def some(self, items: Sequence[int], *, least: int = 1) -> list[int]:
        """Some of the items, in order."""
        count = self.between(min(least, len(items)), len(items))
        return sorted(self.rng.sample(list(items), count))

    def divisor(self, size: int) -> int:
        return int(self.pick([k for k in range(1, size + 1) if size % k == 0]))

    def axis(self, axis: int, rank: int) -> int:
        """The same axis, perhaps counted from the end."""
        return axis - rank if self.chance(30) else axis

    def partner(self, fits: Callable[[Tensor], bool]) -> Tensor | None:
        """Another live tensor; the same one if chance wants it."""
        found = [tensor for tensor in self.pool if fits(tensor)]
        return self.pick(found) if found else None

    # Constants.

    def constant(self, array: NDArray[Any], name: str = "") -> str:
        name = name or f"c{len(self.weights) + len(self.nodes)}"
        tensor = numpy_helper.from_array(np.asarray(array), name)
        if self.rng.randrange(100) < self.lift:
            self.nodes.append(
                helper.make_node("Constant", [], [name], name=f"{name}/n", value=tensor)
            )
        else:
            self.weights.append(tensor)
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def values(self, *shape: int, fan_in: int = 1, near: float = 0.0) -> NDArray[np.float32]:
        array = near + self.numbers.standard_normal(shape) / max(fan_in, 1) ** 0.5
        return np.asarray(array, np.float32)

    def weight(self, *shape: int, fan_in: int = 1, near: float = 0.0) -> str:
        """A weight: of its own, one that another node has already, or a transposed one."""
        known = self._shared.setdefault(shape, [])
        if known and self.chance(10):
            return str(self.pick(known))
        turned = len(shape) == 2 and self.chance(15)
        array = self.values(*shape, fan_in=fan_in, near=near)
        name = self.constant(array.T if turned else array)
        if turned:
            name = self.node("Transpose", [name], perm=[1, 0])[0]
        elif len(shape) > 1 and self.chance(6):
            name = self._dequantised(name, array)
        known.append(name)
        return name

    def _dequantised(self, name: str, array: NDArray[np.float32]) -> str:
        """The same weight as 8-bit integers, with a scale for all or for every slice."""
        axis = self.between(0, array.ndim - 1)
        along = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        scale = np.abs(along).max(axis=1) / 127 + 1e-3
        if self.chance(50):
            scale = scale.max(keepdims=False)
        spread = np.reshape(scale, [-1 if k == axis else 1 for k in range(array.ndim)])
        steps = np.clip(np.round(array / spread), -128, 127).astype(np.int8)
        operands = [self.constant(steps), self.constant(np.asarray(scale, np.float32))]
        if self.chance(50):
            operands.append(self.constant(np.zeros(np.shape(scale), np.int8)))
        return self.node("DequantizeLinear", operands, axis=axis)[0]

    def shared(self) -> list[tuple[Shape, list[str]]]:
        """The weights so far, by shape."""
        return list(self._shared.items())

    def attempt(self, function: Snippet, x: Tensor) -> Tensor | Sequence[Tensor] | None:
        """What a snippet makes, if it has the wanted operator; otherwise nothing changes."""
        nodes, weights = len(self.nodes), len(self.weights)
        known = {shape: list(names) for shape, names in self._shared.items()}
        found = function(self, x)
        if found is not None and any(n.op_type == self.wanted for n in self.nodes[nodes:]):
            return found
        del self.nodes[nodes:], self.weights[weights:]
        self._shared = known
        return None

    # Nodes.

    def node(
        self, operator: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any
    ) -> list[str]:
        """Add a node; the names of its outputs."""
        number = len(self.nodes)
        names = [f"{operator.lower()}{number}{'abcdef'[k] if k else ''}" for k in range(outputs)]
        self.nodes.append(
            helper.make_node(operator, inputs, names, name=f"{operator}/{number}", **attributes)
        )
        return names

    def op(
        self,
        operator: str,
        inputs: Sequence[object],  # tensors and names
        shape: Sequence[int] | None = None,
        size: float | None = None,
        **attributes: Any,
    ) -> Tensor:
        """Add a node with one output; like the first input if nothing else is said."""
        names = [item.name if isinstance(item, Tensor) else str(item) for item in inputs]
        (name,) = self.node(operator, names, **attributes)
        first = next((item for item in inputs if isinstance(item, Tensor)), None)
        if shape is None or size is None:
            assert first is not None
            shape = first.shape if shape is None else shape
            size = first.size if size is None else size
        return Tensor(name, tuple(shape), size)

    def to_float(self, name: str, shape: Sequence[int], size: float) -> Tensor:
        """A tensor of another type as a live one."""
        (cast,) = self.node("Cast", [name], to=TensorProto.FLOAT)
        return Tensor(cast, tuple(shape), size)

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        return self.op("Mul", [x, self.scalar(factor)], size=x.size * abs(factor))

    def tame(self, x: Tensor) -> Tensor:
        """Keep values moderate."""
        return x if 0.3 <= x.size <= 3 else self.scaled(x, 1 / max(x.size, 1e-3))

    def positive(self, x: Tensor, least: float = 0.5) -> Tensor:
        return self.op("Add", [self.op("Abs", [x]), self.scalar(least)], size=x.size + least)

    def inside(self, x: Tensor) -> Tensor:
        return self.scaled(self.op("Tanh", [x], size=0.7), 0.9)

    def uneven(self, x: Tensor) -> Tensor:
        """Values that stand nowhere near the jumps of a step function."""
        shifted = self.op("Mul", [x, self.scalar(float(self.numbers.uniform(1.2, 1.9)))])
        offset = self.scalar(float(self.numbers.uniform(0.1, 0.4)))
        return self.op("Add", [shifted, offset], size=1.5 * x.size)

    def axes_operand(self, axes: Sequence[int], since: int) -> tuple[list[str], dict[str, Any]]:
        """Axes as an operand or, before opset ``since``, as an attribute."""
        if self.opset >= since:
            return [self.ints(*axes)], {}
        return [], {"axes": list(axes)}

    def shape_of(self, x: Tensor) -> str:
        return self.node("Shape", [x.name])[0]

    def live_size(self, shape: str, axis: int) -> str:
        """One entry of a shape, as a vector of one."""
        if self.chance(30):
            return self.node("Slice", [shape, self.ints(axis), self.ints(axis + 1)])[0]
        return self.node("Gather", [shape, self.ints(axis)], axis=0)[0]

    def target(self, x: Tensor, shape: Shape) -> str | None:
        """An operand that states a target shape for ``x``; ``None`` if it is too hard to say."""
        entries = [self._stated(x, axis, size) for axis, size in enumerate(shape)]
        unknown = [axis for axis, entry in enumerate(entries) if entry is None]
        if shape and (self.chance(35) or len(unknown) > 1):
            live = self._live_target(x, shape)
            if live is not None:
                return live
        if len(unknown) > 1:
            return None
        stated = [-1 if entry is None else entry for entry in entries]
        if stated and not unknown and self.chance(30):
            stated[self.between(0, len(stated) - 1)] = -1
        return self.ints(*stated)

    def _stated(self, x: Tensor, axis: int, size: int) -> int | None:
        same = axis < x.rank and x.shape[axis] == size
        if is_free(size):
            return 0 if same and not self.chance(25) else None
        return 0 if same and self.chance(40) else size

    def _live_target(self, x: Tensor, shape: Shape) -> str | None:
        """Arithmetic on ``Shape(x)``, as exporters write it."""
        told, parts = self.shape_of(x), []
        for size in shape:
            part = self._live_entry(x, told, size)
            if part is None:
                return None
            parts.append(part)
        return self.node("Concat", parts, axis=0)[0]

    def _live_entry(self, x: Tensor, told: str, size: int) -> str | None:
        if not is_free(size):
            same = [axis for axis, other in enumerate(x.shape) if other == size]
            if same and self.chance(40):
                return self.live_size(told, self.pick(same))
            pairs = [k for k in range(x.rank - 1) if x.shape[k] * x.shape[k + 1] == size]
            if pairs and self.chance(60):
                k = self.pick(pairs)
                return self.node("Mul", [self.live_size(told, k), self.live_size(told, k + 1)])[0]
            return self.ints(size)
        found, product = "", 1
        for axis, other in enumerate(x.shape):
            rest = [prime for prime in (BATCH, TIME) if other % prime == 0]
            if rest and all(size % (product * prime) == 0 for prime in rest):
                part = self.live_size(told, axis)
                found = self.node("Mul", [found, part])[0] if found else part
                product *= other
        if not found:
            return None
        if size % product == 0:
            factor = size // product
            if is_free(factor):
                return None
            return found if factor == 1 else self.node("Mul", [found, self.ints(factor)])[0]
        if product % size == 0 and not is_free(product // size):
            return self.node("Div", [found, self.ints(product // size)])[0]
        return None


Snippet = Callable[[Grower, Tensor], "Tensor | Sequence[Tensor] | None"]
SNIPPETS: list[tuple[int, Snippet]] = []


def snippet(weight: int) -> Callable[[Snippet], Snippet]:
    """Register a way to grow; ``None`` if it does not fit the tensor."""

    def register(function: Snippet) -> Snippet:
        SNIPPETS.append((weight, function))
        return function

    return register


def resized(x: Tensor, axis: int, size: int) -> Shape:
    """The shape of ``x`` with another size on one axis."""
    return (*x.shape[:axis], size, *x.shape[axis + 1 :])
