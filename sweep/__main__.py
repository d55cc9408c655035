"""The command line: ``python -m sweep``. The only file that sees Hydra's DictConfig."""

import logging
import os
import re
import sys
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
