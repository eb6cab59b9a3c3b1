"""Judge a rule by its cases: golden groups, surgery, and the self-check over every tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir

from onnxtrim.toolkit.graph.analyse import analyse
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
    found: Groups = {}
    for number, case in enumerate(cases):
        prefix = "" if isinstance(case, Whole) else f"{number}."
        found |= _wanted(case.inner if inner else case.groups, prefix)
    return found


def _wanted(text: str, prefix: str) -> Groups:
    parts = [part.split("=") for part in text.split(";") if part.strip()]
    return {" ".join(sorted(prefix + axis for axis in axes.split())): int(n) for axes, n in parts}


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
    assert not [item for item in outer.frozen if item.reason.startswith("no rule")]
    _compare(found_groups(outer), wanted_groups(bundle))
    inner = outer.inner or replace(outer, groups=())
    _compare(found_groups(inner), wanted_groups(bundle, inner=True))
    blind = bundle.blind if isinstance(bundle, Whole) else all(case.blind for case in bundle)
    feeds = bundle.feeds if isinstance(bundle, Whole) else FEEDS
    _shrink(outer, feeds, blind=blind)
    if inner.groups:
        # The second stage tells only what is new; the rest must be there too.
        whole = analyse(normalised, inner.choices)
        _compare(found_groups(whole), _second(wanted_groups(bundle), found_groups(inner)))
        _shrink(whole, feeds, blind=blind)
    _judge_middle(bundle, normalised)


def _compare(found: Groups, wanted: Groups) -> None:
    more = sorted(found.items() - wanted.items())
    less = sorted(wanted.items() - found.items())
    assert not more and not less, f"found {more}, wanted {less}"


def _judge_middle(bundle: Bundle, normalised: Normalised) -> None:
    """Alternatives between the first and the last, which the search may take in larger nets."""
    cases: Sequence[AnyCase] = [bundle] if isinstance(bundle, Whole) else bundle
    many = {step.name: step.alternatives for step in steps(normalised) if step.alternatives > 2}
    for number, case in enumerate(cases):
        node = f"{number}.node"
        if isinstance(case, Case):
            assert len(case.middle) == max(many.get(node, 0) - 2, 0)
            for choice, text in enumerate(case.middle, start=1):
                analysis = analyse(normalised, {node: choice})
                found = found_groups(analysis)
                mine = {axes: n for axes, n in found.items() if axes.startswith(f"{number}.")}
                _compare(mine, _wanted(text, f"{number}."))
                _shrink(analysis, FEEDS, blind=True)


def _second(outer: Groups, inner: Groups) -> Groups:
    """The groups of the second stage, and those of the first that lie on none of their axes."""
    taken = {axis for axes in inner for axis in axes.split()}
    return inner | {axes: n for axes, n in outer.items() if not taken & set(axes.split())}


def _shrink(analysis: Analysis, feeds: Sequence[Feeds], *, blind: bool) -> None:
    masks = {group.name: np.arange(group.units) % 3 != 1 for group in analysis.groups}
    small = remove_units(analysis.model, analysis, masks)
    assert count_parameters(small) == parameters_after(analysis, masks)
    check = self_check(analysis.model, small, analysis, masks, feeds)
    assert blind or not masks or check.effect > 1e-5
