import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulate import grid, write_sweep

from analysis.__main__ import COMMANDS, conditions, main, parser
from tests.test_architecture import GROUND

HEAVY = ("torch", "pandas", "scipy", "matplotlib", "statsmodels", "wandb", "hydra")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit as done: assert done.code == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_subcommand_says_what_the_list_of_them_says(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    description = capsys.readouterr().out.split("\n\n")[1]
    assert "".join(description.split()) in "".join(parser().format_help().split())  # lines end where they like


def test_analysis_never_imports_torch(tmp_path: Path):
    folder = write_sweep(tmp_path / "s", grid(range(2), (), rank=[1, 2]), np.random.default_rng(0))
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        f"assert main(['{folder}']) == 0\nassert 'torch' not in sys.modules\n"
        "print(*sorted(name for name in sys.modules if name.startswith('sweep')))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"sweep.record", "sweep.metrics"} <= loaded <= GROUND | {"sweep", "sweep.child"}


def test_table_prints_and_leaves_markdown_and_csv(rank_sweep: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["table", str(rank_sweep), "--rows", "adapter.rank", "--columns", "adapter.targets"]
    assert main([*arguments, "--metric", "eval/loss", "--baseline", "4", "--format", "tex"]) == 0
    assert "\\toprule" in capsys.readouterr().out
    stem = rank_sweep / "report" / "table_eval-loss_adapter.rank_adapter.targets"
    assert "n=5" in stem.with_name(stem.name + ".md").read_text()
    assert stem.with_name(stem.name + ".csv").exists()
    assert stem.with_name(stem.name + ".tex").exists()


def test_compare_prints_a_verdict(rank_sweep: Path, capsys: pytest.CaptureFixture[str]):
    asked = ["--factor", "adapter.init", "--baseline", "kaiming", "--where", "adapter.kind=lora"]
    assert main(["compare", str(rank_sweep), *asked]) == 0
    assert "pissa" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_export_comes_back_as_it_was(rank_sweep: Path, tmp_path: Path, ending: str):
    target = tmp_path / "new" / f"trials.{ending}"
    assert main(["export", str(rank_sweep), "--to", str(target)]) == 0
    frame = pd.read_csv(target) if ending == "csv" else pd.read_parquet(target)
    assert len(frame) == 70
    assert main(["export", str(rank_sweep), "--to", str(tmp_path / "trials.xls")]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "nowhere"], "there is no folder nowhere"),
        (["nowhere"], "there is no folder nowhere"),
        (["table", "SWEEP", "--rows", "adapter.rnk"], "did you mean adapter.rank"),
        (["table", "SWEEP", "--rows", "adapter.rank", "--metric", "eval/los"], "did you mean eval/loss"),
        (["table", "SWEEP", "--rows", "seed"], "the seed is what the table averages over"),
        (["table", "SWEEP", "--rows", "adapter.rank", "--columns", "adapter.rank"], "named twice"),
        (["table", "SWEEP", "--rows", "adapter.rank", "--baseline", "3"], "unknown baseline level"),
        (["table", "SWEEP", "--rows", "adapter.rank", "--baseline", "1,2,3"], "give a row level"),
        (["table", "SWEEP", "--rows", "adapter.rank", "--where", "adapter.init"], "must be FACTOR=LEVEL"),
        (
            ["table", "SWEEP", "--rows", "adapter.rank", "--where", "adapter.init=olora"],
            "unknown level of adapter.init",
        ),
        (["compare", "SWEEP", "--factor", "eval/loss", "--baseline", "1"], "unknown factor 'eval/loss'"),
        (["compare", "SWEEP", "--factor", "optimizer.lr", "--baseline", "0.001"], "nothing to compare"),
    ],
)
def test_command_says_in_one_message_what_cannot_be_answered(
    arguments: list[str], said: str, rank_sweep: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([str(rank_sweep) if item == "SWEEP" else item for item in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert "Traceback" not in error


def test_conditions_read_factors_and_levels():
    assert conditions(["a=1,2", "b=x", "a=3"]) == {"a": ["1", "2", "3"], "b": ["x"]}
