"""What Python and the command line ask of a sweep: tables, comparisons, effects, plots, the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from analysis.columns import SEED, full_name
from analysis.errors import BadRequestError, unknown
from analysis.sources.foreign import Roles
from analysis.sources.frames import assemble
from analysis.sources.load import load as read
from analysis.sources.sweep import Sweep
from analysis.sources.tabular import read_frame
from analysis.statistics.confidence import Generalise

if TYPE_CHECKING:
    import pandas as pd

    from analysis.tables.shown import Shown

Level = str | float
"""A level of a factor; a number stands for its text."""
Where = Mapping[str, Level | Iterable[Level]]


def load(
    source: str | Path | Sequence[str | Path],
    *,
    metric: str | None = None,
    seed: str = SEED,
    factors: Sequence[str] | None = None,
    lower_is_better: bool | None = None,
    example: str | None = None,
) -> Results:
    """Read the trials of one source, or of several together.

    A source is a sweep's folder (``outputs/rank``), a folder of offline W&B runs, or runs on a W&B server
    (``wandb:entity/project`` or ``wandb:entity/project/group``). The results of another program may also be a
    ``.csv``, ``.parquet`` or ``.jsonl`` file, a folder of runs of the ``transformers`` Trainer, or one of
    lm-evaluation-harness's samples; the other arguments say what is what there (see ``from_frame``).
    Raises BadRequestError when a source does not exist or holds no trial at all.

    >>> len(load(folder).trials)
    70
    """
    return Results(**vars(read(source, Roles(metric, seed, factors, lower_is_better, example))))


def from_frame(
    frame: pd.DataFrame,
    metric: str,
    *,
    seed: str = SEED,
    factors: Sequence[str] | None = None,
    lower_is_better: bool = True,
    example: str | None = None,
) -> Results:
    """The results of another program: one row a trial, or, with ``example``, one row a trial and example.

    ``metric`` is the column that is compared, ``seed`` the one that tells replicates apart; without it there are no
    verdicts. ``factors`` are the columns that are settings, None for all that take the same value in several trials.
    ``example`` is the column that says on which example the metric is a score.
    Raises BadRequestError, with one message, for a table that cannot be read so.

    >>> import pandas as pd
    >>> rows = [(r, s, 0.5 + 0.1 / r + 0.01 * s + 0.001 * ((r + s) % 2)) for r in (1, 4) for s in range(5)]
    >>> ours = from_frame(pd.DataFrame(rows, columns=["r", "seed", "loss"]), metric="loss")
    >>> ours.table(rows="r", baseline=1).frame[["r", "mean", "n", "verdict"]].round(3)
       r   mean  n verdict
    0  1  0.621  5     NaN
    1  4  0.545  5  better
    """
    roles = Roles(metric, seed, factors, lower_is_better, example)
    return Results(**vars(assemble("frame", read_frame(frame, roles, "frame"), None)))


@dataclass(frozen=True, repr=False)
class Results(Sweep):
    """The trials of a sweep, and what can be asked about them.

    ``trials`` has one row a trial and ``history`` one row a logged step (see ``analysis.sources.sweep``). Every answer
    shows itself in a terminal and in a notebook, and has a ``frame``, ``markdown`` and ``latex``.
    """

    def table(
        self,
        rows: str,
        columns: str | None = None,
        *,
        metric: str | None = None,
        where: Where | None = None,
        baseline: Level | Iterable[Level] = (),
        generalise: Generalise = "both",
        margin: float | None = None,
    ) -> Shown:
        """One metric over rows × columns: mean with interval and n, and what a reader must know.

        ``metric`` is the one that decides unless it is named. ``where`` keeps some trials. ``baseline`` is a level of
        ``rows``, or a row and a column level; cells that differ from it are marked. ``generalise`` is what verdicts should
        hold for besides what was tried; ``margin`` the largest difference that does not matter, for *equivalent*.
        Raises BadRequestError for unknown names and for questions that the trials cannot answer.

        >>> results.table(rows="adapter.rank", baseline=4).frame[["adapter.rank", "n", "verdict"]]
          adapter.rank  n verdict
        0            1  5   worse
        1            2  5   worse
        2            4  5     NaN
        3         full  5  better
        4         none  5   worse
        """
        from analysis.tables.frame import table_frame
        from analysis.tables.shown import Shown
        from analysis.tables.table import build

        only = self._conditions(where)
        table = build(
            self,
            full_name(rows, self.trials),
            self._name(columns),
            self._name(metric),
            levels(baseline),
            only,
            generalise,
            margin,
        )
        shown = Shown(table, "", table_frame(table))
        return replace(shown, text=shown.markdown.removesuffix("\n"))

    def filter(self, where: Where) -> Self:
        """The results of the trials at these levels alone.

        >>> results.filter({"adapter.rank": [1, 2], "adapter.kind": "lora"}).counts["finished"]
        40
        """
        from analysis.statistics.levels import select

        return self._of(select(self.trials, self._conditions(where)).index)

    def without(self, *trials: str) -> Self:
        """The results without some trials, each named by its folder, its W&B run or its id.

        >>> results.counts["finished"] - results.without("trial_00003").counts["finished"]
        1
        """
        given = {name: self.trials[name] for name in ("trial_id", "folder", "run") if name in self.trials}
        given["folder"] = given["folder"].map(lambda path: Path(path).name, na_action="ignore")
        for trial in trials:
            if not any((names == trial).any() for names in given.values()):
                raise unknown("trial", trial, given["folder"].fillna(given.get("run", given["trial_id"])))
        out = [names.isin(trials) for names in given.values()]
        return self._of(self.trials.index[~sum(out[1:], out[0])])

    def report(
        self, target: str | Path | None = None, *, generalise: Generalise = "both", margin: float | None = None
    ) -> Path:
        """Write the report into ``target`` (default: ``report/`` beside the trials) and return the path of its page.

        >>> results.report(place / "report").name
        'index.html'
        """
        from analysis.report import report

        folder = None if target is None else Path(target)
        return report.write(self, folder, generalise=generalise, margin=margin)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
        return f"{self.name}: {len(self.trials)} trials, {counts}; .trials and .history are pandas frames"

    def _of(self, index: object) -> Self:
        trials = self.trials.loc[index].reset_index(drop=True)  # type: ignore[call-overload]
        if trials.empty:
            raise BadRequestError("no trial is left")
        history = self.history[self.history["trial_id"].isin(trials["trial_id"])].reset_index(drop=True)
        return replace(self, trials=trials, history=history)

    def _name(self, asked: str | None) -> str | None:
        return None if asked is None else full_name(asked, self.trials)

    def _conditions(self, where: Where | None) -> dict[str, tuple[str, ...]]:
        return {full_name(name, self.trials): levels(wanted) for name, wanted in (where or {}).items()}


def levels(wanted: Level | Iterable[Level]) -> tuple[str, ...]:
    """Levels as the tables show them: ``0.001`` is ``("0.001",)``, ``True`` is ``("true",)``."""
    from analysis.statistics.levels import level_text

    several = wanted if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]
    return tuple(str(level).lower() if isinstance(level, bool) else level_text(level) for level in several)
