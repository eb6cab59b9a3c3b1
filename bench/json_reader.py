"""Read JSON objects that others wrote, with the place in every message."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from onnxtrim.bench.errors import InputError

_REQUIRED = object()


class JsonReader:
    """A JSON object that knows where it stands.

    Args:
        value: What was parsed.
        where: File and line or key, the start of every message.

    Raises:
        InputError: ``value`` is not an object.
    """

    def __init__(self, value: Any, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            self.fail("is not a JSON object")
        self.value = value

    def fail(self, what: str) -> NoReturn:
        """Raise the :class:`InputError` that says what is wrong here."""
        raise InputError(f"{self.where} {what}; it was not written by this version of onnxtrim")

    def get(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        """The value under ``key``, of type ``kind``; null or absent gives ``default``.

        ``float`` takes whole numbers too; infinite numbers are refused.
        """
        value = self.value.get(key)
        if value is None:
            if default is _REQUIRED:
                self.fail(f"has no {key!r}")
            return default
        if kind is float:
            return self._number(key, value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fail(f"has a {key!r} that is not a {kind.__name__}")
        return value

    def _number(self, key: str, value: Any) -> float:
        try:
            number = float(value) if isinstance(value, (int, float)) else math.nan
        except OverflowError:
            number = math.inf
        if isinstance(value, bool) or not math.isfinite(number):
            self.fail(f"has a {key!r} that is not a finite number")
        return number


def parse_line(line: bytes) -> Any:
    """Parse one line of a ``.jsonl`` file; NaN and infinity are refused.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
