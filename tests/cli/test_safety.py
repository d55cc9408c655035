"""Files that somebody else has written: plain values are planned, and nothing else reaches code, places or a network."""

import re
import sys
from contextlib import chdir
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from sweep.cli.foreign import check_values, read_config
from sweep.cli.messages import readable
from sweep.errors import ConfigError
from tests.support.commands import command, sweep, tree
from tests.support.fuzz import TOY, plan

HEAD = "# @package _global_\n"
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghij")
)
CHAIN = "a0: xxxxxxxxxxxxxxxx\n" + "".join(f"a{n + 1}: {f'${{a{n}}}' * 9}\n" for n in range(9))
"""548 bytes and more that stand for 6 GB."""
INNER = re.sub(r" (\$\S+)", r' "\1"', CHAIN.strip()).replace("\n", ", ").replace("${a", "${adapter.rank_pattern.a")
LISTS = ", ".join(f"a{n + 1}: [" + f"'${{..a{n}}}', " * 9 + "]" for n in range(9))
MAY_NOT = "a file may not set this; give it on the command line, or trust the folder with --trust own"
ABLATION = ("--config-dir", "own", "+ablation=mine")


def write(content: str | bytes, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def tried(content: str | bytes, folder: Path, *arguments: str) -> str:
    """Plan the ablation ``mine`` whose file holds ``content``; return what was said against it."""
    write(content, folder / "own/ablation/mine.yaml")
    before = tree(folder)
    said = plan([*TOY, "--dry-run", *ABLATION, *arguments], folder)
    assert tree(folder) - before <= {"outputs", "outputs/.cache"}
    return said


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in the folder where the command starts; whoever imports it finds ``imported`` there."""
    body = "from pathlib import Path\nPath(__file__).parent.with_name('imported').touch()\nx = print\n"
    write(body, tmp_path / "payload/__init__.py")
    write("seed: 1\n", tmp_path / "payload/extra.yaml")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "payload", raising=False)


def test_loader_plans_an_ablation_of_ones_own(tmp_path: Path) -> None:
    own = HEAD + (
        "name: mine-${task.name}\nhydra: {mode: MULTIRUN, sweeper: {params: {adapter.rank: '1,2', seed: '0,1'}}}\n"
    )
    assert tried(own, tmp_path) == ""


@pytest.mark.parametrize(
    "content",
    [
        "defaults:\n  - override /hydra/launcher: packed\nhydra: {launcher: {max_pack: 4, workers: 1, minutes: null}}\n",
        "tracker: {mode: offline, project: 'mine-${oc.env:WANDB_PROJECT,x}'}\n",
        "defaults:\n  - override /tracker: wandb\n  - override /adapter: full\n",
        "adapter: {alpha: '${.rank}', targets: '.*', rank: 2}\noptimizer: {lr: 1e-4}\n",
        "hydra: {sweeper: {params: {adapter: 'lora,full,none', adapter.scaling: 'alpha/rank,alpha/sqrt_rank'}}}\n",
    ],
)
def test_loader_takes_plain_values_of_a_file(content: str, tmp_path: Path) -> None:
    assert tried(HEAD + content, tmp_path) == ""


def test_loader_takes_a_task_of_ones_own(tmp_path: Path) -> None:
    write(
        HEAD + "defaults: [toy_regression, _self_]\ntask: {samples: 64, noise: 0.2}\n",
        tmp_path / "own/task/my_toy.yaml",
    )
    assert plan(["--dry-run", "--config-dir", "own", "tracker=none", "task=my_toy", "seed=0,1"], tmp_path) == ""


def test_loader_takes_a_search_from_a_file(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install 'lora-sweep[optuna]'")
    own = "defaults:\n  - override /hydra/launcher: packed\n  - override /hydra/sweeper: optuna\n"
    own += "hydra:\n  mode: MULTIRUN\n  sweeper: {n_trials: 2, n_jobs: 2, sampler: {seed: 0}, params: {adapter.rank: 'choice(1,2)'}}\n"
    write(HEAD + own, tmp_path / "own/ablation/mine.yaml")
    assert "2 trials: " in sweep(*TOY, "--dry-run", *ABLATION, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ablation: unknown key; the file of an ablation begins with the line '# @package _global_'"),
        ("seed: 1\n", "ablation: unknown key; the file of an ablation begins with the line '# @package _global_'"),
        (HEAD + "adapter.rank: 3\n", "adapter.rank: unknown key; in a file this is adapter: {rank: …}"),
        (
            HEAD + "adapter: [1]\n",
            "In 'ablation/mine': ConfigTypeError raised while composing config: Cannot merge DictConfig with ListConfig",
        ),
        (HEAD + "adapter: 3\n", "adapter = 3: must hold keys and values, as in adapter.NAME=VALUE"),
        (HEAD + f"name: {'x' * 5000}\n", f"name = '{'x' * 992}… (5,"),
    ],
)
def test_loader_refuses_what_is_no_ablation(content: str, says: str, tmp_path: Path) -> None:
    said = tried(content, tmp_path)
    assert said.startswith(f"lora-sweep: {says}")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            HEAD + "task:\n\tname: x\n",
            "mine.yaml: while scanning for the next token found character that cannot start any token",
        ),
        (HEAD + "- seed\n", "mine.yaml: line 2: must hold keys and values, as in key: value"),
        (b"name: \xff", "mine.yaml: not a UTF-8 text"),
        (
            HEAD + "name: &a [*a]\n",
            "mine.yaml: line 2: aliases are not read here; write the value itself, or refer to it as ${key}",
        ),
        (HEAD + LAUGHS, "mine.yaml: line 3: aliases are not read here"),
        (
            HEAD + "name: !!python/name:os.system\n",
            "mine.yaml: line 2: tags are not read here; leave out tag:yaml.org,2002:python/name:os.system",
        ),
        (HEAD + f"name: {'[' * 60}{']' * 60}\n", "mine.yaml: line 2: more than 50 levels deep"),
        (HEAD + f"name: [{'1, ' * 6000}]\n", "mine.yaml: line 2: more than 5,000 values"),
        (HEAD + "#" * 300_000, "mine.yaml: has 300,020 bytes; at most 262,144 are read"),
    ],
)
def test_read_config_refuses_what_is_more_than_plain_values(content: str | bytes, says: str, tmp_path: Path) -> None:
    write(content, tmp_path / "mine.yaml")
    with chdir(tmp_path), pytest.raises(ConfigError) as refused:
        read_config(tmp_path / "mine.yaml")
    assert readable(refused.value).startswith(says)


SLURM_WRITES = "{_target_: hydra_plugins.lora_sweep.quick_job.Path.write_text, self: {_target_: pathlib.Path, _args_: [hacked]}, data: x}"


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (
            "hydra: {job_logging: {handlers: {console: {stream: 'ext://payload.x'}}}}",
            "hydra.job_logging.handlers.console.stream",
        ),
        (
            "hydra: {hydra_logging: {handlers: {console: {stream: 'ext://payload.x'}}}}",
            "hydra.hydra_logging.handlers.console.stream",
        ),
        (f"hydra: {{launcher: {{slurm: {SLURM_WRITES}}}}}", "hydra.launcher.slurm._target_"),
        ("hydra: {job: {env_set: {LD_PRELOAD: payload/x.so}}}", "hydra.job.env_set.LD_PRELOAD"),
        ("hydra: {launcher: {slurm: {setup: [touch hacked]}}}", "hydra.launcher.slurm.setup.0"),
        ("hydra: {searchpath: ['pkg://payload']}", "hydra.searchpath.0"),
        (
            "hydra: {sweeper: {params: {hydra.job.env_set.LD_PRELOAD: x}}}",
            "hydra.sweeper.params.hydra.job.env_set.LD_PRELOAD",
        ),
        ("cache: /elsewhere", "cache"),
        ("name: ${oc.env:HF_TOKEN}", "name"),
        ("tracker: {project: '${oc.env:HF_TOKEN}'}", "tracker.project"),
        ("adapter: {targets: '${oc.env:HF_TOKEN}'}", "adapter.targets"),
    ],
)
@pytest.mark.usefixtures("payload")
def test_loader_refuses_a_setting_that_is_not_listed(
    content: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    said = tried(f"{HEAD}{content}\n", tmp_path)
    assert said.startswith(f"lora-sweep: own/ablation/mine.yaml: {key} = ")
    assert said.endswith(MAY_NOT)
    assert "canary" not in said
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("content", "key"),
    [
        # code
        ("hydra: {callbacks: {x: {_target_: builtins.open, file: hacked, mode: w}}}", "hydra.callbacks.x._target_"),
        (
            "hydra: {job_logging: {handlers: {console: {stream: 'ext://payload.x'}}}}",
            "hydra.job_logging.handlers.console.stream",
        ),
        (
            "hydra: {hydra_logging: {handlers: {console: {stream: 'ext://payload.x'}}}}",
            "hydra.hydra_logging.handlers.console.stream",
        ),
        ("hydra: {launcher: {_target_: payload.x}}", "hydra.launcher._target_"),
        (f"hydra: {{launcher: {{slurm: {SLURM_WRITES}}}}}", "hydra.launcher.slurm._target_"),
        ("hydra: {sweeper: {sampler: {_target_: payload.x}}}", "hydra.sweeper.sampler._target_"),
        ("hydra: {sweeper: {custom_search_space: payload.x}}", "hydra.sweeper.custom_search_space"),
        ("hydra: {searchpath: ['pkg://payload']}", "hydra.searchpath.0"),
        ("hydra: {searchpath: [/etc]}", "hydra.searchpath.0"),
        # a shell, an environment, a cluster
        ("hydra: {launcher: {slurm: {setup: [touch hacked]}}}", "hydra.launcher.slurm.setup.0"),
        ("hydra: {launcher: {setup: [touch hacked]}}", "hydra.launcher.setup.0"),
        ("hydra: {launcher: {slurm: {partition: long}}}", "hydra.launcher.slurm.partition"),
        ("hydra: {launcher: {engine: slurm}}", "hydra.launcher.engine"),
        ("hydra: {launcher: {address: 'example.org:6379'}}", "hydra.launcher.address"),
        ("hydra: {launcher: {max_pack: '${seed}'}}", "hydra.launcher.max_pack"),
        ("hydra: {job: {env_set: {LD_PRELOAD: payload/x.so}}}", "hydra.job.env_set.LD_PRELOAD"),
        ("hydra: {job: {env_copy: [HF_TOKEN]}}", "hydra.job.env_copy.0"),
        ("hydra: {job: {chdir: true}}", "hydra.job.chdir"),
        ("hydra: {verbose: true}", "hydra.verbose"),
        # the same by way of a sweep, whose keys become the command line of each trial
        (
            "hydra: {sweeper: {params: {hydra.job.env_set.LD_PRELOAD: x}}}",
            "hydra.sweeper.params.hydra.job.env_set.LD_PRELOAD",
        ),
        ("hydra: {sweeper: {params: {+hydra.job.env_set: '{A: b}'}}}", "hydra.sweeper.params.+hydra.job.env_set"),
        ("hydra: {sweeper: {params: {hydra/job_logging: disabled}}}", "hydra.sweeper.params.hydra/job_logging"),
        ("hydra: {sweeper: {params: {ablation@hydra.launcher: rank}}}", "hydra.sweeper.params.ablation@hydra.launcher"),
        ("hydra: {sweeper: {params: {tracker: wandb_online}}}", "hydra.sweeper.params.tracker"),
        ("hydra: {sweeper: {params: {tracker.mode: online}}}", "hydra.sweeper.params.tracker.mode"),
        ("hydra: {sweeper: {params: {cache: /elsewhere}}}", "hydra.sweeper.params.cache"),
        ("hydra: {sweeper: {params: {~adapter: x}}}", "hydra.sweeper.params.~adapter"),
        ("hydra: {sweeper: {params: {name: '${oc.env:HF_TOKEN}'}}}", "hydra.sweeper.params.name"),
        ("device: $\nhydra: {sweeper: {params: {name: '${device}{oc.env:HF_TOKEN}'}}}", "hydra.sweeper.params.name"),
        (
            "hydra: {sweeper: {params: {task.source_text: 'a.txt,/etc/passwd'}}}",
            "hydra.sweeper.params.task.source_text",
        ),
        ("hydra: {sweeper: {params: {task: ../../x}}}", "hydra.sweeper.params.task"),
        # places
        ("hydra: {run: {dir: /tmp/x}}", "hydra.run.dir"),
        ("hydra: {sweep: {dir: x}}", "hydra.sweep.dir"),
        ("hydra: {output_subdir: ../x}", "hydra.output_subdir"),
        ("hydra: {sweeper: {storage: 'sqlite:///x.db'}}", "hydra.sweeper.storage"),
        ("cache: /elsewhere", "cache"),
        ("task: {source_text: /etc/passwd}", "task.source_text"),
        ("task: {target_text: ../secret.txt}", "task.target_text"),
        ("task: {data: '${name}'}", "task.data"),
        ("task: {model: /models/x}", "task.model"),
        ("adapter: {peft: /adapters/x}", "adapter.peft"),
        ("adapter: '${optimizer}'", "adapter"),
        ("tracker: '${optimizer}'", "tracker"),
        # an upload
        ("tracker: {mode: online}", "tracker.mode"),
        ("name: online\ntracker: {mode: '${name}'}", "tracker.mode"),
        # the environment
        ("name: ${oc.env:HF_TOKEN}", "name"),
        ("cache: ${oc.env:HF_TOKEN}", "cache"),
        ("tracker: {project: '${oc.env:HF_TOKEN}'}", "tracker.project"),
        ("adapter: {targets: '${oc.env:HF_TOKEN}'}", "adapter.targets"),
        ("adapter: {targets: ['${oc.env:HF_TOKEN}']}", "adapter.targets.0"),
        ("seed: ${oc.env:FUZZ_SECRET}", "seed"),
        ("name: '${oc.env:WANDB_PROJECT,${oc.env:HF_TOKEN}}'", "name"),
        ("name: '${oc.env:${device}}'", "name"),
        ("name: '${oc.decode:\"${device}\"}'", "name"),
        ("name: '${hydra.runtime.cwd}'", "name"),
        ("name: '${.hydra.runtime.cwd}'", "name"),
        ("name: '${hydra:runtime.cwd}'", "name"),
        ("name: '${now:%Y}'", "name"),
        ("device: $\nname: '$${device}{oc.env:HF_TOKEN}'", "name"),
    ],
)
def test_check_values_refuses_what_is_not_listed(content: str, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_values(yaml.safe_load(content), Path("own/ablation/mine.yaml"), Path("own"))
    said = str(refused.value)
    assert said.startswith(f"own/ablation/mine.yaml: {key} = ")
    assert said.endswith(MAY_NOT)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "defaults: [override /tracker: wandb_online]",
            "uploads to W&B; a file may not choose that, so write tracker.mode=online on the command line",
        ),
        (
            "defaults: [override /hydra/launcher: submitit_slurm]",
            "chooses hydra/launcher=submitit_slurm; a file may not, so give it on the command line",
        ),
    ],
)
def test_loader_refuses_a_choice_that_reaches_elsewhere(content: str, says: str, tmp_path: Path) -> None:
    write(HEAD + content + "\n", tmp_path / "own/ablation/mine.yaml")
    online = plan(["task=toy_regression", *ABLATION], tmp_path)
    assert online == f"lora-sweep: own/ablation/mine.yaml: {says}"
    assert tree(tmp_path) == {"own", "own/ablation", "own/ablation/mine.yaml"}


@pytest.mark.parametrize("where", ["tracker/wandb@hydra.job.env_set", "hydra/launcher/joblib@hydra.callbacks.x"])
def test_loader_refuses_files_placed_among_hydras_settings(where: str, tmp_path: Path) -> None:
    said = tried(f"{HEAD}defaults: [/{where}]\n", tmp_path)
    assert said == f"lora-sweep: {where}: only a file of Hydra's own groups goes there"


FOUND = {
    "config-path": ("--config-path", "{}/own/ablation", "--config-name", "mine"),
    "config-name": ("--config-name", "{}/own/ablation/mine"),
    "config-name upwards": ("--config-name", "../../../../../../../../../../../../../../../..{}/own/ablation/mine"),
    "search path": ("hydra.searchpath=[file://{}/own]", "+ablation=mine"),
    "linked folder": ("--config-dir", "linked", "+ablation=mine"),
    "linked file": ("--config-dir", "other", "+ablation=theirs"),
    "group upwards": ("--config-dir", "other", "+ablation=../../own/ablation/mine"),
    "package": ("--config-dir", "own", "+ablation@x=mine"),
}


@pytest.mark.parametrize("way", FOUND)
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("hydra: {searchpath: ['pkg://payload']}", "a file may not set this"),
        ("name: ${oc.env:FUZZ_SECRET}", "a file may not set this"),
        (LAUGHS, "aliases are not read here"),
    ],
    ids=["search path", "environment", "aliases"],
)
@pytest.mark.usefixtures("payload")
def test_loader_checks_a_file_however_it_is_found(way: str, content: str, says: str, tmp_path: Path) -> None:
    write(f"{HEAD}{content}\n", tmp_path / "own/ablation/mine.yaml")
    write(b"", tmp_path / "other/ablation/empty.yaml")
    (tmp_path / "linked").symlink_to("own")
    (tmp_path / "other/ablation/theirs.yaml").symlink_to(tmp_path / "own/ablation/mine.yaml")
    before = tree(tmp_path)
    said = plan(["--dry-run", *(part.format(tmp_path) for part in FOUND[way])], tmp_path)
    if way == "config-name" and "oc.env" in content:  # Hydra reads such a file for its search path and no more
        says = "Cannot find primary config"
    assert says in said
    assert "canary" not in said
    assert len(said.splitlines()) == 1
    assert tree(tmp_path) - before <= {"outputs", "outputs/.cache"}


@pytest.mark.parametrize(
    "content",
    [
        CHAIN + "name: ${a9}",
        f"adapter: {{rank_pattern: {{{INNER}}}}}",
        f"adapter: {{rank_pattern: {{a0: [1, 1], {LISTS}}}}}",
    ],
    ids=["text", "inside a section", "relative, in lists"],
)
def test_loader_refuses_references_that_grow_without_bound(content: str, tmp_path: Path) -> None:
    said = tried(f"{HEAD}{content}\n", tmp_path)  # whoever resolves it first would need all memory
    assert "its references to other keys expand to" in said


def test_loader_trusts_the_folders_that_are_named(tmp_path: Path) -> None:
    own = HEAD + "defaults:\n  - override /hydra/launcher: packed\n"
    own += "hydra: {launcher: {engine: slurm, minutes: 30, slurm: {partition: short, setup: [module load python]}}}\n"
    assert tried(own + "cache: elsewhere\n", tmp_path, "--trust", "own") == ""
    assert tried(own, tmp_path, "--trust=own/ablation") == ""
    (tmp_path / "other").mkdir()
    assert MAY_NOT in tried(own, tmp_path, "--trust", "other")
    (tmp_path / "other/linked").symlink_to(tmp_path / "own")
    said = plan(["--dry-run", "--trust", "other", "--config-dir", "other/linked", "+ablation=mine"], tmp_path)
    assert "a file may not set this" in said


def test_loader_never_trusts_code_or_places(tmp_path: Path) -> None:
    said = tried(
        HEAD + "hydra: {callbacks: {x: {_target_: builtins.open, file: hacked, mode: w}}}\n", tmp_path, "--trust", "own"
    )
    assert said == "lora-sweep: hydra.callbacks: a configuration names no code to run; leave it out"
    said = tried(HEAD + "hydra: {run: {dir: /tmp/x}}\n", tmp_path, "--trust", "own")
    assert said.startswith("lora-sweep: hydra.run.dir = '/tmp/x': results go to outputs/NAME")
    target = "hydra_plugins.lora_sweep.quick_job.Path.write_text"
    said = tried(HEAD + f"hydra: {{launcher: {{slurm: {{_target_: {target}}}}}}}\n", tmp_path, "--trust", "own", "-m")
    assert said == (
        f"lora-sweep: hydra.launcher: '{target}' is code, which a configuration cannot name; "
        f"choose as in hydra/launcher=…"
    )


@pytest.mark.parametrize("arguments", [("--trust",), ("--trust", "nowhere"), ("--trust=",), ("--trust=a.yaml",)])
def test_trust_needs_a_folder(arguments: tuple[str, ...], tmp_path: Path) -> None:
    write("", tmp_path / "a.yaml")
    said = plan(["--dry-run", *arguments], tmp_path)
    assert said.startswith("lora-sweep: --trust")
    assert said.endswith("must be a folder whose configuration files you trust")


def test_loader_lets_nothing_happen_before_the_refusal(tmp_path: Path) -> None:
    write("from pathlib import Path\nPath('imported').touch()\n", tmp_path / "payload.py")
    write(
        HEAD + "hydra: {job_logging: {handlers: {console: {stream: 'ext://payload.x'}}}}\n",
        tmp_path / "own/ablation/mine.yaml",
    )
    before = tree(tmp_path)
    for dry_run in ((), ("--dry-run",)):
        done = command("sweep", *TOY, "-m", *ABLATION, *dry_run, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.endswith(f"{MAY_NOT}\n")
        assert tree(tmp_path) == before
