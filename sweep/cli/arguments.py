"""Rules for the command line, one function each; ``checked`` applies them all before Hydra reads it."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser

from sweep.cli.messages import one_line
from sweep.errors import ConfigError
from sweep.registry import INITS

DRY_RUN = "--dry-run"
TRUST = "--trust"
MULTIRUN = frozenset({"--multirun", "-m"})
PACKED = "hydra/launcher=packed"


def checked(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra takes them. Raises ConfigError for what they cannot ask for."""
    refuse_swept_ablation(arguments)
    refuse_unknown_option(arguments)
    refuse_pickle(arguments)
    refuse_config_of_sweep(arguments)
    refuse_glob_of_values(arguments)
    return pack_by_default(options_first(quote_nested_interpolations(arguments)))


def trusted_folders(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """The arguments without ``--trust FOLDER``, and these folders. Raises ConfigError where one is not a folder."""
    rest, folders = [], []
    words = iter(arguments)
    for word in words:
        option, _, folder = word.partition("=")
        if option != TRUST:
            rest.append(word)
        elif (folder := folder or next(words, "")) and Path(folder).is_dir():
            folders.append(Path(folder).resolve())
        else:
            raise ConfigError([one_line(f"{TRUST} {folder}: must be a folder whose configuration files you trust")])
    return rest, folders


def refuse_swept_ablation(arguments: Sequence[str]) -> None:
    """Refuse two ablations at once: Hydra would silently use the factors of the first."""
    if any(re.match(r"\+?ablation=.*,", argument) for argument in arguments):
        raise ConfigError(
            ["an ablation chooses its own factors, so two cannot be swept at once; launch them one after the other"]
        )


def refuse_unknown_option(arguments: Sequence[str]) -> None:
    """Refuse unknown options, suggesting what to write instead."""
    parser = get_args_parser()
    known = [*re.findall(r"--[\w-]+", parser.format_usage()), DRY_RUN, TRUST]
    wrong = [one for one in parser.parse_known_args(list(arguments))[1] if one.startswith("-") and one not in known]
    if not wrong:
        return
    name, _, value = wrong[0].partition("=")
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    setting = f"{name.strip('-')}={value or '…'}"
    hint = (
        f"did you mean {close[0]}?"
        if close
        else f"a setting has no dashes: {setting}, or +{setting} for a group that has no default"
    )
    raise ConfigError([one_line(f"{wrong[0]}: unknown option; {hint}")])


def refuse_pickle(arguments: Sequence[str]) -> None:
    """Refuse to read a pickle, which can run code."""
    if get_args_parser().parse_known_args(list(arguments))[0].experimental_rerun is not None:
        raise ConfigError(["--experimental-rerun would read a pickle, which can run code; write the command again"])


def refuse_config_of_sweep(arguments: Sequence[str]) -> None:
    """Refuse ``--cfg`` of a sweep: Hydra shows a single configuration."""
    if {"--cfg", "-c"} & set(arguments) and MULTIRUN & set(arguments):
        raise ConfigError(["--cfg shows one trial, without -m; --dry-run shows the plan of a sweep"])


def refuse_glob_of_values(arguments: Sequence[str]) -> None:
    """Refuse ``glob`` of plain values: Hydra matches the files of a group only, and fails without a message."""
    for argument in arguments:
        if match := re.match(r"\+?(\w+(?:\.\w+)+)=glob\(", argument):
            values = ",".join(INITS.names) if match[1] == "adapter.init" else "a,b,c"
            raise ConfigError(
                [f"{argument}: glob(…) is for groups, as in task=glob(*); list the values, as in {match[1]}={values}"]
            )


def quote_nested_interpolations(arguments: Sequence[str]) -> list[str]:
    """Quote ``key=${times:2,${other.key}}``: Hydra's grammar takes a nested interpolation only inside quotes."""
    return [re.sub(r"^([^=]+)=(\$\{[^\"]*\$\{[^\"]*\})$", r'\1="\2"', argument) for argument in arguments]


def options_first(arguments: Sequence[str]) -> list[str]:
    """Move options before overrides: argparse wants the overrides in one piece."""
    return sorted(arguments, key=_is_override)


def pack_by_default(arguments: Sequence[str]) -> list[str]:
    """Choose the packed launcher for a sweep that names none: Hydra's own stops at the first refused job."""
    if MULTIRUN & set(arguments) and not any(map(_chooses_launcher, arguments)):
        return [*arguments, PACKED]
    return list(arguments)


def for_dry_run(arguments: Sequence[str], nowhere: str) -> list[str]:
    """The arguments of a launch that only shows its plan; ``nowhere`` takes the file that Hydra's sweeper writes."""
    rest = [argument for argument in arguments if argument != DRY_RUN]
    return ["--multirun", *rest, PACKED, "hydra.launcher.dry_run=true", f"hydra.sweep.dir={nowhere}"]


def _chooses_launcher(argument: str) -> bool:
    return re.match(r"\+?(hydra/launcher|ablation)=", argument) is not None


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))
