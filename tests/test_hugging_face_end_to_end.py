"""A user's own model and text, a sweep on the command line, and what it leaves in the hands of PEFT alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweep.engines.options import LaunchOptions
from sweep.launch.launch import run
from sweep.store.store import Store
from tests.support.commands import ROOT, records, resolved, sweep

hugging_face = pytest.importorskip("tests.support.hugging_face")
SCRIPT = ROOT / "tests" / "support" / "scripts" / "loss_with_peft.py"


def settings_of(task: Any) -> list[str]:
    """The options of a task as a command line gives them."""
    values = task.model_dump(exclude={"name", "generate"}, exclude_none=True)
    return [f"task.{key}={value}" for key, value in values.items()]


@pytest.mark.slow
def test_saved_adapters_have_the_same_loss_in_a_process_that_knows_peft_alone(tmp_path: Path) -> None:
    task = hugging_face.causal_lm("llama", tmp_path)
    settings = settings_of(task)
    sweep(
        "-m",
        "hydra/launcher=packed",
        "hydra.launcher.workers=1",
        "task=causal_lm",
        *settings,
        "tracker=none",
        "name=own",
        "save_adapter=true",
        "training.steps=30",
        "training.batch_size=4",
        "optimizer.lr=1e-2",
        "adapter=lora,full,none",
        "adapter.rank=3,4",
        "adapter.init=kaiming,pissa",
        "adapter.scaling=alpha/sqrt_rank",
        cwd=tmp_path,
    )
    found = records(tmp_path / "outputs/own")
    folders = {label: tmp_path / "outputs/own" / label / "adapter" for label in found}
    kept = {label: str(folder) for label, folder in folders.items() if folder.exists()}
    assert {label.split("-")[0] for label in found} - {label.split("-")[0] for label in kept} == {"none"}
    assert len(kept) == 4 + 1
    line = [
        sys.executable,
        str(SCRIPT),
        str(task.model),
        str(task.target_text),
        str(task.context),
        str(task.eval_windows),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*line, *kept.values()], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    losses = json.loads(done.stdout.splitlines()[-1])
    for label, folder in kept.items():
        result = found[label].result
        assert losses[folder] == pytest.approx(result["eval/loss"], rel=1e-5)
        assert losses[""] == pytest.approx(result["eval/base_loss"], rel=1e-5)
        assert result["eval/base_loss"] - result["eval/loss"] > 0.1  # something was learnt
    assert str(tmp_path) not in "".join(str(one.trial) for one in found.values())  # no folders of the user's
    assert not [note for one in found.values() for note in one.notes if "PEFT" in note]


def test_saved_adapter_that_peft_would_not_load_whole_says_so_in_its_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(hugging_face.causal_lm("deepseek_v3", tmp_path))
    small = ("tracker=none", "save_adapter=true", "training.steps=1", "training.batch_size=2")
    [trial] = resolved(" ".join(settings), common=("task=causal_lm", *small), cache=tmp_path)
    [left] = run([trial], Store(tmp_path / "own", None), LaunchOptions(workers=1))
    [note] = [note for note in left.notes if note.startswith("PEFT ")]
    assert "has no place for 12 of the 32 tensors in adapter/" in note
    assert f"{trial.label}: {note}" in caplog.text
