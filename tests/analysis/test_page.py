"""The report's page as its reader has it: first screen, narrow, dark, printed, by keyboard, and what it saves."""

import base64
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from simulate import grid, write_sweep

import analysis
from analysis.report import report
from tests.support.browser import Browser, barriers, click, facts, look, opened, overflows, saved, text, texts, until

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a sweep over seven ranks at two rates, where one cell has lost a seed."""
    trials = grid(seeds=range(3), references=("full",), rank=[1, 2, 4, 8, 16, 32, 64], init=["kaiming", "pissa"])
    lost = {"seed": 1, "rank": 64}
    folder = write_sweep(
        tmp_path_factory.mktemp("page") / "ranks",
        trials,
        np.random.default_rng(0),
        diverge=lambda trial: {"seed": trial["seed"], "rank": trial["adapter"]["rank"]} == lost,
    )
    return report.write(analysis.load(folder)).parent


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Browser]:
    look(browser, 1400)
    yield opened(browser, (folder / "index.html").as_uri())
    look(browser, 1280)


def bottom(page: Browser, selector: str) -> float:
    script = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
    return float(page.execute_script(script, selector))


def test_page_first_screen_has_verdict_forest_and_table(page: Browser) -> None:
    assert "Against rank 8" in text(page, "#verdict p:nth-of-type(2)")
    assert "Paired differences" in text(page, "#verdict figcaption")
    assert bottom(page, "#verdict p:nth-of-type(2)") < bottom(page, "#verdict thead") < 900
    assert bottom(page, "#verdict figure img") < 900
    assert bottom(page, "#verdict tbody tr:nth-child(7)") < 900


def test_page_shows_every_figure(page: Browser, folder: Path) -> None:
    widths = page.execute_script("return [...document.images].map((one) => one.naturalWidth)")
    assert len(widths) == len(list((folder / "figures").glob("*.svg"))) > 10
    assert min(widths) > 100


def test_page_comparisons_have_a_sign_for_each_verdict(page: Browser) -> None:
    script = """return [...document.querySelectorAll('#comparisons tbody tr')].map((row) => [row.className,
      row.lastElementChild.textContent, getComputedStyle(row.lastElementChild, '::before').content.slice(1, 2)])"""
    rows = page.execute_script(script)
    signs = {"better": "▲", "worse": "▼", "undecided": "?", "none": "–"}
    openings = {"undecided": ("not distinguishable", "depends"), "none": ("nothing can be concluded", "no verdict")}
    assert {mark for mark, _, _ in rows} == set(signs)
    for mark, words, sign in rows:
        assert sign == signs[mark]
        assert words.startswith(openings.get(mark, mark))


def test_page_says_each_note_once(page: Browser) -> None:
    said = Counter(texts(page, "main .notes li, main .caveats li"))
    assert len(said) > 5
    assert {note: number for note, number in said.items() if number > 1} == {}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_has_no_barrier_and_no_sideways_scrolling(page: Browser, scheme: str) -> None:
    for width in (900, 1400, 480):
        look(page, width, scheme)
        assert overflows(page) == []
        assert width == 900 or barriers(page) == []
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 27)"}[scheme]


def test_page_contents_lead_to_each_section_and_keep_what_was_chosen(page: Browser) -> None:
    click(page, "button[data-level='4']")
    before = page.execute_script("return location.hash")
    assert texts(page, "nav a")[0] == "Verdict"
    assert texts(page, "nav a") == texts(page, "main h2")
    click(page, "nav a[href='#explorer']")
    assert page.execute_script("return document.activeElement.id") == "explorer"
    assert page.execute_script("return location.hash") == before


def test_page_contents_stay_in_view_in_a_narrow_window(page: Browser) -> None:
    look(page, 480)
    page.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
    until(page, lambda: texts(page, "nav [aria-current]") == ["Where this comes from"])
    place = "const {left, right, top, bottom} = document.querySelector(arguments[0]).getBoundingClientRect(); return [left, right, top, bottom]"
    left, right, top, bottom = page.execute_script(place, "nav [aria-current]")
    assert 0 <= left < right <= 480
    assert 0 <= top < bottom < 50
    click(page, "nav a[href='#comparisons']")
    until(page, lambda: texts(page, "nav [aria-current]") == ["Comparisons"])
    assert bottom <= page.execute_script(place, "#comparisons h2")[2] < 450


def test_page_prints_the_report_without_what_only_a_screen_can_use(page: Browser) -> None:
    look(page, 1000, media="print")
    script = "return [...document.querySelectorAll('nav, button, #explorer')].filter((one) => one.offsetHeight).length"
    assert page.execute_script(script) == 0
    assert "Against rank 8" in text(page, "main")


def test_page_buttons_save_the_files_of_the_report(page: Browser, folder: Path, tmp_path: Path) -> None:
    script = "return [...document.querySelectorAll('[data-file]')].filter((one) => !one.closest('#explorer')).map((one) => one.dataset.file)"
    names = page.execute_script(script)
    beside = {path.name: path for kind in ("tables", "figures") for path in (folder / kind).iterdir()}
    assert set(names) == set(beside)
    assert len(names) == len(beside)
    one_of_each = {name.rpartition(".")[2]: name for name in names}
    assert set(one_of_each) == {"md", "tex", "csv", "svg", "pdf", "png"}
    for style, name in one_of_each.items():
        content = saved(page, f"[data-file='{name}']", tmp_path, name)
        if style == "png":
            assert content.startswith(b"\x89PNG")
            assert len(content) > 5000
        else:
            assert content == beside[name].read_bytes()


def test_page_figures_of_the_explorer_are_saved_in_the_colours_of_paper(page: Browser, tmp_path: Path) -> None:
    for scheme in ("light", "dark"):
        look(page, 1400, scheme)
        for name in ("curve", "parallel"):
            saved(page, f"[data-file='{name}.svg']", tmp_path / scheme, f"{name}.svg")
    light, dark = (
        {one.name: one.read_bytes() for one in (tmp_path / scheme).iterdir()} for scheme in ("light", "dark")
    )
    assert light == dark
    words = [one.text for one in ElementTree.fromstring(light["curve.svg"]).iter(SVG + "text")]
    assert {f"{rank} (n=3)" for rank in (1, 2, 4, 8, 16, 32, 64, "full")} < set(words)
    lines = list(ElementTree.fromstring(light["parallel.svg"]).iter(SVG + "path"))
    assert sum(one.attrib["d"].count("M") for one in lines) == int(facts(page)["shown"]) - 2  # two have diverged
    image = saved(page, "[data-file='parallel.png']", tmp_path, "parallel.png")
    width = page.execute_script("return document.getElementById('parallel').clientWidth")
    assert [int.from_bytes(image[at : at + 4]) for at in (16, 20)] == [3 * width, 900]


def test_page_figures_of_the_explorer_are_printed_alone(page: Browser) -> None:
    page.execute_script("window.print = () => { document.documentElement.dataset.asked = document.title; }")
    click(page, "[data-file='curve.pdf']")
    until(page, lambda: "asked" in facts(page))
    assert facts(page)["asked"] == "curve.pdf"
    printed = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    width, height = page.execute_script(
        "const {width, height} = document.getElementById('curve').figure; return [width, height]"
    )
    [box] = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert [float(one) for one in box] == pytest.approx([0.75 * width, 0.75 * height], abs=1)
    until(page, lambda: page.title.startswith("ranks"))
    assert overflows(page) == []


def test_page_draws_more_than_six_groups_apart(page: Browser) -> None:
    panels = "return document.getElementById('curve').panels.map((one) => one.lines.map((line) => line.name))"
    assert page.execute_script(panels) == [[f"{rank} (n=3)"] for rank in (1, 2, 4, 8, 16, 32)] + [
        ["64 (n=3)"],
        ["full (n=3)"],
    ]
    click(page, "button[data-factor='adapter.rank'][data-level='4']")
    assert page.execute_script(panels) == [["4 (n=3)"]]


def test_page_tooltip_names_the_line_under_the_mouse(page: Browser) -> None:
    hover = """const canvas = document.getElementById(arguments[0]), box = canvas.getBoundingClientRect();
    canvas.dispatchEvent(new MouseEvent('mousemove', {clientX: box.left + arguments[1], clientY: box.top + arguments[2]}));
    return document.getElementById('tip')?.textContent ?? '';"""
    at = "const one = document.getElementById('curve').panels[1], line = one.lines[0]; return [one.X(line.steps[2]), one.Y(line.mean[2])]"
    said = page.execute_script(hover, "curve", *page.execute_script(at))
    assert re.fullmatch(r"2 \(n=3\)\nstep 100: \d\.\d+ \[\d\.\d+, \d\.\d+\]", said)
    names = {path.name for path in folder_of(page).glob("trial_*")}
    said = [page.execute_script(hover, "parallel", 60, y) for y in range(34, 286, 4)]
    assert {one.partition("\n")[0] for one in said if one} <= names
    assert any("rank: 4" in one for one in said)
    assert page.execute_script(hover, "curve", 1, 1) == ""


def folder_of(page: Browser) -> Path:
    return Path(page.current_url.removeprefix("file://").partition("/report/")[0])
