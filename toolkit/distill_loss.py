"""How far a student's outputs are from its teacher's: to train on, and to judge by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.batches import Batch
from onnxtrim.bench.errors import InputError

if TYPE_CHECKING:
    import torch

Labels = NDArray[Any] | None
Outputs = list["torch.Tensor"]

_LEAST = 1e-7  # of a probability, below its logarithm
_SUM = 1e-3  # how far probabilities may be from the sum 1


@dataclass(frozen=True)
class Judgement:
    """What validation samples say about a student.

    Attributes:
        loss: The distillation loss, without labels.
        divergence: Squared difference of the outputs over the variance of the teacher's.
        agreement: Share of samples with the teacher's answer; ``None`` if no output is scores.
        accuracy: Share with the right answer; ``None`` without labels.
    """

    loss: float
    divergence: float
    agreement: float | None
    accuracy: float | None

    def better_than(self, other: Judgement) -> bool:
        """Whether it is more often right or, without labels or as often, nearer to the teacher."""
        if not math.isfinite(self.loss):
            return False
        if self.accuracy is not None and other.accuracy is not None:
            return (self.accuracy, -self.loss) > (other.accuracy, -other.loss)
        return self.loss < other.loss

    def to_json(self) -> dict[str, float | None]:
        """The form in which it stands in results; a number that is none is ``None``."""
        return {
            name: value if value is None or math.isfinite(value) else None
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Output:
    """What is known of one output of the teacher.

    Attributes:
        variance: Of its elements; 1 if they are constant.
        scores: Whether it has shape (samples, classes).
        probabilities: Whether its rows are non-negative and sum to 1.
    """

    variance: float
    scores: bool
    probabilities: bool


@dataclass(frozen=True)
class Loss:
    """The distillation loss.

    The sum over the outputs of the squared error, divided by the variance of the teacher's output;
    of outputs that look like scores of classes also the Kullback-Leibler divergence of the
    teacher's distribution from the student's (Hinton, Vinyals & Dean 2015, at temperature 1).
    The first makes every score follow, the second those that decide.

    Attributes:
        outputs: Of the teacher, those of floating point.
        weight: Share of the cross-entropy with the labels where there are any, between 0 and 1.
    """

    outputs: tuple[Output, ...]
    weight: float

    def __call__(self, have: Outputs, want: Outputs, labels: Labels = None) -> torch.Tensor:
        """The loss of a batch, a scalar.

        Args:
            have: The student's outputs.
            want: The teacher's, of the same shapes.
            labels: Classes of the first output that is scores, shape ``(samples,)``.
        """
        import torch
        from torch.nn import functional

        total = torch.zeros((), device=have[0].device)
        for about, y, z in zip(self.outputs, have, want, strict=True):
            total = total + functional.mse_loss(y, z) / about.variance
            if about.scores:
                total = total + functional.kl_div(
                    _log(y, about), _log(z, about), log_target=True, reduction="batchmean"
                )
        first = self.scores()
        if labels is None or first is None or self.weight == 0:
            return total
        truth = torch.from_numpy(labels.astype(np.int64)).to(total.device)
        entropy = functional.nll_loss(_log(have[first], self.outputs[first]), truth)
        return (1 - self.weight) * total + self.weight * entropy

    def scores(self) -> int | None:
        """Which output is scores of classes."""
        return next((n for n, about in enumerate(self.outputs) if about.scores), None)

    def check_labels(self, labels: Labels, classes: int, name: str) -> None:
        """Check that labels are classes.

        Raises:
            InputError: One is not.
        """
        if labels is not None and (labels.min() < 0 or labels.max() >= classes):
            raise InputError(
                f"{name}: labels go from {labels.min()} to {labels.max()}, the model has"
                f" {classes} classes"
            )


def look_at(outputs: Iterable[Outputs], name: str) -> tuple[Output, ...]:
    """What the teacher's outputs are like, from those on some batches.

    Raises:
        InputError: No output is of floating point, or one is not a finite number.
    """
    shifts: list[float | None] = []
    count: list[float] = []
    total: list[float] = []
    squares: list[float] = []
    kinds: list[list[bool]] = []
    for batch in outputs:
        if not count:
            count, total, squares = ([0.0] * len(batch) for _ in range(3))
            shifts = [None] * len(batch)
            kinds = [[z.ndim == 2 and z.shape[1] > 1, True] for z in batch]
        for n, z in enumerate(batch):
            if shifts[n] is None and z.numel():
                shifts[n] = float(z.flatten()[0])  # or the variance cancels
            wide = z.double() - (shifts[n] or 0.0)
            count[n] += z.numel()
            total[n] += float(wide.sum())
            squares[n] += float((wide**2).sum())
            if kinds[n][0] and kinds[n][1]:
                sums = z.double().sum(1)
                kinds[n][1] = bool(z.min() >= 0) and bool(((sums - 1).abs() < _SUM).all())
    if not count:
        raise InputError("the module has no output of floating point to be trained on")
    found = []
    for n, (scores, probabilities) in enumerate(kinds):
        if not math.isfinite(squares[n]):
            raise InputError(
                f"{name}: output {n} of the original is not a finite number on these samples"
            )
        variance = squares[n] / count[n] - (total[n] / count[n]) ** 2
        found.append(Output(variance if variance > 0 else 1.0, scores, scores and probabilities))
    return tuple(found)


def judge(
    loss: Loss,
    batches: Iterable[Batch],
    run: Callable[[Batch], tuple[Outputs, Outputs]],
    *,
    use_labels: bool,
) -> Judgement:
    """Judge a student on batches.

    Args:
        loss: The distillation loss.
        batches: Validation samples.
        run: Gives the outputs of student and teacher.
        use_labels: Whether labels count.
    """
    samples = 0
    far = divergence = same = right = 0.0
    labelled = 0
    first = loss.scores()
    for batch in batches:
        have, want = run(batch)
        far += float(loss(have, want)) * len(batch)
        divergence += len(batch) * float(
            sum(
                ((y.double() - z.double()) ** 2).mean() / about.variance
                for about, y, z in zip(loss.outputs, have, want, strict=True)
            )
        )
        samples += len(batch)
        if first is None:
            continue
        answers = have[first].argmax(1)
        same += int((answers == want[first].argmax(1)).sum())
        if use_labels and batch.labels is not None:
            labelled += len(batch)
            right += int((answers.cpu().numpy() == batch.labels).sum())
    return Judgement(
        far / samples,
        divergence / samples / len(loss.outputs),
        None if first is None else same / samples,
        right / labelled if labelled else None,
    )


def float_outputs(value: Any) -> Outputs:
    """The tensors of floating point that a module returned, in order of appearance."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tensor for part in value for tensor in float_outputs(part)]
    return []


def _log(scores: torch.Tensor, about: Output) -> torch.Tensor:
    """Logarithms of the probabilities."""
    if about.probabilities:
        return scores.clamp_min(_LEAST).log()
    return scores.log_softmax(1)
