"""Networks trained on Fashion-MNIST for the benchmarks, and the data that go with them.

``python benchmarks/trained.py`` trains every network with three seeds (cached in
``benchmarks/cache/``; some two hours on two cores). It needs Debian's package
``dataset-fashion-mnist``: the first 50,000 training images train, the last 10,000 calibrate
without their labels, the 10,000 test images report.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_fashion_mnist import DEFAULT_FOLDER, read_idx
from nets import Crnn, DepthwiseCnn, ResidualCnn, VisionTransformer, mlp
from numpy.typing import NDArray
from torch import nn

from onnxtrim.export.from_torch import export_module

CACHE = Path(__file__).parent / "cache"
SEEDS = (0, 1, 2)
BATCH = 128
SEEN = 50_000  # training images; the others calibrate
MEAN, STD = 0.2860, 0.3530


@dataclass(frozen=True)
class Recipe:
    """How a network is made.

    Attributes:
        net: Makes it.
        epochs: Passes over the images.
        rate: Largest learning rate; of SGD with momentum, or of Adam.
        adam: Whether it is trained by Adam (with decoupled weight decay).
        flips: Whether images are flipped at random.
        flat: Whether it takes vectors of 784 pixels.
    """

    net: Callable[[], nn.Module]
    epochs: int
    rate: float
    adam: bool = True
    flips: bool = True
    flat: bool = False


RECIPES = {
    "mlp": Recipe(mlp, 10, 1e-3, flips=False, flat=True),
    "lstm": Recipe(Crnn, 4, 3e-3),
    "depthwise_cnn": Recipe(DepthwiseCnn, 3, 1e-2),
    "vit": Recipe(VisionTransformer, 5, 2e-3),
    "residual_cnn": Recipe(ResidualCnn, 2, 0.15, adam=False),
}


@dataclass(frozen=True)
class Trained:
    """A trained network and its data.

    Attributes:
        name: The network.
        seed: Of weights and order.
        model: The ONNX file.
        state: The torch weights.
        calibration: Data file without labels.
        test: Data file with labels.
    """

    name: str
    seed: int
    model: Path
    state: Path
    calibration: Path
    test: Path

    def module(self) -> nn.Module:
        """The network in torch, ready to be run."""
        net = RECIPES[self.name].net()
        net.load_state_dict(torch.load(self.state, weights_only=True))
        return net.eval()


def trained(name: str, seed: int) -> Trained:
    """A network from the cache, trained if it is not there."""
    recipe = RECIPES[name]
    kind = "flat" if recipe.flat else "image"
    calibration, test = CACHE / f"{kind}_calibration.npz", CACHE / f"{kind}_test.npz"
    folder = CACHE / f"{name}_{seed}"
    found = Trained(name, seed, folder / "model.onnx", folder / "weights.pt", calibration, test)
    CACHE.mkdir(parents=True, exist_ok=True)
    if not test.exists():
        _write(test, recipe.flat, "t10k", labels=True)
        _write(calibration, recipe.flat, "train", labels=False)
    if not found.model.exists():
        folder.mkdir(exist_ok=True)
        images, labels = _read("train", recipe.flat)
        net = _train(recipe, images[:SEEN], labels[:SEEN], seed, f"{name} {seed}")
        torch.save(net.state_dict(), found.state)
        export_module(net, (torch.from_numpy(images[:2]),), found.model, input_names=["x"])
    return found


def _read(part: str, flat: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    pixels = read_idx(DEFAULT_FOLDER / f"{part}-images-idx3-ubyte.gz").astype(np.float32)
    images = (pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    labels = read_idx(DEFAULT_FOLDER / f"{part}-labels-idx1-ubyte.gz").astype(np.int64)
    return images.reshape((-1, 784) if flat else (-1, 1, 28, 28)), labels


def _write(path: Path, flat: bool, part: str, *, labels: bool) -> None:
    images, truth = _read(part, flat)
    if labels:
        np.savez(path, x=images, labels=truth)
    else:
        np.savez(path, x=images[SEEN:])


def _train(
    recipe: Recipe, images: NDArray[Any], labels: NDArray[np.int64], seed: int, title: str
) -> nn.Module:
    """Cross-entropy, one cycle of the learning rate."""
    torch.manual_seed(seed)
    net = recipe.net()
    torch.manual_seed(seed)
    for module in net.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    if recipe.adam:
        optimiser: torch.optim.Optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    else:
        optimiser = torch.optim.SGD(
            net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, recipe.epochs * steps)
    start = time.perf_counter()
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(x))
        total = 0.0
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            batch = x[chosen]
            if recipe.flips:
                flipped = (torch.rand(BATCH) < 0.5)[:, None, None, None]
                batch = torch.where(flipped, batch.flip(3), batch)
            loss = nn.functional.cross_entropy(net(batch), y[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.perf_counter() - start
        print(
            f"{title}: epoch {epoch + 1} of {recipe.epochs}, loss {total / steps:.3f},"
            f" {seconds:.0f} s",
            file=sys.stderr,
        )
    return net.eval()


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--net", choices=RECIPES, action="append", help="only these")
    parser.add_argument("--seed", type=int, action="append", help="only these")
    options = parser.parse_args()
    for seed in options.seed or SEEDS:
        for name in options.net or RECIPES:
            trained(name, seed)


if __name__ == "__main__":
    main()
