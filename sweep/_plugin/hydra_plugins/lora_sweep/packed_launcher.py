"""A Hydra launcher that shows an application all of a sweep's jobs before the first one runs.

It composes every job, hands them to the task function's ``prepare`` hook, and then runs each as Hydra does:
an application that does the work in ``prepare`` finds it done in the job. The hook returns, for each job, the
position of the job that stands for it: its own, or that of an equal one, which then runs only once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hydra_plugins.lora_sweep.quick_job import run_job
from hydra_plugins.lora_sweep.quick_loader import QuickLoader
from sweep.engines.options import LaunchOptions


@dataclass
class PackedLauncherConfig(LaunchOptions):
    """The launcher's settings as Hydra's choice ``hydra/launcher=packed``."""

    _target_: str = "hydra_plugins.lora_sweep.packed_launcher.PackedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="packed", node=PackedLauncherConfig, provider="lora_sweep")


class PackedLauncher(Launcher):
    """Calls ``prepare(configs) -> positions`` of the task function, where it has one, before it runs the jobs."""

    def __init__(self, **options: object) -> None:
        """Take the launcher's options, which are for ``prepare`` to read in ``hydra.launcher``."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over, and give it and its sweeper a quicker config loader."""
        self._loader = QuickLoader(hydra_context.config_loader)
        hydra_context.config_loader = self._loader  # type: ignore[assignment]
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose all jobs, prepare them together, then run each."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        configs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self._loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = number
                config.hydra.job.num = number
            configs.append(config)
        self._loader.forget()
        stands_for = list(range(len(configs)))
        if prepare := getattr(self.task_function, "prepare", None):
            stands_for = prepare(configs)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        returns = {}
        for position in dict.fromkeys(stands_for):
            returns[position] = run_job(self.hydra_context, self.task_function, configs[position])
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [returns[position] for position in stands_for]
