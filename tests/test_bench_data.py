"""Data sources: what is refused, and that what is accepted is streamed unchanged."""

from __future__ import annotations

import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxtrim.bench.data import Batch, InputSpec, open_data
from onnxtrim.bench.errors import InputError

F32 = np.dtype(np.float32)
X = InputSpec("x", F32, ("batch", 3))
Y = InputSpec("y", np.dtype(np.int64), (None, None))


def rows(count: int, width: int = 3) -> NDArray[Any]:
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


def joined(batches: list[Batch], name: str = "x") -> NDArray[Any]:
    return np.concatenate([batch.feeds[name] for batch in batches])


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_is_read_in_lock_step(tmp_path: Path, compressed: bool) -> None:
    save = np.savez_compressed if compressed else np.savez
    path = tmp_path / "d.npz"
    tokens, labels = np.arange(20).reshape(10, 2), np.arange(10, dtype=np.int16)
    save(path, labels=labels, y=tokens, x=rows(10))
    data = open_data(path, [X, Y], need_labels=True)
    batches = list(data.batches(4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert data.samples == 10
    assert list(batches[0].feeds) == ["x", "y"]
    np.testing.assert_array_equal(joined(batches), rows(10))
    np.testing.assert_array_equal(joined(batches, "y"), tokens)
    found = [batch.labels for batch in batches if batch.labels is not None]
    np.testing.assert_array_equal(np.concatenate(found), labels)
    assert len(list(data.batches(4))) == 3, "a source can be streamed again"


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    path = tmp_path / "big.npz"
    np.savez_compressed(path, x=np.zeros((40_000, 256), np.float32))  # 41 MB
    data = open_data(path, [InputSpec("x", F32, ("n", 256))])
    tracemalloc.start()
    total = sum(len(batch) for batch in data.batches(64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 40_000
    assert peak < 4_000_000


ARRAYS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "other name": ({"input": rows(2)}, ["'input'", "'x'", "rename"]),
    "missing": ({"labels": np.zeros(2, int)}, ["'x'", "missing"]),
    "extra": ({"x": rows(2), "z": rows(2)}, ["'z'", "not wanted"]),
    "float64": ({"x": rows(2).astype(float)}, ['x.astype("float32")', "float64"]),
    "integers": ({"x": np.zeros((2, 3), int)}, ['x.astype("float32")']),
    "rank": ({"x": np.zeros((2, 3, 1), np.float32)}, ["(2, 3, 1)", "(batch, 3)"]),
    "scalar": ({"x": np.float32(1)}, ["()", "(batch, 3)"]),
    "width": ({"x": rows(2, 4)}, ["(2, 4)", "(batch, 3)"]),
    "empty": ({"x": rows(0)}, ["'x'", "no samples"]),
    "labels length": ({"x": rows(2), "labels": np.zeros(3, int)}, ["labels", "(3,)", "(2,)"]),
    "labels shape": ({"x": rows(2), "labels": np.zeros((2, 1), int)}, ["(2, 1)", "(2,)"]),
    "labels float": ({"x": rows(2), "labels": np.zeros(2)}, ["labels", "float64", "integers"]),
    "no labels": ({"x": rows(2)}, ["no labels", "'labels'"]),
    "objects": ({"x": np.array([[1, None, 2]], object)}, ["pickled"]),
    "columns": ({"x": np.asfortranarray(rows(2))}, ["column order", "ascontiguousarray"]),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_unfit_arrays_are_refused_before_anything_runs(tmp_path: Path, case: str) -> None:
    arrays, words = ARRAYS[case]
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError) as error:
        open_data(path, [X], need_labels=case == "no labels")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert all(word in message for word in words), message


def test_lengths_must_agree(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'x' has 2 samples but 'y' has 3"):
        open_data({"x": rows(2), "y": np.zeros((3, 1), int)}, [X, Y])


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    np.savez(good, x=rows(500))
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:3000])
    flipped = bytearray(good.read_bytes())
    flipped[3000] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("read.me", "hello")
    with zipfile.ZipFile(tmp_path / "nonsense.npz", "w") as archive:
        archive.writestr("x.npy", b"no header")
    with zipfile.ZipFile(good) as archive:
        content = archive.read("x.npy")
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("x.npy", content[:-12])
    (tmp_path / "folder").mkdir()
    for name in ["absent", "empty", "text", "cut", "flipped", "other", "nonsense", "short"]:
        with pytest.raises(InputError) as error:
            list(open_data(tmp_path / f"{name}.npz", [X]).batches(100))
        assert f"{name}.npz" in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"no \.npz file"):
        open_data(tmp_path / "folder", [X])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_name_the_sample(bad: float) -> None:
    array = rows(10)
    array[[7, 8], 1] = bad
    data = open_data({"x": array}, [X])
    stream = data.batches(4)
    next(stream)
    with pytest.raises(InputError, match=r"'x' has NaN or infinite values, first in sample 7$"):
        next(stream)


def test_shards_are_one_stream(tmp_path: Path) -> None:
    whole = rows(11)
    for name, start, stop in [("a", 0, 3), ("b", 3, 4), ("c", 4, 11)]:
        np.savez(tmp_path / f"{name}.npz", x=whole[start:stop])
    data = open_data(tmp_path, [X])
    batches = list(data.batches(5))
    assert [len(batch) for batch in batches] == [5, 5, 1]
    np.testing.assert_array_equal(joined(batches), whole)
    before = data.sha256
    np.savez(tmp_path / "b.npz", x=whole[:1])
    assert open_data(tmp_path, [X]).sha256 != before
    np.savez(tmp_path / "b.npz", x=whole[:1], labels=np.zeros(1, int))
    with pytest.raises(InputError, match="some shards have labels"):
        open_data(tmp_path, [X])


def test_fixed_first_dimension() -> None:
    spec = InputSpec("x", F32, (4, 3))
    assert [len(b) for b in open_data({"x": rows(8)}, [spec]).batches(100)] == [4, 4]
    with pytest.raises(InputError, match=r"exactly 4 samples at a time, and 10 .* drop 2"):
        open_data({"x": rows(10)}, [spec])


def test_scalar_inputs_have_no_samples() -> None:
    with pytest.raises(InputError, match="'x' of the model is a scalar"):
        open_data({"x": np.zeros((), np.float32)}, [InputSpec("x", F32, ())])


MODULE = """
import numpy as np
def good():
    for start, stop in [(0, 3), (3, 4), (4, 11)]:
        x = np.arange(33, dtype="float32").reshape(11, 3)[start:stop]
        yield {"x": x}, np.zeros(stop - start, int)
def none(): return []
def wrong(): yield {"z": np.zeros((1, 3), "float32")}, None
def late():
    yield {"x": np.zeros((1, 3), "float32")}, None
    yield {"x": np.zeros((1, 3))}, None
def raises(): raise KeyError("oh no")
def odd(): yield 3
def grows():
    for length in (2, 2, 3):
        yield {"y": np.ones((1, length), int)}, None
thing = 3
"""


def test_function_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_samples.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    data = open_data("my_samples:good", [X], need_labels=True)
    batches = list(data.batches(5))
    assert [len(batch) for batch in batches] == [5, 5, 1]
    np.testing.assert_array_equal(joined(batches), rows(11))
    assert data.samples == 11
    same = open_data({"x": rows(11), "labels": np.zeros(11, int)}, [X])
    assert data.sha256 == same.sha256, "the hash does not depend on how batches were cut"
    changing = list(open_data("my_samples:grows", [Y]).batches(8))
    assert [batch.feeds["y"].shape for batch in changing] == [(2, 2), (1, 3)]
    for name, words in {
        "none": "no samples",
        "wrong": "'z' but the model's input is 'x'",
        "raises": "KeyError: 'oh no'",
        "odd": "must yield",
        "thing": "not a function",
        "absent": "no 'absent'",
    }.items():
        with pytest.raises(InputError, match=words):
            open_data(f"my_samples:{name}", [X])
    with pytest.raises(InputError, match="float64"):
        list(open_data("my_samples:late", [X]).batches(8))
    with pytest.raises(InputError, match="can't be imported"):
        open_data("no_such_module_here:good", [X])
    with pytest.raises(InputError, match="no labels"):
        open_data("my_samples:late", [X], need_labels=True)
