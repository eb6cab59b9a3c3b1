"""Tables of profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxtrim.toolkit.cli.common import out, table

ROWS = 15


def print_profile(profile: Mapping[str, Any]) -> None:
    """The most expensive layers, then what is no layer of the model or of both models."""
    paired = "block" in profile
    rows = [_pair(layer) if paired else _one(layer) for layer in profile["layers"][:ROWS]]
    left = len(profile["layers"]) - len(rows)
    for item in profile["others"]:
        name = item["name"] or f"({item['operator']})"
        if paired:
            shares = [f"{item[role]:.1%}" for role in ("original", "candidate")]
            if shares != ["0.0%", "0.0%"]:
                rows.append([name, item["operator"], *shares, "", "", "", ""])
        elif f"{item['share']:.1%}" != "0.0%":
            rows.append([name, item["operator"], f"{item['share']:.1%}", ""])
    more = f"; {left} more layers in --json" if left else ""
    if paired:
        title = f"share of the kernel time, profiled apart; ratios are rough{more}"
        columns = ["layer", "operator", "original", "candidate", "time ratio", "MACs ratio"]
        out().print(table(title, [*columns, "channels", "not faster because"], rows))
    else:
        title = f"share of the kernel time, profiled apart{more}"
        out().print(table(title, ["layer", "operator", "share", "channels"], rows))


def _one(layer: Mapping[str, Any]) -> list[str]:
    channels = layer["channels"]
    text = f"{channels[0]} → {channels[1]}" if channels else ""
    return [layer["name"], layer["operator"], f"{layer['share']:.1%}", text]


def _pair(layer: Mapping[str, Any]) -> list[str]:
    channels = layer["channels"]
    return [
        layer["name"],
        layer["operator"],
        f"{layer['original']['share']:.1%}",
        f"{layer['candidate']['share']:.1%}",
        _ratio(layer["time_ratio"]),
        _ratio(layer["macs_ratio"]),
        f"{channels[0]} → {channels[1]}" if channels else "",
        layer["reason"] or "",
    ]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
