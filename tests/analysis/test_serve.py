"""The dashboard: what it answers and to whom, and a real browser on a real sweep that is killed and started again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from simulate import grid, write_sweep
from starlette.testclient import TestClient

from analysis.report.serve import application
from tests.support.browser import Browser, barriers, click, facts, look, opened, overflows, saved, text, texts, until
from tests.support.commands import PATH
from tests.support.sweeps import launched

SWEEP = (
    "-m",
    "name=s",
    "task=toy_regression",
    "tracker=none",
    "training.steps=6000",
    "training.log_every=100",
    "training.eval_every=500",
    "optimizer.lr=0.001,0.01,1e9",
    "adapter.rank=2,4",
    "seed=0,1,2",
    "hydra.launcher.workers=1",
    "hydra.launcher.max_pack=9",
    "hydra.launcher.speed=off",
)
"""Two packs, one after the other, of nine trials each, of which three diverge."""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sweep, another folder, and a link."""
    outputs = tmp_path_factory.mktemp("outputs")
    write_sweep(outputs / "a <b>", grid(range(3), (), rank=[1, 2]), np.random.default_rng(0))
    (outputs / "notes").mkdir()
    (outputs / "link").symlink_to(outputs / "a <b>")
    return outputs


@pytest.fixture(scope="module")
def client(outputs: Path) -> TestClient:
    return TestClient(application(outputs), base_url="http://127.0.0.1:8765")


def test_serve_lists_sweeps_alone_and_escapes_their_names(client: TestClient) -> None:
    page = client.get("/")
    assert re.findall(r'href="(/sweeps/[^"]*)"', page.text) == ["/sweeps/a%20%3Cb%3E"]
    assert "6 finished" in page.text
    assert "a <b>" not in page.text + client.get("/sweeps/a%20%3Cb%3E").text
    for path in ("/sweeps/notes", "/sweeps/link", "/sweeps/%2e%2e", "/sweeps/a"):
        assert client.get(path).status_code == 404
    assert client.get("/compare").status_code == 400
    assert client.get("/compare?sweep=a%20%3Cb%3E&sweep=nothing").status_code == 404
    assert "unsafe" not in page.headers["content-security-policy"]


def test_serve_answers_get_alone_and_to_its_own_name_alone(client: TestClient) -> None:
    assert client.post("/").status_code == client.delete("/sweeps/a%20%3Cb%3E").status_code == 405
    assert client.get("/", headers={"host": "sweeps.example.org"}).status_code == 400
    assert client.get("/", headers={"host": "localhost:8765"}).status_code == 200
    assert client.get("/assets/../live.py").status_code == client.get("/assets/..%2flive.py").status_code == 404


def test_serve_leaves_the_sweep_as_it_is(client: TestClient, outputs: Path) -> None:
    assert "Against rank 1" in client.get("/sweeps/a%20%3Cb%3E/verdict").text
    assert {path.name.partition("_")[0] for path in (outputs / "a <b>").iterdir()} == {"trial"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sweep runs: its folder is ``outputs/s``."""
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """The address of a running dashboard."""
    (place / "outputs").mkdir()
    line = [sys.executable, "-m", "analysis", "serve", "outputs", "--port", "0"]
    with subprocess.Popen(
        line, cwd=place, env=os.environ | {"PYTHONPATH": PATH}, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        found = re.search(r"http://127.0.0.1:\d+", server.stdout.readline())
        assert found is not None
        yield found[0]
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 130


def counts(page: Browser) -> dict[str, int]:
    """How many trials are in each state, as the page says."""
    return {state: int(number) for number, state in re.findall(r"(\d+) ([a-z ]+)", text(page, "[data-part=counts]"))}


def points(page: Browser) -> int:
    """How many points the drawn curves have."""
    script = "return document.querySelector('[data-part=curves]').panels?.flatMap((one) => one.lines).reduce((n, line) => n + line.steps.length, 0) ?? 0"
    return int(page.execute_script(script))


def shown_steps(page: Browser) -> list[int]:
    """The last steps of the trials that train now, as the page says."""
    return list(map(int, texts(page, "[data-part=trains] td:nth-child(2)")))


def last_steps(study: Path) -> dict[str, int]:
    """The last step on disk of each trial that has no record."""
    found = {}
    for path in study.glob("*/history.jsonl"):
        lines = path.read_bytes().splitlines()
        if not (path.parent / "record.json").exists() and lines:
            found[path.parent.name] = int(json.loads(lines[-1])["step"])
    return found


@pytest.mark.slow
@pytest.mark.torture
def test_dashboard_watches_a_sweep_that_is_killed_and_started_again(
    browser: Browser, address: str, place: Path
) -> None:
    look(browser, 1280)
    study = place / "outputs" / "s"
    browser.get(address)
    with launched(place, *SWEEP) as sweep:
        until(browser, lambda: texts(browser, "#sweeps th a") == ["s"], 120)
        click(browser, "#sweeps th a")
        until(browser, lambda: counts(browser).get("finished") == 6, 120)
        assert text(browser, "[data-part=failures]").count("Diverged: ") == 3
        until(browser, lambda: last_steps(study) and len(shown_steps(browser)) == 9)
        on_disk, drawn = last_steps(study), points(browser)
        until(
            browser, lambda: max(shown_steps(browser), default=0) >= max(on_disk.values()) and points(browser) > drawn
        )
        until(
            browser,
            lambda: re.search(r"\d+ of 18 trials ended; about \d+ (s|min) left", text(browser, "[data-part=done]")),
        )
        os.killpg(sweep.pid, signal.SIGKILL)
    until(browser, lambda: counts(browser).get("interrupted") == 9)
    assert "nothing trains now" in text(browser, "[data-part=done]")
    until(browser, lambda: text(browser, "[data-part=standing]").startswith("Preliminary: 9 of 18"))
    assert "Differences are paired by seed (n=3)" in text(browser, "[data-part=verdict]")
    with launched(place, *SWEEP) as sweep:
        until(browser, lambda: counts(browser) == {"finished": 12, "diverged": 6}, 120)
        sweep.wait(60)
    until(browser, lambda: text(browser, "[data-part=standing]").startswith("Final"))
    assert "Against rank 2" in text(browser, "[data-part=verdict]")
    assert browser.get_log("browser") == []
    asked = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in asked if not name.startswith((address, "data:"))] == []
    assert len(asked) > 5
    click(browser, "[data-part=report]")
    until(browser, lambda: facts(browser).get("shown") == "18", 120)
    assert not (study / "report").exists()


@pytest.mark.slow
def test_dashboard_shows_sweeps_side_by_side_on_the_same_axes(
    browser: Browser, address: str, place: Path, tmp_path: Path
) -> None:
    with launched(place, *SWEEP) as sweep:  # trains what an earlier test has left
        sweep.wait(120)
    shutil.copytree(place / "outputs" / "s", place / "outputs" / "t")
    for record in (place / "outputs" / "t").glob("r4-*/record.json"):
        shutil.rmtree(record.parent)
    opened(browser, f"{address}/compare?sweep=s&sweep=t&group=seed")
    until(browser, lambda: "9 of 9 trials ended" in text(browser, "#sweep-1"))
    assert texts(browser, "h2") == ["s", "t"]
    script = """return [...document.querySelectorAll('[data-part=curves]')].map(({panels: [{X, Y, lines}]}) =>
      [X(100), Y(0.5), lines.length, new Set(lines.map(({group}) => group)).size])"""
    left, right = browser.execute_script(script)
    assert left[:2] == right[:2]
    assert (left[2:], right[2:]) == ([18, 3], [9, 3])
    for path in ("/compare?sweep=s&sweep=t", "/sweeps/s", "/"):
        browser.get(address + path)
        until(browser, lambda: "Connecting" not in text(browser, "main"))
        for scheme in ("light", "dark"):
            for width in (1400, 480):
                look(browser, width, scheme)
                assert overflows(browser) == []
                assert barriers(browser) == []
    look(browser, 1280)
    table = saved(browser, "[data-file='sweeps.csv']", tmp_path, "sweeps.csv").decode()
    assert (
        table == 'sweep,now,trials,states\ns,rests,18,"12 finished, 6 diverged"\nt,rests,9,"6 finished, 3 diverged"\n'
    )
    opened(browser, f"{address}/sweeps/t")
    until(browser, lambda: points(browser) > 0)
    assert saved(browser, "[data-file='t_curves.svg']", tmp_path, "t_curves.svg").count(b"<path") == 9
