"""Text for terminals."""

from __future__ import annotations


def one_line(text: str) -> str:
    """One line; names out of a file may hold anything, also what controls a terminal."""
    text = " ".join(text.split())
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
