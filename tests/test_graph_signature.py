"""The signature language: errors point at the letter, sizes are found, misfits are refused."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxtrim.toolkit.graph.reshape import reshape_signatures
from onnxtrim.toolkit.graph.signature import (
    Binding,
    SignatureError,
    bind,
    followed,
    is_frozen,
    parse,
)

CONV = "n c X*, o c K*, o -> n o Q*"
GROUPED = "n (g J) X*, (g P) J K*, (g P) -> n (g P) Q*"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a, b", "a signature needs '->'|    ^"),
        ("a ? -> a", "expected a letter|  ^"),
        ("a, b $c -> a", "expected a letter|     ^"),
        ("a -> b, 7", "expected a letter|        ^"),
        ("a (b (c)) -> a", "nested|     ^"),
        ("a () -> a", "')' without letters|   ^"),
        ("a b) -> a", "')' without letters|   ^"),
        ("a -> (b C", "never closed|     ^"),
        ("a, (b c) -> a", "one lower-case|   ^"),
        ("a (B c*) -> a", "a star or prime can't|     ^"),
        ("a* b c* -> a", "one star|     ^"),
    ],
)
def test_parse_errors_point_at_the_letter(text: str, reason: str) -> None:
    said, caret = reason.split("|")
    with pytest.raises(SignatureError) as caught:
        parse(text)
    message, shown, pointer = str(caught.value).split("\n")
    assert said in message
    assert shown == f"    {text}"
    assert pointer == f"    {caret}"


def test_conv() -> None:
    found = bind(parse(CONV), [(1, 3, 8, 9), (5, 3, 2, 2), (5,)], [(1, 5, 7, 8)])
    assert found.sizes == {
        "n": 1, "c": 3, "X2": 8, "X1": 9, "o": 5, "K2": 2, "K1": 2, "Q2": 7, "Q1": 8,
    }  # fmt: skip
    assert found.inputs[1] == (("o",), ("c",), ("K2",), ("K1",))


def test_absent_operands_and_those_not_looked_at() -> None:
    found = bind(parse("x*, _, y -> x*, _"), [(2, 3), (7, 7)], [(2, 3)])
    assert found.inputs == ((("x2",), ("x1",)), None)
    assert bind(parse(CONV), [(1, 3, 8), (5, 3, 2), None], [(1, 5, 7)]).inputs[2] is None


def test_stars_are_counted_from_the_right() -> None:
    found = bind(parse("x*, x* -> x*"), [(4, 1, 6), (5, 6)], [(4, 5, 6)])
    assert found.inputs == ((("x3",), ("x2",), ("x1",)), (("x2",), ("x1",)))
    assert found.sizes == {"x3": 4, "x2": 5, "x1": 6}
    assert bind(parse("x* -> x*"), [()], [()]) == Binding(((),), ((),), {}, frozenset())


def test_a_star_between_letters() -> None:
    found = bind(parse("b* m k, k n -> b* m n"), [(2, 3, 4, 5), (5, 6)], [(2, 3, 4, 6)])
    assert found.inputs[0] == (("b2",), ("b1",), ("m",), ("k",))


def test_composites_are_solved_by_division() -> None:
    shapes = [(1, 12, 6, 6), (16, 3, 3, 3), (16,)]
    found = bind(parse(GROUPED), shapes, [(1, 16, 4, 4)], {"g": 4})
    assert (found.sizes["J"], found.sizes["P"]) == (3, 4)
    chained = bind(parse("(a B), (c A), c -> (a B)"), [(6,), (8,), (4,)], [(6,)], {"B": 3})
    assert (chained.sizes["a"], chained.sizes["A"]) == (2, 2)


@pytest.mark.parametrize(
    ("text", "inputs", "outputs", "caret"),
    [
        ("a b -> a b", [(2, 3, 4)], [(2, 3)], 2),  # rank
        ("a b X* -> a", [(2,)], [(2,)], 4),
        ("m k, k n -> m n", [(2, 3), (4, 5)], [(2, 5)], 5),  # size
        ("a (b C) -> a", [(2, 6)], [(2,)], 2),  # unknown factors
        ("a (b C), b, C -> a", [(2, 6), (2,), (2,)], [(2,)], 2),  # factors make 4
        ("a -> a", [(2,), (2,)], [(2,)], 0),  # too many operands
    ],
)
def test_misfits(
    text: str, inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]], caret: int
) -> None:
    with pytest.raises(SignatureError) as caught:
        bind(parse(text), inputs, outputs)
    assert str(caught.value).endswith("\n    " + " " * caret + "^")


def test_which_factor_is_followed() -> None:
    assert followed(("G", "j")) == "j"
    assert followed(("A", "B")) is None
    assert is_frozen("X1")
    assert not is_frozen("x1")


letters = st.sampled_from(["a", "b", "c", "d1", "E", "F2", "G"])
axes = st.one_of(
    letters,
    letters.map(lambda name: f"{name}*"),
    st.lists(letters, min_size=1, max_size=3).map(lambda names: f"({' '.join(names)})"),
)
operands = st.one_of(st.just("_"), st.lists(axes, max_size=4).map(" ".join))
sides = st.lists(operands, min_size=1, max_size=3).map(", ".join)


@given(sides, sides)
def test_parse_takes_or_refuses_but_never_breaks(left: str, right: str) -> None:
    try:
        signature = parse(f"{left} -> {right}")
    except SignatureError:
        return
    assert [operand is None for operand in signature.inputs] == [
        part.strip() == "_" for part in left.split(",")
    ]


@given(st.text(alphabet="abAB*(),->_ 1", max_size=20))
def test_parse_of_any_text(text: str) -> None:
    try:
        parse(text)
    except SignatureError as error:
        _, shown, caret = str(error).split("\n")
        assert len(caret) <= len(shown) + 1


shapes = st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple)


@given(shapes, st.data())
def test_a_reshape_fits_its_own_signature(source: tuple[int, ...], data: st.DataObject) -> None:
    """Merge and split at random: the factors multiply back to both shapes."""
    factors = data.draw(st.permutations(source))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(source)), max_size=4)))
    edges = [0, *cuts, len(source)]
    target = tuple(math.prod(factors[a:b]) for a, b in itertools.pairwise(edges))
    for left, right in reshape_signatures(source, target):
        found = bind(parse(f"{left} -> {right}"), [source], [target])
        for shape, laid in ((source, found.inputs[0]), (target, found.outputs[0])):
            assert laid is not None
            for size, axis in zip(shape, laid, strict=True):
                product = math.prod(found.sizes[letter] for letter in axis)
                assert product == size
                assert sum(not is_frozen(letter) for letter in axis) <= 1


def test_reshape_follows_the_outermost_factor_first() -> None:
    assert reshape_signatures((1, 6, 4, 4), (1, 96)) == [
        ("S0 f0 F1 F2", "T0 (f0 F1 F2)"),
        ("S0 F0 f1 F2", "T0 (F0 f1 F2)"),
        ("S0 F0 F1 f2", "T0 (F0 F1 f2)"),
    ]
    assert reshape_signatures((1, 5, 24), (1, 5, 4, 6)) == [
        ("S0 f0 (f1 F2)", "T0 f0 f1 F2"),
        ("S0 f0 (F1 f2)", "T0 f0 F1 f2"),
    ]
    assert reshape_signatures((4, 6), (8, 3)) == [
        ("f0 (F1 f2)", "(f0 F1) f2"),
        ("F0 (f1 F2)", "(F0 f1) F2"),
    ]
    assert reshape_signatures((2, 3), (1, 2, 1, 3)) == [("f0 f1", "T0 f0 T2 f1")]


def test_axes_without_common_factors_stay_and_others_pass() -> None:
    assert reshape_signatures((6, 4), (4, 6)) == [("S0 S1", "T0 T1")]
    assert reshape_signatures((2, 6, 4, 5), (2, 4, 6, 5)) == [("f0 S1 S2 f1", "f0 T1 T2 f1")]
    assert reshape_signatures((0, 4), (4, 0)) == [("S0 S1", "T0 T1")]


@pytest.mark.parametrize(("text", "caret"), [("a (b c') -> a", 5), ("A' -> a", 0), ("a'* -> a", 0)])
def test_what_can_be_primed(text: str, caret: int) -> None:
    with pytest.raises(SignatureError) as caught:
        parse(text)
    assert str(caught.value).endswith("\n    " + " " * caret + "^")


def test_a_primed_letter_is_read() -> None:
    found = bind(parse("b h, (A h) h' -> b h"), [(1, 4), (12, 4)], [(1, 4)])
    assert found.reads == {(1, 1)}
