"""The report's page: one HTML file without any network, under a strict content-security policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

from analysis.columns import describe
from analysis.report import explorer, paragraphs
from analysis.report.answer import Answer
from analysis.report.samples import samples
from analysis.sources.sweep import Sweep
from analysis.statistics.effects import Effects
from analysis.tables.html import html
from analysis.tables.numbers import number
from analysis.tables.sentences import note_text
from analysis.tables.table import Table


def render(sweep: Sweep, answers: Sequence[Answer], digest: str, target: Path, refresh: int | None) -> str:
    """The whole page. Scripts and styles are allowed by their hashes only; names are escaped."""
    css = (explorer.ASSETS / "report.css").read_text(encoding="utf-8")
    script = explorer.script()
    columns, curves = explorer.payload(sweep, target, refresh)
    policy = (
        f"default-src 'none'; script-src {_allow(script)}; style-src {_allow(css)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    body = [_head(sweep)]
    for answer in answers:
        body += _answer(answer, len(answers) > 1)
    body += [explorer.MARKUP, *_provenance(sweep, digest)]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(sweep.name)} · LoRA sweep</title>\n<style>{css}</style>\n</head>\n<body>",
            *body,
            f'<script type="text/plain" id="data">{columns}</script>',
            f'<script type="text/plain" id="curves">{curves}</script>',
            f"<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


def _allow(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _head(sweep: Sweep) -> str:
    ablations = sorted({str(item) for item in sweep.trials["ablation"].dropna()})
    named = f" Ablation: {escape(', '.join(ablations))}." if ablations else ""
    return f"<header><h1>{escape(sweep.name)}</h1>\n<p>{escape(paragraphs.counted(sweep))}{named}</p></header>"


def _answer(answer: Answer, titled: bool) -> list[str]:
    question = answer.question
    parts = [f"<h2>{escape(question.task)}</h2>"] if titled else []
    parts += [
        f"<p><b>Asked.</b> {escape(paragraphs.question_text(question))}</p>",
        f"<p><b>Found.</b> {escape(paragraphs.findings(question, answer.comparisons, answer.effects))}</p>",
        f"<p><b>How sure.</b> {escape(paragraphs.certainty(answer.comparisons))}</p>",
    ]
    if answer.caveats:
        items = "".join(f"<li>{escape(item)}</li>" for item in answer.caveats)
        parts.append(f'<div class="caveats"><b>Read with care</b><ul>{items}</ul></div>')
    parts += _tables(answer.tables)
    if answer.verdicts:
        parts.append("<h3>Comparisons with a baseline</h3>")
        parts += [f"<pre>{escape(text)}</pre>" for text in answer.verdicts]
    if answer.effects is not None:
        parts.append(_effects(answer.effects))
    parts.append(samples(question))
    if answer.drawings:
        parts.append('<h3>Figures</h3>\n<div class="figures">')
        for drawing in answer.drawings:
            data = base64.b64encode(drawing.svg).decode()
            caption = escape(drawing.caption)
            parts.append(
                f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        parts.append("</div>")
    return parts


def _tables(tables: Sequence[Table]) -> list[str]:
    """The first table open, the others folded, and those of counts, of which there may be many, folded together."""
    parts: list[str] = []
    counts: list[str] = []
    for index, table in enumerate(tables):
        title = escape(f"{table.metric.title} {table.metric.arrow} by {_by(table)}")
        shown = f'<div class="scroll">{html(table)}</div>'
        if index == 0:
            parts.append(f"<h3>{title}</h3>\n{shown}")
        else:
            is_count = table.metric.kind == "sum"
            (counts if is_count else parts).append(f"<details><summary>{title}</summary>\n{shown}</details>")
    if counts:
        tables_in_words = f"{len(counts)} tables of counts" if len(counts) > 1 else "1 table of counts"
        parts += [f"<details><summary>{tables_in_words}</summary>", *counts, "</details>"]
    return parts


def _by(table: Table) -> str:
    return " and ".join(column.label for column in (table.rows, table.columns) if column)


def _effects(effects: Effects) -> str:
    rows = []
    for effect in effects.effects:
        source = " × ".join(describe(name).label for name in effect.source.split(" × "))
        values = [f"{100 * effect.share:.1f}%", f"{effect.partial:.2f}", number(effect.f)]
        values.append(number(effect.p_holm) if effect.p_holm >= 0.001 else "< 0.001")
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        rows.append(f'<tr><th scope="row">{escape(source)}</th><td>{effect.freedom}</td>{cells}</tr>')
    heads = ("source", "df", "share of variance (η²)", "partial η²", "F", "p (Holm)")
    head = "".join(f'<th scope="col">{item}</th>' for item in heads)
    notes = "".join(f"<li>{escape(note_text(note))}</li>" for note in effects.notes)
    caption = (
        f"Variance of {effects.metric} between LoRA trials: type II analysis of variance with the seed as block "
        f"({effects.n} trials, {effects.residual_freedom} residual degrees of freedom)."
    )
    return (
        f'<h3>What explains the variance</h3>\n<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<ul class="notes">{notes}</ul>'
    )


def _provenance(sweep: Sweep, digest: str) -> list[str]:
    trials = sweep.trials
    facts = []
    for key in ("lora_sweep", "torch", "python", "device", "system"):
        if f"environment.{key}" in trials:
            values = sorted({str(item) for item in trials[f"environment.{key}"].dropna()})
            facts.append(f"{key} {', '.join(values)}")
    lost = trials[trials["status"] != "finished"]
    items = [
        f"{(row.get('folder') and Path(str(row['folder'])).name) or row['trial_id']}: {row['status']}"
        + (f" ({row['error.type']}: {row['error.message']})" if isinstance(row.get("error.type"), str) else "")
        for row in lost.to_dict("records")
    ]
    items += [f"{name}: unfinished, no record" for name in sweep.missing] + list(sweep.problems)
    shown = "".join(f"<li>{escape(item)}</li>" for item in items[:100])
    more = f"<li>and {len(items) - 100} more</li>" if len(items) > 100 else ""
    return [
        "<h2>Where this comes from</h2>",
        f"<p>{len(trials)} records, SHA-256 over all of them <code>{digest}</code>; one hash a record is in "
        "<code>sources.json</code>. The tables are in <code>tables/</code> as Markdown, LaTeX and CSV, the figures in "
        "<code>figures/</code> as SVG and PNG.</p>",
        f"<p>{escape('; '.join(facts))}</p>" if facts else "",
        f"<p>Trials without a result:</p><ul>{shown}{more}</ul>" if items else "<p>Every trial has a result.</p>",
    ]
