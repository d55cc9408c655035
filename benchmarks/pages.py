"""How long the report and the dashboard take to open in a real headless browser, and to follow a sweep.

    python benchmarks/pages.py                 2,000 and 10,000 simulated trials

Needs chromium and chromedriver.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "analysis")]
import analysis  # noqa: E402
from analysis.report import answer, report  # noqa: E402
from tests.analysis.simulate import grid, write_sweep  # noqa: E402
from tests.support.browser import Browser, facts, opened, start_browser, texts, until  # noqa: E402

TRIALS_OF_A_SEED = 40
REPEATS = 3
RUNNING = 40
"""Trials that train while the dashboard is watched: each logs a row every half second."""
ROUNDS = 20


def sweep(folder: Path, seeds: int) -> Path:
    """Simulated trials, each with 50 rows."""
    trials = grid(range(seeds), (), rank=[1, 2, 4, 8, 16], targets=["a", "b"], lr=[1e-3, 1e-2], init=["x", "y"])
    return write_sweep(folder, trials, np.random.default_rng(0), points=50)


def opening(browser: Browser, address: str) -> float:
    """Seconds until the page at ``address`` is ready, the best of three."""
    times = []
    for _ in range(REPEATS):
        opened(browser, address)
        times.append(float(facts(browser)["ready"]) / 1000)
    return min(times)


@contextmanager
def served(outputs: Path) -> Iterator[str]:
    """The address of a dashboard of ``outputs``."""
    line = [sys.executable, "-m", "analysis", "serve", str(outputs), "--port", "0"]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield re.findall(r"http://127.0.0.1:\d+", server.stdout.readline())[0]
        server.terminate()


def arrived(browser: Browser, step: int) -> bool:
    """Whether the curves of all running trials have reached ``step``."""
    script = """const lines = document.querySelector('[data-part=curves]').panels.flatMap((one) => one.lines);
    return lines.filter((line) => line.steps.at(-1) === arguments[0]).length"""
    return bool(browser.execute_script(script, step) == RUNNING)


def following(browser: Browser, folder: Path) -> tuple[float, float]:
    """The longest script of an update, in ms, and the longest time until a row was on the page, in seconds."""
    running = sorted(folder.glob("trial_*"))[:RUNNING]
    for trial in running:
        (trial / "record.json").unlink()
    until(browser, lambda: len(texts(browser, "[data-part=waits] tbody tr")) == RUNNING)
    script, delay = 0.0, 0.0
    for step in range(201, 201 + ROUNDS):
        for trial in running:
            with (trial / "history.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "train/loss": 1.0, "eval/loss": 1.0}) + "\n")
        began = time.perf_counter()
        until(browser, partial(arrived, browser, step))
        delay = max(delay, time.perf_counter() - began)
        script = max(script, float(facts(browser)["update"]))
        time.sleep(0.5)
    return script, delay


def main() -> None:
    answer.figures = lambda *given: []  # type: ignore[assignment]  # they cost the browser nothing, but us ten seconds
    browser = start_browser()
    try:
        for seeds in (50, 250):
            place = Path(tempfile.mkdtemp())
            folder, trials = sweep(place / "many", seeds), f"{TRIALS_OF_A_SEED * seeds:,} trials"
            path = report.write(analysis.load(folder))
            print(f"{trials}: the report is ready after {opening(browser, path.as_uri()):.2f} s")
            with served(place) as address:
                print(f"{trials}: the dashboard is ready after {opening(browser, f'{address}/sweeps/many'):.2f} s")
                script, delay = following(browser, folder)
                print(f"{trials}: updates take at most {script:.0f} ms of script; rows are seen within {delay:.2f} s")
                browser.get("about:blank")
            shutil.rmtree(place)
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
