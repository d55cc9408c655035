"""The application that Hydra runs: each trial is resolved once, all are trained together, every job finds its record."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, read_write

from sweep.config import check_name, parse
from sweep.engines.options import LaunchOptions
from sweep.engines.warm_up import WORTH_IT, warm_up
from sweep.errors import ConfigError
from sweep.files import replace_file
from sweep.record import Record
from sweep.text import say, without_home

if TYPE_CHECKING:
    from sweep.resolve import ResolvedTrial
    from sweep.store.store import Store

log = logging.getLogger("sweep")


class TrialFailedError(RuntimeError):
    """A trial did not finish; its record says why."""


class Application:
    """Hydra's task function, with the ``prepare`` hook of the packed launcher."""

    def __init__(self) -> None:
        self._last: tuple[dict[str, Any], ResolvedTrial] | None = None
        self._records: dict[Path, Record] = {}
        self._trained: list[ResolvedTrial] = []
        self._stores: dict[Path, Store] = {}
        self._folders: set[Path] = set()

    def __call__(self, config: DictConfig) -> float | None:
        """Train one trial, or find its record, and return ``eval/loss``."""
        folder = Path(HydraConfig.get().runtime.output_dir)
        record = self._records.get(folder) or self._train_alone(config, folder)
        if not record.healthy:
            assert record.error is not None
            where = os.path.relpath(folder / "trial.log")
            raise TrialFailedError(f"{folder.name} {record.status}: {record.error['message']} (see {where})")
        return record.result.get("eval/loss")

    def prepare(self, configs: Sequence[DictConfig]) -> list[int]:
        """Check every trial, then train them all; return the position of the first equal trial of each.

        Raises ConfigError with every fault of every trial, before anything has started.
        """
        launcher = configs[0].hydra.launcher
        here = launcher.engine == "local" and launcher.workers != 1 and not launcher.dry_run
        if here and len(configs) > WORTH_IT:
            warm_up(mirrored=OmegaConf.select(configs[0], "tracker.mode") != "none")
        trials = self._resolve_all(configs)
        if launcher.dry_run:
            show_plan(trials, options_of(configs[0].hydra.launcher))
        folders = []
        by_sweep: dict[Path, list[ResolvedTrial]] = {}  # more than one where the name itself is swept
        for trial, config in zip(trials, configs, strict=True):
            with read_write(config.hydra.sweep):
                config.hydra.sweep.subdir = trial.label
            sweep = Path(config.hydra.sweep.dir).absolute()
            by_sweep.setdefault(sweep, []).append(trial)
            folders.append(sweep / trial.label)
        for sweep, own in by_sweep.items():
            strip_home(sweep / "multirun.yaml")
            self._trained += own
            records = self._train_packed(own, sweep, configs[0].hydra)
            self._records |= {sweep / trial.label: record for trial, record in zip(own, records, strict=True)}
        first: dict[Path, int] = {}
        for position, folder in enumerate(folders):
            first.setdefault(folder, position)
        return [first[folder] for folder in folders]

    def explained(self, error: Exception) -> str:
        """The message of a search in which no proposal finished; otherwise an empty string."""
        rates = sorted({trial.optimizer.lr for trial in self._trained if trial.adapter.kind != "none"})
        if "No trials are completed yet" not in str(error) or not rates:
            return ""
        return (
            f"none of {len(self._trained)} proposals finished, at learning rates from {rates[0]:g} to {rates[-1]:g}; "
            "lower the range of optimizer.lr"
        )

    def trial_folder(self, *, _root_: DictConfig) -> str:
        """The resolver ``${trial_folder:}``: the folder name of the trial that this configuration describes."""
        return self._resolve(_root_).label

    def sweep_folder(self, name: str) -> str:
        """The resolver ``${sweep_folder:…}``: where the sweep of this name lives."""
        folder = folder_of(name)
        self._folders.add(Path(folder))
        return folder

    def clean_up(self) -> None:
        """Remove Hydra's files of sweeps in which nothing was started."""
        for folder in self._folders:
            remove_hydras_file(folder)

    def _resolve(self, config: DictConfig) -> "ResolvedTrial":
        """The trial that a composed configuration describes. Raises ConfigError.

        Hydra asks for the name of a trial's folder, then for its result: the trial is resolved for the first of them.
        """
        from sweep.resolve import resolve

        values = plain(config)
        if self._last is None or self._last[0] != values:
            self._last = values, resolve(parse(values))
        return self._last[1]

    def _resolve_all(self, configs: Sequence[DictConfig]) -> "list[ResolvedTrial]":
        trials: list[ResolvedTrial] = []
        faults: dict[str, list[int]] = {}
        for number, config in enumerate(configs):
            try:
                trials.append(self._resolve(config))
            except ConfigError as error:
                for fault in error.faults:
                    faults.setdefault(fault, []).append(number)
        if faults and len(configs) == 1:
            raise ConfigError(list(faults))
        if faults:
            lines = [f"{fault} (in {len(numbers)} of {len(configs)} trials)" for fault, numbers in faults.items()]
            raise ConfigError(["nothing was started:", *lines])
        return trials

    def _train_alone(self, config: DictConfig, folder: Path) -> Record:
        from sweep.launch.launch import run
        from sweep.store.store import Store

        strip_home(folder.parent / "multirun.yaml", *(folder / ".hydra").glob("*.yaml"))
        store = Store(folder.parent, HydraConfig.get().runtime.choices.get("ablation"))
        [record] = run([self._resolve(config)], store, LaunchOptions(speed="off"))  # other jobs may train beside it
        if record.finished:
            log.info("%s: eval/loss %.4f", os.path.relpath(folder), record.result["eval/loss"])
        return record

    def _train_packed(self, trials: "Sequence[ResolvedTrial]", folder: Path, hydra_node: DictConfig) -> list[Record]:
        """Train the trials of one sweep and say how it ended. Raises TrialFailedError where too many failed."""
        from sweep.launch.launch import TooManyFailuresError, run
        from sweep.store.store import Store

        if folder not in self._stores:  # a search asks in batches
            self._stores[folder] = Store(folder, hydra_node.runtime.choices.get("ablation"))
        store = self._stores[folder]
        try:
            records = run(trials, store, options_of(hydra_node.launcher))
        except TooManyFailuresError as error:
            raise TrialFailedError(str(error)) from None
        distinct = {trial.label: record for trial, record in zip(trials, records, strict=True)}
        where = os.path.relpath(folder)
        for label, record in distinct.items():
            if record.error and len(distinct) > 1:
                log.warning("%s %s: %s", label, record.status, record.error["message"])
        finished = sum(record.finished for record in distinct.values())
        healthy = sum(record.healthy for record in distinct.values())
        pruned = f", {healthy - finished} were pruned" if healthy > finished else ""
        log.info(
            "%d of %d trials finished%s; see them with: python -m analysis %s", finished, len(distinct), pruned, where
        )
        return records


def plain(config: DictConfig) -> dict[str, Any]:
    """The values of a composed configuration, every interpolation resolved, without Hydra's own."""
    own = {str(key): value for key, value in config.items() if key != "hydra"}
    return {
        key: OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value
        for key, value in own.items()
    }


def folder_of(name: str) -> str:
    """Where the sweep of this name lives. Raises ConfigError for a name that cannot be a folder's."""
    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError([f"name = {name!r}: {error}"]) from None
    return f"outputs/{name}"


def strip_home(*files: Path) -> None:
    """Replace the user's home folder by ``~`` in files that Hydra wrote."""
    for file in files:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if text != (short := without_home(text)):
            replace_file(file, short.encode())


def remove_hydras_file(folder: Path) -> None:
    """Remove the ``multirun.yaml`` that Hydra wrote for a rejected sweep, where there is nothing else."""
    if [path.name for path in folder.glob("*")] == ["multirun.yaml"]:
        (folder / "multirun.yaml").unlink()
        folder.rmdir()
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def show_plan(trials: "Sequence[ResolvedTrial]", options: LaunchOptions) -> NoReturn:
    """Print what each sweep would train, and exit."""
    from sweep.launch.plan import describe, make_plan
    from sweep.store.store import Store

    for name in dict.fromkeys(trial.config.name for trial in trials):
        own = [trial for trial in trials if trial.config.name == name]
        store = Store(Path(folder_of(name)), ablation=None)
        say(f"{store.folder}: {describe(make_plan(own, store, options), own)}")
    sys.exit(0)


def options_of(launcher: DictConfig) -> LaunchOptions:
    """The settings of the packed launcher; the plan of a launch refuses invalid ones."""
    values: Any = OmegaConf.to_container(launcher)
    return LaunchOptions(**{name: values[name] for name in LaunchOptions.names()})
