"""What the documents show is run: README's lines in Python, and the notebook with a real kernel."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.support.commands import PATH, ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),  # of the packages of Jupyter
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, with the results of another program in it."""
    rows = [(r, method, seed, 1 / r + 0.01 * seed) for r in (1, 2) for method in "ab" for seed in range(3)]
    pd.DataFrame(rows, columns=["r", "method", "seed", "loss"]).to_csv(tmp_path / "results.csv", index=False)
    monkeypatch.chdir(tmp_path)
    for key, value in {"PYTHONPATH": PATH, "OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1"}.items():
        monkeypatch.setenv(key, value)
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    return tmp_path


def test_readme_lines_in_python_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## In Python")[2]
    [lines] = re.findall(r"```python\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    scope: dict = {}
    exec(lines, scope)
    assert len(scope["results"].trials) == 15
    assert (here / "rank.pdf").read_bytes().startswith(b"%PDF")
    assert "\\toprule" in capsys.readouterr().out


def test_notebook_runs_with_a_real_kernel(here: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(here)}}).execute()
    nbformat.write(notebook, here / "done.ipynb")
    kinds = {
        cell.source.partition("\n")[0]: {kind for output in cell.outputs for kind in output.get("data", ())}
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    assert "text/html" in kinds['results.table(rows="adapter.rank", columns="adapter.init", baseline=1)']
    assert "text/html" in kinds['results.compare("adapter.init", baseline="kaiming")']
    assert "text/html" in kinds["results.effects()"]
    assert "image/png" in kinds['results.plot("response")']
    assert len(pd.read_csv(here / "trials.csv")) == 24
    assert (here / "outputs" / "notebook" / "report" / "index.html").exists()
    said = "".join(output.get("text", "") for output in notebook.cells[2].outputs)
    assert "of 24 trials have ended" in said
    assert "24 of 24 trials finished" in said
