from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxtrim.bench.errors import InputError, WorkError
from onnxtrim.export.model_io import (
    check_model,
    load_model,
    model_bytes,
    save_model,
    tensor_bytes,
)

WEIGHTS = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)


def make(path: Path, *, external: str | None = None) -> Path:
    weight = numpy_helper.from_array(WEIGHTS, "w")
    bias = numpy_helper.from_array(np.ones(32, np.float32), "b_value")
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["b"], value=bias),
            helper.make_node("MatMul", ["x", "w"], ["z"]),
            helper.make_node("Add", ["z", "b"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", 1, ["batch", 64])],
        [helper.make_tensor_value_info("y", 1, ["batch", 32])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if external is not None:
        onnx.save(
            model,
            path,
            save_as_external_data=True,
            location=external,
            size_threshold=0,
            convert_attribute=True,
        )
    else:
        onnx.save(model, path)
    return path


def output(path: Path) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"x": np.ones((2, 64), np.float32)})[0]
    return result


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_model_goes_through_unchanged(tmp_path: Path) -> None:
    source = make(tmp_path / "a.onnx")
    model = load_model(source)
    save_model(model, tmp_path / "b.onnx", source=source)
    assert names(tmp_path) == ["a.onnx", "b.onnx"]
    assert np.array_equal(output(tmp_path / "b.onnx"), output(source))
    assert (tmp_path / "b.onnx").read_bytes() == model_bytes(model)
    assert tensor_bytes(model) == 4 * (64 * 32 + 32)


@pytest.mark.parametrize("limit", [0, 2**31])
def test_weights_outside_are_followed_also_in_attributes(tmp_path: Path, limit: int) -> None:
    source = make(tmp_path / "a.onnx", external="weights.bin")
    model = load_model(source)
    save_model(model, tmp_path / "b.onnx", source=source, inline_limit=limit)
    expected = output(source)
    (tmp_path / "weights.bin").unlink()
    assert np.array_equal(output(tmp_path / "b.onnx"), expected)
    assert (tmp_path / "b.onnx.data").exists() == (limit == 0)


def test_a_model_loaded_by_a_relative_path_survives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a.onnx", external="weights.bin")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    model = load_model("a.onnx")
    monkeypatch.chdir(tmp_path / "elsewhere")
    save_model(model, "b.onnx")
    assert np.array_equal(output(Path("b.onnx")), output(tmp_path / "a.onnx"))


def test_saving_leaves_the_model_in_memory_as_it_was(tmp_path: Path) -> None:
    make(tmp_path / "a.onnx", external="weights.bin")
    model = load_model(tmp_path / "a.onnx")
    before = model.graph.initializers["w"].const_value
    assert isinstance(before, ir.ExternalTensor)
    model_bytes(model)
    save_model(model, tmp_path / "b.onnx")
    save_model(model, tmp_path / "c.onnx", inline_limit=0)
    assert model.graph.initializers["w"].const_value is before
    assert np.array_equal(before.numpy(), WEIGHTS)


def test_a_large_model_gets_exactly_one_data_file_and_can_be_replaced(tmp_path: Path) -> None:
    model = load_model(make(tmp_path / "a.onnx"))
    save_model(model, tmp_path / "big.onnx", inline_limit=100)
    assert names(tmp_path) == ["a.onnx", "big.onnx", "big.onnx.data"]
    assert (tmp_path / "big.onnx").stat().st_size < WEIGHTS.nbytes
    model.graph.initializers["w"].const_value = ir.tensor(WEIGHTS * 2, name="w")
    save_model(model, tmp_path / "big.onnx", inline_limit=100)
    assert names(tmp_path) == ["a.onnx", "big.onnx", "big.onnx.data"]
    expected = 2 * (output(tmp_path / "a.onnx") - 1) + 1
    np.testing.assert_allclose(output(tmp_path / "big.onnx"), expected, rtol=1e-6)


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_input_is_never_overwritten(tmp_path: Path, link: object) -> None:
    source = make(tmp_path / "a.onnx")
    target = tmp_path / "a.onnx"
    if callable(link):
        target = tmp_path / "link.onnx"
        link(source, target)
    before = source.read_bytes()
    with pytest.raises(InputError, match="same file"):
        save_model(load_model(source), target, source=source)
    assert source.read_bytes() == before


@pytest.mark.parametrize("target", ["weights.bin", "weights.onnx"])
def test_the_inputs_weights_are_never_overwritten(tmp_path: Path, target: str) -> None:
    location = "weights.bin" if target == "weights.bin" else "weights.onnx.data"
    source = make(tmp_path / "a.onnx", external=location)
    before = (tmp_path / location).read_bytes()
    with pytest.raises(InputError, match="holds the input's weights"):
        save_model(load_model(source), tmp_path / target, inline_limit=0)
    assert (tmp_path / location).read_bytes() == before
    assert names(tmp_path) == sorted(["a.onnx", location])


@pytest.mark.parametrize("limit", [0, 2**31])
def test_an_invalid_model_is_not_put_in_place(tmp_path: Path, limit: int) -> None:
    model = load_model(make(tmp_path / "a.onnx"))
    (tmp_path / "b.onnx").write_text("old")
    model.graph.node(1).op_type = "NoSuchOperator"
    with pytest.raises(WorkError, match=r"b\.onnx: .*NoSuchOperator") as caught:
        save_model(model, tmp_path / "b.onnx", inline_limit=limit)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "b.onnx").read_text() == "old"
    assert names(tmp_path) == ["a.onnx", "b.onnx"]


@pytest.mark.parametrize("limit", [0, 2**31])
def test_what_the_caller_refuses_is_not_put_in_place(tmp_path: Path, limit: int) -> None:
    def refuse(temporary: Path) -> None:
        check_model(temporary)
        raise WorkError("no")

    model = load_model(make(tmp_path / "a.onnx"))
    with pytest.raises(WorkError, match="no"):
        save_model(model, tmp_path / "b.onnx", verify=refuse, inline_limit=limit)
    assert names(tmp_path) == ["a.onnx"]


@pytest.mark.parametrize("limit", [0, 2**31])
def test_places_that_cannot_be_written(tmp_path: Path, limit: int) -> None:
    model = load_model(make(tmp_path / "a.onnx"))
    for target in (tmp_path, tmp_path / "missing" / "b.onnx", Path(os.devnull)):
        with pytest.raises(InputError, match=str(target)):
            save_model(model, target, inline_limit=limit)
    assert Path(os.devnull).is_char_device()


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("this is not a model\n")
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(0).bytes(4096))
    for name in ("missing.onnx", "empty.onnx", "text.onnx", "noise.onnx", "."):
        with pytest.raises(InputError) as caught:
            load_model(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_truncated_model_is_bad_input(tmp_path: Path) -> None:
    content = make(tmp_path / "a.onnx").read_bytes()
    for size in (1, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.onnx").write_bytes(content[:size])
        with pytest.raises(InputError, match=r"cut\.onnx"):
            load_model(tmp_path / "cut.onnx")


def test_external_data_must_be_whole_and_inside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    source = make(folder / "a.onnx", external="weights.bin")
    weights = folder / "weights.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[:100])
    with pytest.raises(InputError, match="cut off"):
        load_model(source)
    weights.unlink()
    with pytest.raises(InputError, match=r"weights\.bin"):
        load_model(source)
    (tmp_path / "secret").write_bytes(content)
    weights.symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="folder"):
        load_model(source)


@pytest.mark.parametrize("location", ["../secret", "ABSOLUTE"])
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    source = make(folder / "a.onnx", external="weights.bin")
    (folder / "weights.bin").rename(tmp_path / "secret")
    proto = onnx.load(source, load_external_data=False)
    place = str(tmp_path / "secret") if location == "ABSOLUTE" else location
    for entry in proto.graph.initializer[0].external_data:
        entry.value = place if entry.key == "location" else entry.value
    source.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="folder"):
        load_model(source)


def test_a_model_over_the_limit_of_one_message_has_no_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(make(tmp_path / "a.onnx"))
    monkeypatch.setattr("onnxtrim.export.model_io.PROTOBUF_LIMIT", 1000)
    with pytest.raises(WorkError, match="2 GiB"):
        model_bytes(model)
