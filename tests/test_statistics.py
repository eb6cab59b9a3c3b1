"""Streaming statistics against numpy in float64 on whole arrays."""

from __future__ import annotations

import dataclasses
import json
import resource
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxtrim.bench.batches import Batch
from onnxtrim.bench.data import DataSource, open_data
from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.graph.labels import AxisRef
from onnxtrim.toolkit.prepare import Prepared
from onnxtrim.toolkit.statistics import Moments, Statistics, gather, merge
from tests.nets import Net, prepared

Array = NDArray[Any]


def whole(values: Array) -> Moments:
    """What numpy says; ``values`` has one row per position."""
    x = values.astype(np.float64)
    mean = x.mean(1)
    m2 = ((x - mean[:, None]) ** 2).sum(1)
    zeros = (x == 0).mean(1)
    return Moments(x.shape[1], mean, m2, np.abs(x).mean(1), zeros, x.min(1), x.max(1))


def agree(found: Moments, wanted: Moments, rtol: float = 1e-12) -> None:
    assert found.count == wanted.count
    for field in ("mean", "m2", "abs_mean", "zeros", "low", "high"):
        one, other = getattr(found, field), getattr(wanted, field)
        scale = np.abs(other).max(initial=1e-30)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * scale, err_msg=field)


def identity_net(opset: int = 17) -> onnx.ModelProto:
    """Channels that are exactly what a test feeds: a 1x1 convolution with an identity."""
    n = Net()
    h = n.op("Conv", "x", n.constant("eye", np.eye(3, dtype=np.float32)[:, :, None, None]))
    return n.build(n.conv("c2", h, 3, 2), ["batch", 3, 4, 5], opset=opset)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared(identity_net(), tmp_path_factory.mktemp("statistics"))


def collect(net: Prepared, x: Array, batch: int = 256) -> Statistics:
    return gather(net.analysis, open_data({"x": x}, net.inputs), net.sha256, batch=batch)


def channels(x: Array) -> Array:
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


POINT: AxisRef = ("conv_0", 1)


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_equal_to_numpy_on_the_whole(batch: int, net: Prepared) -> None:
    x = np.random.default_rng(0).standard_normal((100, 3, 4, 5)).astype(np.float32)
    x[:, 1] = np.maximum(x[:, 1], 0)  # half of them zeros
    x[:, 2] = 2.5  # constant
    found = collect(net, x, batch)
    agree(found.points[POINT], whole(channels(x)))
    assert found.samples == 100
    assert found.points[POINT].std[2] == 0


@pytest.mark.parametrize("batch", [1, 16, 300])
@pytest.mark.parametrize("mean", [1e4, -3e5])
def test_a_mean_far_above_the_deviation(mean: float, batch: int, net: Prepared) -> None:
    rng = np.random.default_rng(1)
    noise = 1e-3 if mean > 0 else 0.1  # float32 near 1e4 has steps of 1e-3
    x = (mean + noise * rng.standard_normal((300, 3, 4, 5))).astype(np.float32)
    x[:, 1] *= -1
    agree(collect(net, x, batch).points[POINT], whole(channels(x)), rtol=1e-8)


def test_a_first_batch_unlike_the_rest(net: Prepared) -> None:
    """The shift comes from it; the sums must stand even a bad one."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((200, 3, 4, 5)).astype(np.float32)
    x[:2] += 1e3
    agree(collect(net, x, 2).points[POINT], whole(channels(x)), rtol=1e-9)


@pytest.mark.parametrize("opset", [9, 12, 13, 18, 20])
def test_opsets(opset: int, tmp_path: Path) -> None:
    net = prepared(identity_net(opset), tmp_path)
    x = np.random.default_rng(3).standard_normal((20, 3, 4, 5)).astype(np.float32)
    agree(collect(net, x, 8).points[POINT], whole(channels(x)))


def test_a_tensor_of_one_axis(tmp_path: Path) -> None:
    n = Net()
    h = n.op("Reshape", n.op("MatMul", "x", n.weight("w", 4, 6)), n.ints("flat", -1))
    net = prepared(n.build(n.op("MatMul", h, n.weight("v", 6, 2)), [1, 4]), tmp_path)
    x = np.random.default_rng(4).standard_normal((9, 4)).astype(np.float32)
    (tensor, axis), *_ = net.analysis.consumer_inputs()
    w = onnx.numpy_helper.to_array(onnx.load(tmp_path / "net.onnx").graph.initializer[0])
    agree(collect(net, x).points[tensor, axis], whole((x @ w).T), rtol=1e-6)


def test_units_on_several_positions(tmp_path: Path) -> None:
    """Behind Flatten a channel lies on all its pixels: the moments are those of the channel."""
    n = Net()
    h = n.op("Conv", "x", n.constant("eye", np.eye(3, dtype=np.float32)[:, :, None, None]))
    model = n.build(n.gemm("fc", n.op("Flatten", h), 60, 2), ["batch", 3, 4, 5])
    net = prepared(model, tmp_path)
    x = np.random.default_rng(5).standard_normal((50, 3, 4, 5)).astype(np.float32)
    x += np.linspace(-3, 3, 20).reshape(4, 5).astype(np.float32)  # pixels differ
    found = collect(net, x, 13)
    assert [moments.mean.shape for moments in found.points.values()] == [(60,)]
    (moments,) = found.of(net.analysis.groups[0])
    agree(moments, whole(channels(x)))


samples = st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=30)


@given(st.lists(samples, min_size=1, max_size=5))
def test_merged_shards_are_the_whole(shards: list[list[float]]) -> None:
    parts = [whole(np.array([shard])) for shard in shards]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    everything = np.array([[value for shard in shards for value in shard]])
    wanted = whole(everything)
    agree(dataclasses.replace(merged, m2=wanted.m2), wanted, rtol=1e-9)
    size = float(np.abs(everything).max()) ** 2 * everything.size
    np.testing.assert_allclose(merged.m2, wanted.m2, rtol=1e-7, atol=1e-10 * size + 1e-30)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 59))
def test_statistics_of_two_halves(net: Prepared, cut: int) -> None:
    x = np.random.default_rng(6).standard_normal((60, 3, 4, 5)).astype(np.float32)
    both = merge(collect(net, x[:cut]), collect(net, x[cut:]))
    agree(both.points[POINT], collect(net, x).points[POINT])
    assert both.samples == 60


def test_round_trip_is_byte_identical(net: Prepared, tmp_path: Path) -> None:
    x = np.random.default_rng(7).standard_normal((30, 3, 4, 5)).astype(np.float32)
    found = collect(net, x)
    found.save(tmp_path / "a.npz")
    loaded = Statistics.load(tmp_path / "a.npz")
    loaded.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    agree(loaded.points[POINT], found.points[POINT], rtol=0)
    loaded.require(net.analysis, net.sha256, "a.npz")
    collect(net, x).save(tmp_path / "c.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()


def test_statistics_of_another_model_are_refused(net: Prepared, tmp_path: Path) -> None:
    found = collect(net, np.ones((3, 3, 4, 5), np.float32))
    with pytest.raises(InputError, match=r"s\.npz: these statistics belong to another model"):
        found.require(net.analysis, "0" * 64, "s.npz")
    other = dataclasses.replace(found, points={("elsewhere", 1): found.points[POINT]})
    with pytest.raises(InputError, match="another model"):
        other.require(net.analysis, net.sha256, "s.npz")
    with pytest.raises(InputError, match="different models"):
        merge(found, dataclasses.replace(found, model_sha256="0"))


def broken_files(good: Path, folder: Path) -> Iterator[Path]:
    yield folder / "missing.npz"
    for name, content in (("empty", b""), ("text", b"hello"), ("cut", good.read_bytes()[:900])):
        (folder / f"{name}.npz").write_bytes(content)
        yield folder / f"{name}.npz"
    np.save(folder / "array.npy", np.ones(3))
    yield folder / "array.npy"
    np.savez(folder / "others.npz", x=np.ones(3))
    yield folder / "others.npz"
    with zipfile.ZipFile(good) as archive:
        names = archive.namelist()
    assert "head.npy" in names
    for number, head in enumerate(({"schema": "onnxtrim.statistics/2", "points": []}, [1], 7)):
        path = folder / f"head{number}.npz"
        np.savez(path, head=np.frombuffer(json.dumps(head).encode(), np.uint8))
        yield path


def test_what_is_not_a_statistics_file_is_refused(net: Prepared, tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    collect(net, np.ones((3, 3, 4, 5), np.float32)).save(good)
    for path in broken_files(good, tmp_path):
        with pytest.raises(InputError, match=rf"{path.name}: is not a statistics file"):
            Statistics.load(path)
    path = tmp_path / "future.npz"
    head = json.dumps({"schema": "onnxtrim.statistics/9"}).encode()
    np.savez(path, head=np.frombuffer(head, np.uint8))
    with pytest.raises(InputError, match="statistics/9"):
        Statistics.load(path)


@pytest.mark.parametrize("fault", ["log", "overflow"])
def test_activations_that_are_not_finite_are_refused(fault: str, tmp_path: Path) -> None:
    n = Net()
    h = n.conv("c1", "x", 3, 4, 1)
    h = n.op("Log", n.relu(h)) if fault == "log" else n.op("Exp", h)
    net = prepared(n.build(n.conv("c2", h, 4, 2), ["batch", 3, 4, 4]), tmp_path)
    x = np.random.default_rng(8).standard_normal((5, 3, 4, 4)).astype(np.float32) * 1e4
    with pytest.raises(InputError, match="takes NaN or infinite values"):
        collect(net, x, 2)


class Generated(DataSource):
    """Samples that are made when they are asked for."""

    @property
    def sha256(self) -> str:
        return "0" * 64

    def _blocks(self, size: int) -> Iterator[Batch]:
        rng = np.random.default_rng(9)
        for start in range(0, self.samples or 0, 500):
            count = min(500, (self.samples or 0) - start)
            yield Batch({"x": rng.random((count, 3, 4, 5), np.float32)}, None)


def test_memory_does_not_grow_with_the_samples(net: Prepared) -> None:
    """50,000 samples would be 12 MB; ten times a small run must not take much more."""
    gather(net.analysis, Generated("few", net.inputs, 5_000), net.sha256, batch=500)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done: list[int] = []
    source = Generated("many", net.inputs, 50_000)
    found = gather(
        net.analysis, source, net.sha256, batch=500, progress=lambda _, n, of: done.append(n)
    )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 6_000  # kilobytes
    assert (found.samples, done[-1], len(done)) == (50_000, 50_000, 100)
    assert found.points[POINT].count == 50_000 * 20
    np.testing.assert_allclose(found.points[POINT].mean, 0.5, atol=2e-3)
