"""Every command and every example of the README is run, in order, on what its demo leaves."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onnxtrim.bench.run_folder import load_run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

QUICK = ("--launches", "2")  # fewer only widen the intervals


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell_commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [shlex.join(shlex.split(line, comments=True)) for line in lines]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``make demo`` has run."""
    folder = tmp_path_factory.mktemp("readme")
    if installed_by_make():  # the real command
        for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
            shutil.copy2(ROOT / name, folder / name)
        (folder / ".venv").symlink_to(ROOT / ".venv")
        command = ["make", "demo", f"DEMO_ARGS={shlex.join(QUICK)}"]
    else:
        command = [sys.executable, "-m", "onnxtrim", "demo", "-o", "demo-output", *QUICK]
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")  # a clone has it beside
    run(command, folder)
    return folder


def installed_by_make() -> bool:
    """Whether ``make demo`` would start at once; otherwise it would install from elsewhere."""
    if shutil.which("make") is None or not (ROOT / ".venv" / ".demo").exists():
        return False
    question = ["make", "-q", ".venv/.demo"]
    return subprocess.run(question, cwd=ROOT, capture_output=True).returncode == 0


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


def test_what_it_points_to_is_there() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert "docs/report.png" in targets
    for target in targets:
        assert (ROOT / target).is_file(), target
    assert not re.search(r"@[A-Z]+@", README), "a number is missing"
    assert (ROOT / "docs" / "report.png").stat().st_size <= 300_000


def test_the_set_up_commands_are_the_ones_that_are_tested_elsewhere() -> None:
    assert [line for line in shell_commands() if line.startswith("make")] == [
        "make demo",
        "make test",  # what runs this test
    ]


@pytest.mark.slow
def test_the_demo_keeps_its_promises(demo: Path) -> None:
    output = demo / "demo-output"
    assert (output / "report.html").stat().st_size > 100_000
    assert len(list((output / "plots").glob("*.png"))) == 5
    sweep = run_json(["demo", "-o", "demo-output", *QUICK], demo)  # goes on where it was: at once
    pairs = [tuple(item["settings"].values()) for item in sweep["candidates"]]
    for pair in ((0.1, 0.4), (0.2, 0.5), (0.3, 0.6), (0.3, 0.8), (0.5, 1.0), (0.7, 1.2)):
        assert pair in pairs
    for item in sweep["candidates"]:
        assert (output / "sweep" / item["model"]).exists()
        assert item["metrics"]["latency.p50.ratio"]["low"] > 0
    assert sweep["gate"]["verdict"] == "pass", sweep["gate"]["words"]
    assert sweep["gate"]["candidates_tried"] >= 6
    chosen = next(item for item in sweep["candidates"] if item["id"] == sweep["chosen"])
    within = [
        item
        for item in sweep["candidates"]
        if item["metrics"]["accuracy.top1.delta"]["value"] >= -0.5
    ]
    assert chosen["parameters"]["after"] == min(item["parameters"]["after"] for item in within)


@pytest.mark.slow
def test_the_published_rule_loses_less_than_a_point_at_sixty_percent(demo: Path) -> None:
    published = load_run(demo / "demo-output" / "as-published")
    assert published.spec.repair == "none"
    near = min(published.candidates, key=lambda item: abs(item.removed - 0.6))
    assert abs(near.removed - 0.6) < 0.06
    assert near.metrics["accuracy.top1.delta"].value > -1.0


def run_json(arguments: list[str], folder: Path) -> dict[str, Any]:
    result = run([sys.executable, "-m", "onnxtrim", *arguments, "--json"], folder)
    value: dict[str, Any] = json.loads(result.stdout)
    return value


@pytest.mark.slow
def test_every_command_of_the_tour_runs(demo: Path) -> None:
    tour = [line for line in shell_commands() if line.startswith("onnxtrim")]
    assert len(tour) >= 9
    for line in tour:
        arguments = shlex.split(line)
        more = QUICK if arguments[1] in ("bench", "compare", "sweep") else ()
        run([sys.executable, "-m", *arguments, *more], demo)


@pytest.mark.slow
def test_the_python_examples_run(demo: Path) -> None:
    first, to_torch = blocks("python")
    assert len([line for line in first.splitlines() if line.strip()]) <= 12
    result = run([sys.executable, "-c", first], demo)
    assert "removed" in result.stdout and "Metric(" in result.stdout
    sizes = "print(*(sum(p.numel() for p in m.parameters()) for m in (net, smaller)))"
    before, after = run([sys.executable, "-c", to_torch + sizes], demo).stdout.split()
    assert int(after) < int(before)
