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

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.elimination import Vector
from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.execute import Feeds, Prober, WeightFile
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.labels import Index
from onnxtrim.toolkit.graph.surgery import Keep, positions, remove_units
from onnxtrim.toolkit.graph.values import constant_array, independent_values
from onnxtrim.toolkit.patches import Rows, Window, window_of
from onnxtrim.toolkit.readers import Reader, find_readers
from onnxtrim.toolkit.repair import Repaired, add_to_output
from onnxtrim.toolkit.ridge import Sums, best_fit
from onnxtrim.toolkit.statistics import Progress

UNKNOWNS = 2400
"""Most coefficients per output; larger readers keep the weight that they have."""

ROWS = 12
"""Rows of patches per coefficient that are wanted in each half."""

LEAST_ROWS = 10_000

TARGET_BYTES = 2**26
"""Most memory for the outputs of one reader."""

ELEMENTS = 100_000_000
"""Most elements of the original's tensors that are looked at together."""

_MOVES_LITTLE = 1e-2  # of the largest: channels that hardly reach the sum can't correct it


@dataclass
class _Task:
    """One reader with what is known of the original.

    Attributes:
        reader: The reader.
        window: Its window.
        output: Name of the output in the original.
        other: Name of the tensor that the output is added to; empty for none.
        towards: What a channel of the output must add for that sum to be larger by one.
        index: For every batch the sampled elements.
        shape: For every batch the shape of the output without its channels.
        target: For every batch what the output must be, without what ``other`` takes.
    """

    reader: Reader
    window: Window
    output: str
    other: str
    towards: Vector
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
    for part in _parts(analysis, tasks, batches):
        _look_at_original(analysis, part, stays, batches)
    for number, task in enumerate(tasks):
        pruned = remove_units(result.model, analysis, keep, result.new_biases)
        _fit(analysis, result, pruned, task, stays, batches)
        task.target.clear()
        if progress is not None:
            progress("repair", number + 1, len(tasks))
    return result


def _tasks(analysis: Analysis, stays: Positions) -> list[_Task]:
    nodes = {node.name: node for node in analysis.model.graph}
    shapes, reached = analysis.normalised.shapes, _reached(analysis, stays)
    tasks = []
    readers = [reader for reader in find_readers(analysis) if reader.constant]
    waiting = {reader.node for reader in readers}
    for reader in readers:
        node = nodes[reader.node]
        window = window_of(node, shapes)
        source = node.inputs[0]
        mask = stays.get(reader.point)
        left = reader.size if mask is None else int(mask.sum())
        if (
            window is not None
            and source is not None
            and (source.name, window.axis) == reader.point
            and left // reader.groups * window.taps <= UNKNOWNS
        ):
            other, factor = _sum(node, window.axis, shapes, waiting)
            if source.name in reached or other in reached:
                towards = _inverse(factor)
                tasks.append(_Task(reader, window, node.outputs[0].name or "", other, towards))
        waiting.discard(reader.node)
    return tasks


def _reached(analysis: Analysis, stays: Positions) -> set[str]:
    """Tensors that lose positions, or are computed from such."""
    graph = analysis.model.graph
    constants = independent_values(graph)[1]
    reached = {tensor for tensor, _ in stays} - constants
    for node in graph:
        read = {value.name for value in node.inputs if value is not None}
        if read & reached:
            reached |= {value.name or "" for value in node.outputs}
    return reached


def _inverse(factor: Vector) -> Vector:
    usable = np.abs(factor) > _MOVES_LITTLE * np.abs(factor).max()
    return np.where(usable, 1 / np.where(usable, factor, 1.0), 0.0)


def _sum(
    node: ir.Node, axis: int, shapes: Mapping[str, tuple[int, ...]], waiting: set[str]
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
            if constant_array(other) is None:
                same = shapes.get(other.name or "") == shapes.get(user.outputs[0].name or "")
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


def _parts(
    analysis: Analysis, tasks: Sequence[_Task], batches: Sequence[Feeds]
) -> Iterator[list[_Task]]:
    """Tasks whose tensors can be in memory together, for one batch."""
    normalised = analysis.normalised
    small = max(sum(array.size for array in normalised.feeds.values()), 1)
    times = sum(array.size for array in batches[0].values()) / small
    part: list[_Task] = []
    elements = 0.0
    for task in tasks:
        size = math.prod(normalised.shapes[task.output]) * times * (2 if task.other else 1)
        if part and elements + size > ELEMENTS:
            yield part
            part, elements = [], 0.0
        part.append(task)
        elements += size
    yield part


def _look_at_original(
    analysis: Analysis, tasks: Sequence[_Task], stays: Positions, batches: Sequence[Feeds]
) -> None:
    """Sample the outputs of all tasks in one pass."""
    rng = np.random.default_rng(0)
    names = dict.fromkeys(name for task in tasks for name in (task.output, task.other))
    inner = [name for name in names if name and name not in batches[0]]
    probe = Prober(analysis.model, analysis.normalised.weights).probe(inner, optimise=True)
    nodes = {node.name: node for node in analysis.model.graph}
    constants = {task.output: _constant(nodes[task.reader.node], task) for task in tasks}
    for feeds in batches:
        found = {**feeds, **probe.run(feeds)}
        for task in tasks:
            window, output = task.window, found[task.output]
            shape = tuple(np.delete(output.shape, window.axis).tolist())
            mask = stays.get(task.reader.point)
            left = task.reader.size if mask is None else int(mask.sum())
            wanted = max(LEAST_ROWS, ROWS * left // task.reader.groups * window.taps)
            rows = int(np.prod(shape))
            wanted = min(wanted, TARGET_BYTES // (8 * task.reader.outputs))
            count = min(rows, max(1, -(-2 * wanted // len(batches))))
            index = rng.choice(rows, count, replace=False)
            target = window.outputs(output, index) + constants[task.output]
            if task.other:
                target = target + window.outputs(found[task.other], index) * task.towards
            out = stays.get((task.output, window.axis))
            task.index.append(index)
            task.shape.append(shape)
            task.target.append(target if out is None else target[:, out])


def _constant(node: ir.Node, task: _Task) -> NDArray[np.float32]:
    """What is added after a product of matrices, which has no bias of its own."""
    if node.op_type == "MatMul":
        uses = list(node.outputs[0].uses())
        if len(uses) == 1 and uses[0].node.op_type == "Add":
            array = constant_array(uses[0].node.inputs[1 - uses[0].idx])
            if array is not None and array.shape == (task.reader.outputs,):
                return array.astype(np.float32)
    return np.zeros(1, np.float32)


def _bias(node: ir.Node, task: _Task) -> NDArray[np.float32]:
    """The whole constant of the output, per channel."""
    if node.op_type == "MatMul":
        return _constant(node, task)
    array = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    return np.zeros(1, np.float32) if array is None else array.reshape(-1).astype(np.float32)


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
    node = next(node for node in result.model.graph if node.name == reader.node)
    blocks = reader.blocks(result.model)
    mask = stays.get(reader.point, np.ones(reader.size, np.bool_))
    outputs = analysis.normalised.shapes[task.output][window.axis]
    out = stays.get((task.output, window.axis), np.ones(outputs, np.bool_))
    bias = np.broadcast_to(_bias(node, task), (outputs,)).astype(np.float64)
    rows = [np.flatnonzero(mask[at]) for at, _ in blocks]
    columns = np.split(np.arange(outputs), reader.groups)
    kept = [np.flatnonzero(out[part]) for part in columns]
    halves = [
        [Sums(len(r) * window.taps + 1, len(c)) for r, c in zip(rows, kept, strict=True)]
        for _ in range(2)
    ]
    names = [reader.point[0], *([task.other] if task.other else [])]
    inner = [name for name in dict.fromkeys(names) if name not in batches[0]]
    probe = Prober(pruned, WeightFile()).probe(inner, optimise=True)
    towards = task.towards[out] if len(task.towards) > 1 else task.towards
    for number, feeds in enumerate(batches):
        found = {**feeds, **probe.run(feeds)}
        index, target = task.index[number], task.target[number]
        if task.other:
            shift = window.outputs(found[task.other], index) * towards
            target = (target - shift).astype(np.float32)
        patches = window.inputs(found[reader.point[0]], index, task.shape[number])
        _add(halves[number % 2], patches, target)
    delta = np.zeros(outputs)
    for number, (at, matrix) in enumerate(blocks):
        pick = np.ix_(rows[number], kept[number])
        whole = matrix.reshape(len(at), len(columns[number]), window.taps)
        start = whole[pick].transpose(0, 2, 1).reshape(-1, len(kept[number]))
        at_columns = columns[number][kept[number]]
        start = np.vstack([start, bias[at_columns]])
        found_weight = best_fit(start, halves[0][number], halves[1][number])
        delta[at_columns] = found_weight[-1] - bias[at_columns]
        shape = (len(rows[number]), window.taps, len(kept[number]))
        whole[pick] = found_weight[:-1].reshape(shape).transpose(0, 2, 1)
        blocks[number] = at, whole.reshape(matrix.shape)
    reader.set_blocks(result.model, blocks)
    weight = result.model.graph.initializers[reader.weight].const_value
    assert weight is not None
    if delta.any():
        add_to_output(result, analysis, node, delta, weight.dtype.numpy())


def _add(sums: Sequence[Sums], patches: Rows, target: Rows) -> None:
    ones = np.ones((len(patches), 1), np.float32)
    inputs = np.split(patches, len(sums), axis=1)
    outputs = np.split(target, len(sums), axis=1)
    for part, x, y in zip(sums, inputs, outputs, strict=True):
        part.add(np.hstack([x, ones]), y)
