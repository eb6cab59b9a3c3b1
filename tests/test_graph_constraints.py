"""What the axes can't spare comes back, the best units first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxtrim.toolkit.graph.constraints import satisfy
from onnxtrim.toolkit.graph.surgery import positions
from onnxtrim.toolkit.prepare import Prepared
from tests.nets import Net, prepared
from tests.zoo import ZOO


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A consumer reads only the first 9 of 14 channels, another one all."""
    n = Net()
    h = n.relu(n.conv("c1", "x", 3, 14))
    part = n.op("Slice", h, n.ints("from", 0), n.ints("to", 9), n.ints("axis", 1))
    y = n.op("Add", n.conv("c2", part, 9, 4), n.conv("c3", h, 14, 4))
    return prepared(n.build(y, ["batch", 3, 5, 5]), tmp_path_factory.mktemp("cut"))


def test_two_groups_lie_on_one_axis(cut: Prepared) -> None:
    assert [group.units for group in cut.analysis.groups] == [9, 5]
    assert all(("c1.weight", 0) in group.slices for group in cut.analysis.groups)


def test_a_group_may_vanish_where_its_axes_keep_others(cut: Prepared) -> None:
    first, second = cut.analysis.groups
    everything = {first.name: np.arange(9)[::-1], second.name: np.arange(5)}
    keep = satisfy(cut.analysis, everything)
    assert keep[first.name].tolist() == [True, *[False] * 8]  # the slice needs one of its own
    assert not keep[second.name].any()


@pytest.mark.parametrize("align", [2, 4, 8])
def test_axes_of_weights_keep_multiples(cut: Prepared, align: int) -> None:
    first, second = cut.analysis.groups
    keep = satisfy(cut.analysis, {first.name: np.arange(5), second.name: np.arange(2)}, align)
    stays = positions(cut.analysis, keep)
    for (tensor, axis), mask in stays.items():
        if tensor.endswith(".weight"):
            assert mask.sum() % align == 0 or mask.all(), (tensor, axis)


def test_the_last_to_go_come_back_first(tmp_path: Path) -> None:
    net = prepared(ZOO["mlp"](), tmp_path)
    order = np.array([3, 1, 7, 0, 9])  # of 12 units
    keep = satisfy(net.analysis, {"fc1": order}, 8)
    assert np.flatnonzero(~keep["fc1"]).tolist() == [0, 1, 3, 7]
    assert satisfy(net.analysis, {"fc1": order[:3]}, 12) == {}
    assert satisfy(net.analysis, {}) == {}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), align=st.sampled_from([1, 2, 3, 4]))
def test_any_removal_becomes_possible(cut: Prepared, data: st.DataObject, align: int) -> None:
    orders = {
        group.name: np.array(
            data.draw(st.permutations(range(group.units)))[
                : data.draw(st.integers(0, group.units))
            ],
            np.int64,
        )
        for group in cut.analysis.groups
    }
    keep = satisfy(cut.analysis, orders, align)
    stays = positions(cut.analysis, keep)  # raises where an axis would be empty
    for name, mask in keep.items():
        gone = np.flatnonzero(~mask)
        assert set(gone) == set(orders[name][: len(gone)])  # a prefix of the wish
    for (tensor, _), mask in stays.items():
        if tensor.endswith(".weight"):
            assert mask.sum() % align == 0 or mask.all()
