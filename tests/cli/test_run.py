"""How a command of the application ends, and what its Hydra may set, in the cases that other tests do not meet."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sweep.cli import app, evaluate, plugins, run
from sweep.cli.foreign import check_values
from sweep.cli.sweep_size import check_sweep_size
from sweep.errors import ConfigError
from tests.support.commands import TOY, hydra_loader


@pytest.fixture(autouse=True)
def no_hydra_is_left() -> Iterator[None]:
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the command line in this process, in a folder of its own; returns what it exits with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # as it is afterwards, too

    def end(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
        with pytest.raises(SystemExit) as caught:
            run.run()
        return str(caught.value.code)

    return end


def test_run_stops_a_sweep_of_which_too_many_trials_fail(ended: Callable[..., str]) -> None:
    assert ended("-m", *TOY, "optimizer.lr=1e30", "hydra.launcher.max_failures=0") == (
        "lora-sweep: stopped: 1 trial failed, and max_failures=0; the last error was: "
        "the loss was NaN or infinite at step 2"
    )


def test_run_shows_where_an_error_was_raised_on_request(
    ended: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    said = ended(*TOY, "seed=-1")
    assert said.startswith("Traceback")
    assert "seed = -1: must be greater than or equal to 0\n" in said


def test_run_leaves_a_closed_output_to_its_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sys, "argv", ["sweep", *TOY, "--cfg", "job"])
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        run.run()


def test_remove_hydras_file_leaves_what_others_have_beside_it(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "outputs" / "mine", tmp_path / "outputs" / "theirs"
    for folder in (mine, theirs):
        folder.mkdir(parents=True)
        (folder / "multirun.yaml").touch()
    (theirs / "record.json").touch()
    for folder in (mine, theirs):
        app.remove_hydras_file(folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["multirun.yaml", "outputs", "record.json", "theirs"]


def test_evaluate_needs_a_number_of_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([str(tmp_path), "--examples", "0"])
    assert "argument --examples: 0 is not a number of examples" in capsys.readouterr().err


def test_plugins_lists_ours_where_no_other_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plugins, "installed", tuple)
    assert plugins.main([]) == 0
    assert [line.split(" | ")[1].strip() for line in capsys.readouterr().out.splitlines()[2:4]] == [
        "kaiming",
        "gaussian",
    ]


def test_check_values_takes_the_two_directions_of_a_search() -> None:
    file, folder = Path("own/a.yaml"), Path("own")
    for direction in ("minimize", "maximize"):
        check_values({"hydra": {"sweeper": {"direction": direction}}}, file, folder)
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.direction = 'sideways': a file may not set this"):
        check_values({"hydra": {"sweeper": {"direction": "sideways"}}}, file, folder)


def test_check_sweep_size_leaves_what_cannot_be_read_to_hydra() -> None:
    own = {
        "runtime": {"choices": {"hydra/sweeper": "basic"}},
        "sweeper": {"params": {"seed": "range(0"}},
        "overrides": {"task": []},
    }
    check_sweep_size(OmegaConf.create({"hydra": own}), OverridesParser.create())


def test_quick_loader_answers_for_the_rest_as_hydras_own() -> None:
    from hydra_plugins.lora_sweep.quick_loader import QuickLoader

    with hydra_loader() as loader:
        assert QuickLoader(loader).get_search_path() is loader.get_search_path()
