"""The demo's network: a multi-layer perceptron on Fashion-MNIST, trained here and now."""

from __future__ import annotations

import itertools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxtrim.bench.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import torch

DATA = Path(__file__).resolve().parents[1] / "benchmarks" / "data" / "fashion-mnist.npz"
"""Where the images lie in the repository; they are not part of the wheel."""

CALIBRATION = 3_000  # images of the training file that the network never sees
WIDTHS = (784, 1024, 512, 256, 10)
_MEAN, _STD = 0.2860, 0.3530  # of the pixels of Fashion-MNIST, scaled to 0…1

Images = NDArray[np.float32]
Labels = NDArray[np.int64]
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class DemoData:
    """Images as vectors of 784 standardised pixels, with their labels 0…9.

    Attributes:
        train: Images (n, 784) and labels (n,) for training.
        calibration: Images that training does not see, for the statistics.
        test: Images and labels for reporting.
    """

    train: tuple[Images, Labels]
    calibration: Images
    test: tuple[Images, Labels]


def load_data(path: Path) -> DemoData:
    """Read the demo's images.

    Raises:
        InputError: The file is missing or another one.
    """
    if not path.exists():
        raise InputError(
            f"{path}: no such file; run the demo in a clone of the repository, or give the path of"
            " its benchmarks/data/fashion-mnist.npz by --data"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            train, test = _pixels(file["train_images"]), _pixels(file["test_images"])
            train_labels = file["train_labels"].astype(np.int64)
            test_labels = file["test_labels"].astype(np.int64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: is not the demo's data file ({error})") from error
    seen = len(train) - CALIBRATION
    return DemoData((train[:seen], train_labels[:seen]), train[seen:], (test, test_labels))


def _pixels(images: NDArray[Any]) -> Images:
    flat = images.reshape(len(images), -1).astype(np.float32)
    return (flat / np.float32(255) - np.float32(_MEAN)) / np.float32(_STD)


def train_network(
    images: Images,
    labels: Labels,
    *,
    epochs: int = 24,
    seed: int = 0,
    progress: Progress | None = None,
) -> torch.nn.Module:
    """Train 784-1024-512-256-10 with ReLU.

    Adam with an L2 penalty, as in the observation that the threshold rule comes from: the penalty
    lets units that the task does not need fall silent. The learning rate is constant, then falls
    to zero over the last quarter.

    Args:
        images: (n, 784) float32.
        labels: (n,) int64.
        epochs: Passes over the images.
        seed: Of the initial weights and the order of the images.
        progress: Called with a word, the epochs done and their number.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("the demo", "torch") from error
    flushes = torch.set_flush_denormal(True)  # the penalty drives weights into the slow range
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return _train(torch.from_numpy(images), torch.from_numpy(labels), epochs, progress)
    finally:
        if flushes:
            torch.set_flush_denormal(False)


def _train(
    images: torch.Tensor, labels: torch.Tensor, epochs: int, progress: Progress | None
) -> torch.nn.Module:
    import torch
    from torch import nn

    layers: dict[str, nn.Module] = {}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(WIDTHS), start=1):
        layers |= {f"layer{number}": nn.Linear(inputs, outputs), f"relu{number}": nn.ReLU()}
    layers.popitem()  # the last layer gives the scores
    network = nn.Sequential(OrderedDict(layers))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
    batch, decay = 128, max(1, epochs // 4)
    for epoch in range(epochs):
        if progress is not None:
            progress("training", epoch, epochs)
        order = torch.randperm(len(images))
        for start in range(0, len(images), batch):
            done = epoch + start / len(images)
            for group in optimiser.param_groups:
                group["lr"] = 1e-3 * min(1.0, (epochs - done) / decay)
            chosen = order[start : start + batch]
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    if progress is not None:
        progress("training", epochs, epochs)
    return network.eval()
