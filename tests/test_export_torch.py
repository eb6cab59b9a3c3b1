from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxtrim.bench.errors import InputError, WorkError

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

import torch
from torch import nn

from onnxtrim.export.from_torch import export_module
from onnxtrim.export.parity import parity


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.drop = nn.Dropout(0.5)
        self.head = nn.ModuleDict({"fc": nn.Linear(4 * 8 * 8, 3)})

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        for block in self.blocks:
            x = block(x)
        y: torch.Tensor = self.head["fc"](self.drop(torch.flatten(x, 1)))
        return y


class Function(nn.Module):
    """A module that is only its forward function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: torch.Tensor) -> Any:
        return self.function(*values)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    module = build()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            nn.init.normal_(part.running_mean)
            nn.init.normal_(part.bias)
    return module


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))


CASES: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (mlp, (4, 1, 8, 8)),
    (mlp, (1, 1, 8, 8)),
    (Residual, (2, 1, 8, 8)),
    (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (1, 5, 8)),
    (lambda: nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 2, bias=False)), (3, 7, 6)),
]


@pytest.mark.parametrize(("build", "shape"), CASES)
def test_parameters_keep_their_names_and_values(
    tmp_path: Path, build: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    module = seeded(build)
    report = export_module(module, (randn(*shape),), tmp_path / "m.onnx")
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer
    }
    for name, parameter in module.named_parameters():
        assert np.array_equal(stored[name], parameter.detach().numpy()), name
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            assert np.array_equal(stored[name], buffer.numpy()), name
    assert report.parameters == sum(p.numel() for p in module.parameters())
    assert report.batches == (shape[0], shape[0] + 1)
    assert 0 <= report.max_error < 1e-5


def test_the_batch_is_free_and_the_names_are_as_asked(tmp_path: Path) -> None:
    module = seeded(Residual)
    report = export_module(module, (randn(2, 1, 8, 8),), tmp_path / "m.onnx")
    assert report.inputs == {"image": ("batch", 1, 8, 8)}
    assert report.outputs == {"output": ("batch", 3)}
    assert parity(tmp_path / "m.onnx", module, (randn(9, 1, 8, 8),)) < 1e-5
    named = export_module(
        module,
        (randn(2, 1, 8, 8),),
        tmp_path / "n.onnx",
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_batch=False,
    )
    assert named.inputs == {"pixels": (2, 1, 8, 8)}
    assert named.outputs == {"scores": (2, 3)}
    assert named.batches == (2,)


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    module = Function(lambda a, b: {"sum": a + b, "parts": (a * b, [a.sum(1)])})
    report = export_module(module, (randn(3, 4), randn(3, 4)), tmp_path / "m.onnx")
    assert [shape[0] for shape in report.inputs.values()] == ["batch", "batch"]
    assert list(report.outputs) == ["output_0", "output_1", "output_2"]


class Difference(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - b


def test_one_tensor_as_two_examples_gives_two_inputs(tmp_path: Path) -> None:
    x = torch.randn(2, 3)
    export_module(Difference(), (x, x), tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    a, b = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(session.run(None, {"a": a, "b": b})[0], a - b)


def test_an_opset_can_be_asked_for(tmp_path: Path) -> None:
    report = export_module(seeded(mlp), (randn(2, 64),), tmp_path / "m.onnx", opset=18)
    assert report.opset == 18
    assert [entry.version for entry in onnx.load(tmp_path / "m.onnx").opset_import] == [18]


def test_nothing_is_said_and_everything_is_restored(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = seeded(Residual)
    module.train()
    module.get_submodule("blocks.0").eval()
    modes = [part.training for part in module.modules()]
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    filters, disabled = list(warnings.filters), logging.root.manager.disable
    export_module(module, (randn(2, 1, 8, 8),), tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")
    # torch's own trace never leaves the process; only pytest sees it.
    assert {record.name for record in caplog.records} <= {"torch.__trace"}
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert list(warnings.filters) == filters
    assert logging.root.manager.disable == disabled
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_no_path_of_the_machine_is_left_in_the_file(tmp_path: Path) -> None:
    export_module(seeded(mlp), (randn(2, 64),), tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    assert b"site-packages" not in content
    assert Path(__file__).name.encode() not in content


@pytest.mark.parametrize(
    ("module", "inputs", "error", "message"),
    [
        (nn.Linear(4, 2), (), InputError, "example_inputs"),
        (nn.Linear(4, 2), (3.0,), InputError, "example_inputs"),
        (nn.Linear(4, 2), (randn(2, 5),), InputError, "shape 2x5"),
        (nn.Linear(4, 2), (randn(0, 4),), InputError, "batch size of 1 or more"),
        (Function(lambda a, b: a + b), (randn(2, 4), randn(1, 4)), InputError, "2x4, 1x4"),
        (Function(lambda a: None), (randn(2, 4),), InputError, "returns no tensor"),
        (Function(lambda a: a if a.sum() > 0 else -a), (randn(2, 4),), WorkError, "exported"),
        (Function(lambda a: a + torch.rand(4)), (randn(2, 4),), WorkError, "differs"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    tmp_path: Path, module: nn.Module, inputs: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        export_module(module, inputs, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_names_must_be_as_many_as_inputs_and_outputs(tmp_path: Path) -> None:
    module, inputs, path = nn.Linear(4, 2), (randn(2, 4),), tmp_path / "m.onnx"
    with pytest.raises(InputError, match="2 input names for 1 input"):
        export_module(module, inputs, path, input_names=["a", "b"])
    with pytest.raises(InputError, match="2 output names for 1 output"):
        export_module(module, inputs, path, output_names=["a", "b"])


def test_a_module_with_a_fixed_batch_is_told_how(tmp_path: Path) -> None:
    module = Function(lambda a: a.reshape(2, 2, 2).sum(2))
    with pytest.raises((InputError, WorkError)) as caught:
        export_module(module, (randn(2, 4),), tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert "dynamic_batch=False" in str(caught.value)
    export_module(module, (randn(2, 4),), tmp_path / "m.onnx", dynamic_batch=False)


@pytest.mark.parametrize("change", [1e-3, -1e-3])
def test_parity_sees_a_wrong_weight_also_behind_a_large_offset(
    tmp_path: Path, change: float
) -> None:
    module = nn.Linear(16, 8)
    nn.init.normal_(module.weight)
    export_module(module, (randn(4, 16),), tmp_path / "m.onnx")
    with torch.no_grad():
        module.weight[3, 5] += change
    with pytest.raises(WorkError, match="output 0"):
        parity(tmp_path / "m.onnx", module, (randn(4, 16),))


def test_parity_allows_what_rounding_explains(tmp_path: Path) -> None:
    """A difference of large numbers: its relative error is far above float32's epsilon."""

    class Cancel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4096, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.inner(x + 10.0)
            return y - y.mean(1, keepdim=True) - 10.0 * self.inner.weight.sum(1)

    report = export_module(seeded(Cancel), (randn(8, 4096),), tmp_path / "m.onnx")
    assert report.max_error > 2e-6
    wrong = seeded(Cancel)
    assert isinstance(wrong.inner, nn.Linear)
    with torch.no_grad():
        wrong.inner.weight[0] += 1e-3
    with pytest.raises(WorkError, match="differs"):
        parity(tmp_path / "m.onnx", wrong, (randn(8, 4096),))


def test_nan_must_be_in_the_same_places(tmp_path: Path) -> None:
    module = Function(lambda a: torch.sqrt(a))
    report = export_module(module, (randn(4, 16),), tmp_path / "m.onnx")
    assert report.max_error < 1e-6
    with pytest.raises(WorkError, match="differs"):
        parity(tmp_path / "m.onnx", Function(lambda a: torch.sqrt(a.abs())), (randn(4, 16),))


def test_parameters_may_be_called_as_operators_are(tmp_path: Path) -> None:
    """The exporter calls inner values after operators, which gave two values one name."""

    class Clash(nn.Module):
        index: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.linear = nn.Parameter(torch.randn(4))
            for name in ("add", "relu", "mul", "val_0"):
                self.register_buffer(name, torch.randn(4))
            self.register_buffer("index", torch.tensor([3, 0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.layer(x) + self.get_buffer("add")) * self.get_buffer("mul")
            x = x + self.get_buffer("relu") + self.linear + self.get_buffer("val_0")
            return x[:, self.index]

    module = seeded(Clash)
    path = tmp_path / "m.onnx"
    export_module(module, (randn(2, 4),), path, input_names=["mul_1"], output_names=["add_3"])
    stored = {tensor.name for tensor in onnx.load(path).graph.initializer}
    assert {"add", "relu", "mul", "val_0", "index", "linear"} <= stored
    assert parity(path, module, (randn(5, 4),)) < 1e-5
