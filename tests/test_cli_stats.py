"""Statistics that are gathered once: added to, and used for budgets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxtrim.toolkit.statistics import Statistics
from tests.cli import refused, run

BUDGET = ("prune", "model.onnx", "--data", "calib.npz", "--remove", "40%")


def parts(here: Path) -> None:
    """The calibration data in two files."""
    x = np.load(here / "calib.npz")["x"]
    half = len(x) // 2
    np.savez(here / "first.npz", x=x[:half])
    np.savez(here / "second.npz", x=x[half:])


def test_statistics_grow(here: Path) -> None:
    parts(here)
    whole = run("stats", "model.onnx", "--data", "calib.npz", "-o", "whole.npz", "--json").json()
    run("stats", "model.onnx", "--data", "first.npz", "-o", "grown.npz")
    grown = ("stats", "model.onnx", "--update", "-o", "grown.npz")
    value = run(*grown, "--data", "second.npz", "--json").json()
    assert value["samples"] == whole["samples"]
    for one, other in zip(whole["groups"], value["groups"], strict=True):
        assert one["rows"] == other["rows"]
        assert one["pair_rows"] == other["pair_rows"] > 0
    a, b = Statistics.load("whole.npz"), Statistics.load("grown.npz")
    for ref, found in a.points.items():
        np.testing.assert_allclose(b.points[ref].mean, found.mean, rtol=1e-5, atol=1e-6)
    pairs = [one.merge(a.halves[1][ref]) for ref, one in a.halves[0].items()]
    others = [one.merge(b.halves[1][ref]) for ref, one in b.halves[0].items()]
    for one, other in zip(pairs, others, strict=True):
        np.testing.assert_allclose(other.comoment, one.comoment, rtol=1e-3, atol=1e-3)

    refused(*grown, "--data", "second.npz", says="these data are in grown.npz already")
    refused(*grown[:-1], "none.npz", "--data", "first.npz", says="no such file to add to")
    refused(
        *grown, "--data", "calib.npz", "--no-pairs", says="holds second moments; give no --no-pairs"
    )
    assert Statistics.load("grown.npz").samples == whole["samples"]


def test_a_budget_from_statistics(here: Path) -> None:
    run("stats", "model.onnx", "--data", "calib.npz", "-o", "stats.npz")
    direct = run(*BUDGET, "-o", "direct.onnx", "--json").json()
    saved = run(*BUDGET, "--stats", "stats.npz", "-o", "saved.onnx", "--json").json()
    assert saved["groups"] == direct["groups"]
    # Those of the file were saved without a loss.
    assert (here / "saved.onnx").read_bytes() == (here / "direct.onnx").read_bytes()

    parts(here)
    run("stats", "model.onnx", "--data", "first.npz", "-o", "first_stats.npz")
    arguments = ("--stats", "first_stats.npz", "-o", "mixed.onnx", "--plan", "mixed.json", "--json")
    mixed = run(*BUDGET, *arguments).json()
    assert 0.4 <= mixed["removed"] < 0.5
    first = Statistics.load("first_stats.npz").data_sha256
    assert first in (here / "mixed.json").read_text()

    run("stats", "model.onnx", "--data", "calib.npz", "--no-pairs", "-o", "small.npz")
    assert (here / "small.npz").stat().st_size < (here / "stats.npz").stat().st_size
    refused(*BUDGET, "--stats", "small.npz", "-o", "no.onnx", says="hold no second moments")
    assert not (here / "no.onnx").exists()
