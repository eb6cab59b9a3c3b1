"""Regression of one convolution or product of matrices for the sequential repair.

The weight is the ridge regression of the original's outputs on the patches of the pruned inputs
(the input elements under the kernel), drawn towards the weight that it has. Where the output is
added to another tensor, as at the end of a residual block, the target is what the *sum* must be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.cut import Cut
from onnxtrim.toolkit.elimination import Vector
from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.execute import Feeds
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.labels import Index
from onnxtrim.toolkit.graph.values import constant_array
from onnxtrim.toolkit.patches import Rows, Window, window_of
from onnxtrim.toolkit.readers import Reader
from onnxtrim.toolkit.repair import Repaired, add_to_output
from onnxtrim.toolkit.ridge import ROWS, UNKNOWNS, Sums, best_fit, rows_wanted

_MOVES_LITTLE = 1e-2  # of the largest: channels that hardly reach the sum can't correct it


@dataclass
class Product:
    """One reader with what is known of the original.

    Attributes:
        reader: The reader.
        window: Its window.
        output: Name of the output in the original.
        other: Name of the tensor that the output is added to; empty for none.
        towards: What a channel of the output must add for that sum to be larger by one.
        bias: The constant of the original's output that its node does not hold.
        kept: Which positions of its input stay.
        out: Which channels of its output stay.
        index: For every batch the sampled elements.
        shape: For every batch the shape of the output without its channels.
        target: For every batch what the output must be, without what ``other`` takes.
    """

    reader: Reader
    window: Window
    output: str
    other: str
    towards: Vector
    bias: NDArray[np.float32]
    kept: NDArray[np.bool_]
    out: NDArray[np.bool_]
    index: list[Index] = field(default_factory=list)
    shape: list[tuple[int, ...]] = field(default_factory=list)
    target: list[Rows] = field(default_factory=list)

    @property
    def node(self) -> str:
        """Name of the node."""
        return self.reader.node

    @property
    def names(self) -> list[str]:
        """Tensors of the original to look at."""
        return [name for name in (self.output, self.other) if name]

    def see(self, found: Feeds, batches: int, rng: np.random.Generator) -> None:
        """Sample the output on one batch of the original."""
        window, output = self.window, found[self.output]
        shape = tuple(np.delete(output.shape, window.axis).tolist())
        left = int(self.kept.sum())
        wanted = rows_wanted(
            ROWS * left // self.reader.groups * window.taps, self.reader.outputs, batches
        )
        rows = int(np.prod(shape))
        index = rng.choice(rows, min(rows, wanted), replace=False)
        target = window.outputs(output, index) + self.bias
        if self.other:
            target = target + window.outputs(found[self.other], index) * self.towards
        self.index.append(index)
        self.shape.append(shape)
        self.target.append(target[:, self.out])

    def fit(self, analysis: Analysis, result: Repaired, cut: Cut) -> None:
        """Solve the reader and write it into the repaired model."""
        reader, taps = self.reader, self.window.taps
        node = next(node for node in result.model.graph if node.name == reader.node)
        blocks = reader.blocks(result.model)
        outputs = len(self.out)
        bias = np.broadcast_to(_bias(node, self), (outputs,)).astype(np.float64)
        rows = [np.flatnonzero(self.kept[at]) for at, _ in blocks]
        columns = np.split(np.arange(outputs), reader.groups)
        kept = [np.flatnonzero(self.out[part]) for part in columns]
        halves = [
            [Sums(len(r) * taps + 1, len(c)) for r, c in zip(rows, kept, strict=True)]
            for _ in range(2)
        ]
        self._gather(cut, halves)
        delta = np.zeros(outputs)
        for number, (at, matrix) in enumerate(blocks):
            pick = np.ix_(rows[number], kept[number])
            whole = matrix.reshape(len(at), len(columns[number]), taps)
            start = whole[pick].transpose(0, 2, 1).reshape(-1, len(kept[number]))
            at_columns = columns[number][kept[number]]
            start = np.vstack([start, bias[at_columns]])
            found = best_fit(start, halves[0][number], halves[1][number])
            delta[at_columns] = found[-1] - bias[at_columns]
            shape = (len(rows[number]), taps, len(kept[number]))
            whole[pick] = found[:-1].reshape(shape).transpose(0, 2, 1)
            blocks[number] = at, whole.reshape(matrix.shape)
        reader.set_blocks(result.model, blocks)
        if delta.any():
            add_to_output(result, analysis, node, delta, reader.weight.dtype(result.model))
        self.target.clear()

    def _gather(self, cut: Cut, halves: Sequence[Sequence[Sums]]) -> None:
        """Sums over the pruned model's patches and the targets."""
        names = [self.reader.point[0], *([self.other] if self.other else [])]
        towards = self.towards[self.out] if len(self.towards) > 1 else self.towards
        for number, found in enumerate(cut.tensors(names)):
            index, target = self.index[number], self.target[number]
            if self.other:
                shift = self.window.outputs(found[self.other], index) * towards
                target = (target - shift).astype(np.float32)
            source = found[self.reader.point[0]]
            patches = self.window.inputs(source, index, self.shape[number])
            _add(halves[number % 2], patches, target)


def find_product(
    analysis: Analysis,
    reader: Reader,
    node: ir.Node,
    stays: Positions,
    reached: set[str],
    waiting: set[str],
    constants: set[str],
) -> Product | None:
    """The task of a reader; ``None`` if it need not or can't be fitted.

    Args:
        analysis: The groups.
        reader: The reader.
        node: Its node.
        stays: For every axis that lost positions, which of them stay.
        reached: Tensors that lose positions, or are computed from such.
        waiting: Nodes that are fitted at the same time or later.
        constants: Values that are computed of nothing but constants.
    """
    shapes = analysis.normalised.shapes
    window, source = window_of(node, shapes), node.inputs[0]
    if window is None or source is None or (source.name, window.axis) != reader.point:
        return None
    kept = stays.get(reader.point, np.ones(reader.size, np.bool_))
    if int(kept.sum()) // reader.groups * window.taps > UNKNOWNS:
        return None
    other, factor = _sum(node, window.axis, shapes, waiting, constants)
    if source.name not in reached and other not in reached:
        return None
    output = node.outputs[0].name or ""
    channels = shapes[output][window.axis]
    return Product(
        reader,
        window,
        output,
        other,
        _inverse(factor),
        _constant(node, reader),
        kept,
        stays.get((output, window.axis), np.ones(channels, np.bool_)),
    )


def _inverse(factor: Vector) -> Vector:
    usable = np.abs(factor) > _MOVES_LITTLE * np.abs(factor).max()
    return np.where(usable, 1 / np.where(usable, factor, 1.0), 0.0)


def _sum(
    node: ir.Node,
    axis: int,
    shapes: Mapping[str, tuple[int, ...]],
    waiting: set[str],
    constants: set[str],
) -> tuple[str, Vector]:
    """The tensor that a node's output is added to, and the factor on the way; empty for none.

    That tensor must have the shape of the sum, and be final: nothing that it depends on may be
    fitted later.
    """
    nothing = "", np.ones(1)
    factor = np.ones(1)
    value = node.outputs[0]
    while True:
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return nothing
        user = uses[0].node
        if user.op_type == "BatchNormalization":
            scale, _, _, variance = (constant_array(operand) for operand in user.inputs[1:5])
            if scale is None or variance is None or axis != 1:
                return nothing
            epsilon = (
                user.attributes["epsilon"].as_float() if "epsilon" in user.attributes else 1e-5
            )
            factor = factor * (scale / np.sqrt(variance + epsilon)).astype(np.float64)
        elif user.op_type == "Add":
            other = user.inputs[1 - uses[0].idx]
            if other is None:
                return nothing
            if other.name not in constants:
                added = value, other, user.outputs[0]
                same = len({shapes.get(part.name or "") for part in added}) == 1
                final = same and not _depends_on(other, waiting)
                return (other.name or "", factor) if final else nothing
        elif user.op_type != "Identity":
            return nothing
        value = user.outputs[0]


def _depends_on(value: ir.Value, nodes: set[str]) -> bool:
    waiting, seen = [value], set()
    while waiting:
        node = waiting.pop().producer()
        if node is None or node in seen:
            continue
        if node.name in nodes:
            return True
        seen.add(node)
        waiting += [operand for operand in node.inputs if operand is not None]
    return False


def _constant(node: ir.Node, reader: Reader) -> NDArray[np.float32]:
    """What is added after a product of matrices, which has no bias of its own."""
    if node.op_type == "MatMul":
        uses = list(node.outputs[0].uses())
        if len(uses) == 1 and uses[0].node.op_type == "Add":
            array = constant_array(uses[0].node.inputs[1 - uses[0].idx])
            if array is not None and array.shape == (reader.outputs,):
                return array.astype(np.float32)
    return np.zeros(1, np.float32)


def _bias(node: ir.Node, task: Product) -> NDArray[np.float32]:
    """The whole constant of the output, per channel."""
    if node.op_type == "MatMul":
        return _constant(node, task.reader)
    array = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    return np.zeros(1, np.float32) if array is None else array.reshape(-1).astype(np.float32)


def _add(sums: Sequence[Sums], patches: Rows, target: Rows) -> None:
    ones = np.ones((len(patches), 1), np.float32)
    inputs = np.split(patches, len(sums), axis=1)
    outputs = np.split(target, len(sums), axis=1)
    for part, x, y in zip(sums, inputs, outputs, strict=True):
        part.add(np.hstack([x, ones]), y)
