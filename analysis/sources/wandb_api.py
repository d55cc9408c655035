"""Reads the trials of a project on a W&B server through the public API."""

from __future__ import annotations

from analysis.errors import BadRequestError
from analysis.sources.foreign import Roles
from analysis.sources.sweep import Raw
from analysis.sources.wandb_files import WandbRun, without_bookkeeping
from analysis.sources.wandb_runs import read_runs

TIMEOUT_SECONDS = 30
EXIT_CODES = {"finished": 0, "failed": 1, "crashed": 1, "killed": 1}


def read_group(path: str, roles: Roles) -> Raw:
    """Read the runs of ``entity/project``, or of one group with ``entity/project/group``.

    The server and the key are W&B's own settings (``WANDB_BASE_URL``, ``wandb login``).
    Raises BadRequestError for a malformed path, and for whatever the server or its absence answers.
    """
    import wandb
    from wandb.errors import Error

    entity, _, rest = path.partition("/")
    project, _, group = rest.partition("/")
    if not entity or not project:
        raise BadRequestError(f"wandb:{path} must be wandb:ENTITY/PROJECT or wandb:ENTITY/PROJECT/GROUP")
    runs = []
    try:
        api = wandb.Api(timeout=TIMEOUT_SECONDS)
        for run in api.runs(f"{entity}/{project}", filters={"group": group} if group else None):
            summary = {key: run.summary.get(key) for key in run.summary.keys()}  # noqa: SIM118 (no mapping)
            history = list(run.scan_history())
            code = EXIT_CODES.get(run.state)
            found = WandbRun(run.id, run.name, run.group or "", dict(run.config), summary, history, code)
            runs.append(without_bookkeeping(found))
    except (Error, ValueError, OSError) as error:
        raise BadRequestError(f"W&B did not give the runs of {path}: {error}") from None
    return read_runs(runs, roles, Raw())
