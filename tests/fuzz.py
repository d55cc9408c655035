"""Random command lines and configuration files: each is planned, or refused in one readable message."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sweep import __main__ as command_line
from tests.commands import tree

KEYS = (
    "name", "seed", "device", "save_adapter", "task", "adapter", "optimizer", "training", "tracker", "task.name",
    "task.samples", "task.hidden", "task.noise", "task.data_seed", "task.shift_rank", "adapter.kind", "adapter.rank",
    "adapter.alpha", "adapter.init", "adapter.targets", "adapter.layers", "adapter.scaling", "adapter.dropout",
    "adapter.bias", "optimizer.name", "optimizer.lr", "optimizer.betas", "optimizer.schedule", "optimizer.clip_norm",
    "training.steps", "training.batch_size", "training.eval_every", "tracker.mode", "tracker.project", "pruning",
    "hydra.launcher.max_pack", "hydra.launcher.workers", "hydra.launcher.max_failures", "hydra.job.name", "hydra.x",
    "+ablation", "+adapter.x", "++seed", "~seed", "~adapter", "task@x", "", "a b", "ü", "_target_", "adapter._target_",
)  # fmt: skip
VALUES = (
    "", "0", "1", "-1", "4", "1e-3", "1e999", "nan", "-inf", "null", "true", "[]", "[1,2]", "[a", "{a:1}", "{", "${seed}",
    "${", "${oc.env:HOME}", "${oc.env:NOPE}", "???", "lora", "full", "pissa", "attention", ".*", "(", "mnist", "../../x",
    "/etc/passwd", "a/b", "~", "'", "\"", "\\", "a,b", "1,2,", "range(3)", "range(1,0)", "choice(1,2)", "glob(*)",
    "interval(0,1)", "1\n2", "\u0000", "os.system('touch hacked')", "__import__('os').system('touch hacked')",
    "!!python/object/apply:os.system ['touch hacked']",
)  # fmt: skip
TOY = ("task=toy_regression", "training.steps=2", "tracker=none", "hydra.launcher.workers=1")


SENSIBLE = (
    "seed=3", "adapter.rank=2", "adapter.alpha=4", "adapter.init=pissa", "adapter=full", "adapter=none", "name=ok",
    "adapter.rank=1,2", "optimizer.lr=1e-2,1e-3", "seed=range(3)", "adapter.scaling=alpha/sqrt_rank", "task.hidden=[8]",
)  # fmt: skip


def values() -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(VALUES), st.text(max_size=8), st.integers(-5, 40).map(str), st.floats().map(str))


def overrides() -> st.SearchStrategy[str]:
    given_keys = st.builds("{}={}".format, st.sampled_from(KEYS), values())
    return st.one_of(st.sampled_from(SENSIBLE), st.sampled_from(SENSIBLE), given_keys, given_keys, st.text(max_size=12).filter(lambda text: not text.startswith("-")))  # fmt: skip


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
    with inside(folder), redirect_stdout(out), redirect_stderr(errors), mock.patch.object(sys, "argv", ["sweep", *arguments]), mock.patch.dict("os.environ"):  # fmt: skip
        try:
            command_line.main()
        except SystemExit as ended:
            said = ended.code
    text = errors.getvalue() + (said if isinstance(said, str) else "")
    assert "Traceback" not in text, text
    assert "HYDRA_FULL_ERROR=1 shows where" not in text, text  # an error that nobody has foreseen
    assert said in (None, 0) or text.strip(), f"refused without a word: {arguments}"
    return "" if said in (None, 0) else text


def try_command_lines(examples: int, folder: Path) -> str:
    """Try so many random command lines; return how many were planned and refused."""
    counts = {"planned": 0, "refused": 0}

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.lists(overrides(), min_size=1, max_size=3))
    def one(extra: list[str]) -> None:
        said = plan([*TOY, "--dry-run", *extra], folder)
        counts["refused" if said else "planned"] += 1
        assert tree(folder) <= {"outputs", "outputs/.cache"}, tree(folder)

    one()
    return f"{counts['planned']} planned, {counts['refused']} refused in words with exit code 1, no traceback, no file written"  # fmt: skip
