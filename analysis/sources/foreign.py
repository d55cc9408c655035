"""Results of other programs under our names: settings as ``config.…``, metrics as ``metric/…``, seeds as ``seed``.

Settings are told from measurements: a setting takes the same value in several runs. Whatever has a
value of its own in nearly every run (a name, a date, a duration) is no setting, and ``Sweep.problems`` says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from analysis.columns import MEASURED, SEED, SETTING, describe, is_factor, is_metric, own_name
from analysis.errors import unknown
from analysis.sources import cache
from analysis.sources.frames import flat_row
from analysis.sources.sweep import Raw
from sweep.metrics import OURS, Better, Metric
from sweep.record import LARGEST, Status, is_number
from sweep.text import named

if TYPE_CHECKING:
    import pandas as pd

LOSSES = "loss"
"""Endings of the names of metrics that are better low unless said otherwise, as in ``transformers``."""


@dataclass(frozen=True)
class Roles:
    """The roles of another program's columns.

    ``seed`` is the setting that distinguishes replicates. ``factors`` are the settings that count (None: all that are
    settings). ``metric`` is the one that decides, and ``lower_is_better`` says which way (None: lower for names
    that end in ``loss``, otherwise unknown). ``example`` names the rows of one trial, where a row is a score of one.
    """

    metric: str | None = None
    seed: str | None = SEED
    factors: Sequence[str] | None = None
    lower_is_better: bool | None = None
    example: str | None = None

    def describe(self, name: str) -> Metric:
        """What the metric of this full name means; the one that decides also chooses learning rates for the others."""
        told = self.lower_is_better if self.metric in (name, own_name(name)) else None
        if told is None and name in OURS:
            return OURS[name]
        better: Better | None = None
        if told is not None:
            better = "lower" if told else "higher"
        elif name.endswith(LOSSES):
            better = "lower"
        decides = metric_name(self.metric) if self.metric else name
        return Metric(name, describe(own_name(name)).label, better=better, tuned_on=decides if better else None)


AS_FOUND = Roles()
"""The defaults: seeds are called ``seed``."""


@dataclass(frozen=True)
class Run:
    """One trial of another program: what it set, what it measured at its end, and its rows of history with ``step``.

    ``scores`` has the score of each example, by metric.
    """

    name: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    history: Sequence[Mapping[str, float]] = ()
    status: Status = "finished"
    id: str = ""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def add_runs(raw: Raw, runs: Sequence[Run], roles: Roles) -> None:
    """Add ``runs`` to ``raw`` under our names; what is left out is a problem, said once for all of them."""
    import pandas as pd

    if not runs:
        return
    plain = [{name: _plain(value) for name, value in flat_row(run.settings).items()} for run in runs]
    settings = pd.DataFrame(plain, dtype=object)
    seed = _seeds(settings, roles)
    own = own_values(settings.drop(columns=[roles.seed], errors="ignore"), seed, roles)
    if own and roles.factors is None:
        raw.problems.append(f"not taken for settings, because nearly every run has a value of its own: {named(own)}")
    if seed is None:
        raw.problems.append(
            "no seeds are known, so every run counts as a replicate of its own, nothing is paired, and there is no verdict; "
            "name the seeds' column with seed= (--seed)"
        )
    kept = [name for name in settings if name not in (roles.seed, *own)]
    for place, (run, values) in enumerate(zip(runs, plain, strict=True)):
        measured = {name: value for name, value in values.items() if name in own and is_number(value)}
        results = {metric_name(name): value for name, value in (dict(run.metrics) | measured).items()}
        row = {
            "trial_id": run.id or _identity(run),
            "run": run.name,
            "status": run.status,
            SEED: place if seed is None else seed.iloc[place],
            **{factor_name(name): values[name] for name in kept if name in values},
            **results,
        }
        history = [{metric_name(name): value for name, value in step.items()} for step in run.history]
        if run.scores:
            row["folder"] = _keep_scores(raw, run)
        raw.add(row, history, run.name)
        raw.declare({name: roles.describe(name) for name in results if name not in raw.metrics}, run.name)


def own_values(settings: pd.DataFrame, seed: pd.Series | None, roles: Roles) -> list[str]:
    """The columns of ``settings`` that are none: not among the asked factors, or different in more than half of the runs.

    Of runs without replicates the fractional numbers that are all different are taken for measurements.
    Raises BadRequestError for a factor that does not exist.
    """
    names = list(map(str, settings.columns))
    if roles.factors is not None:
        for factor in roles.factors:
            if factor not in names:
                raise unknown("factor", factor, names)
        return [name for name in names if name not in roles.factors]
    distinct = settings.astype(str).nunique()
    if seed is not None and seed.nunique() > 1:
        return [name for name in names if distinct[name] > len(settings) / 2]
    fractions = settings.map(lambda value: isinstance(value, float) and not value.is_integer()).any()
    return [name for name in names if len(settings) > 2 and fractions[name] and distinct[name] == len(settings)]


def _plain(value: Any) -> Any:
    """A setting that a column can hold: a text, a truth value or a number up to 64 bits; anything else as its text."""
    return value if isinstance(value, str | bool) or is_number(value) else str(value)


def factor_name(name: str) -> str:
    """Our name of another program's setting."""
    return name if is_factor(name) and name != SEED else SETTING + name


def metric_name(name: str) -> str:
    """Our name of another program's metric."""
    return name if is_metric(name) or name == "step" else MEASURED + name


def _seeds(settings: pd.DataFrame, roles: Roles) -> pd.Series | None:
    """The seed of each run; None where there is none. Raises BadRequestError where only some have one."""
    if roles.seed not in settings:
        if roles.seed not in (None, SEED):
            raise unknown("column of seeds", str(roles.seed), map(str, settings))
        return None
    return settings[roles.seed]


def _identity(run: Run) -> str:
    """What distinguishes the run from one of the same name in another source."""
    return hashlib.sha256(repr((run.name, dict(run.settings), dict(run.metrics))).encode()).hexdigest()[:16]


def _keep_scores(raw: Raw, run: Run) -> str | None:
    """Write the scores of a run where the analysis looks for them, in the user's cache; the folder that holds them."""
    import numpy as np

    from sweep import scores

    shared = sorted(set.intersection(*(set(values) for values in run.scores.values())))
    ids = [int.from_bytes(hashlib.sha256(example.encode()).digest()[:8]) for example in shared]
    of_examples = scores.Scores(
        np.array(ids, dtype=np.uint64),
        np.arange(len(shared), dtype=np.int32),
        np.ones(len(shared), dtype=np.float32),
        {metric_name(name): np.array([v[e] for e in shared], np.float32) for name, v in run.scores.items()},
    )
    digest = hashlib.sha256(repr((run.name, run.scores)).encode()).hexdigest()[:32]
    folder = cache.place() / "scores" / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scores.write({"target": of_examples}, folder / scores.SCORES_FILE)
    except (OSError, ValueError) as error:
        raw.problems.append(f"the scores of the examples of {run.name} are left out: {error}")
        return None
    return folder.as_posix()


def outcome(value: float | None) -> tuple[float | None, Status]:
    """A value as a record has it: an infinite one is that of a diverged run."""
    if value is not None and abs(value) > LARGEST:
        return None, "diverged"
    return value, "finished"
