"""The command line as its user meets it: what it refuses, what it says, and what it leaves alone."""

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from sweep import __main__ as command_line
from sweep.registry import INITS
from tests.support.commands import ROOT, TOY, command, records, sweep, tree
from tests.support.sweeps import launched, wait_for

PACKED = "hydra/launcher=packed"


def run_here(arguments: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> str | int | None:
    """Run the command line in this process; return what it exits with."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("USER_SECRET", "canary-5ecret")
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return ended.value.code


ABLATIONS = ", ".join(sorted(path.stem for path in (ROOT / "conf" / "ablation").glob("*.yaml")))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("adapter.rnk=4",), "adapter.rnk: unknown key; did you mean adapter.rank?"),
        (("+adapter.rnk=4",), "adapter.rnk: unknown key; did you mean adapter.rank?"),
        (("adapter.rank=0",), "adapter.rank = 0: must be greater than or equal to 1"),
        (
            ("adapter.rank=0", "seed=-1"),
            "seed = -1: must be greater than or equal to 0\nadapter.rank = 0: must be greater than or equal to 1",
        ),
        (("task=toy",), "task = 'toy': must be one of causal_lm, mnist, toy_regression, transformer, transformer_tiny"),
        (("hydra/job_logging=loud",), "hydra/job_logging = 'loud': must be one of default, disabled, none, stdout"),
        (("+ablation=size",), f"ablation = 'size': must be one of {ABLATIONS}"),
        (("ablation=rank",), "ablation: has no default choice to replace; write +ablation=rank"),
        (
            ("-m", "+ablation=rank,init"),
            "an ablation chooses its own factors, so two cannot be swept at once; launch them one after the other",
        ),
        (("optimizer.lr=${nothing}",), "optimizer.lr: Interpolation key 'nothing' not found"),
        (("optimizer.lr=???",), "optimizer.lr: missing; give it with optimizer.lr=…"),
        (("-m", "--cfg", "job"), "--cfg shows one trial, without -m; --dry-run shows the plan of a sweep"),
        (("rank=4",), "rank: unknown key; did you mean adapter.rank?"),
        (("+abaltion=rank",), "abaltion: unknown key; did you mean +ablation?"),
        (
            ("seed=0,1",),
            "seed=0,1: several values; put -m before it to sweep over them, or write seed=[0,1] for one list",
        ),
        (("+seed=1",), "seed: exists already; write it without +"),
        (("adapter={a: 1}",), "adapter: holds several keys; set each, as in adapter.kind=…"),
        (("seed", "1"), "'seed': is not of the form key=value1,value2 without spaces, or a value needs quotes"),
        (
            ("--ablation", "rank"),
            "--ablation: unknown option; a setting has no dashes: ablation=…, or +ablation=… for a group that has no default",
        ),
        (("--dryrun",), "--dryrun: unknown option; did you mean --dry-run?"),
        (
            ("--experimental-rerun=x",),
            "--experimental-rerun would read a pickle, which can run code; write the command again",
        ),
        (
            ("hydra.launcher.workers=2",),
            "hydra.launcher.workers: a setting of the packed launcher; add -m, or hydra/launcher=packed",
        ),
        (("-m", "hydra.launcher.wokers=2"), "hydra.launcher.wokers: unknown key; did you mean hydra.launcher.workers?"),
        (("adapter.rank=${oc.env:USER_SECRET}",), "adapter.rank = '$USER_SECRET': must be a valid integer"),
        (
            ("adapter.\x1b=1",),
            "'adapter.\\x1b=1': is not of the form key=value1,value2 without spaces, or a value needs quotes",
        ),
        (
            ("hydra.job_logging.handlers.console.class=os.mkdir",),
            "hydra.job_logging: choose one of Hydra's, as in hydra/job_logging=stdout",
        ),
    ],
)
def test_command_refuses_a_mistake_before_anything_exists(
    arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_here((*TOY, *arguments), tmp_path, monkeypatch) == f"lora-sweep: {says}"
    assert tree(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("adapter.rank=11",), "adapter.rank = 11"),
        (("name='\x1b[31m'",), "name = '\\x1b[31m'"),
        (("name=../../x",), "name = '../../x'"),
        (("name=",), "name = ''"),
        (("-m", "name=../../x", "seed=0,1"), "name = '../../x'"),
        (("+hydra.callbacks.x._target_=builtins.open",), "hydra.callbacks"),
        (("-m", PACKED, "+hydra.launcher.slurm.x={_target_:builtins.open}"), "hydra.launcher"),
        (("hydra.run.dir=x",), "hydra.run.dir = 'x'"),
        (("-m", "hydra/launcher=basic", "hydra.output_subdir=../x"), "hydra.output_subdir = '../x'"),
    ],
)
def test_command_names_a_mistake_whose_wording_is_tested_elsewhere(
    arguments: tuple[str, ...], names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = run_here((*TOY, *arguments), tmp_path, monkeypatch).splitlines()
    assert line.startswith(f"lora-sweep: {names}: ")
    assert tree(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*TOY, "adapter.init=loftq"), "adapter.init = 'loftq': must be 'kaiming', "),
        (
            ("task=transformer_tiny", "task.source_text=none.txt"),
            "task.source_text = 'none.txt': No such file or directory",
        ),
    ],
)
def test_command_says_a_mistake_in_one_line_with_exit_code_1(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = command("sweep", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"lora-sweep: {says}")
    assert len(done.stderr.splitlines()) == 1
    assert tree(tmp_path) == set()


def test_command_with_the_basic_launcher_leaves_nothing_of_a_refused_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (*TOY, "adapter.rnk=4,8", "-m", "name=bad", "hydra/launcher=basic")
    said = run_here(arguments, tmp_path, monkeypatch)
    assert said == "lora-sweep: adapter.rnk: unknown key; did you mean adapter.rank?"
    assert tree(tmp_path) == set()


def test_command_packs_a_sweep_without_a_launcher(tmp_path: Path) -> None:
    sweep("-m", *TOY, "name=p", "seed=0,1", cwd=tmp_path)
    assert [one.perf["pack_size"] for one in records(tmp_path / "outputs/p").values()] == [2, 2]


def test_command_takes_options_between_overrides(tmp_path: Path) -> None:
    done = sweep("task=mnist", "--cfg", "job", "seed=7", "~tracker.project", "--resolve", "name=x", cwd=tmp_path)
    assert "seed: 7" in done.stdout
    assert "project" not in done.stdout
    assert "name: x" in done.stdout


def test_command_tells_every_fault_of_every_trial_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("-m", *TOY, "name=bad", "adapter.rank=4,0,99,x", "adapter.init=kaiming,zero")
    header, *faults = str(run_here(arguments, tmp_path, monkeypatch)).splitlines()
    assert header == "lora-sweep: nothing was started:"
    unknown_init, *faults = faults
    assert unknown_init.startswith("adapter.init = 'zero': must be 'kaiming', 'gaussian', ")
    assert unknown_init.endswith(" (in 4 of 8 trials)")
    assert [(fault.partition(": ")[0], fault.rpartition(" (in ")[2]) for fault in faults] == [
        ("adapter.rank = 0", "2 of 8 trials)"),
        ("adapter.rank = 99", "1 of 8 trials)"),
        ("adapter.rank = 'x'", "2 of 8 trials)"),
    ]
    assert tree(tmp_path) == set()


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    arguments = (*TOY, "name=plan", "adapter.rank=2,4", "adapter=lora,full,none", "seed=0,1,1", "--dry-run")
    done = sweep(*arguments, cwd=tmp_path)
    first, *packs, last, scores, skipped = done.stdout.splitlines()
    assert skipped.startswith("  exact duplicate: r2-a16-kaiming-all_linear-lr0.01-s1-")
    assert skipped.count(", ") == 5  # the second seed 1 of six cells; full and none have no rank, so each twice more
    assert first == "outputs/plan: 18 trials: 10 exact duplicates dropped, 0 already finished, 8 to train"
    assert sorted(" ".join(line.split(", about")[0].split()) for line in packs) == sorted(
        f"{count} × {size} of toy_regression ({kind}), {steps} steps, training {numbers} numbers each"
        for count, size, kind, steps, numbers in (
            (1, "2 trials", "lora", 20, "148"),  # rank × (64 + 10)
            (1, "2 trials", "lora", 20, "296"),
            (2, "1 trial", "full", 20, "650"),  # 64 × 10 + 10
            (1, "2 trials", "none", 0, "0"),
        )
    )
    assert last.startswith("5 packs, 1 at once: ")
    assert scores.startswith("scores of each test example: ")
    assert tree(tmp_path) == set()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``outputs/one``, which has one finished trial."""
    here = tmp_path_factory.mktemp("trained")
    sweep(*TOY, "name=one", cwd=here)
    return here


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "here")


def test_dry_run_knows_what_is_finished(finished: Path) -> None:
    before = tree(finished)
    done = sweep(*TOY, "name=one", "seed=0,1", "--dry-run", cwd=finished)
    assert "outputs/one: 2 trials: 0 exact duplicates dropped, 1 already finished, 1 to train" in done.stdout
    assert tree(finished) == before


def test_dry_run_refuses_what_a_run_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = str(run_here((*TOY, "adapter.rank=0,1", "--dry-run"), tmp_path, monkeypatch))
    assert re.search(r"adapter\.rank = 0: .* \(in 1 of 2 trials\)", said)
    assert tree(tmp_path) == set()


def test_command_makes_a_sweep_of_each_swept_name(tmp_path: Path) -> None:
    done = sweep("-m", *TOY, PACKED, "name=a,b", "seed=0,1,1", cwd=tmp_path)
    first, second = records(tmp_path / "outputs/a"), records(tmp_path / "outputs/b")
    assert list(first) == list(second)
    assert len(first) == 2
    assert {one.name for one in first.values()} == {"a"}
    assert {one.name for one in second.values()} == {"b"}
    assert "2 of 2 trials finished; see them with: python -m analysis outputs/a" in done.stdout
    assert "2 of 2 trials finished; see them with: python -m analysis outputs/b" in done.stdout


def test_command_trains_again_when_an_adapter_is_asked_for_later(finished: Path) -> None:
    [label] = records(finished / "outputs/one")
    adapter = finished / "outputs/one" / label / "adapter"
    assert not adapter.exists()
    sweep(*TOY, "name=one", "save_adapter=true", cwd=finished)
    assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_command_names_a_damaged_record_or_folder_in_one_line(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [damaged] = finished.glob("outputs/one/*/record.json")
    damaged.write_text("{")
    said = run_here((*TOY, "name=one"), finished, monkeypatch)
    assert isinstance(said, str)
    assert re.fullmatch(r"lora-sweep: .*record\.json is not valid JSON .*", said)
    (finished / "outputs/file").touch()
    said = run_here((*TOY, "name=file"), finished, monkeypatch)
    assert isinstance(said, str)
    assert re.fullmatch(r"lora-sweep: .*Not a directory: 'outputs/file/.*'", said)


@pytest.mark.slow
@pytest.mark.torture
def test_command_leaves_no_process_behind_when_interrupted_or_killed(tmp_path: Path) -> None:
    long = ("task=toy_regression", "tracker=none", "training.steps=1000000", "seed=0,1", "hydra.launcher.workers=2")
    arguments = ("-m", *long, PACKED, "hydra.launcher.max_pack=1", "name=long")
    folders = [tmp_path / "interrupted", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    with launched(folders[0], *arguments) as interrupted, launched(folders[1], *arguments) as killed:
        wait_for(lambda: len(list(tmp_path.glob("*/outputs/long/*/trial.log"))) == 4)
        assert len(group(interrupted.pid)) >= 3
        assert len(group(killed.pid)) >= 3
        os.killpg(interrupted.pid, signal.SIGINT)  # as a terminal does
        killed.kill()
        errors = interrupted.communicate(timeout=60)[1]
        wait_for(lambda: group(interrupted.pid) == group(killed.pid) == [])
    assert interrupted.returncode == 130
    assert errors == "lora-sweep: interrupted; the same command continues with what is not finished\n"
    assert not list(tmp_path.glob("*/outputs/long/*/record.json"))


def group(leader: int) -> list[int]:
    """The processes of a group that are still there, dead ones that nobody has waited for aside."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == leader and state != "Z":
            alive.append(int(stat.parent.name))
    return alive


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("-m", "task=mnist,toy_regression", "task.angle=30"),
            "task.angle: exists for task=mnist only; to compare tasks, launch each with its own settings and one name=…",
        ),
        (
            ('adapter.rank_pattern={"^q_proj": 4}',),
            "adapter.rank_pattern: on the command line a name has no quotes and no signs but . * | ? $, as in "
            "'adapter.rank_pattern={q_proj: 4}'; any other expression goes into a YAML file, as in "
            'rank_pattern: {"^q_proj": 4}',
        ),
        (
            ("-m", "adapter.init=glob(*)"),
            "adapter.init=glob(*): glob(…) is for groups, as in task=glob(*); list the values, as in "
            f"adapter.init={','.join(INITS.names)}",
        ),
        (
            ("-m", "optimizer.lr=interval(1e-4,1e-2)"),
            "a grid has no intervals: give values, as in optimizer.lr=1e-4,1e-3,1e-2, or search with "
            "hydra/sweeper=optuna",
        ),
        (("adapter.alpha=${times:2,x}",), "${times:2,x}: must be numbers, as in ${times:2,${adapter.rank}}"),
        (
            (*TOY, "adapter.rank_pattern.q_proj=4"),
            "adapter.rank_pattern.q_proj: unknown key; adapter.rank_pattern is one value; give it whole, as in adapter.rank_pattern=…",
        ),
        (
            ("--example",),
            "--example: unknown option; a setting has no dashes: example=…, or +example=… for a group that has no default",
        ),
        (("--exp=x",), "--experimental-rerun would read a pickle, which can run code; write the command again"),
    ],
)
def test_message_says_what_to_write_instead(
    arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_here(arguments, tmp_path, monkeypatch) == f"lora-sweep: {says}"
    assert tree(tmp_path) == set()


def test_times_makes_pairs_of_settings(tmp_path: Path) -> None:
    arguments = ("-m", *TOY, "adapter.rank=1,4", "adapter.alpha=${times:2,${adapter.rank}}", "name=pairs")
    sweep(*arguments, cwd=tmp_path)
    settings = [one.trial["adapter"] for one in records(tmp_path / "outputs" / "pairs").values()]
    assert sorted((one["rank"], one["alpha"]) for one in settings) == [(1, 2.0), (4, 8.0)]
