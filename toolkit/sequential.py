"""Sequential repair: every reader is fitted to the original's outputs on the pruned inputs.

The readers are taken in the order of the graph. For each, the original gives the outputs ``y`` and
the model pruned and repaired so far gives the inputs ``x̂``; the weight is the ridge regression of
``y`` on the patches of ``x̂`` (the input elements under the kernel), drawn towards the weight that
it has. So each fit also corrects what the ones before left. Where the output is added to another
tensor, as at the end of a residual block, the target is what the *sum* must be.

The rows are a random sample of the outputs' elements. The ridge is the one that does best on the
half of the samples that it was not fitted on; the last fit is on both halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.elimination import Matrix, Vector
from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.execute import Feeds, Prober, WeightFile
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.labels import Index
from onnxtrim.toolkit.graph.surgery import Keep, positions, remove_units
from onnxtrim.toolkit.graph.values import constant_array
from onnxtrim.toolkit.patches import Rows, Window, window_of
from onnxtrim.toolkit.readers import Reader, find_readers
from onnxtrim.toolkit.repair import Repaired, add_to_output
from onnxtrim.toolkit.statistics import Progress

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the mean diagonal; the one with the smallest error on the other half is taken."""

UNKNOWNS = 2400
"""Most coefficients per output; larger readers keep the weight that they have."""

ROWS = 12
"""Rows of patches per coefficient that are wanted in each half."""

LEAST_ROWS = 10_000

_MOVES_LITTLE = 1e-2  # of the largest: channels that hardly reach the sum can't correct it


@dataclass
class _Task:
    """One reader with what is known of the original.

    Attributes:
        reader: The reader.
        window: Its window.
        output: Name of the output in the original.
        other: Name of the tensor that the output is added to; empty for none.
        factor: By what the output is multiplied on its way there, per channel.
        index: For every batch the sampled elements.
        shape: For every batch the shape of the output without its channels.
        target: For every batch what the output must be, without what ``other`` takes.
    """

    reader: Reader
    window: Window
    output: str
    other: str
    factor: Vector
    index: list[Index] = field(default_factory=list)
    shape: list[tuple[int, ...]] = field(default_factory=list)
    target: list[Rows] = field(default_factory=list)


def repair_in_sequence(
    analysis: Analysis,
    keep: Keep,
    repaired: Repaired,
    batches: Sequence[Feeds],
    progress: Progress | None = None,
) -> Repaired:
    """Fit one reader after another.

    Args:
        analysis: The groups.
        keep: For groups that lose units, a mask over their units.
        repaired: The model after channel least squares; it stays as it is.
        batches: Calibration inputs; every second one is for judging.
        progress: Called with a word, how many readers are done, and how many there are.
    """
    result = Repaired(repaired.model.clone(), dict(repaired.new_biases), list(repaired.skipped))
    stays = positions(analysis, keep)
    tasks = _tasks(analysis, stays)
    _look_at_original(analysis, tasks, stays, batches)
    for number, task in enumerate(tasks):
        pruned = remove_units(result.model, analysis, keep, result.new_biases)
        _fit(analysis, result, pruned, task, stays, batches)
        if progress is not None:
            progress("repair", number + 1, len(tasks))
    return result


def _tasks(analysis: Analysis, stays: Positions) -> list[_Task]:
    nodes = {node.name: node for node in analysis.model.graph}
    tasks = []
    readers = [reader for reader in find_readers(analysis) if reader.operator in _FITTED]
    open_nodes = {reader.node for reader in readers}
    for reader in readers:
        node = nodes[reader.node]
        shape = analysis.normalised.shapes[reader.point[0]]
        window = window_of(node, len(shape))
        source = node.inputs[0]
        mask = stays.get(reader.point)
        left = reader.size if mask is None else int(mask.sum())
        if (
            window is not None
            and source is not None
            and (source.name, window.axis) == reader.point
            and left // reader.groups * window.taps <= UNKNOWNS
        ):
            other, factor = _sum(node, window.axis, open_nodes)
            tasks.append(_Task(reader, window, node.outputs[0].name or "", other, factor))
        open_nodes.discard(reader.node)
    return tasks


_FITTED = ("Conv", "Gemm", "MatMul")


def _sum(node: ir.Node, axis: int, open_nodes: set[str]) -> tuple[str, Vector]:
    """The tensor that a node's output is added to, and the factor on the way; empty for none.

    That tensor must be final: nothing that it depends on may be fitted later.
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
            if constant_array(other) is None:
                final = not _depends_on(other, open_nodes)
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


def _look_at_original(
    analysis: Analysis, tasks: Sequence[_Task], stays: Positions, batches: Sequence[Feeds]
) -> None:
    """Sample the outputs of all tasks in one pass."""
    rng = np.random.default_rng(0)
    names = dict.fromkeys(name for task in tasks for name in (task.output, task.other))
    inner = [name for name in names if name and name not in batches[0]]
    probe = Prober(analysis.model, analysis.normalised.weights).probe(inner, optimise=True)
    constants = {task.output: _constant(analysis.model, task) for task in tasks}
    for feeds in batches:
        found = {**feeds, **probe.run(feeds)}
        for task in tasks:
            window, output = task.window, found[task.output]
            shape = tuple(np.delete(output.shape, window.axis).tolist())
            mask = stays.get(task.reader.point)
            left = task.reader.size if mask is None else int(mask.sum())
            wanted = max(LEAST_ROWS, ROWS * left // task.reader.groups * window.taps)
            rows = int(np.prod(shape))
            count = min(rows, -(-2 * wanted // len(batches)))
            index = rng.choice(rows, count, replace=False)
            target = window.outputs(output, index) + constants[task.output]
            if task.other:
                other = window.outputs(found[task.other], index)
                target = target + _towards(other, task.factor)
            out = stays.get((task.output, window.axis))
            task.index.append(index)
            task.shape.append(shape)
            task.target.append(target if out is None else target[:, out])


def _towards(rows: Rows, factor: Vector) -> Rows:
    """What a channel must add for the sum to be larger by ``rows``."""
    usable = np.abs(factor) > _MOVES_LITTLE * np.abs(factor).max()
    return (rows * np.where(usable, 1 / np.where(usable, factor, 1.0), 0.0)).astype(np.float32)


def _constant(model: ir.Model, task: _Task) -> NDArray[np.float32]:
    """What is added after a product of matrices, which has no bias of its own."""
    node = next(node for node in model.graph if node.name == task.reader.node)
    if node.op_type == "MatMul":
        uses = list(node.outputs[0].uses())
        if len(uses) == 1 and uses[0].node.op_type == "Add":
            array = constant_array(uses[0].node.inputs[1 - uses[0].idx])
            if array is not None and array.ndim == 1:
                return array.astype(np.float32)
    return np.zeros(1, np.float32)


def _bias(model: ir.Model, task: _Task) -> NDArray[np.float32]:
    """The whole constant of the output, per channel."""
    node = next(node for node in model.graph if node.name == task.reader.node)
    if node.op_type == "MatMul":
        return _constant(model, task)
    array = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    return np.zeros(1, np.float32) if array is None else array.reshape(-1).astype(np.float32)


class _Sums:
    """Sums of products of patches and targets over one half of the samples."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.inner = np.zeros((inputs, inputs))
        self.cross = np.zeros((inputs, outputs))

    def add(self, patches: Rows, target: Rows) -> None:
        self.inner += patches.T @ patches
        self.cross += patches.T @ target

    def plus(self, other: _Sums) -> _Sums:
        result = _Sums(*self.cross.shape)
        result.inner = self.inner + other.inner
        result.cross = self.cross + other.cross
        return result

    def error(self, weight: Matrix) -> float:
        """Squared error of a weight but for a constant."""
        return float((weight * (self.inner @ weight - 2 * self.cross)).sum())

    def solve(self, start: Matrix, ridge: float) -> Matrix:
        """The ridge regression around a start; the last row is the constant, which is free."""
        diagonal = np.full(len(self.inner), ridge * float(np.trace(self.inner)) / len(self.inner))
        diagonal[-1] *= 1e-6
        rest = self.cross - self.inner @ start
        step = np.linalg.solve(self.inner + np.diag(diagonal + 1e-12), rest)
        return np.asarray(start + step, np.float64)


def _fit(
    analysis: Analysis,
    result: Repaired,
    pruned: ir.Model,
    task: _Task,
    stays: Positions,
    batches: Sequence[Feeds],
) -> None:
    """Solve one reader and write it into the repaired model."""
    reader, window = task.reader, task.window
    blocks = reader.blocks(result.model)
    mask = stays.get(reader.point, np.ones(reader.size, np.bool_))
    outputs = analysis.normalised.shapes[task.output][window.axis]
    out = stays.get((task.output, window.axis), np.ones(outputs, np.bool_))
    bias = np.broadcast_to(_bias(result.model, task), (outputs,)).astype(np.float64)
    rows = [np.flatnonzero(mask[at]) for at, _ in blocks]
    columns = np.split(np.arange(outputs), reader.groups)
    kept = [np.flatnonzero(out[part]) for part in columns]
    halves = [
        [_Sums(len(r) * window.taps + 1, len(c)) for r, c in zip(rows, kept, strict=True)]
        for _ in range(2)
    ]
    names = [reader.point[0], *([task.other] if task.other else [])]
    inner = [name for name in dict.fromkeys(names) if name not in batches[0]]
    probe = Prober(pruned, WeightFile()).probe(inner, optimise=True)
    factor = task.factor
    if task.other and len(factor) > 1:
        factor = factor[out]
    for number, feeds in enumerate(batches):
        found = {**feeds, **probe.run(feeds)}
        index, target = task.index[number], task.target[number]
        if task.other:
            target = target - _towards(window.outputs(found[task.other], index), factor)
        patches = window.inputs(found[reader.point[0]], index, task.shape[number])
        _add(halves[number % 2], patches, target)
    delta = np.zeros(outputs)
    for number, (at, matrix) in enumerate(blocks):
        pick = np.ix_(rows[number], kept[number])
        whole = matrix.reshape(len(at), len(columns[number]), window.taps)
        start = whole[pick].transpose(0, 2, 1).reshape(-1, len(kept[number]))
        at_columns = columns[number][kept[number]]
        start = np.vstack([start, bias[at_columns]])
        found_weight = _best(start, halves[0][number], halves[1][number])
        delta[at_columns] = found_weight[-1] - bias[at_columns]
        shape = (len(rows[number]), window.taps, len(kept[number]))
        whole[pick] = found_weight[:-1].reshape(shape).transpose(0, 2, 1)
        blocks[number] = at, whole.reshape(matrix.shape)
    reader.set_blocks(result.model, blocks)
    node = next(node for node in result.model.graph if node.name == reader.node)
    weight = result.model.graph.initializers[reader.weight].const_value
    assert weight is not None
    add_to_output(result, analysis, node, delta, weight.dtype.numpy())


def _add(sums: Sequence[_Sums], patches: Rows, target: Rows) -> None:
    ones = np.ones((len(patches), 1), np.float32)
    inputs = np.split(patches, len(sums), axis=1)
    outputs = np.split(target, len(sums), axis=1)
    for part, x, y in zip(sums, inputs, outputs, strict=True):
        part.add(np.hstack([x, ones]), y)


def _best(start: Matrix, one: _Sums, other: _Sums) -> Matrix:
    """The ridge that does best on the half that it was not fitted on, fitted on both."""
    errors = [
        other.error(one.solve(start, ridge)) + one.error(other.solve(start, ridge))
        for ridge in RIDGES
    ]
    best = int(np.argmin(errors))
    if not errors[best] < one.error(start) + other.error(start):
        return start
    return one.plus(other).solve(start, RIDGES[best])
