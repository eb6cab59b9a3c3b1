"""Apply a plan: repair, cut and check, stage by stage."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxtrim.bench.data import DataSource
from onnxtrim.bench.errors import WorkError
from onnxtrim.bench.size import model_size
from onnxtrim.export.model_io import save_model
from onnxtrim.toolkit.divergence import divergence_of, first_batches
from onnxtrim.toolkit.graph.analyse import analyse
from onnxtrim.toolkit.graph.execute import forget_pages
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.normalise import remeasure
from onnxtrim.toolkit.graph.selfcheck import SelfCheck, self_check
from onnxtrim.toolkit.graph.surgery import (
    Keep,
    count_parameters,
    parameters_after,
    positions,
    remove_units,
    share_again,
)
from onnxtrim.toolkit.kept import Kept, kept_after
from onnxtrim.toolkit.plan import Plan, first_analysis
from onnxtrim.toolkit.prepare import Calibration, Feeds, Prepared
from onnxtrim.toolkit.repair import Repair, Repaired

if TYPE_CHECKING:
    import torch

    from onnxtrim.toolkit.distill import Distilled, Options
    from onnxtrim.toolkit.statistics import Progress

DIVERGENCE_SAMPLES, DIVERGENCE_BATCH = 256, 64
ALARM = 0.5  # of the variance of the outputs, or of their largest element
LOST = "on the calibration data the outputs are no numbers any more, or of another shape"


@dataclass(frozen=True)
class Change:
    """A number of the original and of the pruned model."""

    before: int
    after: int

    @property
    def removed(self) -> float:
        """Share that was removed."""
        return 1 - self.after / self.before if self.before else 0.0

    def to_json(self) -> dict[str, int]:
        """The form in which it stands in results."""
        return {"before": self.before, "after": self.after}


@dataclass(frozen=True)
class TrimResult:
    """A pruned model that was shown to compute the same as the masked original.

    Attributes:
        model: The pruned model.
        plan: What was removed.
        source: File of the original.
        parameters: Elements of float initializers.
        bytes: Bytes of all initializers.
        macs: Multiply-accumulates at batch 1.
        groups: Number of units by group.
        self_check: What the self-check saw.
        divergence: Squared difference of the outputs over the variance of the original's, on the
            first calibration samples; ``None`` without data, or where outputs overflow.
        warnings: What the user should know.
        prepared: The analysed original.
        kept: Which positions of its tensors are left.
    """

    model: ir.Model = field(repr=False)
    plan: Plan = field(repr=False)
    source: Path
    parameters: Change
    bytes: Change
    macs: Change
    groups: Mapping[str, Change]
    self_check: SelfCheck
    divergence: float | None
    warnings: tuple[str, ...]
    prepared: Prepared = field(repr=False)
    kept: Kept = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model after checking it with onnx and ONNX Runtime, whole or not at all.

        Raises:
            InputError: The path is the original's, or can't be written.
            WorkError: The written file is refused; nothing is left behind.
        """
        save_model(self.model, path, source=self.source)

    def to_torch(
        self, module: torch.nn.Module, example_inputs: Sequence[torch.Tensor] | None = None
    ) -> torch.nn.Module:
        """The same pruning in the torch module, to fine-tune it; see :mod:`.torch_bridge`.

        Args:
            module: What was exported; it stays as it is.
            example_inputs: Inputs on which both are compared; the self-check's otherwise.

        Raises:
            InputError: The module can't be that small, or its own code hard-codes sizes.
            MissingExtraError: torch is not installed.
        """
        from onnxtrim.toolkit.torch_bridge import write_back

        return write_back(self, module, example_inputs)

    def distill(
        self,
        module: torch.nn.Module,
        data: Calibration,
        *,
        validation: Calibration | None = None,
        example_inputs: Sequence[torch.Tensor] | None = None,
        options: Options | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Distilled:
        """The same pruning in the torch module, trained to give what the module gave.

        Args:
            module: What was exported; it stays as it is, and is the teacher.
            data: Samples, labelled or not; see :func:`.distill.distill`, also for the others.
            validation: Samples to judge on; without, a tenth of ``data`` is held back.
            example_inputs: Inputs on which module and pruned model are compared before.
            options: Epochs, batch, learning rate and the like.
            checkpoint: A file from which the same run goes on.
            progress: Called with a word, the samples done and their number.

        Raises:
            InputError: The module can't be that small, or data, options or checkpoint don't fit.
            MissingExtraError: torch is not installed.
        """
        from onnxtrim.toolkit.distill import distill

        trained = distill(
            self.to_torch(module, example_inputs),
            module,
            data,
            self.prepared.inputs,
            validation=validation,
            options=options,
            checkpoint=checkpoint,
            progress=progress,
        )
        about = {k: v for k, v in self.model.metadata_props.items() if k.startswith("onnxtrim.")}
        _add_hashes(about, "distillation", [trained.data_sha256])
        _add_hashes(about, "validation", [trained.validation_sha256])
        return replace(
            trained,
            output_names=tuple(str(value.name) for value in self.model.graph.outputs),
            metadata=about,
        )

    def summary(self) -> str:
        """Two lines for people."""
        widths = ", ".join(f"{name} {c.before}→{c.after}" for name, c in self.groups.items())
        return (
            f"{self.parameters.before:,} → {self.parameters.after:,} parameters"
            f" ({self.parameters.removed:.1%} removed),"
            f" {self.macs.before:,} → {self.macs.after:,} MACs\n{widths}"
        )

    def to_json(self) -> dict[str, Any]:
        """The numbers, without the model."""
        return {
            "parameters": self.parameters.to_json(),
            "bytes": self.bytes.to_json(),
            "macs": self.macs.to_json(),
            "removed": self.parameters.removed,
            "groups": [{"name": name, **c.to_json()} for name, c in self.groups.items()],
            "self_check": self.self_check.to_json(),
            "predicted_error": self.plan.criterion.get("predicted_divergence"),
            "divergence": self.divergence,
            "warnings": list(self.warnings),
        }


def apply_plan(
    prepared: Prepared,
    plan: Plan,
    repair: Repair | None = None,
    data: DataSource | None = None,
    *,
    deep: bool = True,
) -> TrimResult:
    """Repair, cut and check, stage by stage.

    Args:
        prepared: The analysed model.
        plan: What leaves; an empty plan gives the normalised model.
        repair: Makes the consumers do without what leaves; ``None`` leaves them as they are.
        data: Calibration data, to measure the divergence of the outputs.
        deep: Let the self-check compare every inner tensor, not only the outputs.

    Raises:
        InputError: The plan does not fit the model.
        SelfCheckError: The pruned model is not the masked original.
        WorkError: Surgery and plan disagree on the number of parameters.
    """
    original = prepared.analysis
    analysis = first_analysis(original, plan.stages[0]) if plan.stages else original
    cut = _Cut(original.model.clone(), SelfCheck(0.0, 0.0, 0), ())
    if not plan.stages:
        share_again(cut.model, original.normalised.copies)
    kept: Kept = {}
    for number, stage in enumerate(plan.stages):
        if number:
            analysis = analyse(remeasure(analysis.normalised, cut.model), stage.choices)
        keep = stage.keep(analysis, "the plan")
        is_last = number == len(plan.stages) - 1
        cut = _cut(analysis, keep, repair, prepared.feeds, cut, deep=deep, share=is_last)
        stays = positions(analysis, keep)
        kept = kept_after(kept, stays)
        if repair is not None:
            repair = repair.cut(stays)
    used = [plan.data_sha256, *([data.sha256] if data is not None and repair is not None else [])]
    groups = {group.name: Change(group.units, group.units) for group in original.groups}
    groups |= {
        removal.group: Change(removal.units, removal.units - len(removal.remove))
        for removal in plan.removals
    }
    _describe(cut.model, prepared, plan, used)
    moved = None if data is None else calibration_divergence(prepared, cut.model, data)
    lost = moved is not None and not math.isfinite(moved)
    alarm = [LOST] if lost else _alarm(cut.check.effect if moved is None else moved)
    macs = analyse(remeasure(original.normalised, cut.model), {}).macs if plan.stages else None
    return TrimResult(
        cut.model,
        plan,
        prepared.path,
        Change(original.parameters, count_parameters(cut.model)),
        Change(_bytes_before(prepared), _initializer_bytes(cut.model)),
        Change(original.macs, original.macs if macs is None else macs),
        groups,
        cut.check,
        None if lost else moved,
        (*plan.warnings, *(f"not repaired: {text}" for text in cut.skipped), *alarm),
        prepared,
        kept,
    )


def _alarm(effect: float) -> list[str]:
    """A warning of models that compute something else, by their divergence if it is known."""
    if effect <= ALARM:
        return []
    return [
        f"the removal moves the outputs by {effect:.0%}: the model computes something else;"
        " look at 'onnxtrim compare --eval' before you use it, or remove less"
    ]


@dataclass(frozen=True)
class _Cut:
    """A model after some stages, with what the self-checks saw and what could not be repaired."""

    model: ir.Model
    check: SelfCheck
    skipped: tuple[str, ...]


def _cut(
    analysis: Analysis,
    keep: Keep,
    repair: Repair | None,
    feeds: list[Feeds],
    before: _Cut,
    *,
    deep: bool,
    share: bool,
) -> _Cut:
    """One stage: repair the consumers, take the units out, check."""
    repaired = Repaired(analysis.model) if repair is None else repair(analysis, keep)
    pruned = remove_units(repaired.model, analysis, keep, repaired.new_biases)
    expected = parameters_after(analysis, keep, repaired.new_biases)
    found = count_parameters(pruned)
    if expected != found:
        raise WorkError(f"surgery left {found} parameters where the plan says {expected}")
    if share:
        share_again(pruned, analysis.normalised.copies)
    forget_pages(repaired.model)
    check = self_check(repaired.model, pruned, analysis, keep, feeds, deep=deep)
    forget_pages(repaired.model)
    forget_pages(pruned)
    return _Cut(pruned, check.joined(before.check), (*before.skipped, *repaired.skipped))


def _describe(model: ir.Model, prepared: Prepared, plan: Plan, used: Sequence[str]) -> None:
    """Note in the model where it comes from; `compare` warns of data that it was made with."""
    from onnxtrim import __version__

    budget = plan.criterion.get("budget", {})
    validated = [budget["validation_sha256"]] if "validation_sha256" in budget else []
    model.metadata_props.update(
        {
            "onnxtrim.version": __version__,
            "onnxtrim.original_sha256": prepared.sha256,
            "onnxtrim.plan_sha256": plan.kept_hash(),
        }
    )
    for purpose, hashes in (("calibration", used), ("validation", validated)):
        _add_hashes(model.metadata_props, purpose, hashes)


def _add_hashes(about: MutableMapping[str, str], purpose: str, hashes: Sequence[str]) -> None:
    """Add hashes of data to those that the model was made with before."""
    key = f"onnxtrim.{purpose}_sha256"
    known = [*about.get(key, "").split("+"), *(one for h in hashes for one in h.split("+"))]
    found = "+".join(dict.fromkeys(one for one in known if one))
    if found:
        about[key] = found


def _bytes_before(prepared: Prepared) -> int:
    """Bytes of the file's initializers, or of what its Constant nodes hold and make."""
    stored = model_size(prepared.path).initializer_bytes
    normalised = prepared.analysis.normalised
    copies = sum(
        value.const_value.nbytes
        for name in normalised.copies
        if (value := normalised.model.graph.initializers[name]).const_value is not None
    )
    made = _initializer_bytes(normalised.model) - copies
    return stored if 2 * stored > made else made


def _initializer_bytes(model: ir.Model) -> int:
    return sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )


def calibration_divergence(prepared: Prepared, pruned: ir.Model, data: DataSource) -> float | None:
    """The divergence on the first calibration samples, see :func:`.divergence_of`."""
    batches = first_batches(data, DIVERGENCE_SAMPLES, DIVERGENCE_BATCH)
    return divergence_of(prepared.analysis.model, pruned, batches)
