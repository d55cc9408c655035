"""Results that somebody else has made: whatever a trial left, the others are analysed, and nothing outside is touched."""

import json
import os
import random
import struct
import subprocess
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from simulate import grid, write_sweep

import analysis
from analysis.__main__ import main
from analysis.errors import BadRequestError
from analysis.report import report
from analysis.sources import cache
from analysis.sources.folders import begun_trials, read_trials
from analysis.sources.frames import assemble
from analysis.sources.wandb_runs import read_offline
from sweep.wandb_log import framed
from tests.support.damage import a_device, a_folder, a_hole, a_pipe, without_privileges

LONG_NUMBER = 10**400
TOGETHER = 50
"""Changed records that are loaded at once."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "s", grid(range(3), (), rank=[1, 2]), np.random.default_rng(0), points=2)


def changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the record of a trial."""

    def damage(trial: Path) -> None:
        path = trial / "record.json"
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return damage


def replaced(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """Put something else in the place of a trial's record."""

    def damage(trial: Path) -> None:
        (trial / "record.json").unlink()
        make(trial / "record.json")

    return damage


def linked(trial: Path) -> None:
    trial.rename(trial.parent.parent / "elsewhere")
    trial.symlink_to(trial.parent.parent / "elsewhere")


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (replaced(a_pipe), "is a named pipe, not a regular file"),
    (replaced(a_device), "is a symbolic link"),
    (replaced(a_folder), "is a folder, not a regular file"),
    (replaced(a_hole), "bytes; at most"),
    (linked, "is a symbolic link, which is not followed"),
    (changed(lambda one: one["trial"]["adapter"].update(rank=LONG_NUMBER)), "adapter.rank is not a number"),
    (changed(lambda one: one["trial"].update(seed=LONG_NUMBER)), "seed is not a number"),
    (changed(lambda one: one["trial"]["optimizer"].update(lr="abc")), "optimizer.lr is not a number"),
    (changed(lambda one: one["environment"].update(cpu_count=LONG_NUMBER)), "environment.cpu_count is not a finite"),
    (changed(lambda one: one["result"].update({"eval/loss": 1e308})), "result['eval/loss'] is not"),
    (changed(lambda one: one.update(trial_id="\ud800")), "trial_id has characters that cannot be printed"),
    (changed(lambda one: one.update(status="failed")), "it failed without an error"),
    (changed(lambda one: one.update(result={})), "it finished without a result"),
    (changed(lambda one: one["environment"].update(dict.fromkeys(map(str, range(3000)), 1))), "more than 2,000 keys"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES, ids=[says for _, says in DAMAGES])
def test_load_names_a_damaged_record_and_reads_its_neighbours(
    damage: Callable[[Path], None], says: str, folder: Path
) -> None:
    damage(folder / "trial_00000")
    sweep = analysis.load(folder)
    assert len(sweep.trials) == 5
    [problem] = sweep.problems
    assert problem.startswith(str(folder / "trial_00000"))
    assert says in problem


@pytest.mark.parametrize("damage", [a_pipe, a_folder, a_device])
def test_load_names_a_damaged_history_and_keeps_its_trial(damage: Callable[[Path], Any], folder: Path) -> None:
    path = folder / "trial_00000" / "history.jsonl"
    path.unlink()
    damage(path)
    sweep = analysis.load(folder)
    assert len(sweep.trials) == 6
    [problem] = sweep.problems
    assert problem.startswith(f"{path} is left out (is ")
    assert sweep.trials["trial_id"].iloc[0] not in set(sweep.history["trial_id"])


@pytest.mark.parametrize("name", ["record.json", "history.jsonl", ""], ids=["record", "history", "folder"])
def test_load_names_what_it_may_not_read_and_reads_the_rest(name: str) -> None:
    with TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        folder = write_sweep(Path(place, "s"), grid([0, 1], (), rank=[1]), np.random.default_rng(0), points=2)
        closed = folder / "trial_00000" / name
        Path(place).chmod(0o755)
        closed.chmod(0)
        with without_privileges():
            sweep = analysis.load(folder)
        closed.chmod(0o755)
    [problem] = sweep.problems
    assert problem.startswith(str(folder / "trial_00000"))
    assert "Permission denied" in problem
    assert len(sweep.trials) == (2 if name == "history.jsonl" else 1)


@pytest.mark.usefixtures("one_figure")
def test_analysis_prints_a_folder_whose_name_is_not_utf_8_and_text_that_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "trial_00000").rename(folder / os.fsdecode(b"trial_\xff\x1b[31m"))
    changed(lambda one: one["trial"]["adapter"].update(init="\ud800"))(folder / "trial_00001")
    odd = folder.rename(folder.parent / os.fsdecode(b"\xffs"))
    assert main([str(odd)]) == 0
    for _ in range(2):  # from the records, and from the cache
        assert main(["table", str(odd), "--rows", "adapter.init"]) == 0
    said = "".join(capsys.readouterr())
    assert "\\udcffs/report/index.html" in said
    assert all(char.isprintable() for char in said.replace("\n", ""))


@pytest.mark.usefixtures("one_figure")
def test_report_lists_a_damaged_trial(folder: Path) -> None:
    replaced(a_pipe)(folder / "trial_00000")
    assert "trial_00000/record.json is not a record" in report.write(analysis.load(folder)).read_text(encoding="utf-8")


@pytest.mark.usefixtures("one_figure")
def test_analysis_writes_through_no_link_and_deletes_nothing(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "a.parquet").write_text("mine")
    (folder / ".analysis").symlink_to(mine)
    report.write(analysis.load(folder))
    tables = sorted((folder / "report").rglob("*.*"))
    for path in tables:
        path.unlink()
        path.symlink_to(mine / "a.parquet")
    report.write(analysis.load(folder))
    assert [path for path in tables if path.is_symlink()] == []
    assert main(["export", str(folder), "--to", str(folder / "trials.csv")]) == 0
    for path in (folder / "report", folder / "report" / "tables"):
        path.rename(tmp_path / path.name)
        path.symlink_to(mine)
        with pytest.raises(OSError, match="is a symbolic link"):
            report.write(analysis.load(folder))
        path.unlink()
        (tmp_path / path.name).rename(path)
    assert [path.name for path in mine.iterdir()] == ["a.parquet"]
    assert (mine / "a.parquet").read_text() == "mine"


def test_load_ignores_a_forged_cache_in_the_sweeps_folder(folder: Path) -> None:
    first = analysis.load(folder)
    forged = folder / ".analysis"
    forged.mkdir()
    for path in cache.place().iterdir():
        (forged / path.name).write_bytes(path.read_bytes())
    first.trials.assign(**{"eval/loss": 0.0}).to_parquet(forged / "trials.parquet")
    assert analysis.load(folder).trials.equals(first.trials)


def wandb_file(*items: tuple[str, list[str], Any], name: str = "x") -> bytes:
    """The ``.wandb`` file of a finished run with these values of its (config, history, summary) under nested keys."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    begins = Record()
    begins.run.run_id = begins.run.display_name = name
    messages = [begins]
    for kind, keys, value in items:
        one = Record()
        values = one.history.item if kind == "history" else getattr(one, kind).update
        values.add(nested_key=keys, value_json=json.dumps(value))
        messages.append(one)
    ends = Record()
    ends.exit.exit_code = 0
    return framed([message.SerializeToString() for message in (*messages, ends)])


OURS = (("config", ["trial_id"], "a" * 16), ("summary", ["status"], "finished"), ("summary", ["result/eval/loss"], 1.0))
EMPTY_CHUNK = struct.pack("<IHB", zlib.crc32(b"", zlib.crc32(b"\3")), 0, 3)
WANDB_DAMAGES = [
    (wandb_file(*OURS, ("config", ["x"] * 5000, 1)), "more than 50 levels"),
    (wandb_file(*OURS, *(("config", [f"x.{number}"], 1) for number in range(3000))), "more than 2,000 keys"),
    (wandb_file(*OURS, *(("history", [f"x/{number}"], 1) for number in range(3000))), "more than 2,000 keys"),
    (wandb_file(*OURS, ("summary", ["result/folder"], 5)), "result['folder'] is not"),
    (wandb_file(*OURS, ("config", ["seed"], LONG_NUMBER)), "seed is not a number"),
    (wandb_file(*OURS, ("config", ["optimizer.lr"], "abc")), "optimizer.lr is not a number"),
    (wandb_file(*OURS, ("config", ["ablation"], [1])), "its trial_id or its ablation is not a text"),
    (wandb_file(*OURS[:2]), "it finished without a result"),
]


@pytest.mark.parametrize(("content", "says"), WANDB_DAMAGES, ids=[says for _, says in WANDB_DAMAGES])
def test_read_offline_names_a_damaged_run(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "run-x.wandb").write_bytes(content)
    (tmp_path / "run-y.wandb").write_bytes(wandb_file(*OURS))
    raw = read_offline(tmp_path)
    assert len(raw.trials) == 1
    [problem] = raw.problems
    assert says in problem
    assert "run-x.wandb" in problem or "the W&B run x" in problem


def test_read_offline_takes_linear_time_and_looks_into_no_depth(tmp_path: Path) -> None:
    """Quadratic in these 450,000 chunks, or in these folders, it would not end before pytest ends it."""
    first = struct.pack("<IHB", zlib.crc32(b"", zlib.crc32(b"\2")), 0, 2)
    chunks = (3 << 20) // len(EMPTY_CHUNK)
    whole = bytearray(wandb_file()[:7] + first)
    for _ in range(chunks):
        left = 32768 - len(whole) % 32768
        whole += (bytes(left) if left < 7 else b"") + EMPTY_CHUNK
    (tmp_path / "run-x.wandb").write_bytes(whole)
    a_pipe(tmp_path / "run-y.wandb")
    a_device(tmp_path / "run-z.wandb")
    deepest = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=deepest)
        inner = os.open("d", os.O_RDONLY, dir_fd=deepest)
        os.close(deepest)
        deepest = inner
    os.close(deepest)
    with pytest.raises(BadRequestError, match=r"run-y\.wandb is not a \.wandb file \(is a named pipe"):
        analysis.load(tmp_path)
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # pytest cannot: shutil.rmtree recurses


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.just(LONG_NUMBER)
    | st.just(1e308)
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
FIELDS = (
    "trial_id",
    "name",
    "status",
    "trial",
    "ablation",
    "params",
    "result",
    "perf",
    "environment",
    "notes",
    "error",
)
KEYS = (*FIELDS, "metrics", "format", "own")
Change = tuple[str, str | None, str | None, Any]
"""A key of a record, one or two keys below it, and the value that is put there."""
INNER = ("seed", "task", "adapter", "optimizer", "training", "eval/loss", "step_ms", "type", "rank", "lr")


def attempt(examples: int, strategy: st.SearchStrategy[Any], one: Callable[[Any], None]) -> None:
    limits = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    limits(given(strategy)(one))()


def try_records(examples: int) -> None:
    """Change good records at one to three places each: each is read or named as damaged, and the untouched one is read."""
    values: list[Any] = []
    attempt(max(TOGETHER, examples // 4), VALUES, lambda one: values.append(one))
    rng = random.Random(0)

    def change() -> Change:
        inner, deeper = (rng.choice(INNER) if rng.random() < 0.5 else None for _ in range(2))
        return rng.choice(KEYS), inner, deeper, rng.choice(values)

    drawn = [[change() for _ in range(rng.randint(1, 3))] for _ in range(examples)]
    for begin in range(0, len(drawn), TOGETHER):
        load_changed(drawn[begin : begin + TOGETHER])


def load_changed(several: Sequence[list[Change]]) -> None:
    """Load a sweep whose first trial is untouched and whose others are changed, one by each of ``several``."""
    with TemporaryDirectory() as place:
        trials = grid(range(1 + len(several)), (), rank=[1])
        folder = write_sweep(Path(place, "s"), trials, np.random.default_rng(0), points=2)
        untouched, *others = sorted(path.name for path in folder.iterdir())
        for name, changes in zip(others, several, strict=True):
            path = folder / name / "record.json"
            values = json.loads(path.read_text())
            for key, inner, deeper, value in changes:
                target, last = values, key
                for below in (inner, deeper):
                    if below is not None and isinstance(target.get(last), dict):
                        target, last = target[last], below
                target[last] = value
            path.write_text(json.dumps(values))
        raw = read_trials(begun_trials(folder))
        read = {Path(row["folder"]).name for row in raw.trials}
        problems = "\n".join(raw.problems)
        for name, changes in zip(others, several, strict=True):
            assert name in read or f"{folder / name}" in problems, changes
        assert untouched in read
        sweep = assemble("s", raw, folder)
        assert len(sweep.trials) == len(read) or "trials with several records" in sweep.problems[-1]


def try_wandb_files(examples: int) -> None:
    """Build runs of random items, and damage some bytes: a trial, or a line that names the file."""
    kinds = st.sampled_from(("config", "history", "summary"))
    names = st.sampled_from(
        ("trial_id", "status", "seed", "step", "result/eval/loss", "ablation", "optimizer.lr", "folder")
    )
    item = st.tuples(kinds, st.lists(names | st.text(max_size=3), min_size=1, max_size=3), VALUES)

    with TemporaryDirectory() as place:
        path = Path(place, "run-x.wandb")
        Path(place, "run-y.wandb").write_bytes(wandb_file(("config", ["trial_id"], "b" * 16), *OURS[1:], name="y"))

        def one(drawn: tuple[list[tuple[str, list[str], Any]], bytes, int]) -> None:
            items, noise, where = drawn
            content = bytearray(wandb_file(*OURS, *items))
            content[where % len(content) : where % len(content) + len(noise)] = noise
            path.write_bytes(content)
            sweep = assemble("s", read_offline(Path(place)), Path(place))
            assert len(sweep.trials) == 2 or sweep.problems or sweep.missing, items

        attempt(examples, st.tuples(st.lists(item, max_size=4), st.binary(max_size=2), st.integers(0, 9999)), one)


def test_load_survives_random_records_and_runs() -> None:
    try_records(TOGETHER)
    try_wandb_files(10)


@pytest.mark.slow
def test_load_survives_2000_random_records_and_500_runs() -> None:
    try_records(2000)
    try_wandb_files(500)
