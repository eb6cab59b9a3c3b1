"""The exceptions of onnxtrim; each knows the exit code of the command that meets it.

::

    OnnxtrimError                 4
    ├── InputError                2   bad usage, file, data or option
    │   └── MissingExtraError     2   an optional dependency is not installed
    ├── NothingToRemoveError      1   the answer is no
    └── WorkError                 4   the work itself broke
        ├── SelfCheckError        4   the pruned model is not the masked original
        └── WorkerError           4   a measuring process died

A message is one line: what is wrong, where, and what to do.
"""

from __future__ import annotations


class OnnxtrimError(Exception):
    """Base of all errors that onnxtrim raises on purpose."""

    exit_code = 4


class InputError(OnnxtrimError):
    """What the user gave can't be used; nothing was written."""

    exit_code = 2


class MissingExtraError(InputError):
    """A feature needs packages of an extra that is not installed.

    Args:
        feature: What was asked for, as the subject of a sentence.
        extra: Name of the extra in ``pip install 'onnxtrim[extra]'``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional package: pip install 'onnxtrim[{extra}]'")
        self.extra = extra


class NothingToRemoveError(OnnxtrimError):
    """Nothing can be removed; the message gives the reasons."""

    exit_code = 1


class WorkError(OnnxtrimError):
    """The work itself broke, though the input was right."""


class SelfCheckError(WorkError):
    """The pruned model does not compute the same as the original with the units masked."""


class WorkerError(WorkError):
    """A measuring process died or answered nonsense.

    Attributes:
        finished: What was measured before, if that is of use; its type is the raiser's.
    """

    finished: object = None
