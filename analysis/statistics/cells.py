"""Cells: from trials to one number per cell and seed, noting what was chosen and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.columns import (
    KIND,
    LEARNING_RATE,
    PACK_SIZE,
    SEED,
    SIZE,
    TASK,
    TRIAL,
    Column,
    describe,
    is_factor,
    is_metric,
)
from analysis.errors import BadRequestError, unknown
from analysis.statistics import cautions, examples, tuning
from analysis.statistics.confidence import Generalise
from analysis.statistics.intervals import ENOUGH_SEEDS
from analysis.statistics.levels import (
    REFERENCES,
    UNSET,
    follows,
    is_adapter,
    is_reference,
    labels,
    level_text,
    ordered,
)
from analysis.statistics.notes import Note, info, warning
from analysis.statistics.observations import Cell, Observations
from analysis.statistics.settings import settings, together
from sweep.metrics import OURS, Metric
from sweep.record import STATUSES


def observe(
    trials: pd.DataFrame,
    factors: Sequence[str],
    metric: str,
    metrics: Mapping[str, Metric] = OURS,
    generalise: Generalise = "both",
) -> Observations:
    """Reduce ``trials`` to one value of ``metric`` per cell of ``factors`` and seed.

    The scores of single examples are read for the trials behind these values where their files have them; ``generalise``
    says what verdicts should hold for besides.

    A learning rate that varies inside the cells is tuned (see ``analysis.statistics.tuning``) where the metric has a
    better direction. Other factors that vary inside the cells are averaged, over the combinations that all
    cells share. Trials that did not finish have no value; they are in ``counts``.
    Raises BadRequestError for unknown names, mixed tasks, and cells that share no combination.
    """
    column = known_metric(trials, metric, metrics)
    if len(set(factors)) < len(factors):
        raise BadRequestError(f"a factor is named twice: {', '.join(factors)}")
    trials, notes = _without_references(trials, factors)
    frame = pd.DataFrame({factor: labels(trials, factor) for factor in (*factors, SEED)})
    levels = {factor: ordered(frame[factor]) for factor in factors}
    frame["value"] = trials[metric].where(comparable(trials))
    frame[TRIAL] = frame.index
    counts = _count(trials, frame, factors)
    hidden = _hidden(trials, frame, factors)
    if TASK in hidden:
        raise BadRequestError(
            f"the trials mix the tasks {', '.join(ordered(labels(trials, TASK)))}; their {metric} must not be"
            f" averaged: add --where {TASK}=… or make it a factor"
        )
    chosen_by = tuning.criterion(trials, column, metrics)
    rates: dict[Cell, str] = {}
    rest = [factor for factor in hidden if factor != LEARNING_RATE or chosen_by is None]
    for factor in rest:
        frame[factor] = labels(trials, factor)
    if chosen_by is not None and LEARNING_RATE in hidden:
        frame, choices = tuning.tune(_scored(trials, frame, chosen_by), [*factors, *rest])
        rates = {cell: level_text(choice.usual) for cell, choice in choices.items()}
        notes += tuning.choice_notes(choices, column, chosen_by)
    elif chosen_by is not None and len(counts) > 1:
        notes += _untuned_notes(trials, factors)
    frame, scored, of_scores = examples.score(trials, frame, column)
    values, detail, averaging = _average(frame, factors, rest)
    values = values[values["value"].notna()].reset_index(drop=True)
    counts["n"] = values.groupby(list(factors))["value"].size().reindex(counts.index, fill_value=0).astype(int)
    enough = 1 if scored and generalise == "examples" else ENOUGH_SEEDS
    notes += [*of_scores, *averaging, *_count_notes(counts, enough), *_metric_notes(trials, column)]
    notes += examples.said(scored, column, generalise, int(counts["n"].max()))
    counted = trials[comparable(trials) & trials[metric].notna()]
    moves = together(counted, factors)
    ignored = [*rest, *([moves.follower] if moves else [])]
    ignored += [LEARNING_RATE] if chosen_by is None or LEARNING_RATE in hidden else []
    observations = Observations(
        column,
        tuple(factors),
        values,
        _in_level_order(counts, levels),
        levels,
        rates,
        (*factors, *rest),
        tuple(notes),
        settings={} if column.of_pack or column.name.startswith(SIZE) else settings(counted, factors, ignored),
        averaged=tuple(rest),
        detail=detail,
        diverged=_diverged(trials, factors, values),
        together=moves,
        scored=scored,
        generalise=generalise,
    )
    return replace(observations, notes=(*notes, *cautions.notes(observations, counted)))


def at_chosen_rates(trials: pd.DataFrame, observations: Observations) -> pd.DataFrame:
    """The trials at the learning rate that their cell usually chose; all of them where no rate was tuned."""
    if not observations.rates:
        return trials
    keys = zip(*(labels(trials, name) for name in observations.tuned_by), strict=True)
    chosen = pd.Series([observations.rates.get(key) for key in keys], index=trials.index, dtype=object)
    return trials[chosen.isna() | (labels(trials, LEARNING_RATE) == chosen)]


def comparable(trials: pd.DataFrame) -> pd.Series:
    """Whether each trial counts: it finished, and no replicate of it was pruned, which would leave the lucky seeds."""
    pruned = trials["status"] == "pruned"
    if pruned.any():
        factors = [name for name in trials.columns if is_factor(name) and name != SEED]
        pruned = pruned.groupby([trials[name] for name in factors], dropna=False).transform("any")
    return (trials["status"] == "finished") & ~pruned


def mean_within_seed(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """One row per combination of ``keys`` and seed: the mean ``value`` of its trials."""
    return frame.groupby([*keys, SEED], sort=False)["value"].mean().reset_index()


def known_metric(trials: pd.DataFrame, metric: str, metrics: Mapping[str, Metric] = OURS) -> Column:
    """The column of ``metric``; BadRequestError where no trial has it, naming the nearest that exist."""
    present = [name for name in trials.columns if is_metric(name) and trials[name].notna().any()]
    if metric not in present:
        raise unknown("metric", metric, present)
    return describe(metric, metrics)


def _without_references(trials: pd.DataFrame, factors: Sequence[str]) -> tuple[pd.DataFrame, list[Note]]:
    """The trials without full fine-tuning and the untouched base where no factor separates them from the others."""
    reference = is_reference(trials)
    separated = any(factor.startswith("adapter.") for factor in factors)
    if separated or not reference.any() or reference.all():
        return trials, []
    kinds = ordered(trials.loc[reference, KIND])
    return trials[~reference], [info("references left out", trials=int(reference.sum()), kinds=kinds)]


def _hidden(trials: pd.DataFrame, frame: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """Factors that vary inside a cell at one seed."""
    keys = [frame[name] for name in (*factors, SEED)]
    kinds_vary = KIND in trials and not follows(labels(trials, KIND), *keys)
    candidates = [
        name
        for name in trials.columns
        if is_factor(name)
        and name not in (*factors, SEED)
        and (kinds_vary or trials[name].nunique(dropna=False) > 1)  # a level follows from the value and the kind
    ]
    return [name for name in candidates if not follows(labels(trials, name), *keys)]


def _count(trials: pd.DataFrame, frame: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    ended = pd.DataFrame({"trials": True} | {name: trials["status"] == name for name in STATUSES})
    counts = ended.groupby([frame[name] for name in factors]).sum()
    if not isinstance(counts.index, pd.MultiIndex):
        counts.index = pd.MultiIndex.from_arrays([counts.index], names=list(factors))
    return counts


def _diverged(trials: pd.DataFrame, factors: Sequence[str], values: pd.DataFrame) -> dict[Cell, frozenset[str]]:
    """The seeds of each cell that have no value and a diverged trial."""
    lost = trials[trials["status"] == "diverged"]
    if lost.empty:
        return {}
    valued = set(values[[*factors, SEED]].itertuples(index=False, name=None))
    found: dict[Cell, set[str]] = {}
    for *cell, seed in zip(*(labels(lost, name) for name in (*factors, SEED)), strict=True):
        if (*cell, seed) not in valued:
            found.setdefault(tuple(cell), set()).add(seed)
    return {cell: frozenset(seeds) for cell, seeds in found.items()}


def _in_level_order(counts: pd.DataFrame, levels: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    places = [{level: place for place, level in enumerate(known)} for known in levels.values()]
    return counts.loc[
        sorted(counts.index, key=lambda cell: [place[level] for place, level in zip(places, cell, strict=True)])
    ]


def _scored(trials: pd.DataFrame, frame: pd.DataFrame, chosen_by: Column) -> pd.DataFrame:
    """``frame`` with the ``rate`` of each trial and the ``score`` by which the rate is chosen, to be minimised."""
    score = trials[chosen_by.name].where(comparable(trials)) * chosen_by.sign
    known_as_worse = trials["status"].isin(["pruned", "diverged"])
    return frame.assign(rate=pd.to_numeric(trials[LEARNING_RATE]), score=score.where(~known_as_worse, np.inf))


def _untuned_notes(trials: pd.DataFrame, factors: Sequence[str]) -> list[Note]:
    """That cells which train differently were all trained at one learning rate."""
    train_differently = any(factor.startswith(("adapter.", "training.")) for factor in factors)
    if LEARNING_RATE in factors or LEARNING_RATE not in trials or not train_differently:
        return []
    rate = labels(trials, LEARNING_RATE)
    rates = ordered(rate[~rate.isin(["none", UNSET])])
    return [warning("not tuned", rates=rates)] if rates else []


def _average(
    frame: pd.DataFrame, factors: Sequence[str], rest: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, list[Note]]:
    """Average over the factors ``rest``, on the combinations that every cell has; and what was averaged.

    A seed that lacks one of its cell's combinations has no value.
    """
    keys = list(factors)
    if not rest:
        return mean_within_seed(frame, keys), frame, []
    combination = pd.Series(list(zip(*(frame[name] for name in rest), strict=True)), index=frame.index)
    borrowing = [name for name in (*filter(is_adapter, keys), *rest) if name != KIND]
    reference = frame[borrowing].isin(REFERENCES).any(axis=1)
    kept = frame[_in_every_cell(frame, keys, rest, combination, reference)]
    averaged = mean_within_seed(kept, keys)
    have = kept.groupby([*keys, SEED], sort=False)["value"].count().to_numpy()
    needed = kept.assign(_c=combination[kept.index]).groupby(keys)["_c"].nunique()
    want = needed.reindex(pd.MultiIndex.from_frame(averaged[keys]) if len(keys) > 1 else averaged[keys[0]]).to_numpy()
    short = have < want
    averaged.loc[short, "value"] = np.nan
    sizes = [(name, int(kept.loc[~reference, name].nunique())) for name in rest]
    over = [(name, size) for name, size in sizes if size > 1]
    notes = [info("averaged", over=over)] if over else []
    if len(kept) < len(frame):
        notes.append(info("combinations left out", values=len(frame) - len(kept), factors=rest))
    if short.any():
        notes.append(info("seeds left out", seeds=int(short.sum())))
    return averaged, kept, notes


def _in_every_cell(
    frame: pd.DataFrame, keys: list[str], rest: list[str], combination: pd.Series, reference: pd.Series
) -> pd.Series:
    """Which rows have a ``combination`` of the factors ``rest`` that every cell of ``keys`` has.

    A ``reference`` row has its kind for a level where it has no setting, of the adapter or the optimizer, and agrees
    there with any.
    Raises BadRequestError where the cells share no combination.
    """
    sets = combination[~reference].groupby([frame.loc[~reference, key] for key in keys]).agg(set)
    shared = set.intersection(*sets) if len(sets) else set(combination)
    if not shared:
        raise BadRequestError(
            f"the cells of {', '.join(keys)} share no combination of {', '.join(rest)}, so their averages "
            "would not be comparable; narrow the question with --where"
        )

    def agrees(own: tuple[str, ...]) -> bool:
        asked = [place for place, name in enumerate(rest) if name == KIND or own[place] not in REFERENCES]
        return any(all(own[place] == other[place] for place in asked) for other in shared)

    return combination.isin([own for own in combination.unique() if agrees(own)])


def _count_notes(counts: pd.DataFrame, enough: int) -> list[Note]:
    """That there are fewer seeds than ``enough``, and how many trials have no value."""
    notes = []
    filled = counts["n"][counts["n"] > 0]
    if len(filled) and filled.min() < enough:
        notes.append(warning("few seeds", seeds=int(filled.min()), enough=enough))
    diverged, failed, pruned, trials = (int(counts[name].sum()) for name in ("diverged", "failed", "pruned", "trials"))
    if diverged + failed:
        notes.append(info("lost", diverged=diverged, failed=failed, trials=trials))
    if pruned:
        notes.append(info("pruned", trials=pruned))
    return notes


def _metric_notes(trials: pd.DataFrame, column: Column) -> list[Note]:
    """What must be known about the metric itself."""
    notes = []
    if without := int((trials[column.name].isna() & (trials["status"] == "finished")).sum()):
        notes.append(info("without a value", trials=without, metric=column.name))
    if column.of_pack:
        sizes = ordered(trials[PACK_SIZE].dropna().map(level_text)) if PACK_SIZE in trials else []
        notes.append(warning("of packs", metric=column.name, sizes=sizes))
    elif column.better is None:
        notes.append(info("no direction", metric=column.name))
    return notes
