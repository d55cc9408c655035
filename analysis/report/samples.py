"""What the untouched base and each cell answer to the same held-out prompts, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

import pandas as pd

from analysis.columns import KIND, SEED, describe
from analysis.statistics.levels import labels, ordered
from analysis.statistics.questions import Question
from analysis.tables.listing import Listing
from sweep.samples import SAMPLES_FILE, Sample, read
from sweep.text import printable, reason

MOST_PROMPTS, MOST_CELLS = 12, 6
LONGEST_TEXT = 600
"""Characters that are shown of a prompt or an answer."""
WITHOUT_LORA = {"none": "untouched base", "full": "full fine-tuning"}


def samples(question: Question) -> tuple[Listing | None, list[str]]:
    """A prompt a row and a cell a column, None where no trial has written any answers; and the files left out, with reasons.

    Of each cell the finished trial with the lowest seed is shown.
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
                problems.append(printable(f"{path.parent.name}/{SAMPLES_FILE} is left out ({reason(error)})"))
                continue
            break
        if len(cells) == MOST_CELLS:
            break
    return (_listing(cells) if any(cells.values()) else None), problems


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


def _listing(cells: dict[str, dict[str, Sample]]) -> Listing:
    expected = {prompt: sample.expected for own in cells.values() for prompt, sample in own.items()}
    beginning, ending = _around(list(expected))
    rows = []
    for prompt in list(expected)[:MOST_PROMPTS]:
        answers = [own[prompt].answer if prompt in own else "–" for own in cells.values()]
        asked = prompt.removeprefix(beginning).removesuffix(ending)
        rows.append(tuple(map(_shown, (asked, expected[prompt], *answers))))
    more = f", the first {len(rows)} of {len(expected)} prompts" if len(expected) > len(rows) else ""
    caption = f"Of each cell the trial with the lowest seed{more}; all answers are in the trials' {SAMPLES_FILE}."
    around = {"begins": _shown(beginning).strip(), "ends": _shown(ending).strip()}
    said = ", and ".join(f"{where} with: {lines}" for where, lines in around.items() if lines)
    caption += f" Every prompt {said}" if said else ""
    return Listing("answers", caption, ("prompt", "expected", *cells), tuple(rows), prose=True)


def _around(prompts: Sequence[str]) -> tuple[str, str]:
    """The lines with which all ``prompts`` begin, and those with which they end; of each at least a line is left."""
    if len(prompts) < 2:
        return "", ""
    beginning = "".join(f"{line}\n" for line in _shared(prompt.split("\n") for prompt in prompts))
    rests = (prompt.removeprefix(beginning).split("\n")[1:] for prompt in prompts)
    ending = "".join(f"\n{line}" for line in reversed(_shared(rest[::-1] for rest in rests)))
    return beginning, ending


def _shared(texts: Iterable[list[str]]) -> list[str]:
    """The first lines that all ``texts`` have in common."""
    return [lines[0] for lines in takewhile(lambda lines: len(set(lines)) == 1, zip(*texts, strict=False))]


def _shown(text: str) -> str:
    """The beginning of ``text`` with its line breaks."""
    cut = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"
    return "\n".join(printable(line) for line in cut.split("\n"))
