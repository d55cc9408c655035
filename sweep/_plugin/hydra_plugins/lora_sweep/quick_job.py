"""Run one job as Hydra's ``run_job`` does, without copying and printing again what all jobs have in common."""

import os
import pickle
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, env_override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import OmegaConfDumper


class _Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """OmegaConf's YAML, written by libyaml where there is one."""


_Dumper.add_representer(str, OmegaConfDumper.str_representer)


def run_job(context: HydraContext, task_function: TaskFunction, config: DictConfig) -> JobReturn:
    """Run ``task_function`` on ``config`` with its logging, folders, ``.hydra`` files and callbacks.

    An error of the task is kept in the result, as Hydra does, and raised when its value is asked for.
    """
    holder, before, folder_before = HydraConfig.instance(), HydraConfig.instance().cfg, Path.cwd()
    holder.cfg = config
    try:
        folder = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(folder.absolute())
        OmegaConf.set_readonly(config.hydra, True)
        task_config = _without_hydra(config)
        folder.mkdir(parents=True, exist_ok=True)
        chdir = config.hydra.job.chdir
        if chdir or (chdir is None and not version.base_at_least("1.2")):
            os.chdir(folder)
        configure_log(config.hydra.job_logging, config.hydra.verbose)
        if config.hydra.output_subdir is not None:
            _save(task_config, config, Path(config.hydra.runtime.output_dir) / config.hydra.output_subdir)
        overrides: Any = OmegaConf.to_container(config.hydra.overrides.task)
        result = JobReturn(overrides=overrides, cfg=task_config, hydra_cfg=config, working_dir=str(Path.cwd()))
        with env_override(config.hydra.job.env_set):
            context.callbacks.on_job_start(config=config, task_function=task_function)
            try:
                result.return_value = task_function(task_config)
                result.status = JobStatus.COMPLETED
            except Exception as error:
                result.return_value = error
                result.status = JobStatus.FAILED
        result.task_name = JobRuntime.instance().get("name")
        context.callbacks.on_job_end(config=config, job_return=result)
        return result
    finally:
        holder.cfg = before
        os.chdir(folder_before)


def _without_hydra(config: DictConfig) -> DictConfig:
    """A copy without Hydra's own node, which would be most of the work."""
    content: dict[str, Any] = config._content  # type: ignore[assignment]
    hydra = content.pop("hydra")
    try:
        copy: DictConfig = pickle.loads(pickle.dumps(config))  # five times faster than deepcopy
    finally:
        content["hydra"] = hydra
    return copy


def _save(task_config: DictConfig, config: DictConfig, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    hydra: dict[str, Any] = OmegaConf.to_container(config.hydra, resolve=False, enum_to_str=True)  # type: ignore[assignment]
    parts = {
        "config.yaml": _yaml(OmegaConf.to_container(task_config, resolve=False, enum_to_str=True)),
        "hydra.yaml": "hydra:\n" + "".join(_under_hydra(key, value) for key, value in hydra.items()),
        "overrides.yaml": _yaml(hydra["overrides"]["task"]),
    }
    home = str(Path.home())
    for name, text in parts.items():
        (folder / name).write_text(text if home == "/" else text.replace(f"{home}/", "~/"), encoding="utf-8")


_printed: dict[str, tuple[Any, str]] = {}
"""The keys of Hydra's node with their last value and its YAML: from job to job most stay the same."""


def _under_hydra(key: str, value: Any) -> str:
    if key not in _printed or _printed[key][0] != value:
        _printed[key] = value, _yaml({"hydra": {key: value}}).removeprefix("hydra:\n")
    return _printed[key][1]


def _yaml(content: Any) -> str:
    text: str = yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
    return text
