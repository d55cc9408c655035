"""Cells: from trials to one number per cell and seed, saying aloud what was chosen and what was left out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.columns import KIND, LEARNING_RATE, SEED, TASK, Column, describe, is_factor, is_metric
from analysis.errors import BadRequestError, unknown
from analysis.sources.load import named
from analysis.statistics import tuning
from analysis.statistics.intervals import ENOUGH_SEEDS, Summary, summarise
from analysis.statistics.levels import is_adapter, is_reference, labels, level_text, ordered
from sweep.record import STATUSES

Cell = tuple[str, ...]


@dataclass(frozen=True)
class Observations:
    """One metric over the cells of some factors.

    ``values``: one row per cell and seed with a value: the factors' levels (text), ``seed``, ``value``.
    ``counts``: one row per cell (index: levels): ``trials``, ``finished``, ``pruned``,
    ``diverged``, ``failed``, ``n``.
    ``levels``: the levels of each factor in order. ``rates``: the learning rate that each tuned cell usually
    chose, by the levels of ``tuned_by`` (the factors, and those averaged over).
    ``notes``: what a reader must know, in sentences.
    """

    metric: Column
    factors: tuple[str, ...]
    values: pd.DataFrame
    counts: pd.DataFrame
    levels: dict[str, list[str]]
    rates: dict[Cell, str]
    tuned_by: tuple[str, ...]
    notes: tuple[str, ...]

    def cell(self, cell: Cell) -> pd.Series:
        """The values of one cell by seed, empty where there are none."""
        return self._by_cell.get(cell, pd.Series(dtype=float))

    @cached_property
    def _by_cell(self) -> dict[Cell, pd.Series]:
        groups = self.values.groupby(list(self.factors), sort=False)
        by_seed = ((key, pd.Series(part["value"].to_numpy(), part[SEED].to_numpy())) for key, part in groups)
        return {tuple(map(str, key)): values for key, values in by_seed}

    def summary(self, cell: Cell) -> Summary:
        """Mean and interval of one cell over its seeds."""
        return summarise(self.cell(cell))

    @property
    def filled(self) -> list[Cell]:
        """The cells that have at least one value, in level order."""
        return [cell for cell, n in zip(self.counts.index, self.counts["n"], strict=True) if n]

    @property
    def cells(self) -> list[Cell]:
        """Every cell that has at least one trial, in level order."""
        return list(self.counts.index)


def observe(trials: pd.DataFrame, factors: Sequence[str], metric: str) -> Observations:
    """Reduce ``trials`` to one value of ``metric`` per cell of ``factors`` and seed.

    A learning rate that varies inside the cells is tuned (see ``analysis.tuning``) where the metric has a
    better direction. Other factors that vary inside the cells are averaged, over the combinations that all
    cells share. Trials that did not finish have no value; they are in ``counts``.
    Raises BadRequestError for unknown names, mixed tasks, and cells that share no combination.
    """
    column = known_metric(trials, metric)
    if len(set(factors)) < len(factors):
        raise BadRequestError(f"a factor is named twice: {', '.join(factors)}")
    notes: list[str] = []
    levels = {factor: labels(trials, factor) for factor in (*factors, SEED)}
    if not any(factor.startswith("adapter.") for factor in factors):
        trials = _without_references(trials, factors, notes)
        levels = {factor: level[trials.index] for factor, level in levels.items()}
    frame = pd.DataFrame(levels)
    frame["value"] = trials[metric].where(comparable(trials))
    hidden = _hidden(trials, frame, factors)
    if TASK in hidden:
        raise BadRequestError(
            f"the trials mix the tasks {', '.join(ordered(labels(trials, TASK)))}; their {metric} must not be"
            f" averaged: add --where {TASK}=… or make it a factor"
        )
    counts = _count(trials, frame, factors)
    tuned = LEARNING_RATE in hidden and column.tuned_on is not None
    rates: dict[Cell, str] = {}
    rest = [factor for factor in hidden if factor != LEARNING_RATE or not tuned]
    for factor in rest:
        frame[factor] = labels(trials, factor)
    if tuned:
        frame, rates = _tune(trials, frame, [*factors, *rest], column, notes)
    elif column.tuned_on and len(counts) > 1 and LEARNING_RATE not in factors and _any_adapter(factors):
        rate = labels(trials, LEARNING_RATE) if LEARNING_RATE in trials else pd.Series(dtype=object)
        used = ordered(rate[~rate.isin(["none", "unset"])])
        if used:
            at = f"a single learning rate ({used[0]})" if len(used) == 1 else "one learning rate a cell"
            notes.append(f"WARNING: cells are compared at {at}; a difference may vanish once the rate is tuned.")
    values = _average(frame, factors, rest, bool(is_reference(trials).any()), notes)
    values = values[values["value"].notna()].reset_index(drop=True)
    sizes = values.groupby(list(factors))["value"].size()
    counts["n"] = sizes.reindex(counts.index, fill_value=0).astype(int)
    _warn(values, counts, notes, column, trials)
    order = {factor: ordered(levels[factor]) for factor in factors}
    counts = counts.loc[
        sorted(counts.index, key=lambda cell: [order[f].index(v) for f, v in zip(factors, cell, strict=True)])
    ]
    return Observations(column, tuple(factors), values, counts, order, rates, (*factors, *rest), tuple(notes))


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


def known_metric(trials: pd.DataFrame, metric: str) -> Column:
    """The column of ``metric``; BadRequestError where no trial has it, naming the nearest that exist."""
    present = [name for name in trials.columns if is_metric(name) and trials[name].notna().any()]
    if metric not in present:
        raise unknown("metric", metric, present)
    return describe(metric)


def _any_adapter(factors: Sequence[str]) -> bool:
    return any(factor.startswith(("adapter.", "training.")) for factor in factors)


def _without_references(trials: pd.DataFrame, factors: Sequence[str], notes: list[str]) -> pd.DataFrame:
    reference = is_reference(trials)
    if KIND in trials and reference.any() and not reference.all():
        kinds = ", ".join(ordered(trials.loc[reference, KIND]))
        notes.append(f"{int(reference.sum())} trials of kind {kinds} are left out: no factor here separates them.")
        return trials[~reference]
    return trials


def _hidden(trials: pd.DataFrame, frame: pd.DataFrame, factors: Sequence[str]) -> list[str]:
    """Factors that vary inside a cell at one seed."""
    keys = [frame[name].to_numpy() for name in (*factors, SEED)]
    hidden = []
    for name in trials.columns:
        if not is_factor(name) or name in (*factors, SEED):
            continue
        level = labels(trials, name)
        if level.nunique() > 1 and (level.groupby(keys).nunique() > 1).any():
            hidden.append(name)
    return hidden


def _count(trials: pd.DataFrame, frame: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    status = trials["status"].astype(str)
    keys = [frame[name].rename(name) for name in factors]
    counts = pd.crosstab(keys, status.rename("status"))
    if not isinstance(counts.index, pd.MultiIndex):
        counts.index = pd.MultiIndex.from_arrays([counts.index], names=list(factors))
    for name in STATUSES:
        if name not in counts:
            counts[name] = 0
    counts["trials"] = counts.sum(axis=1)
    return counts[["trials", *STATUSES]]


def _tune(
    trials: pd.DataFrame, frame: pd.DataFrame, keys: list[str], column: Column, notes: list[str]
) -> tuple[pd.DataFrame, dict[Cell, str]]:
    """One row per key and seed, each seed at the learning rate that the other seeds chose."""
    criterion = describe(column.tuned_on) if column.tuned_on and column.tuned_on in trials else column
    score = trials[criterion.name].where(comparable(trials)) * criterion.sign
    known_as_worse = trials["status"].isin(["pruned", "diverged"])
    frame = frame.assign(rate=pd.to_numeric(trials[LEARNING_RATE]), score=score.where(~known_as_worse, np.inf))
    rows: list[dict[Hashable, object]] = []
    rates: dict[Cell, str] = {}
    edges, peeked = [], 0
    for key, group in frame.groupby(keys, sort=False):
        cell = tuple(map(str, key)) if isinstance(key, tuple) else (str(key),)
        if group["rate"].isna().all():
            rows += group[[*keys, SEED, "value"]].to_dict("records")
            continue
        found = tuning.choose(group)
        rows += [
            {**dict(zip(keys, cell, strict=True)), SEED: seed, "value": value} for seed, value in found.values.items()
        ]
        rates[cell] = level_text(found.usual)
        peeked += found.peeked
        if found.edge:
            edges.append("/".join(cell))
    by = "" if criterion.name == column.name else f" by {criterion.name}"
    same = f" ({next(iter(rates.values()))} in every cell)" if len(set(rates.values())) == 1 else ""
    notes.append(
        f"Each cell is at its own best learning rate{by}, chosen for each half of the seeds on the other{same}."
    )
    if peeked:
        notes.append(f"WARNING: {peeked} cells have one seed, so their rate was chosen on the reported trial itself.")
    if edges:
        notes.append(
            f"WARNING: the best rate is at the edge of its grid in {len(edges)} of {len(rates)} cells "
            f"({named(edges, 3)}); a wider grid may change the comparison."
        )
    return pd.DataFrame(rows), rates


def _average(
    frame: pd.DataFrame, factors: Sequence[str], rest: list[str], references: bool, notes: list[str]
) -> pd.DataFrame:
    """Average over the factors ``rest``, on the combinations that every cell has."""
    keys = list(factors)
    if not rest:
        return frame.groupby([*keys, SEED], sort=False)["value"].mean().reset_index()
    shared_by_all = [factor for factor in rest if not is_adapter(factor)] if references else rest
    combination = pd.Series(list(zip(*(frame[name] for name in rest), strict=True)), index=frame.index)
    reference = frame[[name for name in (*keys, *rest) if is_adapter(name)]].isin(["full", "none"]).any(axis=1)
    sets = combination[~reference].groupby([frame.loc[~reference, key] for key in keys]).agg(set)
    shared = set.intersection(*sets) if len(sets) else set(combination)
    if not shared:
        raise BadRequestError(
            f"the cells of {', '.join(factors)} share no combination of {', '.join(rest)}, so their averages "
            "would not be comparable; narrow the question with --where"
        )
    positions = [rest.index(name) for name in shared_by_all]
    allowed = {tuple(item[i] for i in positions) for item in shared}
    fits = combination.isin(list(shared)) & ~reference
    fits |= reference & combination.map(lambda item: tuple(item[i] for i in positions) in allowed)
    kept = frame[fits]
    needed = kept.assign(_c=combination[fits]).groupby(keys)["_c"].nunique()
    groups = kept.groupby([*keys, SEED], sort=False)["value"]
    averaged = groups.mean().reset_index()
    have = groups.count().to_numpy()
    want = needed.reindex(pd.MultiIndex.from_frame(averaged[keys]) if len(keys) > 1 else averaged[keys[0]]).to_numpy()
    short = have < want
    averaged.loc[short, "value"] = np.nan
    sizes = ", ".join(f"{name} ({kept.loc[~reference, name].nunique()} levels)" for name in rest)
    notes.append(f"Each value is the mean over {sizes} at one seed.")
    if len(kept) < len(frame):
        notes.append(f"{len(frame) - len(kept)} values are left out: not every cell has their {', '.join(rest)}.")
    if short.any():
        notes.append(f"{int(short.sum())} seeds are left out of their cell: some of their trials did not finish.")
    return averaged


def _warn(values: pd.DataFrame, counts: pd.DataFrame, notes: list[str], column: Column, trials: pd.DataFrame) -> None:
    filled = counts["n"][counts["n"] > 0]
    if len(filled) and filled.min() < ENOUGH_SEEDS:
        few = f"{int(filled.min())} seed" + ("s" if filled.min() > 1 else "")
        notes.append(f"WARNING: {few} in the smallest cell; with fewer than {ENOUGH_SEEDS} nothing can be concluded.")
    lost = int((counts["diverged"] + counts["failed"]).sum())
    if lost:
        notes.append(
            f"{int(counts['diverged'].sum())} diverged and {int(counts['failed'].sum())} failed trials of "
            f"{int(counts['trials'].sum())} have no value; the mean is over the rest."
        )
    pruned = int(counts["pruned"].sum())
    if pruned:
        notes.append(
            f"{pruned} trials were pruned early, against the others of their pack; they and their replicates have no value."
        )
    without = int((trials[column.name].isna() & (trials["status"] == "finished")).sum())
    if without:
        notes.append(f"{without} finished trials have no {column.name} and are left out.")
    packs = "perf/pack_size"
    if column.name in ("perf/step_ms", "perf/samples_per_second", "perf/peak_memory_mb") and packs in trials:
        sizes = ordered(trials[packs].dropna().map(level_text))
        shown = "trained alone" if sizes == ["1"] else f"measured in packs of {named(sizes)} trials"
        mixed = "; cells of different pack size are not comparable" if len(sizes) > 1 else ""
        notes.append(f"Speed and memory are {shown}{mixed}.")
