"""Budgets: moments, least squares, allocation, and the way from the command to the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import onnxtrim
from onnxtrim.bench.data import DataSource
from onnxtrim.bench.report.trade_off import overview
from onnxtrim.bench.run_folder import load_run
from onnxtrim.bench.session import RunOptions, open_session
from onnxtrim.export.model_io import model_bytes
from onnxtrim.toolkit import allocation, orders, second_moments
from onnxtrim.toolkit.allocation import GlobalOrder, Probes
from onnxtrim.toolkit.apply import TrimResult
from onnxtrim.toolkit.budget import Budget
from onnxtrim.toolkit.comoments import SecondMoments
from onnxtrim.toolkit.divergence import Divergence
from onnxtrim.toolkit.graph.execute import Prober
from onnxtrim.toolkit.graph.surgery import parameters_after, remove_units
from onnxtrim.toolkit.least_squares import repair_channels
from onnxtrim.toolkit.limits import Limits
from onnxtrim.toolkit.orders import CRITERIA, order_units
from onnxtrim.toolkit.planner import Planner, look
from onnxtrim.toolkit.prepare import Prepared, prepare
from onnxtrim.toolkit.second_moments import gather_halves
from onnxtrim.toolkit.sequential import repair_in_sequence
from onnxtrim.toolkit.sizes import MACS, PARAMETERS, cost_sizes
from onnxtrim.toolkit.statistics import gather
from tests.cli import PAIR, UNMEASURED, refused, run
from tests.nets import Net
from tests.zoo import ZOO

Array = NDArray[Any]


def moments(x: Array) -> SecondMoments:
    centred = x - x.mean(0)
    return SecondMoments(len(x), x.mean(0), centred.T @ centred)


@given(st.integers(0, 1000), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_moments_merge_to_those_of_the_whole(seed: int, sizes: list[int]) -> None:
    """Also where the mean is far larger than the spread."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((sum(sizes), 3)) * [1, 10, 0.1] + [1e4, 0, -30]
    merged: SecondMoments | None = None
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        merged = moments(part) if merged is None else merged.merge(moments(part))
    assert merged is not None
    whole = moments(x)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.comoment, whole.comoment, rtol=1e-7, atol=1e-5)
    np.testing.assert_allclose(whole.uncentred, x.T @ x / len(x), rtol=1e-9, atol=1e-6)


def opened(name: str, folder: Path, x: Array) -> tuple[Prepared, DataSource]:
    path = folder / f"{name}.onnx"
    onnx.save(ZOO[name](), path)
    net, data = prepare(path, {"x": x})
    assert data is not None
    return net, data


def normal(*shape: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_moments_are_those_of_numpy(tmp_path: Path) -> None:
    net, data = opened("mlp", tmp_path, normal(203, 8))
    points = list(dict.fromkeys(r for g in net.analysis.groups for r in g.consumer_inputs()))
    even, odd = gather_halves(net.analysis, points, data, 32)
    session = open_session(probed(net, [tensor for tensor, _ in points]), RunOptions())
    values = session.run(None, {"x": normal(203, 8)})
    for ref, value in zip(points, values, strict=True):
        pieces = np.split(value.astype(np.float64), range(32, 203, 32))
        for half, found in ((pieces[::2], even[ref]), (pieces[1::2], odd[ref])):
            want = moments(np.concatenate(half))
            assert found.count == want.count
            np.testing.assert_allclose(found.mean, want.mean, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found.comoment, want.comoment, rtol=1e-4, atol=1e-3)


def probed(net: Prepared, names: list[str]) -> bytes:
    model = onnx.load_from_string(model_bytes(net.analysis.model))
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return bytes(model.SerializeToString())


KEEP = np.array([True, True, True, True, False, False])  # of six units


def redundant(folder: Path, kind: str) -> tuple[Prepared, DataSource]:
    """A net of two linear layers, whose last two units of six are made of the others."""
    n = Net()
    if kind == "gemm":
        y = n.gemm("fc2", n.gemm("fc1", "x", 5, 6), 6, 3)
    elif kind == "matmul":
        y = n.matmul("fc2", n.gemm("fc1", "x", 5, 6), 6, 3)
    else:
        y = n.conv("fc2", n.conv("fc1", "x", 5, 6), 6, 3, pad=kind == "padded", bias=False)
    for number, tensor in enumerate(n.weights):
        array = np.array(onnx.numpy_helper.to_array(tensor))
        if tensor.name in ("fc1.weight", "fc1.bias"):
            array[4], array[5] = array[0], array[1] - 2 * array[2]
            n.weights[number] = onnx.numpy_helper.from_array(array, tensor.name)
    dense = kind in ("gemm", "matmul")
    path = folder / "net.onnx"
    onnx.save(n.build(y, ["n", 5] if dense else ["n", 5, 6, 7]), path)
    net, data = prepare(path, {"x": normal(300, 5) if dense else normal(60, 5, 6, 7)})
    assert data is not None
    return net, data


@pytest.mark.parametrize("kind", ["gemm", "matmul", "conv", "padded"])
@pytest.mark.parametrize("sequential", [False, True])
def test_dependent_units_leave_without_a_trace(tmp_path: Path, kind: str, sequential: bool) -> None:
    net, data = redundant(tmp_path, kind)
    analysis = net.analysis
    (group,) = analysis.groups
    seen = look(net, data)
    keep = {group.name: KEEP}
    repaired = repair_channels(analysis, keep, seen.solver.moments)
    if sequential:
        repaired = repair_in_sequence(analysis, keep, repaired, seen.solver.batches)
    small = remove_units(repaired.model, analysis, keep, repaired.new_biases)
    divergence = Divergence(analysis.model, seen.judged)
    assert divergence.of(remove_units(analysis.model, analysis, keep)) > 0.1
    assert divergence.of(small) < 1e-4  # the ridge takes a little


def feeds(data: DataSource) -> dict[str, Array]:
    return {"x": np.concatenate([batch.feeds["x"] for batch in data.batches(64)])}


def shape_of(name: str, folder: Path) -> tuple[int, ...]:
    """Of one sample, as the model states it."""
    path = folder / f"{name}.onnx"
    onnx.save(ZOO[name](), path)
    (spec,) = prepare(path, sizes={"height": 4, "width": 6})[0].inputs
    return tuple(size if isinstance(size, int) else 5 for size in spec.shape[1:])


def calibration(name: str, folder: Path, count: int = 160) -> Array:
    return normal(count, *shape_of(name, folder))


@pytest.mark.parametrize(
    "name", ["mlp", "residual", "mobile", "grouped", "dense", "squeeze_excite", "attention", "tied"]
)
def test_a_budget_is_met_and_repair_helps(name: str, tmp_path: Path) -> None:
    x = calibration(name, tmp_path)
    path = tmp_path / f"{name}.onnx"
    found = {
        repair: onnxtrim.trim(path, {"x": x}, remove=0.3, repair=repair)
        for repair in ("none", "channel", "sequential")
    }
    for result in found.values():
        assert result.parameters.after <= 0.7 * result.parameters.before
    assert found["channel"].plan.removals == found["sequential"].plan.removals
    none, channel, sequential = (result.divergence or 0.0 for result in found.values())
    assert channel < none
    assert sequential < 1.05 * channel
    expected = found["channel"].to_json()["predicted_error"]
    assert expected == pytest.approx(sum(predicted(found["channel"]).values()))


def predicted(result: TrimResult) -> dict[str, float]:
    value: dict[str, float] = result.plan.criterion["predicted_by_group"]
    return value


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_a_larger_budget_holds_the_smaller(name: str, tmp_path: Path) -> None:
    net, data = opened(name, tmp_path, calibration(name, tmp_path))
    before: dict[str, set[int]] = {}
    planner = Planner(net, data)
    for share in (0.2, 0.4, 0.6):
        plan = planner.plan(Budget("remove", share))
        now = {removal.group: set(removal.remove) for removal in plan.removals}
        assert all(units <= now[group] for group, units in before.items())
        before = now


def test_macs_and_bytes(tmp_path: Path) -> None:
    x = calibration("residual", tmp_path)
    path = tmp_path / "residual.onnx"
    half = onnxtrim.trim(path, {"x": x}, macs=0.5, repair="channel")
    assert 0.4 * half.macs.before < half.macs.after <= 0.5 * half.macs.before
    small = onnxtrim.trim(path, {"x": x}, size=9000, repair="none")
    assert 7000 < small.bytes.after <= 9000


@pytest.mark.parametrize("name", ZOO)
def test_models_run_from_where_they_differ(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = calibration(name, tmp_path)
    net, data = prepare(tmp_path / f"{name}.onnx", {"x": x})
    assert data is not None
    planner = Planner(net, data)
    probes = planner.probes
    measure = probes.divergence
    names = [group.name for group in net.analysis.groups]
    begun = dict.fromkeys(names[:1], 1)
    start = measure.beginning(probes.model_without(begun))
    fed: list[int] = []
    probed = Prober.probe

    def probe(self: Prober, wanted: Any, **options: Any) -> Any:
        fed.append(len(options.get("given") or ()))
        return probed(self, wanted, **options)

    monkeypatch.setattr(Prober, "probe", probe)
    for group in names:
        model = probes.model_without({**begun, group: 2})
        found = measure.of(model.clone(), start)
        assert found == pytest.approx(measure.of(model), rel=1e-4, abs=1e-9)
    assert len(names) < 3 or any(fed)


@pytest.mark.parametrize("name", ["mlp", "residual", "mobile", "squeeze_excite", "unet", "tied"])
@pytest.mark.parametrize("cost", [PARAMETERS, MACS])
def test_what_units_save_is_what_the_pruned_model_saves(
    name: str, cost: str, tmp_path: Path
) -> None:
    onnx.save(ZOO[name](), tmp_path / "net.onnx")
    analysis = prepare(tmp_path / "net.onnx")[0].analysis
    whole, budget = cost_sizes(analysis, cost), Budget("macs" if cost == MACS else "remove", 0.5)
    assert whole.total() == (analysis.macs if cost == MACS else analysis.parameters)
    for group in analysis.groups:
        half = np.arange(group.units) < group.units // 2
        left = budget.spent(analysis, {group.name: half})
        saved = cost_sizes(analysis, cost).saved(group.name, group.units - group.units // 2)
        assert whole.total() - saved == pytest.approx(left), group.name


def test_macs_are_taken_where_they_are(tmp_path: Path) -> None:
    """Early layers of a convolutional net have few parameters and many multiply-accumulates."""
    net, data = opened("residual", tmp_path, calibration("residual", tmp_path))
    planner = Planner(net, data)
    by_macs = planner.plan(Budget("macs", 0.5))
    spent = parameters_after(net.analysis, by_macs.stages[0].keep(net.analysis, ""))
    share = 1 - spent / net.analysis.parameters
    by_parameters = planner.plan(Budget("remove", share))
    macs = [
        Budget("macs", 0.5).spent(net.analysis, plan.stages[0].keep(net.analysis, ""))
        for plan in (by_macs, by_parameters)
    ]
    assert macs[0] < macs[1]


def test_the_order_takes_what_costs_least_per_parameter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, _ = opened("mlp", tmp_path, normal(100, 8))
    groups = net.analysis.groups
    curves = {group.name: np.linspace(0, 1, group.units) for group in groups}
    dear, cheap = groups[0].name, groups[1].name
    curves[cheap] = curves[cheap] * 1e-6
    monkeypatch.setattr(allocation, "measure_curves", lambda *_: (0.0, curves))
    probes = Probes(net.analysis, {}, {}, cast(Divergence, None), Limits())
    order = GlobalOrder(probes, groups)
    while order.extend():
        pass
    names = [name for name, _ in order.steps]
    last_cheap = max(number for number, name in enumerate(names) if name == cheap)
    assert last_cheap < names.index(dear)
    for group in groups:  # the last unit never leaves
        assert sum(units for name, units in order.steps if name == group.name) == group.units - 1


def test_few_samples_are_told(tmp_path: Path) -> None:
    calibration("mlp", tmp_path)
    result = onnxtrim.trim(
        tmp_path / "mlp.onnx", {"x": normal(9, *shape_of("mlp", tmp_path))}, remove=0.3
    )
    assert any("9 calibration samples are few" in text for text in result.warnings)


def test_wide_axes_do_without_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the criterion is the output error, and the repair folds means."""
    x = {"x": calibration("residual", tmp_path)}
    path = tmp_path / "residual.onnx"
    every_pair = onnxtrim.trim(path, x, remove=0.3, repair="channel")
    monkeypatch.setattr(second_moments, "WIDE", 5)
    only_variances = onnxtrim.trim(path, x, remove=0.3, repair="channel")
    assert only_variances.parameters.after <= 0.7 * only_variances.parameters.before
    assert every_pair.divergence is not None
    assert only_variances.divergence is not None
    assert every_pair.divergence < only_variances.divergence


def by_size_of_first_weight(sight: orders.Sight) -> Array:
    """A criterion of a user's own."""
    return np.arange(sight.group.units)


def scalar(sight: orders.Sight) -> float:
    """A wrong one."""
    return 0.0


def test_criteria(tmp_path: Path) -> None:
    x = {"x": calibration("residual", tmp_path)}
    path = tmp_path / "residual.onnx"
    own = f"{__name__}:by_size_of_first_weight"
    found = {
        name: onnxtrim.trim(path, x, remove=0.4, criterion=name, repair="channel")
        for name in ("reconstruction", *CRITERIA, own)
    }
    for name, result in found.items():
        assert result.plan.criterion["name"] == name
        assert result.parameters.removed > 0.38
    first = next(iter(found[own].plan.removals))
    assert first.remove == tuple(range(len(first.remove)))
    best = found["reconstruction"].divergence
    assert best is not None
    assert best < (found["random"].divergence or 0.0)
    for wrong, says in ((f"{__name__}:scalar", "finite numbers"), ("best", "must be one of")):
        with pytest.raises(onnxtrim.InputError, match=says):
            onnxtrim.trim(path, x, remove=0.4, criterion=wrong)


def test_the_orders_of_simple_criteria(tmp_path: Path) -> None:
    net, data = redundant(tmp_path, "gemm")
    (group,) = net.analysis.groups
    seen = look(net, data)
    weights = {
        name: value.const_value.numpy().astype(np.float64)
        for name, value in net.analysis.model.graph.initializers.items()
        if value.const_value is not None
    }
    (found,) = seen.solver.moments.values()
    spread = np.diag(found.covariance)
    want = {
        "variance": spread,
        "output-error": spread * (weights["fc2.weight"] ** 2).sum(axis=0),
        "magnitude": (weights["fc1.weight"] ** 2).sum(axis=1),
    }
    for name, scores in want.items():
        order = order_units(net.analysis, seen.solver.moments, name)[group.name]
        assert order.tolist() == np.argsort(scores, kind="stable").tolist(), name


def test_the_share_of_zeros_as_a_criterion(tmp_path: Path) -> None:
    net, data = opened("mlp", tmp_path, normal(203, 8))
    group = net.analysis.groups[0]
    tensor = group.consumer_inputs()[0][0]
    session = open_session(probed(net, [tensor]), RunOptions())
    values = session.run(None, dict(feeds(data)))[0]
    assert (values == 0).any()
    moments = look(net, data).solver.moments
    found = order_units(
        net.analysis, moments, "apoz", lambda: gather(net.analysis, data, net.sha256)
    )
    want = np.argsort((values != 0).mean(0), kind="stable")
    assert found[group.name].tolist() == want.tolist()
    with pytest.raises(onnxtrim.InputError, match="needs statistics"):
        order_units(net.analysis, moments, "apoz")


# --- the command --------------------------------------------------------------------------------


def test_the_command(here: Path) -> None:
    command = ("prune", "model.onnx", "--data", "calib.npz")
    value = run(
        *command, "--remove", "40%", "-o", "small.onnx", "--plan", "p.json", "--json"
    ).json()
    assert 0.4 <= value["removed"] < 0.5
    assert value["predicted_error"] > 0
    assert value["divergence"] < 0.1
    assert value["self_check"]["effect"] > 0
    plan = json.loads((here / "p.json").read_text())
    assert plan["criterion"]["budget"] == {"kind": "remove", "value": 0.4}
    again = ("prune", "model.onnx", "--data", "calib.npz", "--apply", "p.json", "-o", "b.onnx")
    assert run(*again).code == 0
    assert (here / "b.onnx").read_bytes() == (here / "small.onnx").read_bytes()
    plain = run("prune", "model.onnx", "--apply", "p.json", "-o", "c.onnx", "--json").json()
    assert plain["divergence"] is None
    assert run(*command, "--macs", "50%", "--plan-only", "-o", "q.json").code == 0


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (("--remove", "99.99%"), "at most", 1),
        (("--size", "10B"), "have at least", 1),
        (("--size", "1GB"), "within the budget as it is", 1),
        (("--remove", "0%"), "between 0% and 100%", 2),
        (("--remove", "lots"), "give a share such as 70%", 2),
        (("--size", "2 apples"), "give bytes such as 2MB", 2),
        (("--remove", "50%", "--repair", "mean"), "must be one of sequential", 2),
    ],
)
def test_budgets_that_are_refused(
    here: Path, arguments: tuple[str, ...], says: str, code: int
) -> None:
    command = ("prune", "model.onnx", "--data", "calib.npz", "-o", "small.onnx")
    refused(*command, *arguments, says=says, code=code)
    assert not (here / "small.onnx").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--remove", "50%", "--macs", "50%", "--data", "calib.npz"),
        ("--remove", "50%"),
        ("--remove", "50%", "--mean-below", "1", "--data", "calib.npz"),
        ("--remove", "50%", "--apply", "plan.json"),
        ("--max-drop", "1", "--data", "calib.npz"),
        ("--eval", "test.npz", "--remove", "50%", "--data", "calib.npz"),
        ("--repair", "mean", "--no-repair", "--data", "calib.npz"),
    ],
)
def test_options_that_exclude_each_other(here: Path, arguments: tuple[str, ...]) -> None:
    assert run("prune", "model.onnx", "-o", "small.onnx", *arguments).code == 2


def test_the_most_within_a_drop_of_accuracy(here: Path) -> None:
    command = ("prune", "model.onnx", "--data", "calib.npz", "--eval", "test.npz")
    found = {}
    for points in ("0.5", "10"):
        outputs = ("-o", f"{points}.onnx", "--plan", "p.json")
        arguments = (*command, "--max-drop", f"{points}pp", *outputs)
        found[points] = run(*arguments, "--json").json()
        metrics = run(
            *("compare", "model.onnx", f"{points}.onnx", "--eval", "test.npz", *UNMEASURED),
            "--json",
        ).json()["metrics"]
        assert metrics["accuracy.top1.delta"]["value"] >= -float(points)
    assert 0 < found["0.5"]["removed"] < found["10"]["removed"]
    budget = json.loads((here / "p.json").read_text())["criterion"]["budget"]
    assert (budget["kind"], budget["value"]) == ("max-drop", 10)
    assert len(budget["validation_sha256"]) == 64
    warned = run("compare", "model.onnx", "10.onnx", "--eval", "test.npz", *UNMEASURED)
    assert "used before, as validation data" in warned.err
    again = onnxtrim.trim("model.onnx", "calib.npz", max_drop=10, evaluation="test.npz")
    assert again.parameters.removed == found["10"]["removed"]
    with pytest.raises(onnxtrim.InputError, match="are the calibration data"):
        onnxtrim.trim("model.onnx", "test.npz", max_drop=10, evaluation="test.npz")
    with pytest.raises(onnxtrim.InputError, match="needs evaluation"):
        onnxtrim.trim("model.onnx", "calib.npz", max_drop=10)


def test_a_sweep_over_thresholds_and_budgets(here: Path) -> None:
    command = ("sweep", "model.onnx", "--data", "calib.npz", "--eval", "test.npz", "-o", "run")
    arguments = (*command, *PAIR, "--budgets", "30%,60%", *UNMEASURED)
    value = run(*arguments, "--json").json()
    assert [item["id"] for item in value["candidates"]] == ["m0.4-s0.6", "r30", "r60"]
    assert value["finished"] is True
    settings = [item["settings"] for item in value["candidates"]]
    assert settings[1:] == [{"remove": 0.3}, {"remove": 0.6}]
    for item, share in zip(value["candidates"][1:], (0.3, 0.6), strict=True):
        assert share <= item["removed"] < share + 0.1
        assert item["predicted_error"] > 0
        assert (here / "run" / item["model"]).is_file()
    before = (here / "run" / "results.jsonl").read_bytes()
    shown = run(*arguments)
    assert (here / "run" / "results.jsonl").read_bytes() == before
    assert "remove 30%" in shown.out
    assert run("report", "run").code == 0
    assert "remove 60%" in (here / "run" / "report.html").read_text(encoding="utf-8")
    alone = run(*command[:-1], "alone", "--budgets", "0.5", *UNMEASURED, "--json").json()
    assert [item["id"] for item in alone["candidates"]] == ["r50"]


def test_a_sweep_with_baselines(here: Path) -> None:
    """They are worse, and the report draws a line for each way."""
    command = ("sweep", "model.onnx", "--data", "calib.npz", "--eval", "test.npz", "-o", "run")
    baselines = ("--baseline", "magnitude", "--baseline", "random")
    value = run(*command, *baselines, "--budgets", "30%,60%", *UNMEASURED, "--json").json()
    ids = ["r30", "r60", "r30-magnitude", "r60-magnitude", "r30-random", "r60-random"]
    assert [item["id"] for item in value["candidates"]] == ids
    error = {item["id"]: item["divergence"] for item in value["candidates"]}
    assert error["r60"] < min(error["r60-magnitude"], error["r60-random"])
    series = overview(load_run(here / "run")).plots[0].series
    assert [line.name for line in series] == [
        "budgets",
        "magnitude, no repair",
        "random, no repair",
    ]
    assert all(len(line.x) == 2 and line.x[0] < line.x[1] for line in series)
    assert run("report", "run", "--plots", "plots").code == 0
    page = (here / "run" / "report.html").read_text(encoding="utf-8")
    assert "by magnitude, no repair" in page
    assert run(*command[:-1], "alone", *baselines, *UNMEASURED).code == 2


@pytest.mark.parametrize(
    ("budgets", "says", "code"),
    [("30%,30%", "twice", 2), ("30%,x", "give a share", 2), ("30%,99.99%", "at most", 1)],
)
def test_sweeps_over_budgets_that_are_refused(
    here: Path, budgets: str, says: str, code: int
) -> None:
    command = ("sweep", "model.onnx", "--data", "calib.npz", "-o", "run", *UNMEASURED)
    refused(*command, "--budgets", budgets, says=says, code=code)
