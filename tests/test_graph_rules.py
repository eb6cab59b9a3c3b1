"""The rule table as a whole; the files beside this one have its operators by family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import defs, helper

from onnxtrim.bench.errors import InputError
from onnxtrim.toolkit.graph.analyse import analyse
from onnxtrim.toolkit.graph.node import Frozen, NodeView
from onnxtrim.toolkit.graph.normalise import Normalised
from onnxtrim.toolkit.graph.rules import RULES, answer
from onnxtrim.toolkit.graph.selfcheck import self_check
from onnxtrim.toolkit.graph.surgery import count_parameters, parameters_after, remove_units
from tests.nets import Net, prepared
from tests.rule_case import FEEDS, Case, model_of
from tests.rule_cases import ALL_CASES, SILENT
from tests.rule_judge import check_arity, found_groups, ready, wanted_groups


def test_every_operator_of_the_table_has_cases() -> None:
    tested = {case.operator for case in (*ALL_CASES, *SILENT)}
    assert tested == RULES.keys()


def test_no_case_is_there_twice() -> None:
    cases = (*ALL_CASES, *SILENT)
    names = {(c.operator, c.title, c.opset if isinstance(c, Case) else 0) for c in cases}
    assert len(names) == len(cases)


@pytest.mark.parametrize("operator", RULES)
def test_the_table_holds_only_operators_of_onnx(operator: str) -> None:
    schema = defs.get_schema(operator, defs.onnx_opset_version(), "")
    assert schema.domain == ""


@pytest.mark.parametrize("case", SILENT, ids=lambda case: case.id)
def test_what_the_runtime_can_not_run(case: Case) -> None:
    """The groups are right all the same; the values can't be compared."""
    model = model_of([case])
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in known
    }
    shapes |= {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    shapes |= dict(zip((f"0.y{output}" for output in case.outputs), case.shapes, strict=False))
    by_hand = Normalised(ir.from_proto(model), shapes, FEEDS[0], {})
    check_arity(by_hand)
    assert found_groups(analyse(by_hand)) == wanted_groups([case])
    try:
        ready([case])
    except InputError as error:
        pytest.skip(f"ONNX Runtime has no kernel: {error}")
    pytest.fail("ONNX Runtime can run it now: move it to the other cases")


def test_what_is_not_in_the_table_freezes_with_its_domain() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], domain="com.example")
    found, rule = answer(NodeView(ir.serde.deserialize_node(node), ((2, 3),), ((2, 3),), 20))
    assert (found, rule) == (Frozen("no rule for com.example.Relu"), None)


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_chains_of_views(rank: int, seed: int, tmp_path: Path) -> None:
    """Random transposes, squeezes and reshapes with all sizes different: never wrong."""
    rng = np.random.default_rng([rank, seed])
    n = Net()
    shape = [1, *rng.permutation([2, 3, 5, 4])[: rank - 1].tolist()]
    h = n.relu(n.matmul("fc1", "x", shape[-1], 7))
    now = [*shape[:-1], 7]
    for step in range(4):
        kind = rng.integers(4)
        if kind == 0:
            order = [0, *(1 + rng.permutation(len(now) - 1)).tolist()]
            h, now = n.op("Transpose", h, perm=order), [now[axis] for axis in order]
        elif kind == 1:
            axis = int(rng.integers(1, len(now) + 1))
            h = n.op("Unsqueeze", h, n.ints(f"axes{step}", axis))
            now.insert(axis, 1)
        elif kind == 2 and len(now) > 2:
            axis = int(rng.integers(1, len(now) - 1))
            now[axis : axis + 2] = [now[axis] * now[axis + 1]]
            h = n.op("Reshape", h, n.ints(f"target{step}", -1, *now[1:]))
        elif kind == 3 and 1 in now[1:]:
            axis = now.index(1, 1)
            h = n.op("Squeeze", h, n.ints(f"axes{step}", axis))
            now.pop(axis)
    out = n.matmul("fc2", h, now[-1], 6)
    net = prepared(n.build(out, ["batch", *shape[1:]]), tmp_path)
    masks = {group.name: np.arange(group.units) % 3 != 1 for group in net.analysis.groups}
    assert masks or net.analysis.frozen
    small = remove_units(net.analysis.model, net.analysis, masks)
    assert count_parameters(small) == parameters_after(net.analysis, masks)
    self_check(net.analysis.model, small, net.analysis, masks, net.feeds)
