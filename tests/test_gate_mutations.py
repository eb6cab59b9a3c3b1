"""Damaged results and policies: never a pass that the whole ones would not give, no traceback."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate import check_result, judge, parse_policy
from onnxtrim.bench.result_file import digest, load_result, save_result
from tests.gate_cases import measurement, policy

LIMITS = {
    "latency.p50.ratio": ("max = 0.9", "max = 0.7", "max = 0.8"),
    "memory.run_peak.ratio": ("max = 0.9", "max = 0.5", None),
    "accuracy.top1.delta": ("min = '-0.5 pp'", "min = '0.2 pp'", "min = '0 pp'"),
    "model.file_bytes.ratio": ("max = 0.9", "max = 0.4", None),
}
"""A limit that holds, one that does not, and one that can't be told."""

DAMAGE: tuple[Any, ...] = (None, "", "x", -1, 0, 1e308, float("nan"), True, [], {}, [[]])


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("result") / "result.json"
    save_result(measurement(launches=12), path)
    return path


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
def _policies(draw: st.DrawFn) -> tuple[str, str]:
    """A policy of which at least one rule does not hold, and what it gives."""
    names = draw(st.lists(st.sampled_from(sorted(LIMITS)), min_size=1, max_size=4, unique=True))
    bad = draw(st.sampled_from(names))
    rules, failed = [], False
    for name in names:
        holds, fails, open_ = LIMITS[name]
        limit = holds
        if name == bad:
            limit = draw(st.sampled_from([one for one in (fails, open_) if one is not None]))
            failed = limit == fails
        rules.append(f"{name} {limit}")
    return policy(*rules), "fail" if failed else "inconclusive"


def _verdict(path: Path, text: str) -> str:
    """What the gate says, or ``"refused"``."""
    try:
        asked = parse_policy(text)
        found = load_result(path)
        check_result(found, asked)
        judgement = judge(found, asked)
        json.dumps(judgement.to_json(), allow_nan=False)
        assert (judgement.verdict == "pass") == (judgement.code == 0)
    except InputError as error:
        assert "\n" not in str(error)
        return "refused"
    return judgement.verdict


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), case=_policies())
def test_a_damaged_result_never_passes(
    result: Path, data: st.DataObject, case: tuple[str, str]
) -> None:
    text, truth = case
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
    assert _verdict(result, text) == truth
    assert _verdict(path, text) != "pass", (place, how)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), case=_policies())
def test_a_damaged_policy_never_passes(
    result: Path, data: st.DataObject, case: tuple[str, str]
) -> None:
    """Words cut, doubled, misspelt: what is no longer the same policy is refused, or not passed."""
    text, _ = case
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
    if _drops_rules(text, changed):
        return  # another policy, not a damaged one
    assert _verdict(result, changed) != "pass", changed


def _drops_rules(text: str, changed: str) -> bool:
    """Whether the changed text is a policy with fewer rules or other limits."""
    try:
        before, after = (parse_policy(one).target().rules for one in (text, changed))
    except InputError:
        return False
    return any(rule not in after for rule in before)
