"""W&B runs of somebody's plain script, from its offline files and from a server."""

from pathlib import Path

import numpy as np
import pytest
import wandb

import analysis
from analysis.__main__ import main
from tests.support.loopback_wandb import LoopbackWandb

pytestmark = pytest.mark.usefixtures("clean_wandb")


def plain_script(place: Path, mode: str) -> None:
    """Six runs as they are in the wild: a nested configuration, an underscore in the metric, no step of their own."""
    rng = np.random.default_rng(0)
    for r in (1, 8):
        for seed in range(3):
            config = {"r": r, "opt": {"lr": 1e-3}, "seed": seed, "output_dir": f"out/{r}/{seed}"}
            settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_save_requirements=False)
            run = wandb.init(
                project="theirs", dir=place, mode=mode, config=config, reinit="create_new", settings=settings
            )
            for step in range(3):
                run.log({"eval_loss": 1 / r + 0.1 * seed + 0.1 / (step + 1) + rng.normal(0, 0.001)})
            run.finish()
    wandb.teardown()


def check(results: analysis.Results) -> None:
    assert results.counts["finished"] == 6
    assert set(results.trials["config.opt.lr"]) == {1e-3}
    assert "config.output_dir" not in results.trials
    shown = results.table("r", metric="eval_loss", baseline=1)
    assert list(shown.frame["verdict"].dropna()) == ["better"]
    assert len(results.history) == 18
    last = results.history.groupby("trial_id")["metric/eval_loss"].last()
    assert sorted(last) == pytest.approx(sorted(results.trials["metric/eval_loss"]))


@pytest.mark.slow
def test_load_reads_the_configuration_and_metrics_of_offline_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain_script(tmp_path, "offline")
    check(analysis.load(tmp_path / "wandb"))
    assert main(["compare", str(tmp_path / "wandb"), "--factor", "r", "--baseline", "1", "--metric", "eval_loss"]) == 0
    assert "better" in capsys.readouterr().out


@pytest.mark.slow
def test_load_reads_the_same_from_a_server(tmp_path: Path, server: LoopbackWandb) -> None:
    plain_script(tmp_path, "online")
    check(analysis.load("wandb:local/theirs"))
