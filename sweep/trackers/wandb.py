"""The W&B mirror: one W&B run per trial, written offline unless the user asks for more.

The local record is the truth. Whatever goes wrong here costs one warning line and the rest of that trial's
mirror, never the trial; every wait is bounded.
"""

import errno
import logging
import os
import re
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import wandb

from sweep.metrics import Better, Metric
from sweep.record import Record
from sweep.samples import SAMPLES_FILE, Sample
from sweep.trackers.tracker import Row
from sweep.wandb_log import RESULT, SUPERSEDED

Mode = Literal["offline", "online"]

PROJECT = "lora-sweep"
STEP = "step"
SAMPLES = "samples"
ATTEMPT_BYTES = 3
ANSWER_SECONDS = 10
"""How long ``wandb.login`` waits for the server, unless WANDB_HTTP_TIMEOUT says otherwise."""
FINISH_SECONDS = 30
"""How long the upload of one run may take after its last row."""

LEAN = {
    # W&B records the host name, the program's arguments, the git remote and the console text by default.
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "host": "redacted",
    "program": PROJECT,
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "finish_timeout": FINISH_SECONDS,
    "finish_timeout_raises": True,
    "init_timeout": 20,
    "silent": True,
    "symlink": False,
    "use_dot_wandb": False,
    "x_transaction_log_flush_interval": 1.0,
}

log = logging.getLogger(__name__)
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb-core reads it when it starts


SUMMARIES: dict[Better | None, str | None] = {"higher": "max,last", "lower": "min,last", None: None}
"""What W&B keeps of a metric in a run's summary, by which way it is better."""


@dataclass(frozen=True)
class WandbSettings:
    """What the runs of a sweep share.

    They are written under ``folder/wandb``, where ``folder`` is the sweep's; ``mode`` is what ``choose_mode``
    returned, ``group`` the sweep's name. ``ablation``, where there is one, becomes a tag and a config key. Of every
    ``every`` rows the first is mirrored, and each row with an ``eval/`` metric.
    """

    folder: Path
    mode: Mode
    group: str
    ablation: str | None
    every: int
    project: str = PROJECT


class WandbTracker:
    """Mirrors one trial as a W&B run.

    ``name`` is the trial's readable name. ``config`` is the trial as flat plain values,
    ``{"adapter.rank": 8, "seed": 0}``. ``metrics`` say which way is better: a run's summary holds the best and the
    last logged value of those that have a direction. ``lost`` turns true when W&B failed this trial.

    ``trial_id`` is a config key and the beginning of the run's id, to which each attempt adds some random
    letters: W&B appends the rows of a second run to a first one of the same id, and two sweeps may hold the
    same trial. Local files of an earlier attempt are set aside.
    """

    def __init__(
        self,
        settings: WandbSettings,
        trial_id: str,
        name: str,
        config: Mapping[str, Any],
        metrics: Iterable[Metric],
    ) -> None:
        self._name, self._settings = name, settings
        self._better = {metric.name: metric.better for metric in metrics}
        self._rows = 0
        self._defined: set[str] = set()
        self._run: wandb.Run | None = None
        self.lost = False
        with self._mirroring("open"):
            settings.folder.mkdir(parents=True, exist_ok=True)  # wandb would silently write to /tmp instead
            refuse_links(settings.folder / "wandb", settings.folder / "wandb" / SUPERSEDED)
            set_aside(settings.folder, trial_id)
            self._run = wandb.init(
                project=settings.project,
                dir=settings.folder,
                mode=settings.mode,
                id=f"{trial_id}-{secrets.token_hex(ATTEMPT_BYTES)}",
                name=name,
                group=settings.group,
                job_type="trial",
                tags=[settings.ablation] if settings.ablation else None,
                config={**config, "trial_id": trial_id, "ablation": settings.ablation},
                reinit="create_new",
                settings=wandb.Settings(**_known(LEAN)),
            )
            logging.getLogger("wandb").setLevel(logging.WARNING)  # or each message of a run is offered to all open runs
            self._run.define_metric(STEP, hidden=True)

    def log(self, step: int, row: Row) -> None:
        """Mirror one row of metrics, with ``step`` (optimizer updates so far) as its x axis."""
        if self._run is None:
            return
        kept = self._rows % self._settings.every == 0 or any(key.startswith("eval/") for key in row)
        self._rows += 1
        if not kept:
            return
        with self._mirroring("log to"):
            for key in row.keys() - self._defined:
                self._run.define_metric(key, step_metric=STEP, summary=SUMMARIES[self._better.get(key)])
                self._defined.add(key)
            self._run.log({STEP: step, **row})

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """Mirror what the trained model wrote as a table, one prompt a row."""
        if self._run is None:
            return
        try:  # wandb keeps a copy of a table in the user's home, which may be closed; the run goes on without it
            rows: list[Iterable[str]] = [list(sample) for sample in samples]
            self._run.log({SAMPLES: wandb.Table(columns=list(Sample._fields), data=rows)})
        except Exception as error:
            log.warning(
                "W&B: no table of the samples of %s (%s); they are in its %s",
                *(self._name, _one_line(error), SAMPLES_FILE),
            )

    def finish(self, record: Record) -> None:
        """Write the record's figures to the run's summary and close it, within ``FINISH_SECONDS``.

        The record's metrics stand under ``result/``: their own names hold the best and the last logged value.
        """
        if self._run is None:
            return
        with self._mirroring("finish"):
            self._run.summary.update(_summary(record))
            self._run.finish(exit_code=0 if record.healthy else 1)
        self._run = None

    def abandon(self) -> None:
        """Close the run of an attempt that will be made again; the next tracker sets its files aside."""
        if self._run is None:
            return
        with self._mirroring("abandon"):
            self._run.finish(exit_code=1)
        self._run = None

    @contextmanager
    def _mirroring(self, doing: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._run = None
            self.lost = True
            log.warning(
                "W&B: could not %s the run of %s (%s); its local record is whole, "
                "and `python -m sweep sync %s` uploads what W&B has of it",
                *(doing, self._name, _one_line(error), self._settings.folder),
            )


class WandbSweep:
    """Opens the trackers of one sweep.

    Once W&B has failed a trial, later ones are written offline: a lost server is waited for once, not once per
    trial.
    """

    def __init__(self, settings: WandbSettings) -> None:
        self._settings = settings
        self._trackers: dict[str, WandbTracker] = {}

    def open(self, trial_id: str, name: str, config: Mapping[str, Any], metrics: Collection[Metric]) -> WandbTracker:
        """Open a trial's tracker; one that is still open from an earlier attempt at it is abandoned."""
        if trial_id in self._trackers:
            self._trackers[trial_id].abandon()
        if any(tracker.lost for tracker in self._trackers.values()):
            self._settings = replace(self._settings, mode="offline")
        tracker = WandbTracker(self._settings, trial_id, name, config, metrics)
        if tracker.lost and self._settings.mode == "online":
            self._settings = replace(self._settings, mode="offline")
            tracker = WandbTracker(self._settings, trial_id, name, config, metrics)
        self._trackers[trial_id] = tracker
        return tracker


def finish_all(outcomes: Iterable[tuple[WandbTracker, Record]]) -> None:
    """Finish many trackers at once: the uploads overlap, so a dead server costs its timeout only once."""
    pairs = list(outcomes)
    with ThreadPoolExecutor(max_workers=len(pairs)) as pool:
        list(pool.map(lambda pair: pair[0].finish(pair[1]), pairs))


def abandon_all(trackers: Sequence[WandbTracker]) -> None:
    """Abandon many trackers at once."""
    with ThreadPoolExecutor(max_workers=len(trackers)) as pool:
        list(pool.map(WandbTracker.abandon, trackers))


def choose_mode(mode: Mode) -> Mode:
    """Decide, before any run is opened, whether the sweep can be mirrored online.

    Asks the server once who owns the API key. The key and the server are found as wandb finds them
    (WANDB_API_KEY, netrc, WANDB_BASE_URL, wandb's settings files). When that fails, one warning says why and
    what to do, and the answer is "offline". Takes ``ANSWER_SECONDS`` at most.
    """
    if mode == "offline":
        return "offline"
    hindrance = obstacle()
    if hindrance is None:
        return "online"
    log.warning(
        "W&B: %s. Continuing offline: nothing is lost, upload later with `python -m sweep sync outputs/<sweep>`",
        hindrance,
    )
    return "offline"


def refuse_links(*folders: Path) -> None:
    """Raise OSError where one of ``folders`` is a symbolic link: nothing is written through it."""
    for folder in folders:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link", str(folder))


def set_aside(folder: Path, trial_id: str) -> None:
    """Move the W&B files of earlier attempts at a trial to ``folder/wandb/superseded``.

    There ``wandb sync`` and the analysis pass over them, so that each trial is found once.
    """
    attempt = re.compile(rf"(offline-)?run-\d+_\d+-{re.escape(trial_id)}-[0-9a-f]{{{2 * ATTEMPT_BYTES}}}")
    for earlier in [path for path in folder.glob(f"wandb/*run-*-{trial_id}-*") if attempt.fullmatch(path.name)]:
        target = folder / "wandb" / SUPERSEDED
        target.mkdir(exist_ok=True)
        earlier.rename(target / earlier.name)


def obstacle() -> str | None:
    """Why the sweep cannot be mirrored online, or None where it can."""
    started = time.monotonic()
    server = "the W&B server"
    try:
        settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
        server = settings.base_url
        if settings.mode != "online":
            return f"WANDB_MODE or wandb's settings say {settings.mode}; `wandb online` changes that"
        if wandb.login(prompt=False, verify=True):
            return None
    except Exception as error:
        if time.monotonic() - started > ANSWER_SECONDS - 1:
            return f"no good answer from {server} in {ANSWER_SECONDS} s (is the network up?)"
        return f"{_one_line(error)} (if the key is wrong: `wandb login --relogin`)"
    return f"no API key for {server}; run `wandb login` or set WANDB_API_KEY"


def server() -> str:
    """The address of the W&B server."""
    return str(wandb.setup().settings.base_url)


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that this version of wandb has: those named ``x_…`` come and go between versions."""
    known = wandb.Settings.model_fields
    return {key: value for key, value in settings.items() if key in known or not key.startswith("x_")}


def _summary(record: Record) -> dict[str, Any]:
    groups = {RESULT: record.result, "params/": record.params, "perf/": record.perf}
    figures = {f"{group}{key}": value for group, values in groups.items() for key, value in values.items()}
    return {"status": record.status, **figures}


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}".removesuffix(": ")
