"""The threshold rule, exactly as it was published, on units made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.criteria import Threshold
from onnxtrim.toolkit.graph.groups import Group
from onnxtrim.toolkit.plan import make_plan
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.statistics import Moments, gather
from tests.nets import Net

COUNT = 100


def moments(mean: list[float], std: list[float]) -> Moments:
    m, s = np.array(mean), np.array(std)
    return Moments(COUNT, m, s**2 * COUNT, np.abs(m), np.zeros(len(m)), m - s, m + s)


def group(units: int) -> Group:
    return Group("g", units, {("g", 1): np.arange(units)}, (), 0, 0)


def chosen(rule: Threshold, *entries: Moments) -> list[int]:
    return [int(i) for i in rule.choose(group(len(entries[0].mean)), entries).order]


def test_both_must_be_below() -> None:
    mean = [0.05, 0.05, 0.50, 0.50, 0.0]
    std = [0.10, 0.90, 0.10, 0.90, 0.0]
    assert chosen(Threshold(0.1, 0.4), moments(mean, std)) == [4, 0]


def test_below_means_below() -> None:
    """Equal to a threshold stays: mean < t1 and std < t2."""
    mean = [0.25, 0.25 - 1e-9, 0.0, 0.0, 1.0]
    std = [0.0, 0.0, 0.5, 0.5 - 1e-9, 1.0]
    assert chosen(Threshold(0.25, 0.5), moments(mean, std)) == [1, 3]


def test_negative_means() -> None:
    values = moments([-5.0, -0.05, 0.05, 3.0], [0.1, 0.1, 0.1, 0.1])
    assert chosen(Threshold(0.1, 0.4), values) == [1, 2, 0]  # as published: below is below
    assert chosen(Threshold(0.1, 0.4, absolute=True), values) == [1, 2]


def test_every_consumer_must_agree() -> None:
    one = moments([0.0, 0.0, 0.0, 9.0], [0.1, 0.1, 0.1, 0.1])
    other = moments([0.0, 0.9, 0.05, 9.0], [0.1, 0.1, 0.3, 0.1])
    assert chosen(Threshold(0.1, 0.2), one) == [0, 1, 2]
    assert chosen(Threshold(0.1, 0.2), one, other) == [0]
    assert chosen(Threshold(0.1, 0.4), one, other) == [0, 2]


def test_the_weakest_leaves_first() -> None:
    values = moments([0.3, 0.0, 0.1, 0.2], [0.0, 0.01, 0.3, 0.0])
    assert chosen(Threshold(1.0, 1.0), values) == [1, 3, 0]  # 2 is the best of all: it stays


def test_a_group_is_never_emptied() -> None:
    values = moments([0.01, 0.04, 0.02], [0.01, 0.01, 0.01])
    choice = Threshold(1.0, 1.0).choose(group(3), [values])
    assert choice.emptied
    assert choice.order.tolist() == [0, 2]
    assert not Threshold(0.03, 1.0).choose(group(3), [values]).emptied


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_thresholds(bad: float) -> None:
    with pytest.raises(InputError, match="--mean-below"):
        Threshold(bad, 0.4)
    with pytest.raises(InputError, match="--std-below"):
        Threshold(0.1, bad)


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_a_deviation_is_never_below_zero(bad: float) -> None:
    with pytest.raises(InputError, match="must be above 0"):
        Threshold(0.1, bad)
    assert Threshold(-0.5, 0.1).mean_below == -0.5  # a mean can be


def made_by_hand(folder: Path, activation: str) -> Path:
    """Six units: off; constant 0.2; weak; weak but shifted; strong; strong the other way."""
    weight = np.array([[0, 0, 0.1, 0.1, 2, -2]], np.float32)
    bias = np.array([-1, 0.2, 0, 0.5, 0, 0], np.float32)
    n = Net()
    h = n.op("Gemm", "x", n.constant("fc1.weight", weight), n.constant("fc1.bias", bias), out="fc1")
    model = n.build(n.gemm("fc2", n.op(activation, h), 6, 2), ["batch", 1])
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert numpy_helper.to_array(model.graph.initializer[0]).shape == (1, 6)
    return path


@pytest.mark.parametrize(
    ("activation", "mean_below", "std_below", "absolute", "leaves"),
    [
        ("Relu", 0.1, 0.4, False, {0, 2}),
        ("Relu", 0.3, 0.4, False, {0, 1, 2}),
        ("Relu", 0.6, 0.4, False, {0, 1, 2, 3}),
        ("Relu", 0.1, 0.01, False, {0}),
        ("Identity", 0.1, 0.4, False, {0, 2}),  # -1 is below 0.1
        ("Identity", 0.1, 0.4, True, {2}),
        ("Identity", 0.1, 9.0, True, {2, 4, 5}),
    ],
)
def test_after_the_activation(
    activation: str,
    mean_below: float,
    std_below: float,
    absolute: bool,
    leaves: set[int],
    tmp_path: Path,
) -> None:
    x = np.linspace(-2, 2, 401, dtype=np.float32)[:, None]
    net, data = prepare(made_by_hand(tmp_path, activation), {"x": x})
    assert data is not None
    statistics = gather(net.analysis, data, net.sha256)
    plan = make_plan(net.analysis, statistics, Threshold(mean_below, std_below, absolute))
    assert [set(removal.remove) for removal in plan.removals] == [leaves]
    assert plan.warnings == ()
    assert plan.criterion == {
        "name": "threshold",
        "mean_below": mean_below,
        "std_below": std_below,
        "absolute": absolute,
    }


def test_a_plan_that_would_empty_a_group_warns(tmp_path: Path) -> None:
    x = np.linspace(-2, 2, 401, dtype=np.float32)[:, None]
    net, data = prepare(made_by_hand(tmp_path, "Relu"), {"x": x})
    assert data is not None
    plan = make_plan(net.analysis, gather(net.analysis, data, net.sha256), Threshold(9.0, 9.0))
    assert plan.warnings == (
        "group 'fc1': all 6 units are below the thresholds; the best one stays",
    )
    (removal,) = plan.removals
    assert removal.mask().sum() == 1
    assert removal.mask()[[4, 5]].any()
