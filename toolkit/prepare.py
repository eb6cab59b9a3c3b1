"""From a file to an analysed model, with inputs to try it on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.data import DataSource, open_data
from onnxtrim.bench.data_checks import InputSpec
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.model_file import check_model_file, files_sha256
from onnxtrim.bench.session import model_inputs, random_feeds
from onnxtrim.bench.trial import LimitError, Trial
from onnxtrim.export.model_io import load_model
from onnxtrim.toolkit.graph.analyse import analyse
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.normalise import normalise

Feeds = dict[str, NDArray[Any]]
Calibration = str | os.PathLike[str] | Mapping[str, NDArray[Any]]
Sizes = Mapping[str, int | Sequence[int]]


@dataclass(frozen=True)
class Prepared:
    """A model ready to be pruned.

    Attributes:
        path: The file.
        sha256: Its hash, external data included.
        inputs: What the model expects.
        analysis: Groups and frozen axes.
        feeds: Inputs for the self-check: a real or random sample, and random ones at another
            batch size.
    """

    path: Path
    sha256: str
    inputs: list[InputSpec]
    analysis: Analysis
    feeds: list[Feeds]


def prepare(
    path: str | os.PathLike[str],
    calibration: Calibration | None = None,
    *,
    sizes: Sizes | None = None,
) -> tuple[Prepared, DataSource | None]:
    """Load, normalise and analyse a model.

    Args:
        path: The ONNX file.
        calibration: Data that tell the sizes of free dimensions; random inputs otherwise.
        sizes: Sizes of free dimensions by name, or whole shapes by input name.

    Raises:
        InputError: The file or the data can't be used.
    """
    files = (Path(path), *check_model_file(path))
    sha256 = files_sha256(files)
    with Trial(path, sum(file.stat().st_size for file in files)) as trial:
        inputs = model_inputs(trial.session)
        data = None if calibration is None else open_data(calibration, inputs)
        small, large, feeds = _feeds(trial, inputs, data, sizes)
    model = load_model(path)  # not before ONNX Runtime took it: bad graphs confuse the parser
    pair = [small, large] if _is_free(inputs) else [small]
    # Without a second size, what looks constant may depend on the first; but a model of floats
    # that refuses every other size is as good as fixed.
    floats = all(spec.dtype.kind == "f" for spec in inputs)
    fold = large is not small or floats or not _is_free(inputs)
    normalised = normalise(model, pair, fold_shapes=fold)
    return Prepared(Path(path), sha256, inputs, analyse(normalised), feeds), data


def _is_free(inputs: Sequence[InputSpec]) -> bool:
    return any(not isinstance(size, int) for spec in inputs for size in spec.shape)


def _feeds(
    trial: Trial,
    inputs: Sequence[InputSpec],
    data: DataSource | None,
    sizes: Sizes | None,
) -> tuple[Feeds, Feeds, list[Feeds]]:
    """Inputs at the smallest batch and at other sizes, and those for the self-check."""
    real: Feeds | None = None
    if data is None:
        shapes: Sizes = {
            name: array.shape for name, array in random_feeds(inputs, sizes, count=1)[0].items()
        }
    else:
        batch = next(iter(data.batches(1)), None)
        if batch is None:
            raise InputError(f"{data.name}: holds no samples")
        real = batch.feeds
        shapes = {
            spec.name: batch.feeds[spec.name].shape
            if spec.shape and isinstance(spec.shape[0], int)
            else (1, *batch.feeds[spec.name].shape[1:])
            for spec in inputs
        }
    if real is not None and not _takes(trial, real):
        real = None  # one row of each input is no sample of this model
    try:
        small = _random(trial, inputs, shapes, seed=1)
    except InputError:
        if real is None:
            raise
        small = real  # random numbers mean nothing to the model
    large = _other_sizes(trial, inputs, shapes) or small
    return small, large, [small if real is None else real, large]


def _random(trial: Trial, inputs: Sequence[InputSpec], shapes: Sizes, seed: int) -> Feeds:
    """Random inputs that the model takes; integers are small, 0 or 1, or 0 if they must be.

    Raises:
        InputError: The model takes none of these.
    """
    feeds = random_feeds(inputs, shapes, seed=seed, count=1)[0]
    whole = [name for name, array in feeds.items() if array.dtype.kind != "f"]
    for modulus in (None, 2, 1):
        if modulus is not None:
            feeds |= {name: _modulo(feeds[name], modulus) for name in whole}
        try:
            trial.run(feeds)
        except LimitError:
            raise
        except InputError as error:
            refusal = error
            if not whole:
                break
        else:
            return feeds
    raise refusal


def _takes(trial: Trial, feeds: Feeds) -> bool:
    try:
        trial.run(feeds)
    except LimitError:
        raise
    except InputError:
        return False
    return True


def _modulo(array: NDArray[Any], modulus: int) -> NDArray[Any]:
    return np.asarray(array.astype(np.int64) % modulus).astype(array.dtype)


def _other_sizes(trial: Trial, inputs: Sequence[InputSpec], shapes: Sizes) -> Feeds | None:
    """Inputs with another size in every free dimension: what stays equal may be folded.

    Halved sizes come first because they cost less. A model that takes neither halves nor doubles
    gets only another batch; one that takes no other batch is as good as fixed.
    """
    for factor in (0.5, 2.0, 1.0):
        changed = {spec.name: _changed(inputs, spec, shapes[spec.name], factor) for spec in inputs}
        try:
            return _random(trial, inputs, changed, seed=2)
        except LimitError:
            raise
        except InputError:
            continue
    return None


def _changed(
    inputs: Sequence[InputSpec], spec: InputSpec, shape: int | Sequence[int], factor: float
) -> Sequence[int]:
    """A free batch becomes 3; every other free size is multiplied, 1 becomes 2."""
    batches = {other.shape[0] for other in inputs if other.shape} - {None}
    changed = []
    for axis, size in enumerate([shape] if isinstance(shape, int) else shape):
        need = spec.shape[axis]
        if isinstance(need, int):
            changed.append(size)
        elif axis == 0 or need in batches:
            changed.append(3)
        elif factor == 1:
            changed.append(size)
        else:
            changed.append(round(size * factor) if size > 1 else 2)
    return changed


def first_samples(data: DataSource, count: int) -> Feeds:
    """The first samples of a data source, in one array per input."""
    parts: list[Feeds] = []
    held = 0
    for batch in data.batches(min(count, 256)):
        parts.append(batch.feeds)
        held += len(batch)
        if held >= count:
            break
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
