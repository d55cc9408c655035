"""Command line: ``python -m analysis outputs/NAME`` writes the report; ``--help`` shows what else."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from analysis import Results, load
from analysis.errors import BadRequestError
from analysis.statistics.confidence import INTERVAL_NAME, Generalise
from analysis.tables.render import FORMATS
from sweep.files import make_folder, replace_file
from sweep.text import run_command, say

COMMANDS = ("report", "table", "compare", "export", "workspace", "serve")


def run() -> None:
    """Answer what ``sys.argv`` asks and exit."""
    run_command(main, "lora-report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand: 0 when it answered, 2 with one message on stderr when it cannot be answered."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] not in COMMANDS and not given[0].startswith("-"):
        given.insert(0, "report")
    options = parser().parse_args(given)
    try:
        COMMAND[options.command](options)
    except KeyboardInterrupt:
        return 130
    except (BadRequestError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:  # of the standard output
            raise
        say("\n".join(f"error: {error}".splitlines()), sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line's grammar; importing nothing heavy, so that ``--help`` answers at once."""
    top = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Compare the trials of a sweep. With a folder alone: write its report.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")

    def bare(name: str, does: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=does.replace("%", "%%"), description=does)

    def command(name: str, does: str) -> argparse.ArgumentParser:
        sub = bare(name, does)
        sub.add_argument(
            "source",
            nargs="+",
            help="outputs/NAME, a folder of .wandb files, wandb:entity/project[/group], or results of another program",
        )
        sub.add_argument(
            "--metric", help="what is compared (default: test/loss, eval/loss where trials were not tested)"
        )
        of_others(sub)
        return sub

    def verdicts(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--generalise",
            default="both",
            choices=get_args(Generalise),
            help="what verdicts should hold for: new seeds, new test examples, or both (default)",
        )
        sub.add_argument(
            "--margin",
            type=float,
            metavar="X",
            help="call cells equivalent that are shown to differ by less than X",
        )

    def question(sub: argparse.ArgumentParser) -> None:
        verdicts(sub)
        sub.add_argument(
            "--where",
            action="append",
            default=[],
            metavar="FACTOR=LEVEL[,LEVEL]",
            help="only these trials",
        )

    report = command("report", "write report/index.html beside the trials: answer, tables, figures, explorer")
    report.add_argument("--out", type=Path, help="the report's folder (default: SOURCE/report)")
    verdicts(report)
    report.add_argument("--watch", type=float, metavar="SECONDS", help="rewrite it whenever a record changes")

    table = command("table", f"one metric over rows × columns: mean ± {INTERVAL_NAME} with n")
    table.add_argument("--rows", required=True, help="a factor, e.g. adapter.rank")
    table.add_argument("--columns", help="a second factor, e.g. adapter.targets")
    table.add_argument("--baseline", default="", metavar="ROW[,COLUMN]", help="mark cells that differ from it")
    table.add_argument("--format", default="md", choices=tuple(FORMATS))
    question(table)

    versus = command("compare", "paired comparison of the levels of one factor with a baseline, in words")
    versus.add_argument("--factor", required=True, help="e.g. adapter.init")
    versus.add_argument("--baseline", required=True, help="the level that the others are compared with")
    question(versus)

    export = command("export", "all trials as one table for other tools")
    export.add_argument("--to", type=Path, help="a .parquet or .csv file (default: report/trials.parquet)")

    workspace = command("workspace", "a saved W&B workspace for the sweep (needs wandb-workspaces)")
    workspace.add_argument("--project", required=True, metavar="ENTITY/PROJECT", help="where the runs are")
    workspace.add_argument("--save", action="store_true", help="save it there; otherwise print it as JSON")

    server = bare("serve", "a live dashboard of all sweeps, on this machine only (needs lora-sweep[serve])")
    server.add_argument(
        "outputs", nargs="?", type=Path, default=Path("outputs"), help="the folder of the sweeps (default: outputs)"
    )
    server.add_argument(
        "--port", type=int, default=8765, help="the port of http://127.0.0.1:PORT (default: %(default)s)"
    )
    return top


def of_others(sub: argparse.ArgumentParser) -> None:
    """Add the arguments about the results of another program."""
    group = sub.add_argument_group(
        "results of another program",
        "a .csv, .parquet or .jsonl file, W&B runs, or a folder of trainer_state.json or of lm-evaluation-harness's samples",
    )
    group.add_argument(
        "--seed", default="seed", metavar="NAME", help="the setting that distinguishes replicates (default: seed)"
    )
    group.add_argument(
        "--factors", metavar="NAME[,NAME]", help="the settings (default: columns with the same value in several trials)"
    )
    group.add_argument("--example", metavar="NAME", help="the column of examples, where a row is the score of one")
    for better in ("lower", "higher"):
        group.add_argument(
            f"--{better}-is-better",
            dest="lower_is_better",
            action="store_const",
            const=better == "lower",
            help=f"a {better} metric is better (default: known for ours, and lower where its name ends in loss)",
        )


def loaded(options: argparse.Namespace) -> Results:
    """The results that the sources of the command line hold."""
    factors = options.factors.split(",") if options.factors else None
    return load(
        options.source,
        metric=options.metric,
        seed=options.seed,
        factors=factors,
        lower_is_better=options.lower_is_better,
        example=options.example,
    )


def question_of(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments that tables and comparisons share."""
    asked = {"metric": options.metric, "where": conditions(options.where)}
    return asked | {"generalise": options.generalise, "margin": options.margin}


def run_report(options: argparse.Namespace) -> None:
    """Write the report and print its path; with --watch, again whenever the trials change, until interrupted."""
    asked = {"generalise": options.generalise, "margin": options.margin}
    if options.watch is None:
        say(str(loaded(options).report(options.out, **asked)))
        return
    from analysis.report.watch import watch

    watch(options.source, options.out, options.watch, **asked)


def run_table(options: argparse.Namespace) -> None:
    """Print the table and leave it as Markdown and CSV (and in the asked format) in ``report/``."""
    results = loaded(options)
    baseline = tuple(item.strip() for item in options.baseline.split(",") if item.strip())
    if len(baseline) > (2 if options.columns else 1):
        raise BadRequestError(f"--baseline {options.baseline!r}: give a row level, or a row and a column level")
    shown = results.table(options.rows, options.columns, baseline=baseline, **question_of(options))
    say(shown.render(options.format).removesuffix("\n"))
    if results.folder is not None:
        written = [
            write(results.folder, f"{shown.name}.{style}", shown.render(style))
            for style in dict.fromkeys(("md", "csv", options.format))
        ]
        say(f"wrote {', '.join(map(str, written))}", sys.stderr)


def run_compare(options: argparse.Namespace) -> None:
    """Print the verdict of each level against the baseline."""
    say(str(loaded(options).compare(options.factor, options.baseline, **question_of(options))))


def run_export(options: argparse.Namespace) -> None:
    """Write the trials' frame to one file."""
    from analysis.tables.csv import for_spreadsheets

    sweep = loaded(options)
    default = (sweep.folder or Path()) / "report" / "trials.parquet"
    target = options.to or default
    if target.suffix == ".csv":
        texts = [name for name, kind in sweep.trials.dtypes.items() if kind == "str"]
        safe = {str(name): sweep.trials[name].map(for_spreadsheets, na_action="ignore") for name in texts}
        content = sweep.trials.assign(**safe).rename(columns=for_spreadsheets).to_csv(index=False).encode()
    elif target.suffix == ".parquet":
        content = sweep.trials.to_parquet(index=False)
    else:
        raise BadRequestError(f"--to {target}: the name must end in .parquet or .csv")
    make_folder(default.parent) if options.to is None else target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, content)
    say(f"wrote {len(sweep.trials)} trials to {target}")


def run_workspace(options: argparse.Namespace) -> None:
    """Print the workspace as JSON, or save it and print its address."""
    from analysis.report import workspace

    entity, _, project = options.project.partition("/")
    if not entity or not project:
        raise BadRequestError(f"--project {options.project!r} must be ENTITY/PROJECT")
    view = workspace.build(loaded(options), entity, project)
    say(workspace.save(view) if options.save else workspace.serialised(view))


def run_serve(options: argparse.Namespace) -> None:
    """Answer on the loopback until interrupted."""
    try:
        from analysis.report.serve import serve
    except ModuleNotFoundError as error:
        raise BadRequestError(f"the dashboard needs {error.name}: pip install 'lora-sweep[serve]'") from None
    serve(options.outputs, options.port)


def conditions(given: Sequence[str]) -> dict[str, list[str]]:
    """``["adapter.init=kaiming,pissa"]`` to ``{"adapter.init": ["kaiming", "pissa"]}``."""
    levels: dict[str, list[str]] = {}
    for item in given:
        factor, sign, wanted = item.partition("=")
        if not sign or not factor or not wanted:
            raise BadRequestError(f"--where {item!r} must be FACTOR=LEVEL or FACTOR=LEVEL,LEVEL")
        levels.setdefault(factor, []).extend(wanted.split(","))
    return levels


def write(folder: Path, name: str, text: str) -> Path:
    """Write ``text`` into the sweep's report folder and return its path."""
    target = folder / "report" / name
    make_folder(target.parent)
    replace_file(target, text.encode())
    return target


COMMAND = {
    "report": run_report,
    "table": run_table,
    "compare": run_compare,
    "export": run_export,
    "workspace": run_workspace,
    "serve": run_serve,
}

if __name__ == "__main__":
    run()
