"""The answers that Python and the command line share: tables, comparisons, effects, plots, the report."""

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
    from matplotlib.figure import Figure

    from analysis.tables.shown import Shown

Level = str | float
"""A level of a factor; a number stands for its text."""
Where = Mapping[str, Level | Iterable[Level]]


def load(
    source: str | Path | Sequence[str | Path],
    *,
    metric: str | None = None,
    seed: str | None = SEED,
    factors: Sequence[str] | None = None,
    lower_is_better: bool | None = None,
    example: str | None = None,
) -> Results:
    """Read the trials of one source, or of several together.

    A source is a sweep's folder (``outputs/rank``), a folder of offline W&B runs, or runs on a W&B server
    (``wandb:entity/project`` or ``wandb:entity/project/group``). The results of another program may also be a
    ``.csv``, ``.parquet`` or ``.jsonl`` file, a folder of runs of the ``transformers`` Trainer, or one of
    lm-evaluation-harness's samples; the other arguments describe it (see ``from_frame``).
    Raises BadRequestError when a source does not exist or holds no trial at all.

    >>> len(load(folder).trials)
    70
    """
    found = read(source, Roles(metric, seed, factors, lower_is_better, example))
    return Results(**vars(found), metric=metric)


def from_frame(
    frame: pd.DataFrame,
    metric: str,
    *,
    seed: str | None = SEED,
    factors: Sequence[str] | None = None,
    lower_is_better: bool = True,
    example: str | None = None,
) -> Results:
    """The results of another program: one row a trial, or, with ``example``, one row a trial and example.

    ``metric`` is the column that is compared, ``seed`` the one that distinguishes replicates; without it there are no
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
    return Results(**vars(assemble("frame", read_frame(frame, roles, "frame"), None)), metric=metric)


@dataclass(frozen=True, repr=False)
class Results(Sweep):
    """The trials of a sweep, and what can be asked about them.

    ``trials`` has one row a trial and ``history`` one row a logged step (see ``analysis.sources.sweep``). Every answer
    shows itself in a terminal and in a notebook, and has a ``frame``, ``markdown`` and ``latex``. ``metric`` is the one
    that answers are about unless they name another; None for the one that decides.
    """

    metric: str | None = None

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

        ``metric`` is that of the results unless it is named. ``where`` keeps some trials. ``baseline`` is a level of
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
            self._name(metric or self.metric),
            levels(baseline),
            only,
            generalise,
            margin,
        )
        shown = Shown(table, "", table_frame(table))
        return replace(shown, text=shown.markdown.removesuffix("\n"))

    def compare(
        self,
        factor: str,
        baseline: Level,
        *,
        metric: str | None = None,
        where: Where | None = None,
        generalise: Generalise = "both",
        margin: float | None = None,
    ) -> Shown:
        """Each level of ``factor`` against ``baseline``, paired by seed, with a verdict; arguments as of ``table``.

        >>> results.compare("adapter.rank", baseline=4).frame[["adapter.rank", "n", "verdict"]]
          adapter.rank  n verdict
        0            1  5   worse
        1            2  5   worse
        2         full  5  better
        3         none  5   worse
        """
        from analysis.statistics.cells import observe
        from analysis.statistics.compare import against, compare
        from analysis.statistics.earlier import with_earlier
        from analysis.statistics.levels import select
        from analysis.tables.comparisons import comparison_listing
        from analysis.tables.frame import comparison_frame
        from analysis.tables.shown import Shown
        from analysis.tables.wording import verdict_text

        trials = select(self.trials, self._conditions(where))
        asked = self._metric(metric, trials)
        observations = observe(trials, (full_name(factor, self.trials),), asked, self.metrics, generalise)
        observations = with_earlier(observations, trials, self.history)
        base = levels(baseline)
        compared = compare(observations, against(observations, base), margin)
        text = verdict_text(observations, base, compared)
        return Shown(comparison_listing(observations, base, compared), text, comparison_frame(observations, compared))

    def effects(self, metric: str | None = None, factors: Sequence[str] | None = None) -> Shown:
        """What share of the variance of ``metric`` each factor explains, and each pair of them.

        >>> results.effects(factors=["adapter.rank", "adapter.init"]).frame["source"].to_list()
        ['adapter.rank', 'adapter.init', 'adapter.rank × adapter.init']
        """
        from analysis.statistics.effects import effects
        from analysis.tables.comparisons import effects_listing
        from analysis.tables.frame import effects_frame
        from analysis.tables.shown import Shown

        asked = self._metric(metric, self.trials)
        names = None if factors is None else [full_name(factor, self.trials) for factor in factors]
        found = effects(self.trials, asked, names)
        shown = Shown(effects_listing(found), "", effects_frame(found))
        return replace(shown, text=shown.markdown.removesuffix("\n"))

    def plot(
        self, kind: str, *, rows: str | None = None, columns: str | None = None, metric: str | None = None
    ) -> Figure:
        """A figure of the report, such as ``response``, ``heat``, ``forest_init``, ``curves_eval-loss`` or ``pareto``.

        ``rows`` and ``columns`` are the factors that are shown, by default those that were swept.
        Raises BadRequestError, with all kinds that there are, for another one, and where the trials are of several tasks.

        >>> [axis.get_xlabel() for axis in results.plot("response").axes]
        ['rank']
        """
        from analysis.figures.figures import FOREST, figures
        from analysis.report.answer import Answer, add_comparison
        from analysis.statistics.questions import questions

        asked, silent = questions(self)
        if len(asked) > 1:
            tasks = ", ".join(question.task for question in asked)
            raise BadRequestError(f"one plot is of one task, not of {tasks}: filter({{'task.name': …}}) first")
        if not asked:
            raise BadRequestError("; ".join(silent))
        shown = tuple(full_name(name, self.trials) for name in (rows, columns) if name is not None)
        question = replace(
            asked[0], factors=shown or asked[0].factors, primary=self._name(metric or self.metric) or asked[0].primary
        )
        answer = Answer(question)
        for factor in question.factors if kind.startswith(FOREST) else ():
            add_comparison(answer, factor)
        others = []
        for drawing in figures(question, self.history, answer.comparisons):
            if drawing.name == kind:
                return drawing.figure()
            others.append(drawing.name)
        raise unknown("kind of plot", kind, [*others, *(FOREST + factor.split(".")[-1] for factor in question.factors)])

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

    def _metric(self, asked: str | None, trials: pd.DataFrame) -> str:
        from analysis.statistics.questions import deciding

        named = asked or self.metric
        return deciding(trials, self.metrics) if named is None else full_name(named, self.trials)

    def _conditions(self, where: Where | None) -> dict[str, tuple[str, ...]]:
        return {full_name(name, self.trials): levels(wanted) for name, wanted in (where or {}).items()}


def levels(wanted: Level | Iterable[Level]) -> tuple[str, ...]:
    """Levels as the tables show them: ``0.001`` is ``("0.001",)``, ``True`` is ``("true",)``."""
    from analysis.statistics.levels import level_text

    several = wanted if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]
    return tuple(str(level).lower() if isinstance(level, bool) else level_text(level) for level in several)
