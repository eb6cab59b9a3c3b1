"""Metrics beside top-1: against hand-made values, plain formulas, and by their properties."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxtrim.bench.bootstrap import (
    Paired,
    Resampled,
    alike,
    by_groups,
    paired_bootstrap,
)
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gathered import Gathered
from onnxtrim.bench.metrics import find_metric
from onnxtrim.bench.predictions import MASKED, Seen

Array = NDArray[Any]


def seen(first: Array, second: Array, labels: Array | None = None, start: int = 0) -> Seen:
    return Seen(([first], [second]), labels, len(first), start, ("a.onnx", "b.onnx"), "d.npz")


def gather(name: str, first: Array, second: Array, labels: Array | None, batch: int) -> Gathered:
    metric = find_metric(name)
    for start in range(0, len(first), batch):
        part = slice(start, start + batch)
        metric.add(seen(first[part], second[part], None if labels is None else labels[part], start))
    return metric


def measure(
    name: str, first: Array, second: Array, labels: Array | None = None, batch: int = 7
) -> Paired:
    return paired_bootstrap(gather(name, first, second, labels, batch).resampled()).at()


def values(name: str, first: Array, second: Array, labels: Array | None = None) -> list[float]:
    """Of the original and of the candidate."""
    found = measure(name, first, second, labels)
    assert found.delta.value == pytest.approx(found.candidate.value - found.original.value)
    return [found.original.value, found.candidate.value]


def one_hot(classes: list[int], count: int) -> Array:
    return np.eye(count, dtype=np.float32)[classes]


def f1(labels: Array, answers: Array) -> float:
    """From precision and recall, class by class."""
    scores = []
    for c in np.unique(labels):
        hits = np.sum((answers == c) & (labels == c))
        precision = hits / max(np.sum(answers == c), 1)
        recall = hits / np.sum(labels == c)
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return float(np.mean(scores))


def auc(positive: Array, scores: Array) -> float:
    """All pairs, one by one."""
    high, low = scores[positive][:, None], scores[~positive][None]
    return float(np.mean((high > low) + 0.5 * (high == low)))


def test_f1_of_the_handbook() -> None:
    """The example of scikit-learn's ``f1_score(average="macro")``: 0.2666…"""
    labels = np.array([0, 1, 2, 0, 1, 2])
    first, second = one_hot([0, 2, 1, 0, 0, 1], 3), one_hot([0, 1, 2, 0, 1, 2], 3)
    assert values("f1", first, second, labels) == pytest.approx([0.8 / 3, 1.0])


def test_auc_of_the_handbook() -> None:
    """The example of scikit-learn's ``roc_auc_score``: 0.75."""
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert values("auc", scores, -scores, labels) == pytest.approx([0.75, 0.25])
    column = scores[:, None].astype(np.float32)
    assert values("auc", column, -column, labels) == pytest.approx([0.75, 0.25])
    both = np.stack([1 - scores, scores], axis=1)
    assert values("auc", both, both[:, ::-1], labels) == pytest.approx([0.75, 0.25])
    assert values("auc", np.zeros(4), scores, labels)[0] == 0.5, "ties count half"


@pytest.fixture(scope="module")
def scored() -> tuple[Array, Array, Array]:
    """Logits of two models with ties, and labels that follow the first, of 8 classes."""
    rng = np.random.default_rng(0)
    first = np.round(rng.standard_normal((300, 8)), 1).astype(np.float32)
    second = np.round(first + rng.standard_normal((300, 8)), 1).astype(np.float32)
    labels = (first + rng.standard_normal((300, 8))).argmax(1)
    labels[labels == 6] = 0  # a class without labels
    return first, second, labels


def test_f1_of_many_classes(scored: tuple[Array, Array, Array]) -> None:
    first, second, labels = scored
    wanted = [f1(labels, s.argmax(1)) for s in (first, second)]
    assert values("f1", first, second, labels) == pytest.approx(wanted)


def test_auc_of_many_classes(scored: tuple[Array, Array, Array]) -> None:
    first, second, labels = scored
    wanted = []
    for scores in (first, second):
        shares = np.exp(scores.astype(float))
        shares /= shares.sum(1, keepdims=True)
        logs = np.log(shares)
        wanted.append(np.mean([auc(labels == c, logs[:, c]) for c in np.unique(labels)]))
        wanted_of_shares = values("auc", shares, shares, labels)[0]
        assert wanted_of_shares == pytest.approx(wanted[-1], abs=1e-4), "probabilities as they are"
    assert values("auc", first, second, labels) == pytest.approx(wanted, abs=1e-4)


def test_top5(scored: tuple[Array, Array, Array]) -> None:
    first, second, labels = scored
    wanted = []
    for scores in (first, second):
        best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        wanted.append(np.mean((best == labels[:, None]).any(1)))
    assert values("top5", first, second, labels) == pytest.approx(wanted)
    with pytest.raises(InputError, match="top5 of 5 classes"):
        measure("top5", first[:, :5], second[:, :5], labels % 5)


def test_errors_of_numbers() -> None:
    first, second = np.array([[1.0], [2.0], [4.0]]), np.array([[1.0], [2.0], [1.0]])
    labels = np.array([1.0, 3.0, 1.0])
    assert values("mae", first, second, labels) == pytest.approx([4 / 3, 1 / 3])
    assert values("rmse", first, second, labels) == pytest.approx([(10 / 3) ** 0.5, 3**-0.5])
    grid = np.arange(12.0).reshape(3, 2, 2)
    assert values("mae", grid, grid + 2, grid - 1) == pytest.approx([1, 3])
    with pytest.raises(InputError, match=r"\(3, 2, 2\), but the labels have \(3,\)"):
        measure("mae", grid, grid, labels)


def test_divergences_need_no_labels() -> None:
    first, second = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[4.0, 3.0], [0.0, 0.0]])
    assert values("cosine", first, second) == pytest.approx([1, (24 / 25 + 1) / 2])
    p, q = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.25, 0.75], [0.9, 0.1]])
    wanted = (0.5 * np.log(2) + 0.5 * np.log(2 / 3)) / 2
    assert values("kl", p, q) == pytest.approx([0, wanted])
    assert values("kl", np.log(p) + 3, np.log(q) - 5) == pytest.approx([0, wanted]), "logits"
    with pytest.raises(InputError, match=r"kl needs \(samples, ..., classes\)"):
        measure("kl", np.zeros((3, 1)), np.zeros((3, 1)))


@pytest.mark.parametrize("name", ["top5", "f1", "auc", "kl", "cosine"])
def test_batches_change_nothing(name: str, scored: tuple[Array, Array, Array]) -> None:
    assert measure(name, *scored, batch=1) == measure(name, *scored, batch=300)


def test_steps_count_and_masked_steps_do_not(scored: tuple[Array, Array, Array]) -> None:
    first, second, labels = scored
    masked = labels.copy()
    masked[::3] = MASKED
    kept = masked != MASKED
    steps = (
        first.reshape(50, 6, 8),
        second.reshape(50, 6, 8),
        masked.reshape(50, 6),
    )
    for name in ("top5", "f1", "auc"):
        found = measure(name, *steps)
        flat = measure(name, first[kept], second[kept], labels[kept])
        assert found.original.value == pytest.approx(flat.original.value)
        assert found.candidate.value == pytest.approx(flat.candidate.value)


@pytest.mark.parametrize("name", ["top5", "f1", "auc"])
def test_steps_that_are_alike_are_no_more_samples(
    name: str, scored: tuple[Array, Array, Array]
) -> None:
    """Every sample six times in a row, as its steps: the interval is that of the samples."""
    flat = measure(name, *scored).delta
    a, b, c = (np.repeat(array[:, None], 6, axis=1) for array in scored)
    steps = measure(name, a, b, c).delta
    assert steps.value == pytest.approx(flat.value)
    assert steps.high - steps.low == pytest.approx(flat.high - flat.low, rel=0.1)
    a, b, c = (np.repeat(array, 6, axis=0) for array in scored)
    copies = measure(name, a, b, c).delta
    assert copies.high - copies.low < 0.5 * (steps.high - steps.low), "as if independent"


WRONG: dict[str, tuple[str, Seen, str]] = {
    "no labels": ("f1", seen(np.eye(3), np.eye(3)), "d.npz: has no labels, so f1"),
    "labels of numbers": ("f1", seen(np.eye(3), np.eye(3), np.ones(3)), "float64; give integers"),
    "no classes": ("f1", seen(np.zeros((2, 1)), np.zeros((2, 1)), np.ones(2, int)), "(2, 1)"),
    "other steps": (
        "f1",
        seen(np.zeros((2, 4, 3)), np.zeros((2, 4, 3)), np.ones((2, 5), int)),
        "shape (2, 4, 3) for 2 samples and labels (2, 5)",
    ),
    "steps without a mask": (
        "f1",
        seen(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), np.array([[-1, 0]])),
        "labels go from -1 to 0",
    ),
    "labels of one score": (
        "auc",
        seen(np.zeros(3), np.zeros(3), np.array([0, 1, 2])),
        "auc of a single score needs integer labels 0 and 1",
    ),
    "NaN score": (
        "auc",
        seen(np.zeros(2), np.array([0, np.nan]), np.array([0, 1]), start=10),
        "b.onnx: the output is NaN for sample 11",
    ),
    "infinite output": (
        "rmse",
        seen(np.zeros(2), np.array([0, np.inf]), np.zeros(2), start=10),
        "b.onnx: rmse is no finite number for sample 11",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_told_in_a_line(case: str) -> None:
    name, batch, words = WRONG[case]
    with pytest.raises(InputError) as caught:
        find_metric(name).add(batch)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_auc_of_one_class_has_no_value() -> None:
    with pytest.raises(InputError, match="at least two classes"):
        measure("auc", np.arange(5.0), np.arange(5.0), np.ones(5, int))


def test_auc_keeps_only_so_many_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxtrim.bench.gathered.MOST_SCORES", 10)
    with pytest.raises(InputError, match="more than 10 per model; give fewer samples"):
        measure("auc", np.arange(12.0), np.arange(12.0), np.arange(12) % 2)


def own(outputs: list[Array], labels: Array | None) -> Array:
    assert labels is not None
    return np.asarray(outputs[1][:, 0] * 2 + labels)


def total(outputs: list[Array], labels: Array | None) -> float:
    return float(outputs[0].sum())


def broken(outputs: list[Array], labels: Array | None) -> Array:
    raise KeyError("what\nis missing")


def test_a_function_of_ones_own() -> None:
    """It sees all outputs, model by model, and the labels."""
    metric = find_metric("tests.test_bench_metrics:own")
    nothing = np.zeros((3, 2))
    batch = Seen(
        ([nothing, nothing + 1], [nothing, nothing + 5]), np.arange(3), 3, 0, ("a", "b"), "d"
    )
    metric.add(batch)
    found = paired_bootstrap(metric.resampled()).at()
    assert (found.original.value, found.candidate.value) == pytest.approx((3, 11))
    assert found.delta == pytest.approx((8, 8, 8)), "paired: labels do not blur the difference"
    assert found.candidate.low < 11 < found.candidate.high


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("f2", "must be one of top1, top5, f1, auc, mae, rmse, cosine, kl, or package.module"),
        (":own", "must be one of"),
        ("tests.test_bench_metrics:absent", "the module has no 'absent'"),
        ("tests.test_bench_metrics:total", "gave shape () for 3 samples; must give one number per"),
        ("tests.test_bench_metrics:broken", "raised KeyError: 'what\\nis missing'"),
    ],
)
def test_functions_that_are_none(name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        find_metric(name).add(seen(np.eye(3), np.eye(3)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the bootstrap ------------------------------------------------------------------------------


def test_the_mean_has_the_interval_of_students_t() -> None:
    """For many samples both are normal; the pairing makes the difference's interval narrow."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal(2000)
    second = first + 0.1 + 0.05 * rng.standard_normal(2000)
    found = measure("mae", first + 10, second + 10, np.zeros(2000), batch=500)
    for interval, samples in (
        (found.original, first + 10),
        (found.candidate, second + 10),
        (found.delta, second - first),
    ):
        half = 1.96 * samples.std() / 2000**0.5
        assert interval.value == pytest.approx(samples.mean())
        assert interval.low == pytest.approx(samples.mean() - half, abs=half / 10)
        assert interval.high == pytest.approx(samples.mean() + half, abs=half / 10)


def test_samples_that_are_alike_are_drawn_as_one_unit() -> None:
    """Few kinds of samples are drawn by their counts, with the same distribution."""
    rng = np.random.default_rng(1)
    hits = (rng.random((5000, 2)) < [0.9, 0.88]).astype(float)
    kinds, counts = alike(hits)
    assert len(kinds) == 4

    def resampled(rows: Array, times: Array) -> Resampled:
        return Resampled(times, lambda weights: weights @ rows / 5000, len(rows))

    short = paired_bootstrap(resampled(kinds, counts)).at().delta
    long = paired_bootstrap(resampled(hits, np.ones(5000, np.int64))).at().delta
    assert short.value == pytest.approx(long.value)
    assert short.high - short.low == pytest.approx(long.high - long.low, rel=0.1)
    rows, ones = alike(rng.random((100, 2)))
    assert len(rows) == 100
    assert ones.tolist() == [1] * 100


def test_the_seed_decides(scored: tuple[Array, Array, Array]) -> None:
    metric = gather("f1", *scored, batch=50).resampled()
    first, again, other = (paired_bootstrap(metric, seed=seed).at() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    with pytest.raises(ValueError, match="no samples"):
        paired_bootstrap(Resampled(np.zeros(0, np.int64), lambda weights: weights, 0))


def test_intervals_hold_the_truth() -> None:
    """Of 300 data sets with a known F1 difference of 0 about 95% have it in the interval."""
    rng = np.random.default_rng(3)
    inside = 0
    for seed in range(300):
        labels = rng.integers(0, 3, 200)
        answers = [np.where(rng.random(200) < 0.8, labels, rng.integers(0, 3, 200)) for _ in "ab"]
        scores = [np.eye(3)[a] for a in answers]
        metric = gather("f1", scores[0], scores[1], labels, 200).resampled()
        delta = paired_bootstrap(metric, seed, draws=400).at().delta
        inside += delta.low <= 0 <= delta.high
    assert 0.91 <= inside / 300 <= 0.985


def test_intervals_of_few_samples_are_wider() -> None:
    """Of 12 samples a plain percentile interval holds the truth in about 90% of cases."""
    rng = np.random.default_rng(4)
    inside = plain = 0
    for seed in range(400):
        first = rng.standard_normal(12) + 10
        metric = gather("mae", first, first + rng.standard_normal(12), np.zeros(12), 12).resampled()
        drawn = paired_bootstrap(metric, seed, draws=500)
        low, high = np.quantile(drawn.draws[:, 1] - drawn.draws[:, 0], [0.025, 0.975])
        delta = drawn.at().delta
        assert delta.low <= low <= high <= delta.high
        inside += delta.low <= 0 <= delta.high
        plain += low <= 0 <= high
    assert plain / 400 < 0.925
    assert 0.92 <= inside / 400 <= 0.975


def test_groups_are_drawn_whole() -> None:
    """A hundred groups of ten samples that are alike know as much as a hundred samples."""
    rng = np.random.default_rng(5)
    first = rng.random(100)
    second = first + 0.3 * rng.random(100)
    groups = np.repeat(np.arange(100), 10)
    few = gather("mae", first, second, np.zeros(100), 50)
    many = gather("mae", first[groups], second[groups], np.zeros(1000), 50)
    alone = paired_bootstrap(few.resampled(merge=False)).at().delta
    whole = paired_bootstrap(by_groups(many.resampled(merge=False), groups)).at().delta
    naive = paired_bootstrap(many.resampled()).at().delta
    assert whole == pytest.approx(alone)
    assert (whole.high - whole.low) / (naive.high - naive.low) == pytest.approx(10**0.5, rel=0.1)


def test_draws_take_little_memory() -> None:
    """100,000 samples, all different: 2,000 draws at once would take 1.6 GB."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((100_000, 1))
    metric = gather("mae", first, first + 0.1, np.zeros(100_000), 10_000).resampled()
    tracemalloc.start()
    paired_bootstrap(metric, draws=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000
