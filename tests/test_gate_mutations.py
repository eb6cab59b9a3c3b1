"""Damaged results and policies: never a pass that the whole ones would not give, no traceback."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate import check_result, judge, parse_policy
from onnxtrim.bench.measurement import INDEPENDENT, Measurement
from onnxtrim.bench.result_file import digest, load_result, save_result
from onnxtrim.bench.results import Metric
from tests.gate_cases import measurement, policy

LIMITS = {
    "latency.p50.ratio": ("max = 0.9", "max = 0.7", "max = 0.8"),
    "latency.p50": ("max = '0.9 ms'", "max = '0.7 ms'"),
    "memory.run_peak.ratio": ("max = 0.9", "max = 0.5"),
    "accuracy.top1.delta": (
        "min = '-0.5 pp'",
        "min = '0.2 pp'",
        "min = '0 pp'",
        "classes = [0]; min = '-3 pp'",
        "classes = [1]; min = '-3 pp'",
    ),
    "accuracy.agreement": ("min = '90 %'", "min = '99.9 %'"),
    "accuracy.rmse": ("max = 3", "max = 1", "max = 2"),
    "model.file_bytes.ratio": ("max = 0.9", "max = 0.4"),
}
"""Limits that hold, that do not, and that can't be told."""

BASES: dict[str, dict[str, Any]] = {
    "sound": {},
    "the original differs from itself": {"copy": 1.05},
    "without a copy": {"with_copy": False},
    "memory that differs": {"peaks": (40 << 20, 50 << 20, 45 << 20)},
    "busy": {"wait": 0.2, "base_ns": 1.2e6},
    "few launches": {"launches": 5},
    "in groups": {},
}

EACH = -(-500 // len(BASES))  # 1,000 pairs in all

DAMAGE: tuple[Any, ...] = (None, "", "x", -1, 0, 1e308, float("nan"), True, [], {}, [[]])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("results")
    paths = {}
    for number, (name, numbers) in enumerate(BASES.items()):
        paths[name] = folder / f"{number}.json"
        found = measurement(**{"launches": 12, **numbers})
        rmse = Metric(2.0, 1.9, 2.1, "value")
        intervals = [[0.8, 1.97, 2.03], [0.9, 1.95, 2.05], [0.98, 1.8, 2.2]]
        told = {**found.details["accuracy"], "intervals": {"accuracy.rmse": intervals}}
        metrics = found.metrics | {"accuracy.rmse": rmse}
        if name == "in groups":
            told["units"] = 40
            del metrics[INDEPENDENT]
        found = replace(
            found,
            metrics=metrics,
            details={**found.details, "accuracy": told},
        )
        save_result(found, paths[name])
    return paths


@functools.cache
def _whole(path: Path) -> Measurement:
    return load_result(path)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and len(value) < 30:
        items = enumerate(value)
    for key, part in items:
        yield from _places(part, (*at, key))


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _damaged(value: Any, place: tuple[Any, ...], how: Any) -> Any:
    """The value with one part replaced, or taken out if ``how`` is ``del``."""
    whole = copy.deepcopy(value)
    holder = whole
    for key in place[:-1]:
        holder = holder[key]
    if how == "del":
        del holder[place[-1]]
    else:
        holder[place[-1]] = how
    return whole


@st.composite
def _policies(draw: st.DrawFn) -> str:
    names = draw(st.lists(st.sampled_from(sorted(LIMITS)), min_size=1, max_size=4, unique=True))
    rules = [f"{name} {draw(st.sampled_from(LIMITS[name]))}" for name in names]
    return policy(*rules, gate=draw(st.sampled_from(["", "max_runqueue_wait = '5 %'"])))


def _verdict(result: Path | Measurement, text: str) -> str:
    """What the gate says of a file or of what it holds, or ``"refused"``."""
    try:
        asked = parse_policy(text)
        found = load_result(result) if isinstance(result, Path) else result
        check_result(found, asked)
        judgement = judge(found, asked)
        json.dumps(judgement.to_json(), allow_nan=False)
        assert (judgement.verdict == "pass") == (judgement.code == 0)
    except InputError as error:
        assert "\n" not in str(error)
        return "refused"
    return judgement.verdict


@pytest.mark.parametrize("base", BASES)
@settings(max_examples=EACH, deadline=None)
@given(data=st.data(), text=_policies())
def test_a_damaged_result_never_passes(
    results: dict[str, Path], base: str, data: st.DataObject, text: str
) -> None:
    result = results[base]
    assume(_verdict(_whole(result), text) != "pass")
    value = json.loads(result.read_text())
    keys = [part for part in _places(value) if part[0] not in ("warnings", "digest")]
    place = data.draw(st.sampled_from(keys))
    # Another number in place of a number is a forgery, which no file can show of itself.
    number = isinstance(_at(value, place), (int, float))
    choices = [x for x in DAMAGE if not number or not isinstance(x, (int, float)) or x != x]
    how = data.draw(st.sampled_from(["del", *choices]))
    damaged = _damaged(value, place, how)
    path = result.with_name("damaged.json")
    try:
        damaged["digest"] = digest(damaged)  # as one who knows the format would
    except ValueError:  # no number; JSON can't hold it
        damaged["digest"] = value["digest"]
    path.write_text(json.dumps(damaged))
    assert _verdict(path, text) != "pass", (place, how)


@pytest.mark.parametrize("base", BASES)
@settings(max_examples=EACH, deadline=None)
@given(data=st.data(), text=_policies())
def test_a_damaged_policy_never_passes(
    results: dict[str, Path], base: str, data: st.DataObject, text: str
) -> None:
    """Words cut, doubled, misspelt: what is no longer the same policy is refused, or not passed."""
    result = _whole(results[base])
    assume(_verdict(result, text) != "pass")
    lines = text.splitlines()
    number = data.draw(st.sampled_from([n for n, line in enumerate(lines) if line.strip()]))
    line = lines[number]
    kind = data.draw(st.sampled_from(["cut", "letter", "double", "value"]))
    if kind == "cut":
        end = data.draw(st.integers(0, len(line) - 1))
        lines[number] = line[:end]
    elif kind == "letter":
        at = data.draw(st.integers(0, len(line) - 1))
        lines[number] = line[:at] + data.draw(st.sampled_from("xQ=\"'[]#\x00é ")) + line[at + 1 :]
    elif kind == "double":
        lines.insert(number, line)
    elif "=" in line:
        value = data.draw(st.sampled_from(["nan", "inf", "'1 %'", "'1 ms'", "true", "[]", "{}"]))
        lines[number] = f"{line.split('=')[0]}= {value}"
    changed = "\n".join(lines)
    if _is_another(text, changed):
        return  # another policy, not a damaged one
    assert _verdict(result, changed) != "pass", changed


def _is_another(text: str, changed: str) -> bool:
    """Whether the changed text is a policy with fewer rules, other limits or other settings."""
    try:
        before, after = parse_policy(text), parse_policy(changed)
        rules = after.target().rules
    except InputError:
        return False
    same = replace(after, targets=before.targets, sha256=before.sha256)
    return any(rule not in rules for rule in before.target().rules) or same != before
