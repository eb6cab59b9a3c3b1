"""Broken, hostile and randomly damaged models: refused in one line, never a crash or a hang."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.bad_cases import ANY, WORKS
from tests.bad_tensors import CASES
from tests.mutants import NETS
from tests.watched import Outcome, watch

MUTANTS = 56  # of each net; benchmarks/fuzz_models.py makes more
TRIAL = 2.0  # seconds until a loop without an end is given up; the default is longer


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Outcome]]:
    """What the commands do with every case, in one process that may be killed."""
    found: dict[str, list[Outcome]] = {name: [] for name in CASES}
    for outcome in watch(list(CASES), "tests.bad_tensors", seconds=TRIAL):
        found[outcome.job].append(outcome)
    return found


@pytest.mark.parametrize("name", CASES)
def test_one_thing_wrong(name: str, outcomes: dict[str, list[Outcome]]) -> None:
    says = CASES[name][1]
    assert outcomes[name], "no outcome"
    for outcome in outcomes[name]:
        assert not outcome.complaint(), outcome
        if says == WORKS:
            assert outcome.code == 0, outcome
        elif says != ANY:
            assert outcome.code == 2, outcome
            assert says in outcome.line or outcome.command == "prune", outcome


def test_the_nets_are_good_before_they_are_damaged() -> None:
    found = list(watch([f"{net}:whole" for net in NETS], "tests.mutants"))
    assert len(found) == 2 * len(NETS)
    for outcome in found:
        nothing = outcome.command == "prune" and outcome.job == "branches:whole"
        assert outcome.code == (1 if nothing else 0), outcome


def test_damaged_models() -> None:
    jobs = [f"{net}:{seed}" for seed in range(MUTANTS) for net in NETS]
    found = list(watch(jobs, "tests.mutants", seconds=TRIAL))
    wrong = [(outcome.complaint(), outcome) for outcome in found if outcome.complaint()]
    assert not wrong, wrong[:5]
    assert {outcome.job for outcome in found} == set(jobs)
    codes = Counter(outcome.code for outcome in found)
    assert codes[0] > 50, codes  # some damage does no harm
    assert codes[2] > 300, codes
