"""The tutorials' pages, made from their ablations as a user makes them, the models smaller where size says nothing."""

from pathlib import Path

import pytest

from sweep.tutorials.__main__ import NAMES, main
from tests.support.commands import sweep

SMALL = {
    "toy": ["seed=0"],
    "mnist": ["task.data=embedded", "task.hidden=[24,16]", "task.pretraining.steps=400", "seed=0,1"],
    "merge": ["task.in_features=30", "task.out_features=20", "training.steps=5", "seed=0"],
    "attention": ["task.pretraining.steps=5", "training.steps=3", "seed=0"],
    "llama": [
        "task.width=16",
        "task.heads=2",
        "task.layers=2",
        "task.hidden=24",
        "task.context=12",
        "task.eval_windows=24",
        "task.pretraining.steps=5",
        "training.steps=3",
        "seed=0",
    ],
}
HERE = ("tracker=none", "hydra.launcher.workers=1", "hydra.launcher.speed=off")
SAYS = {
    "toy": [
        "its code: 306 of 946, 32.35%",
        "it is 296 of 946, 31.29%",
        "243.7067; the base alone has 1.36706",
        "173.2909",
        "1.13938",
        "The records of 4 of 4 such trials carry the note",
    ],
    "mnist": [
        "30,000 of 5,000,000",
        "singular values 11.3851, 4.8439",
        "ranks 24 of 24, 16 of 16, 10 of 10",
        "every count as before",
        "the same SHA-256 after training",
        "0 of 1,000 digits",
        "not on all 70,000",
    ],
    "merge": ["a full copy; not A, B, W", 'refused: "no adapter parameter receives a gradient', "‖AB‖ = 3.16 ‖W‖"],
    "attention": [
        "98,304 of 2,097,152",
        "786,432 of 331,982,848, 0.2369%",
        "65,536 a layer, 4,194,304 in all",
        "rank=16, alpha=32, dropout=0.05",
        "the same bits in 4 of 4",
        "the recorded one, bit for bit",
    ],
    "llama": ["4,194,304 of 6,742,609,920, 0.0622%", "19,988,480 of 6,758,404,096", "14 of 15 linear layers replaced"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tutorial_shows_what_the_trials_show(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(f"+ablation=tutorial_{name}", *SMALL[name], *HERE, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main([name]) == 0
    page = capsys.readouterr().out
    assert [text for text in SAYS[name] if text not in page] == []
    assert (tmp_path / "outputs" / "tutorials" / f"{name}.md").read_text() + "\n" == page


def test_tutorial_asks_for_what_was_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["toy"]) == 1
    assert "train them with: python -m sweep +ablation=tutorial_toy" in capsys.readouterr().err
