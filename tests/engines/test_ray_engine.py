"""What the Ray engine makes of lost workers, and what a node does with a parcel, without a cluster."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweep.engines.options import LaunchOptions
from sweep.engines.parcel import parcel_of
from sweep.packs.pack import Pack
from sweep.store.store import Store
from tests.support.commands import resolved

pytest.importorskip("ray", reason="Ray is not installed: pip install lora-sweep[ray]")
from ray.exceptions import WorkerCrashedError

from sweep.engines import ray as engine


class LosesEveryWorker:
    """Stands for Ray's module: tasks are numbers, and the worker of each is killed."""

    def __init__(self) -> None:
        self.submitted: list[Any] = []
        self.cancelled: list[int] = []

    def put(self, content: bytes) -> bytes:
        return content

    def remote(self, function: object) -> Any:
        def submit(parcel: Any, *rest: object) -> int:
            self.submitted.append(len(parcel["configs"]))
            return len(self.submitted)

        return SimpleNamespace(options=lambda **asked: SimpleNamespace(remote=submit))

    def wait(self, tasks: list[int]) -> tuple[list[int], list[int]]:
        return tasks[:1], tasks[1:]

    def get(self, task: int) -> Any:
        raise WorkerCrashedError

    def cancel(self, task: int, force: bool) -> None:
        self.cancelled.append(task)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> LosesEveryWorker:
    monkeypatch.setattr(engine, "ray", lost := LosesEveryWorker())
    return lost


def test_ray_halves_a_pack_whose_worker_is_lost_and_cancels_the_rest_when_it_ends_early(
    cluster: LosesEveryWorker, tmp_path: Path
) -> None:
    packs = [Pack(tuple(resolved("seed=0", "seed=1", "seed=2", cache=tmp_path)), 0.01, 1)]
    run = engine.RayEngine(LaunchOptions(engine="ray")).run(packs, Store(tmp_path / "s", None), None, 2, lambda _: None)
    [lost] = next(run)
    assert cluster.submitted == [3, 1, 2]
    assert (lost.trial["seed"], lost.status) == (0, "failed")
    assert lost.error is not None
    assert lost.error["type"] == "WorkerCrashedError"
    run.close()
    assert cluster.cancelled == [3]


def test_node_trains_from_the_files_that_it_is_given_and_gives_back_those_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    own = tmp_path / "own.txt"
    own.write_text("In the beginning was the word. " * 200)
    short = ("task.pretraining.steps=2", "task.eval_windows=16", "training.steps=2", "training.eval_every=null")
    texts = (f"task.{name}_text={own}" for name in ("source", "target"))
    [trial] = resolved("", common=("task=transformer_tiny", "tracker=none", *short, *texts), cache=tmp_path / "cache")
    inputs = engine.inputs_of(trial)
    assert list(inputs) == ["source_text/own.txt", "target_text/own.txt"]
    contents = [path.read_bytes() for path in inputs.values()]
    own.unlink()
    parcel = parcel_of([trial], Store(tmp_path / "s", None), None)
    [record], files = engine._on_node(parcel, list(inputs), *contents)
    assert (record["trial_id"], record["status"]) == (trial.id, "finished")
    assert {Path(name).parent.name for name in files} == {trial.label}
    assert {Path(name).name for name in files} == {"history.jsonl", "record.json", "scores.safetensors", "trial.log"}
