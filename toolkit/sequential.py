"""Sequential repair: every layer is fitted to the original's outputs on the pruned inputs.

The layers are taken in the order of the graph. For each, the original gives the outputs ``y`` and
the model pruned and repaired so far gives the inputs ``x̂``; so each fit also corrects what the ones
before left. How one layer is fitted is in :mod:`.products` and :mod:`.recurrent`.

The rows are a random sample of the outputs' elements. The ridge is the one that does best on the
half of the samples that it was not fitted on; the last fit is on both halves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from onnxtrim.toolkit.cut import Cut
from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.execute import Feeds, Prober
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.surgery import Keep, positions
from onnxtrim.toolkit.graph.values import independent_values
from onnxtrim.toolkit.products import Product, find_product
from onnxtrim.toolkit.readers import find_readers
from onnxtrim.toolkit.recurrent import Recurrence, find_recurrence
from onnxtrim.toolkit.repair import Repaired
from onnxtrim.toolkit.states import GATES, name_states
from onnxtrim.toolkit.statistics import Progress

ELEMENTS = 100_000_000
"""Most elements of the original's tensors that are looked at together."""

Task = Product | Recurrence


def repair_in_sequence(
    analysis: Analysis,
    keep: Keep,
    repaired: Repaired,
    batches: Sequence[Feeds],
    progress: Progress | None = None,
) -> Repaired:
    """Fit one layer after another.

    Args:
        analysis: The groups.
        keep: For groups that lose units, a mask over their units.
        repaired: The model after channel least squares; it stays as it is.
        batches: Calibration inputs; every second one is for judging.
        progress: Called with a word, how many layers are done, and how many there are.
    """
    result = Repaired(repaired.model.clone(), dict(repaired.new_biases), list(repaired.skipped))
    tasks = _tasks(analysis, positions(analysis, keep))
    for part in _parts(analysis, tasks, batches):
        _look_at_original(analysis, part, batches)
    cut = Cut(analysis, keep, result, batches)
    for number, task in enumerate(tasks):
        task.fit(analysis, result, cut)
        if progress is not None:
            progress("repair", number + 1, len(tasks))
    return result


def _tasks(analysis: Analysis, stays: Positions) -> list[Task]:
    constants = independent_values(analysis.model.graph)[1]
    reached = _reached(analysis, stays, constants)
    readers = {reader.node: reader for reader in find_readers(analysis) if reader.constant}
    nodes = [node for node in analysis.model.graph if node.name in readers or node.op_type in GATES]
    waiting = {node.name or "" for node in nodes}
    tasks: list[Task] = []
    for node in nodes:
        reader = readers.get(node.name or "")
        task: Task | None
        if reader is None:
            task = find_recurrence(analysis, node, stays, reached)
        else:
            task = find_product(analysis, reader, node, stays, reached, waiting, constants)
        if task is not None:
            tasks.append(task)
        waiting.discard(node.name or "")
    return tasks


def _reached(analysis: Analysis, stays: Positions, constants: set[str]) -> set[str]:
    """Tensors that lose positions, or are computed from such; no constants."""
    reached = {tensor for tensor, _ in stays} - constants
    for node in analysis.model.graph:
        read = {value.name for value in node.inputs if value is not None}
        if read & reached:
            reached |= {value.name or "" for value in node.outputs}
    return reached - constants


def _parts(
    analysis: Analysis, tasks: Sequence[Task], batches: Sequence[Feeds]
) -> Iterator[list[Task]]:
    """Tasks whose tensors can be in memory together, for one batch."""
    normalised = analysis.normalised
    small = max(sum(array.size for array in normalised.feeds.values()), 1)
    times = sum(array.size for array in batches[0].values()) / small
    part: list[Task] = []
    elements = 0.0
    for task in tasks:
        size = times * sum(math.prod(normalised.shapes.get(name, ())) for name in task.names)
        if part and elements + size > ELEMENTS:
            yield part
            part, elements = [], 0.0
        part.append(task)
        elements += size
    yield part


def _look_at_original(analysis: Analysis, tasks: Sequence[Task], batches: Sequence[Feeds]) -> None:
    """Sample what the layers of all tasks give, in one pass."""
    rng = np.random.default_rng(0)
    inner = dict.fromkeys(name for task in tasks for name in task.names)
    model = analysis.model.clone()
    name_states(model)
    probe = Prober(model, analysis.normalised.weights).probe(
        [name for name in inner if name not in batches[0]], optimise=True
    )
    for feeds in batches:
        found = {**feeds, **probe.run(feeds)}
        for task in tasks:
            task.see(found, len(batches), rng)
