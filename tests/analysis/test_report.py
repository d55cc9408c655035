import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from simulate import grid, make_trial, write_sweep

import analysis
from analysis.errors import BadRequestError
from analysis.report import report
from analysis.report.page import render
from analysis.report.watch import watch


class Page(HTMLParser):
    """Collects what a page would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copied(sweep: Path, place: Path) -> Path:
    """A copy of ``sweep`` without what others have written beside its trials."""
    return Path(shutil.copytree(sweep, place / sweep.name, ignore=shutil.ignore_patterns("report")))


@pytest.fixture(scope="module")
def folder(rank_sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep over ranks, with its report."""
    folder = copied(rank_sweep, tmp_path_factory.mktemp("here"))
    report.write(analysis.load(folder))
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report" / "index.html").read_text(encoding="utf-8")


def without_figures(folder: Path) -> str:
    """The page of a sweep, without the figures, which take most of its time."""
    sweep = analysis.load(folder)
    return render(sweep, report.answer_all(sweep), "")


@pytest.mark.slow
def test_report_of_the_same_records_has_the_same_bytes(folder: Path, tmp_path: Path):
    copy = copied(folder, tmp_path)
    report.write(analysis.load(copy))
    assert len(tree(folder / "report")) > 20
    assert tree(folder / "report") == tree(copy / "report")


def test_report_first_says_what_was_asked_found_and_how_sure(page: str):
    text = re.sub(r"<[^>]+>", "", page)
    assert (
        "How does eval loss on transformer depend on rank (1, 2, 4), targets (all_linear, attention) and init" in text
    )
    assert "The lowest mean eval loss among the LoRA cells is" in text
    assert "at rank 4 and targets all_linear" in text
    assert "Against rank 1 — better: 2 (−0.0" in text
    assert "Differences are paired by seed (n=5)" in text
    assert "cells are compared at a single learning rate" in text


def test_report_fetches_nothing_and_allows_only_its_own_script(page: str):
    found = Page(page)
    assert not [tag for tag, _ in found.tags if tag in ("link", "iframe", "object", "embed", "base")]
    for _, attributes in found.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    [policy] = [a["content"] for t, a in found.tags if t == "meta" and a.get("http-equiv")]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_report_without_samples_has_no_place_for_them(page: str):
    assert "Answers to held-out prompts" not in page


def test_report_leaves_tables_figures_and_hashes(folder: Path, page: str):
    out = folder / "report"
    stem = "eval-loss_by_adapter.rank_and_adapter.targets"
    assert all((out / "tables" / f"{stem}.{style}").exists() for style in ("md", "tex", "csv"))
    assert {path.stem for path in (out / "figures").glob("*.svg")} == {p.stem for p in (out / "figures").glob("*.png")}
    assert {"response", "heat", "forest_rank", "pareto", "forgetting", "curves_eval-loss"} <= {
        path.stem for path in (out / "figures").glob("*.png")
    }
    hashes = json.loads((out / "sources.json").read_text())
    record = folder / "trial_00000" / "record.json"
    assert hashes["trial_00000"] == hashlib.sha256(record.read_bytes()).hexdigest()
    assert report.combined(hashes) in page


def test_report_answers_for_every_task_of_a_mixed_sweep(tmp_path: Path):
    trials = [make_trial(s, task=t, rank=r) for s in range(3) for t in ("mnist", "transformer") for r in (1, 4)]
    folder = write_sweep(tmp_path / "mixed", trials, np.random.default_rng(0))
    text = without_figures(folder)
    assert ">mnist: verdict</h2>" in text
    assert ">transformer: verdict</h2>" in text
    names = [name for one in report.answer_all(analysis.load(folder)) for name in one.files]
    assert "tables/mnist_eval-loss_by_adapter.rank.md" in names
    assert len(names) == len(set(names))


def test_report_of_one_trial_concludes_nothing(tmp_path: Path):
    folder = write_sweep(tmp_path / "one", [make_trial(0)], np.random.default_rng(0))
    text = without_figures(folder)
    assert "nothing can be concluded" in text


def test_report_counts_and_names_lost_trials(tmp_path: Path):
    trials = grid(rank=[1, 2], seeds=range(3))
    folder = write_sweep(
        tmp_path / "lost",
        trials,
        np.random.default_rng(0),
        diverge=lambda t: t["seed"] == 1 and t["adapter"]["rank"] == 2,
    )
    (folder / "trial_00000" / "record.json").unlink()
    text = without_figures(folder)
    assert "12 trials: 10 finished, 1 diverged, 1 missing (unfinished: trial_00000)." in text
    assert "diverged (Diverged: loss is not finite at step 20)" in text


def test_report_refuses_a_sweep_where_all_diverged(tmp_path: Path):
    folder = write_sweep(
        tmp_path / "gone", grid(rank=[1, 2], references=()), np.random.default_rng(0), diverge=lambda _: True
    )
    with pytest.raises(BadRequestError, match="no finished trial of transformer has a metric"):
        report.write(analysis.load(folder))


@pytest.mark.usefixtures("one_figure")
def test_watch_writes_again_only_when_something_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_sweep(tmp_path / "live", [make_trial(0), make_trial(1)], np.random.default_rng(0))  # few figures
    hidden = (folder / "trial_00000" / "record.json").rename(folder / "later")
    looks = []

    def go_on() -> bool:
        looks.append(1)
        if len(looks) == 3:
            hidden.rename(folder / "trial_00000" / "record.json")
        return len(looks) < 5

    watch([str(folder)], None, 0.01, go_on)
    assert capsys.readouterr().out.count("wrote") == 2
    with pytest.raises(BadRequestError, match="above 0"):
        watch([str(folder)], None, 0)
