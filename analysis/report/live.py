"""The events of a page that watches a sweep: everything at first, then what is new, as plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analysis.columns import SEED, WHILE_TRAINING, describe
from analysis.sources.follow import Followed, Follower
from analysis.sources.frames import assemble
from analysis.sources.sweep import Raw
from analysis.statistics.levels import labels, ordered, swept
from analysis.statistics.questions import primary
from sweep.metrics import OURS
from sweep.text import printable

MOST_POINTS = 200
"""Points of a curve that a page gets when it opens; those that come later, it gets all."""
MOST_POINTS_OF_ALL = 500_000
"""Points of all curves together; a page with more draws too slowly."""


class Live:
    """One page's view of one sweep, with the curves of one metric; None: the metric that decides."""

    def __init__(self, folder: Path, metric: str | None = None):
        self.name, self._folder, self._asked = folder.name, folder, metric
        self._begin()

    def _begin(self) -> None:
        self._follower = Follower(self._folder)
        self._metrics: list[str] = []
        self._factors: list[dict[str, Any]] = []
        self._sent: dict[str, dict[str, Any]] = {}
        self._attempts: dict[str, int] = {}
        self._begun = False

    def update(self) -> dict[str, Any] | None:
        """What has changed since the last call, None where nothing has; ``whole`` when it replaces all from before.

        Raises OSError where the sweep's folder is gone.
        """
        changed = self._follower.look()
        if self._begun and (self._brings_metrics(changed) or self._brings_trials(changed)):
            self._begin()  # groups or the metric may change, so the page starts again
            changed = self._follower.look()
        begins, self._begun = not self._begun, True
        if begins:
            self._brings_metrics(changed)
            self._factors = _factors(self._follower.trials)
        if not changed and not begins:
            return None
        told: dict[str, Any] = {"sweep": self.name, "whole": begins}
        if begins:
            known = [{"name": name, "label": describe(name, OURS).title} for name in self._metrics]
            factors = [{key: factor[key] for key in ("name", "label", "levels")} for factor in self._factors]
            told |= {"metric": self._metric, "metrics": known, "factors": factors}
        told["trials"] = {name: self._told(name, trial) for name, trial in changed.items()}
        told["rows"] = {name: rows for name, trial in changed.items() if (rows := self._rows(name, trial, begins))}
        return told

    def _told(self, name: str, trial: Followed) -> dict[str, Any]:
        told = {
            "state": trial.found.state,
            "phase": trial.found.phase,
            "detail": printable(trial.found.detail),
            "steps": trial.steps,
            "at": trial.at,
            "pack": trial.pack,
            "levels": [factor["of"].get(name) for factor in self._factors],
        }
        self._sent[name] = trial.settings
        return told

    def _rows(self, name: str, trial: Followed, begins: bool) -> dict[str, Any] | None:
        """The new points of a trial's curve; ``again`` where they are the first of another attempt."""
        again = self._attempts.get(name, trial.attempt) != trial.attempt
        self._attempts[name] = trial.attempt
        points = [(row["step"], row[self._metric]) for row in trial.rows if self._metric in row]
        most = max(2, min(MOST_POINTS, MOST_POINTS_OF_ALL // len(self._follower.trials)))
        if begins and len(points) > most:
            points = [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]
        if not points and not again:
            return None
        return {"again": again, "steps": [step for step, _ in points], "values": [value for _, value in points]}

    @property
    def _metric(self) -> str:
        own = [name for name in self._metrics if not name.startswith(WHILE_TRAINING)] or self._metrics
        if self._asked in self._metrics:
            return str(self._asked)
        return primary(own, OURS) if own else ""

    def _brings_metrics(self, changed: Mapping[str, Followed]) -> bool:
        """Whether the new rows have metrics that no row had before; they are known from then on."""
        seen = {key for trial in changed.values() for row in trial.rows for key in row if "/" in key}
        before = list(self._metrics)
        self._metrics = [*before, *sorted(seen - set(before))]
        return self._metrics != before

    def _brings_trials(self, changed: Mapping[str, Followed]) -> bool:
        return any(self._sent.get(name) != trial.settings for name, trial in changed.items())


def _factors(trials: Mapping[str, Followed]) -> list[dict[str, Any]]:
    """What may group the curves: swept factors with their levels, and in ``of`` the place of each trial's level."""
    rows = [{"trial_id": name, **trial.settings} for name, trial in trials.items() if trial.settings]
    if not rows:
        return []
    frame = assemble("", Raw(trials=rows), None).trials
    found = []
    for name in (*swept(frame), SEED):
        level = labels(frame, name)
        levels = ordered(level)
        place = {text: number for number, text in enumerate(levels)}
        of = dict(zip(frame["trial_id"], level.map(place), strict=True))
        found.append({"name": name, "label": describe(name).label, "levels": levels, "of": of})
    return found


def counts(trials: Iterable[Followed]) -> dict[str, int]:
    """How many trials are in each state, as ``python -m sweep status`` names them."""
    found: dict[str, int] = {}
    for trial in trials:
        found[trial.found.state] = found.get(trial.found.state, 0) + 1
    return found
