"""``sweep.run``: the command in a process of its own, from a script, a notebook, and whatever has imported what."""

import doctest
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import sweep
from sweep import child, record
from tests.support.commands import PATH, TOY

SCRIPT = """
import sweep
sweep.child.TIME_TO_END = 0.1
for name, steps in (("first", 4), ("second", 20000)):
    results = sweep.run("task=toy_regression", "tracker=none", f"training.steps={steps}", name=name, seed=range(2))
    print(name, results.counts["finished"], flush=True)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.mark.slow
def test_run_does_what_its_docstring_shows(here: Path) -> None:
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    [example] = [found for found in finder.find(child.run, "run", globs={"run": sweep.run}) if found.examples]
    assert runner.run(example).failed == 0
    assert runner.tries == 2
    assert (here / "outputs" / "example" / "multirun.yaml").exists()


@pytest.mark.slow
def test_run_gives_the_trials_that_diverged_too(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results = sweep.run(*TOY, "optimizer=sgd", name="apart", **{"optimizer.lr": [0.01, 1e6]})
    assert (results.counts["finished"], results.counts["diverged"]) == (1, 1)
    assert "1 of 2 trials finished" in capfd.readouterr().out


def test_run_raises_what_the_command_says(here: Path) -> None:
    with pytest.raises(sweep.CommandError, match=r"^adapter\.rnk: unknown key; did you mean adapter\.rank\?$"):
        sweep.run("adapter.rnk=4", name="refused")
    assert not (here / "outputs").exists()


@pytest.mark.slow
@pytest.mark.torture
def test_run_interrupted_leaves_what_is_finished_and_needs_no_guard(here: Path) -> None:
    (here / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": PATH}
    with subprocess.Popen(
        [sys.executable, "script.py"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        histories = here / "outputs" / "second"
        end = time.monotonic() + 120
        while not list(histories.glob("*/history.jsonl")) and process.poll() is None:
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    assert "first 2" in said
    assert "KeyboardInterrupt" in errors
    assert "second" not in said.splitlines()[-1]
    assert not list(histories.glob("*/record.json"))
    done = [record.read(folder) for folder in record.trial_folders(here / "outputs" / "first")]
    assert [one is not None and one.status for one in done] == ["finished", "finished"]


def test_screen_keeps_the_number_of_ended_trials_below_the_lines(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for label in ("a-00000000", "b-11111111"):
        (here / "s" / label).mkdir(parents=True)
    screen = child._Screen(here / "s")
    screen.show("planned\n", is_last=False)
    screen.show("", is_last=False)
    (here / "s" / "a-00000000" / "record.json").touch()
    screen.show("", is_last=False)
    screen.show("done\n", is_last=True)
    rows = [row.split("\r")[-1] for row in capsys.readouterr().out.split("\n")]
    assert rows == ["planned", "done", ""]


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("seed", range(3), "seed=0,1,2"),
        ("adapter.rank", 8, "adapter.rank=8"),
        ("optimizer.lr", [1e-4, 0.001], "optimizer.lr=0.0001,0.001"),
        ("save_adapter", True, "save_adapter=true"),
        ("pruning", None, "pruning=null"),
        ("adapter.init", ["kaiming", "pissa"], "adapter.init=kaiming,pissa"),
        ("adapter.targets", "[q_proj,v_proj]", "adapter.targets=[q_proj,v_proj]"),
        ("task.target_text", "my texts/it's.txt", r"task.target_text='my texts/it\'s.txt'"),
    ],
)
def test_assignment_is_a_word_of_the_command_line(key: str, value: object, word: str) -> None:
    assert child.assignment(key, value) == word  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["my texts/it's.txt", "a\\b c", "ends in \\", "\\' both", "50 %"])
def test_assignment_of_a_text_is_that_text_to_hydra(text: str) -> None:
    parsed = OverridesParser.create().parse_override(child.assignment("key", text))
    assert str(parsed.value()) == text
