"""The torch zoo: small nets, written as users write them, by name."""

from __future__ import annotations

from tests import (
    torch_zoo_attention,
    torch_zoo_axes,
    torch_zoo_conv,
    torch_zoo_image,
    torch_zoo_language,
    torch_zoo_mobile,
    torch_zoo_sequence,
    torch_zoo_swin,
    torch_zoo_yolo,
)
from tests.torch_zoo_base import TorchNet

__all__ = ["TORCH_ZOO", "TorchNet"]

TORCH_ZOO: dict[str, TorchNet] = {
    **torch_zoo_axes.NETS,
    **torch_zoo_conv.NETS,
    **torch_zoo_mobile.NETS,
    **torch_zoo_image.NETS,
    **torch_zoo_yolo.NETS,
    **torch_zoo_attention.NETS,
    **torch_zoo_swin.NETS,
    **torch_zoo_language.NETS,
    **torch_zoo_sequence.NETS,
}
