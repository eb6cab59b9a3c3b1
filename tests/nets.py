"""A builder of small nets for the tests of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxtrim.toolkit.prepare import Prepared, prepare

Shape = Sequence[int | str]


class Net:
    """Collects nodes; every method returns the name of its output tensor."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, *shape: int, near: float = 0.0) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 4
        array = near + self.rng.standard_normal(shape) / fan_in**0.5
        return self.constant(name, array.astype(np.float32))

    def ints(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def op(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"{operator.lower()}_{len(self.nodes)}"
        node = helper.make_node(operator, list(inputs), [out], name=f"{out}/node", **attributes)
        self.nodes.append(node)
        return out

    def gemm(self, name: str, x: str, a: int, b: int, *, bias: bool = True) -> str:
        operands = [x, self.weight(f"{name}.weight", b, a)]
        if bias:
            operands.append(self.weight(f"{name}.bias", b, near=0.5))
        return self.op("Gemm", *operands, out=name, transB=1)

    def matmul(self, name: str, x: str, a: int, b: int, *, bias: bool = True) -> str:
        product = self.op("MatMul", x, self.weight(f"{name}.weight", a, b), out=f"{name}_mm")
        return (
            self.op("Add", product, self.weight(f"{name}.bias", b, near=0.5)) if bias else product
        )

    def conv(
        self,
        name: str,
        x: str,
        a: int,
        b: int,
        k: int = 3,
        *,
        group: int = 1,
        bias: bool = True,
        pad: bool = True,
        **attributes: Any,
    ) -> str:
        operands = [x, self.weight(f"{name}.weight", b, a // group, k, k)]
        if bias:
            operands.append(self.weight(f"{name}.bias", b, near=0.5))
        pads = [k // 2 if pad else 0] * 4
        return self.op("Conv", *operands, out=name, group=group, pads=pads, **attributes)

    def bn(self, name: str, x: str, size: int) -> str:
        near = {"scale": 1.0, "shift": 0.5, "mean": 0.0}
        operands = [self.weight(f"{name}.{part}", size, near=near[part]) for part in near]
        variance = self.rng.uniform(0.5, 2.0, size).astype(np.float32)
        operands.append(self.constant(f"{name}.var", variance))
        return self.op("BatchNormalization", x, *operands)

    def relu(self, x: str) -> str:
        return self.op("Relu", x)

    def build(
        self,
        y: str | Sequence[str],
        x: Shape | dict[str, Shape],
        *,
        opset: int = 17,
        ir_version: int = 8,
        dtype: int = TensorProto.FLOAT,
    ) -> onnx.ModelProto:
        """The model; the shapes of its outputs are inferred."""
        inputs = x if isinstance(x, dict) else {"x": x}
        outputs = [y] if isinstance(y, str) else list(y)
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(name, dtype, list(s)) for name, s in inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            self.weights,
        )
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for own, found in zip(model.graph.output, inferred.graph.output, strict=True):
            own.CopyFrom(found)
        return model


def prepared(model: onnx.ModelProto, folder: Path, name: str = "net") -> Prepared:
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return prepare(path, sizes={"height": 4, "width": 6})[0]
