"""What a rule sees of a node, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.edit import Edit
from onnxtrim.toolkit.graph.labels import Index
from onnxtrim.toolkit.graph.signature import Binding, Shape
from onnxtrim.toolkit.graph.values import constant_array


class NotConstantError(Exception):
    """An operand that decides the rule is not a constant; the node freezes what it touches."""


@dataclass(frozen=True)
class NodeView:
    """A node with the shapes of its operands at the analysis size.

    Attributes:
        node: The node.
        inputs: Shape of each input, ``None`` for one that is absent or no tensor.
        outputs: Shape of each output.
        opset: Version of ONNX's operator set.
        varying: For each output, the axes whose size depends on the model's inputs, with their
            size at other inputs.
        varying_inputs: The same for each input.
    """

    node: ir.Node
    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape | None, ...]
    opset: int
    varying: tuple[Mapping[int, int], ...] = ()
    varying_inputs: tuple[Mapping[int, int], ...] = ()

    def at_other_inputs(self) -> tuple[Shape, Shape]:
        """Shapes of the first input and the first output at other sizes of the model's inputs."""
        found = []
        for shapes, varying in (
            (self.inputs, self.varying_inputs),
            (self.outputs, self.varying),
        ):
            other = varying[0] if varying else {}
            found.append(tuple(other.get(k, size) for k, size in enumerate(shapes[0] or ())))
        return found[0], found[1]

    def attribute(self, name: str, default: int) -> int:
        """An integer attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_string()

    def has(self, operand: int) -> bool:
        """Whether an optional input is given."""
        return operand < len(self.node.inputs) and self.node.inputs[operand] is not None

    def constant(self, operand: int, what: str) -> NDArray[np.generic] | None:
        """The values of a constant operand, ``None`` if it is absent.

        Raises:
            NotConstantError: The operand is computed at run time.
        """
        if not self.has(operand):
            return None
        array = constant_array(self.node.inputs[operand])
        if array is None:
            raise NotConstantError(f"its {what} are computed at run time")
        return array

    def integers(self, name: str, operand: int | None = None) -> list[int] | None:
        """Integers that are an attribute or, in newer opsets, a constant operand.

        Returns:
            ``None`` if absent.

        Raises:
            NotConstantError: The operand is computed at run time.
        """
        attribute = self.node.attributes.get(name)
        if attribute is not None:
            return list(attribute.as_ints())
        array = None if operand is None else self.constant(operand, name)
        return None if array is None else [int(item) for item in array.ravel()]

    def rank(self, operand: int = 0) -> int:
        """Number of axes of an input; 0 for one that is absent."""
        shape = self.inputs[operand] if operand < len(self.inputs) else None
        return 0 if shape is None else len(shape)


@dataclass(frozen=True)
class Frozen:
    """The node freezes all that it touches, for this reason."""

    reason: str


@dataclass(frozen=True)
class Move:
    """Positions of an input's axis that become positions of an output's axis."""

    source: int
    target: int
    taken: Index
    put: Index


@dataclass(frozen=True)
class Piece:
    """How one input becomes part of one output, for operators that cut, join and select.

    Attributes:
        operand: The input.
        output: The output.
        passes: Pairs (axis of the input, axis of the output) that pass whole.
        moves: Axes of which some positions pass.
        frozen_inputs: Axes of the input that stay, with the positions (all if ``None``).
        frozen_outputs: Axes of the output that stay.
    """

    operand: int
    output: int
    passes: tuple[tuple[int, int], ...]
    moves: tuple[Move, ...] = ()
    frozen_inputs: tuple[tuple[int, Index | None], ...] = ()
    frozen_outputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Spliced:
    """The node cuts, joins or selects; the pieces say which position becomes which."""

    pieces: tuple[Piece, ...]


Answer = str | tuple[str, ...] | Frozen | Spliced  # a tuple: alternatives for the search


def _no_sizes(view: NodeView) -> Mapping[str, int]:
    return {}


@dataclass(frozen=True)
class Rule:
    """What the engine knows of an operator.

    Attributes:
        answer: Gives the signature of a node.
        sizes: Sizes of letters that occur only in composites.
        resize: Adjusts sizes that the node states, after its tensors were sliced.
        macs: Multiply-accumulates from the sizes of the letters.
        why: Why it freezes the axes with upper-case letters.
    """

    answer: Callable[[NodeView], Answer]
    sizes: Callable[[NodeView], Mapping[str, int]] = field(default=_no_sizes)
    resize: Callable[[Edit, ir.Node], None] | None = None
    macs: Callable[[Binding], int] | None = None
    why: str = "it computes over this axis"
