"""The report in a real browser that has no network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxtrim.bench.report import write_report
from onnxtrim.bench.run_folder import load_run
from tests import browser, fake_run

EVIL = "<b>b</b><img src=x onerror=alert(1)></script><script>alert(1)</script>"
TRADE_OFFS = ("accuracy-size", "accuracy-latency", "accuracy-memory", "accuracy-macs")
PLOTS = (*TRADE_OFFS, "units-mean", "units-std")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser.offline_browser() as opened:
        yield opened


def _open(driver: Any, tmp_path: Path, graph: dict[str, Any] | None = None, **line: Any) -> str:
    lines = [fake_run.candidate(i, **(line if i == 3 else {})) for i in range(6)]
    page = tmp_path / "report.html"
    folder = fake_run.write_run(tmp_path / "run", lines)
    if graph is not None:
        (folder / "graph.json").write_text(json.dumps(graph), encoding="utf-8")
    write_report(load_run(folder), page)
    browser.console(driver), browser.requests(driver)  # what came before
    driver.get(page.as_uri())
    return page.as_uri()


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
    driver.find_element("id", "zoom").click()  # some points lie far below the budget
    for plot in TRADE_OFFS:
        label = browser.hover(driver, plot, 0)  # the first trace holds the beaten, or the frontier
        wanted = "m0.7-s1.2" if plot == "accuracy-latency" else "m0.1-s0.4"
        assert wanted in label
        assert "parameters:" in label
    assert browser.console(driver) == []
    assert browser.requests(driver) == [address]


def test_names_stay_text_in_labels_and_legends(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    _open(driver, tmp_path, id=EVIL)
    marker = len(fake_run.GRID)  # five of the frontier, the original, then the chosen one
    assert EVIL in browser.hover(driver, "accuracy-size", marker)
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
    button = driver.find_element("id", "zoom")
    assert button.get_attribute("aria-pressed") == "true", "there is the decision"
    assert driver.execute_script(span) == pytest.approx(-2)
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert driver.execute_script(span) < -6
    button.click()
    assert driver.execute_script(span) == pytest.approx(-2)


def _marked(driver: Any) -> dict[str, list[float]]:
    """Where the ring is in each trade-off."""
    script = "const t = document.getElementById(arguments[0]).data.at(-1); return [...t.x, ...t.y]"
    return {name: driver.execute_script(script, name) for name in TRADE_OFFS}


def _pressed(driver: Any) -> list[str]:
    return _texts(driver, "tr.picked button[aria-pressed='true']")


def test_a_click_marks_the_candidate_everywhere(driver: Any, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.resize(driver, 1280, 900)
    _open(driver, tmp_path)
    driver.find_element("id", "zoom").click()  # the point is far below the budget
    assert set(map(len, _marked(driver).values())) == {0}
    browser.click(driver, "accuracy-latency", 0)
    size = round(fake_run.BEFORE * fake_run.KEPT[5])
    where = {"size": size, "latency": 0.33, "memory": (9 * 0.07 + 2) / 11, "macs": size - 900}
    for name, x in where.items():
        assert _marked(driver)[f"accuracy-{name}"] == pytest.approx([x, -6.4], rel=1e-6)
    assert _pressed(driver) == ["m0.7-s1.2"]
    assert "m0.7-s1.2; mean < 0.7" in driver.find_element("id", "picked").text
    ring = driver.find_element("css selector", "#accuracy-size .trace:last-child .points path")
    assert ring.rect["width"] > 20
    time.sleep(1)  # sooner, it would be a double click
    browser.click(driver, "accuracy-latency", 0)
    WebDriverWait(driver, 20).until(lambda _: set(map(len, _marked(driver).values())) == {0})
    assert _pressed(driver) == []
    assert browser.console(driver) == []


def test_a_candidate_is_marked_by_keys(driver: Any, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser.resize(driver, 1280, 900)
    _open(driver, tmp_path, id=EVIL)
    (button,) = (b for b in driver.find_elements("css selector", "button.id") if b.text == EVIL)
    button.send_keys(Keys.ENTER)
    assert _pressed(driver) == [EVIL]
    assert _marked(driver)["accuracy-latency"] == pytest.approx([0.44, -0.31])
    driver.find_element("id", "zoom").click()  # what is drawn anew keeps the mark
    assert _marked(driver)["accuracy-latency"] == pytest.approx([0.44, -0.31])
    driver.find_elements("css selector", "button.id")[0].send_keys(Keys.SPACE)
    assert _pressed(driver) == ["original"]
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    assert _pressed(driver) == []
    assert driver.find_element("id", "picked").text == ""
    assert browser.console(driver) == []


def test_a_repetition_marks_its_first(driver: Any, tmp_path: Path) -> None:
    base = fake_run.candidate(3)
    page, folder = tmp_path / "report.html", tmp_path / "run"
    lines = [base, base | {"id": "twin", "same_as": base["id"], "metrics": {}}]
    write_report(load_run(fake_run.write_run(folder, lines)), page)
    driver.get(page.as_uri())
    driver.find_elements("css selector", "button.id")[2].click()
    assert _pressed(driver) == [base["id"], "twin"]
    assert _marked(driver)["accuracy-latency"] == pytest.approx([0.44, -0.31])


def test_the_verdict_is_that_of_the_data(driver: Any, tmp_path: Path) -> None:
    _open(driver, tmp_path)
    data = json.loads(driver.find_element("id", "data").get_attribute("textContent"))
    told = driver.find_element("css selector", ".verdict").get_attribute("textContent")
    assert told == data["verdict"]
    assert "Smallest within 0.5 points, and shown to be: " in told


def test_plots_are_saved_in_light_colours(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    browser.use_colors(driver, "dark")
    _open(driver, tmp_path)
    dark = driver.execute_script("return document.getElementById('units-std').layout.font.color")
    for number, kind, start in ((0, "png", b"\x89PNG"), (1, "svg", b"<svg")):
        folder = tmp_path / kind
        folder.mkdir()
        button = driver.find_elements("css selector", f"[data-save='{kind}']")[number]
        assert "Accuracy against" in button.get_attribute("aria-label")
        file = browser.download(driver, button, folder)
        assert file.name == f"{TRADE_OFFS[number]}.{kind}"
        assert file.read_bytes().startswith(start)
    picture = file.read_text(encoding="utf-8")
    assert "rgb(27, 33, 41)" in picture or "#1b2129" in picture
    assert dark == "#e7ebf0"
    assert dark not in picture
    browser.use_colors(driver, "light")
    assert browser.console(driver) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(driver: Any, tmp_path: Path, scheme: str) -> None:
    browser.resize(driver, 1280, 900)
    browser.use_colors(driver, scheme)
    _picture(driver, tmp_path, fake_run.graph())
    driver.find_elements("css selector", "button.id")[1].click()
    assert browser.serious_issues(driver) == []
    browser.use_colors(driver, "light")


def test_on_paper_no_plot_is_cut(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    _open(driver, tmp_path)
    assert browser.cut_on_paper(driver) == []
    browser.resize(driver, 390, 844)
    assert browser.cut_on_paper(driver) == []
    assert browser.pdf(driver).startswith(b"%PDF")
    browser.resize(driver, 1280, 900)
    _check_plots(driver, 1280)
    assert browser.console(driver) == []


def test_ten_thousand_candidates_open_at_once(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    page = tmp_path / "report.html"
    folder = fake_run.write_run(tmp_path / "run", fake_run.many(10_000))
    write_report(load_run(folder), page)
    assert page.stat().st_size <= 2_000_000
    start = time.monotonic()
    driver.get(page.as_uri())
    assert driver.find_elements("css selector", "#accuracy-macs .points path")
    assert time.monotonic() - start <= 5
    assert "Of 10,000 candidates, 400 have a name" in driver.page_source
    assert len(driver.find_elements("css selector", "button.id")) == 401
    assert driver.find_elements("css selector", "tr.chosen")
    driver.find_elements("css selector", "button.id")[7].click()
    assert set(map(len, _marked(driver).values())) == {2}
    assert browser.console(driver) == []


# --- the picture of the graph -------------------------------------------------------------------


def _picture(driver: Any, tmp_path: Path, graph: dict[str, Any]) -> str:
    """Open the page and scroll to the picture, which is drawn only then."""
    from selenium.webdriver.support.ui import WebDriverWait

    address = _open(driver, tmp_path, graph)
    driver.execute_script("document.getElementById('graph-title').scrollIntoView()")
    WebDriverWait(driver, 60).until(lambda d: d.find_elements("css selector", "#graph .node"))
    return address


def _texts(driver: Any, selector: str) -> list[str]:
    found = driver.find_elements("css selector", selector)
    return [str(element.get_attribute("textContent")) for element in found]


def _names_on(driver: Any) -> list[str]:
    labels = driver.find_elements("css selector", ".node.on")
    return [str(label.get_attribute("aria-label")).split(". ")[1].split(";")[0] for label in labels]


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_graph_is_drawn(driver: Any, tmp_path: Path, width: int, height: int) -> None:
    browser.resize(driver, width, height)
    address = _picture(driver, tmp_path, fake_run.graph())
    titles = ["image", *["Gemm + Relu"] * 3, "Gemm", "output"]
    assert _texts(driver, ".node .title") == titles
    places = [node.rect for node in driver.find_elements("css selector", "#graph .node .body")]
    tops = [place["y"] for place in places]
    assert tops == sorted(tops)
    assert all(place["x"] >= 0 and place["x"] + place["width"] <= width for place in places)
    assert len(driver.find_elements("css selector", ".edge")) == 5
    assert len(driver.find_elements("css selector", ".node.frozen")) == 1
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.console(driver) == []
    assert browser.requests(driver) == [address]


def test_a_box_tells_its_groups_under_the_mouse(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    _picture(driver, tmp_path, fake_run.graph())
    boxes = driver.find_elements("css selector", ".node")
    browser.move_mouse(driver, boxes[2])
    (tip,) = driver.find_elements("css selector", ".tip")
    assert tip.text.splitlines()[0] == "node_fc2"
    after = fake_run.candidate(3)["groups"][1]["after"]
    assert f"makes 2 fc2: 512 → {after} units" in tip.text
    assert "reads 1 fc1" in tip.text
    browser.move_mouse(driver, boxes[4])
    assert "frozen: fc4.weight: it is an output of the model" in tip.text


def test_a_click_on_a_group_shows_all_that_it_ties(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    _picture(driver, tmp_path, fake_run.graph())
    (button,) = driver.find_elements("css selector", "button[data-group='1']")
    button.click()
    assert _names_on(driver) == ["node_fc2", "node_fc3"]
    assert _texts(driver, ".node.on .note") == ["makes 2", "reads 2"]
    assert len(driver.find_elements("css selector", ".edge.on")) == 1
    assert button.get_attribute("aria-pressed") == "true"
    assert _texts(driver, "table.widths tr.picked th") == ["fc2"]
    assert driver.find_element("id", "graph-picked").text == (
        "Group 2, fc2: made by node_fc2; read by node_fc3."
    )
    button.click()
    assert _names_on(driver) == []
    assert driver.find_element("id", "graph-picked").text == ""
    assert browser.console(driver) == []


def test_the_graph_by_keys(driver: Any, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser.resize(driver, 1280, 900)
    _picture(driver, tmp_path, fake_run.graph(more=60))
    assert len(driver.find_elements("css selector", ".node[tabindex='0']")) == 1
    driver.execute_script("document.querySelector('.node[tabindex=\"0\"]').focus()")
    ActionChains(driver).send_keys(Keys.DOWN, Keys.DOWN, Keys.ENTER).perform()
    assert "node_fc2" in driver.switch_to.active_element.get_attribute("aria-label")
    assert _names_on(driver) == ["node_fc2", "node_fc3"]
    before = driver.find_element("id", "graph-stage").get_attribute("transform")
    ActionChains(driver).send_keys("+").perform()
    assert driver.find_element("id", "graph-stage").get_attribute("transform") != before
    ActionChains(driver).send_keys(Keys.END).perform()  # far below: the picture follows
    last, frame = (driver.find_element("css selector", s) for s in (".node:last-child", "#graph"))
    assert frame.rect["y"] < last.rect["y"] < frame.rect["y"] + frame.rect["height"]
    ActionChains(driver).send_keys(Keys.ESCAPE).perform()
    assert _names_on(driver) == []
    assert browser.console(driver) == []


def test_names_stay_text_in_the_graph(driver: Any, tmp_path: Path) -> None:
    graph = fake_run.graph()
    for item in (*graph["groups"], *graph["nodes"]):
        item["name"] = EVIL
    for node in graph["nodes"]:
        node["parts"] = [{"name": EVIL, "operator": EVIL} for _ in node["parts"]]
    browser.resize(driver, 1280, 900)
    _picture(driver, tmp_path, graph)
    driver.find_element("css selector", "button[data-group='0']").click()
    driver.find_element("css selector", "#graph-nodes summary").click()
    browser.move_mouse(driver, driver.find_elements("css selector", ".node")[1])
    (tip,) = driver.find_elements("css selector", ".tip")
    assert tip.text.startswith(EVIL)
    assert _texts(driver, "#graph-nodes tbody th") == [EVIL] * len(graph["nodes"])
    inside = "#graph img, #graph script, #graph-nodes img, #graph-groups img, #graph-picked img"
    assert driver.find_elements("css selector", inside) == []
    assert browser.console(driver) == []


def test_on_paper_no_box_is_cut_or_left_out(driver: Any, tmp_path: Path) -> None:
    browser.resize(driver, 1280, 900)
    _open(driver, tmp_path, fake_run.graph(more=60))
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    views = [
        [float(number) for number in slice_.get_dom_attribute("viewBox").split()]
        for slice_ in driver.find_elements("css selector", "#graph .slice")
    ]
    assert len(views) > 3
    assert [y + height for _, y, _, height in views[:-1]] == pytest.approx(
        [v[1] for v in views[1:]]
    )
    places = driver.execute_script(
        "return [...document.querySelectorAll('.node')].map((node) => {"
        "const {e, f} = node.transform.baseVal[0].matrix, {width, height} = node.getBBox();"
        "return [e - width / 2, f - height / 2, e + width / 2, f + height / 2]})"
    )
    assert len(places) == 66
    for left, top, right, bottom in places:
        assert any(
            x <= left and y <= top and right <= x + width and bottom <= y + height
            for x, y, width, height in views
        )
    driver.execute_script("dispatchEvent(new Event('afterprint'))")
    assert driver.find_elements("css selector", "#graph .slice") == []
