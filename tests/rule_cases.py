"""The cases of all families."""

from __future__ import annotations

from tests import (
    test_graph_rules_images,
    test_graph_rules_norms,
    test_graph_rules_pointwise,
    test_graph_rules_products,
    test_graph_rules_recurrent,
    test_graph_rules_shapes,
    test_graph_rules_splice,
)
from tests.rule_case import AnyCase, Case
from tests.rule_judge import Bundle

_FAMILIES = (
    test_graph_rules_images,
    test_graph_rules_norms,
    test_graph_rules_pointwise,
    test_graph_rules_products,
    test_graph_rules_recurrent,
    test_graph_rules_shapes,
    test_graph_rules_splice,
)

ALL_CASES: list[AnyCase] = [case for family in _FAMILIES for case in family.CASES]
SILENT: list[Case] = test_graph_rules_recurrent.SILENT  # of which ONNX Runtime has no kernel
ALL_BUNDLES: dict[str, Bundle] = {
    name: bundle for family in _FAMILIES for name, bundle in family.BUNDLES.items()
}
