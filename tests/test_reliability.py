"""The short form of ``make torture``: some kills, some faults, some bad input; and that secrets stay where they are."""

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import ROOT, TOY, command
from tests.support.faults import FAULTS, happens
from tests.support.fuzz import try_command_lines, try_yaml_files
from tests.support.kills import Launcher, kill_at_random
from tests.support.sweeps import grid

pytestmark = [pytest.mark.slow, pytest.mark.torture]


def test_torture_by_kills_ends_as_if_there_had_been_none(tmp_path: Path) -> None:
    small_packs = Launcher(("hydra/launcher=packed", "hydra.launcher.max_pack=2", "hydra.launcher.workers=2"))
    survived = kill_at_random(small_packs, grid(12, 500), kills=2, place=tmp_path / "kills")
    assert survived.killed.total() == 2
    assert survived.sweeps >= 1
    assert survived.rows == 12 * 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the faults happen, and one sweep to which none happens."""
    return tmp_path_factory.mktemp("faults")


@pytest.mark.parametrize("fault", ["a full disk", "cut, damaged and wrongly dated files"])
def test_torture_by_faults_costs_what_it_must_and_no_more(fault: str, place: Path) -> None:
    assert fault in FAULTS
    assert happens(fault, place)


@pytest.mark.parametrize("attempt", [try_command_lines, try_yaml_files])
def test_torture_by_random_input_is_planned_or_refused_in_words(
    attempt: Callable[[int, Path], str], tmp_path: Path
) -> None:
    said = attempt(30, tmp_path)
    planned, refused = (int(word) for word in said.split() if word.isdigit() and word != "1")
    assert planned >= 5
    assert refused >= 5
    assert planned + refused == 30


SECRET = "canary-5ecret"


def test_secrets_reach_no_file_and_files_have_the_users_mode(tmp_path: Path) -> None:
    environment = dict.fromkeys(
        ("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MY_PASSWORD"), f"{SECRET}-{'x' * 40}"
    )
    arguments = ("-m", *TOY, "tracker=wandb", "name=s", "optimizer.lr=1e-2,1e30", "save_adapter=true")
    environment["MY_CACHE"] = f"outputs/.cache/{SECRET}"
    own = ("tracker.project=${oc.env:USER_PROJECT}", "cache=${oc.env:MY_CACHE}")
    done = command("sweep", *arguments, *own, cwd=tmp_path, umask=0o077, USER_PROJECT="mine", **environment)
    command("analysis", "table", "outputs/s", "--rows", "optimizer.lr", cwd=tmp_path, umask=0o077, **environment)
    assert done.returncode == 1
    assert "1 of 2 trials finished" in done.stdout
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert SECRET not in done.stdout + done.stderr


def test_files_are_shared_as_the_umask_says(tmp_path: Path) -> None:
    """The cached base and its lock above all: with umask 002 the others of a group write there too."""
    arguments = ("task=transformer_tiny", "task.pretraining.steps=1", "training.steps=1", "training.eval_every=1")
    done = command("sweep", *arguments, "tracker=none", "name=s", "save_adapter=true", cwd=tmp_path, umask=0o002)
    command("analysis", "table", "outputs/s", "--rows", "adapter.rank", cwd=tmp_path, umask=0o002)
    assert done.returncode == 0, done.stderr
    modes = {path.relative_to(tmp_path): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {path.suffix for path in modes} >= {
        ".lock",
        ".safetensors",
        ".json",
        ".jsonl",
        ".yaml",
        ".md",
        ".log",
    }
    assert {path: mode for path, mode in modes.items() if mode not in (0o664, 0o775)} == {}


def test_code_is_never_read_from_data() -> None:
    """No pickle from disk, no ``eval`` or ``exec``, and no import path in our YAML but the launcher's own."""
    pattern = r"\b(eval|exec)\(|pickle\.load|torch\.load\(|_target_|yaml\.(unsafe_)?load\("
    line = ["grep", "-rnE", pattern, "--include=*.py", "--include=*.yaml", "sweep", "analysis", "conf"]
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    harmless = (
        ".eval()",
        '_target_: str = "hydra_plugins.lora_sweep',
        "pickle.loads(self._by_groups",
        "pickle.loads(pickle.dumps(",
        'key == "_target_"',
        'name != "_target_"',
        'store.node.get("_target_")',  # what installed launchers have registered
    )
    assert found
    assert [one for one in found if not any(part in one for part in harmless)] == []
