"""What a convolution or a product of matrices sees for one element of its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.labels import Index

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Window:
    """The input elements under the kernel of a convolution; without a kernel, of a product.

    Attributes:
        axis: The channel axis of input and output.
        kernel: Size on each spatial axis; empty for a product of matrices.
        strides: Step on each spatial axis.
        dilations: Distance of the taps on each spatial axis.
        pads: Zeros before and after, by spatial axis; ``None`` if the output has the size of the
            input over the stride, with the odd zero at the end (``True``) or the beginning.
    """

    axis: int
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] | None = ()
    odd_at_end: bool = True

    @property
    def taps(self) -> int:
        """Elements under the kernel, per channel."""
        return int(np.prod(self.kernel, dtype=np.int64))

    def outputs(self, array: NDArray[Any], index: Index) -> Rows:
        """Rows of an output, (rows, channels).

        Args:
            array: The output, or another tensor of its shape.
            index: Numbers of its elements when the channels are left out.
        """
        rows = np.moveaxis(array, self.axis, -1)
        return np.asarray(rows.reshape(-1, rows.shape[-1])[index], np.float32)

    def inputs(self, array: NDArray[Any], index: Index, shape: tuple[int, ...]) -> Rows:
        """What the same rows are made of, (rows, channels x taps).

        Args:
            array: The input.
            index: As for `outputs`.
            shape: Shape of the output, without its channels.
        """
        if not self.kernel:
            return self.outputs(array, index)
        rows = np.moveaxis(array, 1, -1)
        before = self.padding(rows.shape[1:-1], shape[1:])
        rows = np.pad(rows, ((0, 0), *before, (0, 0)))
        sample, *places = np.unravel_index(index, shape)
        found = np.empty((len(index), rows.shape[-1], self.taps), np.float32)
        for number, tap in enumerate(np.ndindex(*self.kernel)):
            at = [
                place * stride + offset * dilation
                for place, stride, offset, dilation in zip(
                    places, self.strides, tap, self.dilations, strict=True
                )
            ]
            found[:, :, number] = rows[(sample, *at)]
        return found.reshape(len(index), -1)

    def padding(self, size: tuple[int, ...], out: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Zeros before and after on each spatial axis, for these sizes of input and output."""
        if self.pads is not None:
            return self.pads
        result = []
        for number, kernel in enumerate(self.kernel):
            reach = (kernel - 1) * self.dilations[number] + 1
            total = max((out[number] - 1) * self.strides[number] + reach - size[number], 0)
            small, large = total // 2, total - total // 2
            result.append((small, large) if self.odd_at_end else (large, small))
        return tuple(result)


def window_of(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> Window | None:
    """The window of a Conv, Gemm or MatMul; ``None`` for forms that are not supported.

    Args:
        node: The node.
        shapes: Shape of every tensor.
    """
    source, weight = (
        shapes[value.name or ""] if value is not None else () for value in node.inputs[:2]
    )
    rank = len(source)
    if node.op_type in ("Gemm", "MatMul"):
        alpha, beta, flipped = (
            node.attributes[name].value if name in node.attributes else default
            for name, default in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
        )
        return Window(rank - 1) if alpha == beta == 1.0 and not flipped else None
    dims = rank - 2

    def ints(name: str, default: list[int]) -> list[int]:
        attribute = node.attributes.get(name)
        return default if attribute is None else list(attribute.as_ints())

    auto = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    flat = ints("pads", [0] * (2 * dims)) if auto == "NOTSET" else [0] * (2 * dims)
    pads = None if auto.startswith("SAME") else tuple(zip(flat[:dims], flat[dims:], strict=True))
    return Window(
        1,
        weight[2:],
        tuple(ints("strides", [1] * dims)),
        tuple(ints("dilations", [1] * dims)),
        pads,
        auto != "SAME_LOWER",
    )
