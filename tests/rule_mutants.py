"""Wrong rules, made from the right ones: some test must notice each of them.

A mutant is one change of one rule. Signatures are changed as text: two letters swapped, a letter
frozen or followed, one occurrence of a letter cut loose, an operand not looked at. What means the
same as before is no mutant. Positions of operators that cut and join are turned round or shifted.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.groups import Touch
from onnxtrim.toolkit.graph.labels import close
from onnxtrim.toolkit.graph.node import Answer, Move, NodeView, Piece, Rule, Spliced
from onnxtrim.toolkit.graph.normalise import Normalised
from onnxtrim.toolkit.graph.propagate import Walker, steps
from onnxtrim.toolkit.graph.rules import RULES
from onnxtrim.toolkit.graph.signature import SignatureError, parse
from tests.rule_case import Case
from tests.rule_cases import ALL_CASES
from tests.rule_judge import Bundle, judge, ready

_LETTER = re.compile(r"[A-Za-z][0-9]*")
_LOOSE, _STUCK = "q99", "Q99"  # letters that no rule has


CHANGED_TEXT = frozenset(
    ("letters swapped", "letter followed", "letter frozen", "letter cut loose", "operand ignored")
)


@dataclass(frozen=True)
class Mutant:
    """A wrong rule.

    Attributes:
        operator: Whose rule it is.
        kind: Which kind of change.
        what: The change in words.
        rule: The wrong rule; ``None`` if it was removed.
        bundles: Names of the cases in which the change can be seen.
    """

    operator: str
    kind: str
    what: str
    rule: Rule | None
    bundles: tuple[str, ...]


@contextmanager
def in_place(mutant: Mutant) -> Iterator[None]:
    """The table with the wrong rule."""
    right = dict(RULES)
    if mutant.rule is None:
        del RULES[mutant.operator]
    else:
        RULES[mutant.operator] = mutant.rule
    try:
        yield
    finally:
        RULES.clear()
        RULES.update(right)


def canonical(text: str) -> str:
    """Followed letters by their order; frozen ones name nothing but a size."""
    seen: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        letter = match[0]
        return "U" if letter[0].isupper() else seen.setdefault(letter, f"l{len(seen)}")

    return _LETTER.sub(name, text)


def _replaced(text: str, changes: Mapping[int, str]) -> str:
    parts, end = [], 0
    for number, match in enumerate(_LETTER.finditer(text)):
        parts += [text[end : match.start()], changes.get(number, match[0])]
        end = match.end()
    return "".join(parts) + text[end:]


def _swaps(text: str) -> Iterator[tuple[str, str]]:
    letters = _LETTER.findall(text)
    for i, j in itertools.combinations(range(len(letters)), 2):
        if letters[i] != letters[j]:
            yield "letters swapped", _replaced(text, {i: letters[j], j: letters[i]})


def _others(text: str) -> Iterator[tuple[str, str]]:
    letters = _LETTER.findall(text)
    for letter in dict.fromkeys(letters):
        places = [k for k, other in enumerate(letters) if other == letter]
        if letter[0].isupper():
            yield "letter followed", _replaced(text, dict.fromkeys(places, _LOOSE))
        else:
            yield "letter frozen", _replaced(text, dict.fromkeys(places, _STUCK))
            if len(places) > 1:
                for place in places:
                    yield "letter cut loose", _replaced(text, {place: _LOOSE})
    left, _, right = text.partition("->")
    operands = left.split(",")
    for k, operand in enumerate(operands):
        if operand.strip() not in ("", "_") and len(operands) > 1:
            ignored = [*operands[:k], " _ ", *operands[k + 1 :]]
            yield "operand ignored", f"{','.join(ignored)}->{right}"


def changed_texts(text: str) -> Iterator[tuple[str, str]]:
    """Every signature that is one change away, well formed, and of another meaning."""
    seen = {canonical(text)}
    for kind, changed in itertools.chain(_swaps(text), _others(text)):
        form = canonical(changed)
        if form in seen:
            continue
        seen.add(form)
        try:
            parse(changed)
        except SignatureError:
            continue
        yield kind, changed


def _saying(rule: Rule, right: str, wrong: str) -> Rule:
    def said(view: NodeView) -> Answer:
        found = rule.answer(view)
        if isinstance(found, tuple):
            return tuple(wrong if text == right else text for text in found)
        return wrong if found == right else found

    return replace(rule, answer=said)


def _spliced(rule: Rule, change: Callable[[Spliced], Spliced]) -> Rule:
    def said(view: NodeView) -> Answer:
        found = rule.answer(view)
        return change(found) if isinstance(found, Spliced) else found

    return replace(rule, answer=said)


def _moves(change: Callable[[Move], Move]) -> Callable[[Spliced], Spliced]:
    def changed(spliced: Spliced) -> Spliced:
        pieces = (replace(piece, moves=tuple(map(change, piece.moves))) for piece in spliced.pieces)
        return Spliced(tuple(pieces))

    return changed


def _pieces(change: Callable[[Piece], Piece]) -> Callable[[Spliced], Spliced]:
    return lambda spliced: Spliced(tuple(map(change, spliced.pieces)))


SPLICES: dict[str, Callable[[Spliced], Spliced]] = {
    "taken positions reversed": _moves(lambda m: replace(m, taken=m.taken[::-1])),
    "taken positions shifted": _moves(lambda m: replace(m, taken=np.roll(m.taken, 1))),
    "put positions shifted": _moves(lambda m: replace(m, put=np.roll(m.put, 1))),
    "first position forgotten": _moves(lambda m: replace(m, taken=m.taken[1:], put=m.put[1:])),
    "moves forgotten": _pieces(lambda piece: replace(piece, moves=())),
    "other axes forgotten": _pieces(lambda piece: replace(piece, passes=())),
    "frozen inputs forgotten": _pieces(lambda piece: replace(piece, frozen_inputs=())),
    "frozen outputs forgotten": _pieces(lambda piece: replace(piece, frozen_outputs=())),
    "last piece forgotten": lambda spliced: Spliced(spliced.pieces[:-1]),
    "pieces exchanged": lambda spliced: Spliced(
        tuple(
            replace(piece, operand=other.operand, output=other.output)
            for piece, other in zip(spliced.pieces, spliced.pieces[::-1], strict=True)
        )
    ),
}


@dataclass(frozen=True)
class _Meaning:
    """What one alternative of a node does: which slices it joins and freezes, and its roles."""

    joined: NDArray[np.int64]
    frozen: NDArray[np.bool_]
    touches: tuple[Touch, ...]


def _meaning(case: Normalised, operator: str) -> list[_Meaning]:
    walker, found = Walker(case), []
    counted = [  # no slices leave where there is one, or where the input decides how many
        walker.labels.of((name, axis))
        for name, axis in walker.labels.axes()
        if case.shapes[name][axis] > 1 and axis not in case.varying.get(name, ())
    ]
    labels = np.concatenate(counted)
    for step in walker.steps:
        for choice in range(step.alternatives if step.view.node.op_type == operator else 0):
            reading = walker._reading(step, choice)
            classes = close(walker.labels, [reading.ties])
            joined = classes.of_label[labels]
            touches = tuple(
                touch
                for touch in reading.touches
                if touch.value[1] not in case.varying.get(touch.value[0], ())
            )
            found.append(_Meaning(joined, classes.frozen()[joined], touches))
    return found


def _same(one: _Meaning, other: _Meaning) -> bool:
    pairs = np.unique(np.stack([one.joined, other.joined]), axis=1).shape[1]
    return (
        pairs == len(np.unique(one.joined)) == len(np.unique(other.joined))
        and np.array_equal(one.frozen, other.frozen)
        and one.touches == other.touches
    )


def singly() -> dict[str, Bundle]:
    """Every case alone: many mutants cost least like this."""
    return {
        f"{case.operator}: {case.title} {case.opset if isinstance(case, Case) else ''}": (
            [case] if isinstance(case, Case) else case
        )
        for case in ALL_CASES
    }


class Hunt:
    """Mutants and the cases that should kill them; each case is normalised once.

    Args:
        bundles: The cases by name, which begins with the operator.
    """

    def __init__(self, bundles: Mapping[str, Bundle]) -> None:
        self.bundles = bundles
        self._ready: dict[str, Normalised] = {}
        self._of: dict[str, list[str]] = defaultdict(list)
        for name in bundles:
            self._of[name.split()[0].rstrip(":")].append(name)

    def _normalised(self, name: str) -> Normalised:
        if name not in self._ready:
            self._ready[name] = ready(self.bundles[name])
        return self._ready[name]

    def killer(self, mutant: Mutant) -> str:
        """What noticed the mutant; empty if nothing did."""
        for name in mutant.bundles:
            case = self._normalised(name)
            with in_place(mutant):
                try:
                    judge(self.bundles[name], case)
                except AssertionError:
                    return f"{name}: golden groups"
                except Exception as error:
                    return f"{name}: {type(error).__name__}"
        return ""

    def check(self) -> None:
        """Judge every case with the right rules: one that fails would kill everything."""
        for name, bundle in self.bundles.items():
            judge(bundle, self._normalised(name))

    def unchanged(self, mutant: Mutant) -> bool:
        """Whether every case reads the same, on all axes that could lose slices."""
        for name in mutant.bundles:
            case = self._normalised(name)
            right = _meaning(case, mutant.operator)
            with in_place(mutant):
                try:
                    wrong = _meaning(case, mutant.operator)
                except Exception:
                    return False
            if len(right) != len(wrong) or not all(map(_same, right, wrong)):
                return False
        return True

    def mutants(self, operators: Collection[str] = ()) -> Iterator[Mutant]:
        """All of them, or those of some operators.

        The signatures of operators with one rule function are changed in the first of them only.
        """
        done: set[tuple[object, str]] = set()
        for operator, rule in list(RULES.items()):
            if operators and operator not in operators:
                continue
            own = tuple(self._of[operator])
            yield Mutant(operator, "rule removed", "", None, own)
            if rule.resize is not None:
                yield Mutant(operator, "resize dropped", "", replace(rule, resize=None), own)
            if rule.sizes is not Rule(rule.answer).sizes:
                wrong = replace(rule, sizes=lambda view: {})
                yield Mutant(operator, "sizes dropped", "", wrong, own)
            texts, spliced = self._answers(operator)
            for text, names in texts.items():
                if (rule.answer, text) in done:
                    continue
                if operator != "ReduceSum":
                    done.add((rule.answer, text))
                for kind, changed in changed_texts(text):
                    wrong = _saying(rule, text, changed)
                    yield Mutant(operator, kind, f"{text}  =>  {changed}", wrong, names)
            for what, change in SPLICES.items():
                if spliced:
                    yield Mutant(operator, "positions", what, _spliced(rule, change), spliced)

    def _answers(self, operator: str) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
        """The signatures of an operator with their cases, and the cases with positions."""
        texts: dict[str, dict[str, None]] = defaultdict(dict)
        spliced: dict[str, None] = {}
        for name in self._of[operator]:
            for step in steps(self._normalised(name)):
                if step.view.node.op_type != operator:
                    continue
                if isinstance(step.answer, Spliced):
                    spliced[name] = None
                said = (step.answer,) if isinstance(step.answer, str) else step.answer
                for text in said if isinstance(said, tuple) else ():
                    texts[text][name] = None
        return {text: tuple(names) for text, names in texts.items()}, tuple(spliced)
