"""Distillation: it helps, never harms, goes on where it was, and says what it can't use."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from onnxtrim import InputError, trim  # noqa: E402
from onnxtrim.bench.batches import Batch  # noqa: E402
from onnxtrim.bench.data import open_data  # noqa: E402
from onnxtrim.bench.data_checks import InputSpec  # noqa: E402
from onnxtrim.bench.session import RunOptions, open_session  # noqa: E402
from onnxtrim.toolkit import distill_run  # noqa: E402
from onnxtrim.toolkit.distill import Distilled, Options, distill  # noqa: E402
from onnxtrim.toolkit.distill_checkpoint import state_sha256  # noqa: E402
from onnxtrim.toolkit.distill_data import Samples  # noqa: E402
from onnxtrim.toolkit.distill_loss import look_at  # noqa: E402
from tests import cli  # noqa: E402

X = [InputSpec("x", np.dtype(np.float32), ("batch", 6))]
Arrays = dict[str, NDArray[Any]]


def mlp(width: int, seed: int = 0, outputs: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, outputs)).eval()


def samples(count: int = 640, seed: int = 0) -> Arrays:
    return {"x": np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)}


def answers(net: nn.Module, feeds: Arrays) -> NDArray[Any]:
    with torch.no_grad():
        result: NDArray[Any] = net(torch.from_numpy(feeds["x"])).argmax(1).numpy()
    return result


def same_states(one: nn.Module, other: nn.Module) -> bool:
    return state_sha256(one) == state_sha256(other)


QUICK = Options(epochs=2, batch=32, learning_rate=1e-2)


# --- what it is for -----------------------------------------------------------------------------


def trained_net(feeds: Arrays, labels: NDArray[Any]) -> nn.Module:
    """A net of 16 units that tells three classes apart."""
    net = mlp(64)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    x, y = torch.from_numpy(feeds["x"]), torch.from_numpy(labels)
    for _ in range(80):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return net


def test_a_net_that_was_pruned_hard_comes_back() -> None:
    feeds, others = samples(2000), samples(500, seed=1)
    labels = np.abs(feeds["x"]).argmax(1) % 3
    net = trained_net(feeds, labels)
    before = state_sha256(net)
    examples = (torch.from_numpy(feeds["x"][:3]),)
    calibration = {"input": feeds["x"]}
    result = trim(net, calibration, remove=0.8, repair="none", example_inputs=examples)
    small = result.to_torch(net, examples)
    trained = result.distill(net, calibration, example_inputs=examples, options=QUICK)
    assert state_sha256(net) == before
    first, *_, last = trained.history
    assert trained.kept == 2
    assert last.validation.divergence < 0.5 * first.validation.divergence

    def agreement(other: nn.Module) -> float:
        return float((answers(other, others) == answers(net, others)).mean())

    assert agreement(trained.module) > agreement(small) + 0.05


class TwoByTwo(nn.Module):
    """Two inputs, two outputs: scores, and something else."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.left, self.right = nn.Linear(4, width), nn.Linear(5, width)
        self.scores, self.other = nn.Linear(width, 3), nn.Linear(width, 2)

    def forward(self, a: Any, b: Any) -> dict[str, Any]:
        y = torch.tanh(self.left(a) + self.right(b))
        return {
            "other": self.other(y)[:, None],
            "scores": self.scores(y),
            "answer": self.scores(y).argmax(1),
        }


def test_several_inputs_and_outputs_down_to_the_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    feeds = {
        "b": random.standard_normal((600, 5)).astype(np.float32),  # found by name, not by place
        "a": random.standard_normal((600, 4)).astype(np.float32),
    }
    net = TwoByTwo(16).eval()
    examples = (torch.zeros(2, 4), torch.zeros(2, 5))
    result = trim(net, feeds, remove=0.5, repair="none", example_inputs=examples)
    trained = result.distill(net, feeds, example_inputs=examples, options=QUICK)
    assert trained.history[-1].validation.divergence < trained.history[0].validation.divergence
    assert trained.history[-1].validation.agreement is not None
    report = trained.export(tmp_path / "small.onnx")
    assert list(report.inputs) == ["a", "b"]
    assert list(report.outputs) == [str(value.name) for value in result.model.graph.outputs]
    assert report.parameters == result.parameters.after
    exported = open_session(str(tmp_path / "small.onnx"), RunOptions())
    found = dict(zip(report.outputs, exported.run(None, feeds), strict=True))
    with torch.no_grad():
        wanted = trained.module(torch.from_numpy(feeds["a"]), torch.from_numpy(feeds["b"]))
    for have, want in zip(found.values(), wanted.values(), strict=True):
        assert np.allclose(have, want.numpy(), atol=1e-5)
    about = {p.key: p.value for p in onnx.load(tmp_path / "small.onnx").metadata_props}
    assert about["onnxtrim.original_sha256"] == result.prepared.sha256
    assert about["onnxtrim.distillation_sha256"] == trained.data_sha256


def with_norm(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    parts = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.9), nn.Linear(8, 3)
    return nn.Sequential(*parts)


def test_nothing_is_learned_where_nothing_is_to_learn() -> None:
    student = with_norm(0)
    trained = distill(student, with_norm(0).eval(), samples(), X, options=QUICK)
    assert trained.history[0].validation.divergence == 0, "dropout rests"
    assert trained.kept == 0
    assert "training made nothing better" in trained.warnings[0]
    assert same_states(student, with_norm(0))
    assert student.training
    assert student[3].training


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("batch", [4, 32])
def test_batch_statistics_follow_unless_batches_are_tiny(batch: int, frozen: bool) -> None:
    student = with_norm(0)
    student[1].requires_grad_(not frozen)
    options = Options(epochs=2, batch=batch, learning_rate=1e-2)
    assert distill(student, with_norm(1).eval(), samples(), X, options=options).kept > 0
    follows = not torch.equal(student[1].running_mean, torch.zeros(8))
    assert follows == (batch == 32 and not frozen)


def test_labels_are_used_where_there_are_any() -> None:
    feeds = samples(1000)
    truth = (feeds["x"][:, 0] > 0).astype(np.int64)
    teacher, data = mlp(16, seed=3), {**feeds, "labels": truth}

    def right(**options: Any) -> float:
        made = Options(epochs=4, batch=32, learning_rate=1e-2, **options)
        student = distill(mlp(8), teacher, data, X, options=made).module
        return float(
            (answers(student, samples(500, seed=5)) == (samples(500, seed=5)["x"][:, 0] > 0)).mean()
        )

    assert right(labels=1.0) > 0.9
    assert right(labels=0.0) < 0.8
    wrong = {**feeds, "labels": truth + 2}
    with pytest.raises(InputError, match="labels go from 2 to 3, the model has 3 classes"):
        distill(mlp(8), teacher, wrong, X, options=QUICK)


def test_outputs_that_are_probabilities_are_not_taken_for_logits() -> None:
    logits = torch.randn(50, 3)
    (kind,) = look_at([[logits]], "data")
    assert (kind.scores, kind.probabilities) == (True, False)
    (kind,) = look_at([[logits.softmax(1)]], "data")
    assert (kind.scores, kind.probabilities) == (True, True)
    (kind,) = look_at([[torch.randn(50, 3, 4)]], "data")
    assert not kind.scores


# --- never worse --------------------------------------------------------------------------------


def test_the_best_state_is_kept_and_training_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    student, first = mlp(8), mlp(8)
    wild = Options(epochs=9, batch=32, learning_rate=30.0, patience=2)
    trained = distill(student, mlp(16, seed=3), samples(), X, options=wild)
    losses = [epoch.validation.loss for epoch in trained.history]
    assert trained.kept == int(np.argmin(losses))
    assert len(losses) == trained.kept + 3, "two passes without improvement"
    assert trained.warnings == (
        "nothing improved in 2 epochs: training stopped, the state of epoch"
        f" {trained.kept} is kept",
    )
    if trained.kept == 0:
        assert same_states(student, first)


def test_a_loss_that_is_no_number_ends_it_with_what_came_in() -> None:
    student, first = mlp(8), mlp(8)
    wild = Options(epochs=3, batch=32, learning_rate=1e30)
    trained = distill(student, mlp(16, seed=3), samples(), X, options=wild)
    assert trained.kept == 0
    assert same_states(student, first)
    assert "not a finite number in epoch 1" in trained.warnings[0]
    assert all(math.isfinite(epoch.validation.loss) for epoch in trained.history)


# --- checkpoints --------------------------------------------------------------------------------


class Noisy(nn.Module):
    """A student that draws random numbers also in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(8)

    def forward(self, x: Any) -> Any:
        return self.net(x + 0.1 * torch.randn_like(x))


@pytest.mark.parametrize("step", [1, 20, 35, 40, 55, 200])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(distill_run, "CHECKPOINT_SECONDS", 0.0)
    teacher, data, path = mlp(16, seed=3), samples(), tmp_path / "run.ckpt"
    steps = 0

    def interrupt(word: str, done: int, total: int | None) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            raise KeyboardInterrupt

    student = Noisy()
    state = torch.get_rng_state()
    whole = distill(student, teacher, data, X, options=QUICK)
    assert torch.equal(torch.get_rng_state(), state), "the user's generator"
    student = Noisy()
    if step < 36:
        with pytest.raises(KeyboardInterrupt):
            distill(student, teacher, data, X, options=QUICK, checkpoint=path, progress=interrupt)
        assert path.exists() == (step > 1)
    else:  # after the end, or in the second pass
        try:
            distill(student, teacher, data, X, options=QUICK, checkpoint=path, progress=interrupt)
        except KeyboardInterrupt:
            assert same_states(student, loaded(path)), "the best so far"
    resumed = distill(Noisy(), teacher, data, X, options=QUICK, checkpoint=path)
    assert same_states(resumed.module, whole.module)
    assert resumed.history == whole.history
    assert resumed.kept == whole.kept > 0
    assert sorted(tmp_path.iterdir()) == [path], "nothing is left beside it"


def loaded(path: Path) -> nn.Module:
    """The best state in a checkpoint, as the README tells how to read it."""
    from onnxtrim.export.modules import load_weights

    net = Noisy()
    load_weights(net, path)
    return net


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"options": Options(epochs=3, batch=32, learning_rate=1e-2)}, "another epochs (2, not 3)"),
        ({"data": samples(seed=8)}, "another data"),
        ({"student": mlp(8, seed=9)}, "another student"),
        ({"teacher": mlp(16, seed=9)}, "another original"),
        ({"validation": samples(99)}, "another validation data"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    path = tmp_path / "run.ckpt"

    def run(**given: Any) -> Distilled:
        made = {"student": mlp(8), "teacher": mlp(16, seed=3), "data": samples(), "options": QUICK}
        return distill(**{**made, "inputs": X, "checkpoint": path, **given})

    run()
    content = path.read_bytes()
    with pytest.raises(InputError) as error:
        run(**change)
    assert says in str(error.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"text\n", "pickle", "tensors"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "run.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"a": torch.ones(2)} if content == "tensors" else {"a": mlp}, path)
    with pytest.raises(InputError, match="is no checkpoint of a distillation"):
        distill(mlp(8), mlp(16), samples(), X, options=QUICK, checkpoint=path)


# --- data ---------------------------------------------------------------------------------------

SOURCE = """
import numpy as np
reads = []
def blocks():
    reads.append(0)
    for number in range(200):
        reads[-1] += 1
        x = np.random.default_rng(number).standard_normal((10, 6)).astype(np.float32)
        yield {"x": x}, None
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "distil_source.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("distil_source")
    sys.modules.pop("distil_source")


def test_a_function_is_streamed(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxtrim.toolkit.distill_data.WINDOW", 24 * 128)  # bytes: 128 samples
    ahead: list[int] = []

    def watch(word: str, done: int, total: int | None) -> None:
        assert total == 4000
        ahead.append(10 * source.reads[-1] - done % 2000)

    trained = distill(
        mlp(8), mlp(16, seed=3), "distil_source:blocks", X, options=QUICK, progress=watch
    )
    assert trained.samples == 2000
    assert trained.kept == 2
    # What was read and not yet trained on: the window, and what was held back before.
    assert max(ahead[: len(ahead) // 2]) <= 128 + 2 * 32 + 200


def test_every_sample_is_trained_on_once_or_held_back(source: Any) -> None:
    data = open_data("distil_source:blocks", X)
    assert data.sha256
    streams = Samples(data, None, 2000, 32, seed=1)

    def rows(batches: Iterator[Batch]) -> set[bytes]:
        return {row.tobytes() for batch in batches for row in batch.feeds["x"]}

    def order(epoch: int, other: Samples = streams) -> list[bytes]:
        return [row.tobytes() for batch in other.training(epoch) for row in batch.feeds["x"]]

    held = rows(streams.judged())
    assert 150 <= len(held) <= 250
    assert not held & set(order(1))
    assert 0 <= 2000 - len(held) - len(order(1)) < 16, "at most half a batch is left out"
    assert len(set(order(1))) == len(order(1))
    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != order(1, Samples(data, None, 2000, 32, seed=2))


def bad(change: Callable[[Arrays], object]) -> Arrays:
    data = samples()
    change(data)
    return data


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        (bad(lambda d: d["x"].__setitem__((600, 2), np.nan)), {}, "NaN"),
        ({"x": samples()["x"][:, :5]}, {}, "(640, 5)"),
        (samples(9), {}, "9 samples are too few to hold some back for validation"),
        (samples(), {"epochs": 0}, "epochs is 0; give 1 or more"),
        (samples(), {"learning_rate": math.nan}, "learning_rate is nan"),
        (samples(), {"labels": 1.5}, "labels is 1.5; give a share between 0 and 1"),
        (samples(), {"seed": -1}, "seed is -1"),
    ],
)
def test_what_can_not_be_used(data: Arrays, options: Mapping[str, Any], says: str) -> None:
    student = mlp(8)
    with pytest.raises(InputError) as error:
        distill(student, mlp(16), data, X, options=Options(**options))
    assert says in str(error.value)
    assert same_states(student, mlp(8))


def test_modules_that_can_not_be_trained() -> None:
    with pytest.raises(InputError, match="nothing to train"):
        distill(mlp(8).requires_grad_(False), mlp(16), samples(), X)
    with pytest.raises(InputError, match="half precision"):
        distill(mlp(8).half(), mlp(16), samples(), X)
    teacher = mlp(16)
    nn.init.constant_(teacher[0].weight, math.inf)  # type: ignore[index]
    with pytest.raises(InputError, match="not a finite number on these samples"):
        distill(mlp(8), teacher, samples(), X)


def test_a_frozen_parameter_stays() -> None:
    student = mlp(8)
    student[0].weight.requires_grad_(False)  # type: ignore[index]
    distill(student, mlp(16, seed=3), samples(), X, options=QUICK)
    assert torch.equal(student[0].weight, mlp(8)[0].weight)  # type: ignore[index]
    assert not torch.equal(student[2].weight, mlp(8)[2].weight)  # type: ignore[index]


# --- the command --------------------------------------------------------------------------------

MODULE = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
"""


@pytest.fixture
def net(here: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The first arguments of the command, in the work folder with a module."""
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    monkeypatch.delitem(sys.modules, "finetune_nets", raising=False)
    (here / "finetune_nets.py").write_text(MODULE)
    return (
        "finetune",
        "finetune_nets:build",
        "--input",
        "1x6",
        "--input-name",
        "x",
        "--data",
        "calib.npz",
    )


@pytest.mark.slow
def test_the_command(net: tuple[str, ...], here: Path) -> None:
    budget = ("--remove", "60%", "--batch", "16", "--checkpoint", "run.ckpt", "-o", "small.onnx")
    shown = cli.run(*net, *budget)
    assert shown.code == 0, shown.err
    assert "(kept)" in shown.out
    written = (here / "small.onnx").read_bytes()
    value = cli.run(*net, *budget, "--json").json()  # from the checkpoint, which is at the end
    assert (here / "small.onnx").read_bytes() == written
    assert value["schema"] == "onnxtrim.finetune/1"
    assert value["removed"] >= 0.6
    history = value["distillation"]["history"]
    assert [epoch["epoch"] for epoch in history] == [0, 1, 2]
    best = min(history, key=lambda epoch: float(epoch["validation"]["loss"]))
    assert best["epoch"] == value["distillation"]["kept"]


@pytest.mark.slow
def test_the_command_takes_a_plan(net: tuple[str, ...], here: Path) -> None:
    assert cli.run("export", *net[1:6], "-o", "model.onnx").code == 0
    plan = ("prune", "model.onnx", "--data", "calib.npz", "--remove", "60%", "--plan-only")
    assert cli.run(*plan, "-o", "plan.json").code == 0
    value = cli.run(
        *net, "--apply", "plan.json", "--train", "test.npz", "-o", "o.onnx", "--json"
    ).json()
    assert value["removed"] >= 0.6
    assert value["distillation"]["samples"] == 90
    assert value["distillation"]["history"][0]["validation"]["accuracy"] is not None


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ((), "give one of --remove, --macs, --size and --max-drop, or a plan with --apply"),
        (("--remove", "60%", "--apply", "plan.json"), "or a plan with --apply"),
        (("--apply", "plan.json", "--align", "8"), "--apply takes everything from the plan"),
        (("--max-drop", "1"), "--max-drop needs --eval"),
        (("--remove", "60%", "--checkpoint", "calib.npz"), "the output is the input"),
    ],
)
def test_the_command_refuses(
    net: tuple[str, ...], here: Path, more: tuple[str, ...], says: str
) -> None:
    cli.refused(*net, *more, "-o", "small.onnx", says=says)
    assert not (here / "small.onnx").exists()
