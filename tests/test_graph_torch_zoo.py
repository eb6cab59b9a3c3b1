"""Every net of the torch zoo: golden groups, and removals that pass the self-check.

``benchmarks/zoo_matrix.py`` runs the whole matrix: every group alone and all at once, four shares,
three seeds, with and without alignment.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")
import torch

from onnxtrim.export.from_torch import export_module
from onnxtrim.toolkit.apply import apply_plan
from onnxtrim.toolkit.graph.normalise import normalise
from onnxtrim.toolkit.plan import Plan, Removal, Stage
from onnxtrim.toolkit.prepare import Prepared, prepare
from tests.torch_zoo import TORCH_ZOO
from tests.torch_zoo_golden import GOLDEN
from tests.zoo_check import check_removal, stages

# Near twins of others; with ONNXTRIM_WHOLE_ZOO=1 they are tested, too.
TWINS = (
    "ax_amax ax_argmax ax_cumsum ax_l2 ax_lrn ax_mean ax_prod ax_roll ax_topk gather2 pixunsh"
    " bilin_scale qkv_unbind qkv_split attn_bmm lstm_bi rnn untied"
).split()
WHOLE = bool(os.environ.get("ONNXTRIM_WHOLE_ZOO"))
# Slow ones with a sibling here, or whose way to torch and back is tested beside.
SLOW = "crnn gru_bi lstm_h gqa vit_mha qkv_chunk inorm mixer".split()
OTHERS = [name for name in sorted(TORCH_ZOO) if WHOLE or name not in TWINS]
NETS = [name for name in OTHERS if WHOLE or name not in SLOW]
AGAIN = OTHERS[::5]  # pruned more than once; the others in benchmarks/zoo_matrix.py


@cache
def exported(name: str, folder: Path) -> Prepared:
    path = folder / f"{name}.onnx"
    if not path.exists():
        torch.manual_seed(0)
        net = TORCH_ZOO[name]
        export_module(net.build(), net.examples(), path)
    return prepare(path)[0]


@pytest.mark.parametrize("name", NETS)
def test_golden_groups_and_removals(name: str, torch_exports: Path) -> None:
    net = exported(name, torch_exports)
    analysis, golden = net.analysis, GOLDEN[name]
    found = [f"{group.name}:{group.units}" for group in analysis.groups]
    assert found == golden.groups.split()
    inner = analysis.inner.groups if analysis.inner is not None else ()
    assert [f"{group.name}:{group.units}" for group in inner] == golden.inner.split()
    frozen = {item.operator for item in analysis.frozen if not item.operator.startswith("graph")}
    assert sorted(frozen) == golden.frozen.split()
    assert analysis.prunable_parameters / analysis.parameters == pytest.approx(
        golden.share, abs=1e-3
    )
    for stage, groups in stages(net):
        assert check_removal(net, stage, groups, 0.4, whole=True) > 0
        if name in AGAIN:
            check_removal(net, stage, groups, 0.95, seed=1)
            check_removal(net, stage, groups, 0.3, seed=2, align=4)


@pytest.mark.parametrize("name", AGAIN)
def test_prune_after_prune(name: str, torch_exports: Path, tmp_path: Path) -> None:
    net = exported(name, torch_exports)
    path = tmp_path / "small.onnx"
    for seed in (0, 1):
        result = apply_plan(net, random_plan(net, seed))
        result.save(path)
        net = prepare(path)[0]
        path = tmp_path / "smaller.onnx"
    assert result.parameters.after < result.parameters.before


def random_plan(net: Prepared, seed: int) -> Plan:
    rng = np.random.default_rng(seed)
    removals = []
    for group in net.analysis.groups:
        tensor, axis = next(iter(group.slices))
        gone = rng.permutation(group.units)[: max(1, group.units // 4)]
        removals.append(Removal(group.name, tensor, axis, group.units, tuple(map(int, gone))))
    stage = Stage(dict(net.analysis.choices), tuple(removals))
    return Plan(net.sha256, "", {"name": "random"}, (stage,))


@pytest.mark.parametrize("name", AGAIN)
def test_removing_nothing_leaves_every_byte(name: str, torch_exports: Path) -> None:
    net = exported(name, torch_exports)
    same = apply_plan(net, Plan(net.sha256, "", {}, ())).model
    before = ir.load(net.path).graph.initializers
    for key, value in same.graph.initializers.items():
        if key in before:
            old, new = before[key].const_value, value.const_value
            assert old is not None
            assert new is not None
            assert old.numpy().tobytes() == new.numpy().tobytes()


def test_the_analysis_is_the_same_twice(torch_exports: Path) -> None:
    """Plans are bound to it: names, units and choices must not depend on the run."""
    net = exported("swin", torch_exports)
    again = normalise(ir.load(net.path), [net.feeds[0], net.feeds[1]])
    assert list(again.shapes) == list(net.analysis.normalised.shapes)
    other = prepare(net.path)[0].analysis
    assert other.choices == net.analysis.choices
    for one, two in zip(net.analysis.all_groups(), other.all_groups(), strict=True):
        assert one.name == two.name
        assert {ref: u.tolist() for ref, u in one.slices.items()} == {
            ref: u.tolist() for ref, u in two.slices.items()
        }
