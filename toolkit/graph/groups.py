"""What the analysis finds: groups of units, and what is frozen and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.labels import AxisRef, Classes, Index
from onnxtrim.toolkit.graph.normalise import Normalised


@dataclass(frozen=True)
class Touch:
    """A node that makes, carries or consumes the slices of an axis.

    Attributes:
        node: Name of the node.
        operator: Its operator.
        role: ``"producer"``, ``"carrier"`` or ``"consumer"``.
        value: The tensor and axis at which the slices pass: an output for a producer, the input
            that is read for a carrier or consumer.
        operand: Index of that input among the node's inputs; -1 for a producer.
        weight: The constant operand and its axis that hold the slices, or ``None``.
        weight_operand: Index of the constant operand; -1 without one.
    """

    node: str
    operator: str
    role: str
    value: AxisRef
    operand: int
    weight: AxisRef | None
    weight_operand: int


@dataclass(frozen=True)
class Group:
    """Units that lie on the same axes of the same tensors (a dependency group).

    Attributes:
        name: After its first producer.
        units: Number of units; unit *i* is the *i*-th on the first axis it occurs on.
        slices: For every axis that the group lies on, the unit at each position, -1 for none.
        touches: The nodes that produce, carry and consume the units.
        parameters: Parameters that leave if all units leave.
        macs: Multiply-accumulates of the nodes that produce or consume the units, at batch 1,
            as far as they are due to the group.
    """

    name: str
    units: int
    slices: Mapping[AxisRef, Index]
    touches: tuple[Touch, ...]
    parameters: int
    macs: int

    def nodes(self, role: str) -> list[str]:
        """Names of the nodes with a role, each once."""
        return list(dict.fromkeys(touch.node for touch in self.touches if touch.role == role))

    def consumer_inputs(self) -> list[AxisRef]:
        """Where the units are read, each once: the points at which statistics are taken."""
        refs = (touch.value for touch in self.touches if touch.role == "consumer")
        return list(dict.fromkeys(refs))

    def positions(self, ref: AxisRef, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mask of the positions on an axis that stay when the units ``keep`` stay."""
        units = self.slices[ref]
        return (units < 0) | keep[units]


@dataclass(frozen=True)
class FrozenAxis:
    """Slices that can't leave.

    Attributes:
        name: The weight, or the node that has no rule.
        operator: The operator that is in the way.
        reason: Why, in words.
        node: The node in the way; empty for the graph's own inputs and outputs.
    """

    name: str
    operator: str
    reason: str
    node: str


@dataclass(frozen=True)
class Analysis:
    """The dependency analysis of a model.

    Attributes:
        normalised: The model that the names refer to.
        groups: Units that can leave, in the order of the graph.
        frozen: What can't, and why.
        parameters: Number of parameters: floats, and integers that are dequantised.
        prunable_parameters: Of these, the ones that lie on an axis of a group.
        macs: Multiply-accumulates at batch 1.
        choices: Which alternative each node with several was given.
        macs_by_node: Multiply-accumulates of every node that has some.
        classes: The joined labels, for explanations.
        inner: The groups of a second stage, if there are any: head dimensions after heads.
    """

    normalised: Normalised
    groups: tuple[Group, ...]
    frozen: tuple[FrozenAxis, ...]
    parameters: int
    prunable_parameters: int
    macs: int
    choices: Mapping[str, int]
    macs_by_node: Mapping[str, int] = field(repr=False)
    classes: Classes = field(repr=False)
    inner: Analysis | None = field(default=None, repr=False)

    @property
    def model(self) -> ir.Model:
        """The normalised model."""
        return self.normalised.model

    def all_groups(self) -> list[Group]:
        """The groups of both stages."""
        return [*self.groups, *(self.inner.groups if self.inner is not None else ())]

    def consumer_inputs(self) -> list[AxisRef]:
        """All axes at which units of either stage are read, each once."""
        refs = (ref for group in self.all_groups() for ref in group.consumer_inputs())
        return list(dict.fromkeys(refs))
