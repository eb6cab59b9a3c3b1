"""Writing a pruning back to the torch module."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxtrim.bench.errors import InputError, MissingExtraError

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import onnxtrim
from onnxtrim.export.from_torch import export_module
from onnxtrim.export.model_io import model_bytes
from onnxtrim.export.parity import module_outputs, parity
from onnxtrim.toolkit.apply import TrimResult
from onnxtrim.toolkit.apply import apply_plan as apply_to_model
from onnxtrim.toolkit.criteria import Threshold
from onnxtrim.toolkit.plan import Plan, Removal, Stage, make_plan
from onnxtrim.toolkit.prepare import prepare
from onnxtrim.toolkit.repair import MeanFolding
from onnxtrim.toolkit.statistics import gather
from onnxtrim.toolkit.torch_bridge import TOLERANCE, apply_plan
from tests.torch_plans import random_plan
from tests.torch_round_trip import pruned, round_trip
from tests.torch_zoo import TORCH_ZOO

pytestmark = pytest.mark.slow

# The others: ONNXTRIM_WHOLE_ZOO=1, or python -m benchmarks.torch_zoo.
SOME = (
    "ax_sum bcast einsum c1 grp gn21 trap mb2 unet gconvt prelu c3d dfl tied"
    " gru_bi lstm_h convtas qkv_reshape"
).split()
NETS = list(TORCH_ZOO) if os.environ.get("ONNXTRIM_WHOLE_ZOO") else SOME


@pytest.fixture(scope="module")
def folder(torch_exports: Path) -> Path:
    """Exports, kept for all tests."""
    return torch_exports


@pytest.mark.parametrize("net", NETS)
def test_the_whole_way(folder: Path, net: str) -> None:
    trip = round_trip(net, folder, again=NETS.index(net) % 3 == 0)
    if trip.refusal is not None:
        assert not trip.standard, trip.refusal
        assert "\n" not in trip.refusal
        return
    assert trip.after is not None
    assert trip.after < trip.before
    assert trip.parity is not None
    assert trip.parity <= TOLERANCE
    assert trip.tuned
    assert trip.again is None or trip.again < trip.after


class Chain(nn.Module):
    """Two layers without bias; what the repair adds must find a place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 12, 3, padding=1)
        self.conv2 = nn.Conv2d(12, 10, 3, padding=1, bias=False)
        self.fc1 = nn.Linear(10, 14, bias=False)
        self.fc2 = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc2(F.relu(self.fc1(x.flatten(2).transpose(1, 2))))


def images(count: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, 5, 6, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def chain(folder: Path) -> tuple[nn.Module, TrimResult, Plan]:
    """The chain pruned by its statistics, its consumers repaired."""
    torch.manual_seed(0)
    module = Chain()
    module.conv1.weight.requires_grad_(False)
    module.conv2.eval()
    export_module(module, (images(2),), folder / "chain.onnx")
    prepared, data = prepare(folder / "chain.onnx", {"x": images().numpy()})
    assert data is not None
    statistics = gather(prepared.analysis, data, prepared.sha256)
    plan = make_plan(prepared.analysis, statistics, Threshold(0.15, 0.4))
    assert len(plan.removals) == 3
    return module, apply_to_model(prepared, plan, MeanFolding(statistics), data), plan


def test_what_the_repair_changed_and_added_is_in_the_module(
    chain: tuple[nn.Module, TrimResult, Plan],
) -> None:
    module, result, _ = chain
    small: Any = result.to_torch(module)
    sizes = {name: len(tensor) for name, tensor in small.named_parameters()}
    assert sizes["conv2.bias"] == sizes["conv2.weight"] < 10
    assert sizes["fc1.bias"] == sizes["fc1.weight"] < 14
    assert not {"conv2.bias", "fc1.bias"} & set(dict(module.named_parameters()))
    assert parity(model_bytes(result.model), small, (images(9, 5),), least=TOLERANCE) <= TOLERANCE
    again = result.to_torch(module, (images(4),))
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, small.state_dict()[name])


def test_sizes_modes_and_gradients_are_as_the_module_has_them(
    chain: tuple[nn.Module, TrimResult, Plan],
) -> None:
    module, result, _ = chain
    small: Any = result.to_torch(module)
    for part in small.modules():
        if isinstance(part, nn.Linear):
            assert (part.out_features, part.in_features) == part.weight.shape
        if isinstance(part, nn.Conv2d):
            assert (part.out_channels, part.in_channels) == part.weight.shape[:2]
    assert [part.training for part in small.modules()] == [True, True, False, True, True]
    wanted = {"conv1.weight": False, "conv1.bias": True, "conv2.weight": True, "fc1.bias": True}
    found = {name: tensor.requires_grad for name, tensor in small.named_parameters()}
    assert {name: found[name] for name in wanted} == wanted
    assert all(tensor.is_leaf for tensor in small.parameters())


def test_a_plan_on_the_module_and_on_its_file_give_the_same(
    chain: tuple[nn.Module, TrimResult, Plan], folder: Path
) -> None:
    module, _, plan = chain
    prepared, _ = prepare(folder / "chain.onnx")
    by_file = apply_to_model(prepared, plan).to_torch(module)
    assert onnxtrim.apply_plan is apply_plan
    by_plan = apply_plan(module, plan, (images(2),))
    for name, tensor in by_plan.state_dict().items():
        assert torch.equal(tensor, by_file.state_dict()[name])
    other = Chain()
    with pytest.raises(InputError, match="made for another model"):
        apply_plan(other, plan, (images(2),))


def test_trim_takes_a_module_and_gives_one_back() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 3))
    data = torch.randn(128, 6, generator=torch.Generator().manual_seed(2))
    result = onnxtrim.trim(
        module,
        {"input": data.numpy()},
        mean_below=0.3,
        std_below=0.5,
        example_inputs=(data[:2],),
    )
    small: Any = result.to_torch(module)
    assert small[0].out_features == small[2].in_features < 30


def test_what_was_tied_stays_tied(folder: Path) -> None:
    torch.manual_seed(0)
    module = TORCH_ZOO["untied"].build()
    export_module(module, TORCH_ZOO["untied"].examples(), folder / "untied.onnx")
    small = pruned(folder / "untied.onnx", 0.4, 0).to_torch(module)
    weights = {name: small.get_parameter(f"{name}.weight") for name in ("e", "decoder", "copy")}
    assert weights["decoder"] is weights["e"]
    assert weights["copy"] is not weights["e"]
    assert weights["e"].shape[1] < 24


class Heads(nn.Module):
    """A number of heads and a head dimension that forward reads."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.depth = 4, 6, 4
        self.qkv = nn.Linear(9, 72)
        self.proj = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        x = F.softmax(qkv[0] @ qkv[1].transpose(2, 3), dim=-1) @ qkv[2]
        return self.proj(x.transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim))


class Scaled(Heads):
    """The scale follows from a size: it must not change, yet it does."""

    def forward(self, x: Tensor) -> Any:
        b, n, _ = x.shape
        q, k, v = (
            t.view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
            for t in self.qkv(x).chunk(3, dim=-1)
        )
        x = F.softmax(q @ k.transpose(2, 3) / self.head_dim**0.5, dim=-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim))


class Fixed(nn.Module):
    """A size in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 12)
        self.fc2 = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Any:
        return self.fc2(F.relu(self.fc1(x)).view(-1, 12))


class Twice(nn.Module):
    """One layer at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 16), nn.Linear(16, 6, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        x = x + self.fc2(F.relu(self.fc1(x)))
        return self.head(x + self.fc2(F.relu(self.fc1(x) + 0.5)))


class Layered(nn.Module):
    """Two layers in one nn.LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 9, num_layers=2)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.lstm(x.transpose(0, 1))[0].transpose(0, 1))


class Tiny(nn.Module):
    """Weights so small that folding would take their names."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.lstm(x.transpose(0, 1))[0].transpose(0, 1))


class Attending(nn.Module):
    """nn.MultiheadAttention in a layer of nn.TransformerEncoder."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


class Modules(nn.Module):
    """Sizes that no tensor tells: Unflatten, norms without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 8 * 6)
        self.unflatten = nn.Unflatten(1, (8, 6))
        self.norm1 = nn.InstanceNorm1d(8)
        self.conv = nn.Conv1d(8, 12, 3)
        self.norm2 = nn.GroupNorm(3, 12, affine=False)
        self.head = nn.Conv1d(12, 2, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.norm1(self.unflatten(self.fc(x)))
        return self.head(F.relu(self.norm2(self.conv(x))))


def prune_module(
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    path: Path,
    stages: int = 2,
    plan: Callable[[Plan], Plan] = lambda plan: plan,
) -> tuple[nn.Module, TrimResult]:
    torch.manual_seed(0)
    module = build().eval()
    export_module(module, (torch.randn(shape),), path)
    prepared, _ = prepare(path)
    return module, apply_to_model(prepared, plan(random_plan(prepared, stages=stages)), deep=False)


def test_sizes_that_a_users_module_notes_follow(tmp_path: Path) -> None:
    module, result = prune_module(Heads, (2, 7, 9), tmp_path / "m.onnx")
    assert len(result.plan.stages) == 2
    small: Any = result.to_torch(module)
    assert (small.num_heads, small.head_dim, small.depth) == (2, 4, 4)
    assert module.num_heads == 4


def test_of_the_heads_one_may_be_left_for_the_second_stage(tmp_path: Path) -> None:
    """Nodes with one head have fewer readings than the plan of the original says."""
    torch.manual_seed(0)
    module = Heads()
    export_module(module, (torch.randn(2, 7, 9),), tmp_path / "m.onnx")
    result = pruned(tmp_path / "m.onnx", 0.75, 0)
    assert len(result.plan.stages) == 2
    small: Any = result.to_torch(module)
    assert small.num_heads == 1
    assert small.proj.in_features == small.head_dim < 6


def test_small_weights_keep_their_names(tmp_path: Path) -> None:
    module, result = prune_module(Tiny, (2, 6, 3), tmp_path / "m.onnx")
    small: Any = result.to_torch(module)
    assert small.lstm.hidden_size == 2


def test_sizes_that_no_tensor_tells_follow(tmp_path: Path) -> None:
    module, result = prune_module(Modules, (2, 5), tmp_path / "m.onnx")
    small: Any = result.to_torch(module)
    channels = small.conv.weight.shape
    assert small.unflatten.unflattened_size == (channels[1], 6)
    assert small.norm1.num_features == channels[1] < 8
    assert small.norm2.num_channels == channels[0] < 12
    assert small.norm2.num_channels % small.norm2.num_groups == 0


@pytest.mark.parametrize(
    ("build", "shape", "words"),
    [
        (Fixed, (2, 5), ["Fixed.forward (test_torch_bridge.py:", "works with fixed sizes", "12"]),
        (Scaled, (2, 7, 9), ["Scaled.forward, up to 'proj',", "computes something else"]),
        (Attending, (2, 7, 12), ["layer.self_attn (MultiheadAttention)", "embed_dim"]),
    ],
)
def test_code_that_hard_codes_sizes_is_named(
    tmp_path: Path, build: Callable[[], nn.Module], shape: tuple[int, ...], words: list[str]
) -> None:
    module, result = prune_module(build, shape, tmp_path / "m.onnx")
    with pytest.raises(InputError) as caught:
        result.to_torch(module)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "the ONNX model is right and stays usable" in message
    assert "\n" not in message


def test_attention_that_lost_nothing_is_no_obstacle(tmp_path: Path) -> None:
    def only_mlp(plan: Plan) -> Plan:
        (stage,) = plan.stages
        kept = tuple(item for item in stage.removals if item.group == "layer.linear1")
        assert len(kept) == 1 < len(stage.removals)
        return Plan(plan.model_sha256, "", {}, (Stage(stage.choices, kept),))

    module, result = prune_module(Attending, (2, 7, 12), tmp_path / "m.onnx", 1, only_mlp)
    small: Any = result.to_torch(module)
    assert small.layer.linear1.out_features == 12


def test_layers_of_one_lstm_must_stay_alike(tmp_path: Path) -> None:
    def uneven(plan: Plan) -> Plan:
        (stage,) = plan.stages
        first, *others = stage.removals
        less = Removal(first.group, first.tensor, first.axis, first.units, first.remove[:1])
        return Plan(plan.model_sha256, "", {}, (Stage(stage.choices, (less, *others)),))

    module, result = prune_module(Layered, (2, 6, 5), tmp_path / "m.onnx", 2, uneven)
    with pytest.raises(InputError, match=r"lstm \(LSTM\).*one module per layer"):
        result.to_torch(module)


def test_a_repair_that_differs_between_two_calls_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Twice()
    data = torch.randn(128, 6)
    result = onnxtrim.trim(
        module, {"x": data.numpy()}, mean_below=0.3, std_below=0.5, example_inputs=(data[:2],)
    )
    with pytest.raises(InputError, match=r"fc2 is called more than once.*repair='none'"):
        result.to_torch(module)
    plain = onnxtrim.trim(
        module,
        {"x": data.numpy()},
        mean_below=0.3,
        std_below=0.5,
        repair="none",
        example_inputs=(data[:2],),
    )
    small: Any = plain.to_torch(module)
    assert small.fc1.out_features < 16


def test_another_module_is_refused(chain: tuple[nn.Module, TrimResult, Plan]) -> None:
    module, result, _ = chain
    with pytest.raises(InputError, match="no parameter of the module is in the model by name"):
        result.to_torch(nn.Sequential(nn.Linear(2, 3)))
    wider = Chain()
    wider.fc2 = nn.Linear(14, 4)
    with pytest.raises(InputError, match=r"not the module that was exported: fc2.weight"):
        result.to_torch(wider)
    assert len(module_outputs(module, (images(2),))) == 1


def test_without_torch_the_extra_is_named(
    chain: tuple[nn.Module, TrimResult, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, result, _ = chain
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"onnxtrim\[torch\]"):
        result.to_torch(module)


def test_kept_positions_follow_all_stages(folder: Path) -> None:
    name = "qkv_reshape"
    if not (folder / f"{name}.onnx").exists():
        torch.manual_seed(0)
        export_module(TORCH_ZOO[name].build(), TORCH_ZOO[name].examples(), folder / f"{name}.onnx")
    result = pruned(folder / f"{name}.onnx", 0.4, 0)
    assert len(result.plan.stages) == 2
    original = result.prepared.analysis.model.graph.initializers
    for value in result.model.graph.initializers.values():
        before = original.get(value.name or "")
        if before is None or before.const_value is None or value.const_value is None:
            continue
        array = before.const_value.numpy()
        for axis in range(array.ndim):
            places = result.kept.get((value.name or "", axis))
            array = array if places is None else np.take(array, places, axis=axis)
        if value.dtype is not None and value.dtype.is_floating_point():
            assert np.array_equal(array, value.const_value.numpy()), value.name
