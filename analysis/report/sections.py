"""An answer as sections of a page: the verdict with its figure and table first, then what it rests on."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from html import escape

from analysis.figures.figures import FORMATS, Drawing
from analysis.report import paragraphs
from analysis.report.answer import STYLES, Answer
from analysis.tables.comparisons import effects_listing
from analysis.tables.html import html, scrolling
from analysis.tables.layout import file_stem
from analysis.tables.listing import Listing, listing_html
from analysis.tables.table import Table

NAMES = {"md": "Markdown", "tex": "LaTeX", "csv": "CSV", "svg": "SVG", "pdf": "PDF", "png": "PNG"}


@dataclass(frozen=True)
class Section:
    """A part of a page that its contents list names: ``anchor`` is its address, ``body`` its HTML."""

    anchor: str
    title: str
    body: str

    @property
    def html(self) -> str:
        """The section with its heading."""
        head = f'<h2 id="{self.anchor}-title">{escape(self.title)}</h2>'
        return f'<section id="{self.anchor}" aria-labelledby="{self.anchor}-title">\n{head}\n{self.body}\n</section>'


def answer_sections(answer: Answer, titled: bool) -> list[Section]:
    """The sections of one answer; ``titled`` puts the task's name into their titles. A note is said once."""
    said = set(answer.caveats)
    task = answer.question.task
    lead, others = answer.tables[:1], answer.tables[1:]
    drawings = [one for one in answer.drawings if one is not answer.forest]
    parts = [
        ("Verdict", _verdict(answer, _shown(answer, lead, said))),
        ("Comparisons", _shown(answer, answer.listings, said)),
        ("Variance", _shown(answer, [effects_listing(answer.effects)], said) if answer.effects else ""),
        ("Answers to held-out prompts", _shown(answer, [answer.samples], said) if answer.samples else ""),
        ("Other tables", _folded(answer, others, said)),
        (
            "Figures",
            f'<div class="figures">{"".join(_figure(answer, one) for one in drawings)}</div>' if drawings else "",
        ),
    ]
    return [
        Section(
            file_stem(*([task] if titled else []), title.lower()), f"{task}: {title.lower()}" if titled else title, body
        )
        for title, body in parts
        if body
    ]


def findings(answer: Answer) -> str:
    """What was asked, what was found, and how sure that is."""
    question, comparisons = answer.question, answer.comparisons
    return (
        f'<p class="soft">{escape(paragraphs.question_text(question))}</p>\n'
        f"<p>{escape(paragraphs.findings(question, comparisons, answer.effects))}</p>\n"
        f'<p class="soft">{escape(paragraphs.certainty(comparisons))}</p>'
    )


def buttons(stem: str, styles: Iterable[str]) -> str:
    """Buttons that save the table or figure beside them as ``stem`` in each of ``styles``."""
    made = "".join(
        f'<button type="button" data-file="{escape(stem)}.{style}" aria-label="Save {escape(stem)} as {NAMES[style]}">'
        f"{NAMES[style]}</button>"
        for style in styles
    )
    return f'<div class="save">{made}</div>'


def filled(place: str, label: str, stem: str) -> str:
    """Where a page's script puts a table, with its buttons; ``place`` is the attribute by which the script finds it."""
    region = f'<div {place} class="scroll" tabindex="0" role="group" aria-label="{escape(label)}"></div>'
    return f'<div class="table">{region}{buttons(stem, STYLES)}</div>'


def drawn(place: str, label: str, stem: str) -> str:
    """Where a page's script draws a figure, with its buttons; ``place`` is the attribute by which the script finds it."""
    canvas = f'<canvas {place} role="img" aria-label="{escape(label)}"></canvas>'
    return f'<figure><div class="plot">{canvas}</div>{buttons(stem, FORMATS)}</figure>'


def _verdict(answer: Answer, table: str) -> str:
    figure = _figure(answer, answer.forest) if answer.forest else ""
    return f'<div class="first"><div>{findings(answer)}\n{table}</div>\n<div>{figure}\n{_caveats(answer)}</div></div>'


def preliminary(answers: Iterable[Answer]) -> str:
    """A preliminary answer while a sweep trains: findings, comparisons and what weakens them, without figures."""
    parts = []
    for answer in answers:
        shown = _shown(answer, answer.listings, set(answer.caveats))
        parts.append(f"<h3>{escape(answer.question.task)}</h3>{findings(answer)}{_caveats(answer)}{shown}")
    return "\n".join(parts)


def _caveats(answer: Answer) -> str:
    items = "".join(f"<li>{escape(item)}</li>" for item in answer.caveats)
    return f'<div class="caveats"><b>Read with care</b><ul>{items}</ul></div>' if items else ""


def _shown(answer: Answer, tables: Iterable[Table | Listing], said: set[str]) -> str:
    """Tables one below the other, with their buttons; their notes are ``said`` from then on."""
    parts = []
    for table in tables:
        known = {note for note in table.notes if note in said or note.endswith(tuple(answer.caveats))}
        parts.append(f'<div class="table">{_scrolling(table, known)}{buttons(answer.stem(table), STYLES)}</div>')
        said.update(table.notes)
    return "\n".join(parts)


def _scrolling(table: Table | Listing, said: Collection[str]) -> str:
    made = listing_html(table, said) if isinstance(table, Listing) else html(table, said)
    grid, end, notes = made.partition("</table>")
    return scrolling(grid + end, table.caption) + notes


def _folded(answer: Answer, tables: Iterable[Table], said: set[str]) -> str:
    """Each table under its title, and those of counts, of which there may be many, folded together."""
    parts: list[str] = []
    counts: list[str] = []
    for table in tables:
        title = escape(f"{table.metric.title} {table.metric.arrow} by {_by(table)}")
        is_count = table.metric.kind == "sum"
        shown = _shown(answer, [table], said)
        (counts if is_count else parts).append(f"<details><summary>{title}</summary>\n{shown}</details>")
    if counts:
        number = f"{len(counts)} tables of counts" if len(counts) > 1 else "1 table of counts"
        parts += [f"<details><summary>{number}</summary>", *counts, "</details>"]
    return "\n".join(parts)


def _by(table: Table) -> str:
    return " and ".join(column.label for column in (table.rows, table.columns) if column)


def _figure(answer: Answer, drawing: Drawing) -> str:
    data, caption = base64.b64encode(drawing.files["svg"]).decode(), escape(drawing.caption)
    shown = escape(drawing.caption.split(". ")[0])
    return (
        f'<figure><img alt="{shown}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{caption}</figcaption>{buttons(answer.stem(drawing), FORMATS)}</figure>"
    )
