"""A Hydra launcher that shows an application all of a sweep's jobs before the first one runs.

It composes every job, hands them to the task function's ``prepare`` hook, and then runs each as Hydra does:
an application that does the work in ``prepare`` finds it done in the job. The hook returns, for each job, the
position of the job that stands for it: its own, or that of an equal one, which then runs only once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hydra_plugins.lora_sweep.compose import Composer


@dataclass
class PackedLauncherConfig:
    """``dry_run`` plans and trains nothing; the other settings bound how trials are packed."""

    _target_: str = "hydra_plugins.lora_sweep.packed_launcher.PackedLauncher"
    dry_run: bool = False
    max_pack: int = 64
    workers: int | None = None


ConfigStore.instance().store(group="hydra/launcher", name="packed", node=PackedLauncherConfig, provider="lora_sweep")


class PackedLauncher(Launcher):
    """Calls ``prepare(configs) -> positions`` of the task function, where it has one, before it runs the jobs."""

    def __init__(self, **options: object) -> None:
        """Take the launcher's options, which are for ``prepare`` to read in ``hydra.launcher``."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose all jobs, prepare them together, then run each."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        composer = Composer(self.hydra_context.config_loader, self.config)
        configs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = composer.compose(overrides)
            with open_dict(config):
                config.hydra.job.id = f"{config.hydra.job.name}_{number}"
                config.hydra.job.num = number
            configs.append(config)
        stands_for = list(range(len(configs)))
        if prepare := getattr(self.task_function, "prepare", None):
            stands_for = prepare(configs)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        returns = {position: self._run(configs[position]) for position in dict.fromkeys(stands_for)}
        return [returns[position] for position in stands_for]

    def _run(self, config: DictConfig) -> JobReturn:
        result = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return result
