"""Where a pack's rows and records go: each trial's own files, and W&B."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sweep.packs.plugin_trackers import plugin_trackers
from sweep.record import Record
from sweep.resolve import ResolvedTrial
from sweep.samples import Sample
from sweep.store.store import WRITERS, Store, writing
from sweep.trackers.local import LocalTracker
from sweep.trackers.tracker import Tracker
from sweep.training.loop import Rows

if TYPE_CHECKING:
    from sweep.trackers.wandb import Mode, WandbSweep

FLUSH_EVERY_S = 0.5
MIRRORED_ROWS = 25
"""Training losses per trial that are sent to W&B, besides every evaluation; the local history has all of them."""


def tracking_mode(trial: ResolvedTrial) -> "Mode | None":
    """How the launch of ``trial`` is mirrored to W&B, decided once: a server that cannot be reached means offline."""
    match trial.config.tracker.mode:
        case "none":
            return None
        case "offline":
            return "offline"
        case "online":
            from sweep.trackers.wandb import choose_mode

            return choose_mode("online")


def wandb_sweep(trial: ResolvedTrial, store: Store, mode: "Mode | None") -> "WandbSweep | None":
    """The W&B mirror of the launch that ``trial`` belongs to, in this process; None without a mode."""
    if mode is None:
        return None
    from sweep.trackers.wandb import WandbSettings, WandbSweep

    training, config = trial.training, trial.config
    every = max(1, training.steps // training.log_every // MIRRORED_ROWS)
    return WandbSweep(
        WandbSettings(
            folder=store.folder,
            mode=mode,
            group=config.name,
            ablation=store.ablation,
            every=every,
            project=config.tracker.project,
        )
    )


class PackRows:
    """Receives what the trials of one pack report, in the pack's order."""

    def __init__(self, pack: Sequence[ResolvedTrial], store: Store, mirror: "WandbSweep | None"):
        self._pack, self._store, self._folder = pack, store, store.folder
        with writing(self._folder):
            self._local = [LocalTracker(store.trial_folder(trial)) for trial in pack]
        opened = ((trial.id, trial.label, trial.flat(), trial.metrics) for trial in pack)
        self._mirrors = [mirror.open(*arguments) for arguments in opened] if mirror else []
        self._others = plugin_trackers(pack, [store.trial_folder(trial) for trial in pack])
        self._flushed = time.monotonic()

    def note(self, position: int, text: str) -> None:
        """Add a line to the log of one trial."""
        with writing(self._folder):
            self._local[position].note(text)

    def log(self, step: int, rows: Rows) -> None:
        """Take one row of each trial; None is of a trial that has stopped."""
        trackers: Sequence[Sequence[Tracker]] = (self._local, self._mirrors, *self._others)
        for group in trackers:
            for tracker, row in zip(group, rows, strict=False):
                if row is not None:
                    tracker.log(step, row)

    def save_samples(self, position: int, samples: Sequence[Sample]) -> None:
        """Keep what one trained model wrote, in its folder and at W&B."""
        self._store.save_samples(self._pack[position], samples)
        if self._mirrors and samples:
            self._mirrors[position].log_samples(samples)

    def flush(self) -> None:
        """Write waiting rows to disk, if the last write was long enough ago."""
        if time.monotonic() - self._flushed > FLUSH_EVERY_S:
            with writing(self._folder):
                for tracker in self._local:
                    tracker.flush()
            self._flushed = time.monotonic()

    def finish(self, records: Sequence[Record]) -> None:
        """Close the mirrors, then write the records: W&B has been given all rows before a trial counts as finished."""
        if self._mirrors:
            from sweep.trackers.wandb import finish_all

            finish_all(zip(self._mirrors, records, strict=True))
        for others in self._others:
            for other, record in zip(others, records, strict=True):
                other.finish(record)
        with writing(self._folder):
            for tracker in self._local:
                tracker.flush()
        with (
            self._store.write_records_atomically(records),
            ThreadPoolExecutor(WRITERS) as pool,
        ):
            list(pool.map(LocalTracker.finish, self._local, records))

    def abandon(self) -> None:
        """Write what waits and close the mirrors: the launch ends before its trials do."""
        if self._mirrors:
            from sweep.trackers.wandb import abandon_all

            abandon_all(self._mirrors)
        with writing(self._folder):
            for tracker in self._local:
                tracker.flush()
                tracker.note("interrupted")
