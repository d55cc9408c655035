"""Answers in the report: the same prompts, the untouched base and the cells side by side."""

import re
from pathlib import Path

import numpy as np
import pytest
from simulate import grid, write_sweep

import analysis
from analysis.report import report
from analysis.report.samples import LONGEST_TEXT, MOST_PROMPTS, samples
from analysis.statistics.questions import questions
from analysis.tables.listing import listing_html
from sweep.samples import SAMPLES_FILE, Sample, read, write

TRIALS = grid(seeds=range(2), rank=[8, 2], references=("none",))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "answers", TRIALS, np.random.default_rng(0))


def folder_of(sweep: Path, rank: int | None, seed: int) -> Path:
    """The folder of the trial of this rank, or of the untouched base."""
    [place] = [n for n, one in enumerate(TRIALS) if (one["adapter"]["rank"], one["seed"]) == (rank, seed)]
    return sweep / f"trial_{place:05d}"


@pytest.mark.usefixtures("one_figure")
def test_samples_stand_side_by_side_with_the_base_first(sweep: Path) -> None:
    for rank in (None, 2, 8):
        for seed in range(2):
            answers = [
                Sample(f"system\nprompt {n}\nassistant\n", f"expected {n}", f"{rank} at {seed} to {n}")
                for n in range(2)
            ]
            write(answers, folder_of(sweep, rank, seed) / SAMPLES_FILE)
    page = report.write(analysis.load(sweep)).read_text(encoding="utf-8")
    [table] = re.findall(r'<table class="prose">.*?</table>', page, re.S)
    assert "Every prompt begins with: system, and ends with: assistant<" in table
    heads = re.findall(r'<th scope="col">(.*?)</th>', table)
    assert heads == ["prompt", "expected", "untouched base", "rank 2", "rank 8"]
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>.*?</tr>", table, re.S)[1:]]
    assert rows == [
        [f"prompt {n}", f"expected {n}", *(f"{rank} at 0 to {n}" for rank in (None, 2, 8))] for n in range(2)
    ]


def test_samples_that_somebody_else_wrote_are_bounded_and_escaped(sweep: Path) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m" + "x" * 10_000
    write([Sample(f"{n} {hostile}", hostile, hostile) for n in range(100)], folder_of(sweep, 2, 0) / SAMPLES_FILE)
    (folder_of(sweep, 8, 0) / SAMPLES_FILE).write_text('{"prompt": "a", "answer": 3}\n')
    (folder_of(sweep, 8, 1) / SAMPLES_FILE).symlink_to("/etc/passwd")
    [question], _ = questions(analysis.load(sweep))
    listing, problems = samples(question)
    assert listing is not None
    page = listing_html(listing)
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "x" * (LONGEST_TEXT + 1) not in page
    assert page.count("&lt;script&gt;alert") == 3 * MOST_PROMPTS
    assert f"the first {MOST_PROMPTS} of 100 prompts" in page
    for reason in ("not samples (line 1 has no prompt, expected, answer)", "is a symbolic link"):
        assert any(f"{SAMPLES_FILE} is left out ({reason})" in problem for problem in problems)


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    answers = [Sample("Who?\n", "Þou\u2028", '"'), Sample("", "", "")]
    write(answers, tmp_path / SAMPLES_FILE)
    assert read(tmp_path / SAMPLES_FILE) == answers


def test_samples_of_one_prompt_and_of_many_cells_are_shown_whole_and_few(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in sweep.iterdir():
        write([Sample("system\nWho?", "God", "A man")], folder / SAMPLES_FILE)
    [question], _ = questions(analysis.load(sweep))
    listing, problems = samples(question)
    assert listing is not None
    assert (listing.rows[0][0], len(listing.heads), problems) == ("system\nWho?", 5, [])
    monkeypatch.setattr("analysis.report.samples.MOST_CELLS", 2)
    few, _ = samples(question)
    assert few is not None
    assert len(few.heads) == 4
