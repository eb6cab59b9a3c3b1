"""Questions and answers out of the docstrings of Python's standard library, as BERT's tokens."""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHORTEST = (20, 60)  # characters of a question, of an answer
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
WORD = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")  # of ASCII text, where BERT splits it


@dataclass(frozen=True)
class Pair:
    """A docstring in two parts.

    Attributes:
        module: File that it is in, from the library's folder on.
        question: Its first sentence.
        answer: The rest.
    """

    module: str
    question: str
    answer: str


def pairs() -> list[Pair]:
    """All docstrings that have both parts, no part twice, in an order that looks random."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: list[Pair] = []
    known: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root)
        if {"site-packages", "dist-packages", "test", "tests"} & set(module.parts):
            continue
        for text in _docstrings(path):
            first, *rest = SENTENCE.split(text, maxsplit=1)
            both = [" ".join(part.split()) for part in (first, *rest)]
            if len(both) < 2 or any(len(t) < n for t, n in zip(both, SHORTEST, strict=True)):
                continue
            if text.isascii() and not known & set(both):
                known.update(both)
                found.append(Pair(str(module), *both))
    return sorted(found, key=lambda pair: hashlib.sha256(pair.question.encode()).digest())


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # templates, and files for other versions of Python
        return
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED):
            yield ast.get_docstring(node) or ""


def tokens(
    texts: Sequence[str], vocabulary: Sequence[str], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """WordPiece of uncased BERT (Devlin et al. 2019) for ASCII texts.

    Returns:
        Tokens and mask, both (texts, width): ``[CLS]``, as many pieces as fit, ``[SEP]``, padding.
    """
    index = {piece: number for number, piece in enumerate(vocabulary)}
    ids = np.full((len(texts), width), index["[PAD]"], np.int64)
    for row, text in zip(ids, texts, strict=True):
        pieces = [piece for word in WORD.findall(text.lower()) for piece in _pieces(word, index)]
        used = [index["[CLS]"], *pieces[: width - 2], index["[SEP]"]]
        row[: len(used)] = used
    return ids, (ids != index["[PAD]"]).astype(np.int64)


def _pieces(word: str, index: dict[str, int]) -> list[int]:
    """The longest piece that fits, again and again."""
    found: list[int] = []
    start = 0
    while start < len(word):
        ends = range(len(word), start, -1)
        names = (("##" if start else "") + word[start:end] for end in ends)
        piece = next((name for name in names if name in index), None)
        if piece is None or len(word) > 100:
            return [index["[UNK]"]]
        found.append(index[piece])
        start += len(piece) - (2 if start else 0)
    return found
