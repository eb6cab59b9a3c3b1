"""The release gate: a policy, what was measured, and a verdict that does not pass by luck."""

from onnxtrim.bench.gate.judge import Judgement, RuleVerdict, check_result, judge
from onnxtrim.bench.gate.measure import measure_for
from onnxtrim.bench.gate.policy import Policy, Rule, Target, Waiver, load_policy, parse_policy

__all__ = [
    "Judgement",
    "Policy",
    "Rule",
    "RuleVerdict",
    "Target",
    "Waiver",
    "check_result",
    "judge",
    "load_policy",
    "measure_for",
    "parse_policy",
]
