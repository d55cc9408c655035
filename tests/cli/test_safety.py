"""Files that somebody else has written: an ablation of one's own is planned, and nothing but plain values is read."""

from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.commands import tree
from tests.support.fuzz import TOY, plan

HEAD = "# @package _global_\n"
LAUGHS = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghij"))  # fmt: skip


def tried(content: str | bytes, folder: Path, *arguments: str) -> str:
    """Plan the ablation ``mine`` whose file holds ``content``; return what was said against it."""
    file = folder / "own/ablation/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    said = plan([*TOY, "--dry-run", "--config-dir", "own", "+ablation=mine", *arguments], folder)
    assert tree(folder) <= {"own", "own/ablation", "own/ablation/mine.yaml", "outputs", "outputs/.cache"}
    return said


def test_an_ablation_of_ones_own_is_planned(tmp_path: Path) -> None:
    own = (
        HEAD
        + "name: mine-${task.name}\nhydra: {mode: MULTIRUN, sweeper: {params: {adapter.rank: '1,2', seed: '0,1'}}}\n"
    )
    assert tried(own, tmp_path) == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ablation: unknown key; the file of an ablation begins with the line '# @package _global_'"),
        ("seed: 1\n", "ablation: unknown key; the file of an ablation begins with the line '# @package _global_'"),
        (HEAD + "adapter.rank: 3\n", "adapter.rank: unknown key; in a file this is adapter: {rank: …}"),
        (HEAD + "adapter: [1]\n", "In 'ablation/mine': ConfigTypeError raised while composing config: Cannot merge DictConfig with ListConfig"),
        (HEAD + "adapter: 3\n", "adapter = 3: must hold keys and values, as in adapter.NAME=VALUE"),
        (HEAD + "task:\n\tname: x\n", "own/ablation/mine.yaml: while scanning for the next token found character that cannot start any token"),
        (HEAD + "- seed\n", "own/ablation/mine.yaml: line 2: must hold keys and values, as in key: value"),
        (b"name: \xff", "own/ablation/mine.yaml: not a UTF-8 text"),
        (HEAD + "name: &a [*a]\n", "own/ablation/mine.yaml: line 2: aliases are not read here; write the value itself, or refer to it as ${key}"),
        (HEAD + LAUGHS, "own/ablation/mine.yaml: line 3: aliases are not read here"),
        (HEAD + "name: !!python/name:os.system\n", "own/ablation/mine.yaml: line 2: tags are not read here; leave out tag:yaml.org,2002:python/name:os.system"),
        (HEAD + f"name: {'[' * 60}{']' * 60}\n", "own/ablation/mine.yaml: line 2: more than 50 levels deep"),
        (HEAD + "hydra: {callbacks: {x: {_target_: builtins.open, file: hacked, mode: w}}}\n", "hydra.callbacks: a configuration names no code to run"),
        (HEAD + "hydra: {run: {dir: /tmp/x}}\n", "hydra.run.dir = '/tmp/x': results go to outputs/NAME"),
        (HEAD + "seed: ${oc.env:FUZZ_SECRET}\n", "seed = '${oc.env:FUZZ_SECRET}': must be a valid integer"),
        (HEAD + f"name: {'x' * 5000}\n", f"name = '{'x' * 992}… (5,"),
    ],
)  # fmt: skip
def test_a_file_that_is_more_or_less_than_plain_values_is_refused(content: str, says: str, tmp_path: Path) -> None:
    said = tried(content, tmp_path)
    assert said.startswith(f"lora-sweep: {says}")
    assert len(said.splitlines()) == 1
