"""What can be set of the task; free of torch, so that a misspelt key is reported at once."""

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sweep.tasks.options import TaskOptions


class ExampleOptions(TaskOptions):
    """Classify points of the plane by their angle; the target domain is turned by ``angle`` degrees."""

    target_only = ("angle",)

    name: Literal["example_task"]
    classes: int = Field(ge=2)
    angle: float

    def fingerprint(self, cache_folder: Path) -> str:
        """The data are drawn, not read."""
        return "generated:example_task"

    def make(self, cache_folder: Path) -> Any:
        """Draw both domains."""
        return import_module("lora_sweep_example.task").ExampleTask.of(self)
