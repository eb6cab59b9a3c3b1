"""Names of values in an exported graph."""

from __future__ import annotations

import onnx_ir as ir


def name_apart(graph: ir.Graph) -> None:
    """Inputs, outputs and parameters may be called as an inner value is (``relu``): rename that."""
    fixed = {value.name for value in (*graph.inputs, *graph.outputs)} | set(graph.initializers)
    inner = [
        value
        for node in ir.traversal.RecursiveGraphIterator(graph)
        for value in node.outputs
        if not value.is_graph_output()
    ]
    taken = fixed | {value.name for value in inner}
    for value in inner:
        if value.name in fixed:
            name, count = f"{value.name}_value", 1
            while name in taken:
                name, count = f"{value.name}_value{count}", count + 1
            taken.add(name)
            value.name = name
