"""What went wrong on the command line, in one message that names the key and what to do."""

import re
from collections.abc import Iterator

from hydra.errors import MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from sweep import schema
from sweep.schema import ConfigError

EXTRAS = ("optuna",)
"""Choices that an optional installation brings."""


def readable(error: BaseException) -> str:
    """The user's own mistake where there is one below, else what Hydra says, without its internals."""
    causes = list(_causes(error))
    if faults := [cause for cause in causes if isinstance(cause, ConfigError)]:
        return str(faults[0])
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        extra = f"; for {choice}: pip install 'lora-sweep[{choice}]'" if choice in EXTRAS else ""
        return f"{group} = {choice!r}: must be one of {', '.join(error.options)}{extra}"
    if addable := re.search(r"'([\w/]+)'\. No match in the defaults list.*use (\S+)", str(error), re.DOTALL):
        return f"{addable[1]}: has no default choice to replace; write {addable[2]}"
    if unknown := re.match(r"Could not override '([\w.]+)'", str(error)):
        return schema.unknown_key(unknown[1].split("."))
    if unreadable := re.match(r"LexerNoViableAltException: (.*)\n *\^", str(error), re.DOTALL):
        return f"{unreadable[1]!r}: is not of the form key=value, or its value needs quotes"
    values = [cause for cause in causes if isinstance(cause, OmegaConfBaseException) and cause.full_key]
    if values:
        return f"{values[-1].full_key}: {(values[-1].msg or str(values[-1])).splitlines()[0]}"
    return str(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
