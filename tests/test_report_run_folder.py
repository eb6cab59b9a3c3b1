from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.run_folder import choose, frontier, load_run
from tests import fake_run


def _made(tmp_path: Path, *lines: dict[str, Any]) -> Any:
    return load_run(fake_run.write_run(tmp_path / "run", list(lines))).candidates


def test_a_finished_run_is_read_whole(tmp_path: Path) -> None:
    run = load_run(fake_run.write_run(tmp_path / "run"))
    assert run.finished
    assert run.spec.grid[3] == (0.3, 0.8)
    assert run.original.parameters == fake_run.BEFORE
    assert [layer.mean.size for layer in run.distributions] == [1024, 512, 256]
    third = run.candidate("m0.3-s0.8")
    assert third.parameters.after == round(0.42 * fake_run.BEFORE)
    assert third.metrics["latency.p50.ratio"].value == 0.44
    assert third.groups[0].name == "fc1"
    assert run.model_path(third) == tmp_path / "run" / "models" / "m0.3-s0.8.onnx"
    with pytest.raises(InputError, match="no candidate 'x'"):
        run.candidate("x")


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_torn_last_line_is_ignored(tmp_path: Path, cut: int) -> None:
    folder = fake_run.write_run(tmp_path / "run")
    results = folder / "results.jsonl"
    results.write_bytes(results.read_bytes()[: -cut - 1])
    run = load_run(folder)
    assert len(run.candidates) == len(fake_run.GRID) - 1
    assert not run.finished


def test_a_last_line_without_newline_counts_when_it_is_whole(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run")
    results = folder / "results.jsonl"
    results.write_bytes(results.read_bytes().rstrip(b"\n"))
    assert load_run(folder).finished


def test_a_run_without_distributions_is_read(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run")
    (folder / "distributions.json").unlink()
    assert load_run(folder).distributions == ()


def test_a_repetition_without_metrics_has_those_of_its_first(tmp_path: Path) -> None:
    twin = fake_run.candidate(1, same_as="m0.1-s0.4", metrics={})
    first, second = _made(tmp_path, fake_run.candidate(0), twin)
    assert second.metrics == first.metrics


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 3 is broken"),
        ('{"schema": NaN}', "line 3 is broken"),
        ("[" * 100_000, "line 3 is broken"),
        ("[1]", "line 3 is not a JSON object"),
        ('{"schema":"other/1"}', "line 3 has another schema"),
        (json.dumps(fake_run.candidate(0)), "line 3 repeats the id 'm0.1-s0.4'"),
        (json.dumps(fake_run.candidate(1, removed="much")), "line 3 has a 'removed'"),
        (json.dumps(fake_run.candidate(1, removed=True)), "line 3 has a 'removed'"),
        (json.dumps(fake_run.candidate(1, removed=10**400)), "line 3 has a 'removed'"),
        (json.dumps(fake_run.candidate(1, parameters=None)), "line 3 has no 'parameters'"),
        (json.dumps(fake_run.candidate(1, metrics={"m": {"value": 1}})), "metric 'm' has no 'low'"),
        (json.dumps(fake_run.candidate(1, metrics={"m": 3})), "metric 'm' is not a JSON object"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    folder = fake_run.write_run(tmp_path / "run", [fake_run.candidate(0)])
    with (folder / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=message) as caught:
        load_run(folder)
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no sweep\.json"):
        load_run(tmp_path)
    folder = fake_run.write_run(tmp_path / "other", schema="onnxtrim.sweep-spec/9")
    with pytest.raises(InputError, match=r"has schema 'onnxtrim\.sweep-spec/9'"):
        load_run(folder)
    folder = fake_run.write_run(tmp_path / "started", [])
    with pytest.raises(InputError, match="nothing measured yet"):
        load_run(folder)
    (folder / "results.jsonl").unlink()
    with pytest.raises(InputError, match="nothing measured yet"):
        load_run(folder)
    folder = fake_run.write_run(tmp_path / "grid", grid=[0.3])
    with pytest.raises(InputError, match="has a 'grid'"):
        load_run(folder)


@pytest.mark.parametrize("mean", [["a"], [[1.0], [2.0]], [1.0, 2.0], 3])
def test_broken_distributions_are_refused(tmp_path: Path, mean: Any) -> None:
    layers = {
        "schema": "onnxtrim.distributions/1",
        "layers": [{"name": "fc1", "tensor": "t", "units": 1, "mean": mean, "std": [1.0]}],
    }
    with pytest.raises(InputError, match="mean"):
        load_run(fake_run.write_run(tmp_path / "run", layers=layers))


def test_the_frontier_holds_what_nothing_beats(tmp_path: Path) -> None:
    candidates = _made(tmp_path, *(fake_run.candidate(i) for i in range(6)))
    ids = [c.id for c in candidates]
    assert frontier(candidates) == ids  # smaller is worse all along
    # The last is slower and worse than the one before.
    assert frontier(candidates, smaller=("latency.p50.ratio",)) == ids[:-1]
    assert frontier(candidates, smaller=("parameters", "latency.p50.ratio"), larger=()) == ids[-2:]
    assert frontier(candidates, smaller=("energy",)) == []


def test_ties_and_repetitions_on_the_frontier(tmp_path: Path) -> None:
    base = fake_run.candidate(2)
    tie, twin = base | {"id": "tie"}, base | {"id": "twin", "same_as": base["id"]}
    candidates = _made(tmp_path, base, tie, twin)
    assert frontier(candidates) == [base["id"], "tie"]


def test_the_smallest_within_the_budget_is_chosen(tmp_path: Path) -> None:
    candidates = _made(tmp_path, *(fake_run.candidate(i) for i in range(6)))
    assert choose(candidates, 0.5) == "m0.3-s0.8"
    assert choose(candidates, 0.31) == "m0.3-s0.8"  # the limit itself is allowed
    assert choose(candidates, 0.3) == "m0.3-s0.6"
    assert choose(candidates, 100) == "m0.7-s1.2"
    assert choose(candidates, -0.1) is None


def test_a_repetition_is_chosen_by_its_first_name(tmp_path: Path) -> None:
    base = fake_run.candidate(3)
    twin = fake_run.candidate(4) | {
        "same_as": base["id"],
        "metrics": base["metrics"],
        "parameters": base["parameters"],
    }
    assert choose(_made(tmp_path, base, twin), 0.5) == base["id"]


def test_nothing_is_chosen_without_accuracy(tmp_path: Path) -> None:
    assert choose(_made(tmp_path, fake_run.candidate(0, metrics={})), 0.5) is None


def test_the_frontier_agrees_with_its_definition(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lines = []
    for number, (after, ratio) in enumerate(rng.integers(1, 12, (80, 2))):
        line = fake_run.candidate(0, id=f"c{number}")
        line["parameters"] = {"before": 100, "after": int(after)}
        line["metrics"] |= {"latency.p50.ratio": fake_run.metric(float(ratio), 0, "ratio")}
        line["metrics"] |= {"accuracy.top1": fake_run.metric(float(rng.integers(9)), 0, "share")}
        lines.append(line)
    candidates = _made(tmp_path, *lines)
    names = ("parameters", "latency.p50.ratio")
    rows = {
        c.id: (*(c.measure(name).value for name in names), -c.measure("accuracy.top1").value)
        for c in candidates
    }
    wanted = [
        name
        for name, row in rows.items()
        if not any(
            other != row and all(a <= b for a, b in zip(other, row, strict=True))
            for other in rows.values()
        )
    ]
    assert frontier(candidates, smaller=names) == wanted
    assert 1 < len(wanted) < len(lines)
