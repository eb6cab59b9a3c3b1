"""Debian's Chromium, without a network, for tests of pages."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
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
    script = "const r = arguments[0].getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
    x, y, width, height = driver.execute_script(script, element)
    for at_x, at_y in ((0, 0), (x + width / 2, y + height / 2)):
        driver.execute_cdp_cmd(
            "Input.dispatchMouseEvent", {"type": "mouseMoved", "x": at_x, "y": at_y}
        )


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
