"""The pruned form of a model under repair, and its tensors on the calibration inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.execute import Feeds, Prober, WeightFile
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.surgery import Keep, cut_initializer, positions_with, remove_units
from onnxtrim.toolkit.repair import Repaired
from onnxtrim.toolkit.states import name_states

KEPT_BYTES = 2**30
"""Of tensors that won't change any more and from which later runs start."""

Batches = list[NDArray[Any]]


class Cut:
    """Follows a model that changes; only weights that changed are cut again.

    Args:
        analysis: The groups.
        keep: For groups that lose units, a mask over their units.
        repaired: The model of full size, which is being repaired.
        batches: Calibration inputs.
    """

    def __init__(
        self, analysis: Analysis, keep: Keep, repaired: Repaired, batches: Sequence[Feeds]
    ) -> None:
        self._analysis = analysis
        self._keep = keep
        self._repaired = repaired
        self._batches = batches
        self._kept: dict[str, Batches] = {}  # the oldest at the front
        self._biases = -1
        self._model: ir.Model
        self._weights: WeightFile
        self._stays: Positions
        self._seen: dict[str, ir.TensorProtocol | None] = {}

    def tensors(self, final: Sequence[str], changing: Sequence[str] = ()) -> Iterator[Feeds]:
        """Tensors of the pruned model as it is now, for one batch after another.

        Args:
            final: Tensors that depend on nothing that will be fitted; later calls start there.
            changing: Other tensors.

        Raises:
            InputError: ONNX Runtime refuses the model.
        """
        self._refresh()
        inputs = self._batches[0]
        inner = [name for name in dict.fromkeys((*final, *changing)) if name not in inputs]
        wanted = [name for name in inner if name not in self._kept]
        given = {name: arrays[0].dtype for name, arrays in self._kept.items()}
        probe = Prober(self._model, self._weights).probe(wanted, optimise=True, given=given)
        found: dict[str, Batches] = {name: [] for name in wanted if name in final}
        for number, feeds in enumerate(self._batches):
            known = {name: arrays[number] for name, arrays in self._kept.items()}
            now = probe.run({**feeds, **known})
            for name in list(found):
                found[name].append(now[name])
                if sum(array.nbytes for array in found[name]) > KEPT_BYTES:
                    del found[name]
            yield {**feeds, **known, **now}
        self._keep_some(found)

    def _keep_some(self, found: dict[str, Batches]) -> None:
        """Keep the newest tensors that fit into memory."""
        kept: dict[str, Batches] = {}
        size = 0
        for name, arrays in reversed((self._kept | found).items()):
            size += sum(array.nbytes for array in arrays)
            if size > KEPT_BYTES:
                break
            kept[name] = arrays
        self._kept = dict(reversed(kept.items()))

    def _refresh(self) -> None:
        """Cut what changed since the last time."""
        now = {
            name: value.const_value
            for name, value in self._repaired.model.graph.initializers.items()
        }
        biases = self._repaired.new_biases
        if len(biases) != self._biases:  # a new bias is a change of the graph
            self._model = remove_units(self._repaired.model, self._analysis, self._keep, biases)
            name_states(self._model)
            self._stays = positions_with(self._analysis, self._keep, biases)
            self._weights = WeightFile()
            self._biases = len(biases)
        else:
            initializers = self._model.graph.initializers
            for name, tensor in now.items():
                if tensor is not self._seen[name] and name in initializers:
                    initializers[name].const_value = tensor
                    cut_initializer(initializers[name], self._stays)
        self._seen = now
