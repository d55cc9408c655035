"""What the application does once, and what a dry run does not do at all."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from sweep import resolve as resolve_module
from sweep.cli import app, run
from sweep.engines.choose import ENGINES
from tests.support.commands import TOY, command

SWEEP = ("-m", *TOY, "training.steps=2", "training.eval_every=null", "seed=range(3)")


@pytest.fixture(autouse=True)
def no_hydra_is_left() -> Iterator[None]:
    yield
    GlobalHydra.instance().clear()


@pytest.mark.parametrize("launcher", ["packed", "basic"])
def test_application_parses_and_resolves_each_trial_once(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"parse": 0, "resolve": 0}

    def counted(name: str, own: object) -> object:
        def call(*arguments: object) -> object:
            calls[name] += 1
            return own(*arguments)  # type: ignore[operator]

        return call

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "parse", counted("parse", app.parse))
    monkeypatch.setattr(resolve_module, "resolve", counted("resolve", resolve_module.resolve))
    monkeypatch.setattr(sys, "argv", ["sweep", *SWEEP, f"hydra/launcher={launcher}"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # as it is afterwards, too
    run.run()
    assert len(list(tmp_path.glob("outputs/*/*/record.json"))) == 3
    assert calls == {"parse": 3, "resolve": 3}


WITHOUT_SOCKETS = """
import socket, sys

def refuse(*arguments, **settings):
    raise AssertionError("a dry run opens a socket")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refuse
from sweep.__main__ import main
main()
"""


@pytest.mark.parametrize("engine", ENGINES.names)
def test_dry_run_opens_no_socket_and_needs_no_cluster(engine: str, tmp_path: Path) -> None:
    for name in {"ray": ["ray"], "slurm": ["submitit"]}.get(engine, []):
        pytest.importorskip(name)
    (tmp_path / "dry.py").write_text(WITHOUT_SOCKETS)
    arguments = ["--dry-run", *TOY, "seed=0,1", f"hydra.launcher.engine={engine}"]
    done = command("dry", *arguments, cwd=tmp_path, RAY_ADDRESS="127.0.0.1:1", PATH="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert "2 to train" in done.stdout
    assert "1 pack, 1 at once" in done.stdout
    assert not (tmp_path / "outputs").exists()
