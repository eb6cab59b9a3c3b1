"""Debian's Chromium, without a network, for tests of pages."""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
PAPER = (718, 1047)  # A4 at 96 dpi, without margins of 1 cm
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@contextlib.contextmanager
def offline_browser(width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A selenium driver that logs console and requests; skips the test where it can't be had."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    for program in (CHROMIUM, CHROMEDRIVER):
        if not program.exists():
            pytest.skip(f"{program} is not installed (Debian: chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        service = webdriver.ChromeService(str(CHROMEDRIVER))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            # Emulated, because a headless window has a least width of about 500 pixels.
            resize(driver, width, height)
            driver.execute_cdp_cmd("Network.enable", {})
            driver.set_network_conditions(
                offline=True, latency=0, download_throughput=0, upload_throughput=0
            )
            driver.get("about:blank")  # leaves the start page, which asks for much
            requests(driver)
            yield driver
        finally:
            driver.quit()


def resize(driver: Any, width: int, height: int) -> None:
    """Set the size of the view, phones included."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


def move_mouse(driver: Any, element: Any) -> None:
    """Move the mouse from the corner to the middle of a visible element."""
    x, y, width, height = _place(driver, element)
    for at_x, at_y in ((0, 0), (x + width / 2, y + height / 2)):
        driver.execute_cdp_cmd(
            "Input.dispatchMouseEvent", {"type": "mouseMoved", "x": at_x, "y": at_y}
        )


def _place(driver: Any, element: Any) -> list[float]:
    script = "const r = arguments[0].getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
    place: list[float] = driver.execute_script(script, element)
    return place


def console(driver: Any) -> list[str]:
    """Messages of the console since the last call."""
    return [f"{entry['level']}: {entry['message']}" for entry in driver.get_log("browser")]


def requests(driver: Any) -> list[str]:
    """Addresses asked for since the last call, data and blob ones left out."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in urls if not url.startswith(("data:", "blob:"))]


def hover(driver: Any, plot: str, index: int) -> str:
    """Move the mouse to a marker of the plot and read the label that appears."""
    from selenium.webdriver.support.ui import WebDriverWait

    move_mouse(driver, _marker(driver, plot, index))
    label = WebDriverWait(driver, 20).until(
        lambda d: d.find_elements("css selector", f"#{plot} .hoverlayer .hovertext")
    )[0]
    return str(label.get_attribute("textContent"))


def click(driver: Any, plot: str, index: int) -> None:
    """Click a marker of the plot."""
    hover(driver, plot, index)
    x, y, width, height = _place(driver, _marker(driver, plot, index))
    about = {"x": x + width / 2, "y": y + height / 2, "button": "left", "clickCount": 1}
    for kind in ("mousePressed", "mouseReleased"):
        driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **about})


def _marker(driver: Any, plot: str, index: int) -> Any:
    marker = driver.find_elements("css selector", f"#{plot} .scatterlayer .points path")[index]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", marker)
    return marker


def use_colors(driver: Any, scheme: str) -> None:
    """Say what the reader prefers, ``"light"`` or ``"dark"``."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def serious_issues(driver: Any) -> list[str]:
    """What axe-core calls serious or critical, with the first element of each."""
    driver.set_script_timeout(60)
    driver.execute_script(AXE.read_text(encoding="utf-8"))
    found = driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "const told = (v) => `${v.id}: ${v.nodes[0].target} ${v.nodes[0].failureSummary}`;"
        "axe.run(document, {resultTypes: ['violations']}).then((found) =>"
        "done(found.violations.map((v) => [v.impact, told(v)])))"
    )
    return [text for impact, text in found if impact in ("serious", "critical")]


def cut_on_paper(driver: Any) -> list[str]:
    """Plots and tables that are wider than a sheet, or plots that are cut by their frames."""
    resize(driver, *PAPER)
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    try:
        found = driver.execute_script(
            "const cut = [];"
            "for (const one of document.querySelectorAll('.plot .main-svg, table')) {"
            "  const {left, right, bottom} = one.getBoundingClientRect();"
            "  const frame = one.closest('.plot')?.getBoundingClientRect();"
            "  const isOut = frame && (right > frame.right + 1 || bottom > frame.bottom + 1);"
            "  const name = one.closest('.plot')?.id ?? one.textContent.slice(0, 40);"
            "  if (!one.checkVisibility()) continue;"
            "  if (left < 0 || right > innerWidth + 1 || isOut) cut.push(`${name} ${right}`);"
            "} return cut"
        )
    finally:
        driver.execute_script("dispatchEvent(new Event('afterprint'))")
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": False})
    return [str(name) for name in found]


def pdf(driver: Any) -> bytes:
    """The page as it would be printed on A4."""
    about = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False}
    return base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", about)["data"])


def download(driver: Any, button: Any, folder: Path) -> Path:
    """Click a button and wait for the file that it saves into an empty folder."""
    where = {"behavior": "allow", "downloadPath": str(folder)}
    driver.execute_cdp_cmd("Page.setDownloadBehavior", where)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    for _ in range(200):
        files = [file for file in folder.iterdir() if not file.name.endswith(".crdownload")]
        if files and files[0].stat().st_size:
            return files[0]
        time.sleep(0.05)
    raise AssertionError("nothing was saved")
