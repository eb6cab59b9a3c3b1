"""Sessions, model files and their sizes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxtrim.bench.data import InputSpec
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.machine import affinity_count, cpu_quota, default_threads, fingerprint
from onnxtrim.bench.session import (
    RunOptions,
    Sizes,
    check_model_file,
    model_inputs,
    open_session,
    random_feeds,
    run,
)
from onnxtrim.bench.size import model_size
from tests.bench_models import save_graph, save_mlp

F32 = np.dtype(np.float32)


def test_inputs_and_threads(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "m.onnx", [4, 3, 2])
    session = open_session(path, RunOptions())
    assert model_inputs(session) == [InputSpec("x", F32, ("batch", 4))]
    assert session.get_session_options().intra_op_num_threads == default_threads()
    told = RunOptions(3, "cpu", arena=False, config=[("session.x", "1")]).to_json()
    expected = {"threads": 3, "provider": "CPUExecutionProvider", "arena": False}
    assert told | expected == told
    assert told["config"] == [["session.x", "1"]]
    assert RunOptions(**told).to_json() == told, "the form in which a process gets them"
    assert open_session(path.read_bytes(), RunOptions(1)).get_providers()
    tuned = RunOptions(1, memory_pattern=False, denormal_as_zero=True, spinning=True)
    settings = open_session(path, tuned).get_session_options()
    assert not settings.enable_mem_pattern
    assert settings.get_session_config_entry("session.set_denormal_as_zero") == "1"
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "1"


def test_bad_models_are_one_line_and_print_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").touch()
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    unknown = save_graph(tmp_path / "unknown.onnx", [node], [("x", [1])], [("y", [1])])
    for path in [
        tmp_path / "text.onnx",
        tmp_path / "empty.onnx",
        tmp_path / "absent.onnx",
        unknown,
    ]:
        with pytest.raises(InputError) as error:
            open_session(path, RunOptions(1))
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)
    good = open_session(save_mlp(tmp_path / "m.onnx", [4, 2]), RunOptions(1))
    with pytest.raises(InputError, match="m: can't run on these inputs"):
        run(good, {"x": np.zeros((1, 5), np.float32)}, "m")
    outside = open_session(
        save_graph(
            tmp_path / "gather.onnx",
            [helper.make_node("Gather", ["t", "x"], ["y"])],
            [("x", [1])],
            [("y", [1])],
            [numpy_helper.from_array(np.zeros(3, np.float32), "t")],
            dtypes={"x": TensorProto.INT64},
        ),
        RunOptions(1),
    )
    with pytest.raises(InputError, match="gather: can't run on these inputs"):
        run(outside, {"x": np.array([99])}, "gather")
    assert capfd.readouterr() == ("", "")


def test_bad_options(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "m.onnx", [4, 2])
    with pytest.raises(InputError, match="threads is -1"):
        RunOptions(-1)
    with pytest.raises(InputError, match=r"'Nope' is not in this ONNX Runtime; it has .*CPU"):
        open_session(path, RunOptions(provider="Nope"))


def test_unsupported_input_type(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    text = {"x": TensorProto.STRING, "y": TensorProto.STRING}
    path = save_graph(tmp_path / "t.onnx", [node], [("x", [1])], [("y", [1])], dtypes=text)
    with pytest.raises(InputError, match=r"'x' has type tensor\(string\)"):
        model_inputs(open_session(path, RunOptions(1)))


def test_random_feeds() -> None:
    inputs = [
        InputSpec("image", F32, ("n", 3, "side", "side")),
        InputSpec("mask", np.dtype(bool), (2, None)),
        InputSpec("ids", np.dtype(np.int64), ("n", 5)),
    ]
    sizes: Sizes = {"side": 8, "mask": (2, 6)}
    feeds = random_feeds(inputs, sizes, seed=1, count=3)
    assert [array.shape for array in feeds[0].values()] == [(1, 3, 8, 8), (2, 6), (1, 5)]
    for spec in inputs:
        assert feeds[0][spec.name].dtype == spec.dtype
    assert feeds[0]["ids"].min() >= 1
    assert feeds[0]["image"].all()
    assert not np.array_equal(feeds[0]["image"], feeds[1]["image"])
    again = random_feeds(inputs, sizes, seed=1, count=1)
    np.testing.assert_array_equal(again[0]["image"], feeds[0]["image"])
    with pytest.raises(InputError, match=r"'image': dimension 'side' .*--shape image=Nx3xNxN"):
        random_feeds(inputs)
    with pytest.raises(InputError, match=r"'mask': dimension 1 .*--shape mask=2xN"):
        random_feeds(inputs, {"side": 8})
    with pytest.raises(InputError, match="shape 3x6 does not fit"):
        random_feeds(inputs, {"side": 8, "mask": (3, 6)})


def external_tensor(location: str) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="16")
    return tensor


def external_model(path: Path, location: str, place: str) -> Path:
    tensor = external_tensor(location)
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [("x", [1, 2])], [("y", [1, 2])]
    if place == "initializer":
        return save_graph(path, [product], *ends, [tensor])
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    if place == "constant":
        return save_graph(path, [constant, product], *ends)
    info = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    branch = helper.make_graph([constant, product], "branch", [], [info])
    condition = numpy_helper.from_array(np.array(True), "c")
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    return save_graph(path, [node], *ends, [condition])


@pytest.mark.parametrize("place", ["initializer", "constant", "subgraph"])
def test_external_data_must_stay_in_the_folder(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for file in [tmp_path / "secret", folder / "w.bin", folder / "sub" / "w.bin"]:
        file.write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    for good in ["w.bin", "sub/w.bin", "./w.bin"]:
        path = external_model(folder / "m.onnx", good, place)
        assert check_model_file(path) == ((folder / good).resolve(),)
        assert model_size(path).file_bytes == path.stat().st_size + 16
        assert model_size(path).parameters == (8 if place == "subgraph" else 4)
    bad = ["../secret", str(tmp_path / "secret"), "link", "up/secret", "", "absent", "sub", "..\\x"]
    for location in bad:
        path = external_model(folder / "m.onnx", location, place)
        with pytest.raises(InputError, match="tensor 'w' has its data in") as error:
            check_model_file(path)
        assert "\n" not in str(error.value)


def test_model_file_found_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    external_model(tmp_path / "m.onnx", "w.bin", "initializer")
    monkeypatch.chdir(tmp_path)
    assert len(check_model_file("m.onnx")) == 1


def test_files_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "zeros").write_bytes(bytes(100))
    for name, word in {
        "absent": "No such file",
        "empty": "is empty",
        "text": "not an ONNX model",
        "zeros": "not an ONNX model",
        ".": "is a folder",
    }.items():
        with pytest.raises(InputError, match=word):
            check_model_file(tmp_path / name)


def test_size_counts_constants_and_quantised_weights(tmp_path: Path) -> None:
    weights = [
        numpy_helper.from_array(np.zeros((2, 2), np.int8), "q"),
        numpy_helper.from_array(np.array(0.5, np.float32), "scale"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "shape"),
    ]
    constant = helper.make_node(
        "Constant", [], ["k"], value=numpy_helper.from_array(np.zeros(3, np.float32))
    )
    nodes = [
        constant,
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "shape"], ["y"]),
    ]
    path = save_graph(tmp_path / "q.onnx", nodes, [("x", [1, 2])], [("y", [1, 2])], weights)
    size = model_size(path)
    assert size.initializer_bytes == 4 + 4 + 16 + 12
    assert size.parameters == 4 + 3
    assert size.file_bytes == path.stat().st_size


def test_threads_follow_mask_and_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= default_threads() <= affinity_count() <= (os.cpu_count() or 1)
    proc, group = tmp_path / "proc/self", tmp_path / "sys/fs/cgroup/a/b"
    proc.mkdir(parents=True)
    group.mkdir(parents=True)
    assert cpu_quota(tmp_path) is None
    (proc / "cgroup").write_text("0::/a/b\n")
    (group / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path) is None
    (group.parent / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path) == 1.5, "the limit of a parent group holds too"
    old = tmp_path / "sys/fs/cgroup/cpu/c"
    old.mkdir(parents=True)
    (proc / "cgroup").write_text("3:cpuset:/x\n4:cpu,cpuacct:/c\n")
    (old / "cpu.cfs_quota_us").write_text("50000")
    (old / "cpu.cfs_period_us").write_text("100000")
    assert cpu_quota(tmp_path) == 0.5
    monkeypatch.setattr("onnxtrim.bench.machine.cpu_quota", lambda: 0.5)
    assert default_threads() == 1
    monkeypatch.setattr("onnxtrim.bench.machine.cpu_quota", lambda: 1e9)
    assert default_threads() == affinity_count()


def test_fingerprint_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    found = json.loads(json.dumps(fingerprint(), allow_nan=False))
    assert found["onnxruntime"]
    assert found["cpus"] == affinity_count()
    monkeypatch.setattr("onnxtrim.bench.machine._read", lambda path: None)
    assert fingerprint()["cpu_flags"] == []
