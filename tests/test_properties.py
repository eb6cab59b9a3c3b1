"""What must hold of statistics, orders and repairs, on nets and data drawn at random."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxtrim.bench.session import RunOptions, open_session
from onnxtrim.export.model_io import model_bytes
from onnxtrim.toolkit import least_squares
from onnxtrim.toolkit.apply import apply_plan
from onnxtrim.toolkit.budget import Budget
from onnxtrim.toolkit.comoments import join
from onnxtrim.toolkit.graph.surgery import remove_units
from onnxtrim.toolkit.least_squares import repair_channels
from onnxtrim.toolkit.plan import Plan
from onnxtrim.toolkit.planner import Planner, look
from onnxtrim.toolkit.prepare import Prepared, prepare
from onnxtrim.toolkit.repair import fold_means
from onnxtrim.toolkit.second_moments import gather_halves
from onnxtrim.toolkit.statistics import gather, merge
from tests.nets import Net

Array = NDArray[Any]
KINDS = ("gemm", "matmul", "conv", "strided")


@dataclass(frozen=True)
class Case:
    """A net of two linear layers with a ReLU between them.

    Attributes:
        kind: Of layers.
        units: Between them.
        gone: Which of them leave.
        outputs: Of the second.
        seed: Of weights and inputs.
        far: Mean of the inputs, in their standard deviations.
    """

    kind: str
    units: int
    gone: tuple[int, ...]
    outputs: int
    seed: int
    far: float

    @property
    def keep(self) -> NDArray[np.bool_]:
        return ~np.isin(np.arange(self.units), self.gone)

    def inputs(self, count: int = 192) -> Array:
        rng = np.random.default_rng(self.seed + 1)
        dense = self.kind in ("gemm", "matmul")
        x = rng.standard_normal((count, 4) if dense else (count // 4, 4, 5, 6)) + self.far
        return x.astype(np.float32)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    units = draw(st.integers(3, 9))
    gone = draw(st.sets(st.integers(0, units - 1), min_size=1, max_size=units // 2))
    return Case(
        draw(st.sampled_from(KINDS)),
        units,
        tuple(sorted(gone)),
        draw(st.integers(1, 5)),
        draw(st.integers(0, 10_000)),
        draw(st.sampled_from([0.0, 1.0, 30.0])),
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One for all examples: Hypothesis makes none of its own."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def opened(
    case: Case, folder: Path, *, same: bool = False, constant: bool = False
) -> tuple[Prepared, Any]:
    """The net; units that leave are the first one that stays, or constant, if so asked."""
    n = Net(case.seed)

    def layer(name: str, x: str, a: int, b: int) -> str:
        if case.kind == "gemm":
            return n.gemm(name, x, a, b)
        if case.kind == "matmul":
            return n.matmul(name, x, a, b)
        stride = 2 if case.kind == "strided" and name == "fc2" else 1
        return n.conv(name, x, a, b, pad=False, strides=[stride, stride])

    y = layer("fc2", n.relu(layer("fc1", "x", 4, case.units)), case.units, case.outputs)
    stays = int(np.flatnonzero(case.keep)[0])
    for number, tensor in enumerate(n.weights):
        array = np.array(onnx.numpy_helper.to_array(tensor))
        if tensor.name in ("fc1.weight", "fc1.bias"):
            rows = array.T if case.kind == "matmul" else array
            if same:
                rows[list(case.gone)] = rows[stays]
            if constant and tensor.name == "fc1.weight":
                rows[list(case.gone)] = 0
            array = rows.T if case.kind == "matmul" else rows
            n.weights[number] = onnx.numpy_helper.from_array(
                np.ascontiguousarray(array), tensor.name
            )
    dense = case.kind in ("gemm", "matmul")
    path = folder / "net.onnx"
    onnx.save(n.build(y, ["n", 4] if dense else ["n", 4, 5, 6]), path)
    net, data = prepare(path, {"x": case.inputs()})
    assume(net.analysis.groups)
    return net, data


def outputs(net: Prepared, model: Any, x: Array) -> tuple[Array, Array]:
    """Of the original and of another model, in double precision."""
    found = [
        open_session(file, RunOptions()).run(None, {"x": x})[0].astype(np.float64)
        for file in (net.path, model_bytes(model))
    ]
    return found[0], found[1]


@settings(max_examples=20, deadline=None)
@given(case=cases())
def test_constant_units_leave_without_a_trace(case: Case, folder: Path) -> None:
    net, data = opened(case, folder, constant=True)
    (group,) = net.analysis.groups
    statistics = gather(net.analysis, data, net.sha256)
    keep = {group.name: case.keep}
    folded = fold_means(net.analysis, keep, statistics)
    small = remove_units(folded.model, net.analysis, keep, folded.new_biases)
    one, two = outputs(net, small, case.inputs())
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5 * np.abs(one).max())


@settings(max_examples=20, deadline=None)
@given(case=cases())
def test_duplicated_units_leave_without_a_trace(case: Case, folder: Path) -> None:
    net, data = opened(case, folder, same=True)
    (group,) = net.analysis.groups
    keep = {group.name: case.keep}
    seen = look(net, data)
    one, none = outputs(net, remove_units(net.analysis.model, net.analysis, keep), case.inputs())
    assume(float(((one - none) ** 2).mean()) > 1e-6 * float(one.var()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(least_squares, "RIDGE", 1e-9)
        repaired = repair_channels(net.analysis, keep, seen.solver.moments)
    small = remove_units(repaired.model, net.analysis, keep, repaired.new_biases)
    one, two = outputs(net, small, case.inputs())
    np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-4 * np.abs(one).max())


@settings(max_examples=20, deadline=None)
@given(case=cases())
def test_the_squared_error_is_as_predicted(case: Case, folder: Path) -> None:
    """By the Schur complement, on the samples of the fit, to 1%."""
    assume(case.kind in ("gemm", "matmul"))
    net, data = opened(case, folder)
    (group,) = net.analysis.groups
    keep = {group.name: case.keep}
    moments = look(net, data).solver.moments
    gram = next(iter(moments.values())).covariance
    weight = _weight(net, case)
    stay, gone = np.flatnonzero(case.keep), np.flatnonzero(~case.keep)
    solved = np.linalg.pinv(gram[np.ix_(stay, stay)]) @ gram[np.ix_(stay, gone)]
    left = gram[np.ix_(gone, gone)] - gram[np.ix_(gone, stay)] @ solved
    predicted = float(np.trace(weight[gone].T @ left @ weight[gone]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(least_squares, "RIDGE", 1e-9)
        repaired = repair_channels(net.analysis, keep, moments)
    small = remove_units(repaired.model, net.analysis, keep, repaired.new_biases)
    one, two = outputs(net, small, case.inputs())
    assume(predicted > 1e-6 * float((one**2).mean()))  # or float32 is what differs
    measured = float(((one - two) ** 2).sum(1).mean())
    assert measured == pytest.approx(predicted, rel=0.01)


def _weight(net: Prepared, case: Case) -> Array:
    value = net.analysis.model.graph.initializers["fc2.weight"].const_value
    assert value is not None
    weight = value.numpy().astype(np.float64)
    return weight if case.kind == "matmul" else weight.T


@settings(max_examples=20, deadline=None)
@given(case=cases(), cut=st.integers(1, 47))
def test_statistics_of_parts_are_those_of_the_whole(case: Case, cut: int, folder: Path) -> None:
    net, whole = opened(case, folder)
    x = case.inputs()
    cut = min(cut, len(x) - 1)
    points = list(net.analysis.consumer_inputs())
    parts = []
    for rows in (x[:cut], x[cut:]):
        data = prepare(net.path, {"x": rows})[1]
        assert data is not None
        one, other = gather_halves(net.analysis, points, data, 16)
        parts.append((gather(net.analysis, data, net.sha256), join(one, other)))
    at_once = gather(net.analysis, whole, net.sha256)
    pairs = join(*gather_halves(net.analysis, points, whole, 16))
    merged = merge(parts[0][0], parts[1][0])
    for ref in points:
        assert merged.points[ref].count == at_once.points[ref].count
        for part in ("mean", "m2", "abs_mean", "zeros", "low", "high"):
            want, got = (getattr(found.points[ref], part) for found in (at_once, merged))
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        joined = parts[0][1][ref].merge(parts[1][1][ref])
        scale = float(np.abs(pairs[ref].comoment).max())
        np.testing.assert_allclose(joined.comoment, pairs[ref].comoment, atol=1e-5 * scale + 1e-5)


@settings(max_examples=10, deadline=None)
@given(case=cases(), shares=st.lists(st.floats(0.05, 0.6), min_size=2, max_size=4, unique=True))
def test_a_larger_budget_holds_the_smaller(case: Case, shares: list[float], folder: Path) -> None:
    net, data = opened(case, folder)
    planner = Planner(net, data)
    before: set[int] = set()
    for share in sorted(shares):
        plan = planner.plan(Budget("remove", share))
        now = {unit for removal in plan.removals for unit in removal.remove}
        assert before <= now
        before = now


@settings(max_examples=10, deadline=None)
@given(case=cases())
def test_nothing_removed_is_the_same_model_to_the_bit(case: Case, folder: Path) -> None:
    net, data = opened(case, folder)
    empty = Plan(net.sha256, data.sha256, {"name": "none"}, ())
    for repair in (None, look(net, data).solver):
        result = apply_plan(net, empty, repair, data)
        assert result.parameters.after == result.parameters.before
        assert result.divergence == 0
        one = open_session(net.path, RunOptions()).run(None, {"x": case.inputs()})[0]
        two = open_session(model_bytes(result.model), RunOptions()).run(None, {"x": case.inputs()})
        np.testing.assert_array_equal(two[0], one)
        for name, value in net.analysis.model.graph.initializers.items():
            assert value.const_value is not None
            now = result.model.graph.initializers[name].const_value
            assert now is not None
            assert now.numpy().tobytes() == value.const_value.numpy().tobytes()
