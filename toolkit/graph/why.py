"""Explain why slices can leave or must stay, along the tensors that tie them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.labels import AxisRef, Freeze


@dataclass(frozen=True)
class AxisFate:
    """What becomes of the positions of one axis.

    Attributes:
        ref: Tensor and axis.
        size: Number of positions.
        groups: Groups that lie on the axis.
        frozen: How many positions must stay.
        cause: The nearest reason for which some must stay.
        path: The axes on the way there, each with the node that ties it to the one before.
        note: What else keeps them, if there is neither group nor cause.
    """

    ref: AxisRef
    size: int
    groups: tuple[Group, ...]
    frozen: int
    cause: Freeze | None
    path: tuple[tuple[AxisRef, str], ...]
    note: str

    def to_json(self) -> dict[str, Any]:
        """The form in which it stands in results."""
        cause = self.cause
        return {
            "tensor": self.ref[0],
            "axis": self.ref[1],
            "size": self.size,
            "groups": [group.name for group in self.groups],
            "frozen": self.frozen,
            "operator": None if cause is None else cause.operator,
            "node": None if cause is None else cause.node,
            "reason": self.note if cause is None else cause.reason,
            "path": [
                {"tensor": tensor, "axis": axis, "through": node}
                for (tensor, axis), node in self.path
            ],
        }


@dataclass(frozen=True)
class Explanation:
    """Everything to say of one name.

    Attributes:
        name: A group, a node or a tensor.
        kind: ``"group"``, ``"node"`` or ``"tensor"``.
        axes: The fate of every axis with more than one position.
    """

    name: str
    kind: str
    axes: tuple[AxisFate, ...]

    def to_json(self) -> dict[str, Any]:
        """The form in which it stands in results."""
        axes = [axis.to_json() for axis in self.axes]
        return {"name": self.name, "kind": self.kind, "axes": axes}


def explain(analysis: Analysis, name: str) -> Explanation:
    """Say of a group, node or tensor what can leave, what stays and why.

    Raises:
        InputError: Nothing has this name; the message suggests others.
    """
    shapes = analysis.normalised.shapes
    groups = {group.name: group for group in analysis.all_groups()}
    nodes = {node.name: node for node in analysis.model.graph}
    if name in groups:
        refs, kind = list(groups[name].slices), "group"
    elif name in shapes:
        refs, kind = [(name, axis) for axis in range(len(shapes[name]))], "tensor"
    elif name in nodes:
        node = nodes[name]
        tensors = dict.fromkeys(
            value.name or "" for value in (*node.inputs, *node.outputs) if value is not None
        )
        refs = [(tensor, axis) for tensor in tensors for axis in range(len(shapes.get(tensor, ())))]
        kind = "node"
    else:
        known = [item for item in (*groups, *shapes, *nodes) if item]
        near = difflib.get_close_matches(name, known, 3, 0.4)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise InputError(f"--why {name!r}: no group, node or tensor has this name{hint}")
    wide = [ref for ref in refs if shapes[ref[0]][ref[1]] > 1]
    return Explanation(name, kind, tuple(_fate(analysis, ref) for ref in wide))


def _fate(analysis: Analysis, ref: AxisRef) -> AxisFate:
    classes = analysis.classes
    found = classes.of(ref)
    is_frozen = classes.frozen()[found]
    groups = tuple(group for group in analysis.all_groups() if ref in group.slices)
    cause, path = None, []
    if is_frozen.any():
        first = found[is_frozen][0]  # one class: a shorter way than that of all
        start = classes.labels.of(ref)[found == first]
        direct = np.zeros(classes.labels.size, np.bool_)
        for part in classes.ties:
            for labels, _ in part.frozen:
                direct[labels] = True
        path = classes.path(start, direct)
        cause = _cause_at(analysis, path[-1][0], found[is_frozen]) or classes.why(ref)
    note = ""
    if not groups and cause is None:
        together = len(np.unique(found)) == 1
        note = "these slices can only leave all at once" if together else "nothing reads them"
    return AxisFate(ref, len(found), groups, int(is_frozen.sum()), cause, tuple(path), note)


def _cause_at(analysis: Analysis, ref: AxisRef, wanted: np.ndarray[Any, Any]) -> Freeze | None:
    """What freezes slices of an axis directly."""
    classes = analysis.classes
    span = classes.labels.span(ref)
    for part in classes.ties:
        for labels, cause in part.frozen:
            inside = labels[(labels >= span.start) & (labels < span.stop)]
            if np.isin(classes.of_label[inside], wanted).any():
                return cause
    return None
