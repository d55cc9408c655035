import csv
import io
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulate import grid, write_sweep

import analysis
from analysis.errors import BadRequestError
from analysis.tables.csv import for_spreadsheets
from analysis.tables.latex import latex_escape, latex_line
from analysis.tables.listing import Listing
from analysis.tables.markdown import markdown_escape
from analysis.tables.render import FORMATS, render
from analysis.tables.table import build

HOSTILE = "</td><script>alert(1)</script>|a_b%&$#{}~^\\x"


@pytest.fixture(scope="module")
def table(rank_sweep: Path):
    return build(analysis.load(rank_sweep), "adapter.rank", "adapter.targets", "eval/loss", ("4",))


def test_table_cells_hold_mean_interval_and_n(table, rank_sweep: Path):
    entry = table.entries[("4", "attention")]
    trials = analysis.load(rank_sweep).trials
    cell = trials[(trials["adapter.rank"] == 4) & (trials["adapter.targets"] == "attention")]
    by_seed = cell.groupby("seed")["eval/loss"].mean()
    assert entry.summary.n == 5
    assert entry.summary.mean == pytest.approx(by_seed.mean())
    assert entry.summary.half == pytest.approx(2.776445 * by_seed.std() / 5**0.5)
    assert entry.mark == ""
    assert table.entries[("1", "attention")].mark == "*"


def test_table_makes_only_a_distinguishable_best_bold(table):
    assert [place for place, entry in table.entries.items() if entry.best] == [("full", "full")]


@pytest.mark.parametrize("rows", ["adapter.rank", "adapter.kind"])
def test_table_of_a_metric_without_noise_has_every_baseline_whatever_rates_were_swept(tmp_path: Path, rows: str):
    trials = grid(range(3), rank=[4], lr=[1e-4, 1e-3, 1e-2])
    sweep = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(0)))
    shown = render(build(sweep, rows, metric="params/trainable_ratio"), "md").splitlines()
    assert [line.split(" | ")[-1] for line in shown[2:5]] == [
        "0.019 ± 0 (n=3) |",  # 8,192 of 429,192, the mean of three equal rates, whose rounding is no interval
        "1.000 ± 0 (n=3) |",
        "0 (n=3) |",
    ]


def test_markdown_is_rectangular_and_shows_n(table):
    lines = [line for line in render(table, "md").splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert all("n=5" in line for line in lines[2:])
    assert "WARNING: cells are compared at a single learning rate" in render(table, "md")


def test_csv_has_full_precision_and_every_cell(table):
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert len(rows) == len(table.entries) == 8
    first = rows[0]
    assert (first["adapter.rank"], first["adapter.targets"], first["n"]) == ("1", "all_linear", "5")
    assert float(first["mean"]) == pytest.approx(table.entries[("1", "all_linear")].summary.mean, rel=1e-9)


def test_table_has_a_column_of_ratios_where_the_rows_decide_them(rank_sweep: Path):
    sweep = analysis.load(rank_sweep)
    text = render(build(sweep, "adapter.rank", None, "eval/loss", (), {"adapter.targets": ["attention"]}), "md")
    assert "| rank | trainable | eval loss ↓ |" in text
    assert "| full | 100% |" in text


def test_table_shows_lost_trials_as_a_rate_in_the_cell(tuned_sweep: Path):
    text = render(build(analysis.load(tuned_sweep), "adapter.rank", None, "eval/loss"), "md")
    assert "1 of 15 lost" in text
    assert "3 diverged and 0 failed trials" in text


def test_table_escapes_names_in_every_format(tmp_path: Path):
    trials = grid(rank=[1, 2], init=["kaiming", HOSTILE], references=(), seeds=range(3))
    sweep = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(0)))
    table = build(sweep, "adapter.rank", "adapter.init", "eval/loss")
    assert "<script>" not in render(table, "html")
    assert "<script" not in render(table, "md").replace("\\<", "")
    assert HOSTILE in [row["adapter.init"] for row in csv.DictReader(io.StringIO(render(table, "csv")))]
    assert latex_escape("50%_a\n") == r"50\%\_a "
    assert markdown_escape("adapter.r_x|*") == r"adapter.r_x\|\*"


@pytest.mark.skipif(not (shutil.which("pdflatex") or os.environ.get("REQUIRE_LATEX")), reason="no TeX here")
def test_latex_compiles(table, tmp_path: Path):
    hostile = replace(table, caption=table.caption + HOSTILE)
    answers = Listing("a", "b", ("prompt", "rank 4", "rank 8"), (("50% & more", "many words\n" * 40, "–"),), prose=True)
    document = (
        "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage[T1]{fontenc}\\usepackage{booktabs}"
        f"\\begin{{document}}{render(hostile, 'tex')}{render(answers, 'tex')}\\end{{document}}"
    )
    (tmp_path / "t.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert not re.findall(r"Overfull \\hbox \(\d{2,}", done.stdout)


def test_latex_is_plain_ascii_and_balanced(table):
    text = render(table, "tex")
    assert text.isascii()
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    assert all(line.endswith("\\\\") for line in body.splitlines()[1:] if line)
    assert text.count("{") == text.count("}")
    assert "over n=5 seeds" in text


@pytest.mark.parametrize("style", sorted(FORMATS))
def test_table_has_fifty_levels_or_one_trial(style: str, tmp_path: Path):
    many = grid(rank=list(range(1, 51)), references=(), seeds=range(3))
    sweep = analysis.load(write_sweep(tmp_path / "many", many, np.random.default_rng(0)))
    assert render(build(sweep, "adapter.rank", None, "eval/loss"), style).count("\n") > 50
    one = analysis.load(write_sweep(tmp_path / "one", many[:1], np.random.default_rng(0)))
    alone = build(one, "adapter.rank", None, "eval/loss")
    assert any("nothing can be concluded" in note for note in alone.notes)
    assert "±" not in render(alone, style).replace("mean ± 95%", "")


def test_table_counts_trials_that_lack_the_metric(rank_sweep: Path):
    sweep = analysis.load(rank_sweep)
    trials = sweep.trials.copy()
    trials.loc[trials["adapter.rank"] == 1, "eval/loss"] = np.nan
    table = build(replace(sweep, trials=trials), "adapter.rank", None, "eval/loss")
    assert any("Left out: 20 finished trials without eval/loss" in note for note in table.notes)
    assert table.entries[("1", "")].summary.n == 0
    with pytest.raises(BadRequestError, match="unknown metric"):
        build(replace(sweep, trials=trials.assign(**{"eval/loss": np.nan})), "adapter.rank", None, "eval/loss")


def test_table_refuses_the_seed_as_a_row(rank_sweep: Path):
    with pytest.raises(BadRequestError, match="the seed is what the table averages over"):
        build(analysis.load(rank_sweep), "seed", None, "eval/loss")


def test_escapes_print_what_was_written():
    assert markdown_escape("&lt; ~~x~~ __init__ a_b a&b") == r"\&lt; \~\~x\~\~ \_\_init\_\_ a_b a&b"
    assert for_spreadsheets("@x") == "'@x"
    assert latex_line(["[1]", "[2]"]) == r"{}[1] & [2] \\"
    assert latex_line(["*"]) == r"{}* \\"
    assert latex_line(["a", "[2]"]) == r"a & [2] \\"
