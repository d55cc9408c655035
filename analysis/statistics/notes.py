"""What a reader must know about numbers, as data; ``analysis.tables.wording`` makes the sentences."""

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "references left out",
    "tuned",
    "tuned on itself",
    "edge of the grid",
    "not tuned",
    "averaged",
    "combinations left out",
    "seeds left out",
    "few seeds",
    "lost",
    "pruned",
    "without a value",
    "of packs",
    "no direction",
    "effects without a value",
    "no block",
    "unbalanced",
    "together",
    "also differ",
    "environments",
    "unequal budgets",
    "no shared seed",
    "different seeds",
    "outlier",
    "worse than the base",
    "generalises",
    "seeds only",
    "scores left out",
    "shared examples",
    "evaluated",
    "partly evaluated",
    "better earlier",
]


@dataclass(frozen=True)
class Note:
    """One fact: its kind, the figures and names that belong to it, and whether it weakens the conclusions."""

    kind: Kind
    figures: dict[str, Any] = field(default_factory=dict)
    severity: Literal["info", "warning"] = "info"

    @property
    def is_warning(self) -> bool:
        """Whether the fact weakens the conclusions."""
        return self.severity == "warning"


def warning(kind: Kind, **figures: Any) -> Note:
    """A fact that weakens the conclusions."""
    return Note(kind, figures, "warning")


def info(kind: Kind, **figures: Any) -> Note:
    """A fact that does not."""
    return Note(kind, figures)
