"""The styles, scripts and markup of a page, and the policy that allows them alone."""

import base64
import hashlib
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
STYLE = "page.css"
REPORT = ("page.js", "numbers.js", "tables.js", "charts.js", "svg.js", "parallel.js", "explorer.js")
"""The scripts of a report, in order; each uses those before it."""


def asset(*names: str) -> str:
    """The text of these files, one after another."""
    return "".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def policy(script: str, style: str) -> str:
    """The content-security policy of a page whose only script and style are these: nothing is fetched or sent."""
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
