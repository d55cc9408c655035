"""Prepare the process that workers are forked from."""

import multiprocessing
from multiprocessing import forkserver

WORTH_IT = 8
"""Number of trials above which this begins early, while the launch validates and plans."""
IMPORTED_BY_A_RUN = ["wandb.sdk.launch.inputs.internal"]
"""What wandb imports when its first run opens, half a second of it; names that it no longer has are skipped."""


def warm_up(mirrored: bool) -> None:
    """Begin to import what workers need, once, in the process that all of them are forked from.

    Nothing happens where it has begun already. This module itself imports nothing heavy. ``mirrored`` says whether the
    workers will need W&B.
    """
    modules = ["sweep.packs.train_pack", *(["sweep.trackers.wandb", *IMPORTED_BY_A_RUN] if mirrored else [])]
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
    forkserver.ensure_running()


def wait_until_warm() -> None:
    """Wait for what ``warm_up`` began: a process forked from there starts after it."""
    process = multiprocessing.get_context("forkserver").Process()
    process.start()
    process.join()
