"""Train a pruned torch module to give what the original gives, on samples without labels.

1. Some samples are held back, or validation data are given: the student is judged on them.
2. Adam (Kingma & Ba 2015) on the loss of :mod:`.distill_loss`. The learning rate rises over the
   first tenth of the run and falls to 0 as a cosine (Loshchilov & Hutter 2017).
3. After each pass the student is judged again. The best state is kept; the first one counts, so
   that the result is never worse than what came in.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxtrim.bench.data import open_data
from onnxtrim.bench.data_checks import InputSpec
from onnxtrim.bench.errors import InputError, MissingExtraError
from onnxtrim.bench.files import check_target
from onnxtrim.export.from_torch import ExportReport, export_module
from onnxtrim.export.model_io import load_model, save_model
from onnxtrim.export.modules import evaluating
from onnxtrim.toolkit.distill_checkpoint import state_sha256
from onnxtrim.toolkit.distill_data import Samples
from onnxtrim.toolkit.distill_run import Epoch, Options, Run
from onnxtrim.toolkit.prepare import Calibration
from onnxtrim.toolkit.statistics import Progress

if TYPE_CHECKING:
    import torch

__all__ = ["Distilled", "Epoch", "Options", "distill"]


@dataclass(frozen=True)
class Distilled:
    """A trained module.

    Attributes:
        module: The module, with the best state.
        history: Every pass, the state before the first included.
        kept: The epoch whose state was kept; 0 if no pass made it better.
        warnings: What the user should know.
        samples: Samples of a pass, those held back included.
        data_sha256: Their hash.
        validation_sha256: That of the validation data; empty if some were held back.
        seconds: What training took, without what a checkpoint took over.
        inputs: What the model expects, in the order of ``forward``.
        examples: A tensor for each input.
        output_names: For the export; ``None`` takes its default.
        metadata: Written into the exported file.
    """

    module: torch.nn.Module = field(repr=False)
    history: tuple[Epoch, ...]
    kept: int
    warnings: tuple[str, ...]
    samples: int
    data_sha256: str
    validation_sha256: str
    seconds: float
    inputs: tuple[InputSpec, ...] = field(repr=False)
    examples: tuple[torch.Tensor, ...] = field(repr=False)
    output_names: tuple[str, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)

    def export(self, path: str | os.PathLike[str], *, opset: int | None = None) -> ExportReport:
        """Write the module as an ONNX file after comparing the two.

        Args:
            path: The ``.onnx`` file to make or replace.
            opset: Version of ONNX's operator set; default: torch's choice.

        Raises:
            InputError: It can't be written there.
            WorkError: torch can't export it, or the file does not compute the same.
        """
        check_target(path)
        target = Path(path)
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / target.name
            report = export_module(
                self.module,
                self.examples,
                made,
                input_names=[spec.name for spec in self.inputs],
                output_names=self.output_names,
                dynamic_batch=_fixed_batch(self.inputs) is None,
                opset=opset,
            )
            model = load_model(made)
            model.metadata_props.update(self.metadata)
            save_model(model, target)
        return replace(report, path=target)

    def to_json(self) -> dict[str, Any]:
        """The numbers, without the module."""
        return {
            "history": [epoch.to_json() for epoch in self.history],
            "kept": self.kept,
            "samples": self.samples,
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
        }


def distill(
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    data: Calibration,
    inputs: Sequence[InputSpec],
    *,
    validation: Calibration | None = None,
    options: Options | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Distilled:
    """Train a module to give what another gives.

    Memory does not grow with the number of samples: the teacher runs batch by batch, and the order
    is random within a window. The student runs in evaluation mode (no dropout), but for batch
    normalisation, whose statistics follow from batches of 8 samples on; parameters that need no
    gradient stay as they are, and so do the statistics beside them.

    Args:
        student: What is trained, in place; also after an interruption it has its best state.
        teacher: Gives outputs of the same shapes; it stays as it is.
        data: Samples, labelled or not: arrays by input name, an ``.npz`` file, a folder of such
            files, or ``"package.module:function"``.
        inputs: What both take, in the order of ``forward``.
        validation: Samples to judge on; without, a tenth of ``data`` is held back.
        options: How it is trained.
        checkpoint: A file that is written after each pass and each minute, and from which the same
            run goes on. Its entry ``state_dict`` is the best state so far.
        progress: Called with a word, the samples done and their number.

    Raises:
        InputError: The data or an option can't be used, or the checkpoint is another run's.
        MissingExtraError: torch is not installed.
    """
    _require_torch()
    options = options or Options()
    options.check()
    _check_student(student)
    if checkpoint is not None:
        check_target(checkpoint)
    source = open_data(data, inputs)
    judged_on = None if validation is None else open_data(validation, inputs)
    identity = {
        "student": state_sha256(student),
        "original": state_sha256(teacher),
        "data": source.sha256,
        "validation data": None if judged_on is None else judged_on.sha256,
        **asdict(options),
    }
    if judged_on is not None and judged_on.sha256 == source.sha256:
        raise InputError(f"{judged_on.name}: these samples are trained on; give others to judge on")
    count = source.samples  # known after the hash
    assert count is not None
    batch = _fixed_batch(inputs) or options.batch
    samples = Samples(source, judged_on, count, batch, options.seed)
    samples.require_judged()
    run = Run(student, teacher, samples, options, checkpoint, identity, progress)
    with evaluating(student), evaluating(teacher):
        run.train()
    first = next(source.batches(_fixed_batch(inputs) or 2))
    return Distilled(
        student,
        tuple(run.history),
        run.kept,
        tuple(run.warnings),
        count,
        source.sha256,
        "" if judged_on is None else judged_on.sha256,
        run.seconds,
        tuple(inputs),
        run.tensors(first),
    )


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("distillation", "torch") from error


def _check_student(student: torch.nn.Module) -> None:
    import torch

    trained = [p for p in student.parameters() if p.requires_grad]
    if not trained:
        raise InputError("the module has no parameter that needs a gradient; nothing to train")
    if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in trained):
        raise InputError("the module is of half precision; train it in float32: module.float()")


def _fixed_batch(inputs: Sequence[InputSpec]) -> int | None:
    sizes = (spec.shape[0] for spec in inputs if spec.shape)
    return next((size for size in sizes if isinstance(size, int)), None)
