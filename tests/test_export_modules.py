from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from onnxtrim.bench.errors import InputError

pytest.importorskip("torch", reason="torch is not installed")

import torch
from torch import nn

from onnxtrim.export.modules import load_callable, load_weights, parse_shape, random_inputs

SOURCE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
def build():
    return Net()
net = Net()
def number():
    return 3
def broken():
    raise ValueError("first\\nsecond")
three = 3
"""


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("nets_here", "nets_broken", "nets_absent"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "nets_here.py").write_text(SOURCE)
    (tmp_path / "nets_broken.py").write_text("import no_such_package\n")
    return tmp_path


@pytest.mark.parametrize("name", ["build", "Net", "net"])
def test_a_module_is_built_from_the_current_folder(here: Path, name: str) -> None:
    module = load_callable(f"nets_here:{name}")
    assert [name for name, _ in module.named_parameters()] == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nets_here", "not of the form"),
        ("nets_here.build", "not of the form"),
        ("nets here:build", "not of the form"),
        ("nets_absent:build", "nets_absent"),
        ("nets_broken:build", "no_such_package"),
        ("nets_here:absent", "absent"),
        ("nets_here:three", "of type int"),
        ("nets_here:number", "of type int"),
        ("nets_here:broken", r"fails when called \(first\)"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(here: Path, spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_callable(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nested", [False, True])
def test_weights_are_loaded(tmp_path: Path, nested: bool) -> None:
    saved, module = nn.Linear(3, 2), nn.Linear(3, 2)
    state = saved.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if nested else state, tmp_path / "w.pt")
    load_weights(module, tmp_path / "w.pt")
    assert torch.equal(module.weight, saved.weight)
    assert torch.equal(module.bias, saved.bias)


def test_weights_that_do_not_fit_are_named_and_change_nothing(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = {**nn.Sequential(nn.Linear(4, 2), nn.Identity()).state_dict(), "extra": torch.ones(1)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError) as caught:
        load_weights(module, tmp_path / "w.pt")
    message = str(caught.value)
    assert "\n" not in message
    assert "missing: 1.weight, 1.bias" in message
    assert "unexpected: extra" in message
    assert "0.weight (is 2x4, needs 2x3)" in message
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    torch.save({"w": Payload()}, tmp_path / "zip.pt")
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(Payload()))
    torch.save(nn.Linear(3, 2), tmp_path / "module.pt")
    for name in ("zip.pt", "raw.pkl", "module.pt"):
        with pytest.raises(InputError, match=name) as caught:
            load_weights(nn.Linear(3, 2), tmp_path / name)
        assert "\n" not in str(caught.value)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("hello")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "number.pt")
    for name in ("missing.pt", "empty.pt", "text.pt", "list.pt", "number.pt", "."):
        with pytest.raises(InputError) as caught:
            load_weights(nn.Linear(3, 2), tmp_path / name)
        assert "\n" not in str(caught.value)


def test_shapes() -> None:
    assert parse_shape("1x3x224x224") == (1, 3, 224, 224)
    assert parse_shape("7") == (7,)
    for text in ("", "x", "1x", "0x3", "-1x3", "1x3.5", "1,3", "1 x 3", "1x\n3", "1x٣"):
        with pytest.raises(InputError, match="1x3x224x224"):
            parse_shape(text)


def test_random_inputs_are_the_same_each_time() -> None:
    first, second = random_inputs([(2, 3), (4,)]), random_inputs([(2, 3), (4,)])
    assert [tuple(tensor.shape) for tensor in first] == [(2, 3), (4,)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_without_torch_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["torch"] = None
from onnxtrim.bench.errors import MissingExtraError
from onnxtrim.export.from_torch import export_module, load_callable, load_weights
for call in (lambda: export_module(None, (), "m.onnx"), lambda: load_callable("a:b"),
             lambda: load_weights(None, "w.pt")):
    try:
        call()
    except MissingExtraError as error:
        assert "onnxtrim[torch]" in str(error), error
    else:
        raise AssertionError("no error")
"""
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
