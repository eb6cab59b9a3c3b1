"""Small models for the tests of the bench room."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = int | str | None


def save_mlp(
    path: Path, widths: Sequence[int], *, batch: Dim = "batch", seed: int = 0, shift: float = 0.0
) -> Path:
    """``x`` → Gemm, Relu, ..., Gemm → ``y``; ``shift`` moves the first weight matrix."""
    generator = np.random.default_rng(seed)
    nodes, weights, tensor = [], [], "x"
    for index, (a, b) in enumerate(itertools.pairwise(widths)):
        weight = (generator.standard_normal((a, b)) / a**0.5).astype(np.float32)
        if index == 0:
            weight += np.float32(shift)
        weights += [
            numpy_helper.from_array(weight, f"w{index}"),
            numpy_helper.from_array(np.zeros(b, np.float32), f"b{index}"),
        ]
        last = index == len(widths) - 2
        nodes.append(
            helper.make_node(
                "Gemm", [tensor, f"w{index}", f"b{index}"], ["y" if last else f"h{index}"]
            )
        )
        tensor = f"r{index}"
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{index}"], [tensor]))
    return save_graph(
        path, nodes, [("x", [batch, widths[0]])], [("y", [batch, widths[-1]])], weights
    )


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, Sequence[Dim]]],
    outputs: Sequence[tuple[str, Sequence[Dim]]],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    dtypes: Mapping[str, int] | None = None,
) -> Path:
    """Save a graph; tensors are float32 unless ``dtypes`` says otherwise."""

    def info(name: str, shape: Sequence[Dim]) -> Any:
        dtype = (dtypes or {}).get(name, TensorProto.FLOAT)
        return helper.make_tensor_value_info(name, dtype, list(shape))

    graph = helper.make_graph(
        list(nodes),
        "graph",
        [info(*item) for item in inputs],
        [info(*item) for item in outputs],
        list(weights),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, str(path))
    return path
