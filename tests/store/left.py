"""What a trial leaves, made by hand."""

from typing import Any

from sweep import record
from sweep.record import Status
from sweep.resolve import ResolvedTrial
from sweep.store.store import Store

ENVIRONMENT = {"torch": "2"}
DONE: dict[str, Any] = {"params": {"trainable": 1}, "result": {"eval/loss": 0.5}, "perf": {"step_ms": 1.0}}


def leave(store: Store, trial: ResolvedTrial, status: Status = "finished") -> None:
    folder = store.trial_folder(trial)
    folder.mkdir(parents=True, exist_ok=True)
    error = {"error": {"type": "OSError", "message": "disk"}} if status in ("failed", "diverged") else {}
    record.write(store.record_of(trial, ENVIRONMENT, status, **DONE, **error), folder)
    last = 0 if trial.adapter.kind == "none" else 20
    (folder / "history.jsonl").write_text(f'{{"step": 0, "eval/loss": 2.0}}\n{{"step": {last}, "eval/loss": 0.5}}\n')
