"""Verdicts: of each rule, and of the gate.

A rule passes if a one-sided bound, at the policy's alpha, lies inside the limit. The gate passes
if every rule of level error does: an intersection-union test, in which a wrong pass needs no
correction for the number of rules (Berger, Technometrics 24(4), 1982,
https://doi.org/10.2307/1267823). A fail claims that some rule is violated, so there each claim
gets its part of alpha (Bonferroni). All else is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from onnxtrim.bench import looks
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate.evidence import OF_LAUNCHES, Evidence
from onnxtrim.bench.gate.policy import Policy, Rule, Target
from onnxtrim.bench.gate.quantity import show
from onnxtrim.bench.latency_metrics import TAIL_LAUNCHES
from onnxtrim.bench.machine import fingerprint
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.results import Metric
from onnxtrim.bench.student import normal_quantile
from onnxtrim.bench.text import one_line
from onnxtrim.bench.verdict import non_inferior

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
MISSING, WAIVED, ERROR = "missing", "waived", "error"

SCHEMA = "onnxtrim.gate/1"
_CODES = {PASS: 0, FAIL: 1, INCONCLUSIVE: 3, ERROR: 4}
_HOST = ("architecture", "cpu", "cpu_flags", "onnxruntime")
_SCENARIO = (
    "threads",
    "batch",
    "hertz",
    "cold",
    "generated",
    "arena",
    "provider",
    "plain",
    "spinning",
    "config",
)
_NAMES = {"hertz": "paced Hz (scenario)", "cold": "--cold", "generated": "-I"}
_POWER = 0.8


@dataclass(frozen=True)
class RuleVerdict:
    """What is said about a rule.

    Attributes:
        metric: Of the rule, with the class if it is of one: the rule's name.
        verdict: ``"pass"``, ``"fail"``, ``"inconclusive"``, ``"missing"``, ``"waived"`` or
            ``"error"`` (the measurement broke).
        level: ``"error"``, ``"warn"`` or ``"info"``.
        limit: For people.
        bound: The limit in the metric's unit, the upper of two.
        value: The estimate, if there is one.
        low: One-sided lower bound at the error that the claim may use.
        high: One-sided upper bound.
        unit: Of all these numbers.
        why: What hinders a clear answer, or what to do; the reason of a waiver.
    """

    metric: str
    verdict: str
    level: str
    limit: str
    bound: float | None
    value: float | None
    low: float | None
    high: float | None
    unit: str
    why: str = ""

    @property
    def told(self) -> str:
        """In one line."""
        text = f"{self.metric} {self.figure}, limit {self.limit}"
        return one_line(f"{text}: {self.why}" if self.why else text)

    @property
    def figure(self) -> str:
        """Value and bounds for people."""
        if self.value is None or self.low is None or self.high is None:
            return "not measured"
        text = show(self.value, self.unit)
        if self.low == self.high:
            return text
        ends = (show(x, self.unit) if math.isfinite(x) else "?" for x in (self.low, self.high))
        return f"{text} [{', '.join(ends)}]"

    def to_json(self) -> dict[str, Any]:
        """The form in which it stands in the gate's JSON."""
        found = {key: value for key, value in asdict(self).items() if key != "metric"}
        for key in ("low", "high"):
            if found[key] is not None and not math.isfinite(found[key]):
                found[key] = None
        return {"metric": self.metric, **found, "told": self.told}


@dataclass(frozen=True)
class Judgement:
    """What the gate says.

    Attributes:
        verdict: ``"pass"``, ``"fail"``, ``"inconclusive"`` or ``"error"``.
        code: The exit code that follows from it by the policy.
        target: Name of the target.
        rules: The verdict of each rule.
        candidate: Path of the candidate.
        original: Path of the original.
        policy: ``source`` and ``sha256`` of the policy.
        hashes: SHA-256 of both models, and of the data if there were any.
        tried: How many candidates the candidate was chosen from.
    """

    verdict: str
    code: int
    target: str
    rules: tuple[RuleVerdict, ...]
    candidate: str
    original: str
    policy: Mapping[str, str]
    hashes: Mapping[str, str | None]
    tried: int = 1

    def of(self, *verdicts: str, level: str = "error") -> list[RuleVerdict]:
        """The rules of a level with one of these verdicts."""
        return [rule for rule in self.rules if rule.level == level and rule.verdict in verdicts]

    @property
    def words(self) -> str:
        """The verdict in one sentence."""
        required = [rule for rule in self.rules if rule.level == "error"]
        waived = len(self.of(WAIVED))
        if self.verdict == PASS:
            held = f"{len(required) - waived} of {len(required)} required rules are shown to hold"
            return f"PASS: {held}{f', {waived} waived' if waived else ''}{self._warned()}"
        worst = {
            FAIL: self.of(FAIL) + self.of(MISSING),
            INCONCLUSIVE: self.of(INCONCLUSIVE, MISSING),
            ERROR: self.of(ERROR),
        }[self.verdict]
        if not worst:  # it broke where only warnings come from
            return f"{self.verdict.upper()}: the measurement broke off"
        more = f", and {len(worst) - 1} more" if len(worst) > 1 else ""
        return f"{self.verdict.upper()}: {worst[0].told}{more}{self._warned()}"

    def _warned(self) -> str:
        count = len([rule for rule in self.rules if rule.level == "warn" and rule.verdict != PASS])
        return f"; {count} {'warning' if count == 1 else 'warnings'}" if count else ""

    def to_json(self) -> dict[str, Any]:
        """``onnxtrim.gate/1``."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "exit_code": self.code,
            "words": self.words,
            "target": self.target,
            "original": {"path": self.original, "sha256": self.hashes.get("original")},
            "candidate": {"path": self.candidate, "sha256": self.hashes.get("candidate")},
            "data_sha256": self.hashes.get("data"),
            "candidates_tried": self.tried,
            "policy": dict(self.policy),
            "rules": [rule.to_json() for rule in self.rules],
        }


def judge(
    found: Measurement,
    policy: Policy,
    target: str | None = None,
    *,
    tried: int = 1,
) -> Judgement:
    """Judge a measurement of two models.

    Args:
        found: What was measured.
        policy: What must be shown.
        target: Which of its targets; the only one without.
        tried: How many candidates the candidate was chosen from, on other data.

    Raises:
        InputError: The measurement is of one model only, or there is no such target.
    """
    if found.original is None:
        raise InputError("the result is of one model; a gate judges a candidate and its original")
    chosen = policy.target(target)
    alpha = policy.alpha / int(found.details.get("attempts") or 1)
    judged = _judged(Evidence(found), policy, chosen, alpha)
    verdict = ERROR if found.details.get("not_finished") else _joined(judged, policy)
    code = _CODES[verdict]
    if verdict == INCONCLUSIVE:
        code = {"exit3": code, "fail": 1, "warn": 0}[policy.on_inconclusive]
        missing = any(rule.verdict == MISSING and rule.level == "error" for rule in judged)
        code = code or (3 if missing else 0)  # what was not measured never passes
    data = found.details.get("data") or {}
    return Judgement(
        verdict=verdict,
        code=code,
        target=chosen.name,
        rules=judged,
        candidate=found.model["path"],
        original=found.original["path"],
        policy={"source": policy.source, "sha256": policy.sha256},
        hashes={
            "original": found.original["sha256"],
            "candidate": found.model["sha256"],
            "data": data.get("sha256"),
        },
        tried=tried,
    )


def is_decided(found: Measurement, policy: Policy, target: Target, alpha: float) -> bool:
    """Whether more launches would change nothing: all required rules about them are decided."""
    rules = _judged(Evidence(found), policy, target, alpha)
    late = found.latency is not None and len(found.latency.launches) >= TAIL_LAUNCHES
    open_ = (INCONCLUSIVE,) if late else (INCONCLUSIVE, MISSING)  # what can't be had, never comes
    return all(
        rule.verdict not in open_
        for rule in rules
        if rule.level == "error" and rule.metric.partition(".")[0] in OF_LAUNCHES
    )


def check_result(
    found: Measurement,
    policy: Policy,
    files: Mapping[str, str | None] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a result that must not be judged by this policy.

    Args:
        found: Read from a file.
        policy: What is asked.
        files: SHA-256 of the files that it shall be about: ``original``, ``candidate``, ``data``.
        settings: How it shall have been measured, see :meth:`.Settings.to_json`.

    Raises:
        InputError: It is of other files, measured in another way, on another machine or version,
            or of data that the candidate was made with.
    """
    about = {
        "original": (found.original or {}).get("sha256"),
        "candidate": found.model.get("sha256"),
        "data": (found.details.get("data") or {}).get("sha256"),
    }
    for name, digest in (files or {}).items():
        if digest is not None and digest != about[name]:
            raise InputError(f"the result is of another {name} (its hash differs); measure again")
    if found.details.get("used_before"):
        raise InputError(
            "the candidate was made with the samples that it is judged on; give others"
        )
    measured = {"cold": False, "generated": False, **found.settings}
    for name in _SCENARIO if settings is not None and _is_run(settings) else ():
        assert settings is not None
        if measured.get(name) != settings[name]:
            raise InputError(
                f"the result was measured with {_NAMES.get(name, name)} ="
                f" {_told(measured.get(name))}, the target says {_told(settings[name])};"
                " measure again, or change the target"
            )
    if not policy.require_same_host:
        return
    here = fingerprint()
    for name in _HOST:
        if found.machine.get(name) != here[name]:
            raise InputError(
                f"the result is of another machine ({name}: {_told(found.machine.get(name))}, here"
                f" {_told(here[name])}); judge it there, or set require_same_host = false in [gate]"
            )


def _is_run(settings: Mapping[str, Any]) -> bool:
    """Whether anything is measured that the scenario changes; accuracy and sizes are not."""
    return any(settings[name] for name in ("latency", "memory", "throughput"))


def _told(value: Any) -> str:
    return " ".join(map(str, value))[:60] if isinstance(value, list) else str(value)


def _judged(
    evidence: Evidence, policy: Policy, target: Target, alpha: float
) -> tuple[RuleVerdict, ...]:
    required = [rule for rule in target.rules if rule.level == "error"]
    claims = sum((rule.max is not None) + (rule.min is not None) for rule in required)
    waivers = {waiver.metric: waiver for waiver in policy.waivers}
    verdicts = []
    for rule in target.rules:
        found = _rule(evidence, rule, alpha, max(claims, 1), policy)
        waiver = waivers.get(rule.name)
        if found.verdict == FAIL and waiver is not None:
            why = f"waived until {waiver.expires}: {waiver.reason}"
            found = replace(found, verdict=WAIVED, why=why)
        verdicts.append(found)
    return tuple(verdicts)


def _joined(rules: tuple[RuleVerdict, ...], policy: Policy) -> str:
    told = {rule.verdict for rule in rules if rule.level == "error"}
    if ERROR in told:
        return ERROR
    if FAIL in told or (MISSING in told and policy.on_missing == "fail"):
        return FAIL
    return INCONCLUSIVE if told & {INCONCLUSIVE, MISSING} else PASS


def _rule(evidence: Evidence, rule: Rule, alpha: float, claims: int, policy: Policy) -> RuleVerdict:
    broken = one_line(str(evidence.found.details.get("not_finished") or ""))
    if broken and rule.family in OF_LAUNCHES:
        return _verdict(rule, ERROR, None, broken)
    spent = evidence.spent(rule, alpha)
    shown = evidence.interval(rule, 1 - 2 * spent) if spent else None
    if shown is None and broken:
        return _verdict(rule, ERROR, None, broken)
    if shown is None:
        return _verdict(rule, MISSING, None, _why_missing(evidence, rule))
    if rule.family == "memory" and policy.memory_method == "hwm" and not evidence.is_marked(rule):
        why = "the system does not mark peaks of memory (memory_method)"
        return _verdict(rule, MISSING, None, why)
    if rule.family in ("memory", "model"):
        verdict = PASS if _holds(rule, *_allowed(evidence, rule, shown)) else FAIL
        doubt = evidence.doubt(rule, policy)
        exact = Metric.exact(shown.value, shown.unit)
        return _verdict(rule, INCONCLUSIVE if doubt else verdict, exact, doubt)
    strict = evidence.interval(rule, 1 - 2 * spent / claims) or shown
    verdict, why = _claim(rule, shown, strict), ""
    if doubt := evidence.doubt(rule, policy):
        return _verdict(rule, INCONCLUSIVE, shown, doubt)
    no_pass, no_fail = evidence.doubts_about_times(rule)
    if (verdict == PASS and no_pass) or (verdict == FAIL and no_fail):
        verdict, why = INCONCLUSIVE, no_pass if verdict == PASS else no_fail
    elif verdict == INCONCLUSIVE:
        why = _advice(evidence, rule, shown, alpha)
    return _verdict(rule, verdict, shown, why)


def _claim(rule: Rule, shown: Metric, strict: Metric) -> str:
    """Pass by the bounds of one claim, fail by those of one among all."""
    if (rule.max is not None and strict.low > rule.max) or (
        rule.min is not None and strict.high < rule.min
    ):
        return FAIL
    high_holds = rule.max is None or shown.high <= rule.max
    low_holds = rule.min is None or shown.low >= rule.min
    return PASS if high_holds and low_holds else INCONCLUSIVE


def _allowed(evidence: Evidence, rule: Rule, shown: Metric) -> tuple[float, float]:
    """The value, and the slack in its unit."""
    if not rule.slack or not rule.metric.endswith(".ratio"):
        return shown.value, rule.slack
    before = evidence.found.metrics[f"{rule.metric.removesuffix('.ratio')}.original"]
    return shown.value, rule.slack / before.value


def _holds(rule: Rule, value: float, slack: float) -> bool:
    return (rule.max is None or value <= rule.max + slack) and (
        rule.min is None or value >= rule.min - slack
    )


def _why_missing(evidence: Evidence, rule: Rule) -> str:
    latency = evidence.found.latency
    if rule.family in OF_LAUNCHES and latency is not None:
        count = len(latency.launches)
        if count < looks.LOOKS[0]:
            late = "; max_duration was over" if evidence.found.details.get("out_of_time") else ""
            return f"judged from {looks.LOOKS[0]} launches on, and there are {count}{late}"
        if ".p99" in rule.metric and count < TAIL_LAUNCHES:
            return f"needs {TAIL_LAUNCHES} launches, and there are {count}"
        if rule.family == "energy":
            return "this system does not count energy"
        return f"not known after {count} launches"
    if rule.of_class is not None and evidence.found.details.get("accuracy"):
        if not evidence.independent:
            return "answers are not independent (steps, groups), and single classes not judged then"
        return f"there is no sample of class {rule.of_class}"
    if rule.family == "accuracy":
        return "give samples with labels, and the metric, when measuring"
    return "it was not measured"


def _advice(evidence: Evidence, rule: Rule, shown: Metric, alpha: float) -> str:
    """What would decide an open rule."""
    found = evidence.found
    flips = evidence.flips(rule)
    if flips is not None and rule.min is not None and rule.min <= 0:
        needed = non_inferior(*flips, -rule.min / 100, alpha).needed
        if needed is None:
            return "no number of samples can show a margin of 0"
        if needed > flips[-1]:
            which = "" if rule.of_class is None else f" of class {rule.of_class}"
            return f"needs about {needed} samples{which}, has {flips[-1]}"
        return "too near to the limit for these samples; more may help"
    if rule.family == "accuracy":
        return "more samples (or groups of them) may help"
    if rule.family not in OF_LAUNCHES or found.latency is None:
        return "too near to the limit to tell"
    count = len(found.latency.launches)
    limit = rule.max if rule.max is not None else rule.min
    assert limit is not None  # a rule has a limit
    distance = abs(shown.value - limit)
    width = (shown.high - shown.low) / 2
    if count < looks.LOOKS[-1]:
        return f"open after {count} launches; up to {looks.LOOKS[-1]} may decide"
    if distance < 0.1 * width or not math.isfinite(width):
        return "the truth is too near to the limit for any number of launches"
    z = normal_quantile(1 - alpha)
    needed = math.ceil(count * ((z + normal_quantile(_POWER)) / z * width / distance) ** 2)
    truth = show(shown.value, rule.unit)
    return f"about {needed} launches would decide if the truth is {truth}; {count} were made"


def _verdict(rule: Rule, verdict: str, shown: Metric | None, why: str = "") -> RuleVerdict:
    return RuleVerdict(
        metric=rule.name,
        verdict=verdict,
        level=rule.level,
        limit=rule.limit(),
        bound=rule.max if rule.max is not None else rule.min,
        value=None if shown is None else shown.value,
        low=None if shown is None else shown.low,
        high=None if shown is None else shown.high,
        unit=rule.unit,
        why=why,
    )
