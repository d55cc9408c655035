"""The pages of the dashboard: the list of sweeps, and one sweep or several while they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from urllib.parse import quote

from analysis.report.assets import asset
from analysis.report.page import contents, document
from analysis.report.sections import STYLES, Section, buttons, drawn, filled
from analysis.tables.html import scrolling
from analysis.tables.layout import file_stem

SCRIPTS = ("page.js", "numbers.js", "tables.js", "charts.js", "svg.js", "live.js")
OVERVIEW = ("page.js", "numbers.js", "tables.js", "overview.js")
PARTS = (
    ("progress", "Progress"),
    ("curves", "Curves"),
    ("verdicts", "Verdicts"),
    ("failures", "Failures"),
    ("plan", "Plan"),
)
"""The parts of a watched sweep, with their headings."""
TABLES = {"failures": "Without a result", "trains": "Training now", "waits": "Waiting"}
"""The tables that the page's script fills in, with their titles."""
CURVES = "a curve for each trial; the plan below has the last values of those that train"
BACK = '<p><a href="/">All sweeps</a></p>'


def index(states: Mapping[str, Mapping[str, int]]) -> str:
    """All sweeps with how many of their trials are in which state, and boxes to choose some to compare."""
    rows = []
    for name, counts in states.items():
        shown = ", ".join(f"{number} {state}" for state, number in counts.items())
        state = "runs" if counts.get("training") else "rests"
        rows.append(
            f'<tr><th scope="row"><input type="checkbox" name="sweep" value="{escape(name)}" aria-label="compare {escape(name)}">&nbsp;'
            f'<a href="/sweeps/{quote(name)}">{escape(name)}</a></th><td>{state}</td>'
            f"<td>{sum(counts.values())}</td><td>{escape(shown)}</td></tr>"
        )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("sweep", "now", "trials", "states"))
    number = f"{len(states)} sweep{'s' if len(states) != 1 else ''}"
    table = f'<table class="marked" id="sweeps"><caption>{number}</caption><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    form = (
        f'<form action="/compare"><div class="table">{scrolling(table, "Sweeps")}{buttons("sweeps", STYLES)}</div>'
        '<button type="submit">Show the chosen ones side by side</button></form>'
    )
    empty = "<p>There is no sweep here yet; this page shows the first one as soon as it begins.</p>"
    return _document("Sweeps", [Section("all", "All sweeps", form if rows else empty)], OVERVIEW)


def watched(names: Sequence[str]) -> str:
    """One sweep, or several side by side; the page's script fills in what the events say."""
    if len(names) == 1:
        sections = [
            Section(anchor, title, f'<div data-sweep="{escape(names[0])}">{_part(anchor, names[0])}</div>')
            for anchor, title in PARTS
        ]
        return _document(names[0], sections, SCRIPTS, BACK)
    sections = []
    for place, name in enumerate(names):
        body = "".join(f'<h3 class="part">{title}</h3>{_part(anchor, name)}' for anchor, title in PARTS)
        sections.append(Section(f"sweep-{place}", name, f'<div data-sweep="{escape(name)}">{body}</div>'))
    return _document(" · ".join(names), sections, SCRIPTS, BACK, "side")


def _part(anchor: str, sweep: str) -> str:
    tables = {part: filled(f'data-part="{part}"', title, file_stem(sweep, part)) for part, title in TABLES.items()}
    curves = drawn('data-part="curves"', CURVES, file_stem(sweep, "curves"))
    return Template(asset(f"live/{anchor}.html")).substitute(tables, curves=curves)


def refusal(why: str) -> str:
    """The placeholder for a verdict or a report that cannot be given yet."""
    return f"<p>Nothing can be said yet: {escape(why)}</p>"


def _document(title: str, sections: Sequence[Section], scripts: Sequence[str], head: str = "", layout: str = "") -> str:
    """A page of ``sections`` with its contents list; ``head`` stands under the title, ``layout`` is a class of styles."""
    parts = "\n".join(section.html for section in sections)
    body = (
        f'{contents(title, sections)}\n<main id="main">\n<header><h1>{escape(title)}</h1>{head}</header>\n'
        f'<div class="{layout}">{parts}</div>\n</main>'
    )
    loaded = "".join(f'<script src="/assets/{name}" defer></script>' for name in scripts)
    style = '<link rel="icon" href="data:,"><link rel="stylesheet" href="/assets/page.css">'
    return document(f"{title} · LoRA sweeps", style + loaded, body)
