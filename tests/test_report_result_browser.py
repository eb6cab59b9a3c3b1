"""The report of one result in a real browser that has no network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnxtrim.bench.measurement import Measurement
from onnxtrim.bench.report import write_result_report
from onnxtrim.bench.results import Metric
from tests import browser, fake_result

EVIL = "<b>b</b><img src=x onerror=alert(1)></script><script>alert(1)</script>"
PLOTS = ("ratios-plot", "launches-plot")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser.offline_browser() as opened:
        yield opened


def _open(
    driver: Any, tmp_path: Path, found: Measurement | None = None, judgement: Any = None
) -> str:
    page = tmp_path / "result.html"
    write_result_report(found or fake_result.measurement(), page, judgement)
    browser.console(driver), browser.requests(driver)  # what came before
    driver.get(page.as_uri())
    return page.as_uri()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_plots_and_hover_without_a_network(
    driver: Any, tmp_path: Path, width: int, height: int
) -> None:
    browser.resize(driver, width, height)
    address = _open(driver, tmp_path, judgement=fake_result.judgement())
    for name in PLOTS:
        drawn = driver.find_element("css selector", f"#{name} .main-svg").rect
        assert 200 < drawn["width"] <= width
        assert drawn["height"] > 200
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    label = browser.hover(driver, "ratios-plot", 0)
    assert "Time of a call, median" in label
    assert "[0.615, 0.626], 95%" in label
    assert "limit" in label
    assert "launch 1: 0.6" in browser.hover(driver, "launches-plot", 0)
    assert browser.console(driver) == []
    assert browser.requests(driver) == [address]


def test_the_rows_stand_where_the_ratios_are(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    found = fake_result.measurement()
    _open(driver, tmp_path, found, fake_result.judgement())
    script = (
        "const {data, _fullLayout: {xaxis}} = document.getElementById('ratios-plot');"
        "return [data.map((t) => [t.name, t.x.map((x) => 10 ** x)]), xaxis.ticktext]"
    )
    traces, ticks = driver.execute_script(script)
    by_name = dict(traces)
    copy = found.metrics["latency.copy.ratio"].value
    assert by_name["original against itself (99%)"] == pytest.approx([copy], rel=1e-5)
    assert by_name["limit"] == pytest.approx([0.8, 0.7, 0.5])
    assert sum(len(x) for name, x in traces if name != "limit") == sum(
        name.endswith(".ratio") for name in found.metrics
    )
    assert "1" in ticks
    assert len(ticks) > 4


def test_ratios_near_one_have_their_ticks(driver: Any, tmp_path: Path) -> None:
    found = fake_result.measurement()
    near = {"latency.p50.ratio": Metric(1.003, 1.001, 1.005, "ratio")}
    _open(driver, tmp_path, replace(found, metrics=found.metrics | near, latency=None))
    _open(driver, tmp_path, replace(found, metrics=near, latency=None))
    marks = driver.execute_script("return document.getElementById('ratios-plot').layout.xaxis")
    assert "1" in marks["ticktext"]
    assert 4 <= len(marks["ticktext"]) <= 10
    assert browser.console(driver) == []


@pytest.mark.parametrize("words", [None, "Pass: <b>all</b> & every rule holds [0.6, 0.7]."])
def test_the_verdict_is_that_of_the_data(driver: Any, tmp_path: Path, words: str | None) -> None:
    _open(driver, tmp_path, judgement=words and fake_result.judgement("pass", words))
    data = json.loads(driver.find_element("id", "data").get_attribute("textContent"))
    told = driver.find_element("css selector", ".verdict").get_attribute("textContent")
    assert told == data["verdict"]
    assert words in (None, told)


def test_a_single_model(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 390, 844)
    _open(driver, tmp_path, fake_result.measurement(pair=False))
    assert "launch 2: 0.2" in browser.hover(driver, "launches-plot", 1)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    assert browser.console(driver) == []


def test_names_stay_text(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    found = fake_result.measurement()
    found.details["profile"]["layers"][0]["name"] = EVIL
    more = {f"latency.{EVIL}.ratio": Metric(0.5, 0.4, 0.6, "ratio")}
    rule = fake_result.Rule(f"latency.{EVIL}.ratio", "pass", EVIL, 0.5, bound=0.7, why=EVIL)
    judgement = replace(fake_result.judgement("pass", EVIL), rules=(rule,))
    _open(driver, tmp_path, replace(found, metrics=found.metrics | more), judgement)
    for number in range(20):
        label = browser.hover(driver, "ratios-plot", number)
        if EVIL in label:
            break
    assert f"limit {EVIL}" in label
    assert driver.find_elements("css selector", ".plot img, .plot b, main img") == []
    assert driver.find_element("css selector", ".verdict").text == EVIL
    assert browser.console(driver) == []


def test_plots_are_saved(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    _open(driver, tmp_path)
    for number, kind, start in ((0, "png", b"\x89PNG"), (1, "svg", b"<svg")):
        folder = tmp_path / kind
        folder.mkdir()
        button = driver.find_elements("css selector", f"[data-save='{kind}']")[number]
        file = browser.download(driver, button, folder)
        assert file.name == f"{PLOTS[number]}.{kind}"
        assert file.read_bytes().startswith(start)
    assert browser.console(driver) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(driver: Any, tmp_path: Path, scheme: str) -> None:
    browser.resize(driver, 1280, 900)
    browser.use_colors(driver, scheme)
    _open(driver, tmp_path, judgement=fake_result.judgement())
    color = driver.execute_script("return document.getElementById('ratios-plot').layout.font.color")
    assert color == {"light": "#1b2129", "dark": "#e7ebf0"}[scheme]
    assert browser.serious_issues(driver) == []
    browser.use_colors(driver, "light")


def test_on_paper_no_plot_is_cut(driver: Any, tmp_path: Path) -> None:
    for width in (1280, 390):
        browser.resize(driver, width, 844)
        _open(driver, tmp_path, judgement=fake_result.judgement())
        assert browser.cut_on_paper(driver) == []
    assert browser.pdf(driver).startswith(b"%PDF")
    assert browser.console(driver) == []
