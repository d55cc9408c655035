"""What the untouched base and each cell answer to the same held-out prompts, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import takewhile
from pathlib import Path

import pandas as pd

from analysis.columns import KIND, SEED, describe
from analysis.statistics.levels import labels, ordered
from analysis.statistics.questions import Question
from analysis.tables.html import scrolling
from sweep.samples import SAMPLES_FILE, Sample, read
from sweep.text import printable, reason

MOST_PROMPTS, MOST_CELLS = 12, 6
LONGEST_TEXT = 600
"""Characters that are shown of a prompt or an answer."""
WITHOUT_LORA = {"none": "untouched base", "full": "full fine-tuning"}


def samples(question: Question) -> str:
    """A table in HTML with a prompt a row and a cell a column; empty where no trial has written any answers.

    Of each cell the finished trial with the lowest seed is shown. What cannot be read is named below the table.
    """
    cells: dict[str, dict[str, Sample]] = {}
    problems: list[str] = []
    for name, trials in _by_cell(question):
        for folder in trials["folder"].dropna():
            path = Path(str(folder)) / SAMPLES_FILE
            try:
                cells[name] = {sample.prompt: sample for sample in read(path)}
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                problems.append(f"{path.parent.name}/{SAMPLES_FILE} is left out ({reason(error)})")
                continue
            break
        if len(cells) == MOST_CELLS:
            break
    notes = "".join(f"<li>{escape(printable(problem))}</li>" for problem in problems)
    said = f'<ul class="notes">{notes}</ul>' if notes else ""
    return (_table(cells) if any(cells.values()) else "") + said


def _by_cell(question: Question) -> Iterable[tuple[str, pd.DataFrame]]:
    """The finished trials of each cell by its name, the lowest seed first; cells without a LoRA come first."""
    finished = question.trials[question.trials["status"] == "finished"].sort_values(SEED, kind="stable")
    kinds = finished[KIND] if KIND in finished else pd.Series("", index=finished.index)
    levels = {factor: labels(finished, factor) for factor in question.factors}
    places = [own.map({level: place for place, level in enumerate(ordered(own))}) for own in levels.values()]
    without_lora = kinds.map({kind: place for place, kind in enumerate(WITHOUT_LORA)}).fillna(len(WITHOUT_LORA))
    for _, trials in finished.groupby([without_lora, *places], sort=True):
        first = trials.index[0]
        words = " · ".join(f"{describe(factor).label} {own[first]}" for factor, own in levels.items())
        yield WITHOUT_LORA.get(kinds[first], words), trials


def _table(cells: dict[str, dict[str, Sample]]) -> str:
    expected = {prompt: sample.expected for own in cells.values() for prompt, sample in own.items()}
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("prompt", "expected", *cells))
    lines = zip(*(prompt.split("\n") for prompt in expected), strict=False)
    shared = takewhile(lambda texts: len(set(texts)) == 1, lines) if len(expected) > 1 else ()
    beginning = "".join(f"{texts[0]}\n" for texts in shared)
    rows = []
    for prompt in list(expected)[:MOST_PROMPTS]:
        answers = [own[prompt].answer if prompt in own else "–" for own in cells.values()]
        texts = "".join(f"<td>{_shown(text)}</td>" for text in (expected[prompt], *answers))
        rows.append(f'<tr><th scope="row">{_shown(prompt.removeprefix(beginning))}</th>{texts}</tr>')
    more = f", the first {len(rows)} of {len(expected)} prompts" if len(expected) > len(rows) else ""
    caption = f"Of each cell the trial with the lowest seed{more}; all answers are in the trials' {SAMPLES_FILE}."
    caption += f" Every prompt begins with: {_shown(beginning)}" if beginning else ""
    grid = (
        f'<table class="samples"><caption>{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return scrolling(grid, "Answers to held-out prompts")


def _shown(text: str) -> str:
    """The beginning of ``text`` with its line breaks."""
    cut = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"
    return escape("\n".join(printable(line) for line in cut.split("\n")))
