"""The interactive page in a real headless Chromium."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from simulate import grid, write_sweep

import analysis
from analysis.report import answer, report
from analysis.statistics.cells import observe
from analysis.statistics.curves import learning_curves
from analysis.tables.listing import Listing
from analysis.tables.render import render
from tests.support.browser import Browser, click, opened, saved, texts

HOSTILE = "</script><img src=x onerror='document.title=1'>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trials = grid(rank=[1, 2, 4], init=["kaiming", HOSTILE], seeds=range(3))
    return write_sweep(tmp_path_factory.mktemp("page") / "hostile <b>", trials, np.random.default_rng(0))


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    """Its report, without figures: those are looked at in ``test_page``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer, "figures", lambda *_: ())
        return report.write(analysis.load(folder))


def shown(browser: Browser) -> int:
    return int(browser.execute_script("return document.documentElement.dataset.shown"))


def test_explorer_opens_without_a_complaint_and_draws(browser, page: Path):
    opened(browser, page.as_uri())
    assert shown(browser) == 24
    assert browser.get_log("browser") == []
    names = browser.execute_script(
        "return document.getElementById('curve').series.map((item) => [item.name, item.seeds])"
    )
    assert names == [["1", 3], ["2", 3], ["4", 3], ["full", 3], ["none", 3]]
    first_axis = browser.execute_script(
        "return [...document.getElementById('parallel').getContext('2d').getImageData(46, 100, 1, 1).data]"
    )
    assert first_axis == [89, 89, 89, 255]


def bands(browser: Browser) -> dict[str, dict[str, list[float]]]:
    """The numbers of the curves that are drawn, by group."""
    series = browser.execute_script(
        "return document.getElementById('curve').series.map(({name, mean, low, high}) => ({name, mean, low, high}))"
    )
    return {item.pop("name"): item for item in series}


def means(browser: Browser) -> dict[str, tuple[int, list[float]]]:
    """The rows of the table of means: n, then mean, low and high at full precision, by group."""
    rows = browser.execute_script("return document.getElementById('means').listing().rows")
    return {name: (n, values) for name, n, *values in rows}


def assert_equals_python(browser: Browser, sweep: analysis.Sweep, trials: pd.DataFrame) -> None:
    """Curves and means in the browser against ours; curves travel as 32-bit floats, final values with 7 digits."""
    expected = learning_curves(trials, sweep.history, "adapter.rank", "eval/loss")
    drawn = bands(browser)
    assert list(drawn) == list(expected)
    for level, curve in expected.items():
        for key in ("mean", "low", "high"):
            assert drawn[level][key] == pytest.approx([getattr(item, key) for item in curve.summaries], rel=1e-6)
    cells = observe(trials, ("adapter.rank",), "eval/loss")
    summaries = {cell[0]: cells.summary(cell) for cell in cells.filled}
    table = means(browser)
    assert list(table) == list(summaries)
    for level, summary in summaries.items():
        n, values = table[level]
        assert n == summary.n
        assert values == pytest.approx([summary.mean, summary.low, summary.high], rel=1e-6)


def test_explorer_numbers_equal_python_under_filters(browser, folder: Path, page: Path):
    sweep = analysis.load(folder)
    opened(browser, page.as_uri())
    assert_equals_python(browser, sweep, sweep.trials)
    click(browser, "button[data-factor='adapter.init'][data-level='kaiming']")
    for rank in (1, 4):
        click(browser, f"button[data-factor='adapter.rank'][data-level='{rank}']")
    for seed in (0, 2):
        click(browser, f"button[data-factor='seed'][data-level='{seed}']")
    trials = sweep.trials
    kept = trials["seed"].isin([0, 2]) & trials["adapter.rank"].isin([1, 4])
    kept &= trials["adapter.init"] == "kaiming"
    assert shown(browser) == kept.sum() == 4
    assert_equals_python(browser, sweep, trials[kept])


def test_explorer_names_are_text_and_never_markup(browser, page: Path):
    opened(browser, page.as_uri())
    assert browser.title.startswith("hostile <b>")
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert HOSTILE in browser.execute_script("return document.body.textContent")


def test_explorer_tables_are_saved_as_the_reports_own(browser, page: Path, tmp_path: Path):
    opened(browser, page.as_uri())
    browser.execute_script(
        "const one = document.getElementById('group'); one.value = 'adapter.init'; one.dispatchEvent(new Event('change'))"
    )
    heads = tuple(texts(browser, "#means thead th"))
    cells = texts(browser, "#means tbody :is(th, td)")
    lines = tuple(tuple(cells[start : start + len(heads)]) for start in range(0, len(cells), len(heads)))
    assert any(HOSTILE in line[0] for line in lines)
    shown = Listing("means", texts(browser, "#means caption")[0], heads, lines)
    for style in ("md", "tex"):
        content = saved(browser, f"[data-file='means.{style}']", tmp_path, f"means.{style}")
        assert content.decode() == render(shown, style)
    saved(browser, "[data-file='means.csv']", tmp_path, "means.csv")
    table = pd.read_csv(tmp_path / "means.csv")
    assert [tuple(table.columns), list(table.iloc[:, 0])] == [heads, [line[0] for line in lines]]
    np.testing.assert_allclose(table["mean"], [float(line[2]) for line in lines], rtol=1e-3)
    saved(browser, "[data-file='trials.csv']", tmp_path, "trials.csv")
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 24
    content = saved(browser, "[data-file='curve.svg']", tmp_path, "curve.svg")
    words = [one.text or "" for one in ElementTree.fromstring(content).iter("{http://www.w3.org/2000/svg}text")]
    assert any(word.startswith(HOSTILE[:19]) for word in words)


def test_explorer_filters_groups_sorts_and_remembers(browser, page: Path):
    opened(browser, page.as_uri())
    click(browser, "button[data-factor='adapter.rank'][data-level='4']")
    assert shown(browser) == 6
    click(browser, "button[data-factor='adapter.rank'][data-level='1']")
    assert shown(browser) == 12
    click(browser, "button[data-factor='seed'][data-level='2']")
    assert shown(browser) == 4
    assert browser.execute_script("return document.querySelector('#count').textContent") == "4 of 24 trials"
    click(browser, "button[data-sort='adapter.rank']")
    ranks = browser.execute_script(
        "return [...document.querySelectorAll('#trials tbody tr')].map((r) => r.children[1].textContent)"
    )
    assert ranks == ["1", "1", "4", "4"]
    browser.execute_script("g = document.querySelector('#group'); g.value = 'adapter.init'; g.onchange()")
    click(browser, "#trials tbody tr:nth-child(1) input")
    click(browser, "#trials tbody tr:nth-child(4) input")
    picked = texts(browser, "#difference thead th")
    state = browser.execute_script("return location.hash")
    opened(browser, page.as_uri() + state)
    assert shown(browser) == 4
    assert browser.execute_script("return document.querySelector('#group').value") == "adapter.init"
    assert texts(browser, "#difference thead th") == picked
    assert len(picked) == 2
    click(browser, "#clear")
    assert shown(browser) == 24


@pytest.mark.parametrize(
    "state",
    [
        '{"picked":null}',
        '{"picked":["x",-1]}',
        '{"filters":{"seed":5}}',
        '{"filters":{"constructor":[]}}',
        "null",
        "[1]",
        '{"brushes":{"seed":1}}',
        '{"metric":"constructor","sort":"toString"}',
        '{"page":-3}',
        "5",
    ],
)
def test_explorer_starts_whatever_its_address_says(browser, page: Path, state: str):
    opened(browser, f"{page.as_uri()}#{state}")
    assert shown(browser) == 24


def test_explorer_chosen_trials_show_their_differences_and_link_to_their_folder(browser, page: Path):
    opened(browser, page.as_uri())
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


def test_explorer_range_on_an_axis_filters(browser, page: Path):
    opened(browser, page.as_uri())
    browser.execute_script(
        """const c = document.getElementById('parallel'), box = c.getBoundingClientRect();
        const at = (y) => ({clientX: box.left + 46, clientY: box.top + y, bubbles: true});
        c.dispatchEvent(new MouseEvent('mousedown', at(240)));
        window.dispatchEvent(new MouseEvent('mouseup', at(290)));"""
    )
    assert shown(browser) == 6  # rank 1, the lowest fifth of the first axis
