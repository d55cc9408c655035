"""Hand the command line to Hydra, and turn whatever goes wrong into one message and an exit code."""

import atexit
import gc
import logging
import math
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import hydra
import hydra._internal.hydra as hydra_internals
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sweep.cli import arguments
from sweep.cli.app import Application, TrialFailedError
from sweep.cli.messages import readable
from sweep.cli.plugin_tasks import offer_tasks
from sweep.cli.safety import CheckedLoader
from sweep.errors import ConfigError
from sweep.text import masked

_PACKAGE = Path(__file__).parents[1]
if not (_PACKAGE / "conf").is_dir():  # a bare checkout, where nothing has put the launcher on the path
    sys.path.append(str(_PACKAGE / "_plugin"))
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"


def run() -> None:
    """Train what ``sys.argv`` asks for, or show its plan."""
    gc.set_threshold(100_000)  # fewer garbage collections: composing creates many long-lived objects
    atexit.register(gc.freeze)  # and none at the exit
    try:
        given, trusted = arguments.trusted_folders(sys.argv[1:])
        given = arguments.checked(given)
    except ConfigError as error:
        sys.exit(f"lora-sweep: {error}")
    trusted.append(CONF.resolve())
    if arguments.DRY_RUN not in given:
        sys.argv[1:] = given
        _run(trusted)
        return
    with tempfile.TemporaryDirectory() as nowhere:
        sys.argv[1:] = arguments.for_dry_run(given, nowhere)
        _run(trusted)


def _run(trusted: Sequence[Path]) -> None:
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("0", "")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what went wrong instead of printing it its own way
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's way of pressing Ctrl-C
    logging.getLogger("alembic").setLevel(logging.WARNING)  # optuna's database would announce each of its plug-ins
    application = Application()
    OmegaConf.register_new_resolver("trial_folder", application.trial_folder, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", application.sweep_folder, replace=True)
    OmegaConf.register_new_resolver("times", times, replace=True)
    hydra_internals.ConfigLoaderImpl = partial(CheckedLoader, trusted=trusted)  # type: ignore[assignment,misc]
    try:
        offer_tasks()
        hydra.main(version_base="1.3", config_path=str(CONF.absolute()), config_name="config")(application)()
    except BrokenPipeError:  # of the standard output, which run_command looks after
        raise
    except KeyboardInterrupt:
        print("lora-sweep: interrupted; the same command continues with what is not finished", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        application.clean_up()
        if wants_traceback:
            sys.exit(masked("".join(traceback.format_exception(error))))
        sys.exit(f"lora-sweep: {application.explained(error) or _prefix(error) + readable(error)}")
    finally:
        hydra_internals.ConfigLoaderImpl = ConfigLoaderImpl  # type: ignore[misc]


def times(*factors: float) -> float:
    """The resolver ``${times:2,${adapter.rank}}``: the product of numbers. Raises ConfigError for anything else."""
    if not all(isinstance(factor, int | float) for factor in factors):
        raise ConfigError(
            [f"${{times:{','.join(map(str, factors))}}}: must be numbers, as in ${{times:2,${{adapter.rank}}}}"]
        )
    return math.prod(factors)


def _prefix(error: Exception) -> str:
    """Prefix for an unexpected error: its type, and whether our code or Hydra's raised it."""
    expected = (ConfigError, HydraException, OmegaConfBaseException, TrialFailedError, OSError, YAMLError)
    if any(isinstance(one, expected) for one in (error, error.__cause__, error.__context__)):
        return ""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    if any(
        name.startswith("sweep.") and name not in (__name__, "sweep.cli.safety", "sweep.cli.foreign") for name in frames
    ):
        return f"{type(error).__name__} (HYDRA_FULL_ERROR=1 shows where): "
    return f"the configuration cannot be composed: {type(error).__name__}: "
