"""Verdicts of rules and of the gate."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import pytest

from onnxtrim import bench
from onnxtrim.bench import looks
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate import check_result, judge, parse_policy
from onnxtrim.bench.gate.judge import is_decided
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.results import Metric
from tests.gate_cases import latency, measurement, policy, repeats, waiver

RATIO = "latency.p50.ratio max = {}"
QUIET = "require_same_host = false"


BASE = measurement()


def verdict(found: Measurement, *rules: str, **parts: str) -> str:
    return judge(found, parse_policy(policy(*rules, **parts))).rules[0].verdict


# What a rule can say, as a rule and a measurement of which it says so.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pass": ("latency.p50.ratio max = 0.9", {}),
    "fail": ("latency.p50.ratio max = 0.7", {}),
    "inconclusive": ("latency.p50.ratio max = 0.8", {}),
    "missing": ("throughput.1x8.ratio min = 1.0", {}),
    "error": ("latency.p50.ratio max = 0.9", {"details": {"not_finished": "killed"}}),
}


def expected(outcome: str, level: str, missing: str, inconclusive: str, waived: bool) -> int:
    """The exit code, spelt out."""
    if outcome == "error":
        return 4
    if level != "error":
        return 0
    if outcome == "fail":
        return 0 if waived else 1
    if outcome == "missing":
        return 1 if missing == "fail" or inconclusive == "fail" else 3
    if outcome == "inconclusive":
        return {"exit3": 3, "fail": 1, "warn": 0}[inconclusive]
    return {"pass": 0, "fail": 1}[outcome]


@pytest.mark.parametrize(
    ("outcome", "level", "missing", "inconclusive", "waived"),
    list(
        itertools.product(
            CASES,
            ("error", "warn", "info"),
            ("fail", "inconclusive"),
            ("exit3", "fail", "warn"),
            (False, True),
        )
    ),
)
def test_truth_table(
    outcome: str, level: str, missing: str, inconclusive: str, waived: bool
) -> None:
    rule, numbers = CASES[outcome]
    text = policy(
        f'{rule}; level = "{level}"',
        "model.file_bytes.ratio max = 1.0",  # always holds
        gate=f'on_missing = "{missing}"\non_inconclusive = "{inconclusive}"',
        waiver=waiver(rule.partition(" ")[0]) if waived else "",
    )
    found = judge(
        replace(BASE, details=BASE.details | numbers.get("details", {})), parse_policy(text)
    )
    told = "waived" if waived and outcome == "fail" else outcome
    assert found.rules[0].verdict == told
    assert found.code == expected(outcome, level, missing, inconclusive, waived)
    assert found.words.split(":")[0] in ("PASS", "FAIL", "INCONCLUSIVE", "ERROR")


@pytest.mark.parametrize(
    ("rule", "numbers", "said"),
    [
        ("latency.p50.ratio min = 0.7", {}, "pass"),
        ("latency.p50.ratio min = 0.9", {}, "fail"),
        ("latency.p50.ratio min = 0.7; max = 0.9", {}, "pass"),
        ("latency.p10.ratio max = 0.9", {}, "pass"),
        ("latency.p50 max = '0.9 ms'", {}, "pass"),
        ("latency.p50 max = '700 us'", {}, "fail"),
        ("latency.p50 max = '700 us'", {"wait": 0.2}, "inconclusive"),  # neighbours add time
        ("latency.p50 min = '700 us'", {"wait": 0.2}, "inconclusive"),
        ("latency.p50 min = '700 us'", {}, "pass"),
        ("latency.p50 max = '0.9 ms'", {"wait": 0.2}, "pass"),
        ("latency.p50 max = '9 ms'", {"drift": 0.2}, "inconclusive"),
        ("latency.p50.ratio max = 0.9", {"drift": 0.2, "wait": 0.2}, "pass"),
        ("latency.p50.ratio max = 0.9", {"copy": 1.05}, "inconclusive"),
        ("latency.p50.ratio max = 0.7", {"copy": 1.05}, "inconclusive"),
        ("latency.p50.ratio max = 0.9", {"with_copy": False}, "inconclusive"),
        ("latency.p50.ratio max = 0.9", {"launches": 7}, "missing"),
        ("latency.p50.ratio max = 0.9", {"ratio": None}, "missing"),
        ("latency.p99.ratio max = 0.9", {}, "missing"),  # too few calls
        ("load.session_create.ratio max = 0.9", {}, "pass"),
        ("latency.over_budget_rate max = '20 %'; budget = '2 ms'", {}, "pass"),
        ("latency.over_budget_rate max = '20 %'; budget = '0.5 ms'", {}, "fail"),
        ("memory.run_peak max = '50 MiB'", {}, "pass"),
        ("memory.run_peak max = '49 MiB'", {}, "fail"),
        ("memory.run_peak max = '49 MiB'; slack = '1 MiB'", {}, "pass"),
        ("memory.run_peak.ratio max = 0.83", {}, "fail"),
        ("memory.run_peak.ratio max = 0.83; slack = '256 KiB'", {}, "pass"),
        ("memory.run_peak.ratio max = 1", {"peaks": (40 << 20, 50 << 20)}, "inconclusive"),
        ("memory.run_peak.ratio max = 1", {"original_peaks": (50 << 20, 60 << 20)}, "inconclusive"),
        ("memory.run_peak.arena_off max = '1 GiB'", {}, "missing"),
        ("memory.run_peak max = '1 GiB'", {"details": {"memory": {}}}, "missing"),
        ("model.file_bytes max = '500 B'", {}, "pass"),
        ("model.file_bytes max = '499 B'", {}, "fail"),
        ("accuracy.top1.delta min = '-0.5 pp'", {}, "pass"),
        ("accuracy.top1.delta min = '-0.5 pp'", {"losses": 200}, "fail"),
        ("accuracy.top1.delta min = '-0.5 pp'", {"losses": 60}, "inconclusive"),
        ("accuracy.top1.delta min = '0 pp'", {}, "inconclusive"),
        ("accuracy.top1 min = '89 %'", {}, "pass"),
        ("accuracy.top1 min = '0.91'", {}, "fail"),
        ("accuracy.negative_flip_rate max = '0.5 %'", {}, "pass"),
        ("accuracy.negative_flip_rate max = '0.05 %'", {}, "fail"),
        ("accuracy.agreement min = '99 %'", {}, "pass"),
        ("accuracy.rmse max = 1", {}, "missing"),
        ("accuracy.top1.delta classes = [0]; min = '-3 pp'", {}, "pass"),
        ("accuracy.top1.delta classes = [1]; min = '-3 pp'", {}, "fail"),
        ("accuracy.top1.delta classes = [0]; min = '-0.5 pp'", {}, "inconclusive"),
        ("accuracy.top1.delta classes = [7]; min = '-3 pp'", {}, "missing"),
    ],
)
def test_rules(rule: str, numbers: dict[str, Any], said: str) -> None:
    assert verdict(measurement(**numbers), rule) == said


def test_what_is_needed_is_told() -> None:
    told = judge(
        measurement(losses=3, gains=3, samples=200, right=180),
        parse_policy(policy("accuracy.top1.delta min = '-0.5 pp'")),
    )
    assert "needs about" in told.words
    assert "has 200" in told.words
    near = judge(measurement(0.797), parse_policy(policy(RATIO.format(0.8))))
    assert near.verdict == "pass"
    for launches, says in ((8, "up to 24 may decide"), (24, "launches would decide if")):
        found = measurement(0.798, launches=launches, spread=0.02)
        rule = judge(found, parse_policy(policy(RATIO.format(0.8)))).rules[0]
        assert rule.verdict == "inconclusive"
        assert says in rule.why


def test_no_number_is_missing() -> None:
    found = measurement()
    broken = Metric(math.nan, math.nan, math.nan, "value")
    found = replace(found, metrics=found.metrics | {"accuracy.rmse": broken})
    assert verdict(found, "accuracy.rmse max = 1") == "missing"


def test_a_rule_of_classes_is_one_for_each() -> None:
    """Each is waived by its own name, and whichever fails, fails the gate."""
    rule = "accuracy.top1.delta classes = [0, 1]; min = '-3 pp'"
    found = judge(measurement(), parse_policy(policy(rule)))
    assert [(r.metric, r.verdict) for r in found.rules] == [
        ("accuracy.top1.delta[0]", "pass"),
        ("accuracy.top1.delta[1]", "fail"),
    ]
    assert found.code == 1
    assert "accuracy.top1.delta[1] -10 pp" in found.words
    text = policy(rule, waiver=waiver("accuracy.top1.delta[1]"))
    assert judge(measurement(), parse_policy(text)).verdict == "pass"
    steps = {name: m for name, m in BASE.metrics.items() if name != "accuracy.mcnemar_p"}
    dependent = judge(replace(BASE, metrics=steps), parse_policy(policy(rule)))
    assert {r.verdict for r in dependent.rules} == {"missing"}, "steps are not independent"
    few = judge(
        BASE, parse_policy(policy("accuracy.top1.delta classes = [0]; min = '-0.5 pp'"))
    ).rules[0]
    assert "has 500" in few.why


def test_bootstrapped_metrics_with_another_certainty() -> None:
    """Five claims need 98% for a fail, one needs 90% for a pass."""
    intervals = [[0.8, 1.97, 2.03], [0.9, 1.95, 2.05], [0.98, 1.8, 2.2], [0.995, 1.7, 2.3]]
    told = {**BASE.details["accuracy"], "intervals": {"accuracy.rmse": intervals}}
    metrics = BASE.metrics | {"accuracy.rmse": Metric(2.0, 1.9, 2.1, "value")}
    found = replace(BASE, metrics=metrics, details=BASE.details | {"accuracy": told})
    five = ["model.file_bytes max = '1 kB'"] * 4
    for limit, one, many in (
        (2.06, "pass", "pass"),  # 1.95 to 2.05
        (2.04, "inconclusive", "inconclusive"),
        (1.85, "fail", "inconclusive"),  # 1.8 to 2.2
        (1.75, "fail", "fail"),
    ):
        rule = f"accuracy.rmse max = {limit}"
        assert verdict(found, rule) == one
        assert verdict(found, rule, *five) == many
    thirty = ["model.file_bytes max = '1 kB'"] * 29
    assert verdict(found, "accuracy.rmse max = 1", *thirty) == "inconclusive", "above 99.5%"


@pytest.mark.parametrize(
    ("samples", "limit", "said"),
    [
        (40, "-5 pp", "inconclusive"),  # too few for a bootstrap
        (100, "-5 pp", "pass"),
        (100, "-1 pp", "inconclusive"),
        (3000, "-0.5 pp", "pass"),
    ],
)
def test_draws_that_are_all_alike_are_not_certain(samples: int, limit: str, said: str) -> None:
    """No sample tells the models apart; of the ones that were not drawn nobody knows."""
    f1 = {"accuracy.f1.delta": Metric(0.0, 0.0, 0.0, "points")}
    found = measurement(samples=samples, right=samples, losses=0, gains=0)
    found = replace(found, metrics=found.metrics | f1)
    assert verdict(found, f"accuracy.f1.delta min = '{limit}'") == said


def test_groups_are_what_counts() -> None:
    """Of 10,000 samples worth 40 nothing is known; of those worth 400 recorded intervals decide."""
    metrics = {n: m for n, m in BASE.metrics.items() if n != "accuracy.mcnemar_p"}
    names = ("accuracy.top1.delta", "accuracy.agreement", "accuracy.negative_flip_rate")
    rules = [
        f"{n} {limit}"
        for n, limit in zip(names, ("min = '-1 pp'", "min = '90 %'", "max = '5 %'"), strict=True)
    ]
    for units, said in ((40, "inconclusive"), (400, "pass")):
        told = {**BASE.details["accuracy"], "units": units}
        found = replace(BASE, metrics=metrics, details=BASE.details | {"accuracy": told})
        for rule in rules:
            assert verdict(found, rule) == said, rule
    wide = {**told, "intervals": {"accuracy.agreement": [[0.9, 0.8, 0.999]]}}
    found = replace(found, details=BASE.details | {"accuracy": wide})
    assert verdict(found, rules[1]) == "inconclusive", "not Clopper and Pearson's"


@pytest.mark.parametrize(
    ("rule", "gate", "numbers", "said"),
    [
        ("latency.p50.ratio max = 0.9", "max_runqueue_wait = '2 %'", {"wait": 0.2}, "inconclusive"),
        ("latency.p50.ratio max = 0.7", "max_runqueue_wait = '2 %'", {"wait": 0.2}, "inconclusive"),
        ("latency.p50.ratio max = 0.9", "max_runqueue_wait = '2 %'", {"wait": 0.01}, "pass"),
        ("latency.p50.ratio max = 0.9", "", {"wait": 0.2}, "pass"),
        ("model.file_bytes max = '1 kB'", "max_runqueue_wait = '2 %'", {"wait": 0.2}, "pass"),
        ("memory.run_peak max = '1 GiB'", "memory_method = 'hwm'", {"method": "maxrss"}, "missing"),
        ("memory.steady max = '1 GiB'", "memory_method = 'hwm'", {"method": "maxrss"}, "pass"),
        ("memory.run_peak max = '1 GiB'", "memory_method = 'hwm'", {}, "pass"),
        ("memory.run_peak max = '1 GiB'", "", {"method": "maxrss"}, "pass"),
    ],
)
def test_what_the_machine_must_allow(
    rule: str, gate: str, numbers: dict[str, Any], said: str
) -> None:
    assert verdict(measurement(**numbers), rule, gate=gate) == said


def test_too_short_a_time_is_told() -> None:
    found = measurement(launches=5, details={"out_of_time": True})
    rule = judge(found, parse_policy(policy("latency.p50.ratio max = 0.9"))).rules[0]
    assert (rule.verdict, rule.why) == (
        "missing",
        "judged from 8 launches on, and there are 5; max_duration was over",
    )


def test_what_broke_before_it_was_measured_is_an_error() -> None:
    found = measurement(None, details={"not_finished": "killed", "memory": {}})
    told = judge(found, parse_policy(policy("memory.run_peak.ratio max = 1")))
    assert (told.code, told.rules[0].verdict, told.rules[0].why) == (4, "error", "killed")


def test_a_recorded_interval_is_never_stretched() -> None:
    """With five claims a fail needs 99%, and a file holds 95% of a bootstrap."""
    found = measurement()
    error = Metric(2.0, 1.9, 2.1, "value")
    found = replace(found, metrics=found.metrics | {"accuracy.rmse": error})
    assert verdict(found, "accuracy.rmse max = 1") == "fail"
    assert verdict(found, "accuracy.rmse max = 3", *["model.file_bytes max = '1 kB'"] * 4) == "pass"
    five = ["accuracy.rmse max = 1", *["model.file_bytes max = '1 kB'"] * 4]
    assert verdict(found, *five) == "inconclusive"


def test_more_claims_make_fails_rarer_and_passes_not() -> None:
    """The upper bound of a pass is that of one claim; the lower of a fail is not."""
    many = [RATIO.format(0.9)] * 9
    alone = together = 0
    for seed in range(20):
        found = replace(BASE, latency=latency(0.8, spread=0.01, seed=seed, launches=8))
        alone += verdict(found, RATIO.format(0.785)) == "fail"
        together += verdict(found, RATIO.format(0.785), *many) == "fail"
        limit = RATIO.format(0.81)
        assert (verdict(found, limit) == "pass") == (verdict(found, limit, *many) == "pass")
    assert together < alone


@pytest.mark.parametrize("truth", [0.8, 0.802])
def test_the_gate_passes_falsely_in_at_most_five_percent(truth: float) -> None:
    """A ratio on or above its limit, looked at as the gate does: at each look, until it passes."""
    asked = parse_policy(policy(RATIO.format(0.8)))
    runs, passed = 200, 0
    for seed in range(runs):
        whole = latency.__wrapped__(truth, spread=0.006, seed=seed)
        for look in looks.LOOKS:
            seen = replace(whole, launches=whole.launches[:look])
            found = replace(BASE, latency=seen)
            if is_decided(found, asked, asked.target(), asked.alpha):
                passed += judge(found, asked).verdict == "pass"
                break
    assert passed <= 0.05 * runs + 2 * math.sqrt(0.05 * 0.95 * runs)
    assert truth > 0.8 or passed > 0, "at the limit some pass, or nothing ever would"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"original": {"path": "x", "sha256": "c" * 64}}, "another original"),
        ({"model": {"path": "x", "sha256": "c" * 64}}, "another candidate"),
        ({"details": {"data": {"sha256": "c" * 64}}}, "another data"),
        ({"details": {"data": {"sha256": "d" * 64}, "used_before": True}}, "was made with"),
        ({"machine": {}}, "another machine"),
    ],
)
def test_results_of_something_else(change: dict[str, Any], says: str) -> None:
    files = {"original": "a" * 64, "candidate": "b" * 64, "data": "d" * 64}
    asked = parse_policy(policy(RATIO.format(1)))
    found = measurement()
    check_result(found, asked, files)
    with pytest.raises(InputError, match=says):
        check_result(replace(found, **change), asked, files)
    elsewhere = parse_policy(policy(RATIO.format(1), gate=QUIET))
    check_result(replace(found, machine={}), elsewhere, files)


def test_results_measured_in_another_way() -> None:
    asked = parse_policy(policy(RATIO.format(1)))
    found = measurement()
    check_result(found, asked, settings=found.settings)
    names = {"hertz": r"paced Hz \(scenario\)", "cold": "--cold", "generated": "-I"}
    others = {"threads": 2, "batch": 4, "hertz": 20.0, "arena": False, "cold": True}
    for name, value in {**others, "generated": True}.items():
        with pytest.raises(InputError, match=f"measured with {names.get(name, name)} = "):
            check_result(found, asked, settings={**found.settings, name: value})
    nothing = {"latency": False, "memory": False, "throughput": 0, "threads": 2}
    check_result(found, asked, settings={**found.settings, **nothing})  # accuracy has no threads


def test_one_model_is_no_pair() -> None:
    with pytest.raises(InputError, match="one model"):
        judge(replace(measurement(), original=None), parse_policy(policy(RATIO.format(1))))


def test_the_environment_changed() -> None:
    found = measurement(details={"changed": "governor of the machine changed meanwhile"})
    rule = judge(found, parse_policy(policy(RATIO.format(0.9)))).rules[0]
    assert (rule.verdict, rule.why) == ("inconclusive", "governor of the machine changed meanwhile")


def test_json_follows_the_schema() -> None:
    schema = json.loads((Path(bench.__file__).parent / "schemas" / "gate.json").read_text())
    check = fastjsonschema.compile(schema)
    rules = [rule for rule, _ in CASES.values()]
    found = judge(measurement(), parse_policy(policy(*rules)))
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    check(value)
    assert value["words"] == found.words
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check({**value, "verdict": "maybe"})


def test_simulated_launches_are_what_they_say() -> None:
    found = latency(0.8, launches=8)
    assert found.planned
    assert np.exp(np.mean(found.logs(0.5))) == pytest.approx(0.8, rel=0.005)
    assert repeats(1, 2)["repeats"][1]["run_peak"] == 2
