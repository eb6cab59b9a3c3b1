"""From the nodes of a profile back to the layers of the model file.

ONNX Runtime fuses nodes and names the result anew: after a node (``fused fc/MatMulAddFusion``,
``fc_nchwc``) or after its output (``relu_1_nchwc``). What comes of nodes without a name can't be
told apart, so they get one first. Layouts of its own round channels up; counts come from the file.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxtrim.bench.model_checks import graphs
from onnxtrim.bench.model_file import read_model_proto

if TYPE_CHECKING:
    import onnx

_ADDED = re.compile(r"^fused |_token_\d+$|/\w*Fusion\w*/?$")
_BLOCKED = "_nchwc"
_FAR = 4  # nodes between a fused node's output and the node that it is about
_MATRIX = ("Gemm", "MatMul")
_CONV = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Layer:
    """What a profile tells of one node of the model file.

    Attributes:
        name: Name of the node, or of its first output if it has none.
        output: Its first output.
        operator: Its operator in the file.
        kernel: What ONNX Runtime made of it.
        share: Of the kernel time of the model.
        median_us: Kernel time in a run; the profiler's own cost is in it.
        calls: Calls in a run.
        channels: Input and output channels or features, where it has weights.
        shape: Of its first output.
        macs: Multiply-accumulates in a call, for convolutions and matrix products.
        elements: Numbers that a call reads and writes, weights too.
    """

    name: str
    output: str
    operator: str
    kernel: str
    share: float
    median_us: float
    calls: float
    channels: tuple[int, int] | None
    shape: tuple[int, ...]
    macs: int | None
    elements: int

    def to_json(self) -> dict[str, Any]:
        """What of it belongs to one model."""
        return {
            "kernel": self.kernel,
            "share": self.share,
            "median_us": self.median_us,
            "calls": self.calls,
            "channels": self.channels and list(self.channels),
            "shape": list(self.shape),
            "macs": self.macs,
        }


@dataclass(frozen=True)
class Profile:
    """The layers of a model by time.

    Attributes:
        runs: Runs that counted.
        layers: Those that are in the file, most expensive first.
        others: Share of what ONNX Runtime put in (or what could not be traced), by operator.
        total_us: Kernel time of a run.
    """

    runs: int
    layers: tuple[Layer, ...]
    others: dict[str, float]
    total_us: float


def layers_of(model: str | os.PathLike[str], told: Mapping[str, Any]) -> Profile:
    """Trace the nodes of :func:`onnxtrim.bench.profiler.summarise` back to the model file.

    Raises:
        InputError: See ``read_model_proto``.
    """
    source = _Source(read_model_proto(model))
    total = sum(node["median_us"] for node in told["nodes"]) or 1.0
    found: dict[int, list[Mapping[str, Any]]] = {}
    others: dict[str, float] = {}
    for node in sorted(told["nodes"], key=lambda node: -float(node["median_us"])):
        index = source.trace(node["name"], node["operator"])
        if index is None:
            share = node["median_us"] / total
            others[node["operator"]] = others.get(node["operator"], 0.0) + share
        else:
            found.setdefault(index, []).append(node)
    layers = [source.layer(index, parts, total) for index, parts in found.items()]
    layers.sort(key=lambda layer: -layer.share)
    return Profile(told["runs"], tuple(layers), others, total)


def named_copy(model: str | os.PathLike[str], copy: Path) -> bool:
    """Write a copy without external data in which every node has a name, if any has none.

    Returns:
        Whether it was written.

    Raises:
        InputError: See ``read_model_proto``.
    """
    proto = read_model_proto(model)
    nameless = [node for graph in graphs(proto.graph) for node in graph.node if not node.name]
    for node in nameless:
        node.name = made_up_name(node)
    if nameless:
        copy.write_bytes(proto.SerializeToString())
    return bool(nameless)


def made_up_name(node: onnx.NodeProto) -> str:
    """A name for a node without one, the same in both models of a comparison."""
    return f"maker of {next(filter(None, node.output), '')}"


class _Source:
    """The nodes of a model file, found by what ONNX Runtime may call them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._nodes = [node for graph in graphs(model.graph) for node in graph.node]
        self._named: dict[str, int] = {}
        self._makers: dict[str, int] = {}
        for index, node in enumerate(self._nodes):
            self._named.setdefault(node.name or made_up_name(node), index)
            for output in filter(None, node.output):
                self._makers.setdefault(output, index)
        self._weights = {
            tensor.name: tuple(tensor.dims)
            for graph in graphs(model.graph)
            for tensor in graph.initializer
        }
        self._inferred: dict[str, int] | None = None

    def trace(self, name: str, kernel: str) -> int | None:
        """The node that ONNX Runtime's node ``name`` stands for, if it can be told."""
        while (short := _ADDED.sub("", name)) != name:
            name = short
        places = [self._named]
        if name.endswith(_BLOCKED):
            name = name.removesuffix(_BLOCKED)
            places.insert(0, self._makers)
        index = next((place[name] for place in places if name in place), None)
        return self._about(index, kernel)

    def _about(self, index: int | None, kernel: str) -> int | None:
        """The node with the weights, where a kernel is called after the activation behind it."""
        wanted = [op for op in (*_CONV, *_MATRIX) if kernel.removeprefix("Fused") == op]
        if "Gemm" in wanted:
            wanted.append("MatMul")
        level = [] if index is None else [index]
        for _ in range(_FAR if wanted else 0):
            fit = [i for i in level if self._nodes[i].op_type in wanted]
            if fit:
                return fit[0] if len(fit) == 1 else None
            inputs = [name for i in level for name in self._nodes[i].input]
            level = [self._makers[name] for name in dict.fromkeys(inputs) if name in self._makers]
        return index

    def layer(self, index: int, parts: Sequence[Mapping[str, Any]], total: float) -> Layer:
        """What the kernels of one node tell together; shapes are those of the longest."""
        node, main = self._nodes[index], parts[0]
        inputs, shape = [tuple(s) for s in main["inputs"]], tuple(main["output"])
        channels, macs = None, None
        if node.op_type in _CONV:
            weight = self._weights.get(node.input[1]) or (inputs[1] if len(inputs) > 1 else ())
            if len(weight) > 2 and len(shape) == len(weight):
                channels = _conv_channels(node, weight)
                shape = (shape[0], channels[1], *shape[2:])
                macs = _conv_macs(node, weight, inputs[0], shape)
        elif node.op_type in _MATRIX and inputs and inputs[0] and shape:
            # Whichever operand ONNX Runtime reads transposed or has packed away.
            rows = math.prod(shape[:-1])
            inner = math.prod(inputs[0]) // max(rows, 1)
            channels, macs = (inner, shape[-1]), math.prod(shape) * inner
            if len(inputs) < 2 or len(inputs[1]) < 2:
                inputs.append((inner, shape[-1]))
        elif main["name"].endswith(_BLOCKED) and len(shape) > 2:
            real = self._channels(node.output[0])
            inputs = [(s[0], real, *s[2:]) if real and s[1:2] == shape[1:2] else s for s in inputs]
            shape = (shape[0], real or shape[1], *shape[2:])
        time = sum(float(part["median_us"]) for part in parts)
        return Layer(
            name=node.name or node.output[0],
            output=node.output[0],
            operator=node.op_type,
            kernel=main["operator"] + (" NCHWc" if main["name"].endswith(_BLOCKED) else ""),
            share=time / total,
            median_us=time,
            calls=float(main["calls"]),
            channels=channels,
            shape=shape,
            macs=macs,
            elements=sum(math.prod(s) for s in inputs) + math.prod(shape),
        )

    def _channels(self, tensor: str) -> int | None:
        """Size of axis 1 of a tensor, by shape inference."""
        if self._inferred is None:
            import onnx

            try:
                model = onnx.shape_inference.infer_shapes(self._model)
            except Exception:  # its exceptions have no common base; the profile stays as it is
                model = self._model
            self._inferred = {
                info.name: info.type.tensor_type.shape.dim[1].dim_value
                for info in (*model.graph.value_info, *model.graph.output)
                if len(info.type.tensor_type.shape.dim) > 1
            }
        return self._inferred.get(tensor) or None


def _conv_channels(node: onnx.NodeProto, weight: tuple[int, ...]) -> tuple[int, int]:
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if node.op_type == "Conv":
        return weight[1] * groups, weight[0]
    return weight[0], weight[1] * groups


def _conv_macs(
    node: onnx.NodeProto, weight: tuple[int, ...], x: tuple[int, ...], y: tuple[int, ...]
) -> int:
    """Each weight once per position, of the output or (transposed) of the input."""
    positions = y if node.op_type == "Conv" else x
    return math.prod(weight) * positions[0] * math.prod(positions[2:])
