import json
import os
from pathlib import Path

import pytest

from sweep import record
from sweep.errors import ConfigError
from sweep.resolve import ResolvedTrial
from sweep.store.skip import decide
from sweep.store.store import Store, UnwritableError, writing
from sweep.text import failure
from tests.store.left import DONE, ENVIRONMENT
from tests.support.commands import resolved
from tests.test_claim import holding


def test_record_of_says_what_the_trial_was(store: Store, trial: ResolvedTrial) -> None:
    made = store.record_of(trial, ENVIRONMENT, "finished", **DONE)
    assert (made.trial_id, made.name, made.status, made.ablation) == (trial.id, "study", "finished", "rank")
    assert made.trial == trial.science()
    assert (made.trial["adapter"]["rank"], made.trial["seed"], made.environment) == (2, 3, ENVIRONMENT)
    assert (made.params, made.result, made.perf) == ({"trainable": 1}, {"eval/loss": 0.5}, {"step_ms": 1.0})


def test_record_of_keeps_the_notes_of_plan_and_training(store: Store, tmp_path: Path) -> None:
    [high] = resolved("task.hidden=[16] adapter.rank=12", cache=tmp_path)
    made = store.record_of(high, ENVIRONMENT, "finished", notes=("from training",))
    assert made.notes == (*high.notes, "from training")
    assert len(made.notes) == 2


def test_record_of_a_failure_keeps_class_message_and_traceback(store: Store, trial: ResolvedTrial) -> None:
    def broken() -> None:
        raise KeyError("what is missing")

    with pytest.raises(KeyError) as caught:
        broken()
    error = store.record_of(trial, ENVIRONMENT, "failed", error=failure(caught.value)).error
    assert error is not None
    assert (error["type"], error["message"]) == ("KeyError", "'what is missing'")
    assert "in broken" in error["traceback"]


@pytest.mark.parametrize(
    "content",
    ["{", "{}", "[1]", '[{"format": 1}]', "[" * 100_000, None],
    ids=["cut", "mapping", "number", "no record", "nested", "pipe"],
)
def test_recover_records_refuses_a_damaged_file_by_name(content: str | None, store: Store) -> None:
    store.folder.mkdir()
    waiting = store.folder / ".records-01234567.json"
    os.mkfifo(waiting) if content is None else waiting.write_text(content)
    with pytest.raises(ConfigError, match=r"\.records-01234567\.json is not the records of a pack \(.*; delete it"):
        store.recover_records()
    assert waiting.exists()


def test_recover_records_takes_no_path_for_a_trial(store: Store, trial: ResolvedTrial) -> None:
    store.folder.mkdir()
    outside = store.folder.parent / "v"
    outside.mkdir()
    values = record.plain(store.record_of(trial, ENVIRONMENT, "finished", **DONE)) | {"trial_id": "/../../v"}
    (store.folder / ".records-01234567.json").write_text(json.dumps([values]))
    with pytest.raises(ConfigError, match="trial_id is not 16 hexadecimal digits"):
        store.recover_records()
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["", "record.json", "history.jsonl", "trial.log", "adapter", ".hydra"])
def test_decide_refuses_a_trial_whose_folder_is_or_holds_a_link(
    name: str, store: Store, trial: ResolvedTrial, tmp_path: Path
) -> None:
    link = store.trial_folder(trial) / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is a symbolic link, which is not followed; delete it"):
        decide(trial, store)


def test_claim_follows_no_link(store: Store, trial: ResolvedTrial, tmp_path: Path) -> None:
    store.folder.mkdir()
    (store.folder / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"symbolic link"), store.claim([trial]):
        pass
    assert not (tmp_path / "mine").exists()


def test_writing_promises_nothing_of_a_folder_that_was_deleted(store: Store) -> None:
    says = "No such file or directory; files there have been deleted"
    with pytest.raises(UnwritableError, match=says), writing(store.folder):
        (store.folder / "gone" / "x").touch()


def test_recover_records_leaves_those_of_a_pack_that_another_launch_trains(store: Store, trial: ResolvedTrial) -> None:
    store.trial_folder(trial).mkdir(parents=True)
    waiting = store.folder / f".records-{trial.id[:8]}.json"
    values = record.plain(store.record_of(trial, ENVIRONMENT, "finished", **DONE))
    waiting.write_text(json.dumps([values]))
    with holding(store.folder, trial.id):
        store.recover_records()
        assert waiting.exists()
    store.recover_records()
    assert not waiting.exists()
    assert record.read(store.trial_folder(trial)) is not None
