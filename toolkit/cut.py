"""The pruned form of a model under repair."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxtrim.toolkit.graph.edit import Positions
from onnxtrim.toolkit.graph.execute import Probe, Prober, WeightFile
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.surgery import Keep, cut_initializer, positions_with, remove_units
from onnxtrim.toolkit.repair import Repaired
from onnxtrim.toolkit.states import name_states


class Cut:
    """Follows a model that changes; only weights that changed are cut again.

    Args:
        analysis: The groups.
        keep: For groups that lose units, a mask over their units.
        repaired: The model of full size, which is being repaired.
    """

    def __init__(self, analysis: Analysis, keep: Keep, repaired: Repaired) -> None:
        self._analysis = analysis
        self._keep = keep
        self._repaired = repaired
        self._biases = -1
        self._model: ir.Model
        self._weights: WeightFile
        self._stays: Positions
        self._seen: dict[str, ir.TensorProtocol | None] = {}

    def probe(self, names: Iterable[str]) -> Probe:
        """A session for some tensors of the pruned model as it is now.

        Raises:
            InputError: ONNX Runtime refuses the model.
        """
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
        return Prober(self._model, self._weights).probe(names, optimise=True)
