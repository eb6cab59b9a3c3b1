from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

import onnxtrim.bench.report.page
from onnxtrim.bench.errors import InputError
from onnxtrim.bench.report import words, write_report
from onnxtrim.bench.results import Metric
from onnxtrim.bench.run_folder import load_run
from tests import browser, fake_run
from tests.page import Page, ascii_of

EVIL = "<script>alert(1)</script>"
MIT = "Permission is hereby granted, free of charge"
VENDOR = Path(onnxtrim.bench.report.page.__file__).parent / "vendor"


def _page(folder: Path, out: Path) -> Page:
    write_report(load_run(folder), out)
    return Page.read(out)


def test_the_report_says_the_result_first(tmp_path: Path) -> None:
    page = _page(fake_run.write_run(tmp_path / "run"), tmp_path / "report.html")
    text = ascii_of(page.text)
    assert (
        "Smallest within 0.5 points, and shown to be: m0.3-s0.8, 58.0% fewer"
        " parameters, accuracy -0.31 points [-0.49, -0.13], latency 0.44x [0.42, 0.46] of the"
        " original."
    ) in text
    assert text.index("Smallest within") < text.index("Candidates")
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
    assert "m0.7-s1.2 at -6.40 points" in ascii_of(page.text)
    assert page.data["chosen"] is None
    assert all(panel["thresholds"] == [] for panel in page.data["panels"])


def test_what_the_intervals_leave_open_is_said(tmp_path: Path) -> None:
    line = fake_run.candidate(3)
    line["metrics"]["accuracy.top1.delta"] = fake_run.metric(-0.4, 0.3, "points")
    line["metrics"]["latency.p50.ratio"] = fake_run.metric(0.99, 0.03, "ratio")
    text = _page(fake_run.write_run(tmp_path / "run", [line]), tmp_path / "r.html").text
    assert "Smallest within 0.5 points, but unproven: " in text
    assert "Its loss may reach 0.70 points. More evaluation data would tell." in text
    assert "It was not shown to be faster." in text
    safe = fake_run.candidate(2)
    safe["metrics"]["accuracy.top1.delta"] = fake_run.metric(-0.1, 0.3, "points")
    page = _page(fake_run.write_run(tmp_path / "run", [line, safe]), tmp_path / "r.html")
    assert f"Safe choice, shown to lose less than 0.5 points: {safe['id']}, " in page.text
    assert f"Smaller, but unproven: {line['id']}, " in page.text
    whole = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert [whole.count(f"<td>{word}</td>") for word in ("yes", "unproven", "no")] == [1, 1, 0]


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


def test_it_says_why_groups_stayed(tmp_path: Path) -> None:
    line = fake_run.candidate(3, settings={"mean_below": 0.3, "std_below": 0.02})
    for group in line["groups"][:2]:
        group["after"] = group["before"]
    layers = fake_run.distributions()
    layers["layers"][1]["std"][:2] = [0.01, 0.01]
    layers["layers"][1]["mean"][:2] = [0.1, 0.5]
    text = _page(
        fake_run.write_run(tmp_path / "a", [line], layers=layers), tmp_path / "a.html"
    ).text
    assert "Why it stayed" in text
    assert text.count("no unit is below both thresholds; the lowest mean is") == 1
    assert "1 unit is below both thresholds, but can't leave alone" in text
    line["settings"] = {"remove": 0.5}
    text = _page(fake_run.write_run(tmp_path / "b", [line]), tmp_path / "b.html").text
    assert text.count("units of other groups cost the outputs less") == 2


def test_many_warnings_are_cut_short(tmp_path: Path) -> None:
    lines = [
        fake_run.candidate(0, id=f"c{number}", warnings=["the same", f"own {number}"])
        for number in range(150)
    ]
    text = _page(fake_run.write_run(tmp_path / "run", lines), tmp_path / "r.html").text
    assert "the same (c0, c1, c2, c3, c4, c5, c6, c7 and 142 more)" in text
    assert "and 51 more, in results.jsonl" in text


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    run = load_run(fake_run.write_run(tmp_path / "run"))
    with pytest.raises(InputError, match="does not exist; make it first"):
        write_report(run, tmp_path / "nowhere" / "report.html")
    with pytest.raises(InputError, match="is a folder"):
        write_report(run, tmp_path)


@pytest.mark.parametrize(
    ("file", "licence", "version", "words"),
    [
        (VENDOR / "plotly-basic.min.js", "plotly", rb"plotly.js .*v(\d+\.\d+\.\d+)", MIT),
        (VENDOR / "dagre.min.js", "dagre", rb'"(\d+\.\d+\.\d+)";', MIT),
        (browser.AXE, "axe-core", rb"axe v(\d+\.\d+\.\d+)", "Mozilla Public License"),
    ],
)
def test_the_libraries_are_those_described(
    file: Path, licence: str, version: bytes, words: str
) -> None:
    name, licence = file.name, f"LICENSE.{licence}.txt"
    content = file.read_bytes()
    lines = (file.parent / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"| `{name}`"))
    assert hashlib.sha256(content).hexdigest() in line
    found = re.search(version, content)
    assert found
    assert f"| {found[1].decode()} |" in line
    assert licence in line
    notice = (file.parent / licence).read_text(encoding="utf-8")
    assert words in " ".join(notice.split())


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
        (1234.5, "ms", "1,234 ms"),
        (12_400.0, "samples/s", "12,400 samples/s"),
        (8.1e-5, "s/sample", "0.0810 ms/sample"),
        (0.0, "J", "0 J"),
        (2e-7, "value", "2e-07"),
    ],
)
def test_numbers_are_written_for_people(value: float, unit: str, text: str) -> None:
    assert ascii_of(words.plain(Metric.exact(value, unit))) == text
    assert words.interval(Metric.exact(value, unit)) == ""


def test_settings_are_written_for_people() -> None:
    values = {"a": {"b": 4.7637342627061295e-07}, "c": [1.5, 2], "d": True, "e": 12345, "f": None}
    told = dict(words.flatten(values))
    assert told == {"a b": "4.764e\N{MINUS SIGN}07", "c": "1.5, 2", "d": "yes", "e": "12,345"}
