"""``python -m sweep evaluate``: saved adapters score as they did when they were trained, on as many examples as asked."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from sweep import scores
from sweep.cli.evaluate import main
from sweep.scores import EVALUATED_FILE, SCORES_FILE
from tests.support.commands import sweep

TINY = (
    "task=transformer_tiny",
    "tracker=none",
    "task.pretraining.steps=5",
    "task.eval_windows=16",
    "task.target_text=text.txt",
    "training.steps=10",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``outputs/s``: two LoRAs, a full fine-tuning and the base on a short text, saved."""
    here = tmp_path_factory.mktemp("evaluate")
    (here / "text.txt").write_text("".join(map(chr, range(97, 123))) * 200)
    varied = ("adapter=lora,full,none", "adapter.init=kaiming,pissa", "save_adapter=true")
    sweep("-m", *TINY, "name=s", "training.eval_every=5", *varied, cwd=here)
    return here


@pytest.fixture
def study(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, from which the command is run."""
    shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return Path("outputs/s")


def test_evaluate_scores_what_was_saved_as_training_did(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = {path: path.read_bytes() for path in study.glob("*/record.json")}
    assert len(records) == 4
    assert main([str(study), "--examples", "16"]) == 0
    assert "4 of 4 finished trials" in capsys.readouterr().out
    for path, content in records.items():
        assert path.read_bytes() == content
        before, again = (scores.read(path.parent / name) for name in (SCORES_FILE, EVALUATED_FILE))
        for domain, name in (("target", "test/loss"), ("source", "test/source_loss")):
            was, now = before[domain], again[domain]  # type: ignore[index]
            assert (was.example == now.example).all()
            assert (was.cluster == now.cluster).all()
            np.testing.assert_allclose(now.sums[name], was.sums[name], rtol=1e-4)


def test_evaluate_takes_all_examples_where_there_are_fewer(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(study), "--examples", "100000"]) == 0
    said = capsys.readouterr().out
    assert "scored on 16 test examples of the target and 16 of the source; there are no more" in said


def test_evaluate_says_how_to_save_what_was_not(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in study.glob("*/adapter"):
        shutil.rmtree(folder)
    assert main([str(study), "--examples", "16"]) == 1
    said = capsys.readouterr().err
    assert "3 of 4 finished trials have no saved adapter; the sweep's command with save_adapter=true trains" in said


def test_evaluate_refuses_a_configuration_that_is_another_trial(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [config] = study.glob("full*/.hydra/config.yaml")
    config.write_text(config.read_text().replace("seed: 0", "seed: 1", 1))
    assert main([str(study), "--examples", "16"]) == 1
    assert "they would be another trial" in capsys.readouterr().err


def test_evaluate_of_a_folder_without_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--examples", "16"]) == 2
    assert "holds no finished trial" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["alias", "link"])
def test_evaluate_refuses_a_configuration_that_is_no_plain_file(
    change: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [config] = study.glob("full*/.hydra/config.yaml")
    if change == "alias":
        config.write_text(f"x: &x [1]\ny: *x\n{config.read_text()}")
    else:
        config.rename(study / "elsewhere.yaml")
        config.symlink_to(study.absolute() / "elsewhere.yaml")
    assert main([str(study), "--examples", "16"]) == 1
    said = capsys.readouterr()
    assert {"alias": "aliases are not read here", "link": "is a symbolic link, which is not followed"}[
        change
    ] in said.err
    assert "3 of 4 finished trials have scores.evaluated.safetensors" in said.out


def test_evaluate_writes_nothing_where_a_configuration_says(study: Path, tmp_path: Path) -> None:
    for config in study.glob("*/.hydra/config.yaml"):
        text = config.read_text().replace("cache: outputs/.cache", f"cache: {tmp_path / 'elsewhere'}")
        assert "elsewhere" in text
        config.write_text(text)
    assert main([str(study), "--examples", "16"]) == 0
    assert not (tmp_path / "elsewhere").exists()
