"""A saved W&B workspace for a sweep: the same questions as the report, on a W&B server.

Needs the optional package ``wandb-workspaces``. Building one needs no network; saving it needs a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.columns import RATIO, describe
from analysis.errors import BadRequestError
from analysis.sources.sweep import Sweep
from analysis.statistics.questions import questions
from sweep.metrics import TRAIN_LOSS, validation_name
from sweep.wandb_log import RESULT

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

MOST_CURVES = 6


def build(sweep: Sweep, entity: str, project: str) -> Workspace:
    """The workspace of ``sweep`` in ``entity/project``: curves, trade-offs, and what explains the metric.

    Its runs are those of the group that bears the sweep's name, as the W&B tracker writes them: factors are
    config keys, the record's metrics stand under ``result/`` in the summary.
    Raises BadRequestError where wandb-workspaces is not installed or no trial has a metric.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise BadRequestError("a workspace needs one more package: pip install wandb-workspaces") from None
    asked, silent = questions(sweep)
    if not asked:
        raise BadRequestError("; ".join(silent))
    question = asked[0]
    names = [str(name) for name in sweep.trials["name"].dropna().unique()]
    logged = [
        name
        for name in (*map(validation_name, (question.primary, *question.secondary)), TRAIN_LOSS.name)
        if name in sweep.history
    ]
    ratio, metric = panels.SummaryMetric(RATIO), panels.SummaryMetric(RESULT + question.primary)
    axes = [
        panels.ParallelCoordinatesPlotColumn(panels.Config(name), display_name=describe(name).label)
        for name in question.factors
    ]
    axes += [
        panels.ParallelCoordinatesPlotColumn(ratio, display_name=describe(RATIO).label, log=True),
        panels.ParallelCoordinatesPlotColumn(metric, display_name=question.column(question.primary).title),
    ]
    curves: list[Any] = [
        panels.LinePlot(
            title=f"{name} by {describe(question.rows).label}: mean and standard error",
            x="step",
            y=[name],
            groupby=panels.Config(question.rows),
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
        )
        for name in dict.fromkeys(logged[:MOST_CURVES])
    ]
    answers: list[Any] = [
        panels.ScatterPlot(title=f"{question.primary} against trainable ratio", x=ratio, y=metric, log_x=True),
        panels.ParallelCoordinatesPlot(columns=axes, title="all trials"),
        panels.ParameterImportancePlot(with_respect_to=RESULT + question.primary),
        panels.RunComparer(diff_only="split"),
    ]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"{sweep.name} ablation",
        sections=[
            workspaces.Section("What the factors do", answers, is_open=True),
            workspaces.Section("Training", curves, is_open=True),
        ],
        runset_settings=workspaces.RunsetSettings(
            filters=[workspaces.Metric("group").isin(names)],
        ),
    )


def serialised(workspace: Workspace) -> str:
    """The workspace as the JSON that a server would receive."""
    text: str = workspace._to_model().model_dump_json(by_alias=True, exclude_none=True)
    return text


def save(workspace: Workspace) -> str:
    """Save on the server that W&B's settings name, and return the address.

    Raises BadRequestError for whatever the server or its absence answers.
    """
    from wandb.errors import Error

    try:
        workspace.save()
    except (Error, ValueError, OSError) as error:
        raise BadRequestError(f"W&B did not save the workspace: {error}") from None
    url: str = workspace.url
    return url
