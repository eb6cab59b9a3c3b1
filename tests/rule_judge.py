"""Judge a rule by its cases: golden groups, surgery, and the self-check over every tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from onnxtrim.toolkit.graph.analyse import analyse, inner_analysis
from onnxtrim.toolkit.graph.execute import Feeds
from onnxtrim.toolkit.graph.groups import Analysis
from onnxtrim.toolkit.graph.normalise import Normalised, normalise
from onnxtrim.toolkit.graph.propagate import steps
from onnxtrim.toolkit.graph.selfcheck import self_check
from onnxtrim.toolkit.graph.signature import parse
from onnxtrim.toolkit.graph.surgery import count_parameters, parameters_after, remove_units
from tests.rule_case import FEEDS, AnyCase, Case, Whole, model_of

Bundle = list[Case] | Whole


def bundles(cases: Iterable[AnyCase], name: str = "") -> dict[str, Bundle]:
    """Cases that fit in one model, by operator or all: one self-check of many costs little more."""
    found: dict[str, list[Case]] = defaultdict(list)
    alone: dict[str, Bundle] = {}
    for case in cases:
        if isinstance(case, Whole):
            alone[f"{case.operator}: {case.title}"] = case
        else:
            found[f"{name or case.operator} {case.opset}"].append(case)
    return {**found, **alone}


def ready(bundle: Bundle) -> Normalised:
    """The model as the analysis takes it; the rule table has no part in this.

    Raises:
        InputError: ONNX Runtime refuses the model.
    """
    if isinstance(bundle, Whole):
        return normalise(ir.from_proto(bundle.build()), bundle.feeds)
    return normalise(ir.from_proto(model_of(bundle)), FEEDS[:1])


Groups = dict[str, int]


def found_groups(analysis: Analysis) -> Groups:
    """For every group the axes of constants that it lies on, with its units."""
    constants = analysis.model.graph.initializers
    return {
        " ".join(sorted(f"{tensor}{axis}" for tensor, axis in group.slices if tensor in constants)):
        group.units
        for group in analysis.groups
    }  # fmt: skip


def wanted_groups(bundle: Bundle, *, inner: bool = False) -> Groups:
    """The golden groups; the constants of the k-th of several cases begin with its number."""
    cases: Sequence[AnyCase] = [bundle] if isinstance(bundle, Whole) else bundle
    found = {}
    for number, case in enumerate(cases):
        prefix = "" if isinstance(case, Whole) else f"{number}."
        for part in (case.inner if inner else case.groups).split(";"):
            if part.strip():
                axes, units = part.split("=")
                found[" ".join(sorted(prefix + axis for axis in axes.split()))] = int(units)
    return found


def check_arity(normalised: Normalised) -> None:
    """No signature has fewer operands than its node or more than ONNX allows."""
    for step in steps(normalised):
        said = (step.answer,) if isinstance(step.answer, str) else step.answer
        if step.rule is None or not isinstance(said, tuple):
            continue
        node, opset = step.view.node, step.view.opset
        schema = onnx.defs.get_schema(node.op_type, opset, "")
        for signature in map(parse, said):
            assert len(node.inputs) <= len(signature.inputs) <= max(schema.max_input, 1)
            assert len(node.outputs) <= len(signature.outputs) <= schema.max_output


def judge(bundle: Bundle, normalised: Normalised) -> None:
    """Compare the groups, remove a third of them, and let the self-check compare all tensors.

    Raises:
        Exception: Of whatever kind if anything is wrong.
    """
    check_arity(normalised)
    outer = analyse(normalised)
    assert found_groups(outer) == wanted_groups(bundle)
    inner = inner_analysis(normalised, outer)
    assert found_groups(inner) == wanted_groups(bundle, inner=True)
    blind = bundle.blind if isinstance(bundle, Whole) else all(case.blind for case in bundle)
    feeds = bundle.feeds if isinstance(bundle, Whole) else FEEDS
    _shrink(outer, feeds, blind=blind)
    if inner.groups:
        _shrink(inner, feeds, blind=blind)


def _shrink(analysis: Analysis, feeds: Sequence[Feeds], *, blind: bool) -> None:
    masks = {group.name: np.arange(group.units) % 3 != 1 for group in analysis.groups}
    small = remove_units(analysis.model, analysis, masks)
    assert count_parameters(small) == parameters_after(analysis, masks)
    check = self_check(analysis.model, small, analysis, masks, feeds)
    assert blind or not masks or check.effect > 1e-5
