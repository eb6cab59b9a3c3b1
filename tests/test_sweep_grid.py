"""Grids of thresholds: from files, by default, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.latency import Protocol
from onnxtrim.bench.settings import Settings
from onnxtrim.toolkit.grid import DEFAULT_GRID, Point, read_grid
from onnxtrim.toolkit.sweep import SweepOptions, sweep
from tests.zoo import ZOO


def test_grids_from_files(tmp_path: Path) -> None:
    path = tmp_path / "grid"
    for text in (
        "0.1 0.4\n\n# a comment\n 0.2,0.5 # another\n",
        "0.1, 0.4\n0.2\t0.5",
        "[[0.1, 0.4], [0.2, 0.5]]",
    ):
        path.write_text(text)
        assert read_grid(path) == [(0.1, 0.4), (0.2, 0.5)]


def test_the_default_grid_has_the_published_pairs() -> None:
    published = {(0.1, 0.4), (0.2, 0.5), (0.3, 0.6), (0.3, 0.8), (0.5, 1.0), (0.7, 1.2)}
    assert published <= set(DEFAULT_GRID)
    assert [Point(pair).id for pair in DEFAULT_GRID[:2]] == ["m0.1-s0.4", "m0.2-s0.5"]


def test_grids_that_are_refused() -> None:
    for grid, says in (((), "is empty"), (((0.1, 0.4), (0.10, 0.40)), "twice")):
        with pytest.raises(InputError, match=says):
            SweepOptions(grid=grid)
    with pytest.raises(InputError, match="repair 'magic'"):
        SweepOptions(repair="magic")


def test_free_sizes_come_from_the_calibration_data(tmp_path: Path) -> None:
    """Without labelled samples, what is measured gets inputs like them."""
    path = tmp_path / "net.onnx"
    onnx.save(ZOO["reshape_free"](), path)
    x = np.random.default_rng(0).standard_normal((20, 3, 4, 6)).astype(np.float32)
    settings = Settings(protocol=Protocol(launches=2, rounds=2), memory=False)
    options = SweepOptions(grid=[(9.0, 9.0)], settings=settings)
    run = sweep(path, {"x": x}, tmp_path / "run", options=options)
    assert run.candidates[0].metrics["latency.p50.ratio"].value > 0
