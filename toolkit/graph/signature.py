"""The signature language: one line says what an operator does to axes.

``"n c X*, o c K*, o -> n o Q*"`` is a convolution. Operands are separated by commas, axes by
blanks, inputs from outputs by ``->``. An axis is

- a lower-case letter: the slices of every axis with that letter leave together;
- an upper-case letter: frozen wherever it stands alone;
- a composite in brackets, ``(g J)``: outermost factor first. The one lower-case letter in it is
  followed, the other factors are not; without a lower-case letter the axis is frozen;
- a letter with a star, ``X*``: any number of axes, aligned at the right like numpy's broadcasting;
- a letter with a prime, ``h'``: the same slices as ``h``, and the operator also reads them there
  (the recurrent weight of an LSTM), although an output has them.

An operand ``_`` is not looked at. A lower-case letter of the inputs that no output has is
*contracted*: the operator is a **consumer** of those slices. Axes of size 1 broadcast and carry
nothing. The syntax follows einops (https://einops.rocks).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z][0-9]*)(?P<prime>'?)(?P<star>\*?)|(?P<open>\()|(?P<close>\)))"
)

Shape = tuple[int, ...]
Axis = tuple[str, ...]  # the letters of one axis; several for a composite


class SignatureError(Exception):
    """A signature is malformed or does not fit the shapes: a mistake in a rule, never the user's.

    The message shows the signature with a caret under the letter at fault.
    """

    def __init__(self, text: str, position: int, reason: str) -> None:
        super().__init__(f"{reason}\n    {text}\n    {' ' * position}^")


@dataclass(frozen=True)
class _Token:
    """An axis as written, where a star is not yet expanded."""

    letters: Axis
    star: bool
    reads: bool
    position: int


Operand = tuple[_Token, ...] | None


@dataclass(frozen=True)
class Signature:
    """A parsed signature; ``None`` stands for an operand that is not looked at."""

    text: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]


@dataclass(frozen=True)
class Binding:
    """A signature that was laid over shapes.

    Attributes:
        inputs: For each input its axes, each a tuple of expanded letters (``X*`` becomes
            ``X1 X2 …``, counted from the right); ``None`` where the input is not looked at.
        outputs: The same for the outputs.
        sizes: Size of every expanded letter.
        reads: The axes of inputs that are primed, as (input, axis).
    """

    inputs: tuple[tuple[Axis, ...] | None, ...]
    outputs: tuple[tuple[Axis, ...] | None, ...]
    sizes: dict[str, int]
    reads: frozenset[tuple[int, int]]


def is_frozen(letter: str) -> bool:
    """Upper-case letters are frozen."""
    return letter[0].isupper()


def followed(axis: Axis) -> str | None:
    """The lower-case letter of an axis, or ``None`` if the whole axis is frozen."""
    return next((letter for letter in axis if not is_frozen(letter)), None)


@functools.cache
def parse(text: str) -> Signature:
    """Parse a signature.

    Raises:
        SignatureError: With the position of the first mistake.
    """
    left, arrow, right = text.partition("->")
    if not arrow:
        raise SignatureError(text, len(text), "a signature needs '->' between inputs and outputs")
    return Signature(text, _side(text, left, 0), _side(text, right, len(left) + 2))


def _side(text: str, side: str, offset: int) -> tuple[Operand, ...]:
    operands = []
    for part in side.split(","):
        operands.append(_operand(text, part, offset))
        offset += len(part) + 1
    return tuple(operands)


def _operand(text: str, part: str, offset: int) -> Operand:
    if part.strip() == "_":
        return None
    tokens: list[_Token] = []
    composite: list[str] | None = None
    position, opened = 0, 0
    while part[position:].strip():
        match = _TOKEN.match(part, position)
        start = offset + position + len(part[position:]) - len(part[position:].lstrip())
        if match is None:
            raise SignatureError(text, start, "expected a letter, '(' or ')'")
        position = match.end()
        if match["open"]:
            if composite is not None:
                raise SignatureError(text, start, "brackets can't be nested")
            composite, opened = [], start
        elif match["close"]:
            if not composite:
                raise SignatureError(text, start, "')' without letters before it")
            if sum(not is_frozen(letter) for letter in composite) > 1:
                raise SignatureError(text, opened, "a composite follows one lower-case letter")
            tokens.append(_Token(tuple(composite), False, False, opened))
            composite = None
        elif composite is not None:
            if match["star"] or match["prime"]:
                raise SignatureError(text, start, "a star or prime can't stand in brackets")
            composite.append(match["name"])
        else:
            if match["star"] and any(token.star for token in tokens):
                raise SignatureError(text, start, "an operand can have one star")
            primed = bool(match["prime"])
            if primed and (match["star"] or is_frozen(match["name"])):
                raise SignatureError(text, start, "only a single lower-case letter can be primed")
            tokens.append(_Token((match["name"],), bool(match["star"]), primed, start))
    if composite is not None:
        raise SignatureError(text, opened, "'(' is never closed")
    return tuple(tokens)


def bind(
    signature: Signature,
    inputs: Sequence[Shape | None],
    outputs: Sequence[Shape | None],
    sizes: Mapping[str, int] | None = None,
) -> Binding:
    """Lay a signature over the shapes of a node.

    Args:
        signature: What :func:`parse` returned.
        inputs: Shape of each input, ``None`` for one that is absent.
        outputs: Shape of each output, ``None`` for one that is absent.
        sizes: Sizes of letters that can't be read from a plain axis, such as the number of groups.

    Raises:
        SignatureError: A rank or size does not fit.
    """
    if len(inputs) > len(signature.inputs) or len(outputs) > len(signature.outputs):
        raise SignatureError(signature.text, 0, "the node has more operands than the signature")
    known = dict(sizes or {})
    occurrences: list[tuple[_Token, Axis, int]] = []

    def lay(
        operands: tuple[Operand, ...], shapes: Sequence[Shape | None]
    ) -> list[tuple[Axis, ...] | None]:
        laid: list[tuple[Axis, ...] | None] = []
        for operand, shape in zip(operands, shapes, strict=False):
            if operand is None or shape is None:
                laid.append(None)
                continue
            axes = _expand(signature.text, operand, len(shape))
            occurrences.extend(
                (token, axis, size) for (token, axis), size in zip(axes, shape, strict=True)
            )
            laid.append(tuple(axis for _, axis in axes))
        return laid

    laid_inputs, laid_outputs = lay(signature.inputs, inputs), lay(signature.outputs, outputs)
    _solve(signature.text, occurrences, known)
    reads = frozenset(
        (number, axis)
        for number, operand in enumerate(signature.inputs[: len(laid_inputs)])
        if laid_inputs[number] is not None
        for axis, token in enumerate(operand or ())
        if token.reads
    )
    return Binding(tuple(laid_inputs), tuple(laid_outputs), known, reads)


def _expand(text: str, operand: tuple[_Token, ...], rank: int) -> list[tuple[_Token, Axis]]:
    """Replace the star of an operand by as many letters as the rank leaves for it."""
    starred = sum(token.star for token in operand)
    spare = rank - (len(operand) - starred)
    if spare < 0 or (spare > 0 and not starred):
        position = operand[-1].position if operand else 0
        raise SignatureError(text, position, f"a tensor of rank {rank} does not fit this operand")
    axes: list[tuple[_Token, Axis]] = []
    for token in operand:
        if token.star:
            axes += [(token, (f"{token.letters[0]}{k}",)) for k in range(spare, 0, -1)]
        else:
            axes.append((token, token.letters))
    return axes


def _solve(text: str, occurrences: list[tuple[_Token, Axis, int]], known: dict[str, int]) -> None:
    """Find the size of every letter: first from plain axes, then composites by division."""
    for token, axis, size in occurrences:
        if len(axis) == 1:
            letter = axis[0]
            if known.get(letter, 1) not in (1, size) and size != 1:
                raise SignatureError(
                    text, token.position, f"'{letter}' is {known[letter]} elsewhere, {size} here"
                )
            known[letter] = max(known.get(letter, 1), size)
    open_ones = [item for item in occurrences if len(item[1]) > 1 and item[2] != 1]
    for _ in range(len(open_ones) + 1):
        for token, axis, size in open_ones:
            missing = [letter for letter in axis if letter not in known]
            rest = 1
            for letter in axis:
                rest *= known.get(letter, 1)
            if len(missing) == 1 and size % rest == 0:
                known[missing[0]] = size // rest
            elif not missing and rest != size:
                raise SignatureError(text, token.position, f"factors make {rest}, axis is {size}")
    for token, axis, _ in open_ones:
        if any(letter not in known for letter in axis):
            raise SignatureError(text, token.position, "the factors of this axis are not known")
