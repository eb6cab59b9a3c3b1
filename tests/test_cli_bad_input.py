"""Bad input: one line that says what, where and what to do; exit code 2; nothing written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.bench_models import save_mlp
from tests.cli import PAIR, QUICK, SOME, UNMEASURED, WIDTHS, refuse, samples

# Every command that reads a model, with MODEL in its place.
READ_MODEL: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "MODEL"),
    "stats": ("stats", "MODEL", "--data", "calib.npz", "-o", "s.npz"),
    "prune": ("prune", "MODEL", "--data", "calib.npz", *SOME, "-o", "o.onnx", "--plan", "p.json"),
    "sweep": ("sweep", "MODEL", "--data", "calib.npz", *PAIR, "-o", "deep/run", *UNMEASURED),
    "bench": ("bench", "MODEL", *QUICK),
    "bench --against": ("bench", "model.onnx", "--against", "MODEL", *QUICK),
    "compare, original": ("compare", "MODEL", "model.onnx", *QUICK),
    "compare, candidate": ("compare", "model.onnx", "MODEL", *QUICK),
}

# Every command that reads data, with DATA in its place.
READ_DATA: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "model.onnx", "--data", "DATA"),
    "stats": ("stats", "model.onnx", "--data", "DATA", "-o", "s.npz"),
    "prune": ("prune", "model.onnx", "--data", "DATA", *SOME, "-o", "o.onnx", "--plan", "p.json"),
    "sweep": ("sweep", "model.onnx", "--data", "DATA", *PAIR, "-o", "deep/run", *UNMEASURED),
    "sweep --eval": (
        *("sweep", "model.onnx", "--data", "calib.npz", "--eval", "DATA"),
        *(*PAIR, "-o", "deep/run", *UNMEASURED),
    ),
    "bench": ("bench", "model.onnx", "--data", "DATA", *QUICK),
    "compare": ("compare", "model.onnx", "model.onnx", "--eval", "DATA", *UNMEASURED),
}


# --- models -------------------------------------------------------------------------------------


def external(location: str) -> Callable[[Path], None]:
    """Write a model with a weight in another file."""

    def write(path: Path) -> None:
        model = onnx.load(path.with_name("model.onnx"))
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", location
        path.write_bytes(model.SerializeToString())

    return write


def truncated(path: Path) -> None:
    content = path.with_name("model.onnx").read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, samples(3))


def unknown_operator(path: Path) -> None:
    model = onnx.load(path.with_name("model.onnx"))
    model.graph.node[1].op_type = "NoSuchOperator"
    path.write_bytes(model.SerializeToString())


BAD_MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "can't be read (No such file or directory)"),
    "empty": (lambda path: path.touch(), "is empty"),
    "folder": (lambda path: path.mkdir(), "is a folder; give the path of an .onnx file"),
    "text": (lambda path: path.write_text("hello\n"), "is not an ONNX model"),
    "noise": (lambda path: path.write_bytes(os.urandom(500)), "is not an ONNX model"),
    "array": (write_array, "is not an ONNX model"),
    "truncated": (truncated, "is not an ONNX model"),
    "unknown operator": (unknown_operator, "NoSuchOperator"),
    "outside": (external("../secret.bin"), "outside the model's folder; only that folder is read"),
    "absolute": (external("/etc/hostname"), "only files in the model's folder are read"),
    "without its data": (external("absent.bin"), "there is no such file beside the model"),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
@pytest.mark.parametrize("command", READ_MODEL)
def test_models(here: Path, command: str, kind: str) -> None:
    write, says = BAD_MODELS[kind]
    write(here / "bad.onnx")
    refuse(here, READ_MODEL[command], says, MODEL="bad.onnx")


def test_external_data_through_a_link(here: Path) -> None:
    external("weights.bin")(here / "bad.onnx")
    (here / "weights.bin").symlink_to(here.parent / "secret.bin")
    for command in READ_MODEL.values():
        refuse(here, command, "outside the model's folder", MODEL="bad.onnx")


def test_external_data_that_is_cut_off(here: Path) -> None:
    external("weights.bin")(here / "bad.onnx")
    (here / "weights.bin").write_bytes(bytes(4))
    for command in READ_MODEL.values():
        refuse(here, command, "", MODEL="bad.onnx")


def test_a_candidate_with_other_inputs_or_outputs(here: Path) -> None:
    save_mlp(here / "wide.onnx", (WIDTHS[0] + 1, 5, WIDTHS[-1]))
    save_mlp(here / "long.onnx", (WIDTHS[0], 5, WIDTHS[-1] + 1))
    for name, says in (("wide.onnx", "input 'x' differs"), ("long.onnx", "output 'y' differs")):
        refuse(here, READ_MODEL["compare, candidate"], says, MODEL=name)
        refuse(here, READ_MODEL["bench --against"], says, MODEL=name)


# --- data ---------------------------------------------------------------------------------------


def with_value(value: float) -> NDArray[Any]:
    x = samples(20)
    x[0, 1] = value  # inspect reads the sizes of the first sample only
    return x


LABELS = np.zeros(20, np.int64)
BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "wrong name": ({"z": samples(20)}, "is named 'z' but the model's input is 'x'; rename it"),
    "missing input": ({"labels": LABELS}, "missing 'x'"),
    "one too many": ({"x": samples(20), "z": LABELS}, "not wanted 'z'"),
    "wrong shape": ({"x": samples(20)[:, :5]}, "has shape (20, 5) but the model takes (batch, 6)"),
    "wrong rank": ({"x": samples(20)[0]}, "2 dimensions, samples first"),
    "wrong type": ({"x": samples(20).astype(np.float64)}, 'save x.astype("float32")'),
    "NaN": ({"x": with_value(np.nan)}, "NaN or infinite values, first in sample 0"),
    "infinity": ({"x": with_value(-np.inf)}, "NaN or infinite values, first in sample 0"),
    "no samples": ({"x": samples(0)}, "has no samples"),
    "labels of another length": (
        {"x": samples(20), "labels": LABELS[:19]},
        "'labels' has shape (19,) but there are 20 samples",
    ),
    "labels that are no integers": (
        {"x": samples(20), "labels": LABELS + 0.5},
        "give integers, the class of each sample",
    ),
    "pickled objects": (
        {"x": samples(20), "labels": np.array([{"a": 1}] * 20, object)},
        "pickled Python objects, which are never read",
    ),
}
BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("hello\n"), "is not an .npz file; write it with numpy"),
    "npy": (write_array, "is not an .npz file"),
    "empty folder": (lambda path: path.mkdir(), "the folder holds no .npz file"),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
@pytest.mark.parametrize("command", READ_DATA)
def test_arrays(here: Path, command: str, kind: str) -> None:
    arrays, says = BAD_ARRAYS[kind]
    labelled = {"labels": LABELS} if command == "sweep --eval" and "labels" not in arrays else {}
    np.savez(here / "bad.npz", allow_pickle=True, **arrays, **labelled)
    refuse(here, READ_DATA[command], says, DATA="bad.npz")


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("command", READ_DATA)
def test_data_files(here: Path, command: str, kind: str) -> None:
    write, says = BAD_FILES[kind]
    write(here / "bad.npz")
    refuse(here, READ_DATA[command], says, DATA="bad.npz")


@pytest.mark.parametrize("command", ["stats", "prune", "sweep", "sweep --eval", "compare"])
def test_nan_far_behind(here: Path, command: str) -> None:
    """What is found only while the data stream by leaves nothing behind, either."""
    x = samples(700)
    x[650, 0] = np.nan
    np.savez(here / "bad.npz", x=x, labels=np.zeros(700, np.int64))
    refuse(here, READ_DATA[command], "first in sample 650", DATA="bad.npz")


def test_labels(here: Path) -> None:
    np.savez(here / "none.npz", x=samples(20))
    refuse(here, READ_DATA["sweep --eval"], "add an integer array named 'labels'", DATA="none.npz")
    np.savez(here / "far.npz", x=samples(20), labels=LABELS + WIDTHS[-1])
    for command in ("sweep --eval", "compare", "bench"):
        refuse(here, READ_DATA[command], "the model has classes 0 to 3", DATA="far.npz")


def test_functions_that_yield_no_data(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "cli_batches", raising=False)
    (here / "cli_batches.py").write_text("def broken():\n    raise KeyError('two\\nlines')\n")
    for name, says in (
        ("cli_batches:broken", "raised KeyError"),
        ("cli_batches:absent", "the module has no 'absent'"),
        ("no_such_module_here:broken", "the module can't be imported"),
    ):
        for command in READ_DATA.values():
            refuse(here, command, says, DATA=name)
