"""Reads one table of another program's results: a frame, or a CSV, Parquet or JSON-lines file."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import BadRequestError, unknown
from analysis.sources.foreign import Roles, Run, add_runs, outcome, own_values
from analysis.sources.frames import flat_row
from analysis.sources.sweep import Raw
from sweep.files import read_foreign
from sweep.text import counted, named, reason

if TYPE_CHECKING:
    import pandas as pd

LARGEST_TABLE = 1 << 30
"""Bytes of the largest file that is read."""
FORMATS = (".csv", ".parquet", ".jsonl")
FEW = 0.5
"""Share of all examples below which a trial's are called few."""


def read_table(path: Path) -> pd.DataFrame:
    """The table in a file that somebody else may have made. Raises BadRequestError for a file that is none."""
    import pandas as pd

    readers: Mapping[str, Callable[[Any], pd.DataFrame]] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda file: pd.read_json(file, lines=True),
    }
    try:
        return readers[path.suffix](io.BytesIO(read_foreign(path, LARGEST_TABLE)))
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {reason(error)}") from None
    except (ValueError, TypeError, RecursionError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        fault = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadRequestError(f"{path} is no table in the format {path.suffix}: {fault}") from None


def read_frame(frame: pd.DataFrame, roles: Roles, name: str) -> Raw:
    """The trials in ``frame``: one a row, or one a setting and seed where the rows are scores of single examples.

    Raises BadRequestError, with one message, where a column is missing, mixes types or holds text for a metric, where a
    seed is missing, and where two rows say different things of the same trial.
    """
    metric = roles.metric
    if metric is None:
        raise BadRequestError("a table needs the name of its metric: metric= (--metric)")
    frame = _flat(frame.rename(columns=str).reset_index(drop=True))
    _refuse_columns(frame, roles, metric)
    raw = Raw()
    frame[metric] = _numbers(frame[metric])
    settings = _settings(frame, roles, metric)
    seeds = [roles.seed] if roles.seed is not None and roles.seed in frame else []
    own = own_values(frame[settings], frame[seeds[0]] if seeds else None, replace(roles, factors=None))
    certain = [name for name in settings if name not in own or roles.factors is not None]
    for column in certain:
        _refuse_mixture(frame[column])
        if missing := int(frame[column].isna().sum()):
            raw.problems.append(f"{missing} of {len(frame)} rows have no {column}; they are its level unset")
    if seeds and frame[seeds[0]].isna().any():
        raise BadRequestError(f"{seeds[0]} is missing in {_rows(frame[seeds[0]].isna())}; a trial needs its seed")
    keys = [*certain, *seeds]
    if seeds or roles.example:
        frame = _distinct(frame, [*keys, *([roles.example] if roles.example else [])], metric, raw)
    if roles.example:
        runs = _by_example(frame, keys, roles.example, metric)
    else:
        runs = _by_row(frame, [*settings, *seeds], metric)
    add_runs(raw, [Run(f"{name}-{place}", *rest) for place, rest in enumerate(runs)], roles)
    return raw


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with a column for each key of nested mappings, and a text for each list."""
    import pandas as pd

    if frame.columns.has_duplicates or not frame.map(lambda value: isinstance(value, list | tuple | dict)).any(
        axis=None
    ):
        return frame
    rows = frame.to_dict("records")
    return pd.DataFrame([flat_row({str(name): value for name, value in row.items()}) for row in rows])


def _refuse_columns(frame: pd.DataFrame, roles: Roles, metric: str) -> None:
    if frame.empty:
        raise BadRequestError("the table has no rows")
    if twice := sorted(set(frame.columns[frame.columns.duplicated()])):
        raise BadRequestError(f"the table has two columns of the name {twice[0]}; rename one")
    for column in (metric, roles.example, *(roles.factors or ())):
        if column is not None and column not in frame:
            raise unknown("column", column, frame.columns)


def _numbers(values: pd.Series) -> pd.Series:
    """The values of a metric. Raises BadRequestError where one of them is a text."""
    import pandas as pd

    numbers = pd.to_numeric(values.astype(object), errors="coerce").astype(float)
    texts = values.map(lambda value: isinstance(value, str)) | (numbers.isna() & values.notna())
    if texts.any():
        raise BadRequestError(
            f"the metric {values.name} is {values[texts].iloc[0]!r} in {_rows(texts)}, which is no number; leave such cells "
            "empty, or name another column with metric= (--metric)"
        )
    return numbers


def _settings(frame: pd.DataFrame, roles: Roles, metric: str) -> list[str]:
    """The columns that may be settings: the factors where they are named, or all that are no property of an example."""
    if roles.factors is not None:
        return list(dict.fromkeys(roles.factors))
    columns = [name for name in map(str, frame) if name not in (metric, roles.seed, roles.example)]
    if roles.example is None:
        return columns
    by_example = frame.groupby(roles.example, dropna=False)[columns].nunique(dropna=False).max()
    return [name for name in columns if by_example[name] > 1 or frame[name].nunique(dropna=False) == 1]


def _refuse_mixture(values: pd.Series) -> None:
    kinds = {"a text" if isinstance(value, str) else "a number": value for value in values.dropna()}
    if len(kinds) > 1:
        shown = " and ".join(f"{kind} ({value!r})" for kind, value in kinds.items())
        raise BadRequestError(f"the column {values.name} holds both {shown}; make them one type")


def _distinct(frame: pd.DataFrame, keys: list[str], metric: str, raw: Raw) -> pd.DataFrame:
    """One row a trial (and example). Raises BadRequestError where two say different things of the same."""
    same = frame.duplicated([*keys, metric])
    if same.any():
        raw.problems.append(f"{counted(int(same.sum()), 'row')} equal to an earlier one, counted once")
    frame = frame[~same]
    twice = frame.duplicated(keys, keep=False)
    if twice.any():
        at = frame.loc[frame.loc[twice, keys].drop_duplicates().index[0], keys]
        shown = ", ".join(f"{key}={value}" for key, value in at.items())
        raise BadRequestError(
            f"{_rows(twice)} have the same settings but another {metric} ({shown}): name the column that tells them apart "
            "with factors=, seed= or example= (--factors, --seed, --example), or average them first"
        )
    return frame


def _by_row(frame: pd.DataFrame, keys: list[str], metric: str) -> list[tuple[Any, ...]]:
    found = []
    for row in frame.to_dict("records"):
        value, status = outcome(row[metric])
        found.append(({key: _plain(row[key]) for key in keys}, {metric: value}, (), status))
    return found


def _by_example(frame: pd.DataFrame, keys: list[str], example: str, metric: str) -> list[tuple[Any, ...]]:
    """The mean and the scores of each trial, whose rows are its examples. Raises BadRequestError where these are few."""
    scored = frame[frame[metric].notna()]
    total = scored[example].nunique()
    found: list[tuple[Any, ...]] = []
    groups = scored.groupby(keys, dropna=False, sort=False) if keys else [((), scored)]
    for key, rows in groups:
        if len(rows) < FEW * total:
            at = ", ".join(f"{name}={value}" for name, value in zip(keys, key, strict=True))
            raise BadRequestError(
                f"{at} has scores of {len(rows)} of {total} examples; is one of {', '.join(keys)} no setting of a trial? Name "
                "the settings with factors= (--factors)"
            )
        value, status = outcome(float(rows[metric].mean()))
        by_example = {metric: dict(zip(rows[example].astype(str), rows[metric], strict=True))}
        settings = {name: _plain(level) for name, level in zip(keys, key, strict=True)}
        found.append((settings, {metric: value}, (), status, "", {} if status == "diverged" else by_example))
    return found


def _plain(value: Any) -> Any:
    """A cell as plain Python: numpy's numbers as Python's, a missing one as None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _rows(where: pd.Series) -> str:
    """``rows 3 and 7``, counted from 0 as pandas does."""
    places = list(map(str, where.index[where]))
    return f"row{'s' * (len(places) > 1)} {named(places, 3)}"
