"""How long the report's explorer takes to open in a real headless browser, and the command line to answer.

    python benchmarks/explorer.py                 1,000 and 10,000 simulated trials

Needs chromium, chromedriver and selenium.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "analysis")]
import analysis  # noqa: E402
from analysis.report import answer, report  # noqa: E402
from tests.analysis.simulate import grid, write_sweep  # noqa: E402
from tests.analysis.test_explorer import opened, started  # noqa: E402

TRIALS_OF_A_SEED = 40
REPEATS = 3


def page(folder: Path, seeds: int) -> Path:
    """A report on simulated trials, without figures: they cost the browser nothing, but us ten seconds."""
    answer.figures = lambda *given: []  # type: ignore[assignment]
    trials = grid(range(seeds), (), rank=[1, 2, 4, 8, 16], targets=["a", "b"], lr=[1e-3, 1e-2], init=["x", "y"])
    return report.write(analysis.load(write_sweep(folder, trials, np.random.default_rng(0), points=50)))


def main() -> None:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "analysis", "--help"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    print(f"python -m analysis --help: {time.perf_counter() - began:.2f} s")
    browser = started()
    try:
        for seeds in (25, 250):
            with tempfile.TemporaryDirectory() as place:
                path = page(Path(place) / "many", seeds)
                times = []
                for _ in range(REPEATS):
                    opened(browser, path)
                    ready = browser.execute_script("return document.documentElement.dataset.ready")
                    times.append(float(ready) / 1000)
            print(f"{TRIALS_OF_A_SEED * seeds:,} trials: the page is ready after {min(times):.2f} s")
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
