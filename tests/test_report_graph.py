"""The graph of a model: what the sweep writes, and what the report makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.report import write_report
from onnxtrim.bench.report.graph import MAX_NODES
from onnxtrim.bench.run_folder import load_run
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings
from onnxtrim.toolkit.graph_json import graph_json
from onnxtrim.toolkit.sweep import SweepOptions, sweep
from tests import fake_run
from tests.bench_models import save_mlp
from tests.cli import WIDTHS, samples
from tests.nets import prepared
from tests.zoo import ZOO

EVIL = "<script>alert(1)</script>"


def _graph(net: str, folder: Path) -> dict[str, Any]:
    return graph_json(prepared(ZOO[net](), folder))


def _told(graph: dict[str, Any]) -> list[str]:
    """Every block as "Conv Relu: producer of stem, consumer of b1", in order."""
    names = [group["name"] for group in graph["groups"]]
    return [
        f"{' '.join(part['operator'] for part in node['parts']) or node['kind']}: "
        + ", ".join(f"{role} of {names[number]}" for number, role in node["groups"])
        for node in graph["nodes"]
    ]


# --- what a sweep writes ------------------------------------------------------------------------


def test_a_chain_becomes_one_block_per_layer(tmp_path: Path) -> None:
    graph = _graph("mlp", tmp_path)
    assert _told(graph) == [
        "input: ",
        "Gemm Relu: producer of fc1",
        "Gemm Relu: consumer of fc1, producer of fc2",
        "Gemm: consumer of fc2",
        "output: ",
    ]
    assert [(edge["from"], edge["to"]) for edge in graph["edges"]] == [
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 4),
    ]
    assert [edge["groups"] for edge in graph["edges"]] == [[], [0], [1], []]
    assert graph["edges"][1]["shape"] == [1, 12]
    first = {"name": "fc1", "units": 12, "parameters": 228, "macs": 216, "stage": 1}
    assert graph["groups"][0] == first
    second = graph["nodes"][2]
    assert second["macs"] == 120
    assert second["weights"] == [{"name": "fc2.weight", "shape": [10, 12]}]
    (frozen,) = graph["nodes"][3]["frozen"]
    assert frozen["name"] == "fc3.weight"
    assert frozen["reason"] == "it is an output of the model"
    assert [node["frozen"] for node in graph["nodes"][:3]] == [[], [], []]


def test_branches_stay_and_carriers_are_named(tmp_path: Path) -> None:
    graph = _graph("residual", tmp_path)
    assert _told(graph) == [
        "input: ",
        "Conv BatchNormalization Relu: producer of stem",
        "Conv BatchNormalization Relu: consumer of stem, producer of b1.conv1",
        "Conv BatchNormalization: producer of stem, consumer of b1.conv1",
        "Add Relu: carrier of stem",
        "Conv BatchNormalization Relu: consumer of stem, producer of b2.conv1",
        "Conv BatchNormalization: consumer of b2.conv1, producer of b2.conv2",
        "Conv BatchNormalization: consumer of stem, producer of b2.conv2",
        "Add Relu GlobalAveragePool Flatten: carrier of b2.conv2",
        "Gemm: consumer of b2.conv2",
        "output: ",
    ]
    ends = [(edge["from"], edge["to"]) for edge in graph["edges"]]
    chain = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 8), (8, 9), (9, 10)]
    assert sorted(ends) == sorted([*chain, (1, 4), (4, 7), (7, 8)])


@pytest.mark.parametrize("net", sorted(ZOO))
def test_every_net_gives_a_graph_that_the_report_reads(net: str, tmp_path: Path) -> None:
    item = prepared(ZOO[net](), tmp_path)
    graph = graph_json(item)
    assert graph == graph_json(item)
    parts = [part["name"] for node in graph["nodes"] for part in node["parts"]]
    assert len(parts) == len(set(parts))
    assert all(edge["from"] < edge["to"] for edge in graph["edges"])
    stages = [group["stage"] for group in graph["groups"]]
    assert stages.count(1) == len(item.analysis.groups)
    assert len(stages) == len(item.analysis.all_groups())
    # A group that nobody makes or reads would have no place in the picture.
    seen = {number for node in graph["nodes"] for number, _ in node["groups"]}
    assert seen == set(range(len(stages)))
    page, data = _page(graph, tmp_path)
    assert len(data["graph"]["nodes"]) == len(graph["nodes"])
    assert 'id="graph"' in page


def test_a_sweep_writes_the_graph_and_goes_on_without_it(tmp_path: Path) -> None:
    model = save_mlp(tmp_path / "model.onnx", WIDTHS)
    settings = Settings(options=RunOptions(threads=1), latency=False, memory=False)
    options = SweepOptions(grid=((0.4, 0.6),), settings=settings)
    data = {"x": samples(40)}
    sweep(model, data, tmp_path / "run", options=options)
    path = tmp_path / "run" / "graph.json"
    first = path.read_bytes()
    assert json.loads(first)["schema"] == "onnxtrim.graph/1"
    path.unlink()  # as in a folder of an earlier version
    write_report(load_run(tmp_path / "run"), tmp_path / "without.html")
    assert 'id="graph"' not in (tmp_path / "without.html").read_text(encoding="utf-8")
    sweep(model, data, tmp_path / "run", options=options)
    assert path.read_bytes() == first


# --- what the report makes of it ----------------------------------------------------------------


def _page(graph: Any, tmp_path: Path) -> tuple[str, Any]:
    folder = fake_run.write_run(tmp_path / "run")
    text = graph if isinstance(graph, str) else json.dumps(graph)
    (folder / "graph.json").write_text(text, encoding="utf-8")
    write_report(load_run(folder), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    start = page.index('id="data">') + len('id="data">')
    return page, json.loads(page[start : page.index("</script>", start)])


def test_boxes_say_what_leaves_in_the_chosen_candidate(tmp_path: Path) -> None:
    page, data = _page(fake_run.graph(), tmp_path)
    boxes = data["graph"]["nodes"]
    after = fake_run.candidate(3)["groups"]
    assert [box["title"] for box in boxes] == ["input", *["Gemm + Relu"] * 3, "Gemm", "output"]
    assert boxes[1]["note"] == f"1: 1,024 → {after[0]['after']}"
    assert boxes[4]["note"] == "frozen"
    assert boxes[4]["frozen"]
    assert boxes[4]["facts"][0] == "frozen: fc4.weight: it is an output of the model (graph output)"
    assert "before → after in m0.3-s0.8" in page
    assert data["graph"]["groups"][2] == ["fc3", f"256 → {after[2]['after']}"]


def test_without_a_file_there_is_no_section(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run")
    write_report(load_run(folder), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="graph' not in page
    assert "dagre" not in page


def test_a_graph_that_is_too_large_is_told_in_tables(tmp_path: Path) -> None:
    page, data = _page(fake_run.graph(more=MAX_NODES), tmp_path)
    assert data["graph"] is None
    assert 'id="graph"' not in page
    assert "dagre" not in page
    assert f"more than the {MAX_NODES:,} that a picture can show" in page
    assert '<details class="wide" open><summary>Groups' in page
    assert "fc4.weight" in page


def test_a_thousand_boxes_are_less_than_two_megabytes(tmp_path: Path) -> None:
    graph = fake_run.graph(more=1000 - 6)
    _, data = _page(graph, tmp_path)
    assert len(data["graph"]["nodes"]) == 1000
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_names_in_the_graph_can_not_become_code(tmp_path: Path) -> None:
    graph = fake_run.graph()
    for group in graph["groups"]:
        group["name"] += EVIL
    for node in graph["nodes"]:
        node["name"] += EVIL
        node["parts"] = [{"name": EVIL, "operator": EVIL} for _ in node["parts"]]
        node["weights"] = [{"name": EVIL, "shape": [1]}]
        node["frozen"] = [{"name": EVIL, "operator": EVIL, "reason": EVIL, "by": EVIL}]
    for edge in graph["edges"]:
        edge["tensor"] = EVIL
    page, data = _page(graph, tmp_path)
    assert EVIL not in page
    assert page.count("<script") == page.count("</script>") == 8
    assert data["graph"]["nodes"][1]["name"] == f"node_fc1{EVIL}"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("nodes", 1, "groups"), [[3, "producer"]], "out of range"),
        (("nodes", 1, "groups"), [[0, "owner"]], "not pairs of a number and a role"),
        (("nodes", 1, "groups"), [[True, "producer"]], "out of range"),
        (("nodes", 1, "kind"), "other", "has a 'kind'"),
        (("nodes", 1, "parts"), [3], "is not a JSON object"),
        (("edges", 0, "to"), 6, "out of range"),
        (("edges", 0, "from"), -1, "out of range"),
        (("edges", 1, "to"), 1, "leads back"),
        (("edges", 0, "shape"), ["a"], "out of range"),
        (("groups", 0, "units"), "many", "has a 'units'"),
    ],
)
def test_a_broken_graph_is_refused(
    place: tuple[Any, ...], value: Any, message: str, tmp_path: Path
) -> None:
    graph = fake_run.graph()
    key, number, name = place
    graph[key][number][name] = value
    with pytest.raises(InputError, match=message) as caught:
        _page(graph, tmp_path)
    assert "graph.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torn_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not JSON"):
        _page("{", tmp_path)
