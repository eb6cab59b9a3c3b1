"""How big a model is: exact figures from the file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

from onnxtrim.bench.model_file import (
    check_model_file,
    external_files,
    has_onnx,
    read_model_proto,
    stored_bytes,
    tensors,
)
from onnxtrim.bench.results import Metric, Metrics


class ModelSize(NamedTuple):
    """The size of a model.

    Attributes:
        file_bytes: The file and its external data files.
        initializer_bytes: Raw bytes of all stored tensors, ``Constant`` nodes included;
            ``None`` where the package onnx is not there to tell.
        parameters: Elements of the stored tensors of a floating type with at least one dimension
            (so neither shapes nor indices nor scalar constants); quantised ones count too;
            likewise.
    """

    file_bytes: int
    initializer_bytes: int | None
    parameters: int | None


def model_size(path: str | os.PathLike[str]) -> ModelSize:
    """Measure a model file; external data is not loaded.

    Raises:
        InputError: Not a model, or unsafe external data (see ``check_model_file``).
    """
    if not has_onnx():
        check_model_file(path)
        return ModelSize(Path(path).stat().st_size, None, None)
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
    metrics: Metrics = {}
    for name in ("file_bytes", "initializer_bytes"):
        value = getattr(size, name)
        if value is None:
            continue
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
