"""The interactive part of the report: packs the trials and their curves for the page's own script.

Columns of text travel as level numbers, curves as one block of float32, both gzipped; the script draws them on
2D canvases. Nothing is fetched, so the page works from a mail attachment.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.columns import COST, RATIO, SEED, SIZE, TRAINABLE, describe, is_factor, is_metric
from analysis.sources.sweep import Sweep
from analysis.statistics.confidence import INTERVAL_NAME
from analysis.statistics.intervals import quantile
from analysis.statistics.levels import labels, ordered, swept
from analysis.statistics.questions import OF_BASE, deciding, measured
from sweep.metrics import ALONE_STEP, validation_name

MOST_STEPS = 64
MOST_CURVES = 6
MOST_METRICS = 200


def payload(sweep: Sweep, target: Path | None, refresh: int | None) -> tuple[str, str]:
    """The two data blocks of the page, gzipped and in base64: the columns as JSON, and the curves as float32."""
    trials = sweep.trials
    factors = [name for name in trials.columns if is_factor(name) and name != SEED]
    varied = [name for name in factors if labels(trials, name).nunique() > 1]
    main = [name for name in swept(trials) if name in varied] or varied[:1] or factors[:1]
    metrics = _metrics(sweep)
    curves, block = _curves(sweep, metrics)
    costs = [name for name in (TRAINABLE, ALONE_STEP.name) if name in trials and trials[name].nunique() > 1]
    label = "folder" if trials["folder"].notna().any() else "run" if "run" in trials else "trial_id"
    ratio = [RATIO] if RATIO in trials else []
    seeds = trials[SEED].nunique()
    content: dict[str, Any] = {
        "count": len(trials),
        "columns": _columns(sweep, [*main, *varied], metrics),
        "factors": [*main, *([SEED] if seeds > 1 else [])] or [SEED],
        "metrics": metrics,
        "costs": costs,
        "group": main[0] if main else SEED,
        "metric": metrics[0],
        "shown": list(dict.fromkeys([*main, SEED, *metrics[:6], *ratio, *costs, "status", label])),
        "name": label,
        "curves": curves,
        "interval": INTERVAL_NAME,
        "quantiles": [quantile(freedom) for freedom in range(1, seeds)],
        "links": _links(sweep, target),
        "refresh": refresh,
    }
    columns = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return packed(columns), packed(block)


def packed(content: bytes) -> str:
    """``content`` gzipped and in base64, as the page's script unpacks it."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def _metrics(sweep: Sweep) -> list[str]:
    """The metrics that a reader may choose, the one that decides first."""
    names = measured(sweep.trials, sweep.metrics)
    results = [name for name in names if not name.startswith((SIZE, COST, *OF_BASE))]
    costs = [name for name in names if name.startswith(COST) and describe(name, sweep.metrics).better]
    chosen = [*results, *costs] or names[:1]
    first = deciding(sweep.trials, sweep.metrics) if results else chosen[0]
    return list(dict.fromkeys([first, *chosen]))[:MOST_METRICS]


def _columns(sweep: Sweep, factors: list[str], metrics: list[str]) -> list[dict[str, Any]]:
    """The columns of the explorer's table: identity, ``factors``, seed, ``metrics`` and whatever else was measured."""
    trials = sweep.trials
    text = ["trial_id", "folder", "run", "status", "name", "error.type", "error.message", *factors, SEED]
    numbers = [*metrics, *(name for name in trials.columns if is_metric(name) and name not in metrics)]
    return [
        *(_text_column(trials, name) for name in dict.fromkeys(text) if name in trials),
        *(_number_column(sweep, name) for name in numbers[:MOST_METRICS]),
    ]


def _text_column(trials: pd.DataFrame, name: str) -> dict[str, Any]:
    if is_factor(name):
        values = labels(trials, name)
    elif name == "folder":
        values = trials[name].map(lambda path: Path(path).name, na_action="ignore")
    else:
        values = trials[name]
    levels = ordered(map(str, values.dropna()))
    place = {level: index for index, level in enumerate(levels)}
    return {
        "name": name,
        "label": describe(name).label if is_factor(name) else name.replace("_", " ").replace(".", " "),
        "levels": levels,
        "values": [-1 if pd.isna(value) else place[str(value)] for value in values],
    }


def _number_column(sweep: Sweep, name: str) -> dict[str, Any]:
    column = describe(name, sweep.metrics)
    values = [float(f"{value:.7g}") if math.isfinite(value) else None for value in sweep.trials[name].astype(float)]
    whole = all(value is None or value.is_integer() for value in values)
    shown = [int(value) if value is not None else None for value in values] if whole else values
    curve = validation_name(name)
    return {"name": name, "label": column.title, "better": column.better, "curve": curve, "values": shown}


def _curves(sweep: Sweep, metrics: list[str]) -> tuple[list[dict[str, Any]], bytes]:
    """The logged metrics on a common grid of at most MOST_STEPS steps: trials × steps, NaN where nothing was logged."""
    place = pd.Series(range(len(sweep.trials)), index=sweep.trials["trial_id"])
    curves, blocks, offset = [], [], 0
    for metric in metrics:
        if metric not in sweep.history:
            continue
        rows = sweep.history[sweep.history[metric].notna() & sweep.history["trial_id"].isin(place.index)]
        steps = np.unique(rows["step"].to_numpy(dtype=float))
        if len(steps) < 2:
            continue
        if len(steps) > MOST_STEPS:
            steps = steps[np.unique(np.linspace(0, len(steps) - 1, MOST_STEPS).round().astype(int))]
            rows = rows[rows["step"].isin(steps)]
        block = np.full((len(place), len(steps)), np.nan, dtype=np.float32)
        at = np.searchsorted(steps, rows["step"].to_numpy(dtype=float))
        block[rows["trial_id"].map(place).to_numpy(), at] = rows[metric].to_numpy(dtype=np.float32)
        curves.append({"metric": metric, "steps": [int(step) for step in steps], "offset": offset})
        blocks.append(block.tobytes())
        offset += block.size
        if len(curves) == MOST_CURVES:
            break
    return curves, b"".join(blocks)


def _links(sweep: Sweep, target: Path | None) -> str | None:
    """The relative way from the page to the trials' folders, when they all lie in one folder."""
    parents = {Path(item).parent for item in sweep.trials["folder"].dropna()}
    if len(parents) != 1 or target is None:
        return None
    return Path(os.path.relpath(parents.pop().resolve(), target.resolve())).as_posix() + "/"
