"""Packs as SLURM array jobs, by submitit. The sweep's folder and the cache must be shared with the nodes."""

import math
import re
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import submitit

from sweep.engines.cluster import ClusterEngine
from sweep.engines.parcel import Parcel, parcel_of, train_parcel
from sweep.errors import ConfigError
from sweep.packs.pack import Pack
from sweep.packs.train_pack import record_failure
from sweep.record import Record
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store

if TYPE_CHECKING:
    from sweep.trackers.wandb import Mode

MARGIN_MINUTES = 10
SPARE_TIME = 4.0
"""A job asks for this many times the estimated training time, plus the margin for starting and evaluating."""
UNMEASURED_MINUTES = 240
ARRAY_SIZE = 1000
"""Jobs in one array; SLURM's own limit is 1,001 by default."""
FIRST_POLL_S, LAST_POLL_S, SLOWER = 0.5, 15.0, 1.2
LAG_S = 10.0
"""How much later than the end of a job its files may be seen through a network file system."""
FINAL = ("CANCELLED", "TIMEOUT", "DEADLINE")
"""Final states that were requested, or that half a pack would reach as well."""


class JobLostError(RuntimeError):
    """A SLURM job ended without a result: cancelled, out of time or memory, or its node was lost."""

    def __init__(self, job: Any, state: str):
        self.state = state
        hint = "; raise hydra.launcher.minutes, or lower hydra.launcher.max_pack" if state == "TIMEOUT" else ""
        super().__init__(
            f"SLURM job {job.job_id} ended as {state} without a result{hint} (its log: {job.paths.stderr})"
        )


class SlurmEngine(ClusterEngine):
    """Packs as jobs of the SLURM cluster whose ``sbatch`` is on the path."""

    start_s = 20.0

    def connect(self) -> None:
        """Raise ConfigError where SLURM's commands are missing."""
        try:
            _slurm("sinfo", "--version")
        except OSError:
            raise ConfigError(
                ["hydra.launcher.engine = 'slurm': sinfo is missing; launch from a machine that has SLURM's commands"]
            ) from None

    def places(self, trials: Sequence[ResolvedTrial]) -> int:
        """A modest number: how many jobs a user may run is the site's business."""
        return self.assumed_places

    def run(
        self, packs: Sequence[Pack], store: Store, mode: "Mode | None", workers: int, on_steps: Callable[[int], None]
    ) -> Generator[list[Record], None, None]:
        """Train the packs. Jobs go on when the driver is killed; the trials are claimed by the nodes that train them."""
        waiting = self._submit(packs, store, mode, workers)
        gone: dict[str, float] = {}
        poll_s = FIRST_POLL_S
        try:
            while waiting:
                queued = _queued(store)
                ended = [name for name, (job, _) in waiting.items() if job.paths.result_pickle.exists()]
                if queued is not None:
                    now = time.monotonic()
                    gone = {name: gone.get(name, now) for name in waiting.keys() - queued}
                    ended += [name for name, since in gone.items() if name not in ended and now - since > LAG_S]
                for name in ended:
                    job, pack = waiting.pop(name)
                    try:
                        records = _result(job)
                    except JobLostError as error:
                        if (
                            error.state not in FINAL and len(pack.trials) > 1
                        ):  # a single one of its trials may be the cause
                            waiting |= self._submit(pack.halves(), store, mode, workers)
                            continue
                        records = record_failure(pack.trials, store, error)
                    except submitit.core.utils.FailedJobError as error:
                        records = record_failure(pack.trials, store, error)
                    yield records
                    on_steps(len(pack.trials) * pack.steps)
                poll_s = FIRST_POLL_S if ended or gone else min(LAST_POLL_S, SLOWER * poll_s)
                if waiting:
                    time.sleep(poll_s)
        finally:
            if waiting:
                _slurm("scancel", *waiting)

    def _submit(
        self, packs: Sequence[Pack], store: Store, mode: "Mode | None", workers: int
    ) -> dict[str, tuple[Any, Pack]]:
        """Submit the packs, those with equal requests in one array; returns the jobs by their ids."""
        alike: dict[tuple[int, int], list[Pack]] = defaultdict(list)
        for pack in packs:
            alike[self._minutes(pack), _rounded(self.requested_gb(pack))].append(pack)
        jobs: dict[str, tuple[Any, Pack]] = {}
        for (minutes, memory_gb), group in alike.items():
            executor = submitit.AutoExecutor(store.folder.absolute() / "slurm", cluster="slurm")
            gpus = {"gpus_per_node": self._options.gpus} if self._options.gpus else {}
            own = {f"slurm_{key}": value for key, value in self._options.slurm.items()}
            try:
                executor.update_parameters(
                    name=_name(store),
                    timeout_min=minutes,
                    mem_gb=self._options.memory_gb or memory_gb,
                    cpus_per_task=self._options.cpus,
                    slurm_array_parallelism=workers,
                    **gpus,
                    **own,
                )
                for part in _parts(group):
                    submitted = executor.map_array(_on_node, [parcel_of(pack.trials, store, mode) for pack in part])
                    jobs |= {job.job_id: (job, pack) for job, pack in zip(submitted, part, strict=True)}
            except (ValueError, submitit.core.utils.FailedJobError) as error:
                raise ConfigError([f"hydra.launcher: SLURM does not take this job ({error})"]) from None
        return jobs

    def _minutes(self, pack: Pack) -> int:
        if self._options.minutes is not None:
            return self._options.minutes
        if not math.isfinite(pack.seconds):
            return UNMEASURED_MINUTES
        return _rounded(MARGIN_MINUTES + SPARE_TIME * pack.seconds / 60)


def _on_node(parcel: Parcel) -> list[dict[str, Any]]:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # submitit's warning before the time limit; nothing can be saved
    return train_parcel(parcel)


def _result(job: Any) -> list[Record]:
    """The records of a job that has ended. Raises JobLostError, and submitit's FailedJobError with a traceback."""
    if not job.paths.result_pickle.exists():
        shown = _slurm("scontrol", "show", "job", "--oneliner", job.job_id).stdout
        state = re.search(r"JobState=(\w+)", shown)
        raise JobLostError(job, state[1] if state else "unknown")
    return [Record.of(values) for values in job.result()]


def _queued(store: Store) -> set[str] | None:
    """The ids of this sweep's jobs that wait or run; None when the controller does not answer."""
    answer = _slurm("squeue", "--noheader", "--array", "--format=%i", f"--name={_name(store)}")
    return set(answer.stdout.split()) if answer.returncode == 0 else None


def _name(store: Store) -> str:
    return f"lora-sweep-{store.folder.name}"


def _slurm(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _rounded(number: float) -> int:
    """The next power of two, so that packs that ask for nearly the same share an array."""
    return 1 << max(0, math.ceil(math.log2(number)))


def _parts(packs: Sequence[Pack]) -> Iterator[Sequence[Pack]]:
    return (packs[start : start + ARRAY_SIZE] for start in range(0, len(packs), ARRAY_SIZE))
