"""Random command lines and configuration files: each is planned, or refused in one readable message."""

import io
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sweep.cli import run as command_line
from sweep.config import every_key
from tests.support.commands import tree

KEYS = (
    *every_key(),
    "task",
    "adapter",
    "optimizer",
    "training",
    "tracker",
    "hydra.launcher.max_pack",
    "hydra.launcher.workers",
    "hydra.launcher.max_failures",
    "hydra.job.name",
    "hydra.x",
    "hydra.run.dir",
    "hydra.output_subdir",
    "hydra.launcher.slurm",
    "+hydra.callbacks.x._target_",
    "hydra.launcher._target_",
    "+ablation",
    "+adapter.x",
    "++seed",
    "~seed",
    "~adapter",
    "task@x",
    "",
    "a b",
    "ü",
    "_target_",
    "adapter._target_",
)
VALUES = (
    "",
    "0",
    "1",
    "-1",
    "4",
    "1e-3",
    "1e999",
    "nan",
    "-inf",
    "null",
    "true",
    "[]",
    "[1,2]",
    "[a",
    "{a:1}",
    "{",
    "${seed}",
    "${",
    "${oc.env:HOME}",
    "${oc.env:NOPE}",
    "${oc.env:FUZZ_SECRET}",
    "{_target_: builtins.open, file: hacked, mode: w}",
    "???",
    "lora",
    "full",
    "pissa",
    "attention",
    ".*",
    "(",
    "mnist",
    "../../x",
    "/etc/passwd",
    "a/b",
    "~",
    "'",
    '"',
    "\\",
    "a,b",
    "1,2,",
    "range(3)",
    "range(1,0)",
    "choice(1,2)",
    "glob(*)",
    "interval(0,1)",
    "1\n2",
    "\u0000",
    "os.system('touch hacked')",
    "__import__('os').system('touch hacked')",
    "!!python/object/apply:os.system ['touch hacked']",
)
SECRET = "canary-5ecret"
NODES = (
    "",
    "null",
    "~",
    "1",
    "-1",
    "0x10",
    "1_000",
    "1:30",
    "yes",
    "1" * 5000,
    "1e99999",
    ".nan",
    "-.inf",
    "2024-01-01",
    "x",
    "x" * 5000,
    "'\u202eabc'",
    '"\\0"',
    '"\\e[31m"',
    "ü",
    "[]",
    "{}",
    "[1, 2]",
    "{a: 1}",
    "[{a: [1]}]",
    "&a [*a]",
    "*a",
    "&a {<<: *a}",
    "[" * 2000,
    "{a: " * 60 + "1" + "}" * 60,
    "{a: 1, a: 2}",
    "{1: 2}",
    "{null: 1}",
    "? [a]\n  : 1",
    "!!binary aGk=",
    "!!set {a}",
    "!own x",
    "!!python/object/apply:os.system ['touch hacked']",
    "!!python/name:os.system",
    "{_target_: builtins.open, file: hacked, mode: w}",
    "{x: {_target_: builtins.open, file: hacked, mode: w}}",
    "${oc.env:FUZZ_SECRET}",
    "${oc.env:NOPE}",
    "${now:}",
    "${now:%Y}",
    "${name}",
    "${nope}",
    "${",
    "${oc.create:{a: 1}}",
    "${oc.select:name}",
    "${hydra:job.name}",
    "${trial_folder:}",
    "???",
    "|\n\ttext",
    "\tx",
    "- x",
    "&a [&b [x,x,x,x,x,x,x,x], &c [*b,*b,*b,*b,*b,*b,*b,*b], &d [*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d], [*e,*e,*e,*e,*e,*e,*e]]",
    "{run: {dir: /tmp/lora-sweep-hacked}}",
    "{callbacks: {x: {_target_: builtins.open, file: hacked, mode: w}}}",
    "{mode: FOO}",
    "{launcher: null}",
    "{sweeper: {params: {seed: '0,1'}}}",
    "{sweeper: {params: {seed: '(('}}}",
    "{sweeper: {params: [1]}}",
    "{job_logging: {handlers: {x: {(): os.mkdir, path: hacked}}}}",
    "[/adapter: none]",
    "[mine]",
    "[override /task: mnist]",
    "[/../../etc/passwd]",
)
"""What may stand behind a key in YAML."""
DAMAGED = (
    "config",
    "adapter/lora",
    "optimizer/adamw",
    "training/default",
    "task/toy_regression",
    "tracker/none",
    "ablation/tutorial_toy",
)
TOY = ("task=toy_regression", "training.steps=2", "tracker=none", "hydra.launcher.workers=1")


SENSIBLE = (
    "seed=3",
    "adapter.rank=2",
    "adapter.alpha=4",
    "adapter.init=pissa",
    "adapter=full",
    "adapter=none",
    "name=ok",
    "adapter.rank=1,2",
    "optimizer.lr=1e-2,1e-3",
    "seed=range(3)",
    "adapter.scaling=alpha/sqrt_rank",
    "task.hidden=[8]",
)


def values() -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(VALUES), st.text(max_size=8), st.integers(-5, 40).map(str), st.floats().map(str))


def overrides() -> st.SearchStrategy[str]:
    given_keys = st.builds("{}={}".format, st.sampled_from(KEYS), values())
    return st.one_of(
        st.sampled_from(SENSIBLE),
        st.sampled_from(SENSIBLE),
        given_keys,
        given_keys,
        st.text(max_size=12).filter(lambda text: not text.startswith("-")),
    )


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    from contextlib import chdir

    folder.mkdir(parents=True, exist_ok=True)
    with chdir(folder):
        yield


def plan(arguments: list[str], folder: Path) -> str:
    """Plan what ``arguments`` ask for, in this process; return what was said instead, or an empty string."""
    out, errors = io.StringIO(), io.StringIO()
    said: object = "nothing"
    with (
        inside(folder),
        redirect_stdout(out),
        redirect_stderr(errors),
        mock.patch.object(sys, "argv", ["sweep", *arguments]),
        mock.patch.dict("os.environ", FUZZ_SECRET=SECRET),
    ):
        try:
            command_line.run()
        except SystemExit as ended:
            said = ended.code
    text = errors.getvalue() + (said if isinstance(said, str) else "")
    assert "Traceback" not in text, text
    assert "HYDRA_FULL_ERROR=1 shows where" not in text, text  # an error that nobody has foreseen
    assert said in (None, 0) or text.strip(), f"refused without a word: {arguments}"
    return "" if said in (None, 0) else text


def own_files() -> st.SearchStrategy[bytes]:
    """An ablation that somebody has written: some keys, mostly below the right head."""
    sections = sorted({key.partition(".")[0] for key in every_key()})
    inner = st.builds(
        "{{{}: {}}}".format, st.sampled_from([key.split(".")[-1] for key in every_key()]), st.sampled_from(NODES)
    )
    line = st.builds(
        "{}: {}\n".format,
        st.sampled_from([*sections, "hydra", "hydra", "defaults", "_target_", "own"]),
        st.sampled_from(NODES) | inner,
    )
    head = st.sampled_from(["# @package _global_\n"] * 9 + ["", "# @package ../x\n", "---\n---\n"])
    text = st.builds(lambda head, lines: head + "".join(lines), head, st.lists(line, max_size=3)).map(str.encode)
    return st.one_of(text, text, text, st.binary(max_size=20))


def damages() -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Ways to damage a file that was good."""

    def at_a_line(where: int, node: str) -> Callable[[bytes], bytes]:
        def damage(content: bytes) -> bytes:
            lines = content.decode().splitlines(keepends=True)
            key, colon, _ = lines[where % len(lines)].partition(":")
            lines[where % len(lines)] = f"{key}{colon} {node}\n"
            return "".join(lines).encode()

        return damage

    def at_a_byte(where: int, other: bytes, cut: bool) -> Callable[[bytes], bytes]:
        return lambda content: (
            content[: where % len(content)] + other + (b"" if cut else content[where % len(content) :])
        )

    values = st.builds(at_a_line, st.integers(0, 99), st.sampled_from(NODES))
    return values | values | st.builds(at_a_byte, st.integers(0, 999), st.binary(max_size=4), st.booleans())


def try_yaml_files(examples: int, folder: Path) -> str:
    """Try so many files, half of them a user's own and half of ours damaged; return how many were planned and refused."""
    counts = {"planned": 0, "refused": 0}
    damaged = folder / "conf"
    shutil.copytree(command_line.CONF, damaged)
    (folder / "own" / "ablation").mkdir(parents=True)
    given_files = tree(folder) | {"own/ablation/mine.yaml", "outputs", "outputs/.cache"}

    def attempt(*arguments: str) -> None:
        said = plan([*TOY, "--dry-run", *arguments], folder)
        counts["refused" if said else "planned"] += 1
        assert SECRET not in said, said
        assert tree(folder) <= given_files, tree(folder) - given_files

    @settings(
        max_examples=examples // 2,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(own_files(), st.sampled_from(DAMAGED), damages())
    def one(own: bytes, name: str, damage: Callable[[bytes], bytes]) -> None:
        (folder / "own" / "ablation" / "mine.yaml").write_bytes(own)
        attempt("--config-dir", "own", "+ablation=mine")
        file = damaged / f"{name}.yaml"
        content = file.read_bytes()
        file.write_bytes(damage(content))
        with mock.patch.object(command_line, "CONF", damaged):
            attempt(*(["+ablation=tutorial_toy"] if name.startswith("ablation") else []))
        file.write_bytes(content)

    one()
    return (
        f"{counts['planned']} planned, {counts['refused']} refused in words with exit code 1, no "
        f"traceback, no file written, nothing imported or run"
    )


def try_command_lines(examples: int, folder: Path) -> str:
    """Try so many random command lines; return how many were planned and refused."""
    counts = {"planned": 0, "refused": 0}

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(overrides(), min_size=1, max_size=3))
    def one(extra: list[str]) -> None:
        said = plan([*TOY, "--dry-run", *extra], folder)
        counts["refused" if said else "planned"] += 1
        assert SECRET not in said, said
        assert tree(folder) <= {"outputs", "outputs/.cache"}, tree(folder)

    one()
    return (
        f"{counts['planned']} planned, {counts['refused']} refused in words with exit code 1, no "
        f"traceback, no file written"
    )
