"""Policies: what they may say, and what is refused before anything is measured."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import fastjsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxtrim import bench
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate import load_policy, parse_policy
from onnxtrim.bench.gate.policy import _GATE, _RULE, _TARGET, PRESETS
from onnxtrim.bench.gate.quantity import (
    _UNITS,
    FACTORS,
    parse_duration,
    parse_quantity,
    show,
    unit_of,
)
from onnxtrim.bench.metrics import known_metrics
from onnxtrim.toolkit.cli.demo_command import POLICY
from tests.gate_cases import HEAD, policy, waiver

FULL = """
schema = 1
extends = "onnxtrim:edge-default"

[gate]
alpha = 0.05
on_inconclusive = "exit3"
on_missing = "fail"
max_duration = "10 min"
max_runqueue_wait = "2 %"
memory_method = "hwm"
require_aa = true
require_same_host = true

[target.pi5]
threads = 2
batch = 1
scenario = { paced = "20 Hz" }
arena = true

[[target.pi5.rule]]
metric = "latency.p50.ratio"
max = 0.80

[[target.pi5.rule]]
metric = "latency.over_budget_rate"
budget = "20 ms"
max = "1 %"

[[target.pi5.rule]]
metric = "memory.run_peak"
max = "64 MiB"
slack = "256 KiB"

[[target.pi5.rule]]
metric = "accuracy.top1"
min = "0.91"

[[target.pi5.rule]]
metric = "accuracy.top1.delta"
classes = [3, 7]
min = "-3 pp"

[[waiver]]
metric = "load.to_first_run.ratio"
reason = "PR-123: one-off"
expires = 2027-01-31
"""
TODAY = datetime.date(2026, 1, 1)
BYTES = "model.file_bytes.ratio max = 1.0"


def test_a_whole_policy() -> None:
    found = parse_policy(FULL, today=TODAY)
    target = found.target()
    assert (target.name, target.threads, target.hertz) == ("pi5", 2, 20.0)
    assert found.max_seconds == 600
    assert (found.max_wait, found.memory_method) == (0.02, "hwm")
    rules = {rule.name: rule for rule in target.rules}
    assert rules["accuracy.top1.delta[7]"].of_class == 7
    assert rules["accuracy.top1.delta[7]"].min == -3
    assert rules["latency.p50.ratio"].max == 0.8, "the own limit, not the preset's"
    assert rules["latency.over_budget_rate"].budget_ms == 20
    assert rules["latency.over_budget_rate"].max == pytest.approx(0.01)
    assert rules["memory.run_peak"].max == 64 << 20
    assert rules["accuracy.top1.delta"].min == -0.5, "of the preset"
    assert rules["load.to_first_run.ratio"].level == "warn"
    assert found.waivers[0].expires == datetime.date(2027, 1, 31)
    strict = found.strict().target()
    assert {rule.level for rule in strict.rules} == {"error"}


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    found = load_policy(f"onnxtrim:{name}")
    assert any(rule.level == "error" for rule in found.target().rules)


@pytest.mark.parametrize(
    "text", [FULL, policy(BYTES), *(f'schema=1\nextends="onnxtrim:{n}"' for n in PRESETS)]
)
def test_the_json_schema_takes_what_the_reader_takes(text: str) -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11

    schema = json.loads((Path(bench.__file__).parent / "schemas" / "policy.json").read_text())
    value = json.loads(json.dumps(tomllib.loads(text), default=str))
    check = fastjsonschema.compile(schema)
    check(value)
    parse_policy(text, today=TODAY)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check({**value, "other": 1})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "schema is missing"),
        ("schema = 2", "knows schema 1"),
        ("schema = 1", "has no target"),
        ("schema: 1\ntarget:\n  - here", "is not TOML"),
        ("{}", "is not TOML"),
        ("schema = 1\nextends = 'onnxtrim:none'", "presets are"),
        ("schema = 1\nextends = 'https://example.org/policy.toml'", "presets are"),
        (HEAD, "has no rule"),
        (HEAD + "rule = []", "has no rule"),
        (HEAD + "rule = 3", "must be a list"),
        (HEAD + "rules = []", "unknown key 'rules'"),
        (policy(BYTES, gate="alhpa = 0.1"), "unknown key 'alhpa'"),
        (policy(BYTES, gate="alpha = 0.9"), "alpha is 0.9"),
        (policy(BYTES, gate="alpha = nan"), "alpha is nan"),
        (policy(BYTES, gate='alpha = "0.05"'), "must be a number"),
        (policy(BYTES, gate='on_missing = "pass"'), "must be fail or inconclusive"),
        (policy(BYTES, gate='max_duration = "10"'), "is not a duration"),
        (policy(BYTES, gate="require_aa = 1"), "must be true or false"),
        (policy("latency.p50.ration max = 1"), "did you mean latency.p50.ratio?"),
        (policy("latency.p50 max = 3"), "lacks a unit"),
        (policy('latency.p50 max = "3 MiB"'), "wrong unit"),
        (policy('latency.p50 max = "-3 ms"'), "is below 0"),
        (policy('latency.p50.ratio max = "80 %"'), "a ratio has no unit"),
        (policy("latency.p50.ratio max = nan"), "not a number"),
        (policy("latency.p50.ratio max = inf"), "not a number"),
        (policy("latency.p50.ratio max = true"), "neither a number nor text"),
        (policy("latency.p50.ratio max = 1e999"), "not a number"),
        (policy('latency.p50 max = "1e308 s"'), "too large"),
        (policy('accuracy.top1.delta min = "-0.5 %"'), "wrong unit"),
        (policy("accuracy.top1.delta min = -0.5"), "lacks a unit"),
        (policy("accuracy.mcnemar_p min = 0.05"), "not 'not worse'"),
        (policy("latency.p50.ratio level = 'error'"), "neither max nor min"),
        (policy("latency.p50.ratio max = 0.5; min = 0.9"), "max is below min"),
        (policy("latency.p50.ratio max = 0.5", "latency.p50.ratio min = 0.9"), "can't be"),
        (policy("latency.p50.ratio max = 0.5; level = 'fatal'"), "must be error or warn or info"),
        (policy("latency.p50.ratio max = 0.5; budget = '2 ms'"), "takes no budget"),
        (policy("latency.over_budget_rate max = '1 %'"), "needs a budget"),
        (policy("latency.p50.ratio max = 0.5; slack = '2 KiB'"), "slack is of memory"),
        (policy("latency.p50.ratio max = 0.5; level = 'warn'"), "could never fail"),
        (
            policy(BYTES, waiver=waiver("model.file_bytes.ratio", "2999-01-01T10:00:00")),
            "expires has a time; write 2999-01-01",
        ),
        (policy(BYTES, gate="max_runqueue_wait = 0.02"), "gate.max_runqueue_wait: 0.02 lacks"),
        (policy(BYTES, gate="max_runqueue_wait = '2 ms'"), "wrong unit"),
        (policy(BYTES, gate="memory_method = 'pss'"), "must be any or hwm"),
        (policy("accuracy.top1 classes = [1]; min = '90 %'"), "classes are of accuracy.top1.delta"),
        *(
            (policy(f"accuracy.top1.delta classes = {text}; min = '-1 pp'"), "list of different")
            for text in ("[]", "3", "[1, 1]", "[-1]", "[true]", "['cat']")
        ),
        (
            policy(
                "accuracy.top1.delta classes = [1, 2]; min = '-1 pp'",
                waiver=waiver("accuracy.top1.delta"),
            ),
            "no rule is about",
        ),
        (
            policy(
                "accuracy.top1.delta classes = [1, 2]; min = '-1 pp'",
                "accuracy.top1.delta classes = [2]; max = '-2 pp'",
            ),
            "accuracy.top1.delta[2] can't be",
        ),
        (policy(BYTES, waiver=waiver("latency.p50")), "no rule is about"),
        (policy(BYTES, BYTES, waiver=waiver("model.file_bytes.ratio")), "2 rules are about"),
        (policy("accuracy.negative_flip_rate max = 1"), "is 1 meant as 1 % or 100 %"),
        (policy("accuracy.negative_flip_rate max = '150 %'"), "more than there can be"),
        (policy("accuracy.negative_flip_rate max = '100 %'"), "says nothing"),
        (policy("accuracy.top1 min = '1.0'"), "can't be shown"),
        (policy("accuracy.top1.delta min = '-100 pp'"), "more than there can be"),
        (policy("memory.run_peak.arena_on max = '1 MB'"), "is memory.run_peak here"),
        (policy("throughput.4x8 min = '5 /s'"), "can't be measured"),
        (policy("throughput.1x4 min = '5 /s'", "throughput.1x8 min = '5 /s'"), "can't be measured"),
        (policy(BYTES, gate="alpha = 1e-17"), "must be 0.000001"),
        (policy(BYTES, waiver=waiver("model.file_bytes.ratio", "2025-12-31")), "expired on"),
        (policy(BYTES, waiver=waiver("model.file_bytes.ratio", "'soon'")), "must be a date"),
        (policy(BYTES) + "[target.other]\nbatch = 0\nrule = []", "has no rule"),
        (HEAD + "batch = 0\n[[target.here.rule]]\nmetric='latency.p50'\nmax='1 ms'", "batch is 0"),
        (
            HEAD + "scenario = 'fast'\n[[target.here.rule]]\nmetric='latency.p50'\nmax='1 ms'",
            "paced",
        ),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match="policy: ") as error:
        parse_policy(text, today=TODAY)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_the_policy_of_the_readme_and_of_the_demo() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert {rule.metric for rule in parse_policy(text).target("pi5").rules} >= {
        "latency.over_budget_rate",
        "model.file_bytes.ratio",
    }
    assert len(parse_policy(POLICY).target().rules) == 3


def test_the_reference_tells_every_key_and_metric() -> None:
    page = (Path(__file__).parents[1] / "docs" / "policy.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    found = parse_policy(text)
    assert (found.max_wait, found.target().hertz) == (0.02, 20)
    for key in (*_GATE, *_TARGET, *_RULE):
        assert re.search(rf"^{key} = |\.{key}\]\]", text, re.MULTILINE) or key in ("min", "max")
    table = page.partition("## Metrics")[2].partition("## Verdicts")[0]
    for name in (*_UNITS, *known_metrics()):
        assert name.removesuffix(".arena_on").removesuffix(".arena_off").split(".")[-1] in table


@pytest.mark.parametrize(
    ("rule", "doubted"),
    [
        ("accuracy.top1.delta max = '1 pp'", True),
        ("accuracy.top1.delta min = '-1 pp'", False),
        ("accuracy.top1.delta min = '-1 pp'; max = '5 pp'", False),
        ("latency.p50.ratio min = 0.8", True),
        ("latency.p50.ratio max = 0.8", False),
        ("throughput.1x8.ratio max = 2", True),
        ("throughput.1x8.cpu.ratio max = 2", False),
        ("accuracy.rmse min = 0.1", True),
        ("accuracy.negative_flip_rate max = '1 %'", False),
        ("accuracy.mine:score max = 1", False),
    ],
)
def test_limits_on_the_wrong_side_are_doubted(rule: str, doubted: bool) -> None:
    (found,) = parse_policy(policy(rule)).target().rules
    assert ("is min meant?" in found.doubt or "is max meant?" in found.doubt) is doubted


def test_an_advisory_policy_must_be_meant() -> None:
    rules = ("latency.p50.ratio max = 0.5; level = 'warn'",)
    assert parse_policy(policy(*rules, gate="allow_advisory = true")).allow_advisory


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_bytes(b"\xef\xbb\xbf" + policy(BYTES).encode())  # as some editors do
    assert load_policy(path).target().name == "here"
    for content, says in ((b"\xff\xfe", "UTF-8"), (b"#" * (2 << 20), "larger than any policy")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=says):
            load_policy(path)
    with pytest.raises(InputError, match="can't be read"):
        load_policy(tmp_path / "none.toml")
    for address in ("https://example.org/gate.toml", "//server/share/gate.toml"):
        with pytest.raises(InputError, match="from the network is refused"):
            load_policy(address)


def test_targets() -> None:
    both = parse_policy(
        policy(BYTES) + policy(BYTES).replace("schema = 1", "").replace("here", "b")
    )
    with pytest.raises(InputError, match="choose with --target"):
        both.target()
    assert both.target("b").name == "b"
    with pytest.raises(InputError, match="no target 'c'"):
        both.target("c")


@pytest.mark.parametrize("unit", sorted(FACTORS))
@given(number=st.floats(0, 1e6), spaces=st.sampled_from(["", " "]))
def test_units(unit: str, number: float, spaces: str) -> None:
    if unit in ("share", "points"):
        number %= 1
    for name, factor in FACTORS[unit].items():
        text = f"{number!r}{spaces}{name}"
        assert parse_quantity(text, unit) == pytest.approx(number * factor)
        assert show(number * factor, unit)


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90 s", "1.5 min", "2h")] == [90, 90, 7200]


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("latency.p99.ratio", "ratio"),
        ("memory.run_peak.arena_off", "bytes"),
        ("memory.run_peak.arena_off.ratio", "ratio"),
        ("throughput.2x8", "samples/s"),
        ("throughput.2x8.ratio", "ratio"),
        ("accuracy.top5.delta", "points"),
        ("accuracy.mae", "value"),
        ("accuracy.mae.delta", "value"),
        ("accuracy.my.mine:score", "value"),
        ("energy.per_call.ratio", None),
        ("accuracy.top1.original", None),
        ("accuracy.top1.detla", None),
        ("accuracy.topl", None),
    ],
)
def test_metrics_that_rules_may_be_about(metric: str, unit: str | None) -> None:
    if unit is None:
        with pytest.raises(InputError):
            unit_of(metric)
    else:
        assert unit_of(metric) == unit
