"""The tests are not vacuous: wrong rules must be noticed by golden groups or the self-check."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxtrim.bench.errors import OnnxtrimError, SelfCheckError
from onnxtrim.toolkit.graph import selfcheck, surgery
from onnxtrim.toolkit.graph.labels import AxisRef, Index, Ties
from onnxtrim.toolkit.graph.node import Answer, NodeView, Rule, Spliced
from onnxtrim.toolkit.graph.propagate import Walker
from onnxtrim.toolkit.graph.rules import RULES
from onnxtrim.toolkit.graph.selfcheck import self_check
from onnxtrim.toolkit.graph.signature import Binding, SignatureError
from onnxtrim.toolkit.graph.splice import concat
from onnxtrim.toolkit.prepare import Prepared
from tests.nets import prepared
from tests.rule_cases import ALL_CASES
from tests.rule_judge import bundles
from tests.rule_mutants import CHANGED_TEXT, Hunt
from tests.zoo import ZOO

Setup = Callable[[pytest.MonkeyPatch], None]
Masks = dict[str, NDArray[np.bool_]]


def summary(net: Prepared) -> dict[str, tuple[int, int]]:
    return {group.name: (group.units, group.parameters) for group in net.analysis.groups}


def every_other(net: Prepared) -> Masks:
    return {
        group.name: np.random.default_rng(5).permutation(group.units) >= group.units // 2
        for group in net.analysis.groups
    }


def check(net: Prepared) -> None:
    masks = every_other(net)
    small = surgery.remove_units(net.analysis.model, net.analysis, masks)
    self_check(net.analysis.model, small, net.analysis, masks, net.feeds)


def rule(operator: str, answer: Callable[[NodeView], Answer]) -> Setup:
    """Give an operator another rule."""

    def setup(patch: pytest.MonkeyPatch) -> None:
        wrong: Rule = replace(RULES[operator], answer=answer, sizes=lambda view: {})
        patch.setitem(RULES, operator, wrong)

    return setup


def passes(view: NodeView) -> Answer:
    return "x*" + ", _" * (len(view.inputs) - 1) + " -> x*"


def transpose_inverse(view: NodeView) -> Answer:
    order = view.integers("perm") or []
    letters = [f"a{axis}" for axis in range(len(order))]
    return f"{' '.join(letters)} -> {' '.join(letters[order.index(i)] for i in range(len(order)))}"


def concat_reversed(patch: pytest.MonkeyPatch) -> None:
    def turned(view: NodeView) -> Answer:
        found = concat(replace(view, inputs=view.inputs[::-1]))
        assert isinstance(found, Spliced)
        last = len(view.inputs) - 1
        return Spliced(tuple(replace(p, operand=last - p.operand) for p in found.pieces))

    patch.setitem(RULES, "Concat", replace(RULES["Concat"], answer=turned))


def flatten_tiled(patch: pytest.MonkeyPatch) -> None:
    """Channel i at positions i, i + C, … instead of i·HW … (i+1)·HW - 1."""

    def tie(
        self: Walker,
        ties: Ties,
        seen: dict[str, Index],
        letter: str,
        letters: Any,
        ref: AxisRef,
        binding: Binding,
    ) -> None:
        labels, size = self.labels.of(ref), binding.sizes[letter]
        if letter not in seen:
            seen[letter] = self.labels.fresh(size)
        ties.tie(labels, seen[letter][np.arange(len(labels)) % size])

    patch.setattr(Walker, "_tie", tie)


def wrong_order(patch: pytest.MonkeyPatch) -> None:
    original = surgery._slice

    def sliced(value: Any, masks: list[tuple[int, NDArray[np.bool_]]]) -> None:
        original(value, [(axis, mask[::-1]) for axis, mask in masks])

    patch.setattr(surgery, "_slice", sliced)


def skip_weights(*endings: str) -> Setup:
    """Surgery forgets some initializers."""

    def setup(patch: pytest.MonkeyPatch) -> None:
        original = surgery._slice

        def sliced(value: Any, masks: list[tuple[int, NDArray[np.bool_]]]) -> None:
            if not str(value.name).endswith(endings):
                original(value, masks)

        patch.setattr(surgery, "_slice", sliced)

    return setup


def scale_last(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(RULES, "Reshape", replace(RULES["Reshape"], resize=None))


def no_groups(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(RULES, "Conv", replace(RULES["Conv"], resize=None))


MUTATIONS: list[tuple[str, str, Setup]] = [
    ("transpose ignored", "transposes", rule("Transpose", passes)),
    ("transpose ignored, equal sizes", "mlp_square", rule("Transpose", passes)),
    ("transpose inverted", "transposes", rule("Transpose", transpose_inverse)),
    ("concat reversed", "unet", concat_reversed),
    ("concat reversed", "dense", concat_reversed),
    ("bn not tied", "residual", rule("BatchNormalization", passes)),
    ("conv bias not tied", "unet", rule("Conv", lambda v: "n c X*, o c K*, _ -> n o Q*")),
    ("conv output not tied", "unet", rule("Conv", lambda v: "n c X*, o c K*, q -> n q Q*")),
    ("conv does not read", "residual", rule("Conv", lambda v: "n c X*, o C K*, o -> n o Q*")),
    ("flatten tiled", "flatten", flatten_tiled),
    ("flatten tiled", "reshape_live", flatten_tiled),
    ("depthwise not tied", "mobile", rule("Conv", lambda v: "n c X*, o J K*, o -> n o Q*"
        if v.attribute("group", 1) > 1 else "n c X*, o c K*, o -> n o Q*")),
    ("gemm the wrong way", "called_twice", rule("Gemm", lambda v: "m k, k n, n -> m n")),
    ("matmul the wrong way", "mlp_square", rule("MatMul", lambda v: "b* m k, b* n k -> b* m n")),
    ("add forgets an operand", "residual", rule("Add", lambda v: "x*, _ -> x*")),
    ("mul forgets an operand", "squeeze_excite", rule("Mul", lambda v: "x*, _ -> x*")),
    ("sum is no consumer", "summed", rule("ReduceSum", lambda v: "n C X*, _ -> n D X*")),
    ("softmax over units", "attention", rule("Softmax", lambda v: "b h Q K -> b Q h K")),
    ("positions reversed", "mlp", wrong_order),
    ("positions reversed", "shared_bias", wrong_order),
    ("bias not cut", "mlp", skip_weights("fc1.bias")),
    ("variance not cut", "dense", skip_weights("d2.bn.var")),
    ("second weight not cut", "tied", skip_weights("fc2.weight")),
    ("target not scaled", "reshape_live", scale_last),
    ("groups not recounted", "grouped", no_groups),
]  # fmt: skip


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, tuple[int, int]]]:
    folder = tmp_path_factory.mktemp("right")
    names = {name for _, name, _ in MUTATIONS}
    return {name: summary(prepared(ZOO[name](), folder, name)) for name in names}


@pytest.mark.parametrize(
    ("net", "setup"),
    [item[1:] for item in MUTATIONS],
    ids=[f"{what}: {net}" for what, net, _ in MUTATIONS],
)
def test_a_wrong_rule_is_noticed(
    net: str,
    setup: Setup,
    golden: Mapping[str, dict[str, tuple[int, int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup(monkeypatch)
    try:
        case = prepared(ZOO[net](), tmp_path)
        changed = summary(case) != golden[net]
        check(case)
    except (OnnxtrimError, SignatureError):
        return
    assert changed


@pytest.mark.parametrize("setup", [wrong_order, flatten_tiled, concat_reversed])
def test_values_alone_give_it_away(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All shapes fit; the message names the tensor, its node and the groups."""
    name = {"wrong_order": "mlp", "flatten_tiled": "flatten", "concat_reversed": "dense"}
    setup(monkeypatch)
    case = prepared(ZOO[name[setup.__name__]](), tmp_path)
    with pytest.raises(SelfCheckError, match=r"tensor '\w+' \(node .*; groups .*\)"):
        check(case)


def test_a_wrong_weight_is_found_in_one_element(tmp_path: Path) -> None:
    case = prepared(ZOO["residual"](), tmp_path)
    masks = every_other(case)
    small = surgery.remove_units(case.analysis.model, case.analysis, masks)
    value = small.graph.initializers["b1.conv1.weight"]
    assert value.const_value is not None
    array = np.array(value.const_value.numpy())
    array[0, 0, 0, 0] += 1e-3
    surgery.set_constant(value, array)
    with pytest.raises(SelfCheckError, match=r"'b1\.conv1'"):
        self_check(case.analysis.model, small, case.analysis, masks, case.feeds)


def test_what_the_real_inputs_saturate_the_small_removal_shows(tmp_path: Path) -> None:
    """A removal that changes nothing proves nothing, and says so."""
    proto = ZOO["mlp"]()
    (last,) = (tensor for tensor in proto.graph.initializer if tensor.name == "fc3.weight")
    last.CopyFrom(numpy_helper.from_array(np.zeros((4, 10), np.float32), last.name))
    case = prepared(proto, tmp_path)
    masks = every_other(case)
    model = case.analysis.model
    small = surgery.remove_units(model, case.analysis, masks)
    assert self_check(model, small, case.analysis, masks, case.feeds).effect == 0
    assert selfcheck._smaller(masks)["fc1"].sum() == 11


QUICK = 90  # every so many of the changed signatures
HUNT = Hunt(bundles(ALL_CASES))
BENCHMARK_SAYS = {("Conv", "sizes dropped"), ("ConvTranspose", "sizes dropped")}  # equivalent


@pytest.mark.parametrize("operator", sorted(RULES))
def test_the_tests_of_the_rules_kill_mutants(operator: str) -> None:
    """A part of what ``benchmarks/mutations.py`` tries; mended until none survived."""
    number = zlib.crc32(operator.encode()) % QUICK
    for mutant in HUNT.mutants([operator]):
        if (operator, mutant.kind) in BENCHMARK_SAYS:
            continue
        if mutant.kind in CHANGED_TEXT:
            number += 1
            if number % QUICK:
                continue
        killed = HUNT.killer(mutant) or HUNT.unchanged(mutant)
        assert killed, f"{mutant.kind} {mutant.what}"
