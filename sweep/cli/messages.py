"""What went wrong on the command line, in one message that names the key and what to do."""

import difflib
import re
from collections.abc import Iterator, Sequence

from hydra.core.config_store import ConfigStore
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

from sweep.cli.plugin_tasks import refusal
from sweep.config import unknown_key
from sweep.errors import ConfigError
from sweep.registry import TASKS
from sweep.text import masked, printable

EXTRAS = ("optuna",)
"""Choices that need an optional extra."""
LONGEST = 1000
"""Longest line, in characters; longer ones repeat the content of a file."""


def readable(error: BaseException) -> str:
    """The user's mistake if it is among the causes, otherwise Hydra's message: a line for each fault, without internals."""
    causes = list(_causes(error))
    config_errors = [cause for cause in causes if isinstance(cause, ConfigError)]
    lines = config_errors[0].faults if config_errors else [_said(error, causes)]
    return "\n".join(one_line(line) for line in lines)


def _said(error: BaseException, causes: Sequence[BaseException]) -> str:
    text = str(error)
    if isinstance(error, MissingConfigException):
        return _unknown_choice(error)
    if addable := re.search(r"'([\w/]+)'\. No match in the defaults list.*use (\S+)", text, re.DOTALL):
        return f"{addable[1]}: has no default choice to replace; write {addable[2]}"
    if unknown := re.match(r"Could not override '([\w.]+)'", text):
        if not unknown[1].startswith("hydra."):
            return unknown_key(unknown[1].split("."))
        return _unknown_to_hydra(getattr(error.__cause__, "full_key", None) or unknown[1])
    if there := re.match(r"Could not append to config. An item is already at '([\w.]+)'", text):
        return f"{there[1]}: exists already; write it without +"
    if several := re.match(r"Ambiguous value for argument '(.*?)=(.*)'\n", text):
        return (
            f"{several[1]}={several[2]}: several values; put -m before it to sweep over them, or "
            f"write {several[1]}=[{several[2]}] for one list"
        )
    if unreadable := next((cause for cause in causes if isinstance(cause, OverrideParseException)), None):
        return _unreadable(unreadable.override)
    if "does not support sweep type : INTERVAL_SWEEP" in text:
        return "a grid has no intervals: give values, as in optimizer.lr=1e-4,1e-3,1e-2, or search with hydra/sweeper=optuna"
    if any(isinstance(cause, RecursionError) for cause in causes):
        return "a value or a file refers to itself, or is nested too deeply"
    return _of_value(error, causes)


def _of_value(error: BaseException, causes: Sequence[BaseException]) -> str:
    if isinstance(error, InterpolationResolutionError) and not isinstance(causes[-1], OmegaConfBaseException):
        raised = next(cause for cause in causes if not isinstance(cause, OmegaConfBaseException))
        return f"{type(raised).__name__}: {raised}"  # the missing key, not the one that refers to it
    values = [cause for cause in causes if isinstance(cause, OmegaConfBaseException) and cause.full_key]
    if values:
        key, missing = values[-1].full_key, isinstance(values[-1], MissingMandatoryValue)
        return (
            f"{key}: missing; give it with {key}=…"
            if missing
            else f"{key}: {values[-1].msg or values[-1]}".partition("\n")[0]
        )
    return next((str(cause) for cause in causes if str(cause)), type(error).__name__).partition("\n    full_key")[0]


def _unreadable(override: str) -> str:
    key = override.partition("=")[0]
    if key.endswith("_pattern"):
        return (
            f"{key}: on the command line a name has no quotes and no signs but . * | ? $, as in "
            f"'{key}={{q_proj: 4}}'; any other expression goes into a YAML file, as in "
            f'{key.rpartition(".")[2]}: {{"^q_proj": 4}}'
        )
    return f"{override!r}: is not of the form key=value1,value2 without spaces, or a value needs quotes"


def _unknown_choice(error: MissingConfigException) -> str:
    if not error.options:
        return str(error).partition("\nConfig search path")[0]
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    if group != "task":
        extra = f"; for {choice}: pip install 'lora-sweep[{choice}]'" if choice in EXTRAS else ""
        return f"{group} = {choice!r}: must be one of {', '.join(error.options)}{extra}"
    return f"task = {choice!r}: " + (refusal(choice) or f"must be one of {', '.join(map(TASKS.shown, error.options))}")


def _unknown_to_hydra(key: str) -> str:
    path = key.split(".")
    if path[:2] != ["hydra", "launcher"]:
        return f"{key}: Hydra has no such setting"
    known = [str(name) for name in ConfigStore.instance().load("hydra/launcher/packed.yaml").node if name != "_target_"]
    if path[2] in known and len(path) > 3:
        return f"{key}: not there yet; add it with +{key}=…"
    if path[2] in known:
        return f"{key}: a setting of the packed launcher; add -m, or hydra/launcher=packed"
    close = difflib.get_close_matches(path[2], known, n=1)
    return f"{key}: unknown key; " + (
        f"did you mean hydra.launcher.{close[0]}?" if close else f"known here: {', '.join(known)}"
    )


def one_line(text: str) -> str:
    """``text`` on one line, printable, without secrets, cut at ``LONGEST``."""
    line = printable(masked(" ".join(text.split())))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}… ({len(line):,} characters)"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what it came from, each once: a circle of causes is possible."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
