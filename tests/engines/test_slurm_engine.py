"""What the SLURM engine asks for and what it makes of lost jobs, where SLURM's commands are scripts that say what is told."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.engines.options import LaunchOptions
from sweep.packs.pack import Pack
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store
from tests.support.commands import resolved

pytest.importorskip("submitit", reason="submitit is not installed: pip install lora-sweep[slurm]")
from sweep.engines import slurm

COMMANDS = {
    "srun": "",
    "sinfo": "",
    "sbatch": 'n=$(($(cat jobs 2>/dev/null || echo 0) + 1)); echo $n > jobs; echo "Submitted batch job $n"',
    "squeue": "if [ -e asked ]; then cat queue 2>/dev/null; exit 0; fi; touch asked; exit 1",
    "scontrol": 'echo "JobState=NODE_FAIL"',
    "scancel": 'echo "$@" > cancelled',
}
"""The first time that it is asked, squeue does not answer; then it says what is in the file ``queue``."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the scripts keep what they know."""
    for name, body in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(slurm, "FIRST_POLL_S", 1e-3)
    monkeypatch.setattr(slurm, "LAG_S", 0.0)
    return tmp_path


def engine(**options: object) -> slurm.SlurmEngine:
    return slurm.SlurmEngine(LaunchOptions(engine="slurm", **options))  # type: ignore[arg-type]


@pytest.fixture
def packs(site: Path) -> Callable[..., list[Pack]]:
    def of(*sizes: int, step_s: float = 0.01) -> list[Pack]:
        trials = iter(resolved(*(f"seed={seed}" for seed in range(sum(sizes))), cache=site))
        groups: list[tuple[ResolvedTrial, ...]] = [tuple(next(trials) for _ in range(size)) for size in sizes]
        return [Pack(group, step_s, 1) for group in groups]

    return of


def test_slurm_halves_a_pack_whose_node_was_lost_and_records_what_is_lost_alone(
    site: Path, packs: Callable[..., list[Pack]]
) -> None:
    store = Store(site / "s", None)
    found = [record for batch in engine().run(packs(2), store, None, 2, lambda steps: None) for record in batch]
    assert [one.status for one in found] == ["failed", "failed"]
    for one, job in zip(found, ("2_0", "2_1"), strict=True):
        assert one.error is not None
        assert one.error["message"].startswith(f"SLURM job {job} ended as NODE_FAIL without a result (its log: ")


def test_slurm_records_an_error_of_a_job_and_cancels_the_others_when_it_ends_early(
    site: Path, packs: Callable[..., list[Pack]]
) -> None:
    (site / "queue").write_text("1_0 1_1")
    jobs = site / "s" / "slurm"
    jobs.mkdir(parents=True)
    (jobs / "1_0_0_result.pkl").write_bytes(pickle.dumps(("error", "Traceback: the node has another torch")))
    run = engine().run(packs(1, 1), Store(site / "s", None), None, 2, lambda steps: None)
    [record] = next(run)
    assert record.error is not None
    assert "the node has another torch" in record.error["message"]
    run.close()
    assert (site / "cancelled").read_text() == "1_1\n"


@pytest.mark.parametrize(
    ("options", "step_s", "minutes"), [({"minutes": 7}, 0.01, 7), ({}, float("nan"), 240), ({}, 0.01, 16)]
)
def test_slurm_asks_for_the_time_that_is_told_planned_or_usual(
    options: dict[str, int], step_s: float, minutes: int, site: Path, packs: Callable[..., list[Pack]]
) -> None:
    run = engine(**options).run(packs(1, step_s=step_s), Store(site / "s", None), None, 1, lambda steps: None)
    next(run)
    run.close()
    scripts = [path.read_text() for path in (site / "s" / "slurm").glob("*.sh")]
    assert scripts
    assert all(f"#SBATCH --time={minutes}\n" in script for script in scripts)
