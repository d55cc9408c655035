"""The command line: ``python -m sweep``. The only file that sees Hydra's DictConfig."""

import atexit
import gc
import logging
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
import hydra._internal.hydra as hydra_internals
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc
from yaml import YAMLError

from sweep import schema
from sweep.door import CheckedLoader, check_files
from sweep.execution.warm_up import WORTH_IT, warm_up
from sweep.messages import readable, unknown_option
from sweep.record import Record
from sweep.schema import ConfigError

if TYPE_CHECKING:
    from sweep.execution.job import Job
    from sweep.execution.runner import Limits

log = logging.getLogger("sweep")
SHORTEST_SECRET = 8
"""Characters of a value of the environment that is hidden in messages."""
FOLLOW_UPS = ("status", "sync")
"""What can be asked about a sweep's folder; each is a module of this package."""

_HERE = Path(__file__).parent
if not (_HERE / "conf").is_dir():  # a bare checkout, where nothing has put the launcher on the path
    sys.path.append(str(_HERE / "_plugin"))
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"


class TrialFailedError(RuntimeError):
    """A trial did not run to its end; its record says why."""


def configured(config: DictConfig) -> schema.Config:
    """Turn a composed configuration into plain validated values. Raises ConfigError."""
    own = {str(key): value for key, value in config.items() if key != "hydra"}
    return schema.parse({key: _plain(value) for key, value in own.items()})


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value


def trial_folder(*, _root_: DictConfig) -> str:
    """The resolver ``${trial_folder:}``: the folder name of the trial that this configuration describes."""
    from sweep.execution.job import job_of

    return job_of(configured(_root_)).trial.label


def sweep_folder(name: str) -> str:
    """The resolver ``${sweep_folder:…}``: where the sweep of this name lives."""
    try:
        schema.check_name(name)
    except ValueError as error:
        raise ConfigError([f"name = {name!r}: {error}"]) from None
    return f"outputs/{name}"


def application() -> Callable[[DictConfig], float | None]:
    """Hydra's task function, with the ``prepare`` hook of the packed launcher."""
    prepared: dict[Path, Record] = {}

    def job(config: DictConfig) -> float | None:
        """Train one trial, or find its record, and return ``eval/loss``."""
        folder = Path(HydraConfig.get().runtime.output_dir)
        record = prepared.get(folder) or _train_alone(config, folder)
        if not record.healthy:
            assert record.error is not None
            where = os.path.relpath(folder / "trial.log")
            raise TrialFailedError(f"{folder.name} {record.status}: {record.error['message']} (see {where})")
        return record.result.get("eval/loss")

    def prepare(configs: Sequence[DictConfig]) -> list[int]:
        """Check every trial, then train them all; return the position of the first equal trial of each.

        Raises ConfigError with every fault of every trial, before anything has started.
        """
        launcher = configs[0].hydra.launcher
        here = launcher.engine == "local" and launcher.workers != 1 and not launcher.dry_run
        if here and len(configs) > WORTH_IT:
            warm_up(mirrored=OmegaConf.select(configs[0], "tracker.mode") != "none")
        try:
            jobs = _checked(configs)
        except ConfigError:
            _leave_nothing(Path(configs[0].hydra.sweep.dir))
            raise
        by_sweep: dict[Path, list[Job]] = {}  # more than one where the name itself is swept
        folders = []
        for job, config in zip(jobs, configs, strict=True):
            with read_write(config.hydra.sweep):
                config.hydra.sweep.subdir = job.trial.label
            sweep = Path(config.hydra.sweep.dir).absolute()
            by_sweep.setdefault(sweep, []).append(job)
            folders.append(sweep / job.trial.label)
        if launcher.dry_run:
            _show_plan(jobs, configs[0].hydra)
        for sweep, trials in by_sweep.items():
            records = _train_packed(trials, sweep, configs[0].hydra)
            prepared.update({sweep / job.trial.label: record for job, record in zip(trials, records, strict=True)})
        first = {folder: position for position, folder in reversed(list(enumerate(folders)))}
        return [first[folder] for folder in folders]

    job.prepare = prepare  # type: ignore[attr-defined]
    return job


def _checked(configs: Sequence[DictConfig]) -> "list[Job]":
    from sweep.execution.job import job_of

    jobs: list[Job] = []
    faults: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        try:
            jobs.append(job_of(configured(config)))
        except ConfigError as error:
            for fault in error.faults:
                faults.setdefault(fault, []).append(number)
    if faults and len(configs) == 1:
        raise ConfigError(list(faults))
    if faults:
        lines = [f"{fault} (in {len(numbers)} of {len(configs)} trials)" for fault, numbers in faults.items()]
        raise ConfigError(["nothing was started:", *lines])
    return jobs


def _leave_nothing(folder: Path) -> None:
    """Take away what Hydra's sweeper has written of a sweep that is refused, where there is nothing else."""
    if [path.name for path in folder.glob("*")] == ["multirun.yaml"]:
        (folder / "multirun.yaml").unlink()
        folder.rmdir()
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def _train_alone(config: DictConfig, folder: Path) -> Record:
    from sweep.execution.job import job_of
    from sweep.execution.runner import Limits, run
    from sweep.execution.store import Store

    store = Store(folder.parent, HydraConfig.get().runtime.choices.get("ablation"))
    [record] = run([job_of(configured(config))], store, Limits())
    if record.finished:
        log.info("%s: eval/loss %.4f", os.path.relpath(folder), record.result["eval/loss"])
    return record


def _show_plan(jobs: "Sequence[Job]", hydra_node: DictConfig) -> NoReturn:
    from sweep.execution.runner import describe, make_plan
    from sweep.execution.store import Store

    for name in dict.fromkeys(job.config.name for job in jobs):
        trials = [job for job in jobs if job.config.name == name]
        store = Store(Path(sweep_folder(name)), ablation=None)
        print(f"{store.folder}: {describe(make_plan(trials, store, _limits(hydra_node)), trials)}")
    sys.exit(0)


def _train_packed(jobs: "Sequence[Job]", folder: Path, hydra_node: DictConfig) -> list[Record]:
    from sweep.execution.runner import TooManyFailuresError, run
    from sweep.execution.store import Store

    store = Store(folder, hydra_node.runtime.choices.get("ablation"))
    try:
        records = run(jobs, store, _limits(hydra_node))
    except TooManyFailuresError as error:
        raise TrialFailedError(str(error)) from None
    distinct = {job.trial.label: record for job, record in zip(jobs, records, strict=True)}
    where = os.path.relpath(folder)
    for label, record in distinct.items():
        if record.error and len(distinct) > 1:
            log.warning("%s %s: %s", label, record.status, record.error["message"])
    finished, healthy = (sum(getattr(record, how) for record in distinct.values()) for how in ("finished", "healthy"))
    pruned = f", {healthy - finished} were pruned" if healthy > finished else ""
    log.info("%d of %d trials finished%s; see them with: python -m analysis %s", finished, len(distinct), pruned, where)
    return records


def _limits(hydra_node: DictConfig) -> "Limits":
    from sweep.execution.engines import Cluster
    from sweep.execution.runner import Limits

    launcher = hydra_node.launcher
    least = {"max_pack": 1, "workers": 1, "max_failures": 0}
    too_small = [key for key, bound in least.items() if launcher[key] is not None and launcher[key] < bound]
    if too_small:
        raise ConfigError([f"hydra.launcher.{key} = {launcher[key]}: must be {least[key]} or more" for key in too_small])  # fmt: skip
    names = ("engine", "address", "cpus", "gpus", "memory_gb", "minutes")
    slurm: Any = OmegaConf.to_container(launcher.slurm)
    cluster = Cluster(**{name: launcher[name] for name in names}, slurm=slurm)
    return Limits(launcher.max_pack, launcher.workers, launcher.max_failures, launcher.retry_failed, cluster)


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 1."""
    if sys.argv[1:2] and sys.argv[1] in FOLLOW_UPS:
        sys.exit(import_module(f"sweep.{sys.argv[1]}").main(sys.argv[2:]))
    gc.set_threshold(100_000)  # configurations are many small objects that stay; most searches find nothing
    atexit.register(gc.freeze)  # and so would the last one, at the exit
    OmegaConf.register_new_resolver("trial_folder", trial_folder, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
    if any(re.match(r"\+?ablation=.*,", argument) for argument in sys.argv[1:]):
        sys.exit("lora-sweep: an ablation chooses its own factors, so two cannot be swept at once; launch them one after the other")  # fmt: skip
    if unknown := unknown_option(sys.argv[1:]):
        sys.exit(f"lora-sweep: {unknown}")
    if any(argument.startswith("--e") for argument in sys.argv[1:]):
        sys.exit("lora-sweep: --experimental-rerun would read a pickle, which can run code; write the command again")
    sys.argv[1:] = sorted(sys.argv[1:], key=_is_override)  # argparse wants them in one piece, so options come first
    if {"--cfg", "-c"} & set(sys.argv) and {"--multirun", "-m"} & set(sys.argv):
        sys.exit("lora-sweep: --cfg shows one trial, without -m; --dry-run shows the plan of a sweep")
    if {"--multirun", "-m"} & set(sys.argv) and not any(map(_chooses_launcher, sys.argv)):
        sys.argv.append("hydra/launcher=packed")  # Hydra's own stops at the first job that is refused
    if "--dry-run" in sys.argv:
        sys.argv.remove("--dry-run")
        sys.argv.insert(1, "--multirun")
        with tempfile.TemporaryDirectory() as nowhere:  # Hydra's sweeper writes its multirun.yaml there
            sys.argv += ["hydra/launcher=packed", "hydra.launcher.dry_run=true", f"hydra.sweep.dir={nowhere}"]
            _run()
    else:
        _run()


def _chooses_launcher(argument: str) -> bool:
    return re.match(r"\+?(hydra/launcher|ablation)=", argument) is not None


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def _run() -> None:
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("0", "")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what went wrong instead of printing it its own way
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's way of pressing Ctrl-C
    secrets: dict[str, str] = {}

    def environment_variable(key: str, *default: Any) -> str | None:
        """Hydra's resolver ``${oc.env:…}``; what it gives is not repeated in a message."""
        value = oc.env(key, *default)
        if value and key in os.environ and len(value) >= SHORTEST_SECRET:
            secrets[value] = f"${{oc.env:{key}}}"
        return value

    OmegaConf.register_new_resolver("oc.env", environment_variable, replace=True)
    hydra_internals.ConfigLoaderImpl = CheckedLoader  # type: ignore[misc]
    try:
        for folder in _own_folders():
            check_files(folder)
        hydra.main(version_base="1.3", config_path=str(CONF.absolute()), config_name="config")(application())()
    except BrokenPipeError:  # whoever read our output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("lora-sweep: interrupted; the same command goes on with what is not finished", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if wants_traceback:
            raise
        text = readable(error)
        for secret, name in secrets.items():
            text = text.replace(secret, name)
        sys.exit(f"lora-sweep: {_unforeseen(error)}{text}")


def _own_folders() -> list[Path]:
    """The folders whose files Hydra would read: ours, and that of ``--config-dir``."""
    given = get_args_parser().parse_known_args()[0].config_dir
    return [CONF, *([Path(given)] if given else [])]


def _unforeseen(error: Exception) -> str:
    """The type of an error that is none that somebody gives to a user, and where it was made."""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    ours = any(name.startswith("sweep.") and name not in (__name__, "sweep.door") for name in frames)
    foreseen = (ConfigError, HydraException, OmegaConfBaseException, TrialFailedError, OSError, YAMLError)
    caused_by = (error, error.__cause__, error.__context__)
    if any(isinstance(one, foreseen) for one in caused_by):
        return ""
    if ours:
        return f"{type(error).__name__} (HYDRA_FULL_ERROR=1 shows where): "
    return f"the configuration cannot be composed: {type(error).__name__}: "


if __name__ == "__main__":
    main()
