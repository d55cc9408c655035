"""Reads what the Trainer of ``transformers`` leaves: a ``trainer_state.json`` for each run or checkpoint.

The file holds what was logged, not what was set. Settings are those of PEFT's ``adapter_config.json`` beside it and those
that the names of the folders say; ``training_args.bin`` is a pickle, which is never opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from analysis.sources.folder_names import settings_in
from analysis.sources.foreign import Roles, Run, add_runs
from analysis.sources.sweep import Raw
from analysis.sources.walk import files_below
from sweep.files import read_foreign
from sweep.record import LARGEST_HISTORY, LARGEST_RECORD, is_number, too_large
from sweep.text import reason

STATE_FILE = "trainer_state.json"
ADAPTER_FILE = "adapter_config.json"
CHECKPOINT = "checkpoint-"
OF_THE_RUN = ("max_steps", "num_train_epochs", "train_batch_size")
"""The settings that the state itself holds."""
DOMAINS = {"eval_": "eval/", "test_": "test/"}
"""Prefixes as the Trainer's own W&B callback writes them; whatever has neither is ``train/``."""
NOT_MEASURED = ("step", "epoch", "total_flos")


def state_files(folder: Path) -> list[Path]:
    """The states below ``folder``."""
    return files_below(folder, lambda name: name == STATE_FILE)


def read(folder: Path, files: Sequence[Path], roles: Roles) -> Raw:
    """One trial a run: the last of its checkpoints, with every logged row. One that stopped early is named in a problem."""
    raw = Raw()
    last: dict[Path, tuple[dict[str, Any], Path]] = {}
    for file in files:
        try:
            state = _state(file)
        except (OSError, ValueError) as error:
            raw.problems.append(f"{file} is left out: {reason(error)}")
            continue
        place = file.parent.parent if file.parent.name.startswith(CHECKPOINT) else file.parent
        if place not in last or state["global_step"] >= last[place][0]["global_step"]:
            last[place] = state, file.parent
    runs = []
    for place, (state, checkpoint) in last.items():
        name = place.relative_to(folder).as_posix()
        if state["global_step"] < (state.get("max_steps") or 0):
            raw.problems.append(
                f"{name} ends at step {state['global_step']} of {state['max_steps']}; so do its figures"
            )
        runs.append(_run(name, state, {**_adapter(place, checkpoint, raw), **settings_in(name)}))
    add_runs(raw, runs, roles)
    return raw


def _state(file: Path) -> dict[str, Any]:
    state = orjson.loads(read_foreign(file, LARGEST_HISTORY, links=False))
    rows = state.get("log_history") if isinstance(state, dict) else None
    steps = [state.get(key) for key in ("global_step", "max_steps")] if isinstance(state, dict) else [None]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not is_number(steps[0]):
        raise ValueError("not a state of the Trainer")
    return state | {"max_steps": steps[1] if is_number(steps[1]) else 0}


def _run(name: str, state: Mapping[str, Any], settings: Mapping[str, Any]) -> Run:
    history: dict[float, dict[str, float]] = {}
    metrics: dict[str, float | None] = {}
    for row in state["log_history"]:
        values = {_metric(key): value for key, value in row.items() if key not in NOT_MEASURED and is_number(value)}
        metrics |= values
        if is_number(row.get("step")):
            history.setdefault(row["step"], {"step": row["step"]}).update(values)
    own = {key: state[key] for key in OF_THE_RUN if is_number(state.get(key))}
    return Run(name, own | dict(settings), metrics, list(history.values()))


def _metric(key: str) -> str:
    domain = next((domain for domain in DOMAINS if key.startswith(domain)), "")
    return DOMAINS.get(domain, "train/") + key.removeprefix(domain)


def _adapter(place: Path, checkpoint: Path, raw: Raw) -> dict[str, Any]:
    """What PEFT's configuration beside a run sets; lists, which PEFT keeps as sets, in one order."""
    for file in (checkpoint / ADAPTER_FILE, place / ADAPTER_FILE):
        try:
            values = orjson.loads(read_foreign(file, LARGEST_RECORD, links=False))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raw.problems.append(f"{file} is left out: {error}")
            continue
        if isinstance(values, dict) and not too_large(values):
            return {
                key: sorted(map(str, value)) if isinstance(value, list) else value
                for key, value in values.items()
                if value != {}
            }
        raw.problems.append(f"{file} is left out: not a configuration of PEFT")
    return {}
