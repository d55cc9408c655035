"""Every figure of a report, drawn: nothing overlaps, nothing is cut, and the marks stand where the numbers are."""

import io
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from simulate import grid, write_sweep

import analysis
from analysis.columns import describe
from analysis.figures import figures, plots, style
from analysis.report.answer import Answer, add_comparison
from analysis.statistics.cells import observe
from analysis.statistics.compare import against, compare
from analysis.statistics.curves import learning_curves
from analysis.statistics.questions import questions

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def axis() -> Iterator["plots.Axes"]:
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(6.4, 4))
        FigureCanvasAgg(figure)
        yield figure.add_subplot()


def texts(figure: Figure) -> list[Text]:
    """What can be seen: every text but the labels of ticks outside their axis' view."""
    figure.draw_without_rendering()
    hidden = set()
    for axes in figure.axes:
        for line in (axes.xaxis, axes.yaxis):
            low, high = sorted(line.get_view_interval())
            ticks = [*line.get_major_ticks(), *line.get_minor_ticks()]
            hidden |= {id(tick.label1) for tick in ticks if not low <= tick.get_loc() <= high}
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in hidden]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of upright texts that cover each other by more than two pixels."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure) if not text.get_rotation() % 90]
    return [
        (one, two)
        for (one, a), (two, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "factors",
    [
        {"rank": [1, 2, 4, 8, 16], "targets": ["all_linear", "attention"]},
        {"rank": list(range(1, 41)), "init": ["kaiming", "pissa"]},
        {
            "targets": ["q_proj+k_proj+v_proj+o_proj", "gate_proj+up_proj+down_proj", "all_linear", "$x_1$"],
            "rank": [2, 4],
        },
        {"init": [f"initialisation_{i}" for i in range(12)]},
    ],
    ids=["two factors", "forty levels", "long names", "twelve words"],
)
def test_place_labels_lets_none_cover_another(factors: dict, tmp_path: Path):
    sweep = analysis.load(write_sweep(tmp_path / "s", grid(seeds=range(2), **factors), np.random.default_rng(0)))
    [question], _ = questions(sweep)
    answer = Answer(question)
    for factor in question.factors:
        add_comparison(answer, factor)
    drawings = list(figures.figures(question, sweep.history, answer.comparisons))
    wanted = {"response", "curves_eval-loss", "forgetting", "perf_alone_step_ms", "pareto_time", "pareto_memory"}
    assert wanted <= {drawing.name for drawing in drawings}
    with matplotlib.rc_context(style.STYLE):
        assert {drawing.name: found for drawing in drawings if (found := overlapping(drawing.figure()))} == {}


def test_curves_are_means_and_intervals_over_seeds(axis, rank_sweep: Path):
    sweep = analysis.load(rank_sweep)
    by_level = learning_curves(sweep.trials, sweep.history, "adapter.rank", "eval/loss")
    assert plots.curves(axis, by_level, "adapter.rank", describe("eval/loss")) is axis
    names = axis.get_legend_handles_labels()[1]
    assert names == ["1 (n=5)", "2 (n=5)", "4 (n=5)", "full fine-tuning (n=5)"]
    frame = sweep.history.merge(sweep.trials[["trial_id", "adapter.rank", "adapter.kind", "seed"]], on="trial_id")
    for number, (kind, rank) in enumerate([("lora", 1), ("lora", 2), ("lora", 4), ("full", None)]):
        rows = frame[(frame["adapter.kind"] == kind) & ((frame["adapter.rank"] == rank) | (rank is None))]
        by_seed = rows.groupby(["step", "seed"])["eval/loss"].mean().groupby("step")
        half = 2.776445 * by_seed.std() / 5**0.5  # t(0.975, 4)
        assert axis.lines[number].get_xdata() == pytest.approx([0, 50, 100, 150, 200])
        assert axis.lines[number].get_ydata() == pytest.approx(by_seed.mean().to_numpy())
        lows, highs = (by_seed.mean() + sign * half for sign in (-1, 1))
        band = axis.collections[number].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == pytest.approx((lows.min(), highs.max()), rel=1e-6)


def test_forest_fills_only_what_is_significant(axis, tmp_path: Path):
    trials = grid(range(12), rank=[4], init=["kaiming", "gaussian", "pissa"])
    sweep = analysis.load(write_sweep(tmp_path / "s", trials, np.random.default_rng(3)))
    seen = observe(sweep.trials, ("adapter.init",), "eval/loss")
    plots.forest(axis, compare(seen, against(seen, ("kaiming",))), describe("eval/loss"))
    points = [line for line in axis.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == "white" for line in points] == [True, False, False]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["gaussian", "pissa", "full"]


def test_front_is_what_nothing_beats_in_both():
    points = {("a",): (1.0, 5.0), ("b",): (2.0, 6.0), ("c",): (3.0, 2.0), ("d",): (3.0, 1.0), ("e",): (9.0, 1.0)}
    assert plots._front(points, 1.0) == [("a",), ("d",)]
    assert plots._front(points, -1.0) == [("a",), ("b",)]


def test_reference_lines_do_not_set_the_scale(axis, rank_sweep: Path):
    plots.response(axis, observe(analysis.load(rank_sweep).trials, ("adapter.rank", "adapter.targets"), "eval/loss"))
    assert axis.get_ylim()[1] < 1.8
    assert any(name.endswith("(off the scale)") for name in axis.get_legend_handles_labels()[1])


def test_colours_are_ordered_for_numbers_and_distinct_for_words():
    ranks = style.colours(["1", "2", "4", "full"])
    assert ranks["full"][0] == "#555555"
    words = style.colours(["a", "b", "c"])
    assert [words[name][0] for name in "abc"] == list(style.PALETTE[:3])
    assert len({marker for _, marker in style.colours([str(i) for i in range(8)]).values()}) == 8
    assert style.thinned([str(i) for i in range(50)], 4) == ["0", "16", "33", "49"]


def places(svg: bytes, kind: str) -> list[tuple[float, float]]:
    """Where the marks of ``kind`` stand in a drawing, in its own coordinates (y down)."""
    root = ElementTree.fromstring(svg)
    return [
        (float(mark.attrib["x"]), float(mark.attrib["y"]))
        for group in root.iter(f"{SVG}g")
        if group.attrib.get("id", "") == kind
        for mark in group.iter(f"{SVG}use")
    ]


def test_response_in_svg_has_every_seed_at_its_number(tmp_path: Path):
    rates = [1e-4, 1e-3, 3e-3, 1e-2]
    trials = grid(seeds=range(4), references=(), rank=[1, 4], lr=rates)
    sweep = analysis.load(
        write_sweep(
            tmp_path / "s",
            trials,
            np.random.default_rng(0),
            diverge=lambda t: t["optimizer"]["lr"] == 1e-2 and t["seed"] < 2,
        )
    )
    seen = observe(sweep.trials, ("optimizer.lr", "adapter.rank"), "eval/loss")
    svg = figures.Drawing("response", "", (6.4, 3.8), plots.response, (seen,)).files["svg"]
    values = sweep.trials.dropna(subset=["eval/loss"])
    drawn = np.array(places(svg, "seed"))
    assert len(drawn) == len(values) == 28
    # a straight line from data to picture, found from the extremes, puts every value where a point is
    lr, loss = np.log10(values["optimizer.lr"].to_numpy()), values["eval/loss"].to_numpy()
    expected = np.column_stack([straight(lr, drawn[:, 0], 1), straight(loss, drawn[:, 1], -1)])
    in_order = [one[np.lexsort((one[:, 1], one[:, 0].round(1)))] for one in (drawn, expected)]
    assert in_order[0] == pytest.approx(in_order[1], abs=0.02)
    [cross] = places(svg, "diverged")
    assert cross[0] == pytest.approx(drawn[:, 0].max(), abs=0.02)
    assert cross[1] < drawn[:, 1].min()
    assert b"<!-- 4 -->" in svg  # two diverged seeds of each rank


def test_files_are_one_picture_with_a_margin_around_what_is_drawn(rank_sweep: Path):
    seen = observe(analysis.load(rank_sweep).trials, ("adapter.rank", "adapter.targets"), "eval/loss")
    files = figures.Drawing("response", "", (6.4, 3.8), plots.response, (seen,)).files
    drawn = (imread(io.BytesIO(files["png"]))[..., :3] < 1).any(axis=2)
    inches = np.array(drawn.shape[::-1]) / style.STYLE["savefig.dpi"]
    [box] = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", files["pdf"])
    svg = ElementTree.fromstring(files["svg"]).attrib
    assert [float(side) / 72 for side in box] == pytest.approx(inches, abs=0.01)
    assert [float(svg[side].removesuffix("pt")) / 72 for side in ("width", "height")] == pytest.approx(inches, abs=0.01)
    for ways in (0, 1):
        first, *_, last = np.flatnonzero(drawn.any(axis=ways))
        assert [first, drawn.shape[1 - ways] - 1 - last] == pytest.approx([20, 20], abs=15)


def straight(data: np.ndarray, drawn: np.ndarray, way: int) -> np.ndarray:
    """``data`` on the line on which its extremes are those of ``drawn``; ``way`` −1: it runs downwards."""
    low, high = (drawn.min(), drawn.max()) if way > 0 else (drawn.max(), drawn.min())
    return low + (data - data.min()) / (data.max() - data.min()) * (high - low)


def test_forest_shows_the_difference_of_every_seed(axis, rank_sweep: Path):
    seen = observe(analysis.load(rank_sweep).trials, ("adapter.init",), "eval/loss")
    compared = compare(seen, against(seen, ("kaiming",)))
    plots.forest(axis, compared, describe("eval/loss"))
    drawn = [line.get_xdata() for line in axis.lines if line.get_gid() == "seed"]
    expected = [seen.cell((cell,)) - seen.cell(("kaiming",)) for cell in ("pissa", "full")]
    assert [sorted(one) for one in drawn] == [pytest.approx(sorted(one)) for one in expected]


def test_scale_of_numbers_is_logarithmic_where_they_are_spaced_by_ratios(axis):
    assert style.scale_x(axis, ["1", "2", "4", "8"]) == [1, 2, 4, 8]
    assert axis.get_xscale() == "log"
    axis.set_xscale("linear")
    assert style.scale_x(axis, ["10", "20", "30"]) == [10, 20, 30]
    assert axis.get_xscale() == "linear"
    assert style.scale_x(axis, ["1", "all", "unset"]) == [0, 1, 2]
