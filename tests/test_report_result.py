"""The report of one result, without a browser."""

from __future__ import annotations

import json
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import pytest

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.report import metric_names, write_result_report
from onnxtrim.bench.result_file import digest, save_result
from onnxtrim.bench.results import Metric
from tests import fake_result, fake_run
from tests.cli import refused, run
from tests.gate_cases import policy
from tests.page import Page, ascii_of

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def _page(found: Measurement, folder: Path, judgement: Any = None) -> Page:
    write_result_report(found, folder / "result.html", judgement)
    return Page.read(folder / "result.html")


def test_the_result_is_said_first(tmp_path: Path) -> None:
    page = _page(fake_result.measurement(), tmp_path)
    wanted = (
        "The candidate takes, of the original's, 0.620 [0.615, 0.626] of the time, 0.736 [0.715,"
        " 0.759] of the peak memory and 0.250 of the file; its top-1 accuracy changes by -0.20"
        " points [-0.66, +0.24], which may be chance."
    )
    assert ascii_of(page.data["verdict"]) == wanted
    text = ascii_of(page.text)
    assert wanted in text
    assert text.index(wanted) < text.index("All metrics")
    assert "Asked of the measurement: ? inconclusive: the difference in accuracy lies in" in text
    assert "memory of the model still grows" in text
    assert (tmp_path / "result.html").stat().st_size < 2_000_000


def test_the_words_of_a_policy_stand_at_the_top_as_they_are(tmp_path: Path) -> None:
    said = 'Fail: memory & time [0.62, 0.64] > 0.5 \N{EN DASH} "2 of 6" rules.'
    page = _page(fake_result.measurement(), tmp_path, fake_result.judgement("fail", said))
    assert page.data["verdict"] == said
    assert page.data["answer"] == "fail"
    whole = (tmp_path / "result.html").read_text(encoding="utf-8")
    assert f'<p class="verdict">{escape(said)}</p>' in whole
    assert "Policy gate.toml, target laptop. The candidate was chosen from 6" in page.text
    for word in ("pass", "fail", "inconclusive", "missing", "waived"):
        assert f"</span> {word}</b>" in whole
    assert whole.count("not known after 6 launches") == 1
    assert "required" in page.text
    assert "another candidate, or other limits" in page.text, "the next step"
    short = replace(fake_result.judgement(), tried=1, policy={})
    text = _page(fake_result.measurement(), tmp_path, short).text
    assert "The policy, target laptop." in text
    assert "chosen from" not in text
    assert "measure on the device" in text


def test_when_and_where_it_was_measured_is_said(tmp_path: Path) -> None:
    found = fake_result.measurement()
    found.details["measured_at"] = "2026-11-26T14:12:31+00:00"
    text = _page(found, tmp_path).text
    assert "Measured: 2026-11-26 14:12 UTC, AMD EPYC 7B13, " in text
    assert "1 thread, 2,000 samples of test.npz." in text
    assert "let 'onnxtrim gate' judge it" in text


def test_the_forest_holds_every_ratio_with_its_limits(tmp_path: Path) -> None:
    found = fake_result.measurement()
    rows = _page(found, tmp_path, fake_result.judgement()).data["forest"]["rows"]
    ratios = {name: m for name, m in found.metrics.items() if name.endswith(".ratio")}
    by_name = {row["name"]: row for row in rows}
    assert set(by_name) == set(ratios)
    for name, row in by_name.items():
        metric = ratios[name]
        assert row["x"] == pytest.approx([metric.value, metric.low, metric.high], rel=1e-5)
    limits = {name: row["limits"] for name, row in by_name.items() if row["limits"]}
    assert limits == {
        "latency.p50.ratio": [[0.8, "\N{LESS-THAN OR EQUAL TO} 0.8"]],
        "model.file_bytes.ratio": [[0.5, "\N{LESS-THAN OR EQUAL TO} 0.5"]],
        "memory.run_peak.ratio": [[0.7, "\N{LESS-THAN OR EQUAL TO} 0.7"]],
    }
    assert by_name["latency.copy.ratio"]["role"] == "copy"
    assert by_name["latency.copy.ratio"]["label"] == "Original against itself (99%)"
    assert by_name["latency.p50.ratio"]["role"] == "better"
    assert by_name["throughput.1x8.ratio"]["role"] == "better"  # more of it
    assert by_name["load.first_run.ratio"]["role"] == "open"


def test_a_worse_candidate_and_the_limit_of_the_measurement(tmp_path: Path) -> None:
    found = fake_result.measurement(latency=None, warnings=(), details={}, verdict=None)
    settings = {**found.settings, "limit": 1.02}
    latency = fake_result.latency(ratio=1.1)
    found = replace(found, settings=settings, details={"feeds": "random"}).with_latency(latency)
    page = _page(found, tmp_path)
    row = next(row for row in page.data["forest"]["rows"] if row["name"] == "latency.p50.ratio")
    assert row["role"] == "worse"
    assert page.data["verdict"].endswith(" It is slower.")
    assert row["limits"] == [[1.02, "\N{LESS-THAN OR EQUAL TO} 1.02"]]
    assert page.data["launches"]["limits"] == row["limits"]
    assert "Asked of the measurement: \N{BALLOT X} fail: latency ratio" in page.text
    assert "Real inputs: they were random numbers" in page.text


def test_an_original_that_differs_from_itself_is_told(tmp_path: Path) -> None:
    found = fake_result.measurement().with_latency(fake_result.latency(again=1.2))
    page = _page(found, tmp_path)
    assert "The original differed from itself meanwhile" in page.data["verdict"]


def test_launches_are_those_of_the_result(tmp_path: Path) -> None:
    found = fake_result.measurement()
    launches = _page(found, tmp_path).data["launches"]
    assert found.latency is not None
    assert len(launches["values"]) == len(launches["copies"]) == fake_result.LAUNCHES
    about = found.details["latency"]
    assert launches["values"] == pytest.approx(about["p50_ratio"], rel=1e-5)
    assert launches["copies"] == pytest.approx(about["copy_ratio"], rel=1e-5)


def test_layers_classes_and_flips(tmp_path: Path) -> None:
    text = ascii_of(_page(fake_result.measurement(), tmp_path).text)
    assert "12 answers are newly wrong, 8 newly right (flips)" in text
    assert "Accuracy by class" in text
    assert "/features/1/conv" in text
    assert "channels are no multiple of what a kernel takes at once" in text
    assert "added by ONNX Runtime" in text
    for told in ("b2" * 32, "c3" * 32, "3f" * 32, "AMD EPYC 7B13", "1.32.0"):
        assert told in text


def test_a_single_model_has_no_forest(tmp_path: Path) -> None:
    page = _page(fake_result.measurement(pair=False), tmp_path)
    said = ascii_of(page.data["verdict"])
    assert said.startswith("The model takes 0.209 ms [0.208, 0.210] a call, needs 8.10 MB")
    assert said in ascii_of(page.text)
    assert page.data["forest"]["rows"] == []
    assert page.data["launches"]["pair"] is False
    assert "ratios-plot" not in [attrs.get("id") for _, attrs in page.elements]
    assert "Original" not in page.text
    assert "/features/0/conv" in page.text


def test_the_next_step_of_a_gate_that_lacks_something(tmp_path: Path) -> None:
    missing = fake_result.Rule("latency.p50.ratio", "missing", "x", why="it was not measured")
    judgement = replace(fake_result.judgement("fail", "FAIL: not measured"), rules=(missing,))
    text = _page(fake_result.measurement(), tmp_path, judgement).text
    assert "Next: measure what is missing" in text


def test_bars_of_classes_claim_no_more_than_is_known(tmp_path: Path) -> None:
    """Pale where chance may explain a change, and where no interval tells."""
    found = fake_result.measurement()
    ends: tuple[dict[str, float], ...]
    ends = ({"low": -3.0, "high": -1.0}, {"low": -3.0, "high": 1.0}, {}, {"low": 1.0, "high": 3.0})
    whole = found.details["accuracy"]["classes"][0]
    found.details["accuracy"]["classes"] = [
        {**whole, "class": n, "delta": {"value": 2.0 if n == 3 else -2.0, **end}}
        for n, end in enumerate(ends)
    ]
    _page(found, tmp_path)
    page = (tmp_path / "result.html").read_text(encoding="utf-8")
    counts = [page.count(f'<span class="{kind}"') for kind in ("down", "chance", "up")]
    assert counts == [1, 2, 1]


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    found = fake_result.measurement(details={"feeds": "random"}, latency=None, verdict=None)
    found = replace(found, metrics={"model.file_bytes.ratio": Metric.exact(0.25, "ratio")})
    page = _page(found, tmp_path)
    assert page.data["launches"] is None
    assert "Not measured: latency, throughput, energy, memory, accuracy." in page.text
    assert "Whether the answers are right: no labelled data was given." in page.text
    assert "Other machines" not in page.text
    assert "The candidate takes, of the original's, 0.250 of the file." in page.text
    page = _page(fake_result.measurement(), tmp_path)
    assert "Not measured: energy." in page.text
    assert "no labelled data" not in page.text


def test_names_can_not_become_code(tmp_path: Path) -> None:
    found = fake_result.measurement(pair=True)
    profile = found.details["profile"]
    profile["layers"][0] |= {"name": EVIL, "operator": EVIL, "reason": EVIL}
    profile["others"][0] |= {"operator": EVIL}
    found.details["accuracy"]["classes"][0]["class"] = EVIL
    found.details["data"]["name"] = EVIL
    found = replace(
        found,
        model={"path": EVIL + "$x ${y}", "sha256": EVIL},
        original={"path": EVIL, "sha256": EVIL},
        metrics=found.metrics
        | {f"accuracy.{EVIL}": Metric.exact(1, EVIL)}
        | {f"memory.{EVIL}.ratio": Metric(1, 0.5, 2, "ratio")},
        machine={"cpu": EVIL, EVIL: [EVIL, {EVIL: EVIL}]},
        settings=found.settings | {EVIL: EVIL},
        warnings=(EVIL,),
    )
    rule = fake_result.Rule(EVIL, EVIL, EVIL, 0.5, unit="ratio", bound=0.5, level=EVIL, why=EVIL)
    judgement = replace(fake_result.judgement(EVIL, EVIL), rules=(rule,), target=EVIL)
    page = _page(found, tmp_path, judgement)
    whole = (tmp_path / "result.html").read_text(encoding="utf-8")
    assert whole.count("<script") == whole.count("</script>") == 4
    assert "<img" not in whole
    assert EVIL not in whole
    assert page.data["verdict"] == EVIL
    assert f"memory.{EVIL}" in [row["label"] for row in page.data["forest"]["rows"]]


@pytest.mark.parametrize(
    "details",
    [
        {"accuracy": {"samples": 3}},
        {"accuracy": 3},
        {"data": "name"},
        {"profile": {"layers": [{"name": "a"}], "others": []}},
        {"profile": {"block": 8, "layers": [], "others": [{"operator": "a"}]}},
    ],
)
def test_damaged_details_are_refused(tmp_path: Path, details: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="details of the result are damaged"):
        _page(fake_result.measurement(details=details, latency=None, verdict=None), tmp_path)
    assert not (tmp_path / "result.html").exists()


@pytest.mark.parametrize(
    ("name", "label", "family"),
    [
        ("latency.p50.ratio", "Time of a call, median", "Latency"),
        ("memory.steady.arena_on.original", "Memory after many runs, arena on", "Memory"),
        ("throughput.2x16", "Samples per second, 2 threads, 16 per call", "Throughput"),
        ("throughput.1x1.cpu.ratio", "CPU time per sample, 1 thread, 1 per call", "Throughput"),
        ("accuracy.my.module:score.delta", "accuracy.my.module:score", "Accuracy"),
        ("other.thing", "other.thing", "Others"),
    ],
)
def test_metrics_have_names_for_people(name: str, label: str, family: str) -> None:
    assert metric_names.label(name) == label
    assert metric_names.family(name) == family


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder with ``result.json``."""
    monkeypatch.chdir(tmp_path)
    save_result(fake_result.measurement(), tmp_path / "result.json")
    return tmp_path


def test_the_command_writes_the_page_beside_the_result(result: Path) -> None:
    value = run("report", "result.json", "--json").json()
    assert value == {"schema": "onnxtrim.report/1", "output": "result.html", "plots": []}
    assert Page.read(result / "result.html").data["verdict"].startswith("The candidate takes, of")
    assert "written: other.html" in run("report", "result.json", "-o", "other.html").err


def test_a_policy_judges_the_result(result: Path) -> None:
    Path("gate.toml").write_text(policy("latency.p50.ratio max = 0.9", "memory.steady max = '1 B'"))
    assert run("report", "result.json", "--policy", "gate.toml", "--target", "here").code == 0
    words = Page.read(result / "result.html").data["verdict"]
    assert words.startswith("FAIL: ")
    judged = run("gate", "gate.toml", "--from", "result.json", "--quiet")
    assert judged.out.strip() == words or judged.code == 2, "elsewhere it may only be shown"
    refused("report", "result.json", "--policy", "gate.toml", "--target", "x", says="no target 'x'")
    Path("gate.toml").write_text(
        policy("latency.p50.ratio max = 0.9").replace("threads = 1", "threads = 3")
    )
    refused("report", "result.json", "--policy", "gate.toml", says="measured with threads = 1")


def test_the_command_refuses_what_does_not_fit(result: Path) -> None:
    fake_run.write_run(result / "run")
    refused("report", "run", "--policy", "gate.toml", says="--policy judges a result, and run")
    refused("report", "result.json", "--plots", "p", says="save the plots of a result from its")
    refused("report", "result.json", "--target", "phone", says="--target needs --policy")
    refused("report", "result.json", "-o", "result.json", says="the output is the input")
    refused("report", "result.json", "-o", "result.npz", says="the output is the input")
    value = json.loads(Path("result.json").read_text())
    del value["details"]["profile"]["layers"]
    Path("result.json").write_text(json.dumps({**value, "digest": digest(value)}))
    refused("report", "result.json", says="details of the result are damaged")
    assert not Path("result.html").exists()
