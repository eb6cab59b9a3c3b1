"""Checkpoints of a distillation: written whole, never unpickled, resumed only by the same run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import atomic_path
from onnxtrim.export.model_io import first_line

if TYPE_CHECKING:
    import torch

SCHEMA = "onnxtrim.distillation/1"

State = dict[str, Any]
"""Tensors, numbers and texts, nested; ``"state_dict"`` is the best state so far."""


def save_checkpoint(
    path: str | os.PathLike[str], identity: Mapping[str, Any], state: State
) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        InputError: A file can't be written there.
    """
    import torch

    with atomic_path(path) as temporary:
        torch.save({"schema": SCHEMA, "identity": json.dumps(identity), **state}, temporary)


def load_checkpoint(path: str | os.PathLike[str], identity: Mapping[str, Any]) -> State | None:
    """Read the checkpoint of the same run; ``None`` if there is no file.

    Args:
        path: The file.
        identity: What must be the same: hashes and options by name.

    Raises:
        InputError: It is no checkpoint, or that of another run.
    """
    import torch

    if not Path(path).exists():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error})") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: is no checkpoint of a distillation") from error
    except Exception as error:  # the reader raises many types on foreign bytes
        raise InputError(
            f"{path}: is no checkpoint of a distillation ({first_line(error)})"
        ) from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(f"{path}: is no checkpoint of a distillation")
    made = json.loads(found["identity"])
    for name, value in identity.items():
        if made.get(name) != value:
            raise InputError(
                f"{path}: belongs to a run with another {name}"
                f"{_difference(made.get(name), value)}; choose another file, or delete it"
            )
    return found


def state_sha256(module: torch.nn.Module) -> str:
    """A hash of a module's parameters and buffers, with their names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name}\n{tensor.dtype}\n{tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _difference(old: object, new: object) -> str:
    """Numbers are told, hashes are not."""
    told = all(isinstance(value, int | float) for value in (old, new))
    return f" ({old}, not {new})" if told else ""
