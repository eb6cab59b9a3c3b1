"""The one-call API, plans, and the questions to which the answer is no."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

import onnxtrim
from onnxtrim.bench.errors import InputError, NothingToRemoveError, SelfCheckError
from onnxtrim.bench.size import model_size
from onnxtrim.toolkit.apply import apply_plan
from onnxtrim.toolkit.criteria import Threshold
from onnxtrim.toolkit.graph import surgery
from onnxtrim.toolkit.plan import Plan, make_plan
from onnxtrim.toolkit.prepare import Prepared, prepare
from onnxtrim.toolkit.repair import MeanFolding
from onnxtrim.toolkit.statistics import Statistics, gather
from tests.nets import Net
from tests.zoo import ZOO

Array = NDArray[Any]
THRESHOLDS: dict[str, Any] = {"mean_below": 0.6, "std_below": 0.7}


def images(count: int = 200) -> Array:
    return np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(ZOO["residual"](), path)
    return path


def studied(path: Path, x: Array) -> tuple[Prepared, Statistics]:
    net, data = prepare(path, {"x": x})
    assert data is not None
    return net, gather(net.analysis, data, net.sha256)


def run(path: Path, x: Array) -> Array:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("repair", ["mean", "none"])
def test_a_file_and_arrays(model: Path, repair: str) -> None:
    seen: list[tuple[str, int, int | None]] = []
    result = onnxtrim.trim(
        model,
        {"x": images()},
        **THRESHOLDS,
        repair=repair,
        batch=64,
        progress=lambda *now: seen.append(now),
    )
    assert seen[-1] == ("statistics", 200, 200)
    out = model.with_name("small.onnx")
    result.save(out)
    before, after = model_size(model), model_size(out)
    assert 0 < result.parameters.removed < 1
    assert (result.bytes.before, result.bytes.after) == (
        before.initializer_bytes,
        after.initializer_bytes,
    )
    assert after.initializer_bytes < before.initializer_bytes
    assert result.macs.after < result.macs.before
    assert result.self_check.effect > 0
    assert result.divergence is not None
    assert result.divergence > 0
    assert run(out, images(5)).shape == (5, 5)
    assert not [text for text in result.warnings if "not repaired" in text]
    names = {item.name for item in onnx.load(out).graph.input}
    assert names == {"x"}
    told = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert told["removed"] == pytest.approx(1 - told["parameters"]["after"] / 3929)
    assert {row["name"] for row in told["groups"]} == set(result.groups)
    assert f"{result.parameters.after:,} parameters" in result.summary()


def test_repair_brings_the_outputs_nearer(model: Path) -> None:
    results = {
        repair: onnxtrim.trim(model, {"x": images()}, **THRESHOLDS, repair=repair)
        for repair in ("mean", "none")
    }
    assert results["mean"].plan.kept_hash() == results["none"].plan.kept_hash()
    repaired, bare = results["mean"].divergence, results["none"].divergence
    assert repaired is not None
    assert bare is not None
    assert repaired < bare


def test_an_npz_file_gives_the_same(model: Path) -> None:
    np.savez(model.with_name("calib.npz"), x=images())
    one = onnxtrim.trim(str(model), str(model.with_name("calib.npz")), **THRESHOLDS)
    other = onnxtrim.trim(model, {"x": images()}, **THRESHOLDS)
    assert one.plan.kept_hash() == other.plan.kept_hash()
    assert one.plan.removals == other.plan.removals
    assert one.divergence == other.divergence


def test_the_original_is_not_overwritten(model: Path) -> None:
    before = model.read_bytes()
    result = onnxtrim.trim(model, {"x": images()}, **THRESHOLDS)
    with pytest.raises(InputError, match="same file"):
        result.save(model)
    assert model.read_bytes() == before


def test_a_torch_module() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU())
    module.append(nn.Linear(30, 4))
    x = np.random.default_rng(0).standard_normal((300, 5, 8)).astype(np.float32)
    example = (torch.zeros(1, 5, 8),)
    (name,) = _inputs(module, example)
    result = onnxtrim.trim(module, {name: x}, mean_below=0.2, std_below=0.4, example_inputs=example)
    assert list(result.groups) == ["0", "2"]
    assert result.parameters.before == 40 * 9 + 30 * 41 + 4 * 31
    kept = [change.after for change in result.groups.values()]
    assert kept < [40, 30]
    a, b = kept
    assert result.parameters.after == a * 9 + b * (a + 1) + 4 * (b + 1)
    assert result.macs.after == 5 * (8 * a + a * b + b * 4)
    assert not result.warnings
    with pytest.raises(InputError, match="example_inputs"):
        onnxtrim.trim(module, {name: x}, **THRESHOLDS)


def _inputs(module: Any, example: tuple[Any, ...]) -> list[str]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        onnxtrim.export_module(module, example, path)
        return [item.name for item in onnx.load(path).graph.input]


def test_an_unknown_repair(model: Path) -> None:
    with pytest.raises(InputError, match="repair 'magic': must be one of mean, none"):
        onnxtrim.trim(model, {"x": images()}, **THRESHOLDS, repair="magic")


def test_nothing_below_the_thresholds(model: Path) -> None:
    with pytest.raises(NothingToRemoveError, match=r"no unit is below both .*smallest mean"):
        onnxtrim.trim(model, {"x": images()}, mean_below=-1e6, std_below=0.1)


def test_everything_is_frozen(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    n = Net()
    h = n.op("CumSum", n.gemm("fc1", "x", 8, 6), n.constant("axis", np.array(1, np.int64)))
    onnx.save(n.build(n.gemm("fc2", h, 6, 2), ["batch", 8]), path)
    x = np.ones((4, 8), np.float32)
    with pytest.raises(NothingToRemoveError) as caught:
        onnxtrim.trim(path, {"x": x}, **THRESHOLDS)
    for reason in ("fc1.weight: it computes over this axis", "fc2.weight: it is an output"):
        assert reason in str(caught.value)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_the_plan_is_deterministic(model: Path) -> None:
    plans = []
    for batch in (256, 256):
        net, data = prepare(model, {"x": images()})
        assert data is not None
        statistics = gather(net.analysis, data, net.sha256, batch=batch)
        plans.append(make_plan(net.analysis, statistics, Threshold(0.6, 0.7)))
    assert plans[0] == plans[1]
    assert plans[0].kept_hash() == plans[1].kept_hash()
    net, statistics = studied(model, images())
    other = make_plan(net.analysis, statistics, Threshold(0.6, 0.5))
    assert other.kept_hash() != plans[0].kept_hash()


def test_the_pruned_file_is_deterministic(model: Path) -> None:
    paths = [model.with_name(name) for name in ("a.onnx", "b.onnx")]
    for path in paths:
        onnxtrim.trim(model, {"x": images()}, **THRESHOLDS).save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_plan_goes_through_a_file(model: Path, tmp_path: Path) -> None:
    net, statistics = studied(model, images())
    plan = make_plan(net.analysis, statistics, Threshold(0.6, 0.7))
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    loaded.require(net.analysis, net.sha256, "plan.json")
    result = apply_plan(net, loaded, MeanFolding(statistics))
    assert result.divergence is None
    wanted = onnxtrim.trim(model, {"x": images()}, **THRESHOLDS)
    assert result.parameters == wanted.parameters


def test_an_empty_plan_gives_the_same_function(model: Path, tmp_path: Path) -> None:
    net, statistics = studied(model, images())
    plan = Plan(net.sha256, statistics.data_sha256, {}, ())
    result = apply_plan(net, plan, MeanFolding(statistics))
    assert result.parameters.before == result.parameters.after
    assert result.macs.before == result.macs.after
    result.save(tmp_path / "same.onnx")
    assert np.array_equal(run(tmp_path / "same.onnx", images(3)), run(model, images(3)))


def test_shared_biases_survive_the_whole_way(tmp_path: Path) -> None:
    """Equal biases of unrelated layers, in the file once; so they are afterwards."""
    path = tmp_path / "net.onnx"
    onnx.save(ZOO["shared_bias"](), path)
    x = np.random.default_rng(0).standard_normal((50, 3, 5, 5)).astype(np.float32)
    result = onnxtrim.trim(path, {"x": x}, mean_below=0.5, std_below=0.9, repair="none")
    result.save(tmp_path / "small.onnx")
    assert result.parameters.before == model_size(path).initializer_bytes // 4
    assert result.parameters.after == model_size(tmp_path / "small.onnx").initializer_bytes // 4


def test_plans_that_do_not_fit(model: Path, tmp_path: Path) -> None:
    net, statistics = studied(model, images())
    plan = make_plan(net.analysis, statistics, Threshold(0.6, 0.7))
    first = plan.removals[0]
    with pytest.raises(InputError, match="made for another model"):
        plan.require(net.analysis, "0" * 64, "plan.json")
    wrong: dict[str, list[dict[str, Any]]] = {
        "no such group": [{"tensor": "elsewhere"}, {"axis": 3}, {"units": first.units + 1}],
        "can't lose": [
            {"remove": ()},
            {"remove": (-1,)},
            {"remove": (0, 0)},
            {"remove": (first.units,)},
        ],
        "nothing would be left": [{"remove": tuple(range(first.units))}],
    }
    for reason, changes in wrong.items():
        for change in changes:
            removal = dataclasses.replace(first, **change)
            stage = dataclasses.replace(plan.stages[0], removals=(removal,))
            bad = dataclasses.replace(plan, stages=(stage,))
            with pytest.raises(InputError, match=reason):
                bad.require(net.analysis, net.sha256, "plan.json")
    content = plan.to_json()
    for key in ("stages", "model", "warnings"):
        path = tmp_path / "broken.json"
        path.write_text(json.dumps({k: v for k, v in content.items() if k != key}))
        with pytest.raises(InputError, match="not a complete plan"):
            Plan.load(path)


def test_nothing_is_returned_if_the_check_fails(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = surgery._slice

    def wrong(value: Any, masks: list[tuple[int, NDArray[np.bool_]]]) -> None:
        original(value, [(axis, mask[::-1]) for axis, mask in masks])

    monkeypatch.setattr(surgery, "_slice", wrong)
    with pytest.raises(SelfCheckError, match="nothing was written"):
        onnxtrim.trim(model, {"x": images()}, **THRESHOLDS)
