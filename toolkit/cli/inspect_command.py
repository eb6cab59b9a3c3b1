"""``onnxtrim inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxtrim.toolkit.cli.common import (
    MODEL,
    out,
    parse_shapes,
    print_json,
    table,
    with_json,
    with_shape,
)
from onnxtrim.toolkit.graph.why import Explanation, explain
from onnxtrim.toolkit.prepare import Prepared, prepare


@click.command("inspect")
@MODEL
@click.option("--data", metavar="NPZ|FOLDER|MODULE:FUNCTION", help="Real inputs, for their sizes.")
@click.option(
    "--why",
    multiple=True,
    metavar="NAME",
    help="Explain a group, node or tensor: what stays, because of which operator, along which"
    " tensors. Repeatable.",
)
@with_shape
@with_json
def command(
    model: Path, data: str | None, why: tuple[str, ...], shapes: tuple[str, ...], as_json: bool
) -> None:
    """Show which units of MODEL can be removed, and what is frozen and why.

    A group is a set of units that lie on the same axes of the same tensors: what produces them
    (such as rows of a weight), what they pass through (bias, BatchNorm, depthwise weights), and
    what consumes them. A unit leaves from all of these together. Groups of stage 2 are pruned on
    what stage 1 leaves: head dimensions after heads, channels after groups of a convolution.

    \b
    Example:
      onnxtrim inspect model.onnx
      onnxtrim inspect model.onnx --why fc.weight
    """
    prepared, _ = prepare(model, data, sizes=parse_shapes(shapes))
    explanations = [explain(prepared.analysis, name) for name in why]
    value = _to_json(prepared)
    if as_json:
        if why:
            value["why"] = [explanation.to_json() for explanation in explanations]
        print_json(value)
    elif why:
        for explanation in explanations:
            _print_why(explanation)
    else:
        _print(model, value)


def _print(model: Path, value: dict[str, Any]) -> None:
    share = value["prunable_parameters"] / max(value["parameters"], 1)
    console = out()
    console.print(
        f"{model}: {value['parameters']:,} parameters, {share:.1%} of them in"
        f" {len(value['groups'])} groups; {value['macs']:,} MACs at batch 1"
    )
    rows = [
        [
            group["name"],
            str(group["stage"]),
            f"{group['units']:,}",
            f"{group['parameters']:,}",
            f"{group['macs']:,}",
            ", ".join(group["consumers"]),
        ]
        for group in value["groups"]
    ]
    if rows:
        console.print()
        columns = ["name", "stage", "units", "parameters", "MACs", "consumers"]
        console.print(table("Groups", columns, rows))
    if value["frozen"]:
        console.print()
        frozen = [[item["name"], item["operator"], item["reason"]] for item in value["frozen"]]
        console.print(table("Frozen", ["name", "operator", "reason"], frozen))


def _print_why(explanation: Explanation) -> None:
    console = out()
    console.print(f"{explanation.kind} {explanation.name!r}")
    for fate in explanation.axes:
        tensor, axis = fate.ref
        lies = "".join(f"; group {group.name!r}: {group.units:,} units" for group in fate.groups)
        console.print(f"  {tensor}, axis {axis}: {fate.size:,} positions{lies}")
        if fate.cause is not None:
            cause = fate.cause
            where = f" {cause.node!r}" if cause.node else ""
            console.print(f"    {fate.frozen:,} stay: {cause.operator}{where}: {cause.reason}")
        for (name, number), node in fate.path[1:]:
            console.print(f"      {node!r} ties it to {name}, axis {number}")
        if fate.note:
            console.print(f"    {fate.size:,} stay: {fate.note}")


def _to_json(prepared: Prepared) -> dict[str, Any]:
    analysis = prepared.analysis
    return {
        "schema": "onnxtrim.inspect/1",
        "model": {"path": str(prepared.path), "sha256": prepared.sha256},
        "parameters": analysis.parameters,
        "prunable_parameters": analysis.prunable_parameters,
        "macs": analysis.macs,
        "groups": [
            {
                "name": group.name,
                "stage": 1 if number < len(analysis.groups) else 2,
                "units": group.units,
                "parameters": group.parameters,
                "macs": group.macs,
                "producers": group.nodes("producer"),
                "carriers": group.nodes("carrier"),
                "consumers": group.nodes("consumer"),
            }
            for number, group in enumerate(analysis.all_groups())
        ],
        "frozen": [
            {"name": item.name, "operator": item.operator, "reason": item.reason, "node": item.node}
            for item in analysis.frozen
        ],
    }
