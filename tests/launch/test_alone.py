"""The speed of each kind of trial alone: what a kind is, what time may be spent, and what the records say."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sweep.cli.app import show_plan
from sweep.engines.local import LocalEngine
from sweep.engines.options import LaunchOptions
from sweep.launch import alone
from sweep.launch.alone import kind_of, timed_rounds
from sweep.launch.bench import Bench
from sweep.launch.cost import untrained
from sweep.launch.launch import run
from sweep.metrics import ALONE
from sweep.params.account import full, lora
from sweep.params.shapes import shape_of
from sweep.record import Record
from sweep.registry import INITS
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store
from tests.support.commands import TOY, resolved, untimed

OF_TOY = {metric.name.removeprefix("perf/") for metric in ALONE} - {"alone_tokens_per_second"}


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("", "seed=1 optimizer.lr=0.5 optimizer.schedule=cosine optimizer.warmup_steps=3", True),
        ("", "training.steps=500 training.eval_every=50 training.log_every=7", True),
        ("", "adapter.alpha=1 adapter.scaling=alpha", True),
        ("adapter.rank=5", "adapter.rank=8", True),  # both are padded to 8
        ("adapter.rank=4", "adapter.rank=8", False),
        ("", "adapter.init=orthogonal", True),
        ("", "adapter.init=pissa", False),  # takes a second low-rank product out of the base
        ("", "adapter.init=mica", False),  # trains A alone
        ("task.hidden=[16]", "task.hidden=[16] adapter.targets=[layers.0]", False),
        ("", "adapter.dora=true", False),
        ("adapter.dropout=0.1", "adapter.dropout=0.2", True),
        ("", "adapter.dropout=0.1", False),
        ("", "adapter=full", False),
        ("", "optimizer=sgd", False),
        ("optimizer.clip_norm=1", "optimizer.clip_norm=2", True),
        ("optimizer.clip_norm=1", "optimizer.clip_norm=null", False),
        ("", "training.batch_size=7", False),
        ("", "training.accumulation=2", False),
    ],
)
def test_kind_of_trials_whose_updates_cost_the_same(first: str, second: str, is_one: bool, tmp_path: Path) -> None:
    one, other = resolved(first, second, cache=tmp_path)
    assert (kind_of(one) == kind_of(other)) is is_one


@dataclass
class Clock:
    """A clock that only ``Kind`` moves."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Kind:
    """Updates of ``update_s`` seconds each; ``counts`` are those timed, by call."""

    clock: Clock
    update_s: float
    counts: list[int] = field(default_factory=list)

    def update_times(self, count: int) -> list[float]:
        self.counts.append(count)
        self.clock.now += (count + 1) * self.update_s
        return [self.update_s] * count


def spent(seconds: float, rounds: int, **update_s: float) -> tuple[dict[int, list[str]], dict[str, list[int]], float]:
    """In which order kinds were measured at each seed, how many updates each time, and the seconds left."""
    clock = Clock()
    kinds = {name: Kind(clock, one) for name, one in update_s.items()}
    done = timed_rounds(dict.fromkeys(range(rounds), tuple(kinds)), kinds, clock.now + seconds, clock)
    order = {seed: list(times) for seed, times in done.items()}
    return order, {name: kind.counts for name, kind in kinds.items()}, 100.0 + seconds - clock.now


def test_rounds_take_three_seconds_a_kind_where_there_is_time() -> None:
    order, counts, left = spent(1000.0, 2, a=0.01, b=0.5)
    assert counts == {"a": [149, 149], "b": [2, 2]}  # 1.5 s a round, with the update that is not timed
    assert order == {0: ["a", "b"], 1: ["b", "a"]}  # no kind always comes after the same other one
    assert left == pytest.approx(1000.0 - 2 * 3.0)


def test_rounds_make_do_with_less_time_and_end_before_it_does() -> None:
    _, counts, left = spent(0.4, 2, a=0.01, b=0.01)
    assert counts == {"a": [9, 9], "b": [9, 9]}
    assert left >= -1e-9
    order, counts, left = spent(0.3, 2, a=0.01, b=0.06)
    assert order == {0: ["a"]}  # three updates of b, in two rounds, would have ended too late
    assert left >= 0


def test_rounds_of_fewer_than_three_updates_are_none() -> None:
    order, counts, _ = spent(0.09, 3, a=0.03)  # 0.06 s for one update and the one before it, three times
    assert (order, counts) == ({0: []}, {"a": [1]})
    assert spent(0.05, 3, a=0.03)[1] == {"a": []}


@pytest.mark.parametrize(
    ("model", "overrides", "positions"),
    [
        ("toy_regression", "adapter.rank=2", 1),
        ("transformer_tiny", "adapter.rank=8", 32),
        ("transformer_tiny", "adapter.targets=qv adapter.rank=4", 32),
        ("transformer_tiny", "adapter=full", 32),
    ],
)
def test_arithmetic_of_an_update_is_that_of_the_account(
    model: str, overrides: str, positions: int, tmp_path: Path
) -> None:
    [trial] = resolved(overrides, common=(f"task={model}", "tracker=none", "training.accumulation=2"), cache=tmp_path)
    shape, adapter = shape_of(model), trial.adapter
    account = full(shape) if adapter.kind == "full" else lora(shape, str(adapter.targets), adapter.rank or 0)
    rows = trial.training.batch_size * trial.training.accumulation
    assert bench(trial).flops == rows * positions * account.flops_per_token


def bench(trial: ResolvedTrial) -> Bench:
    return Bench(trial, untrained(trial, trial.task.build(trial.cache_folder)))


def test_memory_of_a_trial_is_its_own_and_the_same_at_every_run(tmp_path: Path) -> None:
    small, large, moved = resolved(
        "adapter.rank=2", "adapter.rank=8", "adapter.rank=8 adapter.init=pissa", cache=tmp_path
    )
    peaks = [bench(trial).peak_bytes for trial in (small, large, moved)]
    assert [bench(trial).peak_bytes for trial in (small, large, moved)] == peaks
    assert peaks[1] - peaks[0] > 4 * 4 * (64 + 10) * (8 - 2)  # a number, its gradient and two moments of Adam
    assert peaks[2] - peaks[1] >= 4 * 8 * (64 + 10)  # what was taken out of the base is kept beside it


def swept(folder: Path, cache: Path, speed: str = "alone", workers: int = 1) -> list[Record]:
    each = [
        f"adapter.rank={rank} optimizer.lr={lr} seed={seed}"
        for rank in (2, 8)
        for lr in (0.01, 0.02)
        for seed in (0, 1)
    ]
    wanted = resolved(*each, "adapter=none", common=TOY, cache=cache)
    return run(wanted, Store(folder, None), LaunchOptions(workers=workers, speed=speed))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    """A sweep of two kinds at two rates and two seeds, and of the untouched base, with time enough to measure."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alone, "SHARE", 1e6)
        patch.setattr(alone, "MOST_S", 0.01)
        return folder, swept(folder / "sweep", folder)


def of_alone(record: Record) -> dict[str, float]:
    return {name: value for name, value in record.perf.items() if name.startswith("alone_")}


def test_records_hold_the_speed_alone_of_their_kind_at_their_seed(measured: tuple[Path, list[Record]]) -> None:
    *records, base = measured[1]
    assert {frozenset(of_alone(one)) for one in records} == {frozenset(OF_TOY)}
    found = {(one.trial["adapter"]["rank"], one.trial["seed"], tuple(of_alone(one).values())) for one in records}
    assert len(found) == 4  # two ranks, two seeds; the two rates share them
    assert of_alone(base) == {}
    for one in records:
        speed, ms = one.perf["alone_samples_per_second"], one.perf["alone_step_ms"]
        assert speed * ms == pytest.approx(1e3 * one.trial["training"]["batch_size"])
        assert one.perf["pack_size"] == 4


def test_speed_off_measures_nothing_and_changes_no_result(
    measured: tuple[Path, list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "Bench", None)
    records = swept(tmp_path / "sweep", measured[0], speed="off")
    assert [of_alone(one) for one in records] == [{}] * 9
    assert [untimed(one) for one in records] == [untimed(one) for one in measured[1]]


def test_what_records_of_the_sweep_hold_is_not_measured_again(
    measured: tuple[Path, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = measured
    monkeypatch.setattr(alone, "Bench", None)
    [lost] = (folder / "sweep").glob(f"*-{before[0].trial_id[:8]}/record.json")
    lost.unlink()
    after = swept(folder / "sweep", folder)
    assert of_alone(after[0]) == of_alone(before[0])  # as of the trial at the other rate


def test_packs_on_another_machine_have_no_speed_alone(
    measured: tuple[Path, list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalEngine, "is_here", False)
    monkeypatch.setattr(alone, "Bench", None)
    assert [of_alone(one) for one in swept(tmp_path / "sweep", measured[0])] == [{}] * 9


@pytest.mark.slow
def test_speed_alone_of_too_short_a_training_is_not_measured_and_the_log_says_so(
    measured: tuple[Path, list[Record]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert alone.SHARE * 8 * 20 / 2 < 2 * (alone.OTHER_UPDATES + alone.LEAST_UPDATES)  # updates, two packs at once
        records = swept(tmp_path / "sweep", measured[0], workers=2)
    assert [of_alone(one) for one in records] == [{}] * 9
    assert "the speed of trials alone is not measured: a tenth of the planned training" in caplog.text


def test_speed_alone_is_not_measured_in_a_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "Bench", None)
    wanted = resolved("adapter.rank=2", "adapter.rank=8", cache=tmp_path)
    with pytest.raises(SystemExit):
        show_plan(wanted, LaunchOptions(dry_run=True, workers=1))


def test_speed_has_two_settings() -> None:
    assert LaunchOptions(speed="of").faults() == ["hydra.launcher.speed = 'of': must be alone or off"]
    assert LaunchOptions(speed="off", engine="slurm").faults() == [
        "hydra.launcher.speed = 'off': engine=slurm has no such setting; it belongs to local"
    ]


def test_speed_alone_that_cannot_be_measured_costs_no_trial(
    measured: tuple[Path, list[Record]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*given: object) -> Bench:
        raise MemoryError("none left")

    monkeypatch.setattr(alone, "Bench", broken)
    records = swept(tmp_path / "sweep", measured[0])
    assert "alone cannot be measured: MemoryError: none left" in caplog.text
    assert [of_alone(one) for one in records] == [{}] * 9
    assert [untimed(one) for one in records] == [untimed(one) for one in measured[1]]


@pytest.mark.parametrize("init", INITS.places)
def test_bench_of_every_initialisation_computes_updates(init: str, tmp_path: Path) -> None:
    [trial] = resolved(f"adapter.init={init}", cache=tmp_path)
    assert bench(trial).flops > 0
