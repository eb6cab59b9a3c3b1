"""Files from elsewhere: as torch exports them by default, pruned and compared by command."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxtrim.bench.size import model_size
from tests.cli import QUICK, run

torch = pytest.importorskip("torch")


def mlp() -> Any:
    nn = torch.nn
    layers = [nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 5)]
    return nn.Sequential(*layers)


def residual_cnn() -> Any:
    net = import_module("benchmarks.nets").ResidualCnn((8, 12, 16))
    for module in net.modules():  # as after training: statistics and shifts are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.normal_(module.bias, -0.2, 0.5)
    return net


# How it is built, the shape of a sample, the groups of units that it has.
NETS: dict[str, tuple[Callable[[], Any], tuple[int, ...], int]] = {
    "mlp": (mlp, (20,), 2),
    "residual cnn": (residual_cnn, (1, 28, 28), 9),  # three streams, one inside each of six blocks
}


@pytest.fixture(scope="module", params=NETS)
def elsewhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int]:
    """A folder with a model and data, whose labels are the model's answers; its groups."""
    build, shape, groups = NETS[request.param]
    folder = tmp_path_factory.mktemp("elsewhere")
    torch.manual_seed(0)
    x = torch.randn(600, *shape)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        net = build().eval()
        list(net.parameters())[-1].sub_(net(x[:200]).mean(0))  # so that every class occurs
        labels = net(x[200:]).argmax(1).numpy()
        batch = {0: torch.export.Dim("batch")}
        program = torch.onnx.export(net, (x[:2],), dynamic_shapes=(batch,), verbose=False)
    program.save(folder / "model.onnx", external_data=request.param == "mlp")
    (name,) = (item.name for item in program.model.graph.inputs)
    np.savez(folder / "calib.npz", **{name: x[:200].numpy()})
    np.savez(folder / "test.npz", labels=labels, **{name: x[200:].numpy()})
    return folder, groups


def test_prune_then_compare(elsewhere: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(elsewhere[0])
    thresholds = ("--mean-below", "0.3", "--std-below", "0.8")
    command = ("prune", "model.onnx", "--data", "calib.npz", *thresholds, "-o", "small.onnx")
    told = run(*command, "--plan", "plan.json", "--json").json()
    before, after = model_size("model.onnx"), model_size("small.onnx")
    assert told["parameters"] == {"before": before.parameters, "after": after.parameters}
    assert told["bytes"] == {
        "before": before.initializer_bytes,
        "after": after.initializer_bytes,
    }
    assert told["removed"] > 0.1
    assert told["self_check"]["max_error"] < 1e-4
    assert told["self_check"]["tensors"] >= 5
    result = run("compare", "model.onnx", "small.onnx", "--eval", "test.npz", *QUICK, "--json")
    metrics = result.json()["metrics"]
    assert metrics["model.file_bytes.ratio"]["value"] < 0.95
    ratio = metrics["latency.p50.ratio"]
    assert 0 < ratio["low"] < ratio["value"] < ratio["high"]
    assert metrics["memory.run_peak.ratio"]["value"] > 0
    delta = metrics["accuracy.top1.delta"]
    assert metrics["accuracy.top1.original"]["value"] > 0.99  # ties may fall otherwise
    assert -100 <= delta["low"] < delta["value"] < 0
    assert 0.1 < metrics["accuracy.agreement"]["value"] < 1


def test_inspect_finds_its_groups(elsewhere: tuple[Path, int]) -> None:
    folder, groups = elsewhere
    told = run("inspect", folder / "model.onnx", "--json").json()
    assert told["prunable_parameters"] > 0.9 * told["parameters"]
    assert len(told["groups"]) == groups, [group["name"] for group in told["groups"]]
