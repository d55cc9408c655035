"""Everything that a user can set, composed of its owners' options. Unknown keys, wrong types and bad values are errors.

The YAML files in ``conf/`` hold the defaults; the options hold the meaning and the limits.
"""

import difflib
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema, core_schema

from sweep.adapters.options import AdapterOptions
from sweep.errors import ConfigError
from sweep.options import Options
from sweep.registry import TASKS
from sweep.tasks.options import TaskOptions
from sweep.trackers.options import TrackerOptions
from sweep.training.options import OptimizerOptions, TrainingOptions


def _options_by_name(_: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """The options of the task that ``task.name`` names in the registry: ours, and of plug-ins those that were asked for."""
    choices = {name: handler.generate_schema(options) for name, options in _task_options().items()}
    return core_schema.tagged_union_schema(choices, discriminator="name")


_plugin_options: dict[str, type[TaskOptions]] = {}
"""The options of the plug-ins' tasks that this process has been asked for, by name."""


def _task_options() -> dict[str, type[TaskOptions]]:
    return {name: TASKS.load(name) for name in TASKS.places} | _plugin_options


def load_task(name: str) -> None:
    """Import the plug-in that gives the task ``name``, if one does, so that its keys are known.

    Raises ConfigError where the name has several sources, and PluginError where the plug-in cannot be used.
    """
    if conflict := TASKS.conflict(name):
        raise ConfigError([f"task.name = {name!r}: {conflict}"])
    plugin = TASKS.plugin(name)
    if plugin is None or name in _plugin_options:
        return
    options = TASKS.load(name)
    if not (isinstance(options, type) and issubclass(options, TaskOptions)):
        raise plugin.error("must be a class of options, derived from TaskOptions")
    _plugin_options[name] = options
    try:
        Config.model_rebuild(force=True)
    except Exception as error:
        del _plugin_options[name]
        Config.model_rebuild(force=True)
        raise plugin.error("its options cannot be read", error) from error


class Config(Options):
    """Everything that one invocation says about one trial."""

    name: str
    seed: int = Field(ge=0)
    task: Annotated[TaskOptions, GetPydanticSchema(_options_by_name)]
    adapter: AdapterOptions
    optimizer: OptimizerOptions
    training: TrainingOptions
    tracker: TrackerOptions
    device: Literal["auto", "cpu", "cuda"]
    save_adapter: bool
    pruning: int | None = Field(ge=2)
    cache: str

    @field_validator("pruning")
    @classmethod
    def _evaluates_before_pruning(cls, value: int | None, info: ValidationInfo) -> int | None:
        training = info.data.get("training")
        if value and training and (training.eval_every or training.steps) >= training.steps:
            raise ValueError(f"needs a training.eval_every below training.steps={training.steps}, to compare trials by")
        return value

    @field_validator("name", mode="before")
    @classmethod
    def _plain_name(cls, value: Any) -> Any:
        check_name(value)
        return value


def check_name(name: Any) -> None:
    """A sweep's name is one folder below ``outputs/``; anything else is a ValueError."""
    if not isinstance(name, str):
        raise ValueError("a name is text; give it a letter, as in name=run1")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}", name):
        raise ValueError("a name has letters, digits, '.', '_', '+' and '-', and begins with one of the first two")


def parse(values: dict[str, Any]) -> Config:
    """Validate a composed configuration.

    Raises ConfigError with one line for every fault, each naming the key, the value and what is allowed.
    """
    task = values.get("task")
    if isinstance(task, dict) and isinstance(name := task.get("name"), str):
        load_task(name)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = {detail["loc"][:2]: _fault(detail, values) for detail in reversed(error.errors())}
        raise ConfigError(list(reversed(faults.values()))) from None


def _fault(detail: Any, values: dict[str, Any]) -> str:
    path = [str(part) for part in detail["loc"]]
    if path[0] == "task" and path[1:2] and path[1] in _task_options():
        del path[1]  # pydantic names the union's branch there
    if path[:2] in (["adapter", "targets"], ["adapter", "exclude"]):
        path = path[:2]
    key = ".".join(path)
    match detail["type"]:
        case "extra_forbidden":
            return unknown_key(path)
        case "missing":
            return f"{key}: missing; give it with {key}=…"
        case "dict_type":
            return f"{key} = {detail['input']!r}: must hold keys and values, as in '{key}={{NAME: VALUE}}'"
        case "model_type" | "model_attributes_type":
            return f"{key} = {detail['input']!r}: must hold keys and values, as in {key}.NAME=VALUE"
        case "union_tag_not_found":
            return "task.name: missing; give it with task=…"
        case "union_tag_invalid":
            allowed = ", ".join(map(TASKS.shown, TASKS.names))
            return f"task.name = {values['task']['name']!r}: must be one of {allowed}"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{key}: {message}" if isinstance(detail["input"], dict) else f"{key} = {detail['input']!r}: {message}"


def unknown_key(path: Sequence[str]) -> str:
    """One line about a key that does not exist: the nearest that does, where it belongs, or all keys beside it.

    The tasks of plug-ins are imported for this; one that cannot be imported has no keys.
    """
    for plugin in TASKS.plugins:
        with suppress(ConfigError):
            load_task(plugin.name)
    if list(path) == ["ablation"]:
        return "ablation: unknown key; the file of an ablation begins with the line '# @package _global_'"
    section: list[type[BaseModel]] = [Config]
    for part in path[:-1]:
        section = [model for parent in section for model in _models(parent, part)]
    known = list(dict.fromkeys(name for model in section for name in model.model_fields))
    keys, wanted = every_key(), ".".join(path)
    if wanted in keys and "." not in path[-1]:
        having = " or ".join(f"task={task}" for task in TASKS.names if path[-1] in TASKS.load(task).model_fields)
        return f"{wanted}: exists for {having} only; to compare tasks, launch each with its own settings and one name=…"
    if path[-1] in known:
        first = next(key for key in keys if key.startswith(wanted))
        return f"{wanted}: holds several keys; set each, as in {first}=…"
    close = difflib.get_close_matches(path[-1], known if len(path) > 1 else [*known, "+ablation"], n=1)
    elsewhere = [key for key in keys if key.endswith(f".{path[-1]}")]
    if path[-1] in keys:
        hint = f"in a file this is {path[-1].replace('.', ': {', 1)}: …}}"
    elif elsewhere:
        hint = f"did you mean {' or '.join(elsewhere)}?"
    elif not known:
        parent = ".".join(path[:-1])
        hint = f"{parent} is one value; give it whole, as in {parent}=…"
    else:
        hint = f"did you mean {'.'.join([*path[:-1], close[0]])}?" if close else f"known here: {', '.join(known)}"
    return f"{wanted or repr('')}: unknown key; {hint}"


def every_key(models: Sequence[type[BaseModel]] = (), prefix: str = "") -> list[str]:
    """Every key that a user can set, such as ``adapter.rank``, those of all tasks among them."""
    keys: dict[str, None] = {}
    for model in models or [Config]:
        for name in model.model_fields:
            inner = _models(model, name)
            keys |= dict.fromkeys(every_key(inner, f"{prefix}{name}.") if inner else [prefix + name])
    return list(keys)


def _models(parent: type[BaseModel], name: str) -> list[type[BaseModel]]:
    field = parent.model_fields.get(name)
    candidates = (field.annotation, *get_args(field.annotation)) if field else ()
    if TaskOptions in candidates:
        return list(_task_options().values())
    return [model for model in candidates if isinstance(model, type) and issubclass(model, BaseModel)]
