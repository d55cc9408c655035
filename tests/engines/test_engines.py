"""What an engine is asked for, and that a pack in a parcel is the same pack. The engines themselves run in test_ray, test_slurm."""

import json
import sys
from pathlib import Path

import pytest

from sweep import hardware
from sweep.config import parse
from sweep.engines.choose import ENGINES, engine_of
from sweep.engines.cluster import ClusterEngine
from sweep.engines.local import LocalEngine
from sweep.engines.options import LaunchOptions
from sweep.engines.parcel import parcel_of, train_parcel
from sweep.errors import ConfigError
from sweep.launch.launch import run
from sweep.launch.packing import into_packs
from sweep.packs.pack import Pack
from sweep.packs.train_pack import record_failure
from sweep.record import Record
from sweep.resolve import resolve
from sweep.store.store import Store
from tests.support.commands import TOY, records, resolved, untimed


def test_engine_of_this_machine_is_its_processes() -> None:
    assert isinstance(engine_of(LaunchOptions()), LocalEngine)


@pytest.mark.parametrize(("large", "used"), [(1, 2), (hardware.LARGE, 1)])
def test_local_engine_gives_large_models_all_threads_and_small_ones_one(
    large: int, used: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "LARGE", large)
    with hardware.threads(2):
        [one] = run(resolved("seed=0", cache=tmp_path), Store(tmp_path / "sweep", None), LaunchOptions())
    assert (one.status, one.environment["threads"]) == ("finished", used)


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        (LaunchOptions(engine="dask"), f"hydra.launcher.engine = 'dask': must be one of {', '.join(ENGINES.names)}"),
        (
            LaunchOptions(address="h:1"),
            "hydra.launcher.address = 'h:1': engine=local has no such setting; it belongs to ray",
        ),
        (
            LaunchOptions(gpus=1),
            "hydra.launcher.gpus = 1: engine=local has no such setting; it belongs to ray and slurm",
        ),
        (
            LaunchOptions(engine="ray", minutes=9),
            "hydra.launcher.minutes = 9: engine=ray has no such setting; it belongs to slurm",
        ),
        (
            LaunchOptions(engine="slurm", address="h:1"),
            "hydra.launcher.address = 'h:1': engine=slurm has no such setting; it belongs to ray",
        ),
    ],
)
def test_engine_refuses_a_setting_that_it_does_not_have(cluster: LaunchOptions, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        engine_of(cluster)
    assert caught.value.faults == (says,)


def test_slurm_engine_is_refused_where_its_commands_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="pip install lora-sweep[slurm]")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="sinfo is missing"):
        engine_of(LaunchOptions(engine="slurm")).connect()


def test_cluster_engine_asks_for_the_estimated_memory_unless_told() -> None:
    pack = Pack((), step_s=0.1, memory_bytes=3_000_000_000)
    assert ClusterEngine(LaunchOptions()).requested_gb(pack) == 7.0  # twice the estimate, and one for the process
    told = ClusterEngine(LaunchOptions(memory_gb=4.0))
    assert (told.requested_gb(pack), told.room) == (4.0, 1.5e9)


def test_into_packs_keeps_a_pack_in_its_room_and_worth_its_start(tmp_path: Path) -> None:
    wanted = resolved(*(f"seed={seed} training.steps=200000" for seed in range(8)), cache=tmp_path)
    [whole] = into_packs(wanted, max_pack=256, workers=1)
    each = whole.memory_bytes // 8
    assert [len(pack.trials) for pack in into_packs(wanted, max_pack=256, workers=1, room=3 * each)] == [3, 3, 2]
    assert len(into_packs(wanted, max_pack=256, workers=8, start_s=0.0)) == 8
    assert len(into_packs(wanted, max_pack=256, workers=8, start_s=1e9)) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        TOY,
        (*TOY, "adapter=none", "pruning=2"),
        (*TOY, "adapter.targets=[layers.0]", "adapter.rank_pattern={layers.0:2}", "task.hidden=[16]"),
        ("task=mnist", "adapter=full"),
        ("task=transformer_tiny", "adapter.layers=[0]", "adapter.exclude=[up_proj]"),
    ],
    ids=["plain", "none", "patterns", "mnist", "transformer"],
)
def test_parcel_is_json_and_holds_the_same_trials(overrides: tuple[str, ...], tmp_path: Path) -> None:
    wanted = resolved("seed=0", "seed=1", common=overrides, cache=tmp_path)
    parcel = json.loads(json.dumps(parcel_of(wanted, Store(tmp_path / "s", "rank"), "offline")))
    again = [resolve(parse(config)) for config in parcel["configs"]]
    assert again == wanted
    assert parcel["trial_ids"] == [trial.id for trial in wanted]


def test_parcel_paths_hold_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.txt").write_text("to be, or not to be; " * 200)
    [trial] = resolved("task.source_text=own.txt", common=("task=transformer_tiny",), cache=Path("cache"))
    [config] = parcel_of([trial], Store(Path("s"), None), None)["configs"]
    assert (config["cache"], config["task"]["source_text"]) == (f"{tmp_path}/cache", f"{tmp_path}/own.txt")


def test_record_failure_leaves_what_is_finished(tmp_path: Path) -> None:
    wanted, store = resolved("seed=0", "seed=1", cache=tmp_path), Store(tmp_path / "s", None)
    [done] = run(wanted[:1], store, LaunchOptions(workers=1))
    found = record_failure(wanted, store, RuntimeError("the node is gone"))
    assert [one.status for one in found] == ["finished", "failed"]
    assert found[0] == done
    assert list(records(store.folder).values()) == found


def test_parcel_trains_as_the_pack_does_and_refuses_to_be_another(tmp_path: Path) -> None:
    wanted = resolved("seed=0", "seed=1", cache=tmp_path)
    expected = run(wanted, Store(tmp_path / "here", None), LaunchOptions(workers=1))
    parcel = parcel_of(wanted, Store(tmp_path / "there", None), None)
    found = [Record.of(values) for values in json.loads(json.dumps(train_parcel(parcel)))]
    assert [untimed(one) for one in found] == [untimed(one) for one in expected]
    assert list(records(tmp_path / "there").values()) == sorted(found, key=lambda one: one.trial["seed"])
    with pytest.raises(RuntimeError, match="this node would train other trials"):
        train_parcel(parcel | {"trial_ids": ["0" * 16, "1" * 16]})


def test_engine_of_says_what_to_install_where_its_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "sweep.engines.slurm", raising=False)
    with pytest.raises(ConfigError, match=r"submitit is not installed; pip install 'lora-sweep\[slurm\]'"):
        engine_of(LaunchOptions(engine="slurm"))
