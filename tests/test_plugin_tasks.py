"""The tasks of plug-ins, what other machines need of a plug-in, and the example on the command line."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from sweep.cli.foreign import check_values
from sweep.cli.plugin_tasks import offer_tasks, refusal
from sweep.config import Config, load_task, parse
from sweep.engines.parcel import parcel_of, train_parcel
from sweep.errors import ConfigError
from sweep.launch.launch import run
from sweep.packs.base import base_file
from sweep.registry import GROUPS, PluginError
from sweep.resolve import resolve
from sweep.store.store import Store
from tests.support.commands import PATH, ROOT, TOY, command, config, records, resolved, sweep
from tests.support.plugins import (
    EXAMPLE,
    HERE,
    OURS,
    install,
    install_example,
    install_init,
    on_path,
    ours_alone,
    without_metrics,
)

INIT = """
@Init
def mine(base, rank, scaling, rng):
    return torch.randn(rank, base.in_features, generator=rng), torch.zeros(base.out_features, rank)
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return ours_alone(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example's base is kept, which is trained once."""
    return tmp_path_factory.mktemp("cache")


def example(cache: Path, **changes: Any) -> Config:
    """A trial on the example's task, without Hydra."""
    values = config(*TOY, f"cache={cache}", "adapter.rank=2").model_dump()
    return parse(values | {"task": {"name": "example_task", "classes": 8, "angle": 30.0} | changes})


@pytest.fixture
def edited(tmp_path: Path) -> Iterator[Callable[[str, str, str], Path]]:
    """Installs the example with one text of one of its files replaced."""
    folder = install_example(tmp_path / "site")

    def edit(file: str, old: str, new: str) -> Path:
        path = folder / "lora_sweep_example" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        return folder

    return edit


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (
            "options.py",
            "from pydantic import Field",
            "import nothing_of_this_name",
            "cannot be imported: ModuleNotFoundError",
        ),
        ("options.py", "(TaskOptions)", "", "must be a class of options, derived from TaskOptions"),
        (
            "options.py",
            'return "generated:example_task"',
            "return 1 / 0",
            "taking the fingerprint of its data failed: ZeroDivisionError",
        ),
        ("options.py", 'return "generated:example_task"', "return 3", "its fingerprint is int, and must be text"),
        (
            "options.py",
            "return import_module",
            "return 3\n        import_module",
            "its make() gives int, and must give a Task",
        ),
        ("task.py", "(LOSS, ACCURACY)", "(ACCURACY,)", "its metrics lack eval/loss"),
        ("task.py", "generator=rng)", ")", "making the task uses or changes torch's global generator"),
        (
            "task.py",
            "        with drawing_from(rng):\n            return MLP",
            "        if True:\n            return MLP",
            "uses or changes torch's global generator",
        ),
        ("task.py", 'reduction="none"', 'reduction="mean"', "its loss of 4 rows has shape (), and must have (4,)"),
        (
            "task.py",
            'reduction="none")',
            'reduction="none") - outputs.mean()',
            "its loss of a row depends on the other rows of its batch",
        ),
        ("task.py", "return MLP", "return 3 or MLP", "its model is int, and must be a Model"),
        ("task.py", "return MLP", "return MLP.__base__() or MLP", "its model lacks presets and stages"),
    ],
)
def test_task_of_a_hostile_plugin_is_refused_by_name(
    tmp_path: Path, edited: Callable[[str, str, str], Path], file: str, old: str, new: str, says: str
) -> None:
    with on_path(edited(file, old, new)):
        with pytest.raises(PluginError) as caught:
            resolve(example(tmp_path))
        assert "task example_task of the plug-in lora-sweep-example 0.1.0 (" in str(caught.value)
        assert says in str(caught.value)
        assert resolved(*OURS, cache=tmp_path)


def test_task_that_fails_while_it_trains_is_named_and_fails_alone(
    tmp_path: Path, alone: dict[str, dict[str, Any]], edited: Callable[[str, str, str], Path]
) -> None:
    source = (
        "if outputs.requires_grad and len(outputs) == 32:\n            1 / 0\n        return F.cross_entropy(outputs"
    )
    with on_path(edited("task.py", "return F.cross_entropy(outputs", source)):
        asked = [*resolved(*OURS, cache=tmp_path), resolve(example(tmp_path))]
        *ours, own = run(asked, Store(tmp_path / "s", None), HERE)
    assert {one.trial_id: without_metrics(one) for one in ours} == alone
    assert own.error is not None
    assert own.error["message"].startswith(
        "task example_task of the plug-in lora-sweep-example 0.1.0 (lora_sweep_example/task.py, line "
    )
    assert own.error["message"].endswith("failed: ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    "adapter",
    [{"kind": "full"}, {"kind": "none"}, {"dora": True}, {"dropout": 0.5}, {"init": "lora_ga"}, {"bias": "all"}],
    ids=lambda adapter: " ".join(map(str, adapter.values())),
)
def test_task_of_a_plugin_trains_with_every_adapter(
    tmp_path: Path, cache: Path, edited: Callable[[str, str, str], Path], adapter: dict[str, Any]
) -> None:
    with on_path(edited("task.py", "steps=300", "steps=30")):
        values = example(cache).model_dump()
        [one] = run(
            [resolve(parse(values | {"adapter": values["adapter"] | adapter}))], Store(tmp_path / "s", None), HERE
        )
    assert one.finished, one.error


def test_base_of_a_plugins_task_is_trained_again_when_the_plugin_has_changed(
    tmp_path: Path, edited: Callable[[str, str, str], Path]
) -> None:
    files = []
    for steps in (300, 200):
        with on_path(edited("task.py", "steps=300", f"steps={steps}")):
            trial = resolve(example(tmp_path))
            files.append(base_file(trial.task, trial.data, tmp_path))
    assert files[0] != files[1]


def test_tracker_is_not_chosen_by_a_file_of_somebody_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tracker.also.0 = 'mine': a file may not set this"):
        check_values({"tracker": {"also": ["mine"]}}, tmp_path / "config.yaml", tmp_path)


def test_parcel_needs_the_plugins_of_its_trials(tmp_path: Path) -> None:
    with on_path(install_init(tmp_path / "site", INIT)):
        [trial] = resolved("adapter.init=mine", cache=tmp_path)
        parcel = json.loads(json.dumps(parcel_of([trial], Store(tmp_path / "s", None), None)))
        [one] = train_parcel(parcel)
        assert one["status"] == "finished"
    with pytest.raises(RuntimeError, match=r"this node lacks hostile; .* pip install hostile==1.0"):
        train_parcel(parcel)
    with (
        on_path(install_init(tmp_path / "other", INIT + "# changed\n")),
        pytest.raises(RuntimeError, match=r"this node has hostile 1.0 with other code; .* hostile 1.0 of the launch"),
    ):
        train_parcel(parcel)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a command that finds the example installed."""
    return {"PYTHONPATH": os.pathsep.join((PATH, str(install_example(tmp_path_factory.mktemp("site")))))}


def test_plugins_command_lists_every_name_with_package_and_version(tmp_path: Path, site: dict[str, str]) -> None:
    done = command("sweep", "plugins", cwd=tmp_path, **site)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert ["init", "kaiming", "lora-sweep", "0.1.0"] in rows
    for kind, name in (("init", "example_init"), ("task", "example_task"), ("metric", "stable_rank")):
        assert [kind, name, "lora-sweep-example", "0.1.0"] in rows


def test_plugins_command_says_what_cannot_be_used(tmp_path: Path, site: dict[str, str]) -> None:
    broken = install_init(tmp_path / "broken", "import nothing_of_this_name")
    no_yaml = install(
        tmp_path / "task", "no-yaml", {GROUPS["task"]: {"theirs": "lora_sweep_example.options:ExampleOptions"}}, {}
    )
    path = os.pathsep.join((site["PYTHONPATH"], str(broken), str(no_yaml)))
    done = command("sweep", "plugins", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    assert "cannot be used: init mine of the plug-in hostile 1.0 (hostile_module.py, line " in done.stdout
    assert "cannot be used: task theirs of the plug-in no-yaml 1.0" in done.stdout


@pytest.mark.slow
def test_example_is_swept_beside_ours(tmp_path: Path, site: dict[str, str]) -> None:
    arguments = (
        "-m",
        "task=example_task",
        "name=s",
        "adapter.init=kaiming,pissa,example_init",
        "adapter.rank=2",
        "training.steps=20",
        "training.eval_every=10",
        "seed=0,1",
        "save_adapter=true",
        "tracker=none",
    )
    sweep(*arguments, cwd=tmp_path, **site)
    found = records(tmp_path / "outputs" / "s")
    assert len(found) == 6
    for one in found.values():
        assert one.finished
        assert 1 <= one.result["eval/stable_rank"] <= 2
    done = command(
        "analysis", "table", "outputs/s", "--rows", "adapter.init", "--metric", "eval/accuracy", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")][2:] == [
        "example_init",
        "kaiming",
        "pissa",
    ]
    assert len(list((tmp_path / "outputs" / "s").glob("*example_init*/adapter/adapter_model.safetensors"))) == 2


def test_task_that_a_plugin_and_we_give_is_refused_and_no_other(tmp_path: Path) -> None:
    points = {GROUPS["task"]: {"toy_regression": "nowhere:Options"}}
    with on_path(install(tmp_path / "site", "hostile", points, {})):
        with pytest.raises(ConfigError, match=r"task.name = 'toy_regression': given by lora-sweep and by hostile 1\.0"):
            resolved("seed=0", cache=tmp_path)
        assert config("task=mnist").task.name == "mnist"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("task=exmple",),
            "task = 'exmple': must be one of causal_lm, example_task (of lora-sweep-example 0.1.0), mnist,",
        ),
        (("task=example_task", "task.clases=3"), "task.clases: unknown key; did you mean task.classes?"),
        (("task=example_task", "task.classes=1"), "task.classes = 1: must be greater than or equal to 2"),
    ],
)
def test_keys_of_a_plugins_task_answer_like_ours(
    tmp_path: Path, site: dict[str, str], arguments: tuple[str, ...], says: str
) -> None:
    done = command("sweep", *arguments, cwd=tmp_path, **site)
    assert done.returncode == 1
    assert done.stderr.startswith(f"lora-sweep: {says}")


def test_readme_shows_the_first_ten_lines_of_the_example() -> None:
    code = (ROOT / "README.md").read_text().split("## Your own init")[1].split("```python\n")[1].split("```")[0]
    source = (EXAMPLE / "lora_sweep_example" / "init.py").read_text()
    assert code.splitlines() == source.splitlines()[:10]
    assert len(code.splitlines()) == 10


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "its package is not found"),
        ({"own_package/__init__.py": ""}, "its package has no conf/task/mine.yaml, which holds the task's defaults"),
        (
            {"own_package/__init__.py": "", "own_package/conf/task/mine.yaml": "a: &x 1\nb: *x\n"},
            "line 2: aliases are not read here",
        ),
    ],
)
def test_offer_tasks_passes_over_what_cannot_be_read_and_refusal_says_why(
    files: dict[str, str], says: str, tmp_path: Path
) -> None:
    points = {GROUPS["task"]: {"mine": "own_package:Options"}}
    with on_path(install(tmp_path / "site", "hostile", points, files)):
        offer_tasks()
        assert "mine.yaml" not in ConfigStore.instance().repo.get("task", {})
        assert says in str(refusal("mine"))


def test_load_task_refuses_options_that_cannot_be_read_and_keeps_the_others(tmp_path: Path) -> None:
    code = """
from typing import Literal
from sweep.tasks.options import TaskOptions
class Options(TaskOptions):
    name: Literal["mine"]
    size: "Unknown"
"""
    with on_path(install(tmp_path, "hostile", {GROUPS["task"]: {"mine": "t:Options"}}, {"t.py": code})):
        for _ in range(2):
            with pytest.raises(PluginError, match=r"hostile 1\.0 \(t:Options\): its options cannot be read"):
                load_task("mine")
        assert config(*TOY).task.name == "toy_regression"
