"""Surgery on every net of the zoo: the smaller model is the masked original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from onnxtrim.export.model_io import model_bytes
from onnxtrim.toolkit.graph.analyse import analyse
from onnxtrim.toolkit.graph.mask import mask_units
from onnxtrim.toolkit.graph.normalise import normalise
from onnxtrim.toolkit.graph.selfcheck import self_check
from onnxtrim.toolkit.graph.surgery import (
    count_parameters,
    parameters_after,
    positions,
    remove_units,
    share_again,
)
from onnxtrim.toolkit.prepare import Prepared, prepare
from tests.nets import Net, prepared
from tests.zoo import ZOO

Masks = dict[str, NDArray[np.bool_]]
Feeds = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prepared]:
    folder: Path = tmp_path_factory.mktemp("nets")
    return {name: prepared(build(), folder, name) for name, build in ZOO.items()}


def removal(net: Prepared, share: float, seed: int, only: str | None = None) -> Masks:
    """Random units of every group, at least one, never all."""
    rng = np.random.default_rng(seed)
    masks = {}
    for group in net.analysis.groups:
        count = min(max(1, round(share * group.units)), group.units - 1)
        mask = np.ones(group.units, np.bool_)
        mask[rng.permutation(group.units)[:count]] = False
        if only in (None, group.name):
            masks[group.name] = mask
    return masks


def cut(net: Prepared, masks: Masks, effect: float = 1e-4) -> ir.Model:
    """Remove, compare with the prediction, check."""
    analysis = net.analysis
    result = remove_units(analysis.model, analysis, masks)
    assert count_parameters(result) == parameters_after(analysis, masks)
    assert count_parameters(result) < parameters_after(analysis, {})
    share_again(result, analysis.normalised.copies)
    check = self_check(analysis.model, result, analysis, masks, net.feeds)
    assert check.effect > effect
    assert check.tensors >= len(analysis.model.graph) * 0.5
    return result


def outputs(model: ir.Model, feeds: Feeds, level: str = "ENABLE_ALL") -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    session = ort.InferenceSession(model_bytes(model), options, ["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, feeds)[0]
    return result


def sample(net: Prepared, batch: int) -> Feeds:
    rng = np.random.default_rng(7)
    sizes = {"batch": batch, "height": 5, "width": 3}
    return {
        spec.name: rng.standard_normal(
            [size if isinstance(size, int) else sizes[str(size)] for size in spec.shape]
        ).astype(np.float32)
        for spec in net.inputs
    }


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.95])
@pytest.mark.parametrize("name", ZOO)
def test_all_groups_at_once(
    name: str, share: float, seed: int, nets: dict[str, Prepared], tmp_path: Path
) -> None:
    net = nets[name]
    masks = removal(net, share, seed)
    small = cut(net, masks, 1e-4 if share >= 0.4 else -1)  # a few units may all be dead
    onnx.checker.check_model(onnx.load_from_string(model_bytes(small)), full_check=True)
    feeds = sample(net, 5)  # a size that no check has seen
    wanted = outputs(mask_units(net.analysis.model, net.analysis, masks), feeds)
    for level in ("DISABLE_ALL", "ENABLE_ALL"):
        np.testing.assert_allclose(outputs(small, feeds, level), wanted, rtol=1e-4, atol=2e-5)
    again = analyse(normalise(small, net.feeds[-2:]))
    kept = {group.name: int(masks[group.name].sum()) for group in net.analysis.groups}
    if 1 not in kept.values():  # one head left is no head: its channels are units then
        assert {group.name: group.units for group in again.groups} == kept
    if share == 0.4:
        path = tmp_path / "again.onnx"
        path.write_bytes(model_bytes(small))
        second = prepare(path, sizes={"height": 4, "width": 6})[0]
        cut(second, removal(second, share, seed))


@pytest.mark.parametrize("name", ZOO)
def test_one_group_at_a_time(name: str, nets: dict[str, Prepared]) -> None:
    net = nets[name]
    for group in net.analysis.groups:
        for share in (0.05, 0.4, 0.95):
            small = cut(net, removal(net, share, 3, group.name), 1e-4 if share > 0.9 else -1)
            shapes = {key: value.shape for key, value in small.graph.initializers.items()}
            lost = positions(net.analysis, removal(net, share, 3, group.name))
            for (tensor, axis), mask in lost.items():
                if tensor in shapes:
                    shape = shapes[tensor]
                    assert shape is not None and shape[axis] == mask.sum()


@pytest.mark.parametrize("name", ZOO)
def test_removing_nothing_leaves_every_weight(name: str, nets: dict[str, Prepared]) -> None:
    net = nets[name]
    before = {w.name: (list(w.dims), w.raw_data) for w in ZOO[name]().graph.initializer}
    for masks in ({}, {group.name: np.ones(group.units, bool) for group in net.analysis.groups}):
        same = remove_units(net.analysis.model, net.analysis, masks)
        share_again(same, net.analysis.normalised.copies)
        after = {
            key: (list(value.const_value.shape.numpy()), value.const_value.tobytes())
            for key, value in same.graph.initializers.items()
            if value.const_value is not None and value.const_value.dtype.is_floating_point()
        }
        assert {key: before[key] for key in after} == after
        assert {key for key, (_, data) in before.items() if len(data) > 64} - {"shape"} <= {*after}
        feeds = sample(net, 2)
        assert np.array_equal(outputs(same, feeds), outputs(net.analysis.model, feeds))


def test_a_mask_that_empties_a_group_is_refused(nets: dict[str, Prepared]) -> None:
    net = nets["mlp"]
    for mask in (np.zeros(12, bool), np.arange(11) > 0):
        with pytest.raises(ValueError, match="fc1"):
            positions(net.analysis, {"fc1": mask})


def test_shape_goes_on_telling_the_original_size(tmp_path: Path) -> None:
    n = Net()
    h = n.relu(n.gemm("fc1", "x", 8, 12))
    shape = n.op("Shape", h, out="told")
    net = prepared(n.build([n.gemm("fc2", h, 12, 4), shape], ["batch", 8]), tmp_path)
    small = cut(net, removal(net, 0.4, 0))
    session = ort.InferenceSession(model_bytes(small))
    assert [item.name for item in session.get_outputs()] == ["fc2", "told"]
    assert session.run(["told"], sample(net, 5))[0].tolist() == [5, 12]


def test_equal_biases_are_shared_again(nets: dict[str, Prepared], tmp_path: Path) -> None:
    """onnxsim writes a file here that ONNX Runtime refuses."""
    model = ZOO["shared_bias"]()
    (zero,) = (w for w in model.graph.initializer if w.name == "zero")
    zero.raw_data = bytes(len(zero.raw_data))
    net = prepared(model, tmp_path)
    masks = removal(net, 0.4, 0)
    small = cut(net, masks)
    assert {len(m) - m.sum() for m in masks.values()} == {3}
    assert [name for name in small.graph.initializers if name.startswith("zero")] == ["zero"]
    masks["c2"] = removal(net, 0.6, 0)["c2"]
    small = cut(net, masks)
    names = [name for name in small.graph.initializers if name.startswith("zero")]
    assert names == ["zero", "zero.copy1"]


def test_activations_that_meet_are_masked_by_their_own_type(tmp_path: Path) -> None:
    """Half precision, no types noted in the file, and no weight to mask."""
    n = Net()
    a = n.relu(n.matmul("a", "x", 8, 12))
    b = n.op("Transpose", n.op("Tanh", n.matmul("b", "x", 8, 12)), perm=[0, 2, 1])
    n.weights = [
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(w).astype(np.float16), w.name)
        for w in n.weights
    ]
    model = n.build(n.op("MatMul", a, b), ["batch", 5, 8], dtype=onnx.TensorProto.FLOAT16)
    net = prepared(model, tmp_path)
    assert [group.units for group in net.analysis.groups] == [12]
    cut(net, removal(net, 0.4, 0))


def test_heads_that_are_merged_with_the_batch(tmp_path: Path) -> None:
    n = Net()
    heads = {}
    for name in "qk":
        h = n.op("Reshape", n.matmul(name, "x", 8, 12), n.ints(f"{name}.split", -1, 5, 3, 4))
        h = n.op("Transpose", h, perm=[0, 2, 1, 3])
        heads[name] = n.op("Reshape", h, n.ints(f"{name}.merge", -1, 5, 4))
    s = n.op("MatMul", heads["q"], n.op("Transpose", heads["k"], perm=[0, 2, 1]))
    s = n.op("MatMul", n.op("Softmax", s, axis=-1), heads["k"])
    s = n.op("Transpose", n.op("Reshape", s, n.ints("back", -1, 3, 5, 4)), perm=[0, 2, 1, 3])
    s = n.matmul("out", n.op("Reshape", s, n.ints("flat", -1, 5, 12)), 12, 8)
    net = prepared(n.build(s, ["batch", 5, 8]), tmp_path)
    assert [group.units for group in net.analysis.groups] == [3]
    cut(net, removal(net, 0.4, 0))


@pytest.mark.parametrize("opset", [11, 17])
def test_a_squeeze_without_axes_keeps_an_axis_of_one(opset: int, tmp_path: Path) -> None:
    n = Net()
    h = n.op("Reshape", n.relu(n.gemm("fc1", "x", 6, 4)), n.ints("shape", 3, 4, 1))
    net = prepared(n.build(n.gemm("fc2", n.op("Squeeze", h), 4, 2), [3, 6], opset=opset), tmp_path)
    (group,) = net.analysis.groups
    cut(net, {group.name: np.array([False, False, True, False])})
