"""What ``python -m sweep status`` says of a sweep in every state that it can be in."""

from pathlib import Path

import pytest

from sweep.cli.status import main
from sweep.engines.options import LaunchOptions
from sweep.launch.launch import run
from sweep.state import find
from sweep.store.store import Store
from tests.support.commands import resolved
from tests.test_claim import holding


@pytest.fixture
def sweep(tmp_path: Path) -> Store:
    store = Store(tmp_path / "outputs" / "study", None)
    run(
        resolved(*(f"seed={seed}" for seed in range(5)), "optimizer.lr=1e30", cache=tmp_path),
        store,
        LaunchOptions(workers=1),
    )
    return store


def test_status_tells_every_state_apart(sweep: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = [
        job.label for job in resolved(*(f"seed={seed}" for seed in range(5)), "optimizer.lr=1e30", cache=tmp_path)
    ]
    folders = [sweep.folder / label for label in labels]
    for number in (1, 2, 3):
        (folders[number] / "record.json").unlink()
    (folders[2] / "history.jsonl").unlink()
    (folders[4] / "record.json").write_text("{")
    for other in ("wandb", "report"):
        (sweep.folder / other).mkdir()
    with holding(sweep.folder, labels[3][-8:]):
        assert main([str(sweep.folder)]) == 1
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == (
        f"{sweep.folder}: 6 trials: 1 finished, 1 diverged, 1 damaged, 1 training, 1 interrupted, 1 not started"
    )
    assert last == "the sweep's command, run again, trains what is not finished"
    said = {line.split()[1] if not line.startswith("  not") else line.split()[2]: line for line in lines}
    assert said[labels[5]].startswith("  diverged ")
    assert said[labels[5]].endswith("Diverged: the loss was NaN or infinite at step 2")
    assert "record.json is not valid JSON" in said[labels[4]]
    assert said[labels[3]].startswith("  training ")
    assert said[labels[2]].startswith("  not started ")
    assert said[labels[1]].startswith("  interrupted ")
    assert len(lines) == 5


def test_status_exits_with_0_when_all_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "study", None)
    run(resolved("seed=0", "adapter=none", cache=tmp_path), store, LaunchOptions(workers=1))
    assert main([str(store.folder)]) == 0
    assert capsys.readouterr().out == f"{store.folder}: 2 trials: 2 finished\n"
    (store.trial_folder(resolved("seed=0", cache=tmp_path)[0]) / "history.jsonl").write_text('{"step": 0}\n')
    assert main([str(store.folder)]) == 1
    assert "history.jsonl ends too early; the sweep's command trains it again" in capsys.readouterr().out


def test_status_names_every_trial_that_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(25):
        (tmp_path / f"r8-s{number}-{number:08x}").mkdir()
    assert main([str(tmp_path)]) == 1
    first, *named, _ = capsys.readouterr().out.splitlines()
    assert first.endswith("25 trials: 25 not started")
    assert [line.split()[-1] for line in named] == sorted(path.name for path in tmp_path.iterdir())


def test_status_says_that_there_is_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"lora-sweep: {tmp_path / 'none'} holds no trial\n"
    assert find(tmp_path) == []
