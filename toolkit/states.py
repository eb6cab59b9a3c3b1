"""The states of recurrent nodes as tensors."""

from __future__ import annotations

import onnx_ir as ir

from onnxtrim.toolkit.graph.edit import Names

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""Recurrent operators, with the number of their gates."""


def name_states(model: ir.Model) -> None:
    """Name the states of recurrent nodes of which only the last are used."""
    names = Names(model.graph)
    for node in model.graph:
        if node.op_type in GATES and not node.outputs[0].name:
            node.outputs[0].name = names.fresh(states_of(node))


def states_of(node: ir.Node) -> str:
    """Name of the states of a recurrent node; also where the file gives none."""
    return node.outputs[0].name or f"{node.name}/states"
