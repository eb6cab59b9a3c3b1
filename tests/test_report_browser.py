"""The report in a real browser that has no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxtrim.bench.report import write_report
from onnxtrim.bench.run_folder import load_run
from tests import browser, fake_run

EVIL = "<b>b</b><img src=x onerror=alert(1)></script><script>alert(1)</script>"
PLOTS = ("accuracy-size", "accuracy-latency", "units-mean", "units-std")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser.offline_browser() as opened:
        yield opened


def _open(driver: Any, tmp_path: Path, **line: Any) -> str:
    lines = [fake_run.candidate(i, **(line if i == 3 else {})) for i in range(6)]
    page = tmp_path / "report.html"
    write_report(load_run(fake_run.write_run(tmp_path / "run", lines)), page)
    browser.console(driver), browser.requests(driver)  # what came before
    driver.get(page.as_uri())
    return page.as_uri()


def _hover(driver: Any, plot: str, index: int) -> str:
    """Move the mouse to a marker of the plot and read the label that appears."""
    from selenium.webdriver.support.ui import WebDriverWait

    marker = driver.find_elements("css selector", f"#{plot} .scatterlayer .points path")[index]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", marker)
    browser.move_mouse(driver, marker)
    label = WebDriverWait(driver, 20).until(
        lambda d: d.find_elements("css selector", f"#{plot} .hoverlayer .hovertext")
    )[0]
    return str(label.get_attribute("textContent"))


def _check_plots(driver: Any, width: int) -> None:
    for name in PLOTS:
        drawn = driver.find_element("css selector", f"#{name} .main-svg").rect
        assert 200 < drawn["width"] <= width, name
        assert drawn["height"] > 200, name
        lines = driver.find_elements("css selector", f"#{name} .scatterlayer path.js-line")
        assert lines, name
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_plots_and_hover_without_a_network(
    driver: Any, tmp_path: Path, width: int, height: int
) -> None:
    browser.resize(driver, width, height)
    address = _open(driver, tmp_path)
    _check_plots(driver, width)
    for plot in ("accuracy-size", "accuracy-latency"):
        label = _hover(driver, plot, 0)  # the first trace holds the beaten, or the frontier
        wanted = "m0.1-s0.4" if plot == "accuracy-size" else "m0.7-s1.2"
        assert wanted in label
        assert "parameters:" in label
    assert browser.console(driver) == []
    assert browser.requests(driver) == [address]


def test_names_stay_text_in_labels_and_legends(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    _open(driver, tmp_path, id=EVIL)
    marker = len(fake_run.GRID)  # five of the frontier, the original, then the chosen one
    assert EVIL in _hover(driver, "accuracy-size", marker)
    assert driver.find_elements("css selector", ".plot img, .plot b, main img") == []
    assert browser.console(driver) == []


def test_a_script_that_got_in_would_not_run(driver: Any, tmp_path: Path) -> None:
    _open(driver, tmp_path)
    driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hit = 1';"
        "document.body.append(s);"
    )
    assert driver.execute_script("return window.hit") is None
    assert "Content Security Policy" in " ".join(browser.console(driver))


def test_the_zoom_button_shows_the_budget(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    _open(driver, tmp_path)
    span = "return document.getElementById('accuracy-size')._fullLayout.yaxis.range[0]"
    assert driver.execute_script(span) < -6
    driver.find_element("id", "zoom").click()
    assert driver.execute_script(span) == pytest.approx(-2)
    driver.find_element("id", "zoom").click()
    assert driver.execute_script(span) < -6
