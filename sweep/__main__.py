"""The command line: ``python -m sweep``. The only file that sees Hydra's DictConfig."""

import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweep import schema
from sweep.schema import ConfigError

log = logging.getLogger("sweep")

_HERE = Path(__file__).parent
if not (_HERE / "conf").is_dir():  # a bare checkout, where nothing has put the launcher on the path
    sys.path.append(str(_HERE / "_plugin"))
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"


class TrialFailedError(RuntimeError):
    """A trial did not run to its end; its record says why."""


def configured(config: DictConfig) -> schema.Config:
    """Turn a composed configuration into plain validated values. Raises ConfigError."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    return schema.parse(values)


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


def job(config: DictConfig) -> float | None:
    """One Hydra job: train its trial, or find its record, and return ``eval/loss``."""
    from sweep.execution.job import job_of
    from sweep.execution.runner import run
    from sweep.execution.store import Store

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    store = Store(folder.parent, hydra_config.runtime.choices.get("ablation"))
    [record] = run([job_of(configured(config))], store)
    if not record.finished:
        assert record.error is not None
        raise TrialFailedError(f"{folder.name} {record.status}: {record.error['message']} (see {folder}/trial.log)")
    log.info("%s: eval/loss %.4f", folder.relative_to(Path.cwd()), record.result["eval/loss"])
    return record.result["eval/loss"]


def prepare(configs: Sequence[DictConfig]) -> list[int]:
    """The packed launcher's hook: check every trial, then train them all. Each job then finds its record.

    Returns the position of the first equal trial for each of them.

    Raises ConfigError with every fault of every trial, before anything has started.
    """
    from sweep.execution.job import Job, job_of
    from sweep.execution.runner import run
    from sweep.execution.store import Store

    jobs: list[Job] = []
    faults: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        try:
            jobs.append(job_of(configured(config)))
        except ConfigError as error:
            for fault in error.faults:
                faults.setdefault(fault, []).append(number)
    if faults:
        lines = [f"{fault} (in {len(numbers)} of {len(configs)} trials)" for fault, numbers in faults.items()]
        raise ConfigError(["nothing was started:", *lines])
    hydra_config = configs[0].hydra
    store = Store(Path(hydra_config.sweep.dir), hydra_config.runtime.choices.get("ablation"))
    run(jobs, store)
    ids = [job.trial.id for job in jobs]
    return [ids.index(trial_id) for trial_id in ids]


job.prepare = prepare  # type: ignore[attr-defined]


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 1."""
    OmegaConf.register_new_resolver("trial_folder", trial_folder, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
    if any(re.match(r"\+?ablation=.*,", argument) for argument in sys.argv[1:]):
        sys.exit("lora-sweep: an ablation chooses its own factors, so two cannot be swept at once; launch them one after the other")  # fmt: skip
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("0", "")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what went wrong instead of printing it its own way
    try:
        hydra.main(version_base="1.3", config_path=str(CONF.absolute()), config_name="config")(job)()
    except (ConfigError, HydraException, OmegaConfBaseException, TrialFailedError) as error:
        if wants_traceback:
            raise
        sys.exit(f"lora-sweep: {_message(error)}")


def _message(error: BaseException) -> str:
    """The user's own mistake where there is one below, else what Hydra says, without its internals."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    if key := re.match(r"Could not override '([\w.]+)'", str(error)):
        return schema.unknown_key(key[1].split("."))
    return str(error)


if __name__ == "__main__":
    main()
