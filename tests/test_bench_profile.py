"""Profiles: summing up events, tracing nodes back to the file, layers of two models in a row."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxtrim.bench.compare import bench_model, compare
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.layers import Layer, Profile, layers_of
from onnxtrim.bench.profile import channel_block, describe_pair, profile_models, reason
from onnxtrim.bench.profiler import summarise
from onnxtrim.bench.session import RunOptions
from onnxtrim.bench.settings import Settings
from tests.bench_models import save_graph, save_mlp
from tests.nets import Net

ONE = RunOptions(1)
PROFILE = Settings(ONE, latency=False, memory=False, profile=True)


def save_cnn(path: Path, first: int, second: int) -> Path:
    """Three convolutions with all that ONNX Runtime fuses into them, a pool, a classifier."""
    net = Net()
    x = net.relu(net.conv("c0", "x", 3, first))
    x = net.relu(net.bn("bn", net.conv("c1", x, first, second), second))
    x = net.relu(net.op("Add", x, net.conv("c2", x, second, second), out="sum"))
    x = net.op("MaxPool", x, out="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    x = net.op("Sigmoid", net.matmul("fc", x, second, 16))
    onnx.save(net.build(net.gemm("out", x, 16, 10), {"x": ["batch", 3, 16, 16]}), path)
    return path


def image() -> list[dict[str, Any]]:
    return [{"x": np.ones((1, 3, 16, 16), np.float32)}]


# --- events of the profiler -----------------------------------------------------------------------


def event(name: str, ts: int, dur: int, **args: Any) -> dict[str, Any]:
    if name == "model_run":
        return {"cat": "Session", "name": name, "ts": ts, "dur": dur, "args": {}}
    told = {"op_name": name.split("_")[0], "node_index": "0", **args}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": told}


def test_first_runs_do_not_count_and_the_median_is_taken() -> None:
    events = []
    for index, dur in enumerate([900, 10, 12, 700]):
        start = 1000 * index
        shapes = {"input_type_shape": [{"float": [1, 8]}, {"float": [8, 4]}]}
        shapes["output_type_shape"] = [{"float": [1, 4]}]
        events += [event("Gemm_a", start + 1, dur, **shapes), event("Relu_b", start + dur + 1, 5)]
        events.append(event("model_run", start, 990))
    told = summarise(events, warm=1)
    assert told["runs"] == 3
    gemm, relu = told["nodes"]
    assert (gemm["name"], gemm["operator"], gemm["calls"]) == ("Gemm_a", "Gemm", 1)
    assert gemm["median_us"] == 12
    assert (gemm["inputs"], gemm["output"]) == ([[1, 8], [8, 4]], [1, 4])
    assert relu["median_us"] == 5


def test_the_time_of_a_body_is_not_counted_twice() -> None:
    events = [
        event("Add_c", 11, 20),  # written before the node whose body they are in
        event("Add_c", 31, 30),
        event("Loop_l", 10, 60),
        event("Relu_r", 70, 7),
        event("model_run", 5, 100),
    ]
    nodes = {node["name"]: node for node in summarise(events, warm=0)["nodes"]}
    assert nodes["Loop_l"]["median_us"] == 10
    assert (nodes["Add_c"]["median_us"], nodes["Add_c"]["calls"]) == (50, 2)
    assert nodes["Relu_r"]["median_us"] == 7


# --- back to the model file -----------------------------------------------------------------------


def told(*nodes: tuple[str, str, list[int]], us: float = 10.0) -> dict[str, Any]:
    keys = {"calls": 1.0, "median_us": us}
    return {
        "runs": 3,
        "nodes": [
            {"name": name, "operator": operator, "inputs": [[1, 8]], "output": shape, **keys}
            for name, operator, shape in nodes
        ],
    }


@pytest.mark.parametrize(
    ("name", "kernel", "layer"),
    [
        ("c1/node", "FusedConv", "c1/node"),
        ("relu_4_nchwc", "Conv", "c1/node"),  # called after the activation, two nodes behind
        ("c2_nchwc", "Conv", "c2/node"),
        ("relu_4/node_nchwc", "Conv", "c1/node"),  # called after a node
        ("fused fc_mm/node/MatMulAddFusion", "FusedGemm", "fc_mm/node"),
        ("fc_mm/node/MatMulAddFusion_token_3", "Gemm", "fc_mm/node"),
        ("pool_nchwc", "MaxPool", "pool/node"),
        ("ReorderOutput_token_2", "ReorderOutput", None),
        ("sum_nchwc", "Conv", "c2/node"),  # the nearest
        ("Gemm_0", "Gemm", None),
    ],
)
def test_names_that_onnx_runtime_makes(
    tmp_path: Path, name: str, kernel: str, layer: str | None
) -> None:
    path = save_cnn(tmp_path / "m.onnx", 8, 8)
    shape = [1, 8, 16, 16] if "Conv" in kernel or kernel == "MaxPool" else [1, 16]
    profile = layers_of(path, told((name, kernel, shape)))
    if layer is None:
        assert profile.layers == ()
        assert profile.others == {kernel: 1.0}
    else:
        assert [found.name for found in profile.layers] == [layer]
        assert profile.others == {}


def test_either_of_two_convolutions_is_neither(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Add", net.conv("a", "x", 3, 8), net.conv("b", "x", 3, 8), out="sum")
    onnx.save(net.build(x, {"x": [1, 3, 8, 8]}), tmp_path / "m.onnx")
    profile = layers_of(tmp_path / "m.onnx", told(("sum_nchwc", "Conv", [1, 8, 8, 8])))
    assert (profile.layers, profile.others) == ((), {"Conv": 1.0})


def test_nodes_without_names_also_with_external_data(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "m.onnx", [8, 64, 32, 4])
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, size_threshold=0)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (profile,) = profile_models([path], [{"x": np.ones((1, 8), np.float32)}], ONE)
    channels = {layer.name: layer.channels for layer in profile.layers}
    assert channels == {"h0": (8, 64), "h1": (64, 32), "y": (32, 4)}
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_channels_and_work_of_a_convolution_come_from_the_file(tmp_path: Path) -> None:
    net = Net()
    x = net.conv("deep", net.conv("wide", "x", 3, 6), 6, 6, group=6)
    onnx.save(net.build(x, {"x": [1, 3, 8, 8]}), tmp_path / "m.onnx")
    padded = [1, 8, 8, 8]  # a layout of blocks rounds 6 up to 8
    nodes = [("wide_nchwc", "Conv", padded), ("deep_nchwc", "Conv", padded)]
    found = {x.name: x for x in layers_of(tmp_path / "m.onnx", told(*nodes)).layers}
    wide, deep = found["wide/node"], found["deep/node"]
    assert (wide.channels, wide.shape, wide.macs) == ((3, 6), (1, 6, 8, 8), 64 * 6 * 3 * 9)
    assert (deep.channels, deep.macs) == ((6, 6), 64 * 6 * 9)


# --- real runs ------------------------------------------------------------------------------------


def test_a_real_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_cnn(tmp_path / "m.onnx", 32, 20)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(temporary)
    (profile,) = profile_models([path], image(), ONE)
    assert list(temporary.iterdir()) == [], "the profile must be deleted"
    assert profile.runs == 30
    found = {layer.name: layer for layer in profile.layers}
    assert {"c0/node", "c1/node", "c2/node", "pool/node", "fc_mm/node", "out/node"} <= set(found)
    assert sum(x.share for x in found.values()) + sum(profile.others.values()) == pytest.approx(1)
    shares = [layer.share for layer in profile.layers]
    assert shares == sorted(shares, reverse=True)
    heavy, light = found["c1/node"], found["out/node"]
    assert heavy.share > light.share, "1.5 million multiplications against 160"
    assert (heavy.channels, heavy.macs) == ((32, 20), 256 * 20 * 32 * 9)
    assert (light.channels, light.macs) == ((16, 10), 160)
    assert found["fc_mm/node"].macs == 20 * 16
    assert found["pool/node"].shape == (1, 20, 8, 8), "not as padded for the kernel"


def test_two_models_layer_beside_layer(tmp_path: Path) -> None:
    models = save_cnn(tmp_path / "a.onnx", 32, 32), save_cnn(tmp_path / "b.onnx", 32, 13)
    result = compare(*models, settings=PROFILE)
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert not any("profile" in name or "share" in name for name in value["metrics"])
    profile = value["details"]["profile"]
    assert (profile["runs"], profile["scaled_by"]) == (
        {"original": 30, "candidate": 30},
        "profile",
    )
    found = {layer["name"]: layer for layer in profile["layers"]}
    assert found["c0/node"]["reason"] == "not_pruned"
    assert found["c0/node"]["channels"] == [32, 32]
    assert found["c1/node"]["channels"] == [32, 13]
    assert found["c1/node"]["macs_ratio"] == pytest.approx(13 / 32)
    assert found["c2/node"]["macs_ratio"] == pytest.approx((13 / 32) ** 2)
    assert found["pool/node"]["channels"] == [32, 13]
    assert found["fc_mm/node"]["channels"] == [16, 16]
    assert found["fc_mm/node"]["macs_ratio"] == pytest.approx(13 / 32)
    assert all(layer["time_ratio"] > 0 for layer in found.values())
    for role in ("original", "candidate"):
        layers = sum(layer[role]["share"] for layer in found.values())
        others = sum(item[role] for item in profile["others"])
        assert layers + others == pytest.approx(1)


def test_one_model(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "m.onnx", [8, 1024, 1024, 4])
    profile = bench_model(path, settings=PROFILE).details["profile"]
    first = profile["layers"][0]
    assert (first["operator"], first["channels"]) == ("Gemm", [1024, 1024])
    assert first["share"] > 0.5
    assert "profile" not in bench_model(path, settings=replace(PROFILE, profile=False)).details


def test_a_real_body(tmp_path: Path) -> None:
    """Nodes in a Loop are told apart from the Loop, and called more than once."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "w0"], ["m"], name="step"),
            helper.make_node("Tanh", ["m"], ["h2"], name="squash"),
            helper.make_node("Identity", ["go"], ["go2"], name="on"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go2", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("h2", onnx.TensorProto.FLOAT, None),
        ],
    )
    weights = [
        onnx.numpy_helper.from_array(np.full((256, 256), 0.01, np.float32), "w0"),
        onnx.numpy_helper.from_array(np.array(7, np.int64), "times"),
        onnx.numpy_helper.from_array(np.array(True), "yes"),
    ]
    loop = helper.make_node("Loop", ["times", "yes", "x"], ["y"], name="loop", body=body)
    save_graph(tmp_path / "m.onnx", [loop], [("x", [16, 256])], [("y", [16, 256])], weights)
    feeds = [{"x": np.ones((16, 256), np.float32)}]
    (profile,) = profile_models([tmp_path / "m.onnx"], feeds, ONE)
    found = {layer.name: layer for layer in profile.layers}
    assert found["step"].calls == 7
    assert found["step"].macs == 16 * 256 * 256
    assert found["step"].share > found["loop"].share
    assert sum(layer.share for layer in profile.layers) <= 1 + 1e-9


def test_feeds_that_do_not_fit(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "m.onnx", [8, 4])
    with pytest.raises(InputError, match=r"m\.onnx: can't run on these inputs"):
        profile_models([path], [{"x": np.ones((1, 3), np.float32)}], ONE)


# --- pairs and reasons, with made-up numbers ------------------------------------------------------


def layer(name: str = "n", **changes: Any) -> Layer:
    """A convolution 32 → 32 of 3x3 on 10x10 that takes 200 µs."""
    values: dict[str, Any] = {
        "name": name,
        "output": f"{name}:0",
        "operator": "Conv",
        "kernel": "FusedConv",
        "share": 0.5,
        "median_us": 200.0,
        "calls": 1.0,
        "channels": (32, 32),
        "shape": (1, 32, 10, 10),
        "macs": 921_600,
        "elements": 15_616,
    }
    return Layer(**{**values, **changes})


def conv(before: int, after: int, **changes: Any) -> Layer:
    return layer(
        channels=(before, after),
        shape=(1, after, 10, 10),
        macs=900 * before * after,
        elements=100 * (before + after) + 9 * before * after,
        **changes,
    )


def test_same_shapes_are_not_pruned_whatever_the_time() -> None:
    for ratio in (0.5, 1.0, 2.0):
        assert reason(layer(), layer(), ratio, 8) == "not_pruned"
    padded = layer(elements=20_000)
    assert reason(padded, layer(), 1.0, 8) == "not_pruned", "another layout of the same"
    concat = layer(operator="Concat", channels=None, macs=None)
    assert reason(concat, replace(concat, elements=15_000), 1.0, 8) == "memory_bound"


def test_a_layer_whose_time_falls_with_its_work_needs_no_reason() -> None:
    half = conv(16, 32)
    assert reason(layer(), half, 0.5, 8) is None
    assert reason(layer(), half, 0.74, 8) is None, "half of the saving came"
    assert reason(layer(), half, 0.76, 8) == "unexplained"
    odd = conv(32, 15)
    assert reason(layer(), odd, 0.5, 8) is None, "unaligned, but faster all the same"


def test_alignment() -> None:
    assert reason(layer(), conv(32, 30), 1.0, 8) == "alignment"
    assert reason(layer(), conv(30, 32), 1.0, 8) == "alignment"
    assert reason(layer(), conv(32, 24), 1.0, 8) == "unexplained"
    assert reason(layer(), conv(32, 24), 1.0, 16) == "alignment"
    assert reason(conv(3, 32), conv(3, 16), 1.0, 16) == "unexplained", "3 is no matter of pruning"
    gemm: dict[str, Any] = {
        "operator": "Gemm",
        "shape": (64, 30),
        "channels": (512, 30),
        "macs": 983_040,
    }
    before = layer(operator="Gemm", shape=(64, 32), channels=(512, 32), macs=1_048_576)
    assert reason(before, layer(**gemm), 1.0, 8) == "unexplained", "of convolutions only"


def test_overhead_comes_before_what_is_behind_it() -> None:
    assert reason(layer(), conv(32, 30, median_us=9.0), 1.0, 8) == "overhead_bound"
    assert reason(layer(), conv(32, 30, median_us=900.0), 1.0, 8) == "alignment"
    loop = conv(32, 30, median_us=900.0, calls=100.0)
    assert reason(layer(), loop, 1.0, 8) == "overhead_bound", "9 µs each"


def test_memory() -> None:
    relu: dict[str, Any] = {"operator": "Relu", "channels": None, "macs": None}
    before = layer(**relu, shape=(1, 32, 10, 10), elements=6400)
    after = layer(**relu, shape=(1, 16, 10, 10), elements=3200)
    assert reason(before, after, 0.9, 8) == "memory_bound"
    assert reason(before, after, 0.5, 8) is None, "what it moves is halved"
    lstm = replace(after, operator="LSTM")
    assert reason(replace(before, operator="LSTM"), lstm, 0.9, 8) == "unexplained"
    deep = layer(channels=(16, 16), macs=14_400, elements=3344)  # 3x3, each channel on its own
    assert reason(layer(macs=28_800, elements=6688), deep, 0.9, 8) == "memory_bound"


def profile(*layers: Layer, others: dict[str, float] | None = None, us: float = 400.0) -> Profile:
    return Profile(30, layers, others or {}, us)


def test_ratios_are_scaled_to_the_measured_one() -> None:
    original = profile(layer("a", share=0.8), layer("b", share=0.2))
    candidate = profile(layer("a", share=0.5), layer("b", share=0.5), us=200.0)
    by_profile = describe_pair(original, candidate, 8, None)
    assert [x["time_ratio"] for x in by_profile["layers"]] == pytest.approx([0.3125, 1.25])
    measured = describe_pair(original, candidate, 8, 0.6)
    assert [x["time_ratio"] for x in measured["layers"]] == pytest.approx([0.375, 1.5])
    assert (by_profile["scaled_by"], measured["scaled_by"]) == ("profile", "latency.p50.ratio")


def test_what_has_no_partner_is_listed_apart() -> None:
    original = profile(layer("a"), layer("gone", share=0.1), others={"ReorderInput": 0.4})
    renamed = replace(layer("other"), output="a:0")
    clash = layer("gone", operator="Gemm", share=0.3)
    candidate = profile(renamed, clash, others={"ReorderOutput": 0.2})
    value = describe_pair(original, candidate, 8, None)
    assert [x["name"] for x in value["layers"]] == ["a"], "found by its output"
    assert value["others"] == [
        {"name": None, "operator": "ReorderInput", "original": 0.4, "candidate": 0.0},
        {"name": "gone", "operator": "Gemm", "original": 0.0, "candidate": 0.3},
        {"name": None, "operator": "ReorderOutput", "original": 0.0, "candidate": 0.2},
        {"name": "gone", "operator": "Conv", "original": 0.1, "candidate": 0.0},
    ]


def test_channel_block() -> None:
    assert channel_block(["avx2", "avx512f", "avx512_vnni"]) == 16
    assert channel_block(["avx2", "fma"]) == channel_block([]) == 8
