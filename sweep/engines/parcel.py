"""A pack as plain values, which another process or machine can read, check again and train."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.config import parse
from sweep.hardware import threads
from sweep.packs.rows import wandb_sweep
from sweep.packs.train_pack import train_pack
from sweep.registry import INITS, TASKS, TRACKERS, Plugin, installed
from sweep.resolve import ResolvedTrial, resolve
from sweep.store.store import Store

if TYPE_CHECKING:
    from sweep.trackers.wandb import Mode

Parcel = dict[str, Any]
"""``sweep`` (the folder), ``ablation``, ``mode`` (of the W&B mirror), ``configs`` and ``trial_ids`` of the trials,
and ``plugins``: the identities of those that they need."""


def parcel_of(pack: Sequence[ResolvedTrial], store: Store, mode: "Mode | None") -> Parcel:
    """The parcel that ``train_parcel`` trains in the sweep's folder, its paths being absolute."""
    return {
        "sweep": str(store.folder.absolute()),
        "ablation": store.ablation,
        "mode": mode,
        "configs": [_at_absolute_paths(trial) for trial in pack],
        "trial_ids": [trial.id for trial in pack],
        "plugins": sorted({plugin.identity for trial in pack for plugin in plugins_of(trial)}),
    }


def train_parcel(parcel: Parcel) -> list[dict[str, Any]]:
    """Train a parcel here; returns its records as plain values, except those of trials that another process trains.

    Raises:
        RuntimeError: the data or the code here would make other trials; a plug-in is not installed.
        UnwritableError: the sweep's folder takes no more.

    """
    require_plugins(parcel["plugins"])
    trials = [resolve(parse(config)) for config in parcel["configs"]]
    if [trial.id for trial in trials] != parcel["trial_ids"]:
        raise RuntimeError(
            "this node would train other trials: its data or its version of lora-sweep are not the launch's"
        )
    store = Store(Path(parcel["sweep"]), parcel["ablation"])
    mirror = wandb_sweep(trials[0], store, parcel["mode"])
    with threads(1):  # the other cores of a node may be for other packs
        records = train_pack(trials, store, mirror, lambda steps: None)
    return [asdict(record) for record in records]


def plugins_of(trial: ResolvedTrial) -> list[Plugin]:
    """The plug-ins that ``trial`` needs."""
    named = [TASKS.plugin(trial.task.name), INITS.plugin(trial.adapter.init or "")]
    named += [TRACKERS.plugin(name) for name in trial.config.tracker.also]
    return [*(plugin for plugin in named if plugin), *trial.layer_metrics.usable]


def require_plugins(needed: Sequence[str]) -> None:
    """Raise RuntimeError for the first of the plug-ins ``needed`` that is not installed here as at the launch."""
    here = {plugin.identity: plugin for plugin in installed()}
    for identity in needed:
        package, version, _ = identity.split(" ")
        others = [plugin.version for plugin in here.values() if plugin.package == package]
        if identity not in here:
            has = f"has {package} {others[0]} with other code" if others else f"lacks {package}"
            raise RuntimeError(
                f"this node {has}; install the plug-in {package} {version} of the launch there, as with: "
                f"pip install {package}=={version}"
            )


def _at_absolute_paths(trial: ResolvedTrial) -> dict[str, Any]:
    values = trial.config.model_dump()
    values["cache"] = str(trial.cache_folder.absolute())
    for name in trial.config.task.own_paths():
        values["task"][name] = str(Path(values["task"][name]).absolute())
    return values
