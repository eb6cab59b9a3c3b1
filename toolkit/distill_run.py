"""One run of distillation: its options, its passes, and the state that a checkpoint holds."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxtrim.bench.batches import Batch
from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.distill_checkpoint import load_checkpoint, save_checkpoint
from onnxtrim.toolkit.distill_data import Samples
from onnxtrim.toolkit.distill_loss import (
    Judgement,
    Loss,
    Output,
    Outputs,
    float_outputs,
    judge,
    look_at,
)
from onnxtrim.toolkit.statistics import Progress

if TYPE_CHECKING:
    import torch

WARM_UP = 0.1
"""Share of the run in which the learning rate rises."""

NORMALISED = 8
"""Samples of a batch from which its own statistics normalise it, where there is BatchNorm."""

CHECKPOINT_SECONDS = 60.0
"""Between two checkpoints within a pass: so much work is lost at most."""


@dataclass(frozen=True)
class Options:
    """How a module is trained.

    Attributes:
        epochs: Passes over the data.
        batch: Samples per step; a model with a fixed batch size takes that.
        learning_rate: The largest.
        labels: Share of the cross-entropy in the loss if the data have labels, between 0 and 1.
        patience: Passes without improvement after which training stops.
        seed: Of the order of the samples.
    """

    epochs: int = 2
    batch: int = 64
    learning_rate: float = 3e-3
    labels: float = 0.5
    patience: int = 3
    seed: int = 0

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            InputError: One is out of its range.
        """
        for name in ("epochs", "batch", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; give a number above 0")
        if not 0 <= self.labels <= 1:
            raise InputError(f"labels is {self.labels}; give a share between 0 and 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give 0 or more")


@dataclass(frozen=True)
class Epoch:
    """One pass over the data.

    Attributes:
        epoch: Its number; 0 is the module that came in.
        loss: Mean of the training loss; ``None`` for epoch 0.
        validation: How the student was judged afterwards.
    """

    epoch: int
    loss: float | None
    validation: Judgement

    def to_json(self) -> dict[str, Any]:
        """The form in which it stands in results."""
        return {
            "epoch": self.epoch,
            "loss": self.loss,
            "validation": self.validation.to_json(),
        }


class Run:
    """The state of a run; all of it is in a checkpoint."""

    def __init__(
        self,
        student: torch.nn.Module,
        teacher: torch.nn.Module,
        samples: Samples,
        options: Options,
        checkpoint: str | os.PathLike[str] | None,
        identity: Mapping[str, Any],
        progress: Progress | None,
    ) -> None:
        import torch

        self._student, self._teacher = student, teacher
        self._samples, self._options = samples, options
        self._checkpoint, self._identity, self._progress = checkpoint, identity, progress
        parameters = [p for p in student.parameters() if p.requires_grad]
        self._norms = _trained_norms(student)
        self._device = parameters[0].device
        self._optimiser = torch.optim.Adam(parameters, lr=options.learning_rate)
        self._uses_labels = samples.validation is not None or options.labels > 0
        self.history: list[Epoch] = []
        self.kept = 0
        self.warnings: list[str] = []
        self.seconds = 0.0
        self._epoch, self._batch, self._seen = 1, 0, 0
        self._total = 0.0
        self._saved = time.monotonic()

    def train(self) -> None:
        """Train until the last pass, or until nothing improves."""
        import torch

        start = time.perf_counter()
        found = None
        if self._checkpoint is not None:
            found = load_checkpoint(self._checkpoint, self._identity)
        with torch.random.fork_rng(devices=[]):  # modules may draw; the user's generator stays
            torch.manual_seed(self._options.seed)
            if found is None:
                self._loss = Loss(self._look(), self._options.labels)
                self._best = _copy(self._student)
                self.history.append(Epoch(0, None, self._judge()))
            else:
                self._resume(found)
            try:
                while self._epoch <= self._options.epochs and self._pass():
                    self._finish_epoch()
                if self.kept == 0 and not self.warnings:
                    self.warnings.append(
                        "training made nothing better, the module is as it came in; try another"
                        " learning rate, more data or more epochs"
                    )
            finally:
                self._student.load_state_dict(self._best)
        self.seconds = time.perf_counter() - start

    def tensors(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """The inputs of a batch, in the order of ``forward``."""
        import torch

        arrays = (np.require(array, requirements="W") for array in batch.feeds.values())
        return tuple(torch.from_numpy(array).to(self._device) for array in arrays)

    def _pass(self) -> bool:
        """The rest of a pass over the data; whether the loss stayed finite."""
        import torch

        for number, batch in enumerate(self._samples.training(self._epoch)):
            if number < self._batch:
                continue  # done before the checkpoint
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate()
            inputs = self.tensors(batch)
            with torch.no_grad():
                want = float_outputs(self._teacher(*inputs))
            for norm in self._norms:
                norm.train(len(batch) >= NORMALISED)
            have = float_outputs(self._student(*inputs))
            first = self._loss.scores()
            if first is not None:
                self._loss.check_labels(batch.labels, have[first].shape[1], self._samples.data.name)
            loss = self._loss(have, want, batch.labels)
            value = float(loss.detach())
            if not math.isfinite(value):
                self._stop(f"the loss was not a finite number in epoch {self._epoch}")
                return False
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            self._batch += 1
            self._seen += len(batch)
            self._total += value * len(batch)
            if self._progress is not None:
                done = (self._epoch - 1) * self._samples.count + self._seen
                self._progress("distil", done, self._options.epochs * self._samples.count)
            if time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
                self._save()
        return True

    def _rate(self) -> float:
        """The learning rate at this point of the run (warm-up, then a cosine)."""
        options = self._options
        done = (self._epoch - 1 + min(self._seen / self._samples.count, 1)) / options.epochs
        if done < WARM_UP:
            return options.learning_rate * (0.1 + 0.9 * done / WARM_UP)
        return (
            options.learning_rate * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
        )

    def _finish_epoch(self) -> None:
        judgement = self._judge()
        best = self.history[self.kept].validation
        self.history.append(Epoch(self._epoch, self._total / self._seen, judgement))
        if judgement.better_than(best):
            self.kept = self._epoch
            self._best = _copy(self._student)
        waited = self._epoch - self.kept
        self._epoch, self._batch, self._seen, self._total = self._epoch + 1, 0, 0, 0.0
        if waited >= self._options.patience and self._epoch <= self._options.epochs:
            self._stop(f"nothing improved in {waited} epochs")
        self._save()

    def _stop(self, why: str) -> None:
        self.warnings.append(f"{why}: training stopped, the state of epoch {self.kept} is kept")
        self._epoch = self._options.epochs + 1

    def _look(self) -> tuple[Output, ...]:
        import torch

        def outputs(batch: Batch) -> Outputs:
            with torch.no_grad():
                return float_outputs(self._teacher(*self.tensors(batch)))

        return look_at(map(outputs, self._samples.judged()), self._samples.data.name)

    def _judge(self) -> Judgement:
        import torch

        for norm in self._norms:
            norm.eval()

        def run(batch: Batch) -> tuple[Outputs, Outputs]:
            inputs = self.tensors(batch)
            return float_outputs(self._student(*inputs)), float_outputs(self._teacher(*inputs))

        with torch.no_grad():
            return judge(self._loss, self._samples.judged(), run, use_labels=self._uses_labels)

    def _save(self) -> None:
        import torch

        self._saved = time.monotonic()
        if self._checkpoint is None:
            return
        state = {
            "state_dict": self._best,
            "student": _copy(self._student),
            "optimiser": self._optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "outputs": [asdict(output) for output in self._loss.outputs],
            "history": [asdict(epoch) for epoch in self.history],
            "kept": self.kept,
            "warnings": self.warnings,
            "position": [self._epoch, self._batch, self._seen],
            "total": self._total,
        }
        save_checkpoint(self._checkpoint, self._identity, state)

    def _resume(self, state: Mapping[str, Any]) -> None:
        import torch

        self._best = state["state_dict"]
        self._student.load_state_dict(state["student"])
        self._optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        outputs = tuple(Output(**about) for about in state["outputs"])
        self._loss = Loss(outputs, self._options.labels)
        self.history = [
            Epoch(about["epoch"], about["loss"], Judgement(**about["validation"]))
            for about in state["history"]
        ]
        self.kept, self.warnings = state["kept"], list(state["warnings"])
        self._epoch, self._batch, self._seen = state["position"]
        self._total = state["total"]


def _trained_norms(student: torch.nn.Module) -> list[torch.nn.Module]:
    """The batch normalisations whose statistics follow the training: not those that are frozen."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return [
        part
        for part in student.modules()
        if isinstance(part, _BatchNorm) and all(p.requires_grad for p in part.parameters())
    ]


def _copy(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
