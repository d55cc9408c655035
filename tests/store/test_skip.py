"""Why a trial is not trained now."""

from pathlib import Path

import pytest

from sweep.record import Record
from sweep.resolve import ResolvedTrial
from sweep.store.skip import decide
from sweep.store.store import Store
from tests.store.left import leave
from tests.support.commands import resolved


def kept(store: Store, trial: ResolvedTrial) -> Record | None:
    """The record for whose sake ``trial`` is skipped."""
    skip = decide(trial, store)
    return skip.record if skip else None


def test_decide_skips_only_for_a_finished_record_of_this_very_trial(
    store: Store, trial: ResolvedTrial, tmp_path: Path
) -> None:
    assert kept(store, trial) is None
    for status in ("failed", "diverged"):
        leave(store, trial, status)
        assert kept(store, trial) is None
    leave(store, trial)
    found = kept(store, trial)
    assert found is not None
    assert found.trial_id == trial.id
    [other] = resolved("adapter.rank=2 seed=4", cache=tmp_path)
    store.trial_folder(trial).rename(store.trial_folder(other))
    assert kept(store, other) is None
    assert kept(Store(tmp_path / "elsewhere", "rank"), trial) is None


def test_decide_refuses_a_damaged_record(store: Store, trial: ResolvedTrial) -> None:
    leave(store, trial)
    (store.trial_folder(trial) / "record.json").write_text("{")
    with pytest.raises(ValueError, match=r"record\.json is not"):
        kept(store, trial)


def test_decide_asks_for_the_adapter_that_must_be_there(store: Store, trial: ResolvedTrial, tmp_path: Path) -> None:
    [keeping] = resolved("adapter.rank=2 seed=3 name=study save_adapter=true", cache=tmp_path)
    assert store.trial_folder(keeping) == store.trial_folder(trial)
    leave(store, trial)
    assert kept(store, keeping) is None
    store.save_adapter(keeping, {"adapter_config.json": b"{}"})
    assert kept(store, keeping) is None
    store.save_adapter(keeping, {"adapter_model.safetensors": b"weights"})
    assert kept(store, keeping) == kept(store, trial) is not None
    assert (store.trial_folder(trial) / "adapter" / "adapter_model.safetensors").read_bytes() == b"weights"


def test_decide_asks_for_no_adapter_of_an_untouched_base(store: Store, tmp_path: Path) -> None:
    [untouched] = resolved("adapter=none save_adapter=true", cache=tmp_path)
    leave(store, untouched)
    assert kept(store, untouched) is not None


@pytest.mark.parametrize("damage", ["", '{"step": 0}\n', '{"step": 0}\n{"step": 2', '{"step": 20', "[20]\n", None])
@pytest.mark.parametrize("kind", ["lora", "none"])
def test_decide_trains_again_where_the_history_is_cut(
    damage: str | None, kind: str, store: Store, tmp_path: Path
) -> None:
    [trial] = resolved(f"adapter={kind}", cache=tmp_path)
    leave(store, trial)
    assert kept(store, trial) is not None
    history = store.trial_folder(trial) / "history.jsonl"
    history.unlink() if damage is None else history.write_text(damage)
    whole = kind == "none" and damage == '{"step": 0}\n'
    assert (kept(store, trial) is not None) == whole
