"""Modules, weights and shapes as they are named on a command line."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxtrim.bench.errors import InputError, MissingExtraError
from onnxtrim.export.model_io import first_line

if TYPE_CHECKING:
    import torch

_SPEC = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
_SHAPE = re.compile(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*")
_SHOWN = 3  # names per kind of mismatch


def load_callable(spec: str) -> torch.nn.Module:
    """Import ``package.module:name``, also from the current folder, and call it.

    Args:
        spec: Names a function or class without arguments that gives an ``nn.Module``, or an
            ``nn.Module`` itself.

    Raises:
        InputError: Not of this form, can't be imported, can't be called, gives something else.
        MissingExtraError: torch is not installed.
    """
    _torch()
    from torch import nn

    match = _SPEC.fullmatch(spec)
    if match is None:
        raise InputError(f"{spec!r} is not of the form package.module:function")
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(importlib.import_module(match[1]), match[2])
    except AttributeError as error:
        raise InputError(f"{spec}: {first_line(error)}") from error
    except Exception as error:  # importing runs foreign code
        raise InputError(f"{spec}: can't be imported ({first_line(error)})") from error
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise InputError(f"{spec}: is {_kind(made)}; name a function that builds an nn.Module")
        try:
            made = made()
        except Exception as error:  # foreign code
            raise InputError(f"{spec}: fails when called ({first_line(error)})") from error
    if not isinstance(made, nn.Module):
        raise InputError(f"{spec}: gives {_kind(made)}; it must give an nn.Module")
    return made


def load_weights(module: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a saved ``state_dict`` into a module; nothing is unpickled.

    Args:
        module: Gets the weights.
        path: What ``torch.save(module.state_dict(), path)`` wrote; the dictionary may also be
            the entry ``state_dict`` of another one.

    Raises:
        InputError: Missing file, pickled objects, not a state dict, or other names or shapes
            than the module's.
        MissingExtraError: torch is not installed.
    """
    _torch()
    state = _read_state(path)
    own = module.state_dict()
    shapes = [
        f"{name} (is {_x(state[name].shape)}, needs {_x(own[name].shape)})"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": shapes,
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {_some(names)}" for kind, names in problems.items() if names)
        raise InputError(f"{path}: does not fit the module, {listed}")
    module.load_state_dict(dict(state))


def parse_shape(text: str) -> tuple[int, ...]:
    """``"1x3x224x224"`` as ``(1, 3, 224, 224)``.

    Raises:
        InputError: Not sizes of 1 or more with ``x`` between them.
    """
    if not _SHAPE.fullmatch(text):
        raise InputError(f"shape {text!r} is not of the form 1x3x224x224")
    return tuple(int(size) for size in text.split("x"))


def random_inputs(shapes: Sequence[tuple[int, ...]], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Seeded normal float32 tensors, one per shape.

    Raises:
        MissingExtraError: torch is not installed.
    """
    torch = _torch()
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


@contextlib.contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each part is in the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("exporting a torch module", "torch") from error
    return torch


def _read_state(path: str | os.PathLike[str]) -> Mapping[str, torch.Tensor]:
    torch = _torch()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats: the result says enough
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error})") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds more than tensors, or is no torch file; objects are never unpickled:"
            " save module.state_dict()"
        ) from error
    except Exception as error:  # the reader raises many types on foreign bytes
        raise InputError(f"{path}: is not a file of torch.save ({first_line(error)})") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if (
        not isinstance(loaded, Mapping)
        or not loaded
        or not all(isinstance(value, torch.Tensor) for value in loaded.values())
    ):
        raise InputError(f"{path}: is not a state dict; save module.state_dict()")
    return loaded


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
