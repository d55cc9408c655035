"""Every file in conf/ is composed, validated and counted, and every ablation asks what its file says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from hydra_plugins.lora_sweep.quick_loader import QuickLoader
from sweep.cli.app import plain
from sweep.cli.safety import CheckedLoader
from sweep.config import parse
from sweep.resolve import ResolvedTrial, resolve
from tests.support.commands import config, hydra_loader, sweep

CONF = Path(__file__).parents[2] / "conf"
TUTORIALS = {f"tutorial_{name}" for name in ("toy", "mnist", "merge", "attention", "llama")}
GROUPS = {
    "ablation": {
        *TUTORIALS,
        "alpha",
        "chat",
        "defaults",
        "init",
        "lr",
        "quickstart",
        "rank",
        "search",
        "targets",
        "variants",
    },
    "adapter": {"full", "lora", "none", "peft"},
    "optimizer": {"adam", "adamw", "sgd"},
    "task": {"causal_lm", "mnist", "toy_regression", "transformer", "transformer_tiny"},
    "tracker": {"none", "wandb", "wandb_online"},
    "training": {"default"},
}
NEEDED = {"peft": ["adapter.peft=x"]}  # what has no default
CHOICES = [(group, choice) for group, choices in GROUPS.items() for choice in sorted(choices)]


def test_conf_has_every_file_tested() -> None:
    found: dict[str, set[str]] = {}
    for path in CONF.rglob("*.yaml"):
        found.setdefault(path.parent.name, set()).add(path.stem)
    assert found == {**GROUPS, "conf": {"config"}}
    assert len(CHOICES) == 31


def test_conf_names_no_code() -> None:
    assert not [path for path in CONF.rglob("*.yaml") if "_target_" in path.read_text()]


@pytest.mark.parametrize(("group", "choice"), [pair for pair in CHOICES if pair[0] != "ablation"])
def test_conf_choices_are_valid_and_have_their_effect(group: str, choice: str) -> None:
    chosen = config(f"{group}={choice}", *NEEDED.get(choice, []))
    means: dict[str, Any] = {
        "adapter": chosen.adapter.kind,
        "optimizer": chosen.optimizer.name,
        "task": chosen.task.name,
        "tracker": chosen.tracker.mode,
        "training": "default",
    }
    names = {"transformer_tiny": "transformer", "peft": "lora", "wandb": "offline", "wandb_online": "online"}
    assert means[group] == names.get(choice, choice)


@pytest.mark.parametrize("task", sorted(GROUPS["task"]))
def test_conf_task_brings_the_training_that_suits_it(task: str) -> None:
    says = yaml.safe_load((CONF / "task" / f"{task}.yaml").read_text())["training"]
    assert config(f"task={task}", *NEEDED.get(task, [])).training.model_dump(include=set(says)) == says


def test_conf_adapter_of_peft_leaves_every_other_setting_to_its_file() -> None:
    lora, peft = (yaml.safe_load((CONF / "adapter" / f"{name}.yaml").read_text()) for name in ("lora", "peft"))
    assert set(peft) == set(lora)
    assert {name for name, value in peft.items() if value} == {"kind", "peft"}


def expand(*arguments: str) -> Iterator[ResolvedTrial]:
    """Every job that Hydra's sweeper makes of these arguments, in its order."""
    parser = OverridesParser.create()
    with hydra_loader() as hydras:
        loader = CheckedLoader(hydras.get_search_path(), [CONF])
        master = loader.load_configuration("config", list(arguments), RunMode.MULTIRUN)
        assert master.hydra.mode == RunMode.MULTIRUN
        assert master.hydra.launcher._target_.endswith("PackedLauncher")
        params = OmegaConf.to_container(master.hydra.sweeper.params)
        swept = parser.parse_overrides([*(f"{key}={value}" for key, value in params.items()), *arguments])
        quick = QuickLoader(loader)
        [batch] = BasicSweeper.split_arguments(swept, None)
        for overrides in batch:
            yield resolve(parse(plain(quick.load_sweep_config(master, list(overrides)))))


# of one seed: jobs, and the distinct trials among them of lora, full and none; and the number of seeds
# jobs = kinds × levels × …; distinct = lora + full (learning rates) + none (one)
SIZES = {
    "alpha": (3 * 3 * 2 * 3, 3 * 2 * 3, 3, 1, 5),
    "chat": (2 * 2, 2, 0, 1, 3),
    "defaults": (3 * 3, 3, 3, 3, 3),  # three tasks
    "init": (3 * 10 * 3, 10 * 3, 3, 1, 5),
    "lr": (3 * 2 * 5, 2 * 5, 5, 1, 5),
    "quickstart": (3 * 3 * 2, 3 * 2, 1, 1, 5),
    "rank": (3 * 4 * 3, 4 * 3, 3, 1, 5),
    "targets": (3 * 4 * 3, 4 * 3, 3, 1, 3),
    "variants": (3 * 2 * 3 * 3, 2 * 3 * 3, 3, 1, 5),
    "tutorial_attention": (3 * 2 * 2 * 2, 2 * 2 * 2, 2, 1, 3),  # full with and without checkpointing
    "tutorial_llama": (3 * 2 * 2, 2 * 2, 2, 1, 3),
    "tutorial_merge": (3 * 2, 2, 2, 1, 3),
    "tutorial_mnist": (3, 1, 1, 1, 5),
    "tutorial_toy": (3 * 2 * 2 * 2, 2 * 2 * 2, 2, 1, 3),  # full for few and many epochs
}


@pytest.mark.parametrize("ablation", sorted(GROUPS["ablation"] - {"search"}))  # tests/test_search.py
def test_conf_ablation_has_the_trials_and_baselines_that_it_says(ablation: str, tmp_path: Path) -> None:
    params = yaml.safe_load((CONF / "ablation" / f"{ablation}.yaml").read_text())["hydra"]["sweeper"]["params"]
    seeds = [int(seed) for seed in params["seed"].split(",")]
    assert seeds == list(range(SIZES[ablation][-1]))
    here = ["task.data=embedded"] if ablation == "tutorial_mnist" else []  # not the digits that need a network
    if ablation == "chat":  # not the model that a package holds
        own = pytest.importorskip("tests.support.hugging_face").chats("llama", tmp_path)
        values = {
            "task.model": own.model,
            "task.context": 32,
            "task.generate.tokens": 8,
            "task.source_text": own.source_text,
            "task.target_text": own.target_text,
        }
        here = [f"{key}={value}" for key, value in {**values, "cache": tmp_path}.items()]
    jobs = list(expand(f"+ablation={ablation}", "seed=0", *here))
    distinct = {job.id: job for job in jobs}
    kinds = [job.adapter.kind for job in distinct.values()]
    assert (len(jobs), *(kinds.count(kind) for kind in ("lora", "full", "none"))) == SIZES[ablation][:-1]
    assert len({job.label for job in distinct.values()}) == len(distinct)
    name = ablation if ablation in {"quickstart", "defaults", "chat", *TUTORIALS} else f"{ablation}-{jobs[0].task.name}"
    assert {job.config.name for job in jobs} == {name}


def test_conf_ablation_asks_for_every_seed() -> None:
    merge = list(expand("+ablation=tutorial_merge"))
    assert len(merge) == 3 * 2 * 3
    assert len({job.id for job in merge}) == (2 + 2 + 1) * 3


@pytest.mark.parametrize("ablation", sorted(GROUPS["ablation"]))
def test_conf_ablation_begins_with_its_question(ablation: str) -> None:
    lines = (CONF / "ablation" / f"{ablation}.yaml").read_text().splitlines()
    assert re.fullmatch(r"# [A-Z].*\?", lines[1])


def test_cfg_job_shows_what_would_run_and_does_nothing(tmp_path: Path) -> None:
    done = sweep("+ablation=rank", "task=toy_regression", "--cfg", "job", "--resolve", cwd=tmp_path)
    shown = yaml.safe_load(done.stdout)
    assert shown["name"] == "rank-toy_regression"
    assert set(shown) == {"name", "seed", "device", "save_adapter", "pruning", "cache", *GROUPS} - {"ablation"}
    assert list(tmp_path.iterdir()) == []
