"""Two launches never train one trial: locks between processes, and what happens when their owner is killed."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweep.claim import claim, claimed, wait_for
from sweep.engines.options import LaunchOptions
from sweep.launch.launch import run
from sweep.store.store import Store
from tests.support.commands import ROOT, history, resolved, untimed
from tests.support.sweeps import launched
from tests.support.sweeps import wait_for as wait_until

A, B, C = "a" * 16, "b" * 16, "0123456789abcdef"
HOLDER = """
import sys, time
from pathlib import Path
from sweep.claim import claim
with claim(Path(sys.argv[1]), sys.argv[2:]) as ours:
    print(*sorted(ours), flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holding(folder: Path, *trial_ids: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds ``trial_ids`` until it is killed or gets a line."""
    line = [sys.executable, "-c", HOLDER, str(folder), *trial_ids]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == sorted(trial_ids)
        yield process
        process.kill()


def test_claim_has_one_owner_until_that_is_killed(tmp_path: Path) -> None:
    with holding(tmp_path, A, B) as other:
        with claim(tmp_path, [A, C]) as ours:
            assert ours == {C}
        assert claimed(tmp_path, [A, B, C]) == {A, B}
        other.kill()
        other.wait()
        with claim(tmp_path, [A, C]) as ours:
            assert ours == {A, C}
    assert claimed(tmp_path, [A, B, C]) == set()
    assert claimed(tmp_path / "none", [A]) == set()


def test_wait_for_ends_when_the_owner_does(tmp_path: Path) -> None:
    with holding(tmp_path, A) as other:
        waiter = (
            "import sys; from pathlib import Path; from sweep.claim import wait_for; "
            "wait_for(Path(sys.argv[1]), sys.argv[2:])"
        )
        with subprocess.Popen([sys.executable, "-c", waiter, str(tmp_path), A], cwd=ROOT) as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.5)
            other.kill()
            assert waiting.wait(10) == 0
    wait_for(tmp_path, [A, B])


def test_claim_of_thousands_needs_one_open_file(tmp_path: Path) -> None:
    many = [f"{number:016x}" for number in range(5000)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    with claim(tmp_path, many) as ours:
        assert len(ours) == 5000
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 1


OTHER_LAUNCH = """
import sys, threading, time
from pathlib import Path
from sweep.packs import train_pack as train
from sweep.engines.options import LaunchOptions
from sweep.launch.launch import run
from sweep.store.store import Store
from tests.support.commands import resolved
own = train.run_pack
def slow(pack, *rest):
    print("training", len(pack), flush=True)
    sys.stdin.readline()
    return own(pack, *rest)
train.run_pack = slow
folder = Path(sys.argv[1])
run(resolved(*sys.argv[2:], cache=folder), Store(folder / "sweep", None), LaunchOptions(workers=1))
"""


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_launch_awaits_or_takes_over_what_another_trains(dies: bool, tmp_path: Path) -> None:
    store = Store(tmp_path / "sweep", None)
    wanted = resolved("seed=0", "seed=1", "seed=2", cache=tmp_path)
    alone = run(wanted, Store(tmp_path / "alone", None), LaunchOptions(workers=1))
    line = [sys.executable, "-c", OTHER_LAUNCH, str(tmp_path), "seed=1", "seed=2"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "training 2\n"
        theirs = store.trial_folder(wanted[1]) / "history.jsonl"
        file = theirs.stat().st_ino

        class WaitsOnce(Store):
            def wait_for(self, waited: object) -> None:
                assert waited == wanted[1:]
                assert (self.trial_folder(wanted[0]) / "record.json").exists()
                if dies:
                    other.kill()
                else:
                    other.stdin.write("\n")  # type: ignore[union-attr]
                    other.stdin.flush()  # type: ignore[union-attr]
                super().wait_for(waited)  # type: ignore[arg-type]

        found = run(wanted, WaitsOnce(store.folder, None), LaunchOptions(workers=1))
        assert other.wait(60) == (-9 if dies else 0)
    assert [untimed(one) for one in found] == [untimed(one) for one in alone]
    for trial in wanted:
        assert history(store.trial_folder(trial)) == history(tmp_path / "alone" / trial.label)
    attempts = (store.trial_folder(wanted[1]) / "trial.log").read_text().count("in a pack of")
    assert attempts == (2 if dies else 1)
    assert (theirs.stat().st_ino == file) == (not dies)  # who begins a trial begins a new file


def test_claim_made_twice_at_once_is_not_split(tmp_path: Path) -> None:
    slow = (
        "import sys, time; from pathlib import Path; from sweep.claim import claim\nids = "
        "(time.sleep(0.5) or print(one, flush=True) or one for one in sys.argv[2:])\nwith "
        "claim(Path(sys.argv[1]), ids) as ours: sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", slow, str(tmp_path), A, B],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == f"{A}\n"
        with claim(tmp_path, [A, B]) as ours:
            assert ours == set()
        other.kill()


@pytest.mark.slow
@pytest.mark.torture
def test_launch_whose_lock_file_was_deleted_leaves_its_trial_to_the_second(tmp_path: Path) -> None:
    arguments = (
        "-m",
        "task=toy_regression",
        "training.steps=2000",
        "training.eval_every=1000",
        "tracker=none",
        "name=s",
    )

    def begun() -> list[int]:
        """The inode of each history that has rows."""
        return [path.stat().st_ino for path in tmp_path.glob("outputs/s/*/history.jsonl") if path.stat().st_size]

    with launched(tmp_path, *arguments) as first:
        wait_until(begun)
        first.send_signal(signal.SIGSTOP)  # it is still training when the second begins
        [stopped] = begun()
        (tmp_path / "outputs/s/.lock").unlink()
        with launched(tmp_path, *arguments) as second:
            wait_until(lambda: begun() not in ([], [stopped]))
            first.send_signal(signal.SIGCONT)
            said = first.communicate(timeout=120)[1]
            assert second.wait(120) == 0
    assert first.returncode == 1
    [line] = said.splitlines()
    assert "another launch has begun" in line
    [folder] = (path.parent for path in tmp_path.glob("outputs/s/*/record.json"))
    steps = [row["step"] for row in history(folder)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 2000
