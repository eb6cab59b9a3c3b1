"""The demo's data file is the one its README describes, made by the script beside it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from onnxtrim.bench.files import sha256_file

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FILE = BENCHMARKS / "data" / "fashion-mnist.npz"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = BENCHMARKS / "make_fashion_mnist.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_the_file_of_the_readme() -> None:
    readme = (BENCHMARKS / "data" / "README.md").read_text(encoding="utf-8")
    digests = re.findall(r"\b[0-9a-f]{64}\b", readme)
    assert digests == [sha256_file(FILE)]
    assert f"{FILE.stat().st_size:,} bytes" in readme
    assert FILE.stat().st_size <= 14_000_000


def test_it_holds_real_images_of_ten_classes() -> None:
    with np.load(FILE, allow_pickle=False) as arrays:
        shapes = {name: (arrays[name].shape, str(arrays[name].dtype)) for name in arrays.files}
        assert shapes == {
            "train_images": ((20_000, 28, 28), "uint8"),
            "train_labels": ((20_000,), "uint8"),
            "test_images": ((10_000, 28, 28), "uint8"),
            "test_labels": ((10_000,), "uint8"),
        }
        assert np.bincount(arrays["test_labels"]).tolist() == [1000] * 10
        assert np.bincount(arrays["train_labels"]).min() > 1900
        assert len(np.unique(arrays["train_images"], axis=0)) > 19_900


def test_its_licence_lies_beside_it() -> None:
    text = (BENCHMARKS / "data" / "LICENSE.fashion-mnist").read_text(encoding="utf-8")
    assert "Zalando SE" in text
    assert "Permission is hereby granted" in text


def test_the_script_makes_these_arrays(script: ModuleType, tmp_path: Path) -> None:
    if not script.DEFAULT_FOLDER.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    assert script.main(["-o", str(tmp_path / "made.npz")]) == 0
    with np.load(FILE) as committed, np.load(tmp_path / "made.npz") as made:
        assert committed.files == made.files
        assert all(np.array_equal(committed[name], made[name]) for name in made.files)


def test_the_script_refuses_other_files(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(tmp_path), "-o", str(tmp_path / "made.npz")]) == 2
    assert "train-images" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
