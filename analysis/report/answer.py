"""Everything that a report says about one question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from analysis.columns import LEARNING_RATE
from analysis.errors import BadRequestError
from analysis.figures.figures import FOREST, FORMATS, Drawing, figures
from analysis.report.samples import samples
from analysis.sources.sweep import Sweep
from analysis.statistics.compare import Comparison, against, compare
from analysis.statistics.effects import Effects, effects
from analysis.statistics.questions import Question
from analysis.tables.comparisons import comparison_listing, effects_listing
from analysis.tables.layout import file_stem
from analysis.tables.listing import Listing
from analysis.tables.render import render
from analysis.tables.table import Table, build

T = TypeVar("T")
STYLES = ("md", "tex", "csv")
"""The formats of a table that a report leaves."""


@dataclass
class Answer:
    """Everything the report says about one question.

    ``prefix`` begins the names of its files. ``comparisons`` and ``listings`` are by factor, in one order; ``gaps`` are
    the parts for which the records do not suffice.
    """

    question: Question
    prefix: str = ""
    tables: list[Table] = field(default_factory=list)
    comparisons: dict[str, list[Comparison]] = field(default_factory=dict)
    listings: list[Listing] = field(default_factory=list)
    samples: Listing | None = None
    effects: Effects | None = None
    drawings: list[Drawing] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    @property
    def caveats(self) -> list[str]:
        """The caveats of its first table, each once, then the gaps."""
        return [*dict.fromkeys(caveat for table in self.tables[:1] for caveat in table.caveats), *self.gaps]

    @property
    def forest(self) -> Drawing | None:
        """The figure that belongs beside the verdict: the differences from the first factor's baseline."""
        return next((one for one in self.drawings if one.name.startswith(FOREST)), None)

    def stem(self, part: Table | Listing | Drawing) -> str:
        """The name of a part's files, without ending."""
        if not isinstance(part, Table):
            return self.prefix + part.name
        names = [file_stem(one.name) for one in (part.metric, part.rows, part.columns) if one]
        return self.prefix + "_by_".join(names[:2]) + "".join(f"_and_{name}" for name in names[2:])

    @property
    def files(self) -> dict[str, bytes]:
        """What is written beside the page, by its path there: tables for papers and spreadsheets, and figures."""
        every: list[Table | Listing] = [*self.tables, *self.listings]
        every += [effects_listing(self.effects)] if self.effects else []
        every += [self.samples] if self.samples else []
        tables = {f"tables/{self.stem(one)}.{style}": render(one, style).encode() for one in every for style in STYLES}
        figures = {f"figures/{self.stem(one)}.{style}": one.files[style] for one in self.drawings for style in FORMATS}
        return tables | figures

    def attempt(self, make: Callable[..., T], *given: Any) -> T | None:
        """What ``make`` gives; where the records cannot answer it, None and another gap."""
        try:
            return make(*given)
        except BadRequestError as error:
            if str(error) not in self.gaps:
                self.gaps.append(str(error))
            return None


def answer(sweep: Sweep, question: Question, prefix: str = "") -> Answer:
    """Tables, comparisons and effects of one question; a part that cannot be made becomes a gap."""
    result = Answer(question, prefix)
    part = replace(sweep, trials=question.trials)
    baseline = (question.baseline(question.rows),)
    for rows, columns, metric in _tables(question):
        given = (part, question, rows, columns, metric, baseline if rows == question.rows else ())
        table = result.attempt(_table, *given)
        if table is not None:
            result.tables.append(table)
    for factor in question.factors:
        add_comparison(result, factor)
    if result.comparisons:
        result.effects = result.attempt(effects, question.trials, question.primary)
    result.samples, unreadable = samples(question)
    result.gaps += unreadable
    return result


def draw(result: Answer, sweep: Sweep) -> Answer:
    """``result`` with its figures, which take most of a report's time."""
    result.drawings = result.attempt(list, figures(result.question, sweep.history, result.comparisons)) or []
    return result


def _tables(question: Question) -> list[tuple[str, str | None, str]]:
    """Rows, columns and metric of each table."""
    tables = [(question.rows, question.columns, metric) for metric in (question.primary, *question.secondary)]
    tables += [(factor, None, question.primary) for factor in question.factors[2:]]
    if question.tuned:
        tables.append((LEARNING_RATE, question.rows, question.primary))
    return tables


def add_comparison(result: Answer, factor: str) -> None:
    """Add the comparison of the levels of ``factor`` with their baseline, where there are two to compare."""
    observations = result.attempt(result.question.observe, (factor,))
    if observations is None or len(observations.filled) < 2:
        return
    baseline = (result.question.baseline(factor),)
    pairs = result.attempt(against, observations, baseline)
    if pairs:
        result.comparisons[factor] = compare(observations, pairs, result.question.margin)
        result.listings.append(comparison_listing(observations, baseline, result.comparisons[factor]))


def _table(
    part: Sweep, question: Question, rows: str, columns: str | None, metric: str, baseline: tuple[str, ...]
) -> Table:
    build_table = partial(build, part, rows, columns, metric, generalise=question.generalise, margin=question.margin)
    try:
        return build_table(baseline=baseline)
    except BadRequestError:
        return build_table()
