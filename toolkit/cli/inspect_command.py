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
from onnxtrim.toolkit.prepare import Prepared, prepare


@click.command("inspect")
@MODEL
@click.option("--data", metavar="NPZ|FOLDER|MODULE:FUNCTION", help="Real inputs, for their sizes.")
@with_shape
@with_json
def command(model: Path, data: str | None, shapes: tuple[str, ...], as_json: bool) -> None:
    """Show which units of MODEL can be removed, and what is frozen and why.

    A group is a set of units that lie on the same axes of the same tensors: what produces them
    (such as rows of a weight), what they pass through (bias, BatchNorm, depthwise weights), and
    what consumes them. A unit leaves from all of these together.

    \b
    Example:
      onnxtrim inspect model.onnx
    """
    prepared, _ = prepare(model, data, sizes=parse_shapes(shapes))
    value = _to_json(prepared)
    if as_json:
        print_json(value)
        return
    share = value["prunable_parameters"] / max(value["parameters"], 1)
    console = out()
    console.print(
        f"{model}: {value['parameters']:,} parameters, {share:.1%} of them in"
        f" {len(value['groups'])} groups; {value['macs']:,} MACs at batch 1"
    )
    rows = [
        [
            group["name"],
            f"{group['units']:,}",
            f"{group['parameters']:,}",
            f"{group['macs']:,}",
            ", ".join(group["consumers"]),
        ]
        for group in value["groups"]
    ]
    if rows:
        console.print()
        console.print(table("Groups", ["name", "units", "parameters", "MACs", "consumers"], rows))
    if value["frozen"]:
        console.print()
        frozen = [[item["name"], item["operator"], item["reason"]] for item in value["frozen"]]
        console.print(table("Frozen", ["name", "operator", "reason"], frozen))


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
                "units": group.units,
                "parameters": group.parameters,
                "macs": group.macs,
                "producers": group.nodes("producer"),
                "carriers": group.nodes("carrier"),
                "consumers": group.nodes("consumer"),
            }
            for group in analysis.groups
        ],
        "frozen": [
            {"name": item.name, "operator": item.operator, "reason": item.reason, "node": item.node}
            for item in analysis.frozen
        ],
    }
