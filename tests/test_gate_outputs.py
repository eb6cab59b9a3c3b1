"""What the gate writes for CI servers, and names that try to be more than names."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.gate import Judgement, judge, parse_policy
from onnxtrim.bench.gate.outputs import append_summary, github_commands, junit, markdown
from tests.gate_cases import measurement, policy, waiver

EVIL = "<script>alert(1)</script>]]>&\x00\x1b[31m|`::error::%0A\n\ud800"
RULES = (
    "latency.p50.ratio max = 0.9",
    "latency.p10.ratio max = 0.7",
    "memory.run_peak max = '1 MiB'",
    "accuracy.rmse max = 1",
    "accuracy.top1.delta min = '0 pp'",
    "model.file_bytes.ratio max = 0.1; level = 'warn'",
)


@pytest.fixture(scope="module")
def judged() -> Judgement:
    text = policy(*RULES, waiver=waiver("memory.run_peak"))
    found = measurement()
    assert found.original is not None
    return judge(
        replace(found, model={**found.model, "path": f"runs/{EVIL}.onnx"}), parse_policy(text)
    )


def test_junit(judged: Judgement) -> None:
    text = junit(replace(judged, target=EVIL))
    text.encode("utf-8")
    suite = ET.fromstring(text)
    assert suite.tag == "testsuite"
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": 6, "failures": 2, "errors": 1, "skipped": 2}
    kinds = {
        case.attrib["name"].split()[0]: [part.tag for part in case]
        for case in suite.iter("testcase")
    }
    assert kinds == {
        "latency.p50.ratio": ["system-out"],
        "latency.p10.ratio": ["failure", "system-out"],
        "memory.run_peak": ["skipped", "system-out"],
        "accuracy.rmse": ["failure", "system-out"],
        "accuracy.top1.delta": ["error", "system-out"],
        "model.file_bytes.ratio": ["skipped", "system-out"],
    }
    assert all(
        case.attrib["classname"].startswith("onnxtrim.gate.") for case in suite.iter("testcase")
    )


def test_junit_of_what_is_let_through() -> None:
    """An open rule is no error where the policy takes it, or the build would be red."""
    text = policy("accuracy.top1.delta min = '0 pp'", gate='on_inconclusive = "warn"')
    found = judge(measurement(), parse_policy(text))
    assert (found.verdict, found.code) == ("inconclusive", 0)
    (suite,) = ET.fromstring(junit(found)).iter("testsuite")
    assert (suite.attrib["errors"], suite.attrib["skipped"]) == ("0", "1")


def test_junit_follows_the_schema_of_jenkins(judged: Judgement) -> None:
    xmlschema = pytest.importorskip("xmlschema")
    schema = xmlschema.XMLSchema(str(Path(__file__).parent / "data" / "junit-10.xsd"))
    schema.validate(junit(judged))
    with pytest.raises(xmlschema.XMLSchemaException):
        schema.validate(junit(judged).replace("testcase", "case"))


def test_markdown(judged: Judgement) -> None:
    text = markdown(judged)
    assert text.startswith("### FAIL: latency.p10.ratio")
    assert "<script>" not in text.replace("`", "\0").split("\0")[0::2].__str__()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(RULES)
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)


def test_github(judged: Judgement, tmp_path: Path) -> None:
    lines = github_commands(replace(judged, target=EVIL))
    assert lines[0].startswith("::error title=onnxtrim gate::FAIL")
    assert len(lines) == 1 + 5
    assert all(line.startswith("::") and "\n" not in line for line in lines)
    assert sum(line.startswith("::error") for line in lines[1:]) == 2
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    assert append_summary(judged, {"GITHUB_STEP_SUMMARY": str(summary)})
    assert summary.read_text().startswith("before\n### FAIL")
    assert not append_summary(judged, {})
    with pytest.raises(InputError, match="can't be written"):
        append_summary(judged, {"GITHUB_STEP_SUMMARY": str(tmp_path)})


def test_json_of_evil_names(judged: Judgement) -> None:
    value = json.loads(json.dumps(judged.to_json(), allow_nan=False))
    assert value["candidate"]["path"].startswith("runs/<script>"), "JSON needs no escape"
