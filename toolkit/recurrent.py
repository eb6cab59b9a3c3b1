"""Joint regression of the gates of an LSTM, GRU or RNN for the sequential repair.

The pre-activations of the gates, ``W x_t + R h_{t-1} + b``, are what the original gives them; they
are fitted on the pruned inputs and on the states of the pruned network. Those states change with
the weights, so the fit is repeated, each time on the states of the pass before, and the pass whose
states are nearest to the original's is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.special import expit

from onnxtrim.toolkit.cut import Cut
from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.execute import Feeds
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.patches import Rows
from onnxtrim.toolkit.readers import stored
from onnxtrim.toolkit.repair import Repaired
from onnxtrim.toolkit.ridge import ROWS, UNKNOWNS, Sums, best_fit, rows_wanted
from onnxtrim.toolkit.states import GATES, states_of
from onnxtrim.toolkit.stored import Stored

Array = NDArray[Any]
Places = tuple[NDArray[np.int64], NDArray[np.int64]]  # time steps, samples

PASSES = 3
"""Fits, each on the states that the one before left."""

_RESET = 1  # the gate of a GRU that multiplies the state


@dataclass(frozen=True)
class _Equation:
    """Gates whose pre-activation is linear in the same features.

    Attributes:
        gates: Numbers of the gates.
        reads_input: Whether the input is among the features.
        reads_state: Whether the state is.
        is_gated: Whether the state is multiplied by the reset gate first.
    """

    gates: tuple[int, ...]
    reads_input: bool = True
    reads_state: bool = True
    is_gated: bool = False


@dataclass
class _Seen:
    """Sampled time steps of one batch of the original.

    Attributes:
        places: Which.
        states: The states after them, for each direction (rows, units).
        targets: What the gates must get, for each direction and equation (rows, gates x units).
    """

    places: Places
    states: list[Rows]
    targets: list[list[Rows]]


@dataclass
class Weights:
    """Weights of a node: ``W``, ``R`` and ``B`` of ONNX, with gates of kept units only or whole."""

    inputs: Array
    states: Array
    bias: Array

    def cut(self, inputs: NDArray[np.bool_], units: NDArray[np.bool_], gates: int) -> Weights:
        """Those of the kept inputs and units."""
        rows = np.tile(units, gates)
        return Weights(
            self.inputs[:, rows][:, :, inputs],
            self.states[:, rows][:, :, units],
            self.bias[:, np.tile(rows, 2)],
        )


@dataclass
class Recurrence:
    """One recurrent node of the sequential repair.

    Attributes:
        node: Its name.
        operator: ``LSTM``, ``GRU`` or ``RNN``.
        stored: Where ``W``, ``R`` and ``B`` lie.
        source: Name of the input.
        output: Name of the states.
        lengths: Name of the lengths of the sequences; empty for none.
        initial: Name of the states at the beginning; empty for none.
        inputs: Which positions of the input stay.
        units: Which units stay.
        backward: For every direction whether it runs from the end.
        resets_after: Whether a GRU multiplies after its product (``linear_before_reset``).
        original: The weights of the original.
    """

    node: str
    operator: str
    stored: tuple[Stored, Stored, Stored]
    source: str
    output: str
    lengths: str
    initial: str
    inputs: NDArray[np.bool_]
    units: NDArray[np.bool_]
    backward: tuple[bool, ...]
    resets_after: bool
    original: Weights = field(repr=False)
    _seen: list[_Seen] = field(default_factory=list, repr=False)

    @property
    def names(self) -> list[str]:
        """Tensors of the original to look at."""
        return [name for name in (self.source, self.output, self.lengths, self.initial) if name]

    @property
    def equations(self) -> tuple[_Equation, ...]:
        """What is fitted together."""
        if self.operator != "GRU":
            return (_Equation(tuple(range(GATES[self.operator]))),)
        update_and_reset = _Equation((0, 1))
        if self.resets_after:
            return (
                update_and_reset,
                _Equation((2,), reads_state=False),
                _Equation((2,), reads_input=False),
            )
        return update_and_reset, _Equation((2,), is_gated=True)

    def see(self, found: Feeds, batches: int, rng: np.random.Generator) -> None:
        """Sample time steps of a batch of the original."""
        x, y = found[self.source], found[self.output]
        steps, samples = x.shape[:2]
        valid = np.ones((steps, samples), np.bool_)
        if self.lengths:
            valid = np.arange(steps)[:, None] < found[self.lengths][None, :]
        index = np.flatnonzero(valid)
        width = GATES[self.operator] * len(self.units) * len(self.backward)
        unknowns = int(self.inputs.sum()) + int(self.units.sum())
        wanted = rows_wanted(ROWS * unknowns, width, batches)
        index = rng.choice(index, min(len(index), wanted), replace=False)
        places = index // samples, index % samples
        rows = x[places].astype(np.float32)
        seen = _Seen(places, [], [])
        for direction in range(len(self.backward)):
            before = self._before(found, places, direction)
            seen.states.append(y[places[0], direction, places[1]][:, self.units])
            targets = []
            for equation in self.equations:
                sums = self._sums(self.original, equation, rows, before, direction)
                targets.append(sums[:, np.tile(self.units, len(equation.gates))])
            seen.targets.append(targets)
        self._seen.append(seen)

    def fit(self, analysis: Analysis, result: Repaired, cut: Cut) -> None:
        """Solve the gates and write them into the repaired model."""
        best, least = self._read(result.model), np.inf
        for step in range(PASSES + 1):
            halves = self._halves()
            whole = self._read(result.model)
            now = whole.cut(self.inputs, self.units, GATES[self.operator])
            error = 0.0
            final = [name for name in self.names if name != self.output]
            for number, found in enumerate(cut.tensors(final, [self.output])):
                error += self._add(found, self._seen[number], now, halves[number % 2])
            if not error < least:
                break  # it goes away from the original; what was best is kept
            best, least = whole, error
            if step < PASSES:
                self._write(result.model, self._solved(whole, halves))
        self._write(result.model, best)
        self._seen.clear()

    def _halves(self) -> list[list[list[Sums]]]:
        inputs, units = int(self.inputs.sum()), int(self.units.sum())
        return [
            [
                [
                    Sums(
                        inputs * equation.reads_input + units * equation.reads_state + 1,
                        units * len(equation.gates),
                    )
                    for equation in self.equations
                ]
                for _ in self.backward
            ]
            for _ in range(2)
        ]

    def _add(
        self, found: Feeds, seen: _Seen, now: Weights, sums: Sequence[Sequence[Sums]]
    ) -> float:
        """Add the sampled steps of a batch; the squared error of the states."""
        rows = found[self.source][seen.places].astype(np.float32)
        ones = np.ones((len(rows), 1), np.float32)
        error = 0.0
        for direction, targets in enumerate(seen.targets):
            before = self._before(found, seen.places, direction)
            after = found[self.output][seen.places[0], direction, seen.places[1]]
            error += float(((after - seen.states[direction]).astype(np.float64) ** 2).sum())
            for equation, target, part in zip(
                self.equations, targets, sums[direction], strict=True
            ):
                features = []
                if equation.reads_input:
                    features.append(rows)
                if equation.reads_state:
                    state = before
                    if equation.is_gated:
                        state = state * self._reset(now, rows, before, direction)
                    features.append(state)
                part.add(np.hstack([*features, ones]), target)
        return error

    def _solved(self, whole: Weights, halves: Sequence[Sequence[Sequence[Sums]]]) -> Weights:
        result = Weights(whole.inputs.copy(), whole.states.copy(), whole.bias.copy())
        size, gates = len(self.units), GATES[self.operator]
        kept = np.flatnonzero(self.units)
        left = np.flatnonzero(self.inputs)
        for direction in range(len(self.backward)):
            bias = result.bias[direction]
            for number, equation in enumerate(self.equations):
                rows = np.concatenate([gate * size + kept for gate in equation.gates])
                own = rows if equation.reads_input else rows + gates * size  # of its bias
                other = bias[rows + gates * size] if self._has_both(equation) else 0.0
                parts = []
                if equation.reads_input:
                    parts.append(result.inputs[direction][np.ix_(rows, left)].T)
                if equation.reads_state:
                    parts.append(result.states[direction][np.ix_(rows, kept)].T)
                start = np.vstack([*parts, (bias[own] + other)[None, :]])
                one, two = (half[direction][number] for half in halves)
                found = best_fit(start, one, two)
                if equation.reads_input:
                    result.inputs[direction][np.ix_(rows, left)] = found[: len(left)].T
                if equation.reads_state:
                    result.states[direction][np.ix_(rows, kept)] = found[-1 - len(kept) : -1].T
                bias[own] = found[-1] - other
        return result

    @staticmethod
    def _has_both(equation: _Equation) -> bool:
        """Whether both biases of ONNX add to the same sum."""
        return equation.reads_input and equation.reads_state

    def _sums(
        self, weights: Weights, equation: _Equation, x: Rows, h: Rows, direction: int
    ) -> Rows:
        """The pre-activations of the gates of an equation."""
        size = weights.states.shape[2]
        rows = np.concatenate([np.arange(size) + gate * size for gate in equation.gates])
        bias, half = weights.bias[direction], weights.bias.shape[1] // 2
        result = np.zeros((len(x), len(rows)))
        if equation.reads_input:
            result = result + x @ weights.inputs[direction][rows].T + bias[rows]
        if equation.reads_state:
            state = h * self._reset(weights, x, h, direction) if equation.is_gated else h
            result = result + state @ weights.states[direction][rows].T + bias[half + rows]
        return result.astype(np.float32)

    def _reset(self, weights: Weights, x: Rows, h: Rows, direction: int) -> Rows:
        sums = self._sums(weights, _Equation((_RESET,)), x, h, direction)
        return np.asarray(expit(sums), np.float32)

    def _before(self, found: Feeds, places: Places, direction: int) -> Rows:
        """The states before some time steps."""
        steps, samples = places
        states = found[self.output][:, direction]  # (steps, samples, units)
        if self.backward[direction]:
            last = found[self.lengths][samples] if self.lengths else len(states)
            at, is_first = steps + 1, steps + 1 == last
        else:
            at, is_first = steps - 1, steps == 0
        result = states[np.where(is_first, 0, at), samples].astype(np.float32)
        if self.initial:
            result[is_first] = found[self.initial][direction, samples[is_first]]
        else:
            result[is_first] = 0
        return result

    def _read(self, model: ir.Model) -> Weights:
        return Weights(*(part.array(model).astype(np.float64) for part in self.stored))

    def _write(self, model: ir.Model, weights: Weights) -> None:
        arrays = weights.inputs, weights.states, weights.bias
        for part, array in zip(self.stored, arrays, strict=True):
            part.write(model, array)


def find_recurrence(
    analysis: Analysis, node: ir.Node, stays: Positions, reached: set[str]
) -> Recurrence | None:
    """The task of a recurrent node; ``None`` if it need not or can't be fitted."""
    if node.op_type not in GATES or _is_special(node):
        return None
    source, *operands = node.inputs
    found = [stored(analysis, operand) for operand in operands[:3]]
    if source is None or len(found) < 3 or any(part is None for part in found):
        return None
    parts = tuple(part for part in found if part is not None)
    size = parts[1].shape[2]
    name = source.name or ""
    rows = stays.get((parts[0].name, 1))
    units = np.ones(size, np.bool_) if rows is None else rows[:size]
    inputs = stays.get((name, 2), np.ones(parts[0].shape[2], np.bool_))
    if units.all() and name not in reached:
        return None
    if int(units.sum() + inputs.sum()) > UNKNOWNS:
        return None
    way = node.attributes["direction"].as_string() if "direction" in node.attributes else "forward"
    return Recurrence(
        node.name or "",
        node.op_type,
        (parts[0], parts[1], parts[2]),
        name,
        states_of(node),
        _name(node, 4),
        _name(node, 5),
        inputs,
        units,
        {"forward": (False,), "reverse": (True,)}.get(way, (False, True)),
        bool(_integer(node, "linear_before_reset")),
        Weights(*(part.array(analysis.model).astype(np.float32) for part in parts)),
    )


def _is_special(node: ir.Node) -> bool:
    """Peepholes, other activations before the reset, and batches on the first axis."""
    attributes: Mapping[str, ir.Attr] = node.attributes
    changed = node.op_type == "GRU" and "activations" in attributes
    return changed or bool(_name(node, 7)) or bool(_integer(node, "layout"))


def _name(node: ir.Node, operand: int) -> str:
    value = node.inputs[operand] if len(node.inputs) > operand else None
    return "" if value is None else value.name or ""


def _integer(node: ir.Node, attribute: str) -> int:
    return node.attributes[attribute].as_int() if attribute in node.attributes else 0
