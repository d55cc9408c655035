"""``python -m sweep evaluate outputs/NAME --examples N``: score saved adapters on more test examples."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from sweep.cli.foreign import read_config
from sweep.cli.status import find
from sweep.config import Config, parse
from sweep.errors import ConfigError
from sweep.scores import EVALUATED_FILE
from sweep.state import Found
from sweep.text import printable, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a sweep's saved trials: 0 when all finished ones are scored, 1 when not, 2 when there is nothing to score."""
    parser = argparse.ArgumentParser(
        prog="python -m sweep evaluate",
        description="Score the saved adapters of finished trials on other test examples of the target and the source, "
        f"without training again. Each trial gets {EVALUATED_FILE} beside its record, which stays as it is.",
    )
    parser.add_argument("folder", type=Path, help="outputs/NAME")
    parser.add_argument(
        "--examples",
        type=int,
        required=True,
        help="how many of each domain, as the tables count them, or all where there are fewer; a language model's blocks of rows "
        "are scored whole, so that it may be a few more",
    )
    parser.add_argument(
        "--cache", default="outputs/.cache", help="where pre-trained bases and fetched data are (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.examples < 1:
        parser.error(f"argument --examples: {options.examples} is not a number of examples")
    finished = [one for one in find(options.folder) if one.state == "finished"]
    if not finished:
        say(f"lora-sweep: {options.folder} holds no finished trial", sys.stderr)
        return 2
    return _evaluate(options.folder, finished, options.examples, options.cache)


def _config_of(folder: Path, cache: str) -> Config:
    """The configuration that Hydra saved of a trial, but with the user's own cache, whatever the file says."""
    path = folder / ".hydra" / "config.yaml"
    if path.is_symlink() or path.parent.is_symlink():
        raise ConfigError([f"{path} is a symbolic link, which is not followed"])
    return parse({**yaml.safe_load(read_config(path)), "cache": cache})


def _evaluate(folder: Path, finished: Sequence[Found], count: int, cache: str) -> int:
    from sweep.packs.evaluate_saved import evaluate_saved, is_saved, saved

    there = [(one.folder, one.record) for one in finished if one.record and is_saved(one.folder, one.record)]
    faults: list[str] = []
    trials = []
    for trial_folder, record in there:
        try:
            trials.append(saved(trial_folder, record, _config_of(trial_folder, cache), count))
        except ConfigError as error:
            faults += error.faults
    sizes: set[tuple[int, int]] = set()
    done = 0
    for _, examples in evaluate_saved(trials, count):
        done += 1
        sizes.add((len(examples["target"].weight), len(examples["source"].weight)))
    for fault in faults:
        say(f"lora-sweep: {printable(fault)}", sys.stderr)
    for target, source in sorted(sizes):
        few = "; there are no more" if min(target, source) < count else ""
        say(f"{folder}: scored on {target:,} test examples of the target and {source:,} of the source{few}")
    if len(there) < len(finished):
        say(
            f"lora-sweep: {len(finished) - len(there)} of {len(finished)} finished trials have no saved adapter; the "
            "sweep's command with save_adapter=true trains those again and keeps them",
            sys.stderr,
        )
    say(f"{folder}: {done} of {len(finished)} finished trials have {EVALUATED_FILE} beside their record")
    return 0 if done == len(finished) else 1 if done else 2
