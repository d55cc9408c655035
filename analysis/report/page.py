"""The report's page: one HTML file without any network, under a strict content-security policy."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from analysis.report import explorer, paragraphs
from analysis.report.answer import Answer
from analysis.report.assets import REPORT, STYLE, asset, policy
from analysis.report.sections import Section, answer_sections, drawn, filled
from analysis.sources.sweep import Sweep
from analysis.tables.rules import RULES

EXPLORED = {"means": "Means by group", "trials": "Trials", "difference": "What differs between the picked trials"}
"""The tables of the explorer."""
DRAWN = {
    "parallel": "parallel coordinates: a line for each trial; the table below has its values",
    "curve": "learning curves by group; the table below has their last values",
}
"""The figures of the explorer."""


def render(
    sweep: Sweep, answers: Sequence[Answer], digest: str, target: Path | None = None, refresh: int | None = None
) -> str:
    """The whole page, with links from ``target`` to the trials' folders.

    Scripts and styles are allowed by their hashes only; names are escaped.
    """
    sections = [section for one in answers for section in answer_sections(one, titled=len(answers) > 1)]
    sections.append(Section("explorer", "Explore the trials", _explorer()))
    sections.append(Section("sources", "Where this comes from", _provenance(sweep, digest)))
    columns, curves = explorer.payload(sweep, target, refresh)
    blocks = {"data": columns, "curves": curves, "files": _files(answers)}
    body = [
        contents(sweep.name, sections),
        f'<main id="main">\n{_head(sweep)}',
        *(section.html for section in sections),
        "</main>",
        *(f'<script type="text/plain" id="{name}">{content}</script>' for name, content in blocks.items()),
    ]
    script, style = asset(*REPORT), asset(STYLE)
    return document(
        f"{sweep.name} · LoRA sweep",
        f'<meta http-equiv="Content-Security-Policy" content="{policy(script, style)}">\n<style>{style}</style>',
        "\n".join([*body, f"<script>{script}</script>"]),
    )


def document(title: str, head: str, body: str) -> str:
    """An HTML document; ``head`` brings its styles."""
    rules = json.dumps(RULES).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n{head}\n</head>\n<body>\n"
        f'<script type="application/json" id="rules">{rules}</script>\n{body}\n</body>\n</html>\n'
    )


def contents(name: str, sections: Sequence[Section]) -> str:
    """The list of ``sections`` that stays in view, and the link over it for those who tab through a page."""
    items = "".join(f'<li><a href="#{one.anchor}">{escape(one.title)}</a></li>' for one in sections)
    return (
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f'<nav aria-label="Contents"><b>{escape(name)}</b><ol>{items}</ol></nav>'
    )


def _explorer() -> str:
    tables = {name: filled(f'id="{name}"', label, name) for name, label in EXPLORED.items()}
    figures = {name: drawn(f'id="{name}"', label, name) for name, label in DRAWN.items()}
    return Template(asset("explorer.html")).substitute(tables | figures)


def _head(sweep: Sweep) -> str:
    ablations = sorted({str(item) for item in sweep.trials["ablation"].dropna()})
    named = f" Ablation: {escape(', '.join(ablations))}." if ablations else ""
    return f'<header><h1>{escape(sweep.name)}</h1>\n<p class="soft">{escape(paragraphs.counted(sweep))}{named}</p></header>'


def _files(answers: Sequence[Answer]) -> str:
    """What the buttons save, by file name: text, and PDF in base64. A figure's SVG and PNG come from its image."""
    files = {Path(name).name: content for one in answers for name, content in one.files.items()}
    kept = {
        name: base64.b64encode(content).decode() if name.endswith(".pdf") else content.decode()
        for name, content in files.items()
        if not name.endswith((".svg", ".png"))
    }
    return explorer.packed(json.dumps(kept).encode())


def _provenance(sweep: Sweep, digest: str) -> str:
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
    return "\n".join(
        [
            f"<p>{len(trials)} records, SHA-256 over all of them <code>{digest}</code>; one hash a record is in "
            "<code>sources.json</code>. The tables are in <code>tables/</code> as Markdown, LaTeX and CSV, the figures in "
            "<code>figures/</code> as SVG, PDF and PNG.</p>",
            f"<p>{escape('; '.join(facts))}</p>" if facts else "",
            f"<p>Trials without a result:</p><ul>{shown}{more}</ul>" if items else "<p>Every trial has a result.</p>",
        ]
    )
