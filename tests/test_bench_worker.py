"""The measuring process: what it imports, what it may print, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxtrim.bench import worker as worker_module
from onnxtrim.bench.arms import Arm, written_feeds
from onnxtrim.bench.errors import InputError, WorkerError
from onnxtrim.bench.session import RunOptions
from tests.bench_models import save_mlp

OPTIONS = RunOptions(1).to_json()


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save_mlp(tmp_path / "m.onnx", [16, 32, 4]))


def feeds(count: int = 3, width: int = 16) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((1, width)).astype(np.float32)} for _ in range(count)]


def test_bench_imports_neither_torch_nor_onnx_ir() -> None:
    code = (
        "import onnxtrim.bench.compare, sys;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root()
    )
    found = set(run.stdout.split())
    assert "onnxruntime" in found
    assert not found & {"torch", "onnx_ir", "onnx", "matplotlib"}
    assert "onnxtrim" in found


def root() -> Path:
    return Path(__file__).resolve().parent.parent


def test_worker_imports_numpy_and_onnxruntime_only(model: str) -> None:
    """Looks at the worker after it has done each kind of work."""
    with written_feeds(feeds()) as path:
        place = {"model": model, "feeds": path, "options": OPTIONS}
        commands = [
            {"do": "open", **place},
            {"do": "warm_up"},
            {"do": "round", "calls": 2, "settle": 1, "first": 0},
            {"do": "memory", **place, "runs": 10},
            {"do": "profile", **place, "folder": str(Path(path).parent), "runs": 3},
        ]
        code = (
            "import sys; from onnxtrim.bench.worker import main; main();"
            "print(*{n.partition('.')[0] for n in sys.modules}, file=sys.stderr)"
        )
        run = subprocess.run(
            [sys.executable, "-c", code],
            input="".join(json.dumps(command) + "\n" for command in commands),
            capture_output=True,
            text=True,
            check=True,
            cwd=root(),
        )
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(answers) == 6
    assert not any("error" in answer for answer in answers)
    foreign = {"torch", "onnx", "onnx_ir", "scipy", "click", "rich", "matplotlib", "google"}
    found = set(run.stderr.split())
    assert {"numpy", "onnxruntime"} <= found
    assert not found & foreign


def test_nothing_but_answers_reaches_stdout() -> None:
    code = (
        "import os; from onnxtrim.bench import worker\n"
        "def noisy(self):\n"
        "    print('print'); os.write(1, b'write'); os.system('echo child'); return {'ok': 1}\n"
        "worker.Worker.warm_up = noisy\n"
        "worker.main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        input='{"do": "warm_up"}\n{"do": "no such"}\nnot json\n',
        capture_output=True,
        text=True,
        check=True,
        cwd=root(),
    )
    ready, answer, unknown, nonsense = (json.loads(line) for line in run.stdout.splitlines())
    assert (ready, answer) == ({"ready": True}, {"ok": 1})
    assert not unknown["input"]
    assert "JSONDecodeError" in nonsense["error"]
    assert all(word in run.stderr for word in ("print", "write", "child"))


def test_commands(model: str) -> None:
    with written_feeds(feeds()) as path, Arm(model, pad=4000) as arm:
        arm.wait_ready()
        opened = arm.ask("open", model=model, feeds=path, options=OPTIONS)
        assert opened["create_ms"] > opened["first_run_ms"] > 0
        warm = arm.ask("warm_up")
        assert warm["calls"] >= 20
        assert 0.25 <= warm["seconds"] < 5
        turn = arm.ask("round", calls=7, settle=2, first=1)
        assert (len(turn["calls_ns"]), len(turn["settle_ns"])) == (7, 2)
        assert 0 < sum(turn["calls_ns"]) <= turn["wall_ns"]
        assert turn["switches"] >= 0


def test_users_faults_and_deaths(model: str, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    with written_feeds(feeds(width=5)) as path, Arm(model) as arm:
        arm.wait_ready()
        with pytest.raises(InputError, match=r"text\.onnx: ONNX Runtime can't load it"):
            arm.ask("open", model=str(tmp_path / "text.onnx"), feeds=path, options=OPTIONS)
        with pytest.raises(InputError, match=r"m\.onnx: can't run on these inputs"):
            arm.ask("open", model=model, feeds=path, options=OPTIONS)
        with pytest.raises(WorkerError, match="no_such"):
            arm.ask("no_such")
        os.kill(arm.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"m\.onnx: the measuring process died \(SIGKILL\)"):
            arm.ask("warm_up")


def test_process_ends_with_the_block_and_with_its_parent(model: str) -> None:
    with Arm(model) as arm:
        arm.wait_ready()
        os.kill(arm.pid, signal.SIGINT)  # Ctrl-C goes to the whole group; the parent decides
        time.sleep(0.05)
        assert "error" not in arm.ask("round", calls=0, settle=0, first=0)
    assert not Path(f"/proc/{arm.pid}").exists()
    code = (
        "import os; from onnxtrim.bench.arms import Arm; arm = Arm('m'); arm.wait_ready();"
        "print(arm.pid, flush=True); os._exit(1)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root()
    )
    deadline = time.monotonic() + 10
    while Path(f"/proc/{run.stdout.strip()}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{run.stdout.strip()}").exists()


def test_warm_up_ends_when_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = worker_module.Worker()
    worker._calls = [lambda: None]
    monkeypatch.setattr(time, "perf_counter", lambda: 5.0)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: 5)
    assert worker.warm_up()["call_ms"] == 0


def test_warm_up_waits_until_calls_are_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    cost = [50_000_000] * 30 + [1_000_000] * 10_000  # ns; slow at first

    def call() -> None:
        clock[0] += cost.pop(0)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0] / 1e9)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock[0])
    worker = worker_module.Worker()
    worker._calls = [call]
    drifting = iter(range(1, 10_000))
    assert worker.warm_up()["calls"] == 20, "steady, though slow, after two tens"
    worker._calls = [lambda: clock.__setitem__(0, clock[0] + 100_000 * next(drifting) ** 2)]
    assert worker.warm_up()["seconds"] >= worker_module.MAX_WARM_SECONDS


def test_modules_of_the_work_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_mlp(tmp_path / "m.onnx", [4, 4, 2])
    monkeypatch.chdir(tmp_path)
    for name in ("onnxruntime", "json", "onnxtrim"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    with Arm(model) as arm:
        arm.wait_ready()
