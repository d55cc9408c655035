"""The interactive page in a real headless Chromium."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from simulate import grid, write_sweep

import analysis
from analysis.report import report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium or chromedriver here")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
FLAGS = (
    "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync window-size=1280,900"
)
HOSTILE = "</script><img src=x onerror='document.title=1'>"


@pytest.fixture(scope="module")
def browser() -> Iterator["webdriver.Chrome"]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield running
    running.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trials = grid(rank=[1, 2, 4], init=["kaiming", HOSTILE], seeds=range(3))
    folder = write_sweep(tmp_path_factory.mktemp("page") / "hostile <b>", trials, np.random.default_rng(0))
    return report.write(analysis.load(folder))


def opened(browser: "webdriver.Chrome", page: Path, state: str = "") -> "webdriver.Chrome":
    """Open ``page`` afresh and wait until the explorer has drawn."""
    browser.get("about:blank")
    browser.get(page.as_uri() + state)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        facts = browser.execute_script("return {...document.documentElement.dataset}")
        assert "error" not in facts, facts
        if "ready" in facts:
            return browser
        time.sleep(0.05)
    raise AssertionError("the explorer never became ready")


def shown(browser: "webdriver.Chrome") -> int:
    return int(browser.execute_script("return document.documentElement.dataset.shown"))


def click(browser: "webdriver.Chrome", selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def test_it_opens_without_a_complaint_and_draws(browser, page: Path):
    opened(browser, page)
    assert shown(browser) == 24
    assert browser.get_log("browser") == []
    for canvas in ("parallel", "curve"):
        ink = browser.execute_script(
            "const c = document.getElementById(arguments[0]);"
            "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 == 3 && v).length",
            canvas,
        )
        assert ink > 2000
    seen = browser.execute_script("return [...document.images].map((i) => i.naturalWidth)")
    assert len(seen) >= 6
    assert min(seen) > 100


def test_names_are_text_and_never_markup(browser, page: Path):
    opened(browser, page)
    assert browser.title.startswith("hostile <b>")
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert HOSTILE in browser.execute_script("return document.body.textContent")


def test_filter_group_sort_and_remember(browser, page: Path):
    opened(browser, page)
    click(browser, "button[data-factor='adapter.rank'][data-level='4']")
    assert shown(browser) == 6
    click(browser, "button[data-factor='adapter.rank'][data-level='1']")
    assert shown(browser) == 12
    click(browser, "button[data-factor='seed'][data-level='2']")
    assert shown(browser) == 4
    assert browser.execute_script("return document.querySelector('#count').textContent") == "4 of 24 trials"
    click(browser, "button[data-sort='adapter.rank']")
    ranks = browser.execute_script(
        "return [...document.querySelectorAll('#trials tbody tr')].map((r) => r.children[3].textContent)"
    )
    assert ranks == ["1", "1", "4", "4"]
    browser.execute_script("g = document.querySelector('#group'); g.value = 'adapter.init'; g.onchange()")
    browser.refresh()
    opened(browser, page, browser.execute_script("return location.hash"))
    assert shown(browser) == 4
    assert browser.execute_script("return document.querySelector('#group').value") == "adapter.init"
    click(browser, "#clear")
    assert shown(browser) == 24


def test_chosen_trials_show_their_differences_and_link_to_their_folder(browser, page: Path):
    opened(browser, page)
    for row in (1, 8):
        click(browser, f"#trials tbody tr:nth-child({row}) input")
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#difference tbody tr')].map((r) => [...r.children].map((c) => c.textContent))"
    )
    names = [row[0] for row in rows]
    assert "eval loss" in names
    assert "batch size" not in names
    assert all(row[1] != row[2] for row in rows)
    link = browser.execute_script("return document.querySelector('#trials td a').href")
    assert link.startswith(page.parent.parent.as_uri())
    assert "/trial_000" in link


def test_a_range_on_an_axis_filters(browser, page: Path):
    opened(browser, page)
    browser.execute_script(
        """const c = document.getElementById('parallel'), box = c.getBoundingClientRect();
        const at = (y) => ({clientX: box.left + 46, clientY: box.top + y, bubbles: true});
        c.dispatchEvent(new MouseEvent('mousedown', at(240)));
        window.dispatchEvent(new MouseEvent('mouseup', at(290)));"""
    )
    assert 0 < shown(browser) < 24


@pytest.mark.parametrize(("seeds", "limit"), [(25, 2.0), (250, 4.0)])
def test_it_opens_fast(browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: int, limit: float):
    monkeypatch.setattr(report, "figures", lambda *given: [])  # they cost the browser nothing, but us ten seconds
    trials = grid(range(seeds), (), rank=[1, 2, 4, 8, 16], targets=["a", "b"], lr=[1e-3, 1e-2], init=["x", "y"])
    folder = write_sweep(tmp_path / "many", trials, np.random.default_rng(0), points=50)
    path = report.write(analysis.load(folder))
    times = []
    for _ in range(3):
        opened(browser, path)
        assert shown(browser) == 40 * seeds
        times.append(float(browser.execute_script("return document.documentElement.dataset.ready")) / 1000)
    assert min(times) < limit, times
