"""What leaves for a terminal or a record: no control characters, no secrets, no paths of this machine, no traceback."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sweep.text import PrintableRecord, counted, failure, masked, reason, run_command, say, without_home
from tests.support.commands import PATH, TOY, records, sweep, tree

SECRET = "hf_canary-5ecret"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment variables that hold secrets, one of them a part of another, and some that do not."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("OTHER_API_KEY", f"{SECRET}-longer")
    monkeypatch.setenv("DB_PASSWORD", "correct horse")
    monkeypatch.setenv("my_secret", "battery staple")
    monkeypatch.setenv("SHORT_KEY", "loss")
    monkeypatch.setenv("KEYBOARD", "ordinary text")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"401 for {SECRET}!", "401 for $HF_TOKEN!"),
        (f"{SECRET}-longer", "$OTHER_API_KEY"),
        ("correct horse battery staple", "$DB_PASSWORD $my_secret"),
        ("eval/loss of ordinary text", "eval/loss of ordinary text"),
    ],
)
def test_masked_names_the_variable_in_place_of_its_value(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    ("home", "text", "expected"),
    [
        ("/home/me", "dir: /home/me/work\ncwd: /home/me\n", "dir: ~/work\ncwd: ~\n"),
        ("/home/me", "/home/me2 /home/me.old /home/me-x", "/home/me2 /home/me.old /home/me-x"),
        ("/", "dir: /work", "dir: /work"),
    ],
)
def test_without_home(home: str, text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert without_home(text) == expected


def test_failure_holds_neither_secrets_nor_paths_of_this_machine() -> None:
    def fails() -> None:
        Path(f"/nowhere/{SECRET}").stat()

    with pytest.raises(OSError, match="nowhere") as raised:
        fails()
    found = failure(raised.value)
    assert found["type"] == "FileNotFoundError"
    assert found["message"] == "[Errno 2] No such file or directory: '/nowhere/$HF_TOKEN'"
    assert re.search(r'File "(tests/)?test_text.py", line \d+, in fails', found["traceback"])
    assert SECRET not in found["traceback"]
    assert str(Path(__file__).parent) not in found["traceback"]


def test_failure_names_packages_relative_to_where_they_are_installed() -> None:
    with pytest.raises(yaml.YAMLError) as raised:
        yaml.safe_load("{")
    assert 'File "yaml/' in failure(raised.value)["traceback"]


def test_say_escapes_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a\x1b[31mb\rc\n  d\x9b\u202e {SECRET}")
    assert capsys.readouterr().out == "a\\x1b[31mb\\rc\n  d\\x9b\\u202e $HF_TOKEN\n"


def test_log_lines_are_fit_for_a_terminal() -> None:
    record = PrintableRecord("sweep", logging.INFO, "x.py", 1, "%s of\n%s", ("\x1b]0;x\x07", SECRET), None)
    assert record.getMessage() == "\\x1b]0;x\\x07 of\n$HF_TOKEN"


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which ``$SWEEP`` is our command; the exit codes of a pipe's parts come last."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "HYDRA_"))}
    env = kept | {"PYTHONPATH": PATH, "SWEEP": f"{sys.executable} -m sweep", "OMP_NUM_THREADS": "1"} | environment
    command = ["bash", "-c", f"{line}; echo ${{PIPESTATUS[@]}} >&2"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of one trial, a folder with a hostile name, and one of a trial that never was finished."""
    folder = tmp_path_factory.mktemp("finished")
    sweep(*TOY, "name=one", cwd=folder)
    (folder / "outputs/one/\x1b[31m\nred±-01234567").mkdir()
    return folder


def test_status_prints_no_control_characters(finished: Path) -> None:
    done = shell("$SWEEP status outputs/one", finished)
    assert done.stderr == "1\n"
    assert "\\x1b[31m\\nred±-01234567" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("line", "encoding", "codes", "says"),
    [
        ("$SWEEP status outputs/one | true", "utf-8", "141 0", []),
        (
            "$SWEEP status outputs/one > /dev/full",
            "utf-8",
            "1",
            ["lora-sweep: standard output: No space left on device"],
        ),
        ("$SWEEP status outputs/one >&-", "utf-8", "1", []),
        ("$SWEEP status outputs/one > /dev/null", "latin-1", "1", []),
        ("$SWEEP status outputs/one > /dev/null", "ascii", "1", []),
        ("$SWEEP sync outputs/one > /dev/full", "utf-8", "2", ["lora-sweep: outputs/one holds no W&B runs"]),
    ],
)
def test_run_command_exits_as_other_tools_do(
    line: str, encoding: str, codes: str, says: list[str], finished: Path
) -> None:
    assert shell(line, finished, PYTHONIOENCODING=encoding).stderr.splitlines() == [*says, codes]


@pytest.mark.slow
@pytest.mark.parametrize(("pipe", "codes"), [("| true", "141 0"), ("> /dev/full", "1")])
def test_run_command_lets_a_sweep_finish_when_nobody_reads_its_log(pipe: str, codes: str, tmp_path: Path) -> None:
    done = shell(f"$SWEEP {' '.join(TOY)} name=piped {pipe}", tmp_path, PYTHONIOENCODING="latin-1")
    assert done.stderr.splitlines()[-1] == codes
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr
    [one] = records(tmp_path / "outputs/piped").values()
    assert one.finished


@pytest.mark.parametrize("launcher", ["packed", "basic"])
def test_files_of_hydra_do_not_name_the_home_folder(launcher: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    work = home / "work"
    work.mkdir(parents=True)
    sweep("-m", *TOY, "name=s", f"hydra/launcher={launcher}", f"cache={home}/cache", cwd=work, HOME=str(home))
    written = [work / path for path in tree(work) if path.endswith(".yaml")]
    assert len(written) == 4
    for path in written:
        assert str(home) not in path.read_text(), path
    assert any("cache: ~/cache" in path.read_text() for path in written)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.json"), "No such file or directory"),
        (OSError("no number"), "no number"),
        (ValueError("not JSON"), "not JSON"),
    ],
)
def test_reason_is_what_an_error_says_without_its_file(error: Exception, says: str) -> None:
    assert reason(error) == says


def test_run_command_raises_what_concerns_a_file_and_not_the_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(logging.Handler, "handleError", logging.Handler.handleError)  # both are put back afterwards
    before = logging.getLogRecordFactory()
    try:
        with pytest.raises(FileNotFoundError, match="missing"):
            run_command(lambda: len((tmp_path / "missing").read_bytes()), "lora-sweep")
    finally:
        logging.setLogRecordFactory(before)


def test_counted_is_plural_of_all_but_one() -> None:
    assert [counted(number, "trial") for number in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
