"""A headless Chromium, and what a test asks of a page in it."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync disable-dev-shm-usage window-size=1280,900"
)
Browser = webdriver.Chrome


def start_browser() -> Browser:
    """A headless browser. Without one the test is skipped, and fails where REQUIRE_BROWSER is set, as in CI."""
    if not (CHROMIUM and DRIVER):
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)("no chromium or chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


def opened(browser: Browser, address: str) -> Browser:
    """Open ``address`` afresh, without what earlier pages have logged, and wait until its script has drawn."""
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(address)
    until(browser, lambda: "ready" in facts(browser))
    return browser


def until(browser: Browser, condition: Callable[[], object], seconds: float = 30) -> None:
    """Return when ``condition`` holds; fails at an error of the page's script."""
    end = time.monotonic() + seconds
    while not condition():
        assert "error" not in facts(browser), facts(browser)
        assert time.monotonic() < end, f"waited in vain; the page says: {text(browser, 'main')[:2000]}"
        time.sleep(0.05)


def facts(browser: Browser) -> dict[str, str]:
    """What the page's script says of itself."""
    found: dict[str, str] = browser.execute_script("return {...document.documentElement.dataset}")
    return found


def text(browser: Browser, selector: str) -> str:
    """What a reader sees in the first element that fits; nothing where none does."""
    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    return str(browser.execute_script(script, selector))


def texts(browser: Browser, selector: str) -> list[str]:
    """The text of every element that fits."""
    script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"
    return list(browser.execute_script(script, selector))


def click(browser: Browser, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def look(browser: Browser, width: int, scheme: str = "light", media: str = "") -> None:
    """Give the window this width, and emulate a colour scheme and a medium."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def overflows(browser: Browser) -> list[str]:
    """What is wider than the window although it does not scroll by itself."""
    script = """const wide = document.documentElement.clientWidth;
    const scrolls = (one) => one.closest('.scroll, fieldset');
    if (document.documentElement.scrollWidth <= wide) return [];
    return [...document.querySelectorAll('body *')].filter((one) => !scrolls(one) && one.getBoundingClientRect().right > wide)
      .map((one) => one.outerHTML.slice(0, 100));"""
    return list(browser.execute_script(script))


def barriers(browser: Browser) -> list[tuple[str, str, Any]]:
    """What axe-core calls serious or worse: rule, explanation, and where."""
    found = Axe().run(browser, options={"resultTypes": ["violations"]})["violations"]
    return [
        (one["id"], one["help"], [node["html"][:150] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def saved(browser: Browser, selector: str, folder: Path, name: str) -> bytes:
    """Click a button and return the file that the browser then saves in ``folder``."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    click(browser, selector)
    until(browser, (folder / name).exists)
    return (folder / name).read_bytes()
