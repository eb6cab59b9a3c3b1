from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import onnxtrim.bench.report.page
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.report import words, write_report
from onnxtrim.bench.results import Metric
from onnxtrim.bench.run_folder import load_run
from tests import fake_run

EVIL = "<script>alert(1)</script>"
VENDOR = Path(onnxtrim.bench.report.page.__file__).parent / "vendor"


class _Page(HTMLParser):
    """Elements, texts and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def _page(folder: Path, out: Path) -> _Page:
    write_report(load_run(folder), out)
    return _Page(out.read_text(encoding="utf-8"))


def _ascii(text: str) -> str:
    """Text with a keyboard's signs for minus, times and the space that does not break."""
    for name, sign in (("MINUS SIGN", "-"), ("MULTIPLICATION SIGN", "x"), ("NO-BREAK SPACE", " ")):
        text = text.replace(unicodedata.lookup(name), sign)
    return text


def test_the_report_says_the_result_first(tmp_path: Path) -> None:
    page = _page(fake_run.write_run(tmp_path / "run"), tmp_path / "report.html")
    text = _ascii(page.text)
    assert (
        "m0.3-s0.8 is the smallest within 0.5 points: 58.0% fewer parameters, "
        "accuracy -0.31 points [-0.49, -0.13], latency 0.44x [0.42, 0.46] of the original."
    ) in text
    assert text.index("is the smallest") < text.index("Candidates")
    assert "Unfinished" not in text
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_the_table_is_marked_up_as_one(tmp_path: Path) -> None:
    page = _page(fake_run.write_run(tmp_path / "run"), tmp_path / "report.html")
    heads = [attrs.get("scope") for tag, attrs in page.elements if tag == "th"]
    assert None not in heads
    assert heads.count("row") == 1 + len(fake_run.GRID) + len(fake_run.WIDTHS)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("caption") == tags.count("table") == 2
    rows = [attrs.get("class") for tag, attrs in page.elements if tag == "tr"]
    assert rows.count("chosen") == 1


def test_the_page_can_ask_for_nothing(tmp_path: Path) -> None:
    page = _page(fake_run.write_run(tmp_path / "run"), tmp_path / "report.html")
    policies = [a["content"] for _, a in page.elements if "http-equiv" in a]
    assert len(policies) == 1
    assert "default-src 'none'" in str(policies[0])
    for tag, attrs in page.elements:
        assert "src" not in attrs, tag
        assert str(attrs.get("href", "data:,")).startswith("data:"), tag


def test_names_can_not_become_code(tmp_path: Path) -> None:
    line = fake_run.candidate(3, id=EVIL, settings={EVIL: EVIL}, warnings=[EVIL], model=EVIL)
    line["groups"][0]["name"] = EVIL
    layers = fake_run.distributions()
    layers["layers"][0] |= {"name": EVIL, "tensor": EVIL}
    spec = fake_run.spec()
    folder = fake_run.write_run(
        tmp_path / "run",
        [line],
        layers=layers,
        model=spec["model"] | {"path": EVIL, EVIL: EVIL},
        eval={"name": EVIL, EVIL: EVIL},
        data={"name": EVIL},
        machine={"cpu": EVIL, "nested": {EVIL: [EVIL]}},
        bench={"threads": EVIL},
        criterion={"name": EVIL},
        repair=EVIL,
    )
    results = folder / "results.jsonl"
    text = results.read_text(encoding="utf-8").replace("demo-output/mlp.onnx", EVIL + "$x ${y}")
    results.write_text(text, encoding="utf-8")
    page = _page(folder, tmp_path / "report.html")
    whole = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "alert(1)" in page.text
    assert whole.count("<script") == whole.count("</script>") == 4
    assert EVIL not in whole
    assert page.data["layers"][0] == EVIL
    assert page.data["chosen"] == EVIL


def test_a_name_that_is_not_unicode_is_written(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", [fake_run.candidate(3, id="a\ud800b")])
    assert "a?b" in _page(folder, tmp_path / "report.html").text


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", [fake_run.candidate(0)])
    (folder / "distributions.json").unlink()
    page = _page(folder, tmp_path / "report.html")
    assert "Unfinished: 1 of 6 candidates are measured." in page.text
    assert "statistics of the units are not there yet" in page.text
    assert page.data["panels"] == []
    assert len(page.data["plots"]) == 4


def _without(line: dict[str, Any], *starts: str) -> dict[str, Any]:
    kept = {k: v for k, v in line["metrics"].items() if not k.startswith(starts)}
    return line | {"metrics": kept}


@pytest.mark.parametrize(
    ("dropped", "titles", "word"),
    [
        (
            ("accuracy.top1", "accuracy.neg", "accuracy.mc"),
            ["Same answer as the original, %"] * 4,
            "No labelled data was given",
        ),
        (("accuracy",), ["Latency, candidate ÷ original"], "No labelled data was given"),
        (("accuracy", "latency"), [], "Neither accuracy nor latency was measured"),
    ],
)
def test_without_labels_the_rest_is_shown(
    tmp_path: Path, dropped: tuple[str, ...], titles: list[str], word: str
) -> None:
    lines = [_without(fake_run.candidate(i), *dropped) for i in range(6)]
    folder = fake_run.write_run(tmp_path / "run", lines, eval=None)
    page = _page(folder, tmp_path / "report.html")
    assert [plot["y"]["title"] for plot in page.data["plots"]] == titles
    assert word in page.text
    assert "Nothing is chosen" in page.text
    assert "chosen on the same samples" not in page.text


def test_no_candidate_within_the_budget(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", max_drop=0.01, grid=[[0.7, 1.2]])
    lines = [fake_run.candidate(5)]
    fake_run.write_run(tmp_path / "run", lines, max_drop=0.01, grid=[[0.7, 1.2]])
    page = _page(folder, tmp_path / "report.html")
    assert "No candidate stays within 0.01 points" in page.text
    assert "m0.7-s1.2 at -6.40 points" in _ascii(page.text)
    assert page.data["chosen"] is None
    assert all(panel["thresholds"] == [] for panel in page.data["panels"])


def test_what_the_intervals_leave_open_is_said(tmp_path: Path) -> None:
    line = fake_run.candidate(3)
    line["metrics"]["accuracy.top1.delta"] = fake_run.metric(-0.4, 0.3, "points")
    line["metrics"]["latency.p50.ratio"] = fake_run.metric(0.99, 0.03, "ratio")
    text = _page(fake_run.write_run(tmp_path / "run", [line]), tmp_path / "r.html").text
    assert "The loss may be larger than the budget of 0.5 points" in text
    assert "It was not shown to be faster." in text


def test_repetitions_are_drawn_once_and_named(tmp_path: Path) -> None:
    base = fake_run.candidate(3)
    twin = base | {"id": "twin", "same_as": base["id"]}
    page = _page(fake_run.write_run(tmp_path / "run", [base, twin]), tmp_path / "r.html")
    assert [p["id"] for p in page.data["plots"][0]["points"]] == ["original", base["id"]]
    assert "identical: twin" in page.data["candidates"][base["id"]]
    assert f"same as {base['id']}" in page.text


def test_histograms_count_every_unit_and_draw_the_thresholds(tmp_path: Path) -> None:
    layers = fake_run.distributions()
    layers["layers"][0]["mean"][0] = 1e6  # must not squeeze the others into one bin
    folder = fake_run.write_run(
        tmp_path / "run", layers=layers, criterion={"name": "threshold", "absolute": True}
    )
    page = _page(folder, tmp_path / "r.html")
    means, deviations = page.data["panels"]
    for panel in (means, deviations):
        assert [sum(s) for s in panel["shares"]] == pytest.approx([1, 1, 1], abs=1e-3)
    assert means["edges"][-1] < 10
    assert means["thresholds"] == [-0.3, 0.3]
    assert deviations["thresholds"] == [0.8]
    assert means["edges"][0] <= -0.3


def test_layers_of_one_group_are_told_apart(tmp_path: Path) -> None:
    layers = fake_run.distributions()
    layers["layers"][1]["name"] = "fc1"
    page = _page(fake_run.write_run(tmp_path / "run", layers=layers), tmp_path / "r.html")
    assert page.data["layers"] == ["fc1 · relu_1", "fc1 · relu_2", "fc3"]


def test_constant_statistics_are_drawn(tmp_path: Path) -> None:
    layer = {"name": "a", "tensor": "t", "units": 2, "mean": [0.0, 0.0], "std": [0.0, 0.0]}
    layers = {"schema": "onnxtrim.distributions/1", "layers": [layer]}
    line = fake_run.candidate(3, settings={})
    page = _page(fake_run.write_run(tmp_path / "run", [line], layers=layers), tmp_path / "r.html")
    assert sum(page.data["panels"][0]["shares"][0]) == pytest.approx(1)


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    run = load_run(fake_run.write_run(tmp_path / "run"))
    with pytest.raises(InputError, match="does not exist; make it first"):
        write_report(run, tmp_path / "nowhere" / "report.html")
    with pytest.raises(InputError, match="is a folder"):
        write_report(run, tmp_path)


@pytest.mark.parametrize(
    ("name", "licence", "version"),
    [
        ("plotly-basic.min.js", "LICENSE.plotly.txt", rb"plotly.js .*v(\d+\.\d+\.\d+)"),
        ("dagre.min.js", "LICENSE.dagre.txt", rb'"(\d+\.\d+\.\d+)";'),
    ],
)
def test_the_libraries_are_those_described(name: str, licence: str, version: bytes) -> None:
    content = (VENDOR / name).read_bytes()
    lines = (VENDOR / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"| `{name}`"))
    assert hashlib.sha256(content).hexdigest() in line
    found = re.search(version, content)
    assert found
    assert f"| {found[1].decode()} |" in line
    assert licence in line
    notice = (VENDOR / licence).read_text(encoding="utf-8")
    assert "Permission is hereby granted, free of charge" in " ".join(notice.split())


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (999.4, "bytes", "999 B"),
        (999.6, "bytes", "1.00 kB"),
        (5_855_152, "bytes", "5.86 MB"),
        (12_340_000, "bytes", "12.3 MB"),
        (123_400_000, "bytes", "123 MB"),
        (0.8812, "share", "88.12%"),
        (-0.001, "points", "0.00"),
        (-0.31, "points", "-0.31"),
        (0.2, "points", "+0.20"),
        (0.4449, "ratio", "0.44x"),
        (1_462_538, "parameters", "1,462,538"),
        (0.2123, "ms", "0.212 ms"),
    ],
)
def test_numbers_are_written_for_people(value: float, unit: str, text: str) -> None:
    assert _ascii(words.plain(Metric.exact(value, unit))) == text
    assert words.interval(Metric.exact(value, unit)) == ""


def test_settings_are_written_for_people() -> None:
    values = {"a": {"b": 4.7637342627061295e-07}, "c": [1.5, 2], "d": True, "e": 12345, "f": None}
    told = dict(words.flatten(values))
    assert told == {"a b": "4.764e\N{MINUS SIGN}07", "c": "1.5, 2", "d": "yes", "e": "12,345"}
