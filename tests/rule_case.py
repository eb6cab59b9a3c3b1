"""One operator whose axes are all alive: what the tests of the rule table are made of.

The operands are tensors ``x · w`` of a scalar input and a weight, so every axis has a producer;
every output is multiplied by a weight ``v`` and summed over all axes, so every axis has a
consumer. What may leave is then exactly what the rule lets through: ``"w0 v1=5"`` says that the
five slices on axis 0 of ``w`` and on axis 1 of ``v`` leave together. All else must stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxtrim.toolkit.graph.execute import Feeds
from tests.nets import Net

FEEDS = [{"x": np.array([value], np.float32)} for value in (0.8, 1.3)]
_SCALAR = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
TYPES = {"float": 1, "uint8": 2, "int32": 6, "int64": 7, "bool": 9, "uint32": 12}


@dataclass(frozen=True)
class Live:
    """An operand that is computed, with a producer on every axis longer than 1."""

    shape: tuple[int, ...]
    low: float = -1.0
    high: float = 1.0
    dtype: str = "float"


@dataclass(frozen=True)
class Weight:
    """A constant of random floats."""

    shape: tuple[int, ...]
    low: float = -1.0
    high: float = 1.0


Operand = Live | Weight | NDArray[Any] | None


def live(*shape: int, low: float = -1.0, high: float = 1.0, dtype: str = "float") -> Live:
    return Live(shape, low, high, dtype)


def positive(*shape: int) -> Live:
    return Live(shape, 0.5, 1.5)


def weight(*shape: int, low: float = -1.0, high: float = 1.0) -> Weight:
    return Weight(shape, low, high)


def ints(*values: int) -> NDArray[Any]:
    return np.array(values, np.int64)


def scalar(value: int) -> NDArray[Any]:
    return np.array(value, np.int64)


def floats(*values: float) -> NDArray[Any]:
    return np.array(values, np.float32)


@dataclass(frozen=True)
class Case:
    """An operator with operands and what must be found.

    Attributes:
        operator: Its name.
        title: What is special here.
        operands: By name; ``None`` for one that is left out.
        groups: What leaves together, as in ``"w0 v0=2; w1 k1=6"``.
        inner: The same for the second stage.
        outputs: Which outputs are read.
        made: How many outputs have a name at least, though nobody may read them.
        shapes: Of the outputs, if ONNX can't infer them.
        blind: The removal need not change the sum: whole numbers, maxima.
        middle: All groups of the alternatives between the first and the last.
        shared: Operands that another node reads too.
    """

    operator: str
    title: str
    operands: Mapping[str, Any]
    groups: str
    inner: str = ""
    opset: int = 22
    outputs: tuple[int, ...] = (0,)
    made: int = 0
    shapes: tuple[tuple[int, ...], ...] = ()
    blind: bool = False
    middle: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.operator}: {self.title}"


@dataclass(frozen=True)
class Whole:
    """A model of its own, for operators that need free dimensions.

    Attributes:
        operator: The operator that it is about.
        title: What is special here.
        build: Makes the model.
        feeds: Inputs of two sizes.
        groups: What leaves together.
        inner: The same for the second stage.
        blind: The removal need not change the outputs.
    """

    operator: str
    title: str
    build: Callable[[], onnx.ModelProto]
    feeds: Sequence[Feeds]
    groups: str
    inner: str = ""
    blind: bool = False


AnyCase = Case | Whole


def one(operator: str, title: str, operands: Mapping[str, Any], groups: str, **more: Any) -> Case:
    """A case; what is no field of it is an attribute of the operator."""
    own = {key: more.pop(key) for key in Case.__dataclass_fields__ if key in more}
    return Case(operator, title, operands, groups, **own, attributes=more)


class _Branch(Net):
    """The part of a model that holds one case."""

    def __init__(self, number: int, case: Case) -> None:
        super().__init__(seed=3)
        self.prefix, self.case = f"{number}.", case

    def constant(self, name: str, array: NDArray[Any]) -> str:
        return super().constant(self.prefix + name, array)

    def op(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"{self.prefix}{operator.lower()}_{len(self.nodes)}"
        return super().op(operator, *inputs, out=out, **attributes)

    def operand(self, name: str, operand: Operand) -> str:
        if operand is None:
            return ""
        if isinstance(operand, np.ndarray):
            return self.constant(name, operand)
        values = self.rng.uniform(operand.low, operand.high, operand.shape).astype(np.float32)
        constant = self.constant(name, values)
        if isinstance(operand, Weight):
            return constant
        h = self.op("Mul", "x", constant)
        if not operand.shape:
            h = self.op("Reshape", h, self.constant("none", np.empty(0, np.int64)))
        if operand.dtype == "bool":
            return self.op("Greater", h, self.constant(f"{name}.at", np.array(0.0, np.float32)))
        return h if operand.dtype == "float" else self.op("Cast", h, to=TYPES[operand.dtype])

    def node(self) -> list[str]:
        """Add the operator; gives the names of its outputs, empty for those that are not read."""
        case = self.case
        inputs = [self.operand(name, operand) for name, operand in case.operands.items()]
        while inputs and not inputs[-1]:
            inputs.pop()
        names = [
            f"{self.prefix}y{k}" if k < case.made or k in case.outputs else ""
            for k in range(max(case.made, *(output + 1 for output in case.outputs)))
        ]
        self.nodes.append(
            helper.make_node(
                case.operator, inputs, names, name=f"{self.prefix}node", **case.attributes
            )
        )
        return [names[k] for k in case.outputs]

    def readers(self) -> list[str]:
        """Other nodes that read the shared operands."""
        of = dict(zip(self.case.operands, self.nodes[-1].input, strict=False))
        floats = [self.op("Cast", of[name], to=TensorProto.FLOAT) for name in self.case.shared]
        return [self.op("ReduceSum", self.op("Abs", h), keepdims=0) for h in floats]

    def read(self, name: str, weight_name: str, shape: tuple[int, ...]) -> str:
        """The sum of the absolute values of an output times a weight: nothing cancels."""
        values = self.rng.uniform(0.5, 1.5, shape).astype(np.float32)
        h = self.op("Cast", name, to=TensorProto.FLOAT)
        h = self.op("Abs", self.op("Mul", h, self.constant(weight_name, values)))
        axes: dict[str, Any] = (
            {"axes": list(range(len(shape)))} if self.case.opset < 13 and shape else {}
        )
        return self.op("ReduceSum", h, keepdims=0, **axes)


def model_of(cases: Sequence[Case]) -> onnx.ModelProto:
    """Operators side by side, each between a scalar input and scalar outputs."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    outputs: list[str] = []
    for number, case in enumerate(cases):
        branch = _Branch(number, case)
        names = branch.node()
        outputs += branch.readers()
        shapes = case.shapes or _inferred(branch, names, case.opset)
        for index, (name, shape) in enumerate(zip(names, shapes, strict=True)):
            outputs.append(branch.read(name, f"v{' abc'[index].strip()}", shape))
        nodes += branch.nodes
        weights += branch.weights
    graph = helper.make_graph(nodes, "net", [_SCALAR], [], weights)
    for name in outputs:
        graph.output.add().CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
    opsets = [helper.make_opsetid("", cases[0].opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _inferred(net: Net, names: Sequence[str], opset: int) -> list[tuple[int, ...]]:
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    graph = helper.make_graph(net.nodes, "net", [_SCALAR], outputs, net.weights)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    found = onnx.shape_inference.infer_shapes(model, data_prop=True, strict_mode=True).graph
    types = [value.type.tensor_type for value in found.output]
    assert all(kind.HasField("shape") for kind in types), "ONNX can't infer it: state shapes="
    return [tuple(dim.dim_value for dim in kind.shape.dim) for kind in types]
