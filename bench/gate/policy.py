"""The policy of a gate: what must be shown of a candidate, in a TOML file.

A rule is a claim that must be shown, not an estimate under a line. Limits carry their units; what
is unknown, contradictory or out of date is an error before anything is measured.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate.quantity import (
    is_larger_better,
    parse_duration,
    parse_quantity,
    show,
    unit_of,
)
from onnxtrim.bench.text import one_line

LEVELS = ("error", "warn", "info")
PRESETS = ("edge-default", "server-default", "accuracy-only")
MOST_BYTES = 1 << 20  # of a policy file

_HERE = Path(__file__).parent / "presets"
_PREFIX = "onnxtrim:"


@dataclass(frozen=True)
class Rule:
    """A claim about one metric, limits in its own unit.

    Attributes:
        metric: Its name, as in result files; the candidate's, or a ratio or difference.
        of_class: Of which class of the labels, or ``None`` for all samples.
        max: Largest value that is allowed, or ``None``.
        min: Smallest, or ``None``.
        slack: Bytes by which a limit of memory may be exceeded.
        budget_ms: Time that a call may take, of ``latency.over_budget_rate``.
        level: ``"error"``, ``"warn"`` or ``"info"``: only the first decides.
    """

    metric: str
    max: float | None = None
    min: float | None = None
    slack: float = 0.0
    budget_ms: float | None = None
    level: str = "error"
    of_class: int | None = None

    @property
    def name(self) -> str:
        """What tells it from other rules: the metric, with the class as in ``metric[3]``."""
        return self.metric if self.of_class is None else f"{self.metric}[{self.of_class}]"

    @property
    def unit(self) -> str:
        """Unit of the metric and the limits."""
        return unit_of(self.metric)

    @property
    def family(self) -> str:
        """The first part of the metric's name: what has to be measured for it."""
        return self.metric.partition(".")[0]

    @property
    def doubt(self) -> str:
        """Why the limit is probably on the wrong side, or empty."""
        better = is_larger_better(self.metric)
        if better is None or self.max is self.min:
            return ""
        if better and self.min is None:
            return f"{self.name} {self.limit()}: says how good it may be at most; is min meant?"
        if not better and self.max is None:
            return f"{self.name} {self.limit()}: says how bad it must be at least; is max meant?"
        return ""

    def limit(self) -> str:
        """The limits for people, as ``≤ 20 ms``."""
        parts = [f"≥ {show(self.min, self.unit)}"] if self.min is not None else []
        parts += [f"≤ {show(self.max, self.unit)}"] if self.max is not None else []
        return " and ".join(parts) + (f" (slack {show(self.slack, 'bytes')})" if self.slack else "")


@dataclass(frozen=True)
class Target:
    """One scenario, measured and judged together.

    Attributes:
        name: Of the target.
        rules: What must be shown.
        threads: Intra-op threads; 0 for all usable.
        batch: Samples per call.
        hertz: Calls per second; 0 for back to back.
        arena: Whether the memory arena is on.
        provider: Execution provider.
    """

    name: str
    rules: tuple[Rule, ...]
    threads: int = 0
    batch: int = 1
    hertz: float = 0.0
    arena: bool = True
    provider: str = "cpu"


@dataclass(frozen=True)
class Waiver:
    """A rule that may fail until a day, and why; ``metric`` is the rule's name."""

    metric: str
    reason: str
    expires: datetime.date


@dataclass(frozen=True)
class Policy:
    """What a gate enforces.

    Attributes:
        targets: By name.
        waivers: What may fail for now.
        alpha: Probability of a wrong pass, per rule, and of any wrong fail.
        on_inconclusive: ``"exit3"``, ``"fail"`` or ``"warn"``.
        on_missing: ``"fail"`` or ``"inconclusive"``.
        max_seconds: After so long no further launch is begun, but the second; ``None`` for no end.
        max_wait: Share of the time that the processes may have waited for a CPU, for rules on
            latency, loading and energy to be decided; ``None`` for any.
        memory_method: ``"hwm"`` if only peaks that the kernel marks count, else ``"any"``.
        require_aa: Whether the original must have run against itself.
        require_same_host: Whether a result must have been measured on this machine.
        allow_advisory: Whether there may be no rule that decides.
        sha256: Of the policy's text, that of the preset included.
        source: Where it came from.
    """

    targets: Mapping[str, Target]
    waivers: tuple[Waiver, ...] = ()
    alpha: float = 0.05
    on_inconclusive: str = "exit3"
    on_missing: str = "fail"
    max_seconds: float | None = None
    max_wait: float | None = None
    memory_method: str = "any"
    require_aa: bool = True
    require_same_host: bool = True
    allow_advisory: bool = False
    sha256: str = ""
    source: str = "policy"

    def target(self, name: str | None = None) -> Target:
        """The target of that name, or the only one.

        Raises:
            InputError: There is none, or there are several and none was named.
        """
        names = ", ".join(self.targets)
        if name is None:
            if len(self.targets) > 1:
                raise InputError(f"{self.source}: has targets {names}; choose with --target")
            return next(iter(self.targets.values()))
        if name not in self.targets:
            raise InputError(f"{self.source}: has no target {name!r}, only {names}")
        return self.targets[name]

    def strict(self) -> Policy:
        """The same with warnings that decide."""
        targets = {}
        for name, target in self.targets.items():
            rules = [
                replace(r, level="error" if r.level == "warn" else r.level) for r in target.rules
            ]
            targets[name] = replace(target, rules=tuple(rules))
        return replace(self, targets=targets)


def load_policy(path: str | os.PathLike[str], today: datetime.date | None = None) -> Policy:
    """Read and check a policy file; ``onnxtrim:NAME`` is a preset.

    Raises:
        InputError: It can't be read, is no policy, or asks for what makes no sense.
    """
    name = os.fspath(path)
    if "://" in name or name.startswith("//"):
        raise InputError(f"{name}: a policy from the network is refused; give a local file")
    if name.startswith(_PREFIX):
        return parse_policy(f'schema = 1\nextends = "{name}"\n', name, today)
    try:
        if Path(name).stat().st_size > MOST_BYTES:
            raise InputError(f"{name}: is larger than any policy")
        text = Path(name).read_text(encoding="utf-8-sig")  # some editors put a mark first
    except OSError as error:
        raise InputError(f"{name}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: is not text in UTF-8") from error
    return parse_policy(text, name, today)


def parse_policy(text: str, source: str = "policy", today: datetime.date | None = None) -> Policy:
    """A policy from its text; arguments and errors as of :func:`load_policy`."""
    try:
        return _policy(text, source, today or datetime.date.today())
    except InputError as error:
        message = str(error)
        raise InputError(
            message if message.startswith(source) else f"{source}: {message}"
        ) from None


def preset_text(name: str) -> str:
    """The text of a preset.

    Raises:
        InputError: There is no such preset.
    """
    if name.removeprefix(_PREFIX) not in PRESETS or not name.startswith(_PREFIX):
        known = ", ".join(_PREFIX + preset for preset in PRESETS)
        raise InputError(f"extends is {name!r}; presets are {known}")
    return (_HERE / f"{name.removeprefix(_PREFIX)}.toml").read_text(encoding="utf-8")


def _policy(text: str, source: str, today: datetime.date) -> Policy:
    value = _parsed(text)
    top = _Table(value, "", ("schema", "extends", "gate", "target", "waiver"))
    if top.get("schema", int) != 1:
        raise InputError(f"schema is {value['schema']!r}; this onnxtrim knows schema 1")
    base: dict[str, Any] = {}
    whole = text
    if (extends := top.get("extends", str, "")) != "":
        preset = preset_text(extends)
        whole += preset
        base = _parsed(preset)["target"]["default"]
    own = top.get("target", dict, {})
    if not own and not base:
        raise InputError("has no target; write [target.NAME] with rules, or extends a preset")
    shared = _rules(base.get("rule", []), "preset rule")
    targets = {
        name: _target(name, about, shared) for name, about in (own or {"default": {}}).items()
    }
    settings = _gate(_Table(top.get("gate", dict, {}), "gate", _GATE))
    rules = [rule for target in targets.values() for rule in target.rules]
    if not settings["allow_advisory"]:
        for target in targets.values():
            if not any(rule.level == "error" for rule in target.rules):
                raise InputError(
                    f"target.{target.name} has no rule of level error, so it could never fail;"
                    " set allow_advisory = true in [gate] if that is meant"
                )
    waivers = tuple(
        _waiver(about, f"waiver {n + 1}", rules, today)
        for n, about in enumerate(top.get("waiver", list, []))
    )
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return Policy(targets, waivers, sha256=digest, source=source, **settings)


def _parsed(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"is not TOML: {one_line(str(error))}") from error


class _Table:
    """A table that knows where it stands and which keys it may have."""

    def __init__(self, value: Any, where: str, keys: Sequence[str]) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise InputError(f"{where} is not a table")
        for key in value:
            if key not in keys:
                place = f"[{where}]" if where else "the policy"
                raise InputError(f"{place} has an unknown key {key!r}; known: {', '.join(keys)}")
        self.value = value

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of a key, of that type; a key without a default must be there."""
        place = f"{self.where}.{key}" if self.where else key
        if key not in self.value:
            if default is None:
                raise InputError(f"{place} is missing")
            return default
        value = self.value[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{place} is {value!r}, must be {_KINDS[kind]}")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """The value of a key, one of some words, the first by default."""
        found: str = self.get(key, str, choices[0])
        if found not in choices:
            raise InputError(f"{self.where}.{key} is {found!r}, must be {' or '.join(choices)}")
        return found


_KINDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a table",
    list: "a list of tables ([[...]])",
    datetime.date: "a date, such as 2027-01-31",
}
_GATE = (
    "alpha",
    "on_inconclusive",
    "on_missing",
    "max_duration",
    "max_runqueue_wait",
    "memory_method",
    "require_aa",
    "require_same_host",
    "allow_advisory",
)
_TARGET = ("threads", "batch", "scenario", "arena", "provider", "rule")
_RULE = ("metric", "classes", "max", "min", "slack", "budget", "level")
_OF_CLASSES = "accuracy.top1.delta"


def _gate(table: _Table) -> dict[str, Any]:
    alpha = table.get("alpha", float, 0.05)
    if not 1e-6 <= alpha <= 0.2:
        raise InputError(f"gate.alpha is {alpha:g}, must be 0.000001 to 0.2")
    seconds = None
    if "max_duration" in table.value:
        try:
            seconds = parse_duration(table.value["max_duration"])
        except InputError as error:
            raise InputError(f"gate.max_duration: {error}") from None
    wait = None
    if "max_runqueue_wait" in table.value:
        try:
            wait = parse_quantity(table.value["max_runqueue_wait"], "share")
        except InputError as error:
            raise InputError(f"gate.max_runqueue_wait: {error}") from None
    return {
        "alpha": alpha,
        "on_inconclusive": table.choice("on_inconclusive", ("exit3", "fail", "warn")),
        "on_missing": table.choice("on_missing", ("fail", "inconclusive")),
        "max_seconds": seconds,
        "max_wait": wait,
        "memory_method": table.choice("memory_method", ("any", "hwm")),
        "require_aa": table.get("require_aa", bool, True),
        "require_same_host": table.get("require_same_host", bool, True),
        "allow_advisory": table.get("allow_advisory", bool, False),
    }


def _target(name: str, value: Any, shared: Sequence[Rule]) -> Target:
    where = f"target.{name}"
    table = _Table(value, where, _TARGET)
    own = _rules(table.get("rule", list, []), f"{where} rule")
    overridden = {rule.name for rule in own}
    rules = (*(rule for rule in shared if rule.name not in overridden), *own)
    if not rules:
        raise InputError(f"{where} has no rule; write [[{where}.rule]]")
    _refuse_contradictions(rules, where)
    _refuse_unmeasurable(rules, table, where)
    threads, batch = table.get("threads", int, 0), table.get("batch", int, 1)
    for key, number, least in (("threads", threads, 0), ("batch", batch, 1)):
        if number < least:
            raise InputError(f"{where}.{key} is {number}, must be {least} or more")
    return Target(
        name,
        rules,
        threads,
        batch,
        _hertz(table.value.get("scenario", "back_to_back"), where),
        table.get("arena", bool, True),
        table.get("provider", str, "cpu"),
    )


def _hertz(value: Any, where: str) -> float:
    if value == "back_to_back":
        return 0.0
    text = value.get("paced") if isinstance(value, dict) and set(value) == {"paced"} else None
    number = text.removesuffix("Hz") if isinstance(text, str) and text.endswith("Hz") else ""
    try:
        hertz = float(number)
    except ValueError:
        hertz = 0.0
    if not 0 < hertz < 1e6:
        raise InputError(
            f'{where}.scenario is {value!r}, must be "back_to_back" or {{ paced = "20 Hz" }}'
        )
    return hertz


def _rules(values: Sequence[Any], where: str) -> list[Rule]:
    """A rule with classes is one for each of them."""
    found = []
    for number, value in enumerate(values, 1):
        rule = _rule(value, f"{where} {number}")
        classes = _classes(value, rule, f"{where} {number}")
        found += [replace(rule, of_class=one) for one in classes] if classes else [rule]
    return found


def _classes(value: Any, rule: Rule, where: str) -> list[int]:
    if "classes" not in value:
        return []
    classes = value["classes"]
    if rule.metric != _OF_CLASSES:
        raise InputError(f"{where} ({rule.metric}): classes are of {_OF_CLASSES} only")
    numbers = isinstance(classes, list) and all(type(one) is int and one >= 0 for one in classes)
    if not numbers or not classes or len(set(classes)) < len(classes):
        raise InputError(
            f"{where} ({rule.metric}): classes is {classes!r}, must be a list of different numbers"
            " of classes, such as [0, 3]"
        )
    return list(classes)


def _rule(value: Any, where: str) -> Rule:
    table = _Table(value, where, _RULE)
    metric = table.get("metric", str)
    try:
        unit = unit_of(metric)
        limits = {key: parse_quantity(value[key], unit) for key in ("max", "min") if key in value}
        slack = parse_quantity(value["slack"], "bytes") if "slack" in value else 0.0
        budget = parse_quantity(value["budget"], "ms") if "budget" in value else None
    except InputError as error:
        raise InputError(f"{where} ({metric}): {error}") from None
    if not limits:
        raise InputError(f"{where} ({metric}) has neither max nor min")
    level = table.choice("level", LEVELS)
    rule = Rule(metric, limits.get("max"), limits.get("min"), slack, budget, level)
    if rule.max is not None and rule.min is not None and rule.max < rule.min:
        raise InputError(f"{where} ({metric}): max is below min")
    if unit == "share" and (rule.max == 1 or rule.min == 0):
        raise InputError(f"{where} ({metric}): {rule.limit()} says nothing")
    if unit == "share" and (rule.max == 0 or rule.min == 1):
        raise InputError(
            f"{where} ({metric}): {rule.limit()} can't be shown by any number of samples"
        )
    over_budget = metric == "latency.over_budget_rate"
    if over_budget != (budget is not None):
        what = 'needs a budget, such as "20 ms"' if over_budget else "takes no budget"
        raise InputError(f"{where} ({metric}) {what}")
    if slack and not metric.startswith("memory."):
        raise InputError(f"{where} ({metric}): slack is of memory only")
    return rule


def _refuse_contradictions(rules: Sequence[Rule], where: str) -> None:
    for rule in rules:
        for other in rules:
            same = (rule.name, rule.budget_ms) == (other.name, other.budget_ms)
            if same and rule.max is not None and other.min is not None and rule.max < other.min:
                raise InputError(
                    f"{where}: {rule.name} can't be {rule.limit()} and {other.limit()}"
                )


def _refuse_unmeasurable(rules: Sequence[Rule], table: _Table, where: str) -> None:
    """Rules about settings of which the target says something else."""
    arena, threads = table.get("arena", bool, True), table.get("threads", int, 0)
    same = ".arena_on" if arena else ".arena_off"
    batches = {table.get("batch", int, 1)}
    for rule in rules:
        if same in rule.metric:
            raise InputError(f"{where}: {rule.metric} is {rule.metric.replace(same, '')} here")
        if rule.family == "throughput":
            callers, batch = map(int, rule.metric.split(".")[1].split("x"))
            batches.add(batch)
            if callers not in (1, threads) or batch < 1 or len(batches) > 2:
                raise InputError(
                    f"{where}: {rule.metric} can't be measured; threads are 1 or those of the"
                    " target, samples per call its batch or one other number"
                )


def _waiver(value: Any, where: str, rules: Sequence[Rule], today: datetime.date) -> Waiver:
    table = _Table(value, where, ("metric", "reason", "expires"))
    metric, reason = table.get("metric", str), table.get("reason", str)
    expires = table.get("expires", datetime.date)
    if isinstance(expires, datetime.datetime):
        raise InputError(f"{where}.expires has a time; write {expires.date()} for that whole day")
    if not reason.strip():
        raise InputError(f"{where} ({metric}) has no reason")
    about = [rule for rule in rules if rule.name == metric]
    if len(about) != 1:
        many = f"{len(about)} rules are" if about else "no rule is"
        raise InputError(f"{where}: {many} about {metric!r}; a waiver is for one rule")
    if expires < today:
        raise InputError(f"{where} ({metric}) expired on {expires}; fix it or give a later date")
    return Waiver(metric, reason, expires)
