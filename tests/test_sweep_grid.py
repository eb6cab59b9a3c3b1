"""Grids of thresholds: from files, by default, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.grid import DEFAULT_GRID, candidate_id, read_grid
from onnxtrim.toolkit.sweep import SweepOptions


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
    assert [candidate_id(pair) for pair in DEFAULT_GRID[:2]] == ["m0.1-s0.4", "m0.2-s0.5"]


def test_grids_that_are_refused() -> None:
    for grid, says in (((), "is empty"), (((0.1, 0.4), (0.10, 0.40)), "twice")):
        with pytest.raises(InputError, match=says):
            SweepOptions(grid=grid)
    with pytest.raises(InputError, match="repair 'magic'"):
        SweepOptions(repair="magic")
