"""A grid of too many trials, or of none, is refused before Hydra lists them."""

import json
import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from sweep.cli.sweep_size import check_sweep_size
from sweep.errors import ConfigError
from tests.support.commands import hydra_loader, tree
from tests.support.fuzz import TOY, plan

MOST = "at most 100,000 are launched at once, so sweep over fewer values"
GRIDS = [
    ({"seed": "range(0,1e12)"}, f"seed: has 1,000,000,000,000 values, and the grid 1,000,000,000,000 trials; {MOST}"),
    ({"seed": "shuffle(range(1,400))", "adapter.rank": "range(1,400)"}, "seed: has 399 values, and the grid 159,201 trials"),
    ({"optimizer.lr": "range(0,1,0)"}, "optimizer.lr: has 1,000,000,000,000,000 or more values"),
    ({"seed": f"range(0,{'9' * 400})"}, "seed: has 1,000,000,000,000,000 or more values"),
    ({"seed": ",".join(map(str, range(400))), "adapter.rank": ",".join(["1"] * 300)}, "seed: has 400 values"),
    ({"seed": "range(10,0)"}, "seed: has no values to sweep over"),
    ({"adapter.init": "glob(*)"}, "adapter.init: has no values to sweep over"),
]  # fmt: skip


@pytest.mark.parametrize(("params", "says"), GRIDS, ids=[says.partition(";")[0] for _, says in GRIDS])
def test_check_sweep_size_bounds_the_grid_of_a_file(params: dict[str, str], says: str) -> None:
    with hydra_loader() as loader:
        launch = loader.load_configuration("config", [], RunMode.MULTIRUN)
        launch.hydra.sweeper.params = params
        with pytest.raises(ConfigError, match=f"^{re.escape(says)}"):
            check_sweep_size(launch, OverridesParser.create(config_loader=loader))


def test_command_refuses_the_grid_of_a_file_before_anything_exists(tmp_path: Path) -> None:
    own = tmp_path / "own/ablation/mine.yaml"
    own.parent.mkdir(parents=True)
    params, says = GRIDS[0]
    own.write_text(f"# @package _global_\nhydra: {{mode: MULTIRUN, sweeper: {{params: {json.dumps(params)}}}}}\n")
    said = plan([*TOY, "--dry-run", "--config-dir", "own", "+ablation=mine"], tmp_path)
    assert said.startswith(f"lora-sweep: {says}")
    assert tree(tmp_path) <= {"own", "own/ablation", "own/ablation/mine.yaml", "outputs", "outputs/.cache"}


def test_check_sweep_size_bounds_the_grid_of_a_command_line(tmp_path: Path) -> None:
    said = plan(
        [*TOY, "--dry-run", "seed=range(0,1000)", "adapter.rank=range(1,8)", "optimizer.lr=range(0,1,1e-3)"], tmp_path
    )
    assert said.startswith("lora-sweep: seed: has 1,000 values, and the grid 7,000,000 trials")
    assert plan([*TOY, "--dry-run", "seed=range(0,3)", "adapter=lora,none"], tmp_path) == ""
