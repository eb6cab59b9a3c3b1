"""How big a model is: exact figures from the file."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from onnxtrim.bench.model_file import external_files, read_model_proto, stored_bytes, tensors
from onnxtrim.bench.results import Metric, Metrics


class ModelSize(NamedTuple):
    """The size of a model.

    Attributes:
        file_bytes: The file and its external data files.
        initializer_bytes: Raw bytes of all stored tensors, ``Constant`` nodes included.
        parameters: Elements of the stored tensors of a floating type with at least one dimension
            (so neither shapes nor indices nor scalar constants); quantised ones count too.
    """

    file_bytes: int
    initializer_bytes: int
    parameters: int


def model_size(path: str | os.PathLike[str]) -> ModelSize:
    """Measure a model file; external data is not loaded.

    Raises:
        InputError: Not a model, or unsafe external data (see ``check_model_file``).
    """
    model = read_model_proto(path)
    files = [Path(path), *external_files(path, model)]
    initializer_bytes = parameters = 0
    for tensor in tensors(model):
        elements = math.prod(tensor.dims)
        initializer_bytes += stored_bytes(tensor)
        if tensor.dims and tensor.data_type not in _not_parameters():
            parameters += elements
    return ModelSize(sum(file.stat().st_size for file in files), initializer_bytes, parameters)


def size_metrics(size: ModelSize, original: ModelSize | None = None) -> Metrics:
    """``model.*`` metrics of a model, or of a candidate beside its original."""
    return _metrics(size, original, ("file_bytes", "initializer_bytes"))


def file_metrics(models: Sequence[str | os.PathLike[str]]) -> Metrics:
    """``model.file_bytes`` of ``[model]`` or ``[candidate, original]`` that are one file each.

    For devices without the package onnx, which would tell more.
    """
    sizes = [ModelSize(Path(model).stat().st_size, 0, 0) for model in models]
    return _metrics(sizes[0], sizes[1] if len(sizes) > 1 else None, ("file_bytes",))


def _metrics(size: ModelSize, original: ModelSize | None, names: Sequence[str]) -> Metrics:
    metrics: Metrics = {}
    for name in names:
        value = getattr(size, name)
        metrics[f"model.{name}"] = Metric.exact(value, "bytes")
        if original is not None:
            before = getattr(original, name)
            metrics[f"model.{name}.original"] = Metric.exact(before, "bytes")
            if before:
                metrics[f"model.{name}.ratio"] = Metric.exact(value / before, "ratio")
    return metrics


def _not_parameters() -> set[int]:
    """Types that hold shapes, indices, masks and text."""
    from onnx import TensorProto

    return {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING}
