"""Read ``graph.json`` of a sweep's folder: blocks, tensors and groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxtrim.bench.files import read_json
from onnxtrim.bench.json_reader import JsonReader

GRAPH_SCHEMA = "onnxtrim.graph/1"
ROLES = ("producer", "carrier", "consumer")
_KINDS = ("input", "operator", "output")


@dataclass(frozen=True)
class Node:
    """A block of operators, or an input or output of the model.

    Attributes:
        name: Of its first operator.
        kind: ``"input"``, ``"operator"`` or ``"output"``.
        parts: Name and operator of each.
        weights: Name and shape of each.
        macs: Multiply-accumulates at batch 1.
        groups: Number of a group and what the block is to it, one of `ROLES`.
        frozen: Per reason: what stays, the operator in the way, why, and the node in the way.
    """

    name: str
    kind: str
    parts: tuple[tuple[str, str], ...]
    weights: tuple[tuple[str, tuple[int, ...]], ...]
    macs: int
    groups: tuple[tuple[int, str], ...]
    frozen: tuple[tuple[str, str, str, str], ...]

    def numbers(self, role: str) -> list[int]:
        """The groups to which it has a role."""
        return [number for number, found in self.groups if found == role]


@dataclass(frozen=True)
class Edge:
    """A tensor that passes from one node to a later one."""

    source: int
    target: int
    tensor: str
    shape: tuple[int, ...]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class GraphGroup:
    """A group of units; ``stage`` is 2 if it opens only after others were pruned."""

    name: str
    units: int
    parameters: int
    macs: int
    stage: int


@dataclass(frozen=True)
class Graph:
    """The whole file."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    groups: tuple[GraphGroup, ...]


def load_graph(folder: Path) -> Graph | None:
    """The graph of a sweep; ``None`` if the folder is older than the file.

    Raises:
        InputError: The file is broken.
    """
    path = folder / "graph.json"
    if not path.exists():
        return None
    read = JsonReader(read_json(path, GRAPH_SCHEMA), str(path))
    groups = tuple(
        GraphGroup(
            r.get("name", str),
            *(int(r.get(key, int)) for key in ("units", "parameters", "macs", "stage")),
        )
        for r in _records(read, "groups")
    )
    nodes = tuple(_node(r, len(groups)) for r in _records(read, "nodes"))
    edges = tuple(_edge(r, len(nodes), len(groups)) for r in _records(read, "edges"))
    return Graph(nodes, edges, groups)


def _records(read: JsonReader, key: str) -> list[JsonReader]:
    return [JsonReader(record, f"{read.where}: {key}") for record in read.get(key, list)]


def _node(read: JsonReader, groups: int) -> Node:
    kind = read.get("kind", str)
    if kind not in _KINDS:
        read.fail(f"has a 'kind' that is none of {', '.join(_KINDS)}")
    return Node(
        read.get("name", str),
        kind,
        tuple((r.get("name", str), r.get("operator", str)) for r in _records(read, "parts")),
        tuple((r.get("name", str), _whole(r, "shape")) for r in _records(read, "weights")),
        int(read.get("macs", int)),
        tuple(_role(read, pair, groups) for pair in read.get("groups", list)),
        tuple(
            (r.get("name", str), r.get("operator", str), r.get("reason", str), r.get("by", str))
            for r in _records(read, "frozen")
        ),
    )


def _role(read: JsonReader, pair: Any, groups: int) -> tuple[int, str]:
    if not isinstance(pair, list) or len(pair) != 2 or pair[1] not in ROLES:
        read.fail("has 'groups' that are not pairs of a number and a role")
    (number,) = _numbers(read, [pair[0]], "groups", groups)
    return number, pair[1]


def _edge(read: JsonReader, nodes: int, groups: int) -> Edge:
    ends = [read.get("from", int), read.get("to", int)]
    source, target = _numbers(read, ends, "from' or 'to", nodes)
    if source >= target:
        read.fail("leads back")
    return Edge(
        source,
        target,
        read.get("tensor", str),
        _whole(read, "shape"),
        _numbers(read, read.get("groups", list), "groups", groups),
    )


def _whole(read: JsonReader, key: str) -> tuple[int, ...]:
    values = read.get(key, list)
    return _numbers(read, values, key, None)


def _numbers(read: JsonReader, values: Sequence[Any], key: str, end: int | None) -> tuple[int, ...]:
    for value in values:
        if type(value) is not int or value < 0 or (end is not None and value >= end):
            read.fail(f"has {key!r} with a number that is out of range")
    return tuple(values)
