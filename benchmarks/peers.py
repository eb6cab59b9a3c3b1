"""Other pruners at the same share of removed parameters: Torch-Pruning and onnxsim.

Both are optional: ``pip install torch-pruning==1.6.1 onnxsim==0.8.1``. They get the calibration
images that onnxtrim gets, without labels, and no training. Of all their options in question the
best is kept *by accuracy on test images*, which favours them.

Torch-Pruning: every importance that needs no labels, ranked uniformly and globally, with and
without the channels that residual connections tie, of attention head dimensions or whole heads;
batch normalisation is recalibrated, the scale of attention kept. Left out are its Hessian
importance, which keeps the gradient of the last sample only, and its OBD-C importance, which fails
on networks without attention.

onnxsim: magnitude and calibrated (Wanda) importance, each layer alone and globally, with and
without its ridge repair. It matches patterns, which torch's export of batch normalisation hides:
it gets the network with folded batch normalisation, in a file where no two nodes share a tensor
(it would break them). In none of some twenty forms of the vision transformer (three operator
sets, scaled_dot_product_attention or its parts, simplified or not, optimised by ONNX Runtime) did
its attention head pruning find a head, so that is not called.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from nets import BasicBlock, EncoderBlock, InvertedBlock, VisionTransformer
from peer_search import CHOSEN_BY, Contest, Images, Pruned
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from trained import Trained

from onnxtrim.bench.session import RunOptions, open_session, run
from onnxtrim.export.from_torch import export_module

SEEN = 1_024  # calibration images that importances and onnxsim's repair see
GRADIENTS = 256  # calibration images whose gradients are looked at
BATCH = 250
RIDGE, OTHER_RIDGES = 1e-2, (1e-1, 1e-3, 1e-4)  # of onnxsim's repair; the first is its default

Prune = Callable[[Trained, float, Path], Pruned]
Options = tuple[str, str, str, str]


def peers() -> dict[str, Prune | None]:
    """The peers by name; ``None`` for one that is not installed."""
    known: dict[str, tuple[str, Prune]] = {
        "Torch-Pruning": ("torch_pruning", torch_pruning),
        "onnxsim": ("onnxsim", onnxsim),
    }
    return {name: prune if find_spec(package) else None for name, (package, prune) in known.items()}


def torch_pruning(trained: Trained, share: float, path: Path) -> Pruned:
    """Prune with Torch-Pruning (Fang et al., CVPR 2023, https://arxiv.org/abs/2301.12900).

    Raises:
        RefusalError: It can't.
    """
    images = Images.of(trained)
    seen, test = torch.from_numpy(images.calibration), torch.from_numpy(images.test)
    evidence = Evidence.of(trained.module(), seen)
    contest: Contest[nn.Module] = Contest(share)

    def score(net: nn.Module) -> float:
        recalibrate(net, seen[:CHOSEN_BY])
        return images.accuracy(_scores(net, test).numpy())

    for options in torch_options(trained.module()):
        attempt = partial(_torch_attempt, trained, seen[:2], evidence, options)
        contest.enter(", ".join(filter(None, options)), attempt, score)
    best = contest.winner()
    recalibrate(best, seen)
    export_module(best, (seen[:2],), path, input_names=["x"])
    return Pruned(path, contest.removed, contest.options)


def torch_options(net: nn.Module) -> Iterator[Options]:
    """Importance, ranking, which channels, and how attention shrinks."""
    names = ["magnitude", "LAMP", "FPGM", "activation", "Taylor of own answers"]
    if _holds(net, nn.BatchNorm2d):
        names.append("BN scale")
    channels = ["all channels"]
    if _tied(net):
        channels.append("no residual streams")
    if _holds(net, nn.LSTM):
        channels.append("no LSTM")
    heads = ["head dimensions", "whole heads"] if _holds(net, EncoderBlock) else [""]
    yield from product(names, ["uniform", "global"], channels, heads)


def _torch_attempt(
    trained: Trained, example: torch.Tensor, evidence: Evidence, options: Options, strength: float
) -> tuple[nn.Module, float]:
    """One pruning of a fresh network; returns it and the share of its parameters that left."""
    import torch_pruning as tp

    net = trained.module()
    name, ranking, channels, heads = options
    linear: list[nn.Module] = [module for module in net.modules() if isinstance(module, nn.Linear)]
    ignored = linear[-1:]  # the classes stay
    if channels == "no residual streams":
        ignored += _tied(net)
    elif channels == "no LSTM":
        ignored += [module for module in net.modules() if isinstance(module, nn.LSTM)]
    blocks = [module for module in net.modules() if isinstance(module, EncoderBlock)]
    sizes = [block.query.out_features // block.heads for block in blocks]
    before = _parameters(net)
    pruner = tp.BasePruner(
        net,
        example,
        _importance(name),
        global_pruning=ranking == "global",
        pruning_ratio=strength,
        ignored_layers=ignored,
        num_heads={layer: b.heads for b in blocks for layer in (b.query, b.key, b.value)},
        prune_num_heads=heads == "whole heads",
        prune_head_dims=heads != "whole heads",
        head_pruning_ratio=strength if heads == "whole heads" else 0.0,
        unwrapped_parameters=[(net.places, 2)] if isinstance(net, VisionTransformer) else None,
        in_channel_groups={},  # by default one dictionary for all calls
        out_channel_groups={},
    )
    evidence.show(net, name)
    pruner.step()
    for block, size in zip(blocks, sizes, strict=True):
        block.heads = pruner.num_heads[block.query]
        # Attention divides its scores by √size; keep what it was.
        factor = (block.query.out_features / block.heads / size) ** 0.5
        block.query.weight.data *= factor
        block.query.bias.data *= factor
    net.zero_grad(set_to_none=True)
    with torch.no_grad():
        net(example)  # not everything that comes out can be run
    return net, 1 - _parameters(net) / before


def _importance(name: str) -> Any:
    from torch_pruning.pruner import importance as known

    return {
        "magnitude": known.GroupMagnitudeImportance,
        "LAMP": known.LAMPImportance,
        "FPGM": known.FPGMImportance,
        "BN scale": known.BNScaleImportance,
        "activation": known.ActivationImportance,
        "Taylor of own answers": known.GroupTaylorImportance,
    }[name]()


@dataclass(frozen=True)
class Evidence:
    """What importances see of calibration images, by the names of modules and parameters.

    Attributes:
        activations: As Torch-Pruning's activation importance sums them up.
        gradients: Of the loss against the network's own answers.
    """

    activations: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]

    @classmethod
    def of(cls, net: nn.Module, seen: torch.Tensor) -> Evidence:
        """Run the network."""
        with _importance("activation").compute_importance(net), torch.no_grad():
            net(seen[:SEEN])
        activations = {
            name: module._importance
            for name, module in net.named_modules()
            if isinstance(getattr(module, "_importance", None), torch.Tensor)
        }
        scores = net(seen[:GRADIENTS])
        nn.functional.cross_entropy(scores, scores.argmax(1)).backward()  # type: ignore[no-untyped-call]
        gradients = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
        return cls(activations, gradients)

    def show(self, net: nn.Module, name: str) -> None:
        """Put into a fresh network what an importance looks for there."""
        if name == "activation":
            for part, found in self.activations.items():
                net.get_submodule(part)._importance = found
        elif name == "Taylor of own answers":
            for part, parameter in net.named_parameters():
                if part in self.gradients:
                    parameter.grad = self.gradients[part].clone()


def _tied(net: nn.Module) -> list[nn.Module]:
    """Layers whose output channels a residual connection ties to others."""
    found: list[nn.Module] = []
    for module in net.modules():
        if isinstance(module, BasicBlock):
            found += [module.conv2, module.shortcut]
        elif isinstance(module, InvertedBlock):
            found.append(module.project)
        elif isinstance(module, EncoderBlock):
            found += [module.output, module.down]
    if found:
        found.append(net.get_submodule("patches" if _holds(net, EncoderBlock) else "stem"))
    return found


def recalibrate(net: nn.Module, images: torch.Tensor) -> None:
    """Measure the means and variances of batch normalisation anew."""
    layers = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    if not layers:
        return
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    _scores(net, images)
    net.eval()


def _scores(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([net(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])


def _holds(net: nn.Module, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in net.modules())


def _parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def onnxsim(trained: Trained, share: float, path: Path) -> Pruned:
    """Prune with onnxsim (https://github.com/onnxsim/onnxsim), repair by its ridge regression.

    Raises:
        RefusalError: It can't.
    """
    from onnxsim import apply_pruning_finetune

    images = Images.of(trained)
    model = _folded_model(trained, torch.from_numpy(images.calibration[:2]))
    seen = [{"x": images.calibration[at : at + 64]} for at in range(0, SEEN, 64)]
    contest: Contest[onnx.ModelProto] = Contest(share)

    def score(candidate: onnx.ModelProto) -> float:
        session = open_session(candidate.SerializeToString(), RunOptions())
        parts = range(0, len(images.test), BATCH)
        scores = [run(session, {"x": images.test[at : at + BATCH]}, "onnxsim")[0] for at in parts]
        return images.accuracy(np.concatenate(scores))

    def repair(pruned: onnx.ModelProto, removed: float, title: str, ridge: float) -> None:
        repaired = apply_pruning_finetune(model, pruned, seen, reg_param=ridge)
        contest.offer(f"{title}, ridge {ridge:g}", repaired, removed, score(repaired))

    entries = {}
    for importance, ranking in product(["magnitude", "Wanda"], ["uniform", "global"]):
        title = f"{importance}, {ranking}"
        attempt = partial(_onnxsim_attempt, model, seen, importance, ranking)
        entered = contest.enter(title, attempt, score)
        if entered is not None:
            entries[title] = entered
            repair(*entered, title, RIDGE)
    for title, entered in entries.items():
        if contest.options == f"{title}, ridge {RIDGE:g}":
            for ridge in OTHER_RIDGES:
                repair(*entered, title, ridge)
            break
    onnx.save(contest.winner(), path)
    return Pruned(path, contest.removed, contest.options)


def _onnxsim_attempt(
    model: onnx.ModelProto,
    seen: list[dict[str, Any]],
    importance: str,
    ranking: str,
    strength: float,
) -> tuple[onnx.ModelProto, float]:
    from onnxsim import apply_structured_pruning, apply_structured_wanda_pruning

    globally = ranking == "global"
    if importance == "Wanda":
        pruned = apply_structured_wanda_pruning(
            model, seen, sparsity=strength, global_sparsity=globally
        )
    else:
        pruned = apply_structured_pruning(model, strength, global_sparsity=globally)
    return pruned, 1 - _elements(pruned) / _elements(model)


def _folded_model(trained: Trained, example: torch.Tensor) -> onnx.ModelProto:
    """The network as onnxsim takes it best."""
    net = trained.module()
    _fold(net)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                net,
                (example,),
                dynamo=True,
                opset_version=20,
                input_names=["x"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    finally:
        logging.disable(level)
    assert program is not None  # with dynamo it is
    model: onnx.ModelProto = program.model_proto
    _part(model)
    return model


def _fold(module: nn.Module) -> None:
    """Fold batch normalisation into the convolution before it."""
    children = list(module.named_children())
    for (name, first), (norm, second) in pairwise(children):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(first, second))
            setattr(module, norm, nn.Identity())
    for child in module.children():
        _fold(child)


def _part(model: onnx.ModelProto) -> None:
    """Give every node its own copy of a weight that it shares with others."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    met: set[str] = set()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in met:
                copy = model.graph.initializer.add()
                copy.CopyFrom(weights[name])
                copy.name = node.input[index] = f"{name}/{len(model.graph.initializer)}"
            elif name in weights:
                met.add(name)


def _elements(model: onnx.ModelProto) -> int:
    return sum(
        int(np.prod(tensor.dims))
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    )
