"""``inspect --why``: what stays, because of whom, and along which tensors."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.graph.why import AxisFate, explain
from tests.cli import run
from tests.nets import Net, prepared
from tests.zoo import ZOO


def softmaxed() -> onnx.ModelProto:
    """A softmax over the channels, two nodes away from the convolution that makes them."""
    n = Net()
    h = n.relu(n.conv("c2", n.relu(n.conv("c1", "x", 3, 7)), 7, 6))
    h = n.op("Softmax", n.op("Mul", h, n.weight("scale", 6, 1, 1)), axis=1, out="soft")
    return n.build(n.conv("c3", h, 6, 4), ["batch", 3, 5, 5])


def fates(model: onnx.ModelProto, name: str, folder: Path) -> dict[tuple[str, int], AxisFate]:
    found = explain(prepared(model, folder).analysis, name)
    return {axis.ref: axis for axis in found.axes}


def test_the_path_to_the_operator_in_the_way(tmp_path: Path) -> None:
    found = fates(softmaxed(), "c2.weight", tmp_path)
    out = found["c2.weight", 0]
    assert out.groups == ()
    assert out.frozen == out.size == 6
    assert out.cause is not None
    assert (out.cause.operator, out.cause.node) == ("Softmax", "soft/node")
    assert out.cause.reason == "it normalises over this axis"
    names = [ref[0] for ref, _ in out.path]
    assert names[0] == "c2.weight"
    assert names[1:3] == ["c2", "relu_3"]
    nodes = [node for _, node in out.path]
    assert nodes[:3] == ["", "c2/node", "relu_3/node"]
    assert len(nodes) == 4  # the shortest way ends at the softmax's own input
    assert [group.name for group in found["c2.weight", 1].groups] == ["c1"]
    assert found["c2.weight", 1].cause is None


def test_inputs_and_outputs_of_the_model(tmp_path: Path) -> None:
    found = fates(softmaxed(), "c3.weight", tmp_path)
    cause = found["c3.weight", 0].cause
    assert cause is not None
    assert cause.reason == "it is an output of the model"
    cause = fates(softmaxed(), "c1.weight", tmp_path)["c1.weight", 1].cause
    assert cause is not None
    assert cause.reason == "it is an input of the model"


def test_a_node_tells_of_all_its_tensors_and_a_group_of_all_its_axes(tmp_path: Path) -> None:
    net = prepared(ZOO["residual"](), tmp_path)
    node = explain(net.analysis, "b1.conv1/node")
    assert node.kind == "node"
    assert {axis.ref[0] for axis in node.axes} >= {"b1.conv1.weight", "b1.conv1"}
    group = explain(net.analysis, "stem")
    assert group.kind == "group"
    assert all(axis.groups[0].name == "stem" and axis.frozen == 0 for axis in group.axes)
    assert {axis.ref for axis in group.axes} == net.analysis.groups[0].slices.keys()


def test_slices_that_nobody_reads_or_that_leave_only_together(tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 6))
    n.conv("unread", h, 6, 5)
    shuffled = n.op("Reshape", h, n.ints("split", 0, 2, 3, 5, 5))
    shuffled = n.op(
        "Reshape", n.op("Transpose", shuffled, perm=[0, 2, 1, 3, 4]), n.ints("s", 0, 6, 5, 5)
    )
    y = n.conv("c2", n.op("Add", shuffled, h), 6, 4)
    net = prepared(n.build(y, ["batch", 3, 5, 5]), tmp_path)
    assert net.analysis.groups == ()
    found = {axis.ref: axis for axis in explain(net.analysis, "c1.weight").axes}
    assert found["c1.weight", 0].cause is not None or found["c1.weight", 0].note


def test_an_unknown_name_suggests_others(tmp_path: Path) -> None:
    net = prepared(softmaxed(), tmp_path)
    with pytest.raises(InputError, match=r"'c2\.wieght': no group, node or tensor .*'c2\.weight'"):
        explain(net.analysis, "c2.wieght")


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(softmaxed(), path)
    told = run("inspect", path, "--why", "c2.weight")
    assert told.code == 0
    assert "6 stay: Softmax 'soft/node': it normalises over this axis" in told.out
    assert "'c2/node' ties it to c2, axis 1" in told.out
    assert "axis 1: 7 positions; group 'c1': 7 units" in told.out
    told = run("inspect", path, "--why", "c2", "--why", "c1", "--json")
    value = json.loads(told.out)
    assert value["schema"] == "onnxtrim.inspect/1"
    assert [item["kind"] for item in value["why"]] == ["tensor", "group"]
    axis = value["why"][0]["axes"][0]
    assert (axis["operator"], axis["path"][0]["tensor"]) == ("Softmax", "c2")
    refused = run("inspect", path, "--why", "nothing like it at all")
    assert (refused.code, refused.out) == (2, "")
    assert len(refused.err.splitlines()) == 1
